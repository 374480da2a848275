//! A few rounds of `kill -9` at random moments; `keyrink-testkit crash` does thousands.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use keyrink_testkit::crash::{Plan, run};

#[test]
fn nothing_acknowledged_is_lost() {
    let plan = Plan {
        program: common::PROGRAM.into(),
        // One of each kind: a load alone, submissions alone, and submissions beside a load.
        first: 0,
        rounds: 3,
        seed: 1,
    };
    let summary = run(&plan, |_| ()).unwrap();
    assert_eq!((summary.rounds, &summary.faults[..]), (3, &[][..]), "{summary}");
    assert!(summary.acknowledged > 0);
}
