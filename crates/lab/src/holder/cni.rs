//! A container runtime's side of CNI, as much as pods need.
//!
//! Promises: plugins run in the order of the node's conflist, each with the result of the one
//! before and the arguments of its capabilities, in the node's network; deletion runs them
//! backwards with the cached result; a failure is the plugin's own words.
//!
//! Never: does a plugin's work. Semantics: CNI specification 1.0.0, sections 3 and 4.

use crate::holder::children::Children;
use crate::holder::node::{Node, cni_log, passes};
use crate::state::Dir;
use serde_json::{Map, Value, json};
use std::fs;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

const CONFLIST: &str = "cni/net.d/10-calico.conflist";
/// The reference plugins that Calico's own conflist chains.
const CHAINED: [&str; 2] = ["portmap", "bandwidth"];
/// Longer than the plugin waits for anything itself.
const PATIENCE: Duration = Duration::from_secs(100);

/// Why a plugin failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plugin type={plugin:?} failed ({command}): {message}")]
pub(super) struct CniError {
    /// Its type.
    pub plugin: String,
    /// `add` or `delete`.
    pub command: &'static str,
    /// What it said.
    pub message: String,
}

/// What is to be attached.
#[derive(Debug, Clone)]
pub(super) struct Attachment {
    /// Of the sandbox, 64 hex digits.
    pub container_id: String,
    /// Path of the sandbox's network namespace.
    pub netns: PathBuf,
    /// Namespace of the pod.
    pub namespace: String,
    /// The pod.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Arguments by capability.
    pub capabilities: Map<String, Value>,
}

/// Runs plugins for all nodes.
#[derive(Debug)]
pub(super) struct Runtime {
    dir: Dir,
    path: Vec<PathBuf>,
    /// Reference plugins that are not installed.
    pub missing: Vec<&'static str>,
}

impl Runtime {
    /// Installs this program as the plugins, and looks where the reference plugins are.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub(super) fn new(dir: &Dir, exe: &Path) -> io::Result<Self> {
        let bin = dir.path().join("cni-bin");
        fs::create_dir_all(&bin)?;
        for name in ["calico", "calico-ipam"] {
            std::os::unix::fs::symlink(exe, bin.join(name))?;
        }
        let path = vec![
            bin,
            PathBuf::from("/opt/cni/bin"),
            PathBuf::from("/usr/lib/cni"),
        ];
        let absent = |n: &&str| !path.iter().any(|d| d.join(n).exists());
        let missing = CHAINED.into_iter().filter(absent).collect();
        Ok(Self {
            dir: dir.clone(),
            path,
            missing,
        })
    }

    /// Writes a node's conflist.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn configure(
        &self,
        node: &Node,
        families: scenario::plan::FamilySet,
    ) -> io::Result<()> {
        let socket = self.dir.agent_socket(&node.name);
        let mut plugins = vec![json!({
            "type": "calico",
            "datastore_type": "embedded",
            "nodename": node.name,
            "agent_socket": socket,
            "mtu": 0,
            "log_level": "info",
            "ipam": {
                "type": "calico-ipam",
                "assign_ipv4": families.v4.to_string(),
                "assign_ipv6": families.v6.to_string(),
            },
            "policy": {"type": "k8s"},
            "kubernetes": {},
        })];
        if !self.missing.contains(&"portmap") {
            let capabilities = json!({"portMappings": true});
            plugins.push(json!({"type": "portmap", "snat": true, "capabilities": capabilities}));
        }
        if !self.missing.contains(&"bandwidth") {
            plugins.push(json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}));
        }
        let conflist =
            json!({"name": "k8s-pod-network", "cniVersion": "0.3.1", "plugins": plugins});
        let text = format!("{conflist:#}\n");
        fs::write(self.dir.node(&node.name).join(CONFLIST), text)
    }

    fn conflist(&self, node: &Node) -> Result<(Value, Vec<Value>), String> {
        let path = self.dir.node(&node.name).join(CONFLIST);
        let at = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let text = fs::read(&path).map_err(|e| at(&e))?;
        let mut list: Value = serde_json::from_slice(&text).map_err(|e| at(&e))?;
        match list.get_mut("plugins").map(Value::take) {
            Some(Value::Array(plugins)) => Ok((list, plugins)),
            _ => Err(at(&"there are no plugins in it")),
        }
    }

    fn cache(&self, node: &Node, a: &Attachment) -> PathBuf {
        let file = format!("cni/cache/k8s-pod-network-{}-eth0", a.container_id);
        self.dir.node(&node.name).join(file)
    }

    /// Attaches; gives the result of the last plugin.
    ///
    /// # Errors
    /// The first plugin's that failed. The caller must `delete` then, as a runtime does.
    pub(super) fn add(
        &self,
        children: &Children,
        node: &Node,
        a: &Attachment,
    ) -> Result<Value, CniError> {
        let (list, plugins) = self
            .conflist(node)
            .map_err(|m| failed("calico", "add", m))?;
        let mut previous = None;
        for plugin in &plugins {
            let config = config(&list, plugin, a, previous.as_ref());
            let result = self.exec(children, node, a, plugin, "ADD", &config)?;
            previous = Some(result);
        }
        let result = previous.unwrap_or(Value::Null);
        fs::write(self.cache(node, a), result.to_string())
            .map_err(|e| failed("calico", "add", format!("write the result cache: {e}")))?;
        Ok(result)
    }

    /// Detaches; what is not there is fine.
    ///
    /// # Errors
    /// The first plugin's that failed; the caller tries again.
    pub(super) fn delete(
        &self,
        children: &Children,
        node: &Node,
        a: &Attachment,
    ) -> Result<(), CniError> {
        let (list, plugins) = self
            .conflist(node)
            .map_err(|m| failed("calico", "delete", m))?;
        let cache = self.cache(node, a);
        let previous = fs::read(&cache)
            .ok()
            .and_then(|b| serde_json::from_slice(&b).ok());
        for plugin in plugins.iter().rev() {
            let config = config(&list, plugin, a, previous.as_ref());
            self.exec(children, node, a, plugin, "DEL", &config)?;
        }
        let _ = fs::remove_file(cache);
        Ok(())
    }

    fn exec(
        &self,
        children: &Children,
        node: &Node,
        a: &Attachment,
        plugin: &Value,
        command: &'static str,
        config: &Value,
    ) -> Result<Value, CniError> {
        let kind = plugin
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let word = if command == "ADD" { "add" } else { "delete" };
        let fail = |m: String| failed(kind, word, m);
        let program = self
            .path
            .iter()
            .map(|d| d.join(kind))
            .find(|p| p.exists())
            .ok_or_else(|| fail(format!("failed to find plugin {kind:?} in path")))?;
        let ran = self.run(children, node, a, &program, command, config);
        let (success, stdout) = ran.map_err(|e| fail(e.to_string()))?;
        if !success {
            return Err(fail(error_text(
                &stdout,
                &self.dir.node(&node.name).join("cni.log"),
            )));
        }
        if stdout.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&stdout).map_err(|e| fail(format!("its result is no JSON: {e}")))
    }

    fn run(
        &self,
        children: &Children,
        node: &Node,
        a: &Attachment,
        program: &Path,
        command: &str,
        config: &Value,
    ) -> io::Result<(bool, String)> {
        let path = std::env::join_paths(&self.path).map_err(io::Error::other)?;
        let mut process = node.ns.command(program).map_err(io::Error::other)?;
        process
            .env_clear()
            .envs(std::env::vars_os().filter(|(k, _)| passes(&k.to_string_lossy())))
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &a.container_id)
            .env("CNI_NETNS", &a.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", path)
            .env("CNI_ARGS", arguments(a))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(cni_log(&self.dir, &node.name)?);
        let mut started = children.spawn(&mut process)?;
        drop(process);
        let (stdin, stdout) = (started.child.stdin.take(), started.child.stdout.take());
        if let Some(mut stdin) = stdin {
            // One that does not read its configuration will say why by other means.
            let _ = stdin.write_all(config.to_string().as_bytes());
        }
        std::thread::scope(|s| {
            let reader = s.spawn(move || {
                let mut text = String::new();
                stdout
                    .map_or(Ok(0), |mut o| o.read_to_string(&mut text))
                    .map(|_| text)
            });
            let status = match started.ended.recv_timeout(PATIENCE) {
                Ok(status) => status,
                Err(_) => {
                    let _ = rustix::process::Pid::from_raw(started.pid())
                        .map(|p| rustix::process::kill_process(p, rustix::process::Signal::KILL));
                    return Err(io::Error::other(format!("no end after {PATIENCE:?}")));
                }
            };
            let text = reader.join().unwrap_or_else(|_| Ok(String::new()))?;
            Ok((status.success(), text))
        })
    }
}

fn failed(plugin: &str, command: &'static str, message: String) -> CniError {
    CniError {
        plugin: plugin.to_owned(),
        command,
        message,
    }
}

fn arguments(a: &Attachment) -> String {
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};\
         K8S_POD_UID={}",
        a.namespace, a.name, a.container_id, a.uid
    )
}

/// One plugin's configuration: its own, with the list's name and version, the result so far
/// and the arguments of those capabilities that it has.
fn config(list: &Value, plugin: &Value, a: &Attachment, previous: Option<&Value>) -> Value {
    let mut own = plugin.as_object().cloned().unwrap_or_default();
    let capabilities = own.remove("capabilities");
    for key in ["name", "cniVersion"] {
        if let Some(v) = list.get(key) {
            own.insert(key.to_owned(), v.clone());
        }
    }
    if let Some(previous) = previous {
        own.insert("prevResult".to_owned(), previous.clone());
    }
    let wanted = |k: &String| {
        capabilities
            .as_ref()
            .is_some_and(|c| c.get(k).and_then(Value::as_bool) == Some(true))
    };
    let runtime: Map<String, Value> = a
        .capabilities
        .iter()
        .filter(|(k, _)| wanted(k))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    if !runtime.is_empty() {
        own.insert("runtimeConfig".to_owned(), Value::Object(runtime));
    }
    Value::Object(own)
}

fn error_text(stdout: &str, log: &Path) -> String {
    let Ok(error) = serde_json::from_str::<Value>(stdout) else {
        let text = stdout.trim();
        return if text.is_empty() {
            format!("it failed without a word; see {}", log.display())
        } else {
            text.to_owned()
        };
    };
    let field = |k: &str| error.get(k).and_then(Value::as_str).unwrap_or_default();
    match (field("msg"), field("details")) {
        (msg, "") => msg.to_owned(),
        (msg, details) => format!("{msg}; {details}"),
    }
}

/// The addresses in a result, in its order.
pub(super) fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result
        .get("ips")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    ips.iter()
        .filter_map(|i| i.get("address")?.as_str()?.split('/').next()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_sees_its_own_configuration_and_capabilities() {
        let list = json!({"name": "n", "cniVersion": "1.0.0"});
        let plugin =
            json!({"type": "portmap", "snat": true, "capabilities": {"portMappings": true}});
        let mut capabilities = Map::new();
        capabilities.insert("portMappings".to_owned(), json!([{"hostPort": 80}]));
        capabilities.insert("bandwidth".to_owned(), json!({"ingressRate": 1}));
        let a = Attachment {
            container_id: "c".to_owned(),
            netns: "/run/netns/x".into(),
            namespace: "ns".to_owned(),
            name: "p".to_owned(),
            uid: "u".to_owned(),
            capabilities,
        };
        let previous = json!({"ips": []});
        assert_eq!(
            config(&list, &plugin, &a, Some(&previous)),
            json!({"type": "portmap", "snat": true, "name": "n", "cniVersion": "1.0.0",
                   "prevResult": {"ips": []},
                   "runtimeConfig": {"portMappings": [{"hostPort": 80}]}})
        );
    }

    #[test]
    fn errors_are_the_plugins_words() {
        let log = Path::new("/x/cni.log");
        assert_eq!(
            error_text(r#"{"code":7,"msg":"no","details":""}"#, log),
            "no"
        );
        assert_eq!(
            error_text(r#"{"code":7,"msg":"no","details":"why"}"#, log),
            "no; why"
        );
        assert_eq!(
            error_text("", log),
            "it failed without a word; see /x/cni.log"
        );
    }

    #[test]
    fn addresses_of_a_result() {
        let r = json!({"ips": [{"address": "10.0.0.1/32"}, {"address": "fd00::1/128"}, {}]});
        assert_eq!(
            addresses(&r),
            [
                "10.0.0.1".parse::<IpAddr>().unwrap(),
                "fd00::1".parse().unwrap()
            ]
        );
        assert!(addresses(&Value::Null).is_empty());
    }
}
