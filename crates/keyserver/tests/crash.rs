//! A few rounds of `kill -9` at random moments; `keyrink-testkit crash` does thousands.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use keyrink_testkit::crash::{Plan, run};

#[test]
fn nothing_acknowledged_is_lost() {
    let plan = Plan {
        program: common::PROGRAM.into(),
        // The second kind of round, submissions alone, and the third, submissions beside a load.
        first: 1,
        rounds: 2,
        seed: 1,
    };
    let summary = run(&plan, |_| ()).unwrap();
    assert_eq!((summary.rounds, &summary.faults[..]), (2, &[][..]), "{summary}");
    assert!(summary.acknowledged > 0);
}
