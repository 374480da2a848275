//! Two judges over Debian's keyrings: Sequoia and GnuPG say which self-signatures are valid, and Keyrink must agree.
//!
//! Prints every difference. Ends with a failure if there is one that `KNOWN` does not explain, or one fewer.

#[path = "../../crates/openpgp/tests/support/judged.rs"]
mod judged;
mod sequoia;

use judged::{Claim, Judgement, debian, gnupgs, ours, superseded};
use std::collections::BTreeSet;
use std::fs;
use std::process::ExitCode;

/// The keyrings of Debian's package `debian-keyring`.
const KEYRINGS: [&str; 4] = ["keyring", "maintainers", "nonupload", "role-keys"];

/// Differences that are understood: how the line that tells one begins, and why it is so.
const KNOWN: &[(&str, &str)] = &[];

fn main() -> ExitCode {
    let keyrings = KEYRINGS.map(debian);
    let octets: Vec<u8> = keyrings
        .iter()
        .flat_map(|path| fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        .collect();
    let ours = ours(&octets);
    let claims: usize = ours.values().map(Vec::len).sum();
    println!("{} certificates, {claims} valid self-signatures", ours.len());
    let mut found = differences("sequoia", &ours, &sequoia::valid(&octets));
    let mut gnupg = gnupgs(&keyrings);
    for (fingerprint, theirs) in &mut gnupg {
        let all = ours.get(fingerprint).map_or(&[][..], Vec::as_slice);
        theirs.extend(all.iter().filter(|claim| superseded(claim, all)));
    }
    found.extend(differences("gnupg", &ours, &gnupg));
    report(&found)
}

/// One line for each certificate or signature on which a judge does not agree.
fn differences(judge: &str, ours: &Judgement, theirs: &Judgement) -> Vec<String> {
    let mut found = Vec::new();
    let all: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for fingerprint in all {
        let line = |what: &str| format!("{judge} {fingerprint} {what}");
        match (ours.get(fingerprint), theirs.get(fingerprint)) {
            (Some(ours), Some(theirs)) => {
                let only = |these: &[Claim], others: &[Claim], who: &str| -> Vec<String> {
                    let these = these.iter().filter(|claim| !others.contains(claim));
                    these
                        .map(|claim| {
                            let Claim { kind, created, hash } = claim;
                            line(&format!("only {who}: type {kind:#04x}, created {created}, hash {hash}"))
                        })
                        .collect()
                };
                found.extend(only(ours, theirs, "keyrink"));
                found.extend(only(theirs, ours, judge));
            }
            (Some(_), None) => found.push(line("is not held by the judge")),
            _ => found.push(line("is not held by keyrink")),
        }
    }
    found
}

fn report(found: &[String]) -> ExitCode {
    let explanation = |line: &String| KNOWN.iter().find(|(start, _)| line.starts_with(start));
    let mut new = 0;
    for line in found {
        match explanation(line) {
            Some((_, why)) => println!("known: {line} ({why})"),
            None => {
                println!("NEW: {line}");
                new += 1;
            }
        }
    }
    let gone = |(start, _): &&(&str, &str)| !found.iter().any(|line| line.starts_with(start));
    let gone: Vec<_> = KNOWN.iter().filter(gone).collect();
    gone.iter().for_each(|(start, _)| println!("GONE: {start}"));
    println!("{} differences, {new} of them new, {} gone", found.len(), gone.len());
    match new + gone.len() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
