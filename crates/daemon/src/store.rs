//! Which store to use: from the environment or a `calicoctl.cfg`.
//!
//! Never: opens it.

use crate::env::Env;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Where the embedded store is when nobody says.
pub const DEFAULT_STORE: &str = "/var/lib/manx/store.db";
/// Where the configuration file is when nobody says.
pub const DEFAULT_CONFIG: &str = "/etc/calico/calicoctl.cfg";

/// The store to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreConfig {
    /// One file on this machine.
    Embedded {
        /// The file.
        path: PathBuf,
    },
    /// Nothing but memory: for tests.
    Memory,
}

/// Why it is not known which store to use.
#[derive(Debug, thiserror::Error)]
pub enum StoreConfigError {
    /// The file cannot be read.
    #[error("read config file {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no `CalicoAPIConfig`.
    #[error("invalid config file: {reason} ({})", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A store that this build does not have.
    #[error(
        "datastore type {kind} ({source_name}) is not in this build yet: use embedded (DATASTORE_TYPE=embedded)"
    )]
    NotYet {
        /// `etcdv3` or `kubernetes`.
        kind: String,
        /// Which setting asks for it.
        source_name: String,
    },
    /// No such store.
    #[error("unknown datastore type {kind:?} ({source_name}): use embedded")]
    Unknown {
        /// As given.
        kind: String,
        /// Which setting asks for it.
        source_name: String,
    },
}

impl StoreConfig {
    /// The file of an embedded store; `None` for one in memory.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Embedded { path } => Some(path),
            Self::Memory => None,
        }
    }

    /// From the file when it exists, else from the environment alone. `file` is
    /// what the user named, which then has to exist; `None` is the usual place.
    ///
    /// # Errors
    /// Says which file or variable asks for what cannot be.
    pub fn load(file: Option<&Path>, env: &impl Env) -> Result<Self, StoreConfigError> {
        let path = file.unwrap_or(Path::new(DEFAULT_CONFIG));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::from_file(&text, path, env),
            Err(e) if file.is_none() && e.kind() == std::io::ErrorKind::NotFound => {
                Self::from_env(env)
            }
            Err(source) => Err(StoreConfigError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// From `DATASTORE_TYPE` and `MANX_STORE`; embedded when neither is set.
    ///
    /// # Errors
    /// Names the variable.
    pub fn from_env(env: &impl Env) -> Result<Self, StoreConfigError> {
        let either = |name: &str| {
            let long = format!("CALICO_{name}");
            let of = |n: &str| env.var(n).map(|v| (v, format!("{n} in the environment")));
            of(name).or_else(|| of(&long))
        };
        let (kind, source_name) = match either("DATASTORE_TYPE") {
            Some(asked) => asked,
            // As Calico does: endpoints without a type mean etcd.
            None => match either("ETCD_ENDPOINTS") {
                Some((_, source)) => ("etcdv3".to_owned(), source),
                None => ("embedded".to_owned(), "default".to_owned()),
            },
        };
        Self::of(&kind, source_name, None, env)
    }

    fn from_file(text: &str, path: &Path, env: &impl Env) -> Result<Self, StoreConfigError> {
        let invalid = |reason: String| StoreConfigError::Invalid {
            path: path.to_owned(),
            reason,
        };
        let head: Head = serde_saphyr::from_str(text).map_err(|e| invalid(e.to_string()))?;
        if head.kind != "CalicoAPIConfig" {
            return Err(invalid(format!(
                "expected kind 'CalicoAPIConfig', got '{}'",
                head.kind
            )));
        }
        if head.api_version != "projectcalico.org/v3" {
            return Err(invalid(format!(
                "unknown APIVersion '{}'",
                head.api_version
            )));
        }
        let file: File = serde_saphyr::from_str(text).map_err(|e| invalid(e.to_string()))?;
        let source = format!("spec.datastoreType in {}", path.display());
        let kind = match (&file.spec.datastore_type, &file.spec.etcd_endpoints) {
            (Some(kind), _) => kind.clone(),
            (None, Some(_)) => "etcdv3".to_owned(),
            (None, None) => "embedded".to_owned(),
        };
        Self::of(&kind, source, file.spec.manx_store.map(PathBuf::from), env)
    }

    fn of(
        kind: &str,
        source_name: String,
        path: Option<PathBuf>,
        env: &impl Env,
    ) -> Result<Self, StoreConfigError> {
        let kind = kind.to_owned();
        match kind.as_str() {
            "embedded" => {
                let named = || env.var("MANX_STORE").map(PathBuf::from);
                let path = path.or_else(named).unwrap_or_else(|| DEFAULT_STORE.into());
                Ok(Self::Embedded { path })
            }
            "memory" => Ok(Self::Memory),
            "etcdv3" | "kubernetes" => Err(StoreConfigError::NotYet { kind, source_name }),
            _ => Err(StoreConfigError::Unknown { kind, source_name }),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

// Every field that Calico's own tools read: a file of theirs is valid here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "read to be refused when misspelt; most are of other stores"
)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    metadata: Option<Metadata>,
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "named by users, meaningless")]
struct Metadata {
    #[serde(default)]
    name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Spec {
    datastore_type: Option<String>,
    /// The embedded store's file.
    manx_store: Option<String>,
    etcd_endpoints: Option<String>,
    etcd_discovery_srv: Option<String>,
    etcd_username: Option<String>,
    etcd_password: Option<String>,
    etcd_key_file: Option<String>,
    etcd_cert_file: Option<String>,
    #[serde(rename = "etcdCACertFile")]
    etcd_ca_cert_file: Option<String>,
    etcd_key: Option<String>,
    etcd_cert: Option<String>,
    #[serde(rename = "etcdCACert")]
    etcd_ca_cert: Option<String>,
    kubeconfig: Option<String>,
    kubeconfig_inline: Option<String>,
    #[serde(rename = "k8sAPIEndpoint")]
    k8s_api_endpoint: Option<String>,
    #[serde(rename = "k8sKeyFile")]
    k8s_key_file: Option<String>,
    #[serde(rename = "k8sCertFile")]
    k8s_cert_file: Option<String>,
    #[serde(rename = "k8sCAFile")]
    k8s_ca_file: Option<String>,
    #[serde(rename = "k8sAPIToken")]
    k8s_api_token: Option<String>,
    #[serde(rename = "k8sInsecureSkipTLSVerify")]
    k8s_insecure_skip_tls_verify: Option<bool>,
    #[serde(rename = "k8sDisableNodePoll")]
    k8s_disable_node_poll: Option<bool>,
    #[serde(rename = "usePodCIDR")]
    use_pod_cidr: Option<bool>,
    #[serde(rename = "k8sClientQPS")]
    k8s_client_qps: Option<f64>,
    k8s_client_burst: Option<u32>,
    k8s_current_context: Option<String>,
    #[serde(rename = "calicoAPIGroup")]
    calico_api_group: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> &'a [(&'a str, &'a str)] {
        pairs
    }

    fn embedded(path: &str) -> StoreConfig {
        StoreConfig::Embedded { path: path.into() }
    }

    #[test]
    fn from_the_environment() {
        let ok = |pairs| StoreConfig::from_env(&env(pairs)).expect("valid");
        assert_eq!(ok(&[]), embedded(DEFAULT_STORE));
        assert_eq!(ok(&[("MANX_STORE", "/x/y")]), embedded("/x/y"));
        assert_eq!(ok(&[("DATASTORE_TYPE", "memory")]), StoreConfig::Memory);
        let err = |pairs| {
            StoreConfig::from_env(&env(pairs))
                .expect_err("refused")
                .to_string()
        };
        let text = err(&[("DATASTORE_TYPE", "kubernetes")]);
        assert!(
            text.contains("kubernetes (DATASTORE_TYPE in the environment)"),
            "{text}"
        );
        assert!(
            text.contains("not in this build yet: use embedded"),
            "{text}"
        );
        assert!(err(&[("ETCD_ENDPOINTS", "http://e:2379")]).contains("etcdv3 (ETCD_ENDPOINTS"));
        assert!(
            err(&[("CALICO_DATASTORE_TYPE", "zoo")]).contains("unknown datastore type \"zoo\"")
        );
    }

    #[test]
    fn a_file_wins_and_is_read_strictly() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("calicoctl.cfg");
        let load = |text: &str| {
            std::fs::write(&path, text).expect("write");
            StoreConfig::load(Some(&path), &env(&[("DATASTORE_TYPE", "memory")]))
        };
        let head = "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\n";
        let text = format!("{head}spec:\n  datastoreType: embedded\n  manxStore: /a/b\n");
        assert_eq!(load(&text).expect("valid"), embedded("/a/b"));
        let text = format!("{head}spec:\n  etcdEndpoints: http://e\n");
        assert!(matches!(load(&text), Err(StoreConfigError::NotYet { .. })));
        let text = format!("{head}spec:\n  datastoreTyp: embedded\n");
        let e = load(&text).expect_err("strict").to_string();
        assert!(
            e.starts_with("invalid config file: ") && e.contains("datastoreTyp"),
            "{e}"
        );
        let e = load("kind: Pod\n").expect_err("kind").to_string();
        assert!(
            e.contains("expected kind 'CalicoAPIConfig', got 'Pod'"),
            "{e}"
        );
        let missing = StoreConfig::load(Some(&dir.path().join("none")), &env(&[]));
        assert!(matches!(missing, Err(StoreConfigError::Read { .. })));
    }
}
