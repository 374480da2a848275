//! Sequoia and GnuPG find the same self-signatures valid, on Debian's keyrings and on the vectors, but for what
//! `testdata/verdicts/disputes.tsv` explains. What they found is recorded there by `scripts/oracle`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

#[path = "support/judged.rs"]
mod judged;

use judged::{Judge, debian, gnupgs, judgement, ours, second, vectors};
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

/// The certificates of the second generation of reconciliation, whose valid self-signatures are what is reconciled.
#[test]
fn gnupg_agrees_on_what_is_reconciled() {
    let certificates = second();
    assert_eq!(certificates.len(), 22);
    let disputes = Judge::GnuPg.disputes(&ours(&certificates), &gnupgs(&certificates));
    assert_eq!(disputes, UNHEARD.map(|(dispute, _)| dispute));
}

/// What GnuPG does not find valid of them, and why.
const UNHEARD: [(&str, &str); 10] = [
    ("gnupg 0AD84EE5CCE416A08175E3B6EA8AB9CB not read by the judge", OLD_KEY),
    (
        "gnupg 29E5A551B359CE28714AC5C44373746EAB17783502D0C5CD38F56E21619D4CF0 not read by the judge",
        NEW_KEY,
    ),
    (
        "gnupg 32CC9C6E62080D88F94085182BAE71F6E45A585DCC76349136984DA5BEF19518 not read by the judge",
        NEW_KEY,
    ),
    (
        "gnupg 43351073B6D9BEFA43CAC78A1642C8C44B3C9E7A not read by the judge",
        "it believes the unhashed area, which names somebody else",
    ),
    (
        "gnupg 6B1FBA169EF0B0D2D8AD3B6713E450212754A865 not read by the judge",
        NO_KEY_ID,
    ),
    (
        "gnupg D8C9FA5DE7913205245C0B3C627DB18FA4C31861 valid for keyrink only: type 0x16, hash 8, created 1700000010",
        NO_KEY_ID,
    ),
    (
        "gnupg D8C9FA5DE7913205245C0B3C627DB18FA4C31861 valid for keyrink only: type 0x18, hash 8, created 1700000010",
        NO_KEY_ID,
    ),
    (
        "gnupg D8C9FA5DE7913205245C0B3C627DB18FA4C31861 valid for keyrink only: type 0x1f, hash 8, created 1700000010",
        NO_KEY_ID,
    ),
    (
        "gnupg D8C9FA5DE7913205245C0B3C627DB18FA4C31861 valid for keyrink only: type 0x28, hash 8, created 1700000010",
        NO_KEY_ID,
    ),
    (
        "gnupg D8C9FA5DE7913205245C0B3C627DB18FA4C31861 valid for keyrink only: type 0x30, hash 8, created 1700000010",
        NO_KEY_ID,
    ),
];
const OLD_KEY: &str = "it takes no keys of version 3";
const NEW_KEY: &str = "it knows no keys of version 6";
const NO_KEY_ID: &str = "it tries no signature that names its issuer by the fingerprint alone";
