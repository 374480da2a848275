//! What `scripts/abuse` does at length, in short: no more than shows that everything still works.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use keyrink_testkit::abuse::{Plan, Trial};

/// Bounds of time are for an idle machine: here a server may be slow, but nothing else.
fn survives(trial: Trial) {
    let plan = Plan::short(env!("CARGO_BIN_EXE_keyrink").into());
    let findings = trial.run(&plan, &mut |line| println!("{line}")).unwrap();
    findings.iter().for_each(|finding| println!("{finding}"));
    let failed = findings.iter().filter(|finding| !finding.holds && !finding.is_time());
    assert_eq!(failed.count(), 0);
}

#[test]
fn poison() {
    survives(Trial::Poison);
}

#[test]
fn bodies() {
    survives(Trial::Bodies);
}

#[test]
fn costly() {
    survives(Trial::Costly);
}

#[test]
fn idle() {
    survives(Trial::Idle);
}
