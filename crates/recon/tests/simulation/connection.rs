//! A connection between two nodes: two state machines and the bytes on their way.

use std::sync::Arc;
use std::time::Duration;

use keyrink_recon::dataset::Dataset;
use keyrink_recon::session::{Action, Agreement, Budget, Handshake, Outcome, Session, Solver, Walker};
use keyrink_recon::tree::Tree;

use crate::common::offers::{SKS, settings};

/// The accepting side of a connection, and its index.
pub(crate) const ACCEPTING: usize = 0;
/// The calling side, and its index.
pub(crate) const CALLING: usize = 1;

/// One end of a connection.
pub(crate) struct End<const L: usize> {
    pub(crate) node: usize,
    /// The state of the set the session works on.
    pub(crate) epoch: Tree<L>,
    /// When the last byte on its way to this end arrives: bytes of one direction stay in order.
    pub(crate) arrival: Duration,
    stage: Stage<L>,
    calling: bool,
}

enum Stage<const L: usize> {
    Handshake(Box<Handshake>),
    Walker(Box<Walker<L, Tree<L>>>),
    Solver(Box<Solver<L, Tree<L>>>),
    Over,
}

pub(crate) struct Connection<const L: usize> {
    pub(crate) ends: [End<L>; 2],
    /// Bytes until the connection is cut, if it is.
    pub(crate) cut_after: Option<usize>,
}

/// What an end wants.
pub(crate) enum Wish<const L: usize> {
    Send(Vec<u8>),
    /// Nothing, until this time.
    Wait(Duration),
    /// It is over; none if the handshake failed.
    Close(Option<Outcome<L>>),
}

impl<const L: usize> End<L> {
    pub(crate) fn new(node: usize, tree: &Tree<L>, name: &str, side: usize, now: Duration) -> Self {
        let trees = if name == "openpgp/1" {
            vec![name]
        } else {
            vec![name, "openpgp/1"]
        };
        let settings = settings(&trees, SKS);
        let handshake = match side {
            CALLING => Handshake::call(settings, now),
            _ => Handshake::accept(settings, now),
        };
        let stage = Stage::Handshake(Box::new(handshake));
        Self {
            node,
            epoch: tree.clone(),
            arrival: now,
            stage,
            calling: side == CALLING,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// The node is gone, and this end with it.
    pub(crate) fn forget(&mut self) {
        self.stage = Stage::Over;
    }

    pub(crate) fn receive(&mut self, now: Duration, bytes: &[u8]) {
        match &mut self.stage {
            Stage::Handshake(handshake) => handshake.receive(now, bytes),
            Stage::Walker(walker) => walker.receive(now, bytes),
            Stage::Solver(solver) => solver.receive(now, bytes),
            Stage::Over => {}
        }
    }

    pub(crate) fn closed(&mut self, now: Duration) {
        match &mut self.stage {
            Stage::Handshake(handshake) => handshake.closed(now),
            Stage::Walker(walker) => walker.closed(now),
            Stage::Solver(solver) => solver.closed(now),
            Stage::Over => {}
        }
    }

    pub(crate) fn poll(&mut self, dataset: &Arc<Dataset<L>>, seed: u64, now: Duration) -> Option<Wish<L>> {
        let action = match &mut self.stage {
            Stage::Over => return None,
            Stage::Walker(walker) => walker.poll(now),
            Stage::Solver(solver) => solver.poll(now),
            Stage::Handshake(handshake) => match handshake.poll(now) {
                Action::Send(bytes) => Action::Send(bytes),
                Action::Wait(until) => Action::Wait(until),
                Action::Finish(Ok(agreement)) => {
                    self.begin(dataset, agreement, seed, now);
                    return self.poll(dataset, seed, now);
                }
                Action::Finish(Err(_)) => {
                    self.stage = Stage::Over;
                    return Some(Wish::Close(None));
                }
            },
        };
        Some(match action {
            Action::Send(bytes) => Wish::Send(bytes),
            Action::Wait(until) => Wish::Wait(until),
            Action::Finish(outcome) => {
                self.stage = Stage::Over;
                Wish::Close(Some(outcome))
            }
        })
    }

    fn begin(&mut self, dataset: &Arc<Dataset<L>>, agreement: Agreement, seed: u64, now: Duration) {
        let (dataset, nodes, budget) = (dataset.clone(), self.epoch.clone(), Budget::default());
        let roots = agreement.omission.roots();
        let frames = agreement.frames;
        self.stage = match self.calling {
            true => Stage::Solver(Box::new(Solver::new(dataset, nodes, roots, budget, seed, frames, now))),
            false => Stage::Walker(Box::new(Walker::new(dataset, nodes, roots, budget, seed, frames, now))),
        };
    }
}
