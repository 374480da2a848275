//! Sessions as state machines: bytes and the time go in, bytes and a result come out.
//!
//! A connection is a [`Handshake`] and then, on the side that accepted it, a [`Walker`], on the
//! side that called, a [`Solver`]. All three are driven alike through [`Session`]: hand in what
//! the socket read, then do what [`Session::poll`] says until it says to wait.
//!
//! ```text
//!   accepting side                                   calling side
//!   Handshake ── configuration, verdict ──────────── Handshake
//!   Walker    ── "my node p: samples" ─────────────► Solver
//!             ◄─ "you lack these" ──────────────────   solves, and notes what itself lacks
//!             ── "my node q: all elements" ────────►
//!             ── Flush ("I wait") ─────────────────►   lets its replies go
//!             ◄─ "cannot tell: ask its children" ───
//!             ── Done ─────────────────────────────►
//! ```
//!
//! Both end with an [`Outcome`]: the elements the peer has and this side lacks, and why it ended.
//! Time is a `Duration` since any moment the caller likes, the same for the whole connection.
//! Go on reading while writing, as long as [`Session::wants_input`] says so: two peers that only
//! write wait for each other.

mod channel;
mod handshake;
mod sets;
mod solver;
mod walker;

use std::time::Duration;

pub use handshake::{
    Agreement, Failure, FilterSet, Filters, Handshake, Omission, OmissionError, PeerConfig, Refusal, Settings,
    TreeOffer,
};
pub use solver::Solver;
pub use walker::Walker;

use crate::dataset::Unfit;
use crate::element::{Element, Prefix};
use crate::tree::Unavailable;
use crate::wire::{Kind, WireError};

/// A state machine at one end of a connection.
pub trait Session {
    /// What it ends with.
    type Outcome;

    /// Takes bytes that came from the peer.
    fn receive(&mut self, now: Duration, bytes: &[u8]);

    /// Learns that nothing more will come from the peer.
    fn closed(&mut self, now: Duration);

    /// Whether to go on reading from the peer. While this is false, too much waits to be written:
    /// leave the peer's bytes in the socket, or a peer that asks and never reads fills the memory.
    fn wants_input(&self) -> bool;

    /// Says what to do next. Call it after everything that happens, until it says to wait.
    fn poll(&mut self, now: Duration) -> Action<Self::Outcome>;
}

/// What the owner of a session has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<T> {
    /// Write these bytes, in one piece if possible, and poll again.
    Send(Vec<u8>),
    /// Wait for bytes or for this time, whichever comes first.
    Wait(Duration),
    /// It is over, and this is said once: do not poll again. A handshake that succeeded hands the
    /// connection on; everything else closes it.
    Finish(T),
}

/// What a connection may cost. Exceeding a bound ends it; nothing grows beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// From the start to the peer's configuration and verdict.
    pub configuration: Duration,
    /// From the peer's last byte to the next before the first Flush of the session.
    pub idle_before_flush: Duration,
    /// The same after it.
    pub idle: Duration,
    /// The session in all.
    pub session: Duration,
    /// Requests in one session.
    pub requests: u64,
    /// Requests without reply.
    pub unanswered: usize,
    /// Prefixes the walker keeps for later.
    pub queue: usize,
    /// Elements that are new or dropped in one session.
    pub elements: usize,
    /// Bytes in one session, each way.
    pub bytes: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            configuration: Duration::from_secs(60),
            idle_before_flush: Duration::from_secs(60),
            idle: Duration::from_secs(30),
            session: Duration::from_secs(600),
            requests: 200_000,
            unanswered: 100,
            queue: 60_000,
            elements: 250_000,
            bytes: 256 << 20,
        }
    }
}

/// What a session found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<const L: usize> {
    /// Why it ended.
    pub end: End,
    /// Elements the peer says it has and this side lacks, in path order, each once. When the end
    /// was not [`End::Complete`], those found until then.
    pub missing: Vec<Element<L>>,
    /// Prefixes the peer refused, with its code and text.
    pub refused: Vec<(Prefix<L>, u8, String)>,
    /// Counts for statistics.
    pub tally: Tally,
}

/// What a session did, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests sent by a walker or answered by a solver.
    pub requests: u64,
    /// Requests with samples that were solved; known to the solver only.
    pub solved: u64,
    /// How often the walker waited: round trips.
    pub flushes: u64,
    /// Elements of ours that the peer turned out to lack; known to the solver only.
    pub lacking: u64,
    /// Elements dropped because they cannot be what they were sent for.
    pub dropped: u64,
    /// Bytes read.
    pub received: u64,
    /// Bytes written.
    pub sent: u64,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// Everything that was to be asked was asked and answered.
    #[error("complete")]
    Complete,
    /// A bound was reached. What was found is good; the next session brings more.
    #[error("ended early: {0}")]
    Limit(#[from] Limit),
    /// The connection ended before the session.
    #[error("the peer closed the connection")]
    Disconnected,
    /// The peer was too slow.
    #[error("{0}")]
    Late(#[from] Late),
    /// The peer gave up and said why.
    #[error("the peer reports an error: {0}")]
    PeerError(String),
    /// The peer broke the protocol.
    #[error("protocol fault: {0}")]
    Fault(#[from] Fault),
    /// Our own set could not be read.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Bounds that end a session early, without anybody's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// See [`Budget::requests`].
    #[error("too many requests")]
    Requests,
    /// See [`Budget::queue`].
    #[error("too many differing nodes")]
    Queue,
    /// See [`Budget::elements`].
    #[error("too many differing elements")]
    Elements,
    /// See [`Budget::bytes`].
    #[error("too many bytes")]
    Bytes,
}

/// Deadlines a peer can miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Late {
    /// See [`Budget::configuration`].
    #[error("no configuration and verdict in time")]
    Configuration,
    /// See [`Budget::idle`] and [`Budget::idle_before_flush`].
    #[error("nothing came from the peer for too long")]
    Idle,
    /// See [`Budget::session`].
    #[error("the session took too long")]
    Session,
}

/// What a peer did that the protocol does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It sent bytes that are no message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Its first message was not a configuration but had this type byte.
    #[error("message type {0} in place of a configuration")]
    NoConfiguration(u8),
    /// It sent a message that its role never sends.
    #[error("unexpected message {0:?}")]
    Unexpected(Kind),
    /// It sent a reply before, or without, a request.
    #[error("{0:?} without a request")]
    UnaskedReply(Kind),
    /// It answered a request with a message that is no answer to it.
    #[error("{0:?} is no answer to the request")]
    WrongReply(Kind),
    /// It wanted the children of the longest possible prefix.
    #[error("no children below a full prefix")]
    NoChildren,
    /// It refused another prefix than the one asked for.
    #[error("refusal of a prefix that was not asked for")]
    WrongRefusal,
    /// It sent elements that no FullElements asked for.
    #[error("elements nobody asked for")]
    UnaskedElements,
    /// It sent a number that cannot be an element.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// It sent an element outside the prefix in question.
    #[error("an element outside its prefix")]
    OutsidePrefix,
    /// It sent an element twice in one list.
    #[error("an element repeated in one list")]
    Repeated,
}
