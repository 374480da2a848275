//! Thirty nodes gossip over a bad network in virtual time until all hold the union.
//!
//! Everything that happens follows from the number of a seed. A failing one is replayed, with a
//! trace, by
//!
//! ```text
//! SIMULATION_SEED=123 cargo test -p keyrink-recon --test simulation -- --nocapture
//! ```
//!
//! `SIMULATION_SEEDS` sets how many seeds are tried: few while developing, 500 by `scripts/test`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod connection;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use keyrink_recon::dataset::Dataset;

use world::World;

/// Seeds tried when nothing else is said.
const SEEDS: u64 = 40;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|value| value.parse().expect("a number"))
}

/// Runs one seed to its end; even ones speak the first generation, odd ones the second.
fn run(seed: u64, trace: bool) {
    match seed % 2 {
        0 => World::new(Arc::new(Dataset::v1("sks")), "openpgp/1", seed, trace).run(),
        _ => World::new(Arc::new(Dataset::v2("openpgp/2")), "openpgp/2", seed, trace).run(),
    }
}

#[test]
fn all_nodes_come_to_hold_the_union() {
    if let Some(seed) = number("SIMULATION_SEED") {
        return run(seed, true);
    }
    let seeds = number("SIMULATION_SEEDS").unwrap_or(SEEDS);
    let (next, failed) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    if catch_unwind(AssertUnwindSafe(|| run(seed, false))).is_err() {
                        failed.lock().unwrap().push(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "failing seeds, to be replayed with SIMULATION_SEED: {failed:?}"
    );
}

#[test]
fn a_seed_says_everything() {
    let history = |seed| {
        let mut world = World::new(Arc::new(Dataset::v1("sks")), "openpgp/1", seed, false);
        world.run();
        world.history()
    };
    assert_eq!(history(8), history(8));
    assert_ne!(history(8), history(10));
}
