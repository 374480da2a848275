//! The exchange of configurations: which tree, which dataset, which branches.
//!
//! Each side sends a configuration and a verdict on the other's. The accepting side speaks at
//! once. The calling side listens first and then says what suits: it picks the tree, and repeats the
//! filters of a first-generation peer to it letter by letter, because some peers compare them so.
//!
//! What first-generation peers call *filters* is a set of strings that stands for the rules by
//! which a dataset is made; equal sets mean equal datasets. The strings themselves come in with the
//! [`Settings`].

mod omission;
mod terms;

use std::time::Duration;

pub use omission::{Omission, OmissionError};
pub use terms::{FilterSet, Filters, PeerConfig, Refusal, Settings, TreeOffer};

use super::{Action, Fault, Late, Session};
use crate::wire::{CONFIG_MAX, Config, FrameReader, Verdict};

/// One end of the exchange. It ends within [`Budget::configuration`](super::Budget::configuration).
#[derive(Debug)]
pub struct Handshake {
    settings: Settings,
    role: Role,
    frames: FrameReader,
    output: Vec<u8>,
    deadline: Duration,
    peer: Option<PeerConfig>,
    state: State,
}

/// What both sides agreed on; the connection goes on with a walker or a solver.
#[derive(Debug)]
pub struct Agreement {
    /// The tree of this session.
    pub tree: String,
    /// The dataset: for a first-generation session the one the filters stand for, otherwise the
    /// name of the tree.
    pub dataset: String,
    /// The branches that at least one side leaves out.
    pub omission: Omission,
    /// What the peer said.
    pub peer: PeerConfig,
    /// The stream, with what was read and not used.
    pub frames: FrameReader,
}

/// Why there is no session. Every kind is temporary; [`Failure::peer`] tells what was learnt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// We refused.
    #[error("refused: {reason}")]
    Refused {
        /// What does not suit.
        reason: Refusal,
        /// What the peer said.
        peer: Box<PeerConfig>,
    },
    /// The peer refused.
    #[error("refused by the peer: {reason}")]
    RefusedByPeer {
        /// Its words.
        reason: String,
        /// What it said before.
        peer: Box<PeerConfig>,
    },
    /// The peer broke the protocol.
    #[error("protocol fault: {0}")]
    Fault(#[from] Fault),
    /// It took too long.
    #[error("{0}")]
    Late(#[from] Late),
    /// The connection ended.
    #[error("the peer closed the connection")]
    Disconnected,
}

impl Failure {
    /// What the peer said, if it came so far. Its filters are worth keeping: they are what it will
    /// want to hear next time.
    pub fn peer(&self) -> Option<&PeerConfig> {
        match self {
            Self::Refused { peer, .. } | Self::RefusedByPeer { peer, .. } => Some(peer),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Accepting,
    Calling,
}

#[derive(Debug)]
enum State {
    /// The peer's configuration comes next.
    Configuration,
    /// Its verdict comes next.
    Verdict(terms::Terms),
    /// It ended so; none when that was handed out.
    Ended(Option<Result<terms::Terms, Failure>>),
}

impl Handshake {
    /// The accepting side: a [`Walker`](super::Walker) follows.
    pub fn accept(settings: Settings, now: Duration) -> Self {
        let mut handshake = Self::new(settings, Role::Accepting, now);
        handshake.settings.config_accepting().encode(&mut handshake.output);
        handshake
    }

    /// The calling side: a [`Solver`](super::Solver) follows.
    pub fn call(settings: Settings, now: Duration) -> Self {
        Self::new(settings, Role::Calling, now)
    }

    fn new(settings: Settings, role: Role, now: Duration) -> Self {
        let deadline = now + settings.patience;
        let frames = FrameReader::new(CONFIG_MAX);
        Self {
            settings,
            role,
            frames,
            output: Vec::new(),
            deadline,
            peer: None,
            state: State::Configuration,
        }
    }

    fn advance(&mut self) {
        loop {
            let result = match &self.state {
                State::Configuration => self.take_config(),
                State::Verdict(_) => self.take_verdict(),
                State::Ended(_) => return,
            };
            match result {
                Ok(true) => {}
                Ok(false) => return,
                Err(failure) => self.state = State::Ended(Some(Err(failure))),
            }
        }
    }

    /// Reads the peer's configuration and answers it; false if it is not there yet.
    fn take_config(&mut self) -> Result<bool, Failure> {
        let Some(frame) = self.frames.next_frame().map_err(Fault::from)? else {
            return Ok(false);
        };
        if frame.kind != Config::KIND {
            return Err(Fault::NoConfiguration(frame.kind).into());
        }
        let peer = PeerConfig::read(&Config::decode(frame.payload).map_err(Fault::from)?);
        let judged = match self.role {
            Role::Accepting => self.settings.judge_caller(&peer),
            Role::Calling => {
                let (config, judged) = self.settings.answer_acceptor(&peer);
                config.encode(&mut self.output);
                judged
            }
        };
        self.peer = Some(peer.clone());
        let terms = judged.map_err(|reason| {
            Verdict::Failed(reason.to_string()).encode(&mut self.output);
            Failure::Refused {
                reason,
                peer: Box::new(peer),
            }
        })?;
        Verdict::Passed.encode(&mut self.output);
        self.state = State::Verdict(terms);
        Ok(true)
    }

    /// Reads the peer's verdict; false if it is not there yet.
    fn take_verdict(&mut self) -> Result<bool, Failure> {
        let Some(verdict) = self.frames.next_verdict().map_err(Fault::from)? else {
            return Ok(false);
        };
        let State::Verdict(terms) = std::mem::replace(&mut self.state, State::Ended(None)) else {
            return Ok(false);
        };
        self.state = State::Ended(Some(match (verdict, &self.peer) {
            (Verdict::Failed(reason), Some(peer)) => Err(Failure::RefusedByPeer {
                reason,
                peer: Box::new(peer.clone()),
            }),
            _ => Ok(terms),
        }));
        Ok(true)
    }

    fn fail(&mut self, failure: Failure) {
        if !matches!(self.state, State::Ended(_)) {
            self.state = State::Ended(Some(Err(failure)));
        }
    }

    fn finish(&mut self, terms: terms::Terms) -> Result<Agreement, Failure> {
        let peer = self.peer.take().ok_or(Failure::Disconnected)?;
        let frames = std::mem::replace(&mut self.frames, FrameReader::new(0));
        Ok(Agreement {
            tree: terms.tree,
            dataset: terms.dataset,
            omission: terms.omission,
            peer,
            frames,
        })
    }
}

impl Session for Handshake {
    type Outcome = Result<Agreement, Failure>;

    fn receive(&mut self, _now: Duration, bytes: &[u8]) {
        self.frames.feed(bytes);
        self.advance();
    }

    fn closed(&mut self, _now: Duration) {
        self.fail(Failure::Disconnected);
    }

    fn wants_input(&self) -> bool {
        !matches!(self.state, State::Ended(_))
    }

    fn poll(&mut self, now: Duration) -> Action<Self::Outcome> {
        if now >= self.deadline {
            self.fail(Late::Configuration.into());
        }
        if !self.output.is_empty() {
            return Action::Send(std::mem::take(&mut self.output));
        }
        match &mut self.state {
            State::Ended(result) => match result.take() {
                Some(Ok(terms)) => Action::Finish(self.finish(terms)),
                Some(Err(failure)) => Action::Finish(Err(failure)),
                None => Action::Finish(Err(Failure::Disconnected)),
            },
            _ => Action::Wait(self.deadline),
        }
    }
}
