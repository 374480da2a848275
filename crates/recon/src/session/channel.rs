//! What walker and solver share: the stream of messages with its budget, and the end.

use std::sync::Arc;
use std::time::Duration;

use super::{Action, Budget, End, Fault, Late, Limit, Outcome, Tally};
use crate::dataset::Dataset;
use crate::element::{Element, Prefix};
use crate::wire::{FrameReader, Message};

/// One end of the stream of messages.
#[derive(Debug)]
pub(super) struct Channel<const L: usize> {
    pub(super) dataset: Arc<Dataset<L>>,
    pub(super) budget: Budget,
    pub(super) tally: Tally,
    /// Elements the peer has and this side lacks, as they came.
    pub(super) missing: Vec<Element<L>>,
    pub(super) refused: Vec<(Prefix<L>, u8, String)>,
    frames: FrameReader,
    output: Vec<u8>,
    /// Bytes of the output that may leave.
    ready: usize,
    started: Duration,
    heard: Duration,
    end: Option<End>,
}

impl<const L: usize> Channel<L> {
    pub(super) fn new(dataset: Arc<Dataset<L>>, budget: Budget, frames: FrameReader, now: Duration) -> Self {
        let frames = frames.with_limit(dataset.conduct.message_max);
        Self {
            dataset,
            budget,
            tally: Tally::default(),
            missing: Vec::new(),
            refused: Vec::new(),
            frames,
            output: Vec::new(),
            ready: 0,
            started: now,
            heard: now,
            end: None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.end.is_none()
    }

    /// Takes bytes from the peer; an error if they are too many.
    pub(super) fn receive(&mut self, now: Duration, bytes: &[u8]) -> Result<(), End> {
        self.heard = now;
        self.tally.received += bytes.len() as u64;
        if self.tally.received > self.budget.bytes {
            return Err(Limit::Bytes.into());
        }
        self.frames.feed(bytes);
        Ok(())
    }

    /// The next message, if it is whole.
    pub(super) fn next_message(&mut self) -> Result<Option<Message<L>>, End> {
        let frame = self.frames.next_frame().map_err(Fault::from)?;
        let message = frame.map(|frame| Message::decode(&self.dataset, frame)).transpose();
        Ok(message.map_err(Fault::from)?)
    }

    /// Writes a message, to leave with the next [`release`](Self::release).
    pub(super) fn write(&mut self, message: &Message<L>) {
        message.encode(&self.dataset, &mut self.output);
    }

    /// Whether no more is written than the budget allows.
    pub(super) fn check_written(&self) -> Result<(), End> {
        let written = self.tally.sent + self.output.len() as u64;
        if written > self.budget.bytes {
            return Err(Limit::Bytes.into());
        }
        Ok(())
    }

    /// Whether so much is written that nothing more should be read before it has left. If so, it
    /// may leave.
    pub(super) fn is_full(&mut self, limit: usize) -> bool {
        let full = self.output.len() > limit;
        if full {
            self.release();
        }
        full
    }

    /// Whether less than a limit is written and not sent.
    pub(super) fn has_room(&self, limit: usize) -> bool {
        self.output.len() <= limit
    }

    /// Lets everything written leave.
    pub(super) fn release(&mut self) {
        self.ready = self.output.len();
    }

    /// Notes elements the peer has and this side lacks, and how many were dropped; no more than the
    /// budget allows.
    pub(super) fn note(&mut self, missing: Vec<Element<L>>, dropped: u64) -> Result<(), End> {
        self.tally.dropped += dropped;
        let taken = self.missing.len() as u64 + self.tally.dropped;
        let room = (self.budget.elements as u64).saturating_sub(taken) as usize;
        let exceeded = missing.len() > room || taken > self.budget.elements as u64;
        self.missing.extend(missing.into_iter().take(room));
        if exceeded { Err(Limit::Elements.into()) } else { Ok(()) }
    }

    /// Ends the session with a last message. What was written but not released is dropped, unless
    /// the caller released it.
    pub(super) fn finish(&mut self, end: End, parting: Option<Message<L>>) {
        if self.end.is_some() {
            return;
        }
        self.output.truncate(self.ready);
        if let Some(message) = parting {
            self.write(&message);
            self.release();
        }
        self.end = Some(end);
    }

    /// The deadline that comes first, given whether the walker has flushed yet.
    pub(super) fn deadline(&self) -> (Duration, Late) {
        let idle = match self.tally.flushes {
            0 => self.budget.idle_before_flush,
            _ => self.budget.idle,
        };
        let (idle, session) = (self.heard + idle, self.started + self.budget.session);
        if idle < session {
            (idle, Late::Idle)
        } else {
            (session, Late::Session)
        }
    }

    /// What is to be done: send, wait, or finish.
    pub(super) fn action(&mut self) -> Action<Outcome<L>> {
        if self.ready > 0 {
            let rest = self.output.split_off(self.ready);
            self.ready = 0;
            self.tally.sent += self.output.len() as u64;
            return Action::Send(std::mem::replace(&mut self.output, rest));
        }
        let Some(end) = &self.end else {
            return Action::Wait(self.deadline().0);
        };
        let mut missing = std::mem::take(&mut self.missing);
        missing.sort_unstable();
        missing.dedup();
        let refused = std::mem::take(&mut self.refused);
        Action::Finish(Outcome {
            end: end.clone(),
            missing,
            refused,
            tally: self.tally,
        })
    }
}
