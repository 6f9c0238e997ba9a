//! Copies of packets, from the kernel's rule to the reader.
#![allow(clippy::unwrap_used)]

mod support;
use netlink::{Errno, Received};
use nftables::nflog::Nflog;
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use support::lab::*;

/// Copies what goes to UDP port 4000 to group 7, saying why.
const TABLE: &str = "nft 'add table inet copies
    add chain inet copies c { type filter hook forward priority 0; }
    add rule inet copies c udp dport 4000 log prefix \"why\" group 7 queue-threshold 1'";

#[test]
fn whole_packets_come_at_once_and_a_group_has_one_reader() {
    let lab = Lab::new();
    sh(&lab.router, TABLE);
    let mut log = Nflog::open_in(7, &lab.router).unwrap();
    let second = Nflog::open_in(7, &lab.router).unwrap_err();
    assert!(second.is(Errno(libc::EPERM)), "{second}");
    assert!(second.to_string().contains("NFLOG group 7"), "{second}");
    // Of another namespace it is another group.
    Nflog::open_in(7, &lab.a).unwrap();
    for (to, header) in [("10.0.2.1:4000", 20), ("[fd00:2::1]:4000", 40)] {
        let any = if header == 20 { "0.0.0.0:0" } else { "[::]:0" };
        let socket = lab.a.run(|| UdpSocket::bind(any).unwrap()).unwrap();
        let text = vec![b'x'; 1200];
        socket.send_to(&text, to).unwrap();
        let sent = Instant::now();
        let mut got = Vec::new();
        while got.is_empty() {
            assert!(log.wait(sent + Duration::from_secs(5)), "a copy of {to}");
            let received = log.try_next(|p| got.push((p.prefix.to_owned(), p.bytes.to_vec())));
            assert_eq!(received.unwrap(), Received::Some);
        }
        let took = sent.elapsed();
        assert!(
            took < Duration::from_millis(900),
            "the kernel gathers: {took:?}"
        );
        let [(prefix, bytes)] = got.as_slice() else {
            panic!("{got:?}")
        };
        assert_eq!(prefix, "why");
        assert_eq!(bytes[header + 8..], text);
    }
    assert_eq!(log.try_next(|_| ()).unwrap(), Received::Nothing);
    drop(log);
    Nflog::open_in(7, &lab.router).unwrap();
}
