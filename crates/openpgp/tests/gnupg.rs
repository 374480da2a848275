//! GnuPG finds the same self-signatures valid. Its verdicts on Debian's large keyrings, and Sequoia's: `scripts/oracle`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

#[path = "support/judged.rs"]
mod judged;

use judged::{debian, gnupgs, ours, superseded};
use std::fs;

#[test]
fn gnupg_finds_the_same_self_signatures_valid() {
    let keyrings = ["keyring", "maintainers", "nonupload", "role-keys"].map(debian);
    let octets: Vec<u8> = keyrings.iter().flat_map(|path| fs::read(path).unwrap()).collect();
    let (ours, theirs) = (ours(&octets), gnupgs(&keyrings));
    assert_eq!(ours.len(), 1178, "where are the keyrings?");
    assert_eq!(theirs.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>());
    for (fingerprint, ours) in &ours {
        let theirs = &theirs[fingerprint];
        let only_theirs = theirs.iter().find(|claim| !ours.contains(claim));
        assert_eq!(only_theirs, None, "{fingerprint}: valid for GnuPG only");
        let only_ours = ours
            .iter()
            .find(|claim| !theirs.contains(claim) && !superseded(claim, ours));
        assert_eq!(only_ours, None, "{fingerprint}: not valid for GnuPG");
    }
}
