//! Another IPAM plugin, called as the specification says: found in
//! `CNI_PATH`, same environment, configuration on standard input.

use crate::conf::NetConf;
use crate::error::{CniError, code};
use crate::protocol::Delegated;
use crate::result::CniResult;
use net::{Cidr, Family};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Puts the node's pod ranges where the configuration says `usePodCidr` or `usePodCidrIPv6`: in
/// `ipam.subnet` and in each of `ipam.ranges`.
///
/// # Errors
/// Code 7 when the node has no range of the family.
pub(crate) fn use_pod_cidrs(
    conf: &mut NetConf,
    node: &str,
    cidrs: &[String],
) -> Result<(), CniError> {
    if cidrs.is_empty() {
        return Err(
            CniError::new(code::INVALID_CONFIG, format!("no podCidr for node {node}"))
                .details("give the node spec.podCIDR, or use calico-ipam"),
        );
    }
    let find = |family: Family| {
        cidrs
            .iter()
            .find(|c| c.parse::<Cidr>().is_ok_and(|c| c.family() == family))
            .cloned()
            .ok_or_else(|| {
                CniError::new(
                    code::INVALID_CONFIG,
                    format!(
                        "usePodCidr found but there is no {family} CIDR configured for node {node}"
                    ),
                )
            })
    };
    let replace = |text: &str| match text {
        "usePodCidr" => find(Family::V4).map(Some),
        "usePodCidrIPv6" => find(Family::V6).map(Some),
        _ => Ok(None),
    };
    if let Some(subnet) = &mut conf.ipam.subnet
        && let Some(cidr) = replace(subnet)?
    {
        *subnet = cidr;
    }
    let ranges = conf
        .ipam
        .rest
        .get_mut("ranges")
        .and_then(Value::as_array_mut);
    for range in ranges
        .into_iter()
        .flatten()
        .filter_map(Value::as_array_mut)
        .flatten()
    {
        if let Some(cidr) = range["subnet"].as_str().map(replace).transpose()?.flatten() {
            range["subnet"] = json!(cidr);
        }
    }
    Ok(())
}

/// Puts ranges that are certainly valid in place of the node's, where only the form counts.
pub(crate) fn any_pod_cidrs(conf: &mut NetConf) {
    let all = ["0.0.0.0/0".to_owned(), "::/0".to_owned()];
    // Both families are there, so nothing is missing.
    let _ = use_pod_cidrs(conf, "", &all);
}

/// Whether the configuration asks for the node's pod ranges.
pub(crate) fn wants_pod_cidrs(conf: &NetConf) -> bool {
    let is = |s: &str| s == "usePodCidr" || s == "usePodCidrIPv6";
    conf.ipam.subnet.as_deref().is_some_and(is)
        || conf
            .ipam
            .rest
            .get("ranges")
            .and_then(Value::as_array)
            .is_some_and(|sets| {
                sets.iter()
                    .filter_map(Value::as_array)
                    .flatten()
                    .any(|r| r["subnet"].as_str().is_some_and(is))
            })
}

fn find(plugin: &str, path: &str) -> Result<PathBuf, CniError> {
    if plugin.contains('/') {
        return Err(CniError::new(
            code::INVALID_CONFIG,
            format!("ipam.type {plugin:?} is not a plugin's name"),
        ));
    }
    path.split(':')
        .map(|d| Path::new(d).join(plugin))
        .find(|p| p.is_file())
        .ok_or_else(|| {
            CniError::new(
                code::INVALID_CONFIG,
                format!("failed to find plugin {plugin:?} in path [{path}]"),
            )
            .details("install it there, or set ipam.type to calico-ipam")
        })
}

/// Calls the IPAM plugin of `conf` with the environment that we were called with, but for the command
/// where one is given.
///
/// # Errors
/// The plugin's own error, or code 7 where it is not found.
pub(crate) fn call(
    conf: &NetConf,
    path: &str,
    command: Option<&str>,
) -> Result<Delegated, CniError> {
    let value = invoke(conf, path, command)?;
    if value.is_null() {
        return Ok(Delegated::default());
    }
    let result = CniResult::from_value(&value)?;
    Ok(Delegated {
        ips: result.ips,
        routes: result.routes,
    })
}

/// Calls for a command that came late to the specification. A plugin that does not speak the
/// configuration's version has nothing to say.
///
/// # Errors
/// As [`call`].
pub(crate) fn optional(conf: &NetConf, path: &str) -> Result<(), CniError> {
    let spoken = invoke(conf, path, Some("VERSION"))?;
    let spoken = spoken["supportedVersions"].as_array();
    if spoken.is_some_and(|all| all.iter().any(|v| v == conf.version())) {
        invoke(conf, path, None)?;
    }
    Ok(())
}

/// One call; null where nothing was printed.
fn invoke(conf: &NetConf, path: &str, command: Option<&str>) -> Result<Value, CniError> {
    let plugin = &conf.ipam.plugin;
    let exe = find(plugin, path)?;
    let io = |e: std::io::Error| {
        CniError::new(code::IO, format!("run IPAM plugin {}: {e}", exe.display()))
    };
    let input = serde_json::to_vec(conf).map_err(|e| CniError::new(code::DECODE, e.to_string()))?;
    let mut child = Command::new(&exe)
        .envs(command.map(|c| ("CNI_COMMAND", c)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(io)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that ends without reading says why in its own answer.
        let _ = stdin.write_all(&input);
    }
    let out = child.wait_with_output().map_err(io)?;
    if !out.status.success() {
        return Err(
            serde_json::from_slice::<CniError>(&out.stdout).unwrap_or_else(|_| {
                CniError::new(
                    code::IO,
                    format!("IPAM plugin {plugin} failed with {}", out.status),
                )
                .details(String::from_utf8_lossy(&out.stdout).into_owned())
            }),
        );
    }
    if out.stdout.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&out.stdout)
        .map_err(|e| CniError::new(code::DECODE, format!("result of IPAM plugin {plugin}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(ipam: &str) -> NetConf {
        NetConf::parse(format!(r#"{{"cniVersion":"1.0.0","name":"n","ipam":{ipam}}}"#).as_bytes())
            .expect("valid")
    }

    #[test]
    fn pod_cidrs_take_their_places() {
        let mut c = conf(
            r#"{"type":"host-local","subnet":"usePodCidr","ranges":[[{"subnet":"usePodCidrIPv6"}]]}"#,
        );
        assert!(wants_pod_cidrs(&c));
        use_pod_cidrs(&mut c, "n1", &["10.1.0.0/24".into(), "fd00::/120".into()])
            .expect("both there");
        assert_eq!(c.ipam.subnet.as_deref(), Some("10.1.0.0/24"));
        assert_eq!(c.ipam.rest["ranges"][0][0]["subnet"], "fd00::/120");
        assert!(!wants_pod_cidrs(&c));
    }

    #[test]
    fn missing_ranges_are_named() {
        let mut c = conf(r#"{"type":"host-local","subnet":"usePodCidr"}"#);
        assert_eq!(
            use_pod_cidrs(&mut c, "n1", &[]).expect_err("none").msg,
            "no podCidr for node n1"
        );
        let e = use_pod_cidrs(&mut c, "n1", &["fd00::/120".into()]).expect_err("no IPv4");
        assert!(e.msg.contains("no IPv4 CIDR configured"), "{e}");
    }
}
