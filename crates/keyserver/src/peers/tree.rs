//! The prefix tree of one dataset, kept fresh from the change rows of the store.

use super::dataset::{Found, Kind, Machine, Set, Start};
use keyrink_recon::dataset::Dataset;
use keyrink_recon::element::Element;
use keyrink_recon::session::{Action, Budget, Outcome, Session, Solver, Walker};
use keyrink_recon::tree::{self, Unavailable};
use keyrink_store::{Store, StoreError, Vector};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub(crate) struct Tree<const L: usize> {
    kind: &'static Kind,
    dataset: Arc<Dataset<L>>,
    store: Arc<dyn Store>,
    state: Mutex<Option<State<L>>>,
}

struct State<const L: usize> {
    tree: tree::Tree<L>,
    seen: Vector,
}

const PAGE: usize = 5000;

impl<const L: usize> Tree<L> {
    pub(crate) fn new(kind: &'static Kind, dataset: Dataset<L>, store: Arc<dyn Store>) -> Self {
        Self {
            kind,
            dataset: Arc::new(dataset),
            store,
            state: Mutex::default(),
        }
    }

    fn epoch(&self) -> Result<tree::Tree<L>, Unavailable> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fresh = match state.take() {
            Some(state) => state,
            None => self.read().map_err(unavailable)?,
        };
        loop {
            let rows = self.store.changes(&fresh.seen, PAGE).map_err(unavailable)?;
            for row in &rows {
                if row.element.dataset == self.kind.dataset
                    && let Some(element) = self.element(&row.element.bytes)
                {
                    let _ = match row.added {
                        true => fresh.tree.insert(element),
                        false => fresh.tree.remove(&element),
                    };
                }
                fresh.seen.insert(row.writer, row.n);
            }
            if rows.len() < PAGE {
                break;
            }
        }
        let tree = fresh.tree.clone();
        *state = Some(fresh);
        Ok(tree)
    }

    fn read(&self) -> Result<State<L>, StoreError> {
        let snapshot = self.store.snapshot()?;
        let seen = snapshot.vector()?;
        let mut elements = Vec::new();
        let mut after = None;
        loop {
            let page = snapshot.elements(self.kind.dataset, after.as_ref(), PAGE)?;
            elements.extend(page.iter().filter_map(|(bytes, _)| self.element(bytes)));
            let Some(last) = page.into_iter().next_back() else {
                break;
            };
            after = Some(last);
        }
        elements.dedup();
        let tree = tree::Tree::build(self.dataset.clone(), elements).map_err(|e| StoreError::Damaged(e.to_string()))?;
        Ok(State { tree, seen })
    }

    fn element(&self, bytes: &[u8]) -> Option<Element<L>> {
        self.dataset.element_from_bytes(bytes).ok()
    }
}

fn unavailable(error: StoreError) -> Unavailable {
    Unavailable(error.to_string())
}

impl<const L: usize> Set for Tree<L> {
    fn kind(&self) -> &'static Kind {
        self.kind
    }

    fn count(&self) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.as_ref().map_or(0, |state| state.tree.len())
    }

    fn refresh(&self) -> Result<(), Unavailable> {
        self.epoch().map(drop)
    }

    fn walker(&self, start: Start) -> Result<Machine, Unavailable> {
        let Start {
            frames,
            omission,
            seed,
            now,
        } = start;
        let (dataset, epoch) = (self.dataset.clone(), self.epoch()?);
        let walker = Walker::new(dataset, epoch, omission.roots(), Budget::default(), seed, frames, now);
        Ok(Box::new(Numberless {
            session: walker,
            dataset: self.dataset.clone(),
        }))
    }

    fn solver(&self, start: Start) -> Result<Machine, Unavailable> {
        let Start {
            frames,
            omission,
            seed,
            now,
        } = start;
        let (dataset, epoch) = (self.dataset.clone(), self.epoch()?);
        let solver = Solver::new(dataset, epoch, omission.roots(), Budget::default(), seed, frames, now);
        Ok(Box::new(Numberless {
            session: solver,
            dataset: self.dataset.clone(),
        }))
    }
}

/// A session whose outcome is told in octets.
struct Numberless<const L: usize, S> {
    session: S,
    dataset: Arc<Dataset<L>>,
}

impl<const L: usize, S: Session<Outcome = Outcome<L>>> Session for Numberless<L, S> {
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
