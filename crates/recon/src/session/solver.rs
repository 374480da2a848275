//! The calling side: answers, and solves.
//!
//! It compares each request with its own set and replies with what the walker lacks; what itself
//! lacks it notes. Replies are computed as requests come in, and leave together when the walker
//! says Flush. Polynomials are factored only here, on the side that chose to call.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::channel::Channel;
use super::sets::{admit, holds, lacking, numeric, unknown};
use super::{Action, Budget, End, Fault, Limit, Outcome, Session};
use crate::dataset::{Dataset, Summary};
use crate::element::{Element, Prefix};
use crate::random::Random;
use crate::solve::{Difference, solve};
use crate::tree::{Nodes, Unavailable};
use crate::wire::{FrameReader, Message};

/// Replies beyond this many bytes leave without a Flush, and no request is read before they have.
const REPLIES_MAX: usize = 1 << 20;

/// The prefix is outside what the configurations agreed on.
const OUTSIDE_ROOTS: u8 = 1;

/// The solver of one session.
#[derive(Debug)]
pub struct Solver<const L: usize, N> {
    channel: Channel<L>,
    nodes: N,
    random: Random,
    roots: Vec<Prefix<L>>,
    refusing: Vec<(Prefix<L>, u8, String)>,
    /// Prefixes of the FullElements that the walker has not answered yet, and by how many elements it has fewer there.
    owed: VecDeque<(Prefix<L>, i64)>,
}

impl<const L: usize, N: Nodes<L>> Solver<L, N> {
    /// A session over one state of a set; the parameters are those of
    /// [`Walker::new`](super::Walker::new).
    pub fn new(
        dataset: Arc<Dataset<L>>,
        nodes: N,
        roots: Vec<Prefix<L>>,
        budget: Budget,
        seed: u64,
        frames: FrameReader,
        now: Duration,
    ) -> Self {
        Self {
            channel: Channel::new(dataset, budget, frames, now),
            nodes,
            random: Random::new(seed),
            roots,
            refusing: Vec::new(),
            owed: VecDeque::new(),
        }
    }

    /// Refuses requests at and below these prefixes with a code and a text: 2 stands for "too
    /// expensive now", 3 for policy. Without effect where the protocol knows no refusal. Whoever asks above
    /// them is sent to the children, or the reply would tell of what is refused.
    pub fn refuse(mut self, prefixes: Vec<(Prefix<L>, u8, String)>) -> Self {
        self.refusing = prefixes;
        self
    }

    fn advance(&mut self, received: Result<(), End>) {
        let mut state = received;
        while self.channel.is_open() {
            state = match state {
                Err(end) => return self.finish(end),
                Ok(()) if self.channel.is_full(REPLIES_MAX) => return,
                Ok(()) => match self.channel.next_message() {
                    Ok(Some(message)) => self.take(message),
                    Ok(None) => return,
                    Err(end) => Err(end),
                },
            };
        }
    }

    fn take(&mut self, message: Message<L>) -> Result<(), End> {
        match message {
            Message::Poly(prefix, remote) => self.answer(prefix, |solver| solver.compare_samples(prefix, remote)),
            Message::Full(prefix, values) => self.answer(prefix, |solver| {
                let (elements, dropped) = admit(&solver.channel.dataset, &prefix, values)?;
                solver.compare_elements(prefix, elements, dropped)
            }),
            Message::Elements(values) => {
                let (prefix, fewer) = self.owed.pop_front().ok_or(Fault::UnaskedElements)?;
                let (elements, dropped) = admit(&self.channel.dataset, &prefix, values)?;
                let missing = unknown(&self.channel.dataset, &self.nodes, &prefix, elements)?;
                self.channel.tally.lacking += fewer.saturating_add(missing.len() as i64).max(0).unsigned_abs();
                self.channel.note(missing, dropped)
            }
            Message::Flush => {
                self.channel.tally.flushes += 1;
                self.channel.release();
                Ok(())
            }
            Message::Done => Err(End::Complete),
            Message::Error(text) => Err(End::PeerError(text)),
            other => Err(Fault::Unexpected(other.kind()).into()),
        }
    }

    /// Writes the one reply to a request.
    fn answer(
        &mut self,
        prefix: Prefix<L>,
        reply: impl FnOnce(&mut Self) -> Result<Message<L>, End>,
    ) -> Result<(), End> {
        if self.channel.tally.requests == self.channel.budget.requests {
            return Err(Limit::Requests.into());
        }
        self.channel.tally.requests += 1;
        let reply = match self.refusal(&prefix) {
            Some(refusal) => refusal,
            None => reply(self)?,
        };
        self.channel.write(&reply);
        self.channel.check_written()
    }

    fn refusal(&self, prefix: &Prefix<L>) -> Option<Message<L>> {
        if !self.channel.dataset.conduct.refuses {
            return None;
        }
        if !self.roots.iter().any(|root| prefix.is_within(root)) {
            let text = "outside the agreed roots".to_owned();
            return Some(Message::Refused(*prefix, OUTSIDE_ROOTS, text));
        }
        let refused = self.refusing.iter().find(|(refused, ..)| prefix.is_within(refused));
        if let Some((_, code, text)) = refused {
            return Some(Message::Refused(*prefix, *code, text.clone()));
        }
        let is_above = self.refusing.iter().any(|(refused, ..)| refused.is_within(prefix));
        is_above.then_some(Message::SyncFail)
    }

    /// The reply to samples.
    fn compare_samples(&mut self, prefix: Prefix<L>, remote: Summary<L>) -> Result<Message<L>, End> {
        let local = self.nodes.summary(&prefix)?;
        if let Some(difference) = self.solve(&prefix, &remote, &local)? {
            self.channel.tally.solved += 1;
            self.channel.tally.lacking += difference.local_only.len() as u64;
            self.channel.note(difference.remote_only, 0)?;
            return Ok(Message::Elements(numeric(&difference.local_only)));
        }
        let thresholds = self.channel.dataset.thresholds;
        if local.count > thresholds.full_reply_max || remote.count > thresholds.elements_max as u64 {
            return Ok(Message::SyncFail);
        }
        let elements = self.nodes.elements(&prefix, None, thresholds.full_reply_max as usize)?;
        self.owed.push_back((
            prefix,
            local.count.cast_signed().saturating_sub(remote.count.cast_signed()),
        ));
        Ok(Message::FullElements(numeric(&elements)))
    }

    /// The difference, if it can be found. One that contradicts our own set is none: a dishonest
    /// peer then costs a descent and nothing else.
    fn solve(
        &mut self,
        prefix: &Prefix<L>,
        remote: &Summary<L>,
        local: &Summary<L>,
    ) -> Result<Option<Difference<L>>, Unavailable> {
        let dataset = &self.channel.dataset;
        let Ok(difference) = solve(dataset, remote, local, &mut self.random) else {
            return Ok(None);
        };
        for (elements, ours) in [(&difference.remote_only, false), (&difference.local_only, true)] {
            for element in elements {
                if !prefix.contains(element) || holds(dataset, &self.nodes, element)? != ours {
                    return Ok(None);
                }
            }
        }
        Ok(Some(difference))
    }

    /// The reply to all elements.
    fn compare_elements(
        &mut self,
        prefix: Prefix<L>,
        elements: Vec<Element<L>>,
        dropped: u64,
    ) -> Result<Message<L>, End> {
        let dataset = self.channel.dataset.clone();
        let reply = match self.nodes.count(&prefix)? > dataset.thresholds.elements_max as u64 {
            // The elements will come again, with the children.
            true if dataset.conduct.splits_full_requests => return Ok(Message::SyncFail),
            _ => lacking(&dataset, &self.nodes, &prefix, &elements, &mut self.random)?,
        };
        let missing = unknown(&dataset, &self.nodes, &prefix, elements)?;
        self.channel.note(missing, dropped)?;
        self.channel.tally.lacking += reply.len() as u64;
        Ok(Message::Elements(numeric(&reply)))
    }

    fn finish(&mut self, end: End) {
        if matches!(end, End::Limit(_)) {
            self.channel.release();
        }
        let parting = match &end {
            End::Fault(fault) if self.channel.dataset.conduct.reports_faults => Some(Message::Error(fault.to_string())),
            _ => None,
        };
        self.channel.finish(end, parting);
    }
}

impl<const L: usize, N: Nodes<L>> Session for Solver<L, N> {
    type Outcome = Outcome<L>;

    fn receive(&mut self, now: Duration, bytes: &[u8]) {
        if self.channel.is_open() {
            let received = self.channel.receive(now, bytes);
            self.advance(received);
        }
    }

    fn closed(&mut self, _now: Duration) {
        self.finish(End::Disconnected);
    }

    fn wants_input(&self) -> bool {
        self.channel.has_room(REPLIES_MAX)
    }

    fn poll(&mut self, now: Duration) -> Action<Outcome<L>> {
        self.advance(Ok(()));
        let (deadline, late) = self.channel.deadline();
        if now >= deadline {
            self.finish(late.into());
        }
        self.channel.action()
    }
}
