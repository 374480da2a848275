//! Two judges over Debian's keyrings and the vectors: Sequoia and GnuPG say which self-signatures are valid.
//!
//! Records what they say for the ordinary tests, and prints every dispute with Keyrink. Ends with a failure if there is one that the list of
//! those that are understood does not hold, or one fewer.

#[path = "../../crates/openpgp/tests/support/judged.rs"]
#[allow(dead_code, reason = "what tests share is compiled into each")]
mod judged;
mod sequoia;

use judged::{Judge, Judgement, debian, gnupgs, ours, second, table, vectors};
use std::process::ExitCode;

fn main() -> ExitCode {
    tell_of_reconciliation();
    let keyrings = [debian(), vectors()].concat();
    let ours = ours(&keyrings);
    let claims: usize = ours.values().map(Vec::len).sum();
    println!("{} certificates, {claims} valid self-signatures", ours.len());
    let (sequoias, gnupgs) = (sequoia::valid(&keyrings), gnupgs(&keyrings));
    let wrong = compare(Judge::Sequoia, &ours, &sequoias) + compare(Judge::GnuPg, &ours, &gnupgs);
    match wrong {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Prints every dispute about the vectors of the second generation of reconciliation, which are few.
fn tell_of_reconciliation() {
    let certificates = second();
    let ours = ours(&certificates);
    for (judge, theirs) in [
        (Judge::Sequoia, sequoia::valid(&certificates)),
        (Judge::GnuPg, gnupgs(&certificates)),
    ] {
        let disputes = judge.disputes(&ours, &theirs);
        println!(
            "{judge:?} and the {} vectors of reconciliation: {} disputes",
            certificates.len(),
            disputes.len()
        );
        disputes.iter().for_each(|dispute| println!("  {dispute}"));
    }
}

/// Records what a judge found, prints the disputes, and counts those that are new or gone.
fn compare(judge: Judge, ours: &Judgement, theirs: &Judgement) -> usize {
    let record = judge.record();
    std::fs::write(&record, table(theirs)).unwrap_or_else(|error| panic!("{}: {error}", record.display()));
    let mut understood = judge.understood();
    let mut wrong = 0;
    for dispute in judge.disputes(ours, theirs) {
        match understood.remove(&dispute) {
            Some(reason) => println!("understood: {dispute} ({reason})"),
            None => {
                println!("NEW: {dispute}");
                wrong += 1;
            }
        }
    }
    understood.keys().for_each(|dispute| println!("GONE: {dispute}"));
    wrong + understood.len()
}
