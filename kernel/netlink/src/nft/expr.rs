//! Expressions: the instructions of nf_tables rules, as attributes
//! (`enum nft_*_attributes` in `linux/netfilter/nf_tables.h`).
//!
//! Promises: what is written is well-formed for the kernel; lists too long for one attribute
//! are split.
//! Never: knows what a rule is wanted for.

use super::batch::Writer;

/// A 32-bit register. `R(0)` to `R(15)`; wide values take consecutive ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct R(pub u32);

impl R {
    /// `NFT_REG32_00` is 8.
    const fn number(self) -> u32 {
        8 + self.0
    }
}

/// `enum nft_meta_keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[expect(missing_docs, reason = "the kernel's names")]
pub enum Meta {
    Mark = 3,
    IifName = 6,
    OifName = 7,
    NfProto = 15,
    L4Proto = 16,
}

/// `enum nft_ct_keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[expect(missing_docs, reason = "the kernel's names")]
pub enum Ct {
    State = 0,
    Status = 2,
    ProtoSrc = 11,
    ProtoDst = 12,
    SrcIp = 19,
    DstIp = 20,
    SrcIp6 = 21,
    DstIp6 = 22,
}

/// `enum nft_payload_bases`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[expect(missing_docs, reason = "the kernel's names")]
pub enum Header {
    Network = 1,
    Transport = 2,
}

/// What a `fib` expression looks up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fib {
    /// Type of the source address (`RTN_*`).
    SourceType,
    /// Type of the destination address (`RTN_*`).
    DestinationType,
    /// Whether (1 or 0, 32 bits) the route to the source, with the packet's mark, leaves by the
    /// interface it came from.
    ReversePath,
}

/// The verdict codes of `linux/netfilter.h` and `enum nft_verdicts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerdictCode<'a> {
    /// `NF_DROP`.
    Drop,
    /// `NF_ACCEPT`.
    Accept,
    /// `NFT_RETURN`.
    Return,
    /// `NFT_JUMP`.
    Jump(&'a str),
    /// `NFT_GOTO`.
    Goto(&'a str),
}

/// Address translation (`enum nft_nat_types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kernel's names")]
pub enum Nat {
    Source = 0,
    Destination = 1,
}

/// An anonymous set that a rule brings along.
#[derive(Debug, Clone)]
pub(super) struct Anonymous {
    pub(super) id: u32,
    pub(super) key_type: u32,
    pub(super) key_len: u32,
    pub(super) interval: bool,
    pub(super) elements: Vec<(Vec<u8>, bool)>,
}

/// The expressions of one rule, in order.
#[derive(Debug, Default)]
pub struct Exprs {
    pub(super) w: Writer,
    pub(super) anonymous: Vec<Anonymous>,
    next_set: u32,
}

impl Exprs {
    /// Forgets everything but the numbering of anonymous sets, which must be unique within a
    /// transaction.
    pub fn clear(&mut self) {
        self.w.clear();
        self.anonymous.clear();
    }

    fn expr(&mut self, name: &str, body: impl FnOnce(&mut Writer)) {
        let elem = self.w.nest(1);
        self.w.str(1, name);
        let data = self.w.nest(2);
        body(&mut self.w);
        self.w.end(data);
        self.w.end(elem);
    }

    /// Loads a packet property.
    pub fn meta(&mut self, key: Meta, to: R) {
        self.expr("meta", |w| {
            w.u32(1, to.number());
            w.u32(2, key as u32);
        });
    }

    /// Sets a packet property from a register.
    pub fn meta_set(&mut self, key: Meta, from: R) {
        self.expr("meta", |w| {
            w.u32(2, key as u32);
            w.u32(3, from.number());
        });
    }

    /// Loads a connection property, 32 bits in host order.
    pub fn ct(&mut self, key: Ct, to: R) {
        self.expr("ct", |w| {
            w.u32(1, to.number());
            w.u32(2, key as u32);
        });
    }

    /// Loads a property of a connection's first packet as it was before any translation, in
    /// network byte order; ends the rule where there is no connection, or one of another family.
    pub fn ct_original(&mut self, key: Ct, to: R) {
        self.expr("ct", |w| {
            w.u32(1, to.number());
            w.u32(2, key as u32);
            w.attr(3, &[0]);
        });
    }

    /// Counts connections at this expression; ends the rule unless there are more than `over`.
    pub fn ct_count(&mut self, over: u32) {
        self.expr("connlimit", |w| connlimit(w, over));
    }

    /// Writes bytes of a header. `checksum` is where in the header an Internet checksum
    /// (RFC 1071) of it stands, which is kept right.
    pub fn payload_write(
        &mut self,
        header: Header,
        offset: u32,
        len: u32,
        from: R,
        checksum: Option<u32>,
    ) {
        self.expr("payload", |w| {
            w.u32(5, from.number());
            w.u32(2, header as u32);
            w.u32(3, offset);
            w.u32(4, len);
            w.u32(6, u32::from(checksum.is_some()));
            w.u32(7, checksum.unwrap_or(0));
        });
    }

    /// Takes the value that the map has for the key; ends the rule where it has none.
    pub fn lookup_value(&mut self, map: &str, key: R, to: R) {
        self.expr("lookup", |w| {
            w.str(1, map);
            w.u32(2, key.number());
            w.u32(3, to.number());
        });
    }

    /// Loads `len` bytes of a header; ends the rule where the packet has no such header.
    pub fn payload(&mut self, header: Header, offset: u32, len: u32, to: R) {
        self.expr("payload", |w| {
            w.u32(1, to.number());
            w.u32(2, header as u32);
            w.u32(3, offset);
            w.u32(4, len);
        });
    }

    /// `to = (from & mask) ^ xor`.
    pub fn bitwise(&mut self, from: R, to: R, mask: &[u8], xor: &[u8]) {
        self.expr("bitwise", |w| {
            w.u32(1, from.number());
            w.u32(2, to.number());
            w.u32(3, len32(mask));
            value(w, 4, mask);
            value(w, 5, xor);
        });
    }

    /// Ends the rule unless the register equals the bytes (`negate`: unless it differs).
    pub fn cmp(&mut self, from: R, negate: bool, bytes: &[u8]) {
        self.expr("cmp", |w| {
            w.u32(1, from.number());
            w.u32(2, u32::from(negate));
            value(w, 3, bytes);
        });
    }

    /// Ends the rule unless the register lies from `first` to `last` (`negate`: outside).
    pub fn range(&mut self, from: R, negate: bool, first: &[u8], last: &[u8]) {
        self.expr("range", |w| {
            w.u32(1, from.number());
            w.u32(2, u32::from(negate));
            value(w, 3, first);
            value(w, 4, last);
        });
    }

    /// Ends the rule unless the set has the key (`negate`: has it not).
    pub fn lookup(&mut self, set: &str, key: R, negate: bool) {
        self.expr("lookup", |w| {
            w.str(1, set);
            w.u32(2, key.number());
            if negate {
                w.u32(5, 1);
            }
        });
    }

    /// Takes the verdict that the map has for the key; ends the rule where it has none.
    pub fn vmap(&mut self, map: &str, key: R) {
        self.expr("lookup", |w| {
            w.str(1, map);
            w.u32(2, key.number());
            w.u32(3, 0);
        });
    }

    /// As [`Exprs::lookup`], in a set made for this rule. `elements` are keys; in an interval
    /// set (key, true) says that an interval has ended before this key.
    pub fn lookup_anonymous(
        &mut self,
        key: R,
        key_type: u32,
        key_len: u32,
        interval: bool,
        elements: Vec<(Vec<u8>, bool)>,
        negate: bool,
    ) {
        self.next_set += 1;
        let id = self.next_set;
        self.anonymous.push(Anonymous {
            id,
            key_type,
            key_len,
            interval,
            elements,
        });
        self.expr("lookup", |w| {
            w.str(1, "__set%d");
            w.u32(2, key.number());
            w.u32(4, id);
            if negate {
                w.u32(5, 1);
            }
        });
    }

    /// Loads the outcome of a route look-up.
    pub fn fib(&mut self, what: Fib, to: R) {
        const OIF: u32 = 1;
        const ADDRTYPE: u32 = 3;
        let (result, flags) = match what {
            Fib::SourceType => (ADDRTYPE, 1),
            Fib::DestinationType => (ADDRTYPE, 2),
            // saddr | mark | iif | present
            Fib::ReversePath => (OIF, 1 | 4 | 8 | 32),
        };
        self.expr("fib", |w| {
            w.u32(1, to.number());
            w.u32(2, result);
            w.u32(3, flags);
        });
    }

    /// Loads bytes.
    pub fn immediate(&mut self, to: R, bytes: &[u8]) {
        self.expr("immediate", |w| {
            w.u32(1, to.number());
            value(w, 2, bytes);
        });
    }

    /// Ends the rule with a verdict.
    pub fn verdict(&mut self, v: VerdictCode<'_>) {
        self.expr("immediate", |w| {
            w.u32(1, 0);
            verdict(w, 2, v);
        });
    }

    /// Counts packets and bytes.
    pub fn counter(&mut self) {
        self.expr("counter", |_| {});
    }

    /// Logs to an nflog group.
    pub fn log_group(&mut self, prefix: &str, group: u16) {
        self.expr("log", |w| {
            w.attr(1, &group.to_be_bytes());
            if !prefix.is_empty() {
                w.str(2, prefix);
            }
        });
    }

    /// Logs to an nflog group, `snaplen` bytes of each packet (0: all), `threshold` records at
    /// once (0: as the reader says).
    pub fn log_group_with(&mut self, prefix: &str, group: u16, snaplen: u32, threshold: u16) {
        self.expr("log", |w| {
            w.attr(1, &group.to_be_bytes());
            if !prefix.is_empty() {
                w.str(2, prefix);
            }
            if snaplen > 0 {
                w.u32(3, snaplen);
            }
            if threshold > 0 {
                w.attr(4, &threshold.to_be_bytes());
            }
        });
    }

    /// Logs to the kernel log at a syslog level.
    pub fn log_kernel(&mut self, prefix: &str, level: u8) {
        self.expr("log", |w| {
            if !prefix.is_empty() {
                w.str(2, prefix);
            }
            w.u32(5, u32::from(level));
        });
    }

    /// Ends the rule when above a packet rate (`over`: when not).
    pub fn limit(&mut self, rate: u64, unit_seconds: u64, burst: u32, over: bool) {
        self.expr("limit", |w| limit_data(w, rate, unit_seconds, burst, over));
    }

    /// Keeps the packet out of connection tracking.
    pub fn notrack(&mut self) {
        self.expr("notrack", |_| {});
    }

    /// Source becomes an address of the outgoing interface; ports from two registers.
    pub fn masquerade(&mut self, fully_random: bool, ports: Option<(R, R)>) {
        const PROTO_RANDOM_FULLY: u32 = 1 << 4;
        self.expr("masq", |w| {
            if fully_random {
                w.u32(1, PROTO_RANDOM_FULLY);
            }
            if let Some((min, max)) = ports {
                w.u32(2, min.number());
                if max != min {
                    w.u32(3, max.number());
                }
            }
        });
    }

    /// Translates to the address in a register, and the ports in two more.
    pub fn nat(&mut self, nat: Nat, nfproto: u8, addr: R, ports: Option<(R, R)>) {
        self.expr("nat", |w| {
            w.u32(1, nat as u32);
            w.u32(2, u32::from(nfproto));
            w.u32(3, addr.number());
            if let Some((min, max)) = ports {
                w.u32(5, min.number());
                if max != min {
                    w.u32(6, max.number());
                }
            }
        });
    }

    /// Drops and answers "administratively prohibited", ICMP or ICMPv6.
    pub fn reject_admin_prohibited(&mut self) {
        self.expr("reject", |w| {
            w.u32(1, 2);
            w.attr(2, &[3]);
        });
    }

    /// Drops and answers "port unreachable", ICMP or ICMPv6.
    pub fn reject_port_unreachable(&mut self) {
        self.expr("reject", |w| {
            w.u32(1, 2);
            w.attr(2, &[1]);
        });
    }

    /// Drops and answers with a TCP reset.
    pub fn reject_tcp_reset(&mut self) {
        self.expr("reject", |w| w.u32(1, 1));
    }
}

fn connlimit(w: &mut Writer, over: u32) {
    const INVERT: u32 = 1;
    w.u32(1, over);
    w.u32(2, INVERT);
}

fn limit_data(w: &mut Writer, rate: u64, unit_seconds: u64, burst: u32, over: bool) {
    w.u64(1, rate);
    w.u64(2, unit_seconds);
    w.u32(3, burst);
    w.u32(4, 0);
    w.u32(5, u32::from(over));
}

/// What a set element counts; a look-up that finds it holds only while it is above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stateful {
    /// Packets: a rate per so many seconds, and a burst.
    OverRate {
        /// Packets.
        rate: u64,
        /// Per so many seconds.
        seconds: u64,
        /// Packets at once on top.
        burst: u32,
    },
    /// Connections.
    OverCount(u32),
}

impl Stateful {
    /// Its expression's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::OverRate { .. } => "limit",
            Self::OverCount(_) => "connlimit",
        }
    }

    /// As one expression attribute.
    pub(super) fn write(self, w: &mut Writer, kind: u16) {
        let nest = w.nest(kind);
        w.str(1, self.name());
        let data = w.nest(2);
        match self {
            Self::OverRate {
                rate,
                seconds,
                burst,
            } => limit_data(w, rate, seconds, burst, true),
            Self::OverCount(n) => connlimit(w, n),
        }
        w.end(data);
        w.end(nest);
    }
}

fn len32(b: &[u8]) -> u32 {
    u32::try_from(b.len()).expect("a register value is at most 64 bytes")
}

pub(super) fn value(w: &mut Writer, kind: u16, bytes: &[u8]) {
    let n = w.nest(kind);
    w.attr(1, bytes);
    w.end(n);
}

pub(super) fn verdict(w: &mut Writer, kind: u16, v: VerdictCode<'_>) {
    let (code, chain): (i32, _) = match v {
        VerdictCode::Drop => (0, None),
        VerdictCode::Accept => (1, None),
        VerdictCode::Jump(c) => (-3, Some(c)),
        VerdictCode::Goto(c) => (-4, Some(c)),
        VerdictCode::Return => (-5, None),
    };
    let data = w.nest(kind);
    let nest = w.nest(2);
    w.u32(1, code.cast_unsigned());
    if let Some(c) = chain {
        w.str(2, c);
    }
    w.end(nest);
    w.end(data);
}
