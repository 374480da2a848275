//! What a hostile peer can make a session keep in memory: at most 64 MiB.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::alloc::System;
use std::sync::Arc;
use std::time::Duration;

use cap::Cap;
use common::link::{drain, frames};
use common::{random_elements, tree};
use keyrink_recon::dataset::Dataset;
use keyrink_recon::element::Prefix;
use keyrink_recon::random::Random;
use keyrink_recon::session::{Budget, Session, Solver, Walker};
use keyrink_recon::wire::Message;

/// Counts; never refuses.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const LIMIT: usize = 64 << 20;
/// Bytes come in pieces of what a socket gives at once.
const PIECE: usize = 64 << 10;

/// The most that is allocated at a time while a session hears the bytes, beyond what was before.
fn most(session: &mut impl Session, bytes: &[u8]) -> usize {
    let before = ALLOCATOR.allocated();
    let mut most = 0;
    for piece in bytes.chunks(PIECE) {
        session.receive(Duration::ZERO, piece);
        most = most.max(ALLOCATOR.allocated().saturating_sub(before));
        drain(session, Duration::ZERO);
        most = most.max(ALLOCATOR.allocated().saturating_sub(before));
    }
    most
}

fn sessions<const L: usize>(dataset: Dataset<L>) {
    let dataset = Arc::new(dataset);
    let own = tree(&dataset, &random_elements(&dataset, &mut Random::new(1), 30_000));
    let encode = |message: &Message<L>| {
        let mut bytes = Vec::new();
        message.encode(&dataset, &mut bytes);
        bytes
    };
    // As many elements as one message can hold, all of them new here.
    let longest = dataset.conduct.message_max / (dataset.value_length() + 4) - 100;
    let values: Vec<_> = random_elements(&dataset, &mut Random::new(2), longest)
        .iter()
        .map(|element| element.value())
        .collect();
    let attacks = [
        encode(&Message::Elements(values.clone())),
        encode(&Message::FullElements(values.clone())),
        encode(&Message::Full(Prefix::ROOT, values)),
        // Asks for all again and again, and never reads.
        encode(&Message::Full(Prefix::ROOT, Vec::new())).repeat(200),
        // Never becomes a whole message.
        [
            (dataset.conduct.message_max as u32).to_be_bytes().to_vec(),
            vec![0; dataset.conduct.message_max - 1],
        ]
        .concat(),
    ];
    for (number, attack) in attacks.iter().enumerate() {
        let roots = || vec![Prefix::ROOT];
        let mut walker = Walker::new(
            dataset.clone(),
            &own,
            roots(),
            Budget::default(),
            1,
            frames(),
            Duration::ZERO,
        );
        let walked = most(&mut walker, attack);
        let mut solver = Solver::new(
            dataset.clone(),
            &own,
            roots(),
            Budget::default(),
            1,
            frames(),
            Duration::ZERO,
        );
        let solved = most(&mut solver, attack);
        assert!(
            walked.max(solved) <= LIMIT,
            "attack {number}: {walked} and {solved} octets"
        );
    }
}

#[test]
fn no_message_fills_the_memory() {
    sessions(Dataset::v1("sks"));
    sessions(Dataset::v2("openpgp/2"));
}
