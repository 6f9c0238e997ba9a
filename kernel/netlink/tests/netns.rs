//! Namespaces and sockets on the real kernel. Wants root, or a user namespace
//! (`unshare -Urm cargo test`).

use netlink::netns::{NetNs, Worker, unbind};
use netlink::wire::Message;
use netlink::{Buffers, Errno, Protocol, Socket, set_buffers};
use std::os::fd::AsFd;
use std::time::Instant;

#[test]
fn a_new_namespace_is_another_one_and_nobody_moves() {
    let home = NetNs::current().unwrap();
    let a = NetNs::new().unwrap();
    let b = NetNs::new().unwrap();
    assert_ne!(a.id(), b.id());
    assert_ne!(a.id(), home.id());
    assert_eq!(a.run(|| NetNs::current().unwrap().id()).unwrap(), a.id());
    assert_eq!(NetNs::current().unwrap().id(), home.id());
    assert_eq!(a.try_clone().unwrap(), a);
    assert_eq!(NetNs::of_pid(std::process::id()).unwrap().id(), home.id());
}

#[test]
fn what_is_no_network_namespace_is_refused() {
    assert!(
        NetNs::open("/proc/self/ns/uts")
            .unwrap_err()
            .to_string()
            .contains("not a network")
    );
    assert!(NetNs::open("/dev/null").is_err());
    let e = NetNs::open("/run/no/such/netns").unwrap_err();
    assert!(
        e.is(Errno::ENOENT) && e.to_string().contains("/run/no/such/netns"),
        "{e}"
    );
}

#[test]
fn a_panic_inside_reaches_the_caller_and_spares_the_worker() {
    let ns = NetNs::new().unwrap();
    let boom = std::panic::catch_unwind(|| ns.run(|| panic!("boom")));
    assert!(boom.is_err());
    let worker = Worker::new(&ns).unwrap();
    let boom = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        worker.run(|| panic!("boom"));
    }));
    assert!(boom.is_err());
    assert_eq!(worker.run(|| NetNs::current().unwrap().id()), ns.id());
}

#[test]
fn a_name_keeps_a_namespace_alive_until_it_is_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node-1");
    let ns = NetNs::new().unwrap();
    let id = ns.id();
    ns.bind(&path).unwrap();
    assert!(ns.bind(&path).unwrap_err().is(Errno::EEXIST));
    drop(ns);
    assert_eq!(NetNs::open(&path).unwrap().id(), id);
    unbind(&path).unwrap();
    assert!(!path.exists());
    assert!(unbind(&path).is_err());
}

#[test]
fn a_command_runs_inside() {
    let ns = NetNs::new().unwrap();
    let out = ns
        .command("readlink")
        .unwrap()
        .arg("/proc/self/ns/net")
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(out.stdout).unwrap().trim(),
        ns.to_string()
    );
}

#[test]
fn refusals_carry_errno_and_the_kernels_words() {
    let ns = NetNs::new().unwrap();
    let mut s = Socket::open_in(Protocol::Route, &ns).unwrap();
    // RTM_NEWROUTE of family 2 through a gateway that nothing leads to.
    let mut m = Message::new(24, 0x400 | 0x200);
    m.raw(&[2, 32, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0])
        .attr(1, &[192, 0, 2, 1])
        .attr(5, &[10, 0, 0, 1]);
    let e = s.request("add route 192.0.2.1/32", m).unwrap_err();
    assert!(e.is(Errno::ENETUNREACH), "{e}");
    assert_eq!(
        e.to_string(),
        "add route 192.0.2.1/32: ENETUNREACH (Nexthop has invalid gateway)"
    );
}

#[test]
fn a_batch_gives_each_message_its_verdict() {
    let ns = NetNs::new().unwrap();
    let mut s = Socket::open_in(Protocol::Route, &ns).unwrap();
    // RTM_SETLINK up of lo (1), and of an interface that is not there, many times over.
    let set_up = |index: u32| {
        let mut b = [0; 16];
        b[4..8].copy_from_slice(&index.to_ne_bytes());
        b[8] = 1;
        b[12] = 1;
        let mut m = Message::new(19, 0);
        m.raw(&b);
        m
    };
    for size in [1u32, 2, 127, 128, 129, 1000] {
        let msgs = (0..size)
            .map(|i| set_up(if i % 3 == 1 { 4711 } else { 1 }))
            .collect();
        let verdicts = s.batch(msgs);
        assert_eq!(verdicts.len(), size as usize);
        for (i, v) in verdicts.iter().enumerate() {
            assert_eq!(v.is_some(), i % 3 == 1, "{size} {i} {v:?}");
        }
    }
}

#[test]
fn buffers_grow_as_far_as_allowed() {
    let s = Socket::open(Protocol::Netfilter).unwrap();
    let got = set_buffers(s.as_fd(), Buffers::TRANSACTION).unwrap();
    assert!(
        got.send.unwrap() >= 100_000 && got.receive.unwrap() >= 100_000,
        "{got:?}"
    );
}

#[test]
fn namespaces_and_sockets_are_cheap() {
    let n = 100;
    let t = Instant::now();
    let all: Vec<_> = (0..n).map(|_| NetNs::new().unwrap()).collect();
    let make = t.elapsed() / n;
    let t = Instant::now();
    for ns in &all {
        ns.run(|| ()).unwrap();
    }
    let run = t.elapsed() / n;
    let t = Instant::now();
    for ns in &all {
        drop(Socket::open_in(Protocol::Route, ns).unwrap());
    }
    let open = t.elapsed() / n;
    let worker = Worker::new(&all[0]).unwrap();
    let t = Instant::now();
    for _ in 0..n {
        worker.run(|| ());
    }
    let job = t.elapsed() / n;
    let t = Instant::now();
    drop(all);
    let end = t.elapsed() / n;
    eprintln!(
        "netns new {make:?}, run {run:?}, socket in {open:?}, worker job {job:?}, drop {end:?}"
    );
    assert!(make.as_millis() < 100, "{make:?}");
}
