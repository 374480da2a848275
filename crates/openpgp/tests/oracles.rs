//! Sequoia and GnuPG find the same self-signatures valid, on Debian's keyrings and on the vectors, but for what
//! `testdata/verdicts/disputes.tsv` explains. What they found is recorded there by `scripts/oracle`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

#[path = "support/judged.rs"]
mod judged;

use judged::{Judge, debian, gnupgs, judgement, ours, vectors};
use std::fs;

#[test]
fn what_the_judges_found_is_found() {
    let ours = ours(&[debian(), vectors()].concat());
    for judge in [Judge::Sequoia, Judge::GnuPg] {
        let theirs = judgement(&fs::read_to_string(judge.record()).unwrap());
        let understood: Vec<String> = judge.understood().into_keys().collect();
        let mut disputes = judge.disputes(&ours, &theirs);
        disputes.sort();
        assert_eq!(disputes, understood, "{judge:?}");
    }
}

/// The GnuPG that is here, which need not be the one that the record is of.
#[test]
fn gnupg_agrees_on_the_keyrings() {
    let keyrings = debian();
    let (ours, theirs) = (ours(&keyrings), gnupgs(&keyrings));
    assert_eq!(ours.len(), 1178, "where are the keyrings?");
    assert_eq!(Judge::GnuPg.disputes(&ours, &theirs), Vec::<String>::new());
}
