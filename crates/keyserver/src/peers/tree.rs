//! The prefix tree of one dataset, over the element table.
//!
//! Elements in the order of their octets are the order of the tree, so each node is one range of the table. Only the
//! sums of larger nodes are kept in memory, a few megabytes for a million elements; the elements of the smaller ones
//! are read when a session asks for them. The change rows of the store keep the sums fresh, whichever process wrote.
//!
//! A session works on an [`Epoch`], a state that does not change. Its ranges are read later, when the table may have
//! moved on; what changed since is in a log here and is taken back. The log lives as long as some epoch needs it, and
//! no longer than its limit allows. No read transaction is held open for a session.
//!
//! Every range that is read is compared with the sum that is kept for it. A tree that turns out wrong is built anew.

mod epoch;
mod nodes;

use super::checkpoint;
use super::dataset::{Checked, Found, Kind, Machine, Saved, Set, Start, Total};
use epoch::Epoch;
use keyrink_recon::dataset::{Dataset, Summary};
use keyrink_recon::element::{Element, Prefix};
use keyrink_recon::session::{Action, Budget, Outcome, Session, Solver, Walker};
use keyrink_recon::tree::Unavailable;
use keyrink_store::{ChangeRow, Snapshot, Store, StoreError, Vector};
pub(in crate::peers) use nodes::Node;
use nodes::{Change, Ordered};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A tree over a dataset of a store.
pub(crate) struct Tree<const L: usize>(Arc<Core<L>>);

/// What a tree and its epochs share.
struct Core<const L: usize> {
    kind: &'static Kind,
    dataset: Arc<Dataset<L>>,
    store: Arc<dyn Store>,
    /// `None` until it is read, and after it turned out wrong.
    state: Mutex<Option<State<L>>>,
    log: Mutex<Log>,
}

/// The sums as of a version of the store.
#[derive(Clone)]
pub(in crate::peers) struct State<const L: usize> {
    pub(in crate::peers) root: Node<L>,
    pub(in crate::peers) seen: Vector,
    /// Leaves that have become too large.
    large: BTreeSet<Prefix<L>>,
    /// Changes since the last checkpoint.
    changed: u64,
}

/// What changed while sessions go on.
#[derive(Default)]
struct Log {
    rows: BTreeMap<Vec<u8>, Vec<Entry>>,
    length: usize,
    /// Epochs that are looked at now.
    epochs: usize,
    /// Counts how often the log was thrown away while an epoch needed it.
    lost: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    writer: u32,
    n: u64,
    added: bool,
}

impl<const L: usize> Tree<L> {
    /// A tree that is read when it is first needed.
    pub(crate) fn new(kind: &'static Kind, dataset: Dataset<L>, store: Arc<dyn Store>) -> Self {
        Self(Arc::new(Core {
            kind,
            dataset: Arc::new(dataset),
            store,
            state: Mutex::default(),
            log: Mutex::default(),
        }))
    }

    /// The set as it is now.
    fn epoch(&self) -> Result<Epoch<L>, Unavailable> {
        let core = &self.0;
        let mut state = core.state();
        let fresh = core.fresh(&mut state).map_err(unavailable)?;
        Ok(Epoch::new(core, fresh.root.clone(), fresh.seen.clone()))
    }
}

impl<const L: usize> Core<L> {
    /// Compares the sums that are saved with those of the rows.
    fn check(&self) -> Result<Checked, StoreError> {
        let rows = self.read()?;
        let total = self.total(&rows);
        let verdict = |saved, wrong| Checked { total, saved, wrong };
        let Some((root, seen)) = checkpoint::load(&*self.store, self.kind.name, &self.dataset)? else {
            return Ok(verdict(Saved::Nothing, Vec::new()));
        };
        let mut saved = State::new(root, seen);
        let elements = saved.root.summary.count;
        if !self.follow(&mut saved, Some(&rows.seen))? || saved.seen != rows.seen {
            return Ok(verdict(Saved::TooOld, Vec::new()));
        }
        Ok(verdict(
            Saved::Sums { elements },
            self.differences(&saved.root, &rows.root),
        ))
    }

    /// Where two trees differ, in words.
    fn differences(&self, saved: &Node<L>, rows: &Node<L>) -> Vec<String> {
        let (mut wrong, mut waiting) = (Vec::new(), vec![(saved, rows, Prefix::<L>::ROOT)]);
        while let Some((saved, rows, at)) = waiting.pop() {
            if saved.summary != rows.summary {
                let (kept, there) = (saved.summary.count, rows.summary.count);
                wrong.push(format!(
                    "tree {}: the sums below \"{at}\" are of {kept} elements, the rows hold {there}",
                    self.kind.name
                ));
            }
            if let (Some(one), Some(other), Some(prefixes)) = (&saved.children, &rows.children, at.children()) {
                let pairs = one.iter().zip(other.iter()).zip(prefixes);
                waiting.extend(pairs.map(|((one, other), at)| (one, other, at)));
            }
        }
        wrong
    }

    fn total(&self, state: &State<L>) -> Total {
        let Summary { count, samples } = state.root.summary;
        let sum = self.bytes(|out| self.dataset.value(samples[0]).write(self.dataset.value_length(), out));
        let low = sum.iter().take(SUM_OCTETS).rev();
        Total {
            elements: count,
            sum: low.fold(0, |sum, octet| sum << 8 | u64::from(*octet)),
            seen: state.seen.clone(),
        }
    }
}

impl<const L: usize> Core<L> {
    /// The state, as new as the store.
    fn fresh<'a>(&self, state: &'a mut Option<State<L>>) -> Result<&'a mut State<L>, StoreError> {
        let fresh = match state {
            Some(fresh) => fresh,
            None => {
                let saved = checkpoint::load(&*self.store, self.kind.name, &self.dataset)?;
                let begin = saved.map_or_else(|| self.read(), |(root, seen)| Ok(State::new(root, seen)));
                state.insert(begin?)
            }
        };
        if !self.follow(fresh, None)? {
            // Change rows are gone that this state has not seen.
            self.log().forget();
            *fresh = self.read()?;
        }
        self.split(fresh)?;
        Ok(fresh)
    }

    /// Works change rows in, up to a version or all there are; false if some are gone.
    fn follow(&self, state: &mut State<L>, until: Option<&Vector>) -> Result<bool, StoreError> {
        // How far was read, which is further than what has been seen when there is more than is wanted.
        let mut read = state.seen.clone();
        loop {
            let rows = self.store.changes(&read, PAGE)?;
            if rows.is_empty() {
                let newest = self.store.vector()?;
                let current = newest.iter().all(|(writer, n)| state.has_seen(*writer, *n));
                // What came between the two looks is there at a third; what is gone is not.
                if until.is_some() || current || self.store.changes(&state.seen, 1)?.is_empty() {
                    return Ok(until.is_some() || current);
                }
                continue;
            }
            let mut log = self.log();
            for row in &rows {
                read.insert(row.writer, row.n);
                if until.is_some_and(|until| until.get(&row.writer).is_none_or(|last| row.n > *last)) {
                    continue;
                }
                if !state.has_seen(row.writer, row.n - 1) {
                    return Ok(false);
                }
                self.apply(state, row);
                log.note(row, self.kind);
            }
            if rows.len() < PAGE {
                return Ok(true);
            }
        }
    }

    fn apply(&self, state: &mut State<L>, row: &ChangeRow) {
        state.seen.insert(row.writer, row.n);
        if row.element.dataset != self.kind.dataset {
            return;
        }
        let Some(element) = self.element(&row.element.bytes) else {
            return;
        };
        let Some(change) = Change::of(&self.dataset, &element, row.added) else {
            return;
        };
        state.large.extend(state.root.apply(&self.dataset, &element, &change));
        state.changed += 1;
    }

    /// Gives children to leaves that have become too large.
    fn split(&self, state: &mut State<L>) -> Result<(), StoreError> {
        if state.large.is_empty() {
            return Ok(());
        }
        let snapshot = self.store.snapshot()?;
        // The sums must be those of the very rows that are read.
        if !self.follow(state, Some(&snapshot.vector()?))? {
            return Ok(());
        }
        while let Some(prefix) = state.large.first().copied() {
            let (leaf, at) = state.root.locate(&prefix);
            if at == prefix && leaf.children.is_none() && leaf.summary.count > nodes::LEAF_MAX {
                let subtree = self.build(&*snapshot, &prefix)?;
                state.root.graft(&prefix, subtree);
            }
            state.large.remove(&prefix);
        }
        Ok(())
    }

    /// Reads the whole tree from the element table.
    fn read(&self) -> Result<State<L>, StoreError> {
        let snapshot = self.store.snapshot()?;
        let root = self.build(&*snapshot, &Prefix::ROOT)?;
        let mut state = State::new(root, snapshot.vector()?);
        // Worth a checkpoint soon.
        state.changed = state.root.summary.count;
        Ok(state)
    }

    fn build(&self, snapshot: &dyn Snapshot, prefix: &Prefix<L>) -> Result<Node<L>, StoreError> {
        let last = self.bytes(|out| prefix.last().write(self.dataset.element_length(), out));
        let mut first = Some(self.bytes(|out| prefix.first().write(self.dataset.element_length(), out)));
        let mut rows = Ordered::new(|| {
            loop {
                let Some(from) = first.take() else {
                    return Ok(Vec::new());
                };
                let rows = snapshot.range(self.kind.dataset, &from, &last, PAGE)?;
                first = rows.last().and_then(|row| successor(row));
                let elements: Vec<_> = rows.iter().filter_map(|row| self.element(row)).collect();
                if !elements.is_empty() || rows.is_empty() {
                    return Ok::<_, StoreError>(elements);
                }
            }
        });
        rows.build(&self.dataset, prefix)
    }

    fn bytes(&self, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.dataset.element_length());
        write(&mut bytes);
        bytes
    }

    /// What the tree makes of a row. Rows that stand for no element are no part of it.
    fn element(&self, bytes: &[u8]) -> Option<Element<L>> {
        let whole = bytes.len() == self.dataset.element_length();
        whole.then(|| self.dataset.element_from_bytes(bytes).ok()).flatten()
    }

    fn state(&self) -> MutexGuard<'_, Option<State<L>>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<const L: usize> State<L> {
    fn new(root: Node<L>, seen: Vector) -> Self {
        Self {
            root,
            seen,
            large: BTreeSet::new(),
            changed: 0,
        }
    }

    fn has_seen(&self, writer: u32, n: u64) -> bool {
        n <= self.seen.get(&writer).copied().unwrap_or(0)
    }
}

impl Log {
    fn note(&mut self, row: &ChangeRow, kind: &Kind) {
        if self.epochs == 0 || row.element.dataset != kind.dataset {
            return;
        }
        if self.length >= LOG_MAX {
            self.forget();
        }
        self.length += 1;
        let entry = Entry {
            writer: row.writer,
            n: row.n,
            added: row.added,
        };
        self.rows.entry(row.element.bytes.clone()).or_default().push(entry);
    }

    /// Epochs that would need it find out that they can't go on.
    fn forget(&mut self) {
        self.rows = BTreeMap::new();
        self.length = 0;
        self.lost += 1;
    }
}

impl<const L: usize> Set for Tree<L> {
    fn kind(&self) -> &'static Kind {
        self.0.kind
    }

    fn count(&self) -> u64 {
        self.0.state().as_ref().map_or(0, |state| state.root.summary.count)
    }

    fn refresh(&self) -> Result<(), Unavailable> {
        self.0.fresh(&mut self.0.state()).map(drop).map_err(unavailable)
    }

    fn reread(&self) -> Result<(), Unavailable> {
        *self.0.state() = None;
        self.0.log().forget();
        self.refresh()?;
        self.save()
    }

    fn total(&self) -> Option<Total> {
        self.0.state().as_ref().map(|state| self.0.total(state))
    }

    fn check(&self) -> Result<Checked, StoreError> {
        self.0.check()
    }

    fn save(&self) -> Result<(), Unavailable> {
        let core = &self.0;
        let Some(state) = core.state().clone() else {
            return Ok(());
        };
        if state.changed < CHECKPOINT_CHANGES {
            return Ok(());
        }
        checkpoint::save(&*core.store, core.kind.name, &core.dataset, &state).map_err(unavailable)?;
        if let Some(current) = core.state().as_mut() {
            current.changed = current.changed.saturating_sub(state.changed);
        }
        Ok(())
    }

    fn walker(&self, start: Start) -> Result<Machine, Unavailable> {
        let Start {
            frames,
            omission,
            manners,
            seed,
            now,
        } = start;
        let (dataset, epoch) = (Arc::clone(&self.0.dataset), self.epoch()?);
        let walker = Walker::new(dataset, epoch, omission.roots(), Budget::default(), seed, frames, now);
        let shunned = manners.shunned.iter().chain(&manners.refused);
        let walker = walker.shun(shunned.filter_map(|prefix| prefix.parse().ok()).collect());
        Ok(Box::new(Told {
            session: walker,
            dataset: Arc::clone(&self.0.dataset),
        }))
    }

    fn solver(&self, start: Start) -> Result<Machine, Unavailable> {
        let Start {
            frames,
            omission,
            manners,
            seed,
            now,
        } = start;
        let (dataset, epoch) = (Arc::clone(&self.0.dataset), self.epoch()?);
        let solver = Solver::new(dataset, epoch, omission.roots(), Budget::default(), seed, frames, now);
        let refused = manners.refused.iter().filter_map(|prefix| prefix.parse().ok());
        let refused = refused.map(|prefix| (prefix, BY_POLICY, "not reconciled here".to_owned()));
        let solver = solver.refuse(refused.collect());
        Ok(Box::new(Told {
            session: solver,
            dataset: Arc::clone(&self.0.dataset),
        }))
    }
}

/// A session whose outcome is told in octets.
struct Told<const L: usize, S> {
    session: S,
    dataset: Arc<Dataset<L>>,
}

impl<const L: usize, S: Session<Outcome = Outcome<L>>> Session for Told<L, S> {
    type Outcome = Found;

    fn receive(&mut self, now: Duration, bytes: &[u8]) {
        self.session.receive(now, bytes);
    }

    fn closed(&mut self, now: Duration) {
        self.session.closed(now);
    }

    fn wants_input(&self) -> bool {
        self.session.wants_input()
    }

    fn poll(&mut self, now: Duration) -> Action<Found> {
        match self.session.poll(now) {
            Action::Send(bytes) => Action::Send(bytes),
            Action::Wait(until) => Action::Wait(until),
            Action::Finish(outcome) => {
                Action::Finish(Found::of(outcome, |element| self.dataset.element_bytes(element)))
            }
        }
    }
}

fn unavailable(error: StoreError) -> Unavailable {
    Unavailable(error.to_string())
}

/// The octets that come next in order, of the same length; `None` behind the last.
fn successor(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut next = bytes.to_vec();
    let at = next.iter().rposition(|octet| *octet < 0xFF)?;
    next[at] += 1;
    next[at + 1..].fill(0);
    Some(next)
}

/// Rows that are read at once.
/// The code of a polite refusal that lasts.
const BY_POLICY: u8 = 3;
const PAGE: usize = 5000;
/// Changes that are remembered for the sake of sessions; they take about 30 MB. A session that is older ends early.
const LOG_MAX: usize = 200_000;
/// So much of a sum is shown that a floating-point number holds it.
const SUM_OCTETS: usize = 6;
/// Changes that make a new checkpoint worth while.
const CHECKPOINT_CHANGES: u64 = 10_000;

#[cfg(test)]
mod tests;
