//! What is to be written.

use super::*;
use route::Op;

/// What is to become of a prefix.
enum Target {
    Nothing,
    /// As it is, for now.
    Keep,
    Form(u32),
    /// As this form, but behind every other route.
    Behind(u32),
}

impl Table {
    fn target(&self, prefix: Cidr, held: Held) -> Target {
        let want = match (self.statics.get(&prefix), held.want) {
            (Some(id), _) => *id,
            (None, 0) if held.adopted => return Target::Keep,
            (None, 0) => return Target::Nothing,
            (None, _) if self.refused(prefix) && !self.waits(prefix, held) => {
                return Target::Nothing;
            }
            (None, id) => id,
        };
        match self.formed[want as usize] {
            0 => Target::Keep,
            form if self.handed.contains(&prefix) => Target::Behind(form),
            form => Target::Form(form),
        }
    }

    /// Whether a refused route waits for one of somebody else's, which leads to the same node another
    /// way.
    fn waits(&self, prefix: Cidr, held: Held) -> bool {
        let alone = || self.ways.routes_to(prefix).is_empty();
        held.has != 0 && self.handed.contains(&prefix) && alone()
    }

    /// Steps for up to `most` prefixes, as if they succeeded, into `ops`; `looked_at` is told each
    /// prefix, also where nothing is to be done.
    pub(crate) fn steps(
        &mut self,
        most: usize,
        ops: &mut Vec<Op>,
        mut looked_at: impl FnMut(Cidr),
    ) {
        for _ in 0..most {
            let Some(id) = self.dirty.pop_front() else {
                break;
            };
            looked_at(self.step(id, ops));
        }
        let converged = self.converged;
        if converged.iter().any(|c| *c) {
            let gone = |r: &mut Route| converged[at(r.family())];
            ops.extend(self.strays.extract_if(.., gone).map(Op::Delete));
        }
    }

    fn step(&mut self, id: RowId, ops: &mut Vec<Op>) -> Cidr {
        let held = Held {
            dirty: false,
            ..self.rows.get(id)
        };
        self.rows.set(id, held);
        let prefix = self.rows.prefix(id);
        match self.target(prefix, held) {
            Target::Keep => {}
            Target::Nothing => {
                self.handed.remove(&prefix);
                ops.extend(self.route(prefix, held.has).map(Op::Delete));
                self.has(id, 0);
            }
            Target::Behind(form) => self.fall_behind(id, form, ops),
            Target::Form(form) if form == held.has => {}
            Target::Form(form) => {
                self.changes(prefix, held.has, form, ops);
                self.forms.again(form);
                self.has(id, form);
            }
        }
        self.drop_if_idle(id, prefix);
        prefix
    }

    /// Makes room for a route of somebody else, without a gap.
    fn fall_behind(&mut self, id: RowId, form: u32, ops: &mut Vec<Op>) {
        let (prefix, held) = (self.rows.prefix(id), self.rows.get(id));
        let Some(form) = self.forms.get(form) else {
            return;
        };
        let (behind, _) = self.forms.acquire(Form {
            metric: BEHIND,
            ..form.clone()
        });
        if behind == held.has {
            self.forms.release(behind);
        } else {
            self.changes(prefix, held.has, behind, ops);
            self.has(id, behind);
        }
    }

    fn drop_if_idle(&mut self, id: RowId, prefix: Cidr) {
        let held = self.rows.get(id);
        let idle = held == Held::default() && !self.statics.contains_key(&prefix);
        if idle {
            self.rows.remove(id);
        }
    }

    fn changes(&self, prefix: Cidr, old: u32, new: u32, ops: &mut Vec<Op>) {
        let metric = |form: u32| self.forms.get(form).map(|f| f.metric);
        let same = metric(old) == metric(new);
        let add = self.route(prefix, new);
        let gone = self.route(prefix, old).map(Op::Delete);
        match (add, gone) {
            (Some(r), Some(_)) if same && !self.ways.holds(prefix, r.key.metric) => {
                ops.push(Op::Replace(r));
            }
            // Somebody else's of the same metric: which of the two a replacement hits is the
            // kernel's choice.
            (Some(r), Some(gone)) if same => ops.extend([gone, Op::Add(r)]),
            (add, gone) => ops.extend(add.map(Op::Add).into_iter().chain(gone)),
        }
    }

    /// A step that did not succeed: what the kernel has is what it had, and it is to be tried again.
    pub(crate) fn failed(&mut self, op: &Op) -> Cidr {
        let prefix = op.route().key.dst;
        let has = match op {
            Op::Delete(r) => self.forms.acquire(Form::of(r)).0,
            // A replacement that was refused: what was there is there, but not known any more.
            Op::Add(_) | Op::Replace(_) => 0,
        };
        let id = self.rows.insert(prefix);
        self.has(id, has);
        prefix
    }

    /// Tries a prefix again.
    pub(crate) fn again(&mut self, prefix: Cidr) {
        if let Some(id) = self.rows.find(prefix) {
            self.mark(id);
        }
    }
}
