//! A node between two networks that refuse each other: each side ends with the certificates of both, as it sees them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use common::peering::{Digests, Reconciling, digests_of, handed_out, sks, wait, wait_until_equal};
use common::{Node, datasets, debian};
use keyrink::formats::{Family, HOCKEYPUCK, SKS};
use keyrink_testkit::http::Client;
use keyrink_testkit::keyring::entries;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(120);

/// A node that keeps these datasets.
fn keeping(datasets: &str, keyrings: &[&[u8]], address: &str) -> Reconciling {
    let keep = format!("KEYRINK_PEERS_DATASETS={datasets}");
    Reconciling::new(Node::with(keyrings), address).setting(&keep).gossip(1)
}

fn held(node: &Reconciling, family: &Family) -> Digests {
    digests_of(&node.node.data(), family)
}

/// Debian's certificates. Hockeypuck refuses one of them, which is on the left.
const ALL: usize = 1178;
const NORMAL: usize = 1177;

/// All of them, every other one to the left.
fn halves() -> (Vec<u8>, Vec<u8>) {
    let names = ["keyring", "maintainers", "nonupload", "role-keys"];
    let keyrings = names
        .iter()
        .flat_map(|name| entries(&std::fs::read(debian(name)).unwrap()));
    let (left, right): (Vec<_>, Vec<_>) = keyrings.enumerate().partition(|(at, _)| at % 2 == 1);
    let joined = |part: Vec<(usize, keyrink_testkit::keyring::Entry)>| {
        part.into_iter()
            .flat_map(|(_, entry)| entry.octets)
            .collect::<Vec<u8>>()
    };
    (joined(left), joined(right))
}

#[test]
fn each_side_ends_with_the_union_as_it_sees_it() {
    let (left_half, right_half) = halves();
    let left = keeping("sks", &[&left_half], "127.0.0.2");
    // What is loaded for one dataset is derived for the other when the server starts.
    let right = keeping("hockeypuck", &[&right_half], "127.0.0.3");
    let middle = keeping("sks,hockeypuck", &[], "127.0.0.1");
    // Two know what the other has, and one finds out.
    let right_to = format!("{},dataset=hockeypuck,name=middle", middle.recon);
    let (mut left, mut right) = (left.partner(&middle.recon), right.partner(&right_to));
    let middle = middle
        .partner(&format!("{},dataset=sks,name=left", left.recon))
        .partner(&format!("{},dataset=auto,name=right", right.recon));
    let middle = middle.start();
    left.start_again();
    right.start_again();

    wait(WITHIN, || {
        let (ours, theirs) = (held(&middle, &HOCKEYPUCK), held(&right, &HOCKEYPUCK));
        let (old, older) = (held(&middle, &SKS), held(&left, &SKS));
        if ours == theirs && old == older && (ours.len(), old.len()) == (NORMAL, ALL) {
            return Ok(());
        }
        Err(format!(
            "hockeypuck: {} in the middle, {} on the right; sks: {} in the middle, {} on the left\n{}",
            ours.len(),
            theirs.len(),
            old.len(),
            older.len(),
            middle.log()
        ))
    })
    .unwrap();
    assert_recorded(&middle);
    assert!(held(&left, &HOCKEYPUCK).is_empty() && held(&right, &SKS).is_empty());
    assert_eq!(middle.report_of("right")["dataset"], "hockeypuck");
    assert_eq!(right.report_of("middle")["dataset"], "hockeypuck");
    stays_quiet(&[&left, &middle, &right]);
    for mut node in [left, middle, right] {
        let keep = node.settings();
        node.server().terminate();
        node.node.check_with(&keep);
    }
}

/// All have the digests that a real Hockeypuck gave them, and are found by those of both families.
fn assert_recorded(node: &Reconciling) {
    let table = std::fs::read_to_string(datasets().join("debian-keyring.tsv")).unwrap();
    let column = table.lines().skip(1).map(|line| line.split('\t').nth(3).unwrap());
    let recorded: Digests = column.filter(|digest| *digest != "-").map(octets).collect();
    assert!(held(node, &HOCKEYPUCK) == recorded);
    assert_eq!(handed_out(&mut node.client(), &recorded), recorded);
    let old = held(node, &SKS);
    assert_eq!(handed_out(&mut node.client(), &old), old);
}

fn octets(hexadecimal: &str) -> Vec<u8> {
    let pairs = hexadecimal.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Ten further rounds lead to no request anywhere.
fn stays_quiet(nodes: &[&Reconciling]) {
    std::thread::sleep(Duration::from_secs(3));
    let rounds = |nodes: &[&Reconciling]| -> Vec<u64> { nodes.iter().map(|node| node.sessions()).collect() };
    let asked = || -> Vec<u64> { nodes.iter().map(|node| node.asked()).collect() };
    let (before, start) = (asked(), rounds(nodes));
    wait(WITHIN, || {
        let now = rounds(nodes);
        match now.iter().zip(&start).all(|(now, start)| *now >= start + 10) {
            true => Ok(()),
            false => Err(format!("{now:?} sessions after {start:?}")),
        }
    })
    .unwrap();
    assert_eq!(asked(), before);
}

#[test]
fn a_real_sks_gets_what_comes_from_the_other_network() {
    let (left, right) = halves();
    let middle = keeping("sks,hockeypuck", &[], "127.0.0.1");
    let file = middle.node.file("left.pgp", &left);
    let sks = sks(&[&file], &[middle.port()], false);
    let right = keeping("hockeypuck", &[&right], "127.0.0.3")
        .partner(&middle.recon)
        .start();
    let middle = middle
        .partner(&format!("127.0.0.1:{},pause_seconds=0.2,name=sks", sks.recon_port()))
        .partner(&format!("{},name=right", right.recon))
        .start();
    let union = wait_until_equal(&middle, &sks, ALL, WITHIN).unwrap();
    wait(WITHIN, || match held(&right, &HOCKEYPUCK).len() {
        NORMAL => Ok(()),
        count => Err(format!("{count} on the right\n{}", right.log())),
    })
    .unwrap();
    assert_eq!(handed_out(&mut Client::new(sks.http()), &union), union);
    assert_eq!(held(&middle, &HOCKEYPUCK), held(&right, &HOCKEYPUCK));
    assert_eq!(middle.report_of("sks")["dataset"], "sks");
    assert_eq!(middle.report_of("right")["dataset"], "hockeypuck");
}
