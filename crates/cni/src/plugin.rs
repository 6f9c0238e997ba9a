//! One call of the plugin: environment and standard input in, JSON and exit code out.

use crate::conf::{NetConf, parse_args};
use crate::delegate;
use crate::error::{CniError, code};
use crate::protocol::{Answer, Op, Request, ask};
use crate::{VERSIONS, result::CniResult};
use serde_json::json;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

/// Which of the two programs we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `calico`: wires a container.
    Network,
    /// `calico-ipam`: only gives addresses.
    Ipam,
}

/// The environment of a call. Separate from the process's own so that tests can make one.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `CNI_COMMAND`
    pub command: String,
    /// `CNI_CONTAINERID`
    pub container_id: String,
    /// `CNI_NETNS`
    pub netns: String,
    /// `CNI_IFNAME`
    pub ifname: String,
    /// `CNI_ARGS`
    pub args: String,
    /// `CNI_PATH`
    pub path: String,
}

impl Environment {
    /// That of the process.
    pub fn of_process() -> Self {
        let get = |n: &str| std::env::var(n).unwrap_or_default();
        Self {
            command: get("CNI_COMMAND"),
            container_id: get("CNI_CONTAINERID"),
            netns: get("CNI_NETNS"),
            ifname: get("CNI_IFNAME"),
            args: get("CNI_ARGS"),
            path: get("CNI_PATH"),
        }
    }
}

/// Runs the plugin as a runtime calls it: reads the process's environment and standard input,
/// prints the result or the error on standard output.
pub fn main(kind: Kind) -> ExitCode {
    let env = Environment::of_process();
    let mut input = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut input);
    let outcome = match read {
        Ok(_) => run(kind, &env, &input),
        Err(e) => Err(CniError::new(
            code::IO,
            format!("read the network configuration from standard input: {e}"),
        )),
    };
    let (text, status) = match outcome {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(e) => (print_error(&e, &input), ExitCode::FAILURE),
    };
    // A runtime that closed our output has no use for a complaint about it.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    status
}

/// An error in the version of the configuration, or the oldest where that is unknown.
fn print_error(e: &CniError, input: &[u8]) -> String {
    let version = serde_json::from_slice::<serde_json::Value>(input)
        .ok()
        .and_then(|v| v["cniVersion"].as_str().map(str::to_owned))
        .filter(|v| VERSIONS.contains(&v.as_str()))
        .unwrap_or_else(|| "1.0.0".to_owned());
    let mut v = json!({"cniVersion": version, "code": e.code, "msg": e.msg});
    if !e.details.is_empty() {
        v["details"] = json!(e.details);
    }
    format!("{v:#}\n")
}

/// One call; the text to print on success, which may be empty.
///
/// # Errors
/// The error to print.
pub fn run(kind: Kind, env: &Environment, input: &[u8]) -> Result<String, CniError> {
    match env.command.as_str() {
        "VERSION" => return Ok(version_text(input)),
        "ADD" | "DEL" | "CHECK" | "GC" | "STATUS" => {}
        "" => {
            return Err(CniError::new(
                code::INVALID_ENVIRONMENT,
                "required env variables [CNI_COMMAND] missing",
            )
            .details("this is a CNI plugin: a container runtime calls it"));
        }
        other => {
            return Err(CniError::new(
                code::INVALID_ENVIRONMENT,
                format!("unknown CNI_COMMAND: {other}"),
            ));
        }
    }
    let conf = NetConf::parse(input)?;
    check_version(&env.command, &conf)?;
    check_environment(env)?;
    match env.command.as_str() {
        "ADD" => add(kind, env, conf),
        "DEL" => del(kind, env, conf),
        "CHECK" => {
            if conf.previous()?.is_none() {
                return Err(CniError::new(
                    code::INVALID_CONFIG,
                    "CHECK needs prevResult, and the configuration has none",
                ));
            }
            let op = if kind == Kind::Network {
                Op::Check
            } else {
                Op::IpamCheck
            };
            if kind == Kind::Network && conf.delegates_ipam() {
                delegate::call(&conf, &env.path, None)?;
            }
            done(op, env, conf)
        }
        "GC" => {
            // The agent's pass covers links, endpoints and its own addresses. What another IPAM plugin
            // holds is its own affair; a failure of one does not keep the other from its work.
            let others = conf.clone();
            let ours = done(Op::Gc, env, conf);
            if kind == Kind::Network && others.delegates_ipam() {
                let theirs = delegate::optional(&others, &env.path);
                return ours.and_then(|text| theirs.map(|()| text));
            }
            ours
        }
        _ => status(kind, env, conf).map_err(|mut e| {
            // A configuration that makes no sense keeps its code; whatever else is wrong, ADD would fail.
            if !matches!(
                e.code,
                code::INCOMPATIBLE_VERSION
                    | code::INVALID_ENVIRONMENT
                    | code::DECODE
                    | code::INVALID_CONFIG
                    | code::NOT_AVAILABLE_LIMITED
            ) {
                e.code = code::NOT_AVAILABLE;
            }
            e
        }),
    }
}

fn version_text(input: &[u8]) -> String {
    let version = serde_json::from_slice::<serde_json::Value>(input)
        .ok()
        .and_then(|v| v["cniVersion"].as_str().map(str::to_owned))
        .unwrap_or_else(|| "1.1.0".to_owned());
    format!(
        "{}\n",
        json!({"cniVersion": version, "supportedVersions": VERSIONS})
    )
}

fn check_version(command: &str, conf: &NetConf) -> Result<(), CniError> {
    let since = match command {
        "CHECK" => "0.4.0",
        "GC" | "STATUS" => "1.1.0",
        _ => return Ok(()),
    };
    // VERSIONS is in order.
    let at = |v: &str| VERSIONS.iter().position(|x| *x == v);
    if at(conf.version()) >= at(since) {
        return Ok(());
    }
    Err(CniError::new(
        code::INCOMPATIBLE_VERSION,
        format!(
            "config version {:?} does not allow {command}, which came with {since}",
            conf.version()
        ),
    ))
}

fn check_environment(env: &Environment) -> Result<(), CniError> {
    let needed: &[(&str, &str)] = match env.command.as_str() {
        "ADD" | "CHECK" => &[
            ("CNI_CONTAINERID", &env.container_id),
            ("CNI_NETNS", &env.netns),
            ("CNI_IFNAME", &env.ifname),
        ],
        "DEL" => &[
            ("CNI_CONTAINERID", &env.container_id),
            ("CNI_IFNAME", &env.ifname),
        ],
        _ => &[],
    };
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(_, v)| v.is_empty())
        .map(|(n, _)| *n)
        .collect();
    if !missing.is_empty() {
        return Err(CniError::new(
            code::INVALID_ENVIRONMENT,
            format!("required env variables [{}] missing", missing.join(",")),
        ));
    }
    let id = &env.container_id;
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if !id.is_empty() && (!id.bytes().all(legal) || !id.as_bytes()[0].is_ascii_alphanumeric()) {
        return Err(CniError::new(
            code::INVALID_ENVIRONMENT,
            format!("invalid characters in containerID {id:?}"),
        ));
    }
    if !env.ifname.is_empty() && env.ifname.parse::<net::IfName>().is_err() {
        return Err(CniError::new(
            code::INVALID_ENVIRONMENT,
            format!("invalid interface name {:?}", env.ifname),
        ));
    }
    Ok(())
}

fn request(op: Op, env: &Environment, conf: NetConf) -> Result<Request, CniError> {
    Ok(Request {
        op,
        container_id: env.container_id.clone(),
        ifname: env.ifname.clone(),
        netns: env.netns.clone(),
        args: parse_args(&env.args)?,
        conf,
        delegated: None,
    })
}

fn ask_agent(request: &Request) -> Result<Answer, CniError> {
    let open = |path: &str| {
        File::open(path).map_err(|e| {
            CniError::new(
                code::INVALID_NETNS,
                format!(
                    "open network namespace {path:?} of container {}: {e}",
                    request.container_id
                ),
            )
        })
    };
    let netns = match request.op {
        Op::Add | Op::Check => Some(open(&request.netns)?),
        // At DEL the namespace may be gone, and that is fine.
        Op::Del if !request.netns.is_empty() => File::open(&request.netns).ok(),
        _ => None,
    };
    match ask(
        &request.conf.socket(),
        request,
        netns.as_ref().map(AsFd::as_fd),
    )? {
        Answer::Error(e) => Err(e),
        answer => Ok(answer),
    }
}

fn done(op: Op, env: &Environment, conf: NetConf) -> Result<String, CniError> {
    ask_agent(&request(op, env, conf)?).map(|_| String::new())
}

/// Would ADD work? With another IPAM plugin that is also its to say.
fn status(kind: Kind, env: &Environment, conf: NetConf) -> Result<String, CniError> {
    let others = conf.clone();
    let ours = done(Op::Status, env, conf)?;
    if kind == Kind::Network && others.delegates_ipam() {
        delegate::optional(&others, &env.path)?;
    }
    Ok(ours)
}

fn print(result: &CniResult, version: &str) -> String {
    format!("{:#}\n", result.to_value(version))
}

fn add(kind: Kind, env: &Environment, conf: NetConf) -> Result<String, CniError> {
    let version = conf.version().to_owned();
    let op = if kind == Kind::Network {
        Op::Add
    } else {
        Op::IpamAdd
    };
    let delegates = kind == Kind::Network && conf.delegates_ipam();
    let mut request = request(op, env, conf)?;
    if delegates {
        resolve_pod_cidrs(&mut request)?;
        request.delegated = Some(delegate::call(&request.conf, &env.path, None)?);
    }
    match ask_agent(&request) {
        Ok(Answer::Result(r)) => Ok(print(&r, &version)),
        Ok(other) => Err(CniError::new(
            code::DECODE,
            format!("the node agent answered ADD with {other:?}"),
        )),
        Err(e) => {
            if delegates {
                undo_delegated(&request.conf, env);
            }
            Err(e)
        }
    }
}

/// Gives back what the other IPAM plugin gave. Its own failure changes nothing: the runtime
/// will call DEL, which tries again.
fn undo_delegated(conf: &NetConf, env: &Environment) {
    let _ = delegate::call(conf, &env.path, Some("DEL"));
}

fn resolve_pod_cidrs(request: &mut Request) -> Result<(), CniError> {
    if !delegate::wants_pod_cidrs(&request.conf) {
        return Ok(());
    }
    let mut ask = request.clone();
    ask.op = Op::PodCidrs;
    match ask_agent(&ask)? {
        Answer::PodCidrs { node, cidrs } => {
            delegate::use_pod_cidrs(&mut request.conf, &node, &cidrs)
        }
        other => Err(CniError::new(
            code::DECODE,
            format!("the node agent answered a question for pod CIDRs with {other:?}"),
        )),
    }
}

fn del(kind: Kind, env: &Environment, conf: NetConf) -> Result<String, CniError> {
    let op = if kind == Kind::Network {
        Op::Del
    } else {
        Op::IpamDel
    };
    let delegates = kind == Kind::Network && conf.delegates_ipam();
    let mut request = request(op, env, conf)?;
    ask_agent(&request)?;
    if delegates {
        // Plugins find what they gave by network and container, but read the range all the same; the
        // node's may be gone by now.
        delegate::any_pod_cidrs(&mut request.conf);
        delegate::call(&request.conf, &env.path, None)?;
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{receive, send};
    use crate::result::IpConfig;
    use std::os::unix::net::UnixListener;

    fn env(command: &str) -> Environment {
        Environment {
            command: command.into(),
            container_id: "c1".into(),
            netns: "/proc/self/ns/net".into(),
            ifname: "eth0".into(),
            args: String::new(),
            path: "/nowhere".into(),
        }
    }

    fn conf(socket: &str, version: &str) -> Vec<u8> {
        format!(
            r#"{{"cniVersion":"{version}","name":"net","type":"calico","agent_socket":"{socket}"}}"#
        )
        .into_bytes()
    }

    #[test]
    fn version_needs_nobody() {
        let text = run(Kind::Network, &env("VERSION"), b"").expect("answers");
        let v: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert!(
            v["supportedVersions"]
                .as_array()
                .is_some_and(|a| a.contains(&json!("1.1.0")))
        );
    }

    #[test]
    fn without_an_agent_the_runtime_is_told_to_try_again() {
        let c = conf("/nowhere/manx.sock", "1.1.0");
        let e = run(Kind::Network, &env("ADD"), &c).expect_err("no agent");
        assert_eq!(e.code, code::TRY_AGAIN);
        assert!(
            e.msg.contains("/nowhere/manx.sock") && e.details.contains("manx node"),
            "{e}"
        );
        assert_eq!(
            run(Kind::Network, &env("STATUS"), &c)
                .expect_err("no agent")
                .code,
            code::NOT_AVAILABLE
        );
    }

    #[test]
    fn bad_environments_are_named() {
        let c = conf("/nowhere", "1.0.0");
        let no_id = Environment {
            container_id: String::new(),
            ..env("ADD")
        };
        assert!(
            run(Kind::Network, &no_id, &c)
                .expect_err("no id")
                .msg
                .contains("CNI_CONTAINERID")
        );
        let bad_if = Environment {
            ifname: "a/b".into(),
            ..env("ADD")
        };
        assert!(
            run(Kind::Network, &bad_if, &c)
                .expect_err("bad name")
                .msg
                .contains("a/b")
        );
        let no_ns = Environment {
            netns: "/nowhere/ns".into(),
            ..env("ADD")
        };
        assert_eq!(
            run(Kind::Network, &no_ns, &c).expect_err("no netns").code,
            code::INVALID_NETNS
        );
        assert!(
            run(Kind::Network, &env("FROB"), &c)
                .expect_err("unknown")
                .msg
                .contains("FROB")
        );
        assert_eq!(
            run(Kind::Network, &env("GC"), &c)
                .expect_err("too old")
                .code,
            code::INCOMPATIBLE_VERSION
        );
        assert!(
            run(Kind::Network, &env("CHECK"), &c)
                .expect_err("no result")
                .msg
                .contains("prevResult")
        );
    }

    #[test]
    fn request_and_namespace_reach_the_agent_and_its_answer_comes_back() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("a.sock");
        let listener = UnixListener::bind(&path).expect("binds");
        let agent = std::thread::spawn(move || {
            let (mut s, _) = listener.accept().expect("accepts");
            let (body, fd) = receive(&mut s).expect("receives");
            let r: Request = serde_json::from_slice(&body).expect("a request");
            assert!(r.op == Op::Add && r.container_id == "c1" && fd.is_some());
            let result = CniResult {
                ips: vec![IpConfig {
                    address: "10.0.0.1/32".into(),
                    gateway: None,
                    interface: None,
                }],
                ..CniResult::default()
            };
            let answer = serde_json::to_vec(&Answer::Result(result)).expect("serialises");
            send(&mut s, &answer, None).expect("sends");
        });
        let text = run(
            Kind::Network,
            &env("ADD"),
            &conf(&path.to_string_lossy(), "0.3.1"),
        )
        .expect("works");
        let v: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            (v["cniVersion"].as_str(), v["ips"][0]["version"].as_str()),
            (Some("0.3.1"), Some("4"))
        );
        agent.join().expect("agent ends well");
    }
}
