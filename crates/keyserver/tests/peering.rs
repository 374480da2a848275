//! Reconciliation with a real SKS, both ways.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use std::path::PathBuf;
use std::time::Duration;

use common::peering::{Reconciling, dumped, sks, wait_until_equal};
use common::{Node, debian};
use keyrink_testkit::keyring::entries;

/// Certificates of Debian's keyrings, then the quirky ones.
fn debian_certificates() -> Vec<Vec<u8>> {
    let names = ["keyring", "maintainers", "nonupload", "role-keys"];
    let keyrings = names.iter().map(|name| std::fs::read(debian(name)).unwrap());
    keyrings
        .flat_map(|keyring| entries(&keyring))
        .map(|entry| entry.octets)
        .collect()
}

fn quirky(names: &[&str]) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/recon-v1/certs");
    let files = names
        .iter()
        .map(|name| std::fs::read(folder.join(format!("{name}.pgp"))).unwrap());
    files.collect::<Vec<_>>().concat()
}

const WITHIN: Duration = Duration::from_secs(120);

#[test]
fn both_end_with_the_union_keyrink_calling() {
    let all = debian_certificates();
    let ours = [
        all[..700].concat(),
        quirky(&["plain", "trust-packet", "dup-uid", "uid-unsigned"]),
    ]
    .concat();
    let theirs = [
        all[478..].concat(),
        quirky(&["dup-sig-other-uid", "user-attribute-unsigned", "bad-selfsig"]),
    ];
    let node = Node::with(&[&ours]);
    let file = node.file("theirs.pgp", &theirs.concat());
    let keyrink = Reconciling::new(node, "127.0.0.1");
    let mut sks = sks(&[&file], &[keyrink.port()], false);
    let mut keyrink = keyrink
        .partner(&format!("127.0.0.1:{}", sks.recon_port()))
        .gossip(5)
        .start();
    let union = wait_until_equal(&keyrink, &sks, all.len() + 1, WITHIN).unwrap();
    keyrink.server().terminate();
    assert!(dumped(&mut sks) == union);
    keyrink.node.check();
}
