//! The table in the kernel: read, apply, and notice changes by others.
//!
//! Promises: a plan takes effect whole or not at all, and only on the table it was made for; a
//! refusal names the operation refused; after [`Sys::read`], whatever somebody else does to the
//! table shows in [`Sys::notices`].
//! Never: decides what to change; touches another table.

use crate::lower;
use crate::members::Members;
use crate::plan::{Dump, Incomplete, Object, Op, Plan, Receipt, RuleId};
use crate::read::{self, Reading, UDATA_ID};
use crate::table::Table;
use crate::value::*;
use netlink::nft::{Batch, ElementData, ElementSpec, Exprs, Nft, Notice, Outcome};
use netlink::{Cause, Errno, NetlinkError};
use std::collections::BTreeSet;
use std::time::Instant;

/// Why a plan did not take effect, or is not known to have.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The kernel refused an operation; nothing changed.
    #[error("{op}: {errno}{}", message.as_ref().map(|m| format!(" ({m})")).unwrap_or_default())]
    Refused {
        /// The operation, in words.
        op: String,
        /// Its place in the plan; `None` when the transaction failed as a whole.
        index: Option<usize>,
        /// The kernel's reason.
        errno: Errno,
        /// The kernel's words.
        message: Option<String>,
        /// What else of the plan it refused, some of it only because of the first.
        others: Vec<ApplyError>,
    },
    /// Somebody else changed the table since it was read; nothing changed. Read, adopt, plan.
    #[error("table {0} was changed by somebody else since it was read")]
    Changed(TableName),
    /// Whether the plan took effect is not known. Read, adopt, plan.
    #[error("the kernel's answer about table {0} was lost")]
    Unknown(TableName),
    /// The socket failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Operation, errno and words of a refusal.
type Answer = (Option<usize>, Errno, Option<String>);

/// What can go wrong with a transaction, for tests of what comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The kernel refuses the operation at this place, or the whole; nothing is sent.
    Refuse {
        /// Place in the plan.
        index: Option<usize>,
        /// Why.
        errno: Errno,
    },
    /// The socket fails so; nothing is sent.
    Socket(Errno),
    /// It takes effect, or is refused, and the answer is lost.
    LoseAnswer,
    /// The same, and notices are lost with it.
    LoseNotices,
}

type AskFault = dyn FnMut(&Plan) -> Option<Fault> + Send;

struct Faults(Box<AskFault>);

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("faults")
    }
}

/// Changes by others that one sync repairs before it gives up.
const TRIES: u32 = 10;

/// One table in one network namespace. All calls block, but never on anything but the kernel's
/// own work.
#[derive(Debug)]
pub struct Sys {
    nft: Nft,
    family: TableFamily,
    table: TableName,
    exprs: Exprs,
    faults: Option<Faults>,
}

impl Sys {
    /// Opens a table of family `inet` in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel gives no socket or has no nf_tables.
    pub fn open(table: TableName) -> Result<Self, NetlinkError> {
        Self::open_of(TableFamily::Inet, table)
    }

    /// Opens a table of this family in the network namespace of the calling thread. Several of
    /// one namespace do not disturb each other.
    ///
    /// # Errors
    /// When the kernel gives no socket or has no nf_tables.
    pub fn open_of(family: TableFamily, table: TableName) -> Result<Self, NetlinkError> {
        Ok(Self {
            nft: Nft::open(lower::family(family), table.as_str())?,
            family,
            table,
            exprs: Exprs::default(),
            faults: None,
        })
    }

    /// From here on asks before each transaction what shall go wrong with it: for tests.
    pub fn inject(&mut self, faults: impl FnMut(&Plan) -> Option<Fault> + Send + 'static) {
        self.faults = Some(Faults(Box::new(faults)));
    }

    /// Reads the table as of one moment.
    ///
    /// # Errors
    /// When the kernel refuses, or others keep changing the table.
    pub fn read(&mut self) -> Result<Dump, NetlinkError> {
        let mut last = None;
        for _ in 0..TRIES {
            self.nft.forget_notices()?;
            match self.read_once() {
                // A set listed and then gone, or a list that never held still: somebody changes
                // this table, or others, as we read.
                Err(e) if e.is(Errno::ENOENT) || matches!(e.cause, Cause::Unsteady) => {
                    last = Some(e);
                }
                Err(e) => return Err(e),
                Ok(dump) if self.nft.notices()? == Notice::Quiet => return Ok(dump),
                Ok(_) => {}
            }
        }
        Err(last.unwrap_or_else(|| NetlinkError {
            operation: format!("read table {} {}", self.family, self.table),
            cause: Cause::Unsteady,
        }))
    }

    fn read_once(&mut self) -> Result<Dump, NetlinkError> {
        let mut reading = Reading::new(self.family);
        let Some(flags) = self.nft.table_flags()? else {
            return Ok(reading.end());
        };
        reading.table(flags);
        self.nft
            .chains()?
            .into_iter()
            .for_each(|c| reading.chain(c));
        self.nft.rules()?.iter().for_each(|r| reading.rule(r));
        for s in self.nft.sets()? {
            // What is of no kind of ours goes, whatever is in it.
            if let Some(kind) = reading.set(&s) {
                let elements = self.nft.elements(&s.name, |e| read::element(kind, e))?;
                reading.elements(&s.name, kind, elements);
            }
        }
        Ok(reading.end())
    }

    /// Carries out a plan as one transaction.
    ///
    /// # Errors
    /// See [`ApplyError`]; in every case but `Unknown` the kernel is unchanged.
    pub fn apply(&mut self, plan: &Plan) -> Result<Receipt, ApplyError> {
        let fault = self.faults.as_mut().and_then(|f| f.0(plan));
        match &fault {
            Some(Fault::Refuse { index, errno }) => {
                return Err(self.refused(plan, (*index, *errno, None), Vec::new()));
            }
            Some(Fault::Socket(errno)) => {
                let what = "send an nf_tables transaction";
                return Err(NetlinkError::system(what, *errno).into());
            }
            Some(Fault::LoseAnswer | Fault::LoseNotices) | None => {}
        }
        let batch = self.batch(plan);
        let outcome = self.nft.commit(batch)?;
        match fault {
            Some(Fault::LoseAnswer) => return Err(ApplyError::Unknown(self.table.clone())),
            Some(Fault::LoseNotices) => {
                self.nft.lose_notices();
                return Err(ApplyError::Unknown(self.table.clone()));
            }
            _ => {}
        }
        match outcome {
            Outcome::Done(done) => Ok(Receipt {
                handles: done.handles.into_iter().collect(),
            }),
            Outcome::Changed => Err(ApplyError::Changed(self.table.clone())),
            Outcome::Unknown => Err(ApplyError::Unknown(self.table.clone())),
            Outcome::Refused {
                op,
                errno,
                message,
                others,
            } => Err(self.refused(plan, (op, errno, message), others)),
        }
    }

    fn refused(
        &self,
        plan: &Plan,
        (index, errno, message): Answer,
        others: Vec<Answer>,
    ) -> ApplyError {
        let op = match index.and_then(|i| plan.ops.get(i)) {
            Some(op) => op.to_string(),
            None => format!("commit to table {}", self.table),
        };
        let others = others.into_iter();
        ApplyError::Refused {
            op,
            index,
            errno,
            message,
            others: others.map(|o| self.refused(plan, o, Vec::new())).collect(),
        }
    }

    /// Makes the kernel hold what the table wants: plan, apply, commit; where somebody else
    /// interfered, read and begin again. True if anything had to change.
    ///
    /// # Errors
    /// As [`Sys::apply`]; the table stays dirty.
    pub fn sync(&mut self, table: &mut Table) -> Result<bool, ApplyError> {
        let mut worked = false;
        for _ in 0..TRIES {
            let plan = table.plan();
            if plan.is_empty() {
                return Ok(worked);
            }
            match self.apply(&plan) {
                Ok(receipt) => match table.committed(&plan, &receipt) {
                    Ok(()) => return Ok(true),
                    Err(Incomplete) => worked = true,
                },
                Err(ApplyError::Changed(_)) => {}
                // Small socket buffers, as an ordinary user has them, lose the answer to a
                // large transaction; reading tells what became of it.
                Err(ApplyError::Unknown(_)) => worked = true,
                Err(e) => return Err(e),
            }
            table.adopt(self.read()?);
        }
        Err(ApplyError::Changed(self.table.clone()))
    }

    /// As [`Sys::sync`], but an object that the kernel refuses does not hold up the others: it,
    /// and what cannot be without it, is left out and stays dirty. Where the kernel does not
    /// say which one it is, halves are tried. Gives back the refusals, the object of each one
    /// named in its operation.
    ///
    /// # Errors
    /// When it is not about single objects.
    pub fn sync_each(&mut self, table: &mut Table) -> Result<Vec<ApplyError>, ApplyError> {
        let mut bad = BTreeSet::new();
        let mut refusals = Vec::new();
        loop {
            match self.attempt(table, &bad)? {
                Attempt::Nothing | Attempt::Done => return Ok(refusals),
                Attempt::Named(objects, errors) => {
                    // Each turn leaves out one more, so this ends.
                    bad.extend(objects);
                    refusals.extend(errors);
                }
                Attempt::Whole(e) => self.halve(table, &mut bad, &mut refusals, e)?,
            }
        }
    }

    /// Finds the objects because of which the kernel refuses all of a plan, and applies what it
    /// takes without them.
    fn halve(
        &mut self,
        table: &mut Table,
        bad: &mut BTreeSet<Object>,
        refusals: &mut Vec<ApplyError>,
        whole: ApplyError,
    ) -> Result<(), ApplyError> {
        let mut groups = vec![table.dirty_objects()];
        let mut found = false;
        while let Some(mut group) = groups.pop() {
            group.retain(|o| !bad.contains(o));
            let (in_group, all) = (BTreeSet::from_iter(&group), table.dirty_objects());
            let others = all.into_iter().filter(|o| !in_group.contains(o));
            let left_out: BTreeSet<_> = others.chain(bad.iter().cloned()).collect();
            match self.attempt(table, &left_out)? {
                Attempt::Nothing | Attempt::Done => {}
                Attempt::Named(objects, errors) => {
                    bad.extend(objects);
                    refusals.extend(errors);
                    found = true;
                    groups.push(group);
                }
                Attempt::Whole(e) => match group.as_slice() {
                    [] => return Err(e),
                    [one] => {
                        bad.insert(one.clone());
                        refusals.push(of_object(e, one));
                        found = true;
                    }
                    _ => {
                        let second = group.split_off(group.len() / 2);
                        groups.extend([second, group]);
                    }
                },
            }
        }
        // No half is to blame, only all of it together.
        if found { Ok(()) } else { Err(whole) }
    }

    /// One transaction without what is left out; read and planned anew where somebody else
    /// interferes.
    fn attempt(
        &mut self,
        table: &mut Table,
        left_out: &BTreeSet<Object>,
    ) -> Result<Attempt, ApplyError> {
        let mut disturbed = 0;
        loop {
            let plan = table.plan_except(left_out);
            if plan.is_empty() {
                return Ok(Attempt::Nothing);
            }
            match self.apply(&plan) {
                Ok(receipt) => match table.committed(&plan, &receipt) {
                    Ok(()) => return Ok(Attempt::Done),
                    Err(Incomplete) => table.adopt(self.read()?),
                },
                Err(ApplyError::Changed(_) | ApplyError::Unknown(_)) if disturbed < TRIES => {
                    disturbed += 1;
                    table.adopt(self.read()?);
                }
                Err(e @ ApplyError::Refused { .. }) => return Ok(named(e, &plan)),
                Err(e) => return Err(e),
            }
        }
    }

    /// Removes the table and all in it; nothing to do where there is none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_table(&mut self) -> Result<(), ApplyError> {
        for _ in 0..TRIES {
            self.nft.forget_notices()?;
            if self.nft.table_flags()?.is_none() {
                return Ok(());
            }
            let mut batch = Batch::new(lower::family(self.family), self.table.as_str());
            batch.del_table();
            match self.nft.commit(batch)? {
                Outcome::Done(_) => return Ok(()),
                Outcome::Refused { errno, message, .. } if errno != Errno::ENOENT => {
                    let op = format!("delete table {}", self.table);
                    return Err(ApplyError::Refused {
                        op,
                        index: None,
                        errno,
                        message,
                        others: Vec::new(),
                    });
                }
                _ => {}
            }
        }
        Err(ApplyError::Changed(self.table.clone()))
    }

    /// What others did to the table since it was last read; does not wait.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn notices(&mut self) -> Result<Notice, NetlinkError> {
        self.nft.notices()
    }

    /// Waits until somebody else has changed the table, or notices were lost: then read and
    /// adopt. For tasks of a tokio runtime. Cancel-safe.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn changed(&mut self) -> Result<Notice, NetlinkError> {
        loop {
            match self.nft.notices()? {
                Notice::Quiet => self.nft.readable().await?,
                n => return Ok(n),
            }
        }
    }

    /// As [`Sys::changed`] for plain threads; `Quiet` when the deadline passes.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn changed_by(&mut self, deadline: Instant) -> Result<Notice, NetlinkError> {
        loop {
            match self.nft.notices()? {
                Notice::Quiet if self.nft.wait(deadline) => {}
                n => return Ok(n),
            }
        }
    }

    fn batch(&mut self, plan: &Plan) -> Batch {
        let mut b = Batch::new(lower::family(self.family), self.table.as_str());
        for (i, op) in plan.ops.iter().enumerate() {
            b.operation(i);
            match op {
                Op::CreateTable => b.new_table(),
                Op::DeleteRule { chain, handle } => b.del_rule(chain, *handle),
                Op::FlushChain { chain } => b.flush_chain(chain),
                Op::DeleteElements { set, elements } => self.elements(&mut b, set, elements, false),
                Op::DeleteSet { set } => b.del_set(set),
                Op::DeleteChain { chain } => b.del_chain(chain),
                Op::CreateSet { set, kind } => b.new_set(set.as_str(), &lower::set(*kind)),
                Op::CreateChain { chain, base } => {
                    b.new_chain(
                        chain.as_str(),
                        base.map(|b| lower::base(self.family, &b)).as_ref(),
                    );
                }
                Op::SetPolicy { chain, base } => {
                    b.new_chain(chain.as_str(), Some(&lower::base(self.family, base)));
                }
                Op::AddElements { set, elements } => self.elements(&mut b, set, elements, true),
                Op::AddRule {
                    chain,
                    rule,
                    id,
                    before,
                } => {
                    lower::rule(rule, &mut self.exprs);
                    b.new_rule(chain.as_str(), &self.exprs, &userdata(rule, *id), *before);
                }
            }
        }
        b
    }

    fn elements(&self, b: &mut Batch, set: &SetName, elements: &Members, add: bool) {
        let mut list = b.elements(set.as_str(), add);
        let mut value = Vec::new();
        for e in elements.iter() {
            // What goes is known by its key.
            let data = if add {
                lower::data(&e, &mut value)
            } else {
                ElementData::None
            };
            let key = lower::key(&e);
            list.push(&ElementSpec {
                key: key.low(),
                key_end: key.high(),
                interval_end: false,
                data,
            });
            if let Some(end) = lower::interval_end(&e) {
                list.push(&ElementSpec {
                    key: end.low(),
                    key_end: None,
                    interval_end: true,
                    data: ElementData::None,
                });
            }
        }
        list.end();
    }
}

/// What came of one transaction.
enum Attempt {
    /// There was nothing to do.
    Nothing,
    /// It took effect.
    Done,
    /// These objects were refused, for these reasons.
    Named(Vec<Object>, Vec<ApplyError>),
    /// All of it was, and the kernel did not say because of what.
    Whole(ApplyError),
}

/// The objects that a refusal is about: the first one, and chains. Of the others a map is one
/// only because of a chain, without which its other members do.
fn named(mut e: ApplyError, plan: &Plan) -> Attempt {
    let object = |e: &ApplyError| match e {
        ApplyError::Refused { index, .. } => plan.ops.get((*index)?)?.object(),
        _ => None,
    };
    let Some(first) = object(&e) else {
        return Attempt::Whole(e);
    };
    let others = match &mut e {
        ApplyError::Refused { others, .. } => std::mem::take(others),
        _ => Vec::new(),
    };
    let (mut objects, mut errors) = (vec![first], vec![e]);
    for e in others {
        if let Some(o @ Object::Chain(_)) = object(&e)
            && !objects.contains(&o)
        {
            objects.push(o);
            errors.push(e);
        }
    }
    Attempt::Named(objects, errors)
}

/// A refusal of all, which turned out to be about one.
fn of_object(e: ApplyError, object: &Object) -> ApplyError {
    match e {
        ApplyError::Refused { errno, message, .. } => ApplyError::Refused {
            op: format!("change {object}"),
            index: None,
            errno,
            message,
            others: Vec::new(),
        },
        e => e,
    }
}

/// nft's `NFTNL_UDATA_RULE_COMMENT`.
const UDATA_COMMENT: u8 = 0;

/// A comment that nft prints, then the id.
fn userdata(rule: &Rule, id: RuleId) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    let mut put = |kind: u8, bytes: &[u8], nul: bool| {
        let len = bytes.len() + usize::from(nul);
        out.push(kind);
        out.push(u8::try_from(len).expect("comments are at most 127 bytes"));
        out.extend_from_slice(bytes);
        out.extend(nul.then_some(0));
    };
    if !rule.comment.is_empty() {
        put(UDATA_COMMENT, rule.comment.as_str().as_bytes(), true);
    }
    put(UDATA_ID, &id.0, false);
    out
}
