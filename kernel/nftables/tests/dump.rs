//! What the kernel says, and what it might say: read back right, and never a panic.
#![allow(clippy::unwrap_used)]

mod support;
use net::Protocol;
use netlink::wire::Message;
use netlink::{Protocol as Netlink, Socket};
use nftables::*;
use support::*;

/// `NFNL_SUBSYS_NFTABLES << 8`, and what to ask for.
const NFT: u16 = 10 << 8;
const GET: [u16; 4] = [1, 4, 7, 10];
const GET_ELEMENTS: u16 = 13;

/// One of everything that a dump can have.
fn wanted() -> Table {
    let mut t = Table::new(table_name());
    let mut put = |name: &str, kind, e: &[Element]| {
        t.set_set(&set(name), kind, e.iter().cloned()).unwrap();
    };
    let net = |c| Element::Net(cidr(c));
    put(
        "n4",
        SetKind::Net(V4),
        &[net("10.0.0.0/8"), net("255.255.255.255/32")],
    );
    put("n6", SetKind::Net(V6), &[net("fd00::/8"), net("::/128")]);
    put("all", SetKind::Net(V4), &[net("0.0.0.0/0")]);
    put("a4", SetKind::Addr(V4), &[Element::Addr(ip("10.0.0.1"))]);
    let triple = Element::AddrProtoPort(ip("fd00::1"), Protocol::TCP, 80);
    put("p6", SetKind::AddrProtoPort(V6), &[triple]);
    let ports = Element::NetProtoPorts(cidr("10.0.0.0/9"), Protocol::UDP, range("5:9"));
    put("np4", SetKind::NetProtoPorts(V4), &[ports]);
    let pair = Element::NetPair(cidr("fd00::/64"), cidr("::/0"));
    put("nn6", SetKind::NetPair(V6), &[pair]);
    let name = Element::IfName(ifname("eth0"));
    put("ifs", SetKind::IfName, &[name]);
    let at = Element::IfNameAddr(ifname("cali1"), ip("10.0.0.1"));
    put("ia4", SetKind::IfNameAddr(V4), &[at]);
    let to = Element::AddrToAddr(ip("1.1.1.1"), ip("2.2.2.2"));
    put("map", SetKind::AddrToAddr(V4), &[to]);
    let rate = Element::IfNameOverRate(ifname("cali1"), Rate::new(10, Per::Hour, 7));
    put("rates", SetKind::IfNameOverRate, &[rate]);
    let count = Element::IfNameOverCount(ifname("cali1"), 9);
    put("counts", SetKind::IfNameOverCount, &[count]);
    let go = |i, v| Element::IfNameVerdict(ifname(i), v);
    put(
        "vm",
        SetKind::IfNameVerdict,
        &[
            go("cali1", Verdict::Goto(chain("c"))),
            go("cali2", Verdict::Drop),
        ],
    );
    let m = Match::AddrInSet {
        side: Side::Source,
        family: V4,
        set: set("n4"),
        negate: false,
    };
    let mut first = rule(vec![m], vec![Statement::Counter], Some(Verdict::Accept));
    first.comment = Text::new("with a comment");
    let rules = vec![first, rule(vec![], vec![], Some(Verdict::Drop))];
    t.set_chain(&chain("c"), Chain { base: None, rules });
    let base = Some(base(Hook::Forward));
    let rules = Vec::new();
    t.set_chain(&chain("f"), Chain { base, rules });
    t
}

/// All that the kernel says about the table, as it says it.
fn recorded(names: impl Iterator<Item = String>) -> Vec<u8> {
    let mut socket = Socket::open(Netlink::Netfilter).unwrap();
    let mut out = Vec::new();
    let mut ask = |kind: u16, set: Option<&str>| {
        let mut msg = Message::new(NFT | kind, 0);
        msg.raw(&[1, 0, 0, 0]).attr_str(1, "manx");
        if let Some(set) = set {
            msg.attr_str(2, set);
        }
        let frames = socket.dump("record", msg, |f| {
            let mut m = Message::new(f.kind, f.flags);
            m.raw(f.body);
            Some(m.bytes().to_vec())
        });
        out.extend(frames.unwrap().concat());
    };
    GET.into_iter().for_each(|kind| ask(kind, None));
    names.for_each(|n| ask(GET_ELEMENTS, Some(&n)));
    out
}

/// A generator whose numbers are the same each time (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }
}

fn mutate(bytes: &mut Vec<u8>, r: &mut Numbers) {
    for _ in 0..1 + r.below(6) {
        let at = r.below(bytes.len());
        match r.below(8) {
            0 => bytes[at] = 0,
            1 => bytes[at] = 0xff,
            2 => bytes[at] ^= 1 << r.below(8),
            // Lengths and types stand on even places.
            3 => bytes[at & !1] = r.below(64) as u8,
            4 => drop(bytes.drain(at..(at + 1 + r.below(40)).min(bytes.len()))),
            5 => {
                let (from, n) = (r.below(bytes.len()), r.below(200));
                let copy = bytes[from..(from + n).min(bytes.len())].to_vec();
                bytes.splice(at..at, copy);
            }
            6 => bytes.truncate(at.max(64)),
            _ => bytes[at] = r.below(256) as u8,
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
}

#[test]
fn a_dump_reads_the_same_whoever_brings_it_and_no_bytes_bring_a_panic() {
    in_ns(|ns| {
        let mut sys = Sys::open(table_name()).unwrap();
        let mut table = wanted();
        sys.sync(&mut table).unwrap();
        // Things that are not ours, in our table.
        nft(
            ns,
            &["-f", "-"],
            "table inet manx {
                set odd { type mark; elements = { 1, 2 }; }
                set span { type ipv4_addr; flags interval; elements = { 10.0.0.1-10.0.0.6 }; }
                set some { type ifname; limit rate 5/second; elements = { \"a\" limit rate 4/second }; }
                map marks { type ipv4_addr : mark; elements = { 1.1.1.1 : 5 }; }
                chain odd { type filter hook ingress device lo priority 0; drop; }
            }",
        );
        let dump = sys.read().unwrap();
        let bytes = recorded(dump.sets.keys().cloned());
        let family = TableFamily::Inet;
        assert_eq!(parse_dump(family, &table_name(), &bytes), dump);
        for (name, live) in &table.actual().sets {
            assert_eq!(dump.sets[name], *live, "{name}");
        }
        assert!(dump.sets["span"].alien);
        assert_eq!(dump.sets["marks"].kind, None);
        assert_eq!(dump.sets["some"].kind, None);

        let mut r = Numbers(0x9e37_79b9_7f4a_7c15);
        let mut understood = 0;
        for n in 0..1500 {
            let mut mutated = bytes.clone();
            mutate(&mut mutated, &mut r);
            let dump = parse_dump(family, &table_name(), &mutated);
            understood += usize::from(dump.sets.len() > 5);
            // Whatever it was taken for, a plan can be made of it.
            if n % 20 == 0 {
                let mut other = wanted();
                other.adopt(dump);
                let _ = other.plan();
            }
        }
        assert!(understood > 100, "most of many dumps is still a dump");
        for n in (0..bytes.len()).step_by(bytes.len() / 300) {
            let _ = parse_dump(family, &table_name(), &bytes[n..]);
            let _ = parse_dump(family, &table_name(), &bytes[..n]);
        }

        // And all that is not ours goes.
        table.adopt(sys.read().unwrap());
        assert!(sys.sync(&mut table).unwrap());
        assert_eq!(sys.read().unwrap(), table.actual());
        assert!(!table.actual().sets.contains_key("odd"));
    });
}
