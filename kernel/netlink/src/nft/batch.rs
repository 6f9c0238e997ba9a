//! Transactions as bytes: messages for tables, chains, rules, sets and elements.
//!
//! Promises: every message knows which of the caller's operations it belongs to; lists of
//! elements are split where one attribute could not hold them.
//! Never: sends anything.

use super::expr::{Anonymous, Stateful, value, verdict};
use super::*;

/// `NFT_SET_*` flags.
pub mod set_flag {
    /// Made for one rule.
    pub const ANONYMOUS: u32 = 1;
    /// Members never change.
    pub const CONSTANT: u32 = 2;
    /// Members are intervals.
    pub const INTERVAL: u32 = 4;
    /// Keys have values.
    pub const MAP: u32 = 8;
    /// Intervals in several fields.
    pub const CONCAT: u32 = 0x80;
}

/// nft's numbers of data types: what a listing needs to print keys.
pub mod key_type {
    /// IPv4 address.
    pub const IPV4: u32 = 7;
    /// IPv6 address.
    pub const IPV6: u32 = 8;
    /// Protocol number.
    pub const PROTO: u32 = 12;
    /// Port.
    pub const SERVICE: u32 = 13;
    /// Interface name.
    pub const IFNAME: u32 = 41;
    /// Several in a row, six bits each.
    pub const fn concat(a: u32, b: u32) -> u32 {
        a << 6 | b
    }
}

/// The data type of verdict maps (`NFT_DATA_VERDICT`).
pub(super) const DATA_VERDICT: u32 = 0xffff_ff00;
/// Bytes of elements in one message: the list's length is 16 bits, and nft's own
/// messages stay below the half of that.
const ELEMENTS: usize = 32 << 10;

/// Attributes in network byte order, appended to one buffer.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn pad(&mut self) {
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
    }

    pub(super) fn attr(&mut self, kind: u16, bytes: &[u8]) {
        let len = u16::try_from(4 + bytes.len()).expect("names and keys are short");
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(bytes);
        self.pad();
    }

    pub(super) fn u32(&mut self, kind: u16, v: u32) {
        self.attr(kind, &v.to_be_bytes());
    }

    pub(super) fn u64(&mut self, kind: u16, v: u64) {
        self.attr(kind, &v.to_be_bytes());
    }

    pub(super) fn str(&mut self, kind: u16, v: &str) {
        let len = u16::try_from(5 + v.len()).expect("names are short");
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(v.as_bytes());
        self.0.push(0);
        self.pad();
    }

    pub(super) fn nest(&mut self, kind: u16) -> usize {
        let at = self.0.len();
        self.0.extend_from_slice(&[0, 0]);
        self.0
            .extend_from_slice(&(kind | libc::NLA_F_NESTED as u16).to_ne_bytes());
        at
    }

    pub(super) fn end(&mut self, at: usize) {
        let len = u16::try_from(self.0.len() - at).expect("nests are split before 64 KiB");
        self.0[at..at + 2].copy_from_slice(&len.to_ne_bytes());
    }
}

/// Where a base chain hangs, in the kernel's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseSpec {
    /// `filter`, `nat` or `route`.
    pub kind: String,
    /// `NF_INET_*`.
    pub hook: u32,
    /// Order within the hook.
    pub priority: i32,
    /// `NF_DROP` (0) or `NF_ACCEPT` (1).
    pub policy: u32,
}

/// The type of a set, in the kernel's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetSpec {
    /// [`set_flag`]s.
    pub flags: u32,
    /// nft's number.
    pub key_type: u32,
    /// Bytes; each field padded to four.
    pub key_len: u32,
    /// Bytes of each field of a concatenation; empty for one field.
    pub fields: Vec<u32>,
    /// What members have beside their keys.
    pub data: SetData,
    /// Whether the key begins with an interface name, which is in host byte order for listings.
    pub host_order: bool,
}

/// What the members of a set have beside their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetData {
    /// Nothing.
    None,
    /// Verdicts.
    Verdict,
    /// Values of this type and length.
    Value {
        /// nft's number.
        data_type: u32,
        /// Bytes.
        len: u32,
    },
    /// Something that counts; members that bring none get this.
    Stateful(Stateful),
}

/// What one member has beside its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementData<'a> {
    /// In a plain set.
    None,
    /// In a verdict map.
    Verdict(VerdictCode<'a>),
    /// In a map.
    Value(&'a [u8]),
    /// In a set of [`SetData::Stateful`].
    Stateful(Stateful),
}

/// One element for [`Batch::new_elements`] and [`Batch::del_elements`].
#[derive(Debug, Clone, Copy)]
pub struct ElementSpec<'a> {
    /// The key, or the lower ends of its fields.
    pub key: &'a [u8],
    /// The upper ends (included) of the fields of an interval concatenation.
    pub key_end: Option<&'a [u8]>,
    /// Marks the end (excluded) of a plain interval.
    pub interval_end: bool,
    /// What it has beside the key.
    pub data: ElementData<'a>,
}

/// One transaction on one table, as it will be sent.
#[derive(Debug)]
pub struct Batch {
    w: Writer,
    family: u8,
    table: String,
    /// The caller's operation of each message.
    ops: Vec<usize>,
    op: usize,
    last: usize,
    /// Each new rule: operation, message, and how many handles were given before its own.
    rules: Vec<(usize, usize, u64)>,
    /// Handles given so far: one to each new set and each new rule.
    given: u64,
}

impl Batch {
    /// An empty transaction on the table of this name.
    pub fn new(family: Family, table: &str) -> Self {
        let mut b = Self {
            w: Writer(Vec::new()),
            family: family as u8,
            table: table.to_owned(),
            ops: Vec::new(),
            op: 0,
            last: 0,
            rules: Vec::new(),
            given: 0,
        };
        let at = b.header(BATCH_BEGIN, 0, 0, SUBSYS);
        // Filled in when sent.
        b.w.u32(1, 0);
        b.finish(at);
        b
    }

    /// Says that the messages from here on belong to the caller's operation number `op`.
    pub fn operation(&mut self, op: usize) {
        self.op = op;
    }

    /// Size in bytes so far.
    pub fn len(&self) -> usize {
        self.w.0.len()
    }

    /// Whether it holds no message.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    fn header(&mut self, kind: u16, flags: u16, family: u8, res: u16) -> usize {
        let at = self.w.0.len();
        let seq = u32::try_from(self.ops.len()).expect("fewer than 2^32 messages");
        self.w.0.extend_from_slice(&[0; 4]);
        self.w.0.extend_from_slice(&kind.to_ne_bytes());
        self.w.0.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.w.0.extend_from_slice(&seq.to_ne_bytes());
        self.w.0.extend_from_slice(&[0; 4]);
        self.w.0.extend_from_slice(&[family, 0]);
        self.w.0.extend_from_slice(&res.to_be_bytes());
        at
    }

    fn finish(&mut self, at: usize) {
        let len = u32::try_from(self.w.0.len() - at).expect("a message is below 4 GiB");
        self.w.0[at..at + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// A message; its sequence number is its place in the batch, counted from 1.
    fn message(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Writer, &str)) {
        let at = self.begin(kind, flags);
        let table = std::mem::take(&mut self.table);
        body(&mut self.w, &table);
        self.table = table;
        self.finish(at);
    }

    fn begin(&mut self, kind: u16, flags: u16) -> usize {
        self.ops.push(self.op);
        self.last = self.header(SUBSYS << 8 | kind, flags, self.family, 0);
        self.w.str(1, &self.table);
        self.last
    }

    /// Makes the table, or wakes a dormant one.
    pub fn new_table(&mut self) {
        self.message(NEWTABLE, CREATE, |w, _| w.u32(2, 0));
    }

    /// Removes the table and all in it.
    pub fn del_table(&mut self) {
        self.message(DELTABLE, 0, |_, _| {});
    }

    /// Makes a chain; for one that exists, sets its policy.
    pub fn new_chain(&mut self, name: &str, base: Option<&BaseSpec>) {
        self.message(NEWCHAIN, CREATE, |w, _| {
            w.str(3, name);
            let Some(b) = base else { return };
            let hook = w.nest(4);
            w.u32(1, b.hook);
            w.u32(2, b.priority.cast_unsigned());
            w.end(hook);
            w.u32(5, b.policy);
            w.str(7, &b.kind);
        });
    }

    /// Removes a chain, which must be unreferenced. Its rules must be gone too.
    pub fn del_chain(&mut self, name: &str) {
        self.message(DELCHAIN, 0, |w, _| w.str(3, name));
    }

    /// Adds a rule before the one with that handle, or at the end. The expressions' anonymous
    /// sets are made first. The handle it gets comes back as [`Done::handles`].
    pub fn new_rule(&mut self, chain: &str, exprs: &Exprs, userdata: &[u8], before: Option<u64>) {
        for a in &exprs.anonymous {
            self.anonymous_set(a);
        }
        let flags = CREATE | if before.is_some() { 0 } else { APPEND };
        let (at, given) = (self.w.0.len(), self.given);
        self.rules.push((self.op, at, given));
        self.given += 1;
        self.message(NEWRULE, flags, |w, _| {
            w.str(2, chain);
            let list = w.nest(4);
            w.0.extend_from_slice(&exprs.w.0);
            w.end(list);
            if let Some(handle) = before {
                w.u64(6, handle);
            }
            w.attr(7, userdata);
        });
    }

    /// Removes a rule.
    pub fn del_rule(&mut self, chain: &str, handle: u64) {
        self.message(DELRULE, 0, |w, _| {
            w.str(2, chain);
            w.u64(3, handle);
        });
    }

    /// Removes all rules of a chain.
    pub fn flush_chain(&mut self, chain: &str) {
        self.message(DELRULE, 0, |w, _| w.str(2, chain));
    }

    /// Makes a set or map.
    pub fn new_set(&mut self, name: &str, spec: &SetSpec) {
        self.set(name, spec, None, None);
    }

    fn set(&mut self, name: &str, spec: &SetSpec, id: Option<u32>, size: Option<u32>) {
        self.given += 1;
        self.message(NEWSET, CREATE, |w, _| {
            w.str(2, name);
            w.u32(3, spec.flags);
            w.u32(4, spec.key_type);
            w.u32(5, spec.key_len);
            match spec.data {
                SetData::Verdict => {
                    w.u32(6, DATA_VERDICT);
                    w.u32(7, 0);
                }
                SetData::Value { data_type, len } => {
                    w.u32(6, data_type);
                    w.u32(7, len);
                }
                SetData::None | SetData::Stateful(_) => {}
            }
            if !spec.fields.is_empty() || size.is_some() {
                let desc = w.nest(9);
                if let Some(size) = size {
                    w.u32(1, size);
                }
                if !spec.fields.is_empty() {
                    let list = w.nest(2);
                    for f in &spec.fields {
                        let elem = w.nest(1);
                        w.u32(1, *f);
                        w.end(elem);
                    }
                    w.end(list);
                }
                w.end(desc);
            }
            // The kernel wants an id on every set; only anonymous ones are found by it.
            w.u32(10, id.unwrap_or(0));
            if spec.host_order {
                // NFTNL_UDATA_SET_KEYBYTEORDER = host, or listings print empty names.
                let mut udata = vec![0, 4];
                udata.extend_from_slice(&1u32.to_ne_bytes());
                w.attr(13, &udata);
            }
            if let SetData::Stateful(s) = spec.data {
                s.write(w, 17);
            }
        });
    }

    fn anonymous_set(&mut self, a: &Anonymous) {
        const NAME: &str = "__set%d";
        let interval = if a.interval { set_flag::INTERVAL } else { 0 };
        let spec = SetSpec {
            flags: set_flag::ANONYMOUS | set_flag::CONSTANT | interval,
            key_type: a.key_type,
            key_len: a.key_len,
            fields: Vec::new(),
            data: SetData::None,
            host_order: false,
        };
        let size = u32::try_from(a.elements.len()).ok();
        self.set(NAME, &spec, Some(a.id), size);
        let mut list = self.element_list(NEWSETELEM, CREATE, NAME, Some(a.id));
        for (key, end) in &a.elements {
            list.push(&ElementSpec {
                key,
                key_end: None,
                interval_end: *end,
                data: ElementData::None,
            });
        }
        list.end();
    }

    /// Removes a set, which must be unreferenced.
    pub fn del_set(&mut self, name: &str) {
        self.message(DELSET, 0, |w, _| w.str(2, name));
    }

    /// Begins a list of elements of a set, to be added, or removed: then all of them must be
    /// there.
    pub fn elements<'a>(&'a mut self, set: &'a str, add: bool) -> ElementList<'a> {
        let (kind, flags) = if add {
            (NEWSETELEM, CREATE)
        } else {
            (DELSETELEM, 0)
        };
        self.element_list(kind, flags, set, None)
    }

    fn element_list<'a>(
        &'a mut self,
        kind: u16,
        flags: u16,
        set: &'a str,
        id: Option<u32>,
    ) -> ElementList<'a> {
        ElementList {
            batch: self,
            kind,
            flags,
            set,
            id,
            open: None,
        }
    }

    /// Names the generation it is valid for.
    pub(super) fn valid_for(&mut self, generation: u32) {
        self.w.0[24..28].copy_from_slice(&generation.to_be_bytes());
    }

    /// As it goes to the kernel.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.w.0
    }

    /// The caller's operation that a message with this sequence number belongs to.
    pub(super) fn operation_of(&self, seq: u32) -> Option<usize> {
        self.ops.get((seq as usize).checked_sub(1)?).copied()
    }

    /// Closes the batch for sending, with an acknowledgement of the last message, which the
    /// kernel gives only when all took effect, and the handles of rules: of each, or of many
    /// those of the first and the last.
    pub(super) fn seal(&mut self) {
        self.add_flags(self.last, ACK);
        let echo: Vec<usize> = match self.rules.as_slice() {
            [first, .., last] if self.rules.len() >= MANY_RULES => vec![first.1, last.1],
            all => all.iter().map(|r| r.1).collect(),
        };
        echo.into_iter().for_each(|at| self.add_flags(at, ECHO));
        let at = self.header(BATCH_END, 0, 0, SUBSYS);
        self.finish(at);
    }

    fn add_flags(&mut self, message: usize, flags: u16) {
        let at = message + 6;
        let now = u16::from_ne_bytes([self.w.0[at], self.w.0[at + 1]]);
        self.w.0[at..at + 2].copy_from_slice(&(now | flags).to_ne_bytes());
    }

    /// Operation and handle of each new rule, from those that the kernel told. A table gives
    /// its handles from one counter, in the order of the messages: where first and last are as
    /// far apart as they must be, those between are known. Otherwise nothing is guessed.
    pub(super) fn handles(&self, told: Vec<(usize, u64)>) -> Vec<(usize, u64)> {
        let (Some(first), Some(last)) = (self.rules.first(), self.rules.last()) else {
            return told;
        };
        if self.rules.len() < MANY_RULES {
            return told;
        }
        match told.as_slice() {
            [(a, low), (b, high)]
                if (*a, *b) == (first.0, last.0)
                    && high.checked_sub(*low) == Some(last.2 - first.2) =>
            {
                let rules = self.rules.iter();
                rules
                    .map(|(op, _, given)| (*op, low + given - first.2))
                    .collect()
            }
            _ => told,
        }
    }
}

/// From this many new rules in a transaction the kernel tells the handles of two.
const MANY_RULES: usize = 64;

/// Elements of one set, in as many messages as it takes.
#[derive(Debug)]
#[must_use = "the last message is closed by `end`"]
pub struct ElementList<'a> {
    batch: &'a mut Batch,
    kind: u16,
    flags: u16,
    set: &'a str,
    id: Option<u32>,
    /// Where the message and the list in it begin.
    open: Option<(usize, usize)>,
}

impl ElementList<'_> {
    /// One more.
    pub fn push(&mut self, e: &ElementSpec<'_>) {
        let (_, list) = match self.open {
            Some(open) => open,
            None => self.begin(),
        };
        let w = &mut self.batch.w;
        let elem = w.nest(1);
        if e.interval_end {
            w.u32(3, 1);
        }
        value(w, 1, e.key);
        if let Some(end) = e.key_end {
            value(w, 10, end);
        }
        match e.data {
            ElementData::None => {}
            ElementData::Verdict(v) => verdict(w, 2, v),
            ElementData::Value(v) => value(w, 2, v),
            ElementData::Stateful(s) => s.write(w, 7),
        }
        w.end(elem);
        if w.0.len() - list >= ELEMENTS {
            self.close();
        }
    }

    fn begin(&mut self) -> (usize, usize) {
        let b = &mut *self.batch;
        let at = b.begin(self.kind, self.flags);
        b.w.str(2, self.set);
        if let Some(id) = self.id {
            b.w.u32(4, id);
        }
        let list = b.w.nest(3);
        self.open = Some((at, list));
        (at, list)
    }

    fn close(&mut self) {
        if let Some((at, list)) = self.open.take() {
            self.batch.w.end(list);
            self.batch.finish(at);
        }
    }

    /// No more.
    pub fn end(mut self) {
        self.close();
    }
}
