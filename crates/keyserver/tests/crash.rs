//! A few rounds of `kill -9` at random moments; `keyrink-testkit crash` does thousands.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use keyrink_testkit::crash::{Plan, run};

#[test]
fn nothing_acknowledged_is_lost() {
    // One of each kind: a load alone, submissions alone, and submissions beside a load.
    kill(3, false);
}

#[test]
fn nothing_acknowledged_is_lost_on_postgres() {
    // The same, and once more with the database as the victim.
    kill(6, true);
}

fn kill(rounds: u64, postgres: bool) {
    let plan = Plan {
        program: common::PROGRAM.into(),
        first: 0,
        rounds,
        seed: 1,
        postgres,
    };
    let summary = run(&plan, |_| ()).unwrap();
    assert_eq!((summary.rounds, &summary.faults[..]), (rounds, &[][..]), "{summary}");
    assert!(summary.acknowledged > 0);
}
