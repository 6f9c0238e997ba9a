//! Reading one table back.
//!
//! Promises: each list is whole as of one moment; bytes of any shape end in an entry left out,
//! never in a panic.
//! Never: looks into another table.

use super::batch::DATA_VERDICT;
use super::*;

/// A chain as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainInfo {
    /// Its name.
    pub name: String,
    /// Set for base chains.
    pub base: Option<BaseSpec>,
}

/// A rule as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInfo {
    /// Its chain.
    pub chain: String,
    /// Its handle, unique in the table.
    pub handle: u64,
    /// What its maker attached.
    pub userdata: Vec<u8>,
}

/// A named set as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetInfo {
    /// Its name.
    pub name: String,
    /// Its type; `None` for one that nobody here makes. `host_order` is not read.
    pub spec: Option<SetSpec>,
}

/// A verdict as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerdictInfo<'a> {
    /// `NF_*` or `NFT_*`.
    pub code: i32,
    /// Where a jump or goto leads.
    pub chain: Option<&'a str>,
}

/// An element as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElementInfo<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Upper ends of an interval concatenation.
    pub key_end: Option<&'a [u8]>,
    /// Marks the end of a plain interval.
    pub interval_end: bool,
    /// What it has beside the key.
    pub data: DataInfo<'a>,
}

/// What an element has beside its key, as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataInfo<'a> {
    /// Nothing.
    None,
    /// In a verdict map.
    Verdict(VerdictInfo<'a>),
    /// In a map.
    Value(&'a [u8]),
    /// What it counts.
    Stateful(Stateful),
    /// Something that nobody here makes.
    Unknown,
}

/// Reading. Each list is whole as of one moment; two lists may be of two moments, which
/// [`Nft::notices`] tells.
impl Nft {
    fn get(&self, kind: u16, table: bool) -> Message {
        let mut msg = Message::new(SUBSYS << 8 | kind, 0);
        msg.raw(&[self.family as u8, 0, 0, 0]);
        if table {
            msg.attr_str(1, &self.table);
        }
        msg
    }

    /// The table's flags (1: dormant); `None` when there is no such table.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn table_flags(&mut self) -> Result<Option<u32>, NetlinkError> {
        let msg = self.get(GETTABLE, true);
        let what = format!("read table {} {}", self.family, self.table);
        match self
            .dumps
            .query(what, msg, |f| be32(attr(Attrs::after(f.body, 4), 2)?))
        {
            Ok(flags) => Ok(Some(flags)),
            Err(e) if e.is(Errno::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The chains.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn chains(&mut self) -> Result<Vec<ChainInfo>, NetlinkError> {
        let msg = self.get(GETCHAIN, false);
        let (family, table) = (self.family, &self.table);
        let what = format_args!("list chains of table {family} {table}");
        self.dumps.dump(what, msg, |f| chain(f.body, table))
    }

    /// The rules of all chains, those of one chain in their order.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn rules(&mut self) -> Result<Vec<RuleInfo>, NetlinkError> {
        let msg = self.get(GETRULE, true);
        let (family, table) = (self.family, &self.table);
        let what = format_args!("list rules of table {family} {table}");
        self.dumps.dump(what, msg, |f| rule(f.body, table))
    }

    /// The named sets and maps.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sets(&mut self) -> Result<Vec<SetInfo>, NetlinkError> {
        let msg = self.get(GETSET, true);
        let (family, table) = (self.family, &self.table);
        let what = format_args!("list sets of table {family} {table}");
        self.dumps.dump(what, msg, |f| set(f.body, table))
    }

    /// The elements of a set, as `decode` has them. An element that others put in or took out
    /// meanwhile may be there or not, or twice.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn elements<T>(
        &mut self,
        set: &str,
        mut decode: impl FnMut(&ElementInfo<'_>) -> T,
    ) -> Result<Vec<T>, NetlinkError> {
        let mut msg = self.get(GETSETELEM, true);
        msg.attr_str(2, set);
        let (family, table) = (self.family, &self.table);
        let what = format_args!("list elements of set {set} of table {family} {table}");
        let lists = self.dumps.dump(what, msg, |f| {
            let (_, list) = elements(f.body, table)?;
            Some(list.map(|e| decode(&e)).collect::<Vec<_>>())
        })?;
        let mut lists = lists.into_iter();
        let mut all = lists.next().unwrap_or_default();
        lists.for_each(|l| all.extend(l));
        Ok(all)
    }
}

/// One message of what the kernel tells about a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item<'a> {
    /// The table is there, with these flags (1: dormant).
    Table(u32),
    /// A chain.
    Chain(ChainInfo),
    /// A rule.
    Rule(RuleInfo),
    /// A named set.
    Set(SetInfo),
    /// Some elements of a set.
    Elements(&'a str, Vec<ElementInfo<'a>>),
}

/// Reads messages as the kernel sends them, from bytes of any origin: what is not about this
/// table, or makes no sense, is left out.
pub fn items<'a>(
    family: Family,
    table: &'a str,
    bytes: &'a [u8],
) -> impl Iterator<Item = Item<'a>> + 'a {
    received(bytes).filter_map(move |r| {
        if r.kind >> 8 != SUBSYS || r.body.first() != Some(&(family as u8)) {
            return None;
        }
        Some(match r.kind & 0xff {
            NEWTABLE if ours(r.body, table) => {
                Item::Table(attr(Attrs::after(r.body, 4), 2).and_then(be32)?)
            }
            NEWCHAIN => Item::Chain(chain(r.body, table)?),
            NEWRULE => Item::Rule(rule(r.body, table)?),
            NEWSET => Item::Set(set(r.body, table)?),
            NEWSETELEM => {
                let (set, list) = elements(r.body, table)?;
                Item::Elements(set, list.collect())
            }
            _ => return None,
        })
    })
}

/// Whether a message is about the table of this name: its first attribute in all kinds.
fn ours(body: &[u8], table: &str) -> bool {
    attr(Attrs::after(body, 4), 1).and_then(text) == Some(table)
}

fn chain(body: &[u8], table: &str) -> Option<ChainInfo> {
    let a = || Attrs::after(body, 4);
    if !ours(body, table) {
        return None;
    }
    let name = text(attr(a(), 3)?)?.to_owned();
    let base = attr(a(), 4).and_then(|hook| {
        Some(BaseSpec {
            kind: text(attr(a(), 7)?)?.to_owned(),
            hook: be32(attr(Attrs::nested(hook), 1)?)?,
            priority: be32(attr(Attrs::nested(hook), 2)?)?.cast_signed(),
            policy: be32(attr(a(), 5)?)?,
        })
    });
    Some(ChainInfo { name, base })
}

fn rule(body: &[u8], table: &str) -> Option<RuleInfo> {
    let a = || Attrs::after(body, 4);
    if !ours(body, table) {
        return None;
    }
    Some(RuleInfo {
        chain: text(attr(a(), 2)?)?.to_owned(),
        handle: be64(attr(a(), 3)?)?,
        userdata: attr(a(), 7).unwrap_or_default().to_vec(),
    })
}

fn set(body: &[u8], table: &str) -> Option<SetInfo> {
    let a = || Attrs::after(body, 4);
    let flags = attr(a(), 3).and_then(be32).unwrap_or(0);
    if !ours(body, table) || flags & set_flag::ANONYMOUS != 0 {
        return None;
    }
    let field = |e| be32(attr(Attrs::nested(e), 1)?);
    let fields = attr(a(), 9)
        .and_then(|desc| attr(Attrs::nested(desc), 2))
        .map(|list| {
            Attrs::nested(list)
                .filter_map(|(_, e)| field(e))
                .collect::<Vec<_>>()
        })
        .unwrap_or_default();
    let spec = set_data(body).and_then(|data| {
        Some(SetSpec {
            flags,
            key_type: be32(attr(a(), 4)?)?,
            key_len: be32(attr(a(), 5)?)?,
            fields,
            data,
            host_order: false,
        })
    });
    Some(SetInfo {
        name: text(attr(a(), 2)?)?.to_owned(),
        spec,
    })
}

fn elements<'a>(
    body: &'a [u8],
    table: &str,
) -> Option<(&'a str, impl Iterator<Item = ElementInfo<'a>>)> {
    if !ours(body, table) {
        return None;
    }
    let set = text(attr(Attrs::after(body, 4), 2)?)?;
    let list = attr(Attrs::after(body, 4), 3)?;
    let all = Attrs::nested(list).filter_map(|(_, e)| element(e));
    Some((set, all))
}

fn set_data(body: &[u8]) -> Option<SetData> {
    let a = || Attrs::after(body, 4);
    if attr(a(), 18).is_some() {
        return None;
    }
    if let Some(e) = attr(a(), 17) {
        return stateful(e).map(SetData::Stateful);
    }
    Some(match attr(a(), 6).and_then(be32) {
        None => SetData::None,
        Some(DATA_VERDICT) => SetData::Verdict,
        Some(data_type) => SetData::Value {
            data_type,
            len: attr(a(), 7).and_then(be32)?,
        },
    })
}

/// An expression that counts, if it is one that is made here.
fn stateful(e: &[u8]) -> Option<Stateful> {
    const PACKETS: u32 = 0;
    let name = text(attr(Attrs::nested(e), 1)?)?;
    let data = attr(Attrs::nested(e), 2)?;
    let word = |kind| attr(Attrs::nested(data), kind).and_then(be32);
    let long = |kind| attr(Attrs::nested(data), kind).and_then(be64);
    // Only what holds above the number: the inverting flag of both.
    match name {
        "limit" if word(4)? == PACKETS && word(5)? & 1 == 1 => Some(Stateful::OverRate {
            rate: long(1)?,
            seconds: long(2)?,
            burst: word(3)?,
        }),
        "connlimit" if word(2)? & 1 == 1 => Some(Stateful::OverCount(word(1)?)),
        _ => None,
    }
}

fn element(e: &[u8]) -> Option<ElementInfo<'_>> {
    let a = || Attrs::nested(e);
    fn bytes(v: &[u8]) -> Option<&[u8]> {
        attr(Attrs::nested(v), 1)
    }
    Some(ElementInfo {
        key: bytes(attr(a(), 1)?)?,
        key_end: attr(a(), 10).and_then(bytes),
        interval_end: attr(a(), 3).and_then(be32).is_some_and(|f| f & 1 != 0),
        data: element_data(e).unwrap_or(DataInfo::Unknown),
    })
}

/// `None` for what nobody here makes, two expressions on one element among it.
fn element_data(e: &[u8]) -> Option<DataInfo<'_>> {
    let a = || Attrs::nested(e);
    if attr(a(), 11).is_some() {
        return None;
    }
    if let Some(e) = attr(a(), 7) {
        return stateful(e).map(DataInfo::Stateful);
    }
    let Some(d) = attr(a(), 2) else {
        return Some(DataInfo::None);
    };
    if let Some(v) = attr(Attrs::nested(d), 2) {
        return Some(DataInfo::Verdict(VerdictInfo {
            code: be32(attr(Attrs::nested(v), 1)?)?.cast_signed(),
            chain: attr(Attrs::nested(v), 2).and_then(text),
        }));
    }
    attr(Attrs::nested(d), 1).map(DataInfo::Value)
}
