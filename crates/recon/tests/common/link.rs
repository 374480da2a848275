//! Two ends of a connection in memory, and what passes between them.

use std::sync::Arc;
use std::time::Duration;

use keyrink_recon::dataset::Dataset;
use keyrink_recon::element::Prefix;
use keyrink_recon::session::{Action, Budget, Outcome, Session, Solver, Walker};
use keyrink_recon::tree::Nodes;
use keyrink_recon::wire::{FrameReader, Message};

pub(crate) fn frames() -> FrameReader {
    FrameReader::new(0)
}

pub(crate) fn walker<const L: usize, N: Nodes<L>>(
    dataset: &Arc<Dataset<L>>,
    nodes: N,
    roots: Vec<Prefix<L>>,
) -> Walker<L, N> {
    Walker::new(
        dataset.clone(),
        nodes,
        roots,
        Budget::default(),
        1,
        frames(),
        Duration::ZERO,
    )
}

pub(crate) fn solver<const L: usize, N: Nodes<L>>(
    dataset: &Arc<Dataset<L>>,
    nodes: N,
    roots: Vec<Prefix<L>>,
) -> Solver<L, N> {
    Solver::new(
        dataset.clone(),
        nodes,
        roots,
        Budget::default(),
        2,
        frames(),
        Duration::ZERO,
    )
}

/// Polls until the session waits or ends; gives what it sent and its outcome.
pub(crate) fn drain<S: Session>(session: &mut S, now: Duration) -> (Vec<u8>, Option<S::Outcome>) {
    let mut sent = Vec::new();
    loop {
        match session.poll(now) {
            Action::Send(bytes) => sent.extend(bytes),
            Action::Wait(_) => return (sent, None),
            Action::Finish(outcome) => return (sent, Some(outcome)),
        }
    }
}

/// How a session ended, and the bytes it sent.
type Course<S> = (<S as Session>::Outcome, Vec<u8>);

/// Runs two sessions against each other.
pub(crate) fn run<A: Session, B: Session>(a: &mut A, b: &mut B) -> (Course<A>, Course<B>) {
    let now = Duration::from_secs(1);
    let (mut sent_a, mut sent_b) = (Vec::new(), Vec::new());
    let (mut end_a, mut end_b) = (None, None);
    while end_a.is_none() || end_b.is_none() {
        let mut moved = false;
        if end_a.is_none() {
            let (bytes, end) = drain(a, now);
            moved |= !bytes.is_empty() || end.is_some();
            b.receive(now, &bytes);
            sent_a.extend(bytes);
            if end.is_some() {
                b.closed(now);
            }
            end_a = end;
        }
        if end_b.is_none() {
            let (bytes, end) = drain(b, now);
            moved |= !bytes.is_empty() || end.is_some();
            a.receive(now, &bytes);
            sent_b.extend(bytes);
            if end.is_some() {
                a.closed(now);
            }
            end_b = end;
        }
        assert!(moved, "both ends wait for each other");
    }
    ((end_a.unwrap(), sent_a), (end_b.unwrap(), sent_b))
}

/// Runs walker against solver over two sets.
pub(crate) fn reconcile<const L: usize>(
    dataset: &Arc<Dataset<L>>,
    walkers: &impl Nodes<L>,
    solvers: &impl Nodes<L>,
    roots: Vec<Prefix<L>>,
) -> (Outcome<L>, Outcome<L>) {
    let mut walker = walker(dataset, walkers, roots.clone());
    let mut solver = solver(dataset, solvers, roots);
    let ((walked, _), (solved, _)) = run(&mut walker, &mut solver);
    (walked, solved)
}

/// Takes a stream apart.
pub(crate) fn messages<const L: usize>(dataset: &Dataset<L>, stream: &[u8]) -> Vec<(Message<L>, Vec<u8>)> {
    let mut reader = FrameReader::new(16 << 20);
    reader.feed(stream);
    let mut messages = Vec::new();
    let mut rest = stream;
    while let Some(frame) = reader.next_frame().unwrap() {
        let (bytes, behind) = rest.split_at(5 + frame.payload.len());
        rest = behind;
        messages.push((Message::decode(dataset, frame).unwrap(), bytes.to_vec()));
    }
    assert!(rest.is_empty(), "{} bytes behind the last message", rest.len());
    messages
}
