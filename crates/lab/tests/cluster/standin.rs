//! Stand-ins for the agent and the CNI plugin: one fixed address plan, no policy.

use link::{Address, Changes, Handle, Sysctl, Veth, VethEnd};
use net::{Cidr, Family};
use netlink::netns::NetNs;
use route::{Hop, Proto, Route, Table};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;

fn forwarding() -> Vec<Sysctl> {
    vec![Sysctl {
        path: "ipv4/ip_forward".to_owned(),
        value: "1".to_owned(),
    }]
}

/// Routes to the pods of all nodes, and a health port.
pub(crate) fn agent() -> ExitCode {
    if std::env::var_os("MANX_AGENT_FAIL").is_some() {
        eprintln!("cannot find the moon");
        return ExitCode::from(3);
    }
    let own = std::env::var("NODENAME").expect("NODENAME");
    link::sysctl::write(&forwarding()).expect("forward");
    let mut links = Handle::open().expect("links");
    let eth0 = links.index_of("eth0".parse().unwrap()).expect("eth0");
    let mut routes = route::Handle::open().expect("routes");
    for n in (1..=5u8).filter(|n| own != format!("node-{n}")) {
        let dst: Cidr = format!("10.244.{n}.0/24").parse().unwrap();
        let via: IpAddr = format!("172.18.0.{}", 10 + n).parse().unwrap();
        let r = Route::unicast(Table::MAIN, dst, Hop::onlink(via, eth0), Proto::OURS);
        let _ = routes.install(&r, true);
    }
    let health = TcpListener::bind("127.0.0.1:9099").expect("health port");
    for stream in health.incoming() {
        let Ok(mut stream) = stream else { continue };
        let _ = stream.read(&mut [0; 1024]);
        let _ =
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    ExitCode::SUCCESS
}

/// One veth a pod, numbered by a file beside the agent's socket.
pub(crate) fn plugin() -> ExitCode {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .expect("configuration");
    let config: Value = serde_json::from_str(&text).expect("JSON");
    let env = |k: &str| std::env::var(k).unwrap_or_default();
    let host = format!("cali{}", &env("CNI_CONTAINERID")[..11]);
    let mut links = Handle::open().expect("links");
    if env("CNI_COMMAND") == "DEL" {
        links.delete(host.parse().unwrap()).expect("delete");
        return ExitCode::SUCCESS;
    }
    if env("CNI_ARGS").contains("K8S_POD_NAME=refused;") {
        println!(
            "{}",
            json!({"cniVersion": "0.3.1", "code": 999, "msg": "the stand-in refuses it"})
        );
        return ExitCode::FAILURE;
    }
    let node: u8 = config["nodename"]
        .as_str()
        .unwrap()
        .strip_prefix("node-")
        .unwrap()
        .parse()
        .unwrap();
    let socket = config["agent_socket"].as_str().unwrap();
    let number = count(Path::new(socket).parent().unwrap());
    let addr: IpAddr = format!("10.244.{node}.{}", number + 1).parse().unwrap();
    let ns = NetNs::open(env("CNI_NETNS")).expect("pod namespace");
    let veth = Veth {
        here: VethEnd::named(host.parse().unwrap()),
        there: VethEnd::named("eth0".parse().unwrap()),
        queues: 1,
        up: true,
    };
    links.create_veth(&veth, Some(&ns)).expect("veth");
    link::sysctl::write(&[
        Sysctl::conf(Family::V4, &host, "proxy_arp", 1),
        Sysctl {
            path: format!("ipv4/neigh/{host}/proxy_delay"),
            value: "0".to_owned(),
        },
    ])
    .expect("proxy ARP");
    let dev = links.index_of(host.parse().unwrap()).unwrap();
    let mut routes = route::Handle::open().expect("routes");
    let to_pod = Route::unicast(Table::MAIN, Cidr::host(addr), Hop::dev(dev), Proto::BOOT);
    routes.install(&to_pod, true).expect("route to the pod");
    let mut inside = Handle::open_in(&ns).unwrap();
    let eth0 = inside.index_of("eth0".parse().unwrap()).unwrap();
    let own = [Address::host(addr)];
    inside
        .change(
            eth0,
            &Changes {
                up: Some(true),
                addresses: &own,
                ..Changes::default()
            },
        )
        .unwrap();
    let gateway: IpAddr = "169.254.1.1".parse().unwrap();
    let mut routes = route::Handle::open_in(&ns).unwrap();
    let hop = Hop::onlink(gateway, eth0);
    let default = Route::unicast(Table::MAIN, Cidr::any(Family::V4), hop, Proto::BOOT);
    routes.install(&default, true).expect("default route");
    println!(
        "{}",
        json!({"cniVersion": "0.3.1", "ips": [{"version": "4", "address": format!("{addr}/32")}]})
    );
    ExitCode::SUCCESS
}

/// Counts up in a file, under a lock.
fn count(dir: &Path) -> u32 {
    let path = dir.join("count");
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    let n = text.trim().parse::<u32>().unwrap_or(0) + 1;
    std::fs::write(&path, n.to_string()).unwrap();
    n
}
