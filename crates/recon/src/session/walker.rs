//! The accepting side: walks its own tree and asks.
//!
//! It keeps a queue of prefixes to ask about and a list of requests that wait for their replies,
//! which come in the same order. As long as there is something to ask it goes on writing, up to
//! the number of unanswered requests the budget allows; then it writes Flush, for a peer may hold
//! its replies back until it reads one, and waits. A prefix whose difference is too large comes
//! back as its four children at the end of the queue. So the tree is crossed breadth first, and a
//! level costs about one round trip, not each node.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::channel::Channel;
use super::sets::{admit, lacking, numeric, unknown};
use super::{Action, Budget, End, Fault, Limit, Outcome, Session};
use crate::dataset::Dataset;
use crate::element::Prefix;
use crate::random::Random;
use crate::tree::Nodes;
use crate::wire::{FrameReader, Message};

/// With more bytes than this waiting to leave, no reply is read. Requests are small; it takes the
/// elements that answer many a FullElements to come here.
const OUTPUT_MAX: usize = 8 << 20;

/// Refusals that are remembered, and how much of the text of each.
const REFUSED_MAX: usize = 256;
const REFUSAL_CHARACTERS_MAX: usize = 500;

/// The walker of one session.
#[derive(Debug)]
pub struct Walker<const L: usize, N> {
    channel: Channel<L>,
    nodes: N,
    random: Random,
    queue: VecDeque<Prefix<L>>,
    expected: VecDeque<Expected<L>>,
    /// Requests among the expected.
    unanswered: usize,
    /// Whether a Flush is out whose end is among the expected: the requests in front of it are.
    flushing: bool,
    shunned: Vec<Prefix<L>>,
    limit: Option<Limit>,
}

#[derive(Debug)]
enum Expected<const L: usize> {
    /// The reply to a request about a prefix.
    Reply(Prefix<L>, Asked),
    /// Nothing: here ends what the last Flush covered.
    FlushEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Poly,
    Full,
}

impl<const L: usize, N: Nodes<L>> Walker<L, N> {
    /// A session over one state of a set.
    ///
    /// `frames` is what the handshake has not consumed, `roots` the prefixes it agreed on; with
    /// none of them the session ends at once. `seed` feeds random choices.
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
            queue: roots.into(),
            expected: VecDeque::new(),
            unanswered: 0,
            flushing: false,
            shunned: Vec::new(),
            limit: None,
        }
    }

    /// Leaves out everything below these prefixes: what this peer refused lately. Nothing above them is asked about, for the
    /// reply would tell of them.
    pub fn shun(mut self, prefixes: Vec<Prefix<L>>) -> Self {
        self.shunned = prefixes;
        self
    }

    /// Goes as far as possible without the peer.
    fn advance(&mut self, received: Result<(), End>) {
        let mut state = received.and_then(|()| self.step());
        while self.channel.is_open() {
            match state {
                Ok(true) => state = self.step(),
                Ok(false) => return,
                Err(end) => return self.finish(end),
            }
        }
    }

    /// Does one thing; false if there is nothing to do but wait.
    fn step(&mut self) -> Result<bool, End> {
        if self.channel.is_full(OUTPUT_MAX) {
            return Ok(false);
        }
        match self.expected.front() {
            Some(Expected::FlushEnd) => {
                self.expected.pop_front();
                self.flushing = false;
                return Ok(true);
            }
            // Requests behind the end of the last Flush have not left yet, so nothing answers them.
            front => match (self.channel.next_message()?, front) {
                (Some(message), Some(&Expected::Reply(prefix, asked))) if self.flushing => {
                    self.expected.pop_front();
                    self.unanswered -= 1;
                    self.take(prefix, asked, message)?;
                    return Ok(true);
                }
                (Some(message), _) => return Err(Fault::UnaskedReply(message.kind()).into()),
                (None, _) => {}
            },
        }
        if self.unanswered < self.channel.budget.unanswered && !self.queue.is_empty() {
            self.ask()?;
            return Ok(true);
        }
        if self.expected.is_empty() {
            return Err(self.limit.map_or(End::Complete, End::Limit));
        }
        if !self.flushing {
            self.channel.write(&Message::Flush);
            self.channel.release();
            self.channel.tally.flushes += 1;
            self.expected.push_back(Expected::FlushEnd);
            self.flushing = true;
        }
        Ok(false)
    }

    /// Writes the request for the next prefix of the queue.
    fn ask(&mut self) -> Result<(), End> {
        if self.channel.tally.requests == self.channel.budget.requests {
            self.limit = Some(Limit::Requests);
            self.queue.clear();
        }
        let Some(prefix) = self.queue.pop_front() else {
            return Ok(());
        };
        if self.shunned.iter().any(|shunned| prefix.is_within(shunned)) {
            return Ok(());
        }
        if self.shunned.iter().any(|shunned| shunned.is_within(&prefix)) {
            return self.descend(prefix);
        }
        let full_max = self.channel.dataset.thresholds.full_request_max;
        let (asked, message) = if self.nodes.count(&prefix)? <= full_max {
            let elements = self.nodes.elements(&prefix, None, full_max as usize)?;
            (Asked::Full, Message::Full(prefix, numeric(&elements)))
        } else {
            (Asked::Poly, Message::Poly(prefix, self.nodes.summary(&prefix)?))
        };
        self.channel.write(&message);
        self.expected.push_back(Expected::Reply(prefix, asked));
        self.unanswered += 1;
        self.channel.tally.requests += 1;
        Ok(())
    }

    /// Works a reply in.
    fn take(&mut self, prefix: Prefix<L>, asked: Asked, reply: Message<L>) -> Result<(), End> {
        let dataset = self.channel.dataset.clone();
        match reply {
            Message::Elements(values) => {
                let (elements, dropped) = admit(&dataset, &prefix, values)?;
                let missing = unknown(&dataset, &self.nodes, &prefix, elements)?;
                self.channel.note(missing, dropped)
            }
            Message::FullElements(values) if asked == Asked::Poly => {
                let (elements, dropped) = admit(&dataset, &prefix, values)?;
                let lacking = lacking(&dataset, &self.nodes, &prefix, &elements, &mut self.random)?;
                self.channel.write(&Message::Elements(numeric(&lacking)));
                let missing = unknown(&dataset, &self.nodes, &prefix, elements)?;
                self.channel.note(missing, dropped)
            }
            Message::SyncFail if asked == Asked::Poly || dataset.conduct.splits_full_requests => self.descend(prefix),
            Message::Refused(other, code, text) => {
                if other != prefix {
                    return Err(Fault::WrongRefusal.into());
                }
                // Requests are many and texts may be long.
                if self.channel.refused.len() < REFUSED_MAX {
                    let text = text.chars().take(REFUSAL_CHARACTERS_MAX).collect();
                    self.channel.refused.push((prefix, code, text));
                }
                Ok(())
            }
            Message::Error(text) => Err(End::PeerError(text)),
            other => Err(Fault::WrongReply(other.kind()).into()),
        }
    }

    /// Puts the children of a prefix into the queue.
    fn descend(&mut self, prefix: Prefix<L>) -> Result<(), End> {
        let deeper = prefix.length() < self.channel.dataset.prefix_bits_max();
        let children = prefix.children().filter(|_| deeper).ok_or(Fault::NoChildren)?;
        match self.queue.len() + children.len() > self.channel.budget.queue {
            true => self.limit = Some(Limit::Queue),
            false => self.queue.extend(children),
        }
        Ok(())
    }

    fn finish(&mut self, end: End) {
        let parting = match &end {
            End::Disconnected | End::PeerError(_) => None,
            End::Fault(fault) if self.channel.dataset.conduct.reports_faults => Some(Message::Error(fault.to_string())),
            _ => Some(Message::Done),
        };
        if matches!(end, End::Complete | End::Limit(Limit::Requests | Limit::Queue)) {
            self.channel.release();
        }
        self.channel.finish(end, parting);
    }
}

impl<const L: usize, N: Nodes<L>> Session for Walker<L, N> {
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
        self.channel.has_room(OUTPUT_MAX)
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
