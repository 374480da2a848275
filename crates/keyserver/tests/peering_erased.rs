//! What a node erased and its partners still have: it stays away, and nobody is asked for it again and again.
//!
//! `KEYRINK_TEST_ROUNDS=100 cargo nextest run -p keyrink --test peering_erased` waits for so many rounds with each partner.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use common::peering::{Reconciling, handed_out, sks, wait};
use common::{Node, PROGRAM, finish, get};
use keyrink_testkit::http::Client;
use keyrink_testkit::peers::store_arguments;
use keyrink_testkit::{Certificate, generate};
use std::process::Command;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(300);
const OTHERS: usize = 40;
/// In each of which it may be offered, and fetched once.
const DATASETS: u64 = 2;

fn rounds() -> u64 {
    std::env::var("KEYRINK_TEST_ROUNDS").map_or(6, |rounds| rounds.parse().unwrap())
}

fn cert() -> Certificate {
    Certificate::v4(7, "erased").user_id("Gone <gone@example.org>")
}

fn decide(node: &Reconciling, name: &str) {
    let mut command = Command::new(PROGRAM);
    command.args(["admin", name]).args(store_arguments(&node.node.data()));
    command.args(["--reason", "asked", &cert().fingerprint()]);
    let finished = finish(command, b"");
    assert_eq!(finished.code, Some(0), "{finished:?}");
}

/// How many certificates a node holds by its digests, and the answer to a lookup of the erased one.
fn state(node: &Reconciling) -> (usize, u16) {
    (
        node.digests().len(),
        get(&mut node.client(), &cert().fingerprint()).status,
    )
}

fn wait_for(node: &Reconciling, expected: (usize, u16)) {
    wait(WITHIN, || match state(node) {
        found if found == expected => Ok(()),
        found => Err(format!("{found:?}, not {expected:?}\n{}", node.log())),
    })
    .unwrap();
}

const NAMES: [&str; 3] = ["first", "second", "sks"];

/// Sessions, and requests for certificates, with each partner.
fn figures(node: &Reconciling) -> Vec<(u64, u64)> {
    let figure = |report: &serde_json::Value, key: &str| report[key].as_u64().unwrap();
    let reports = NAMES.map(|name| node.report_of(name));
    reports
        .iter()
        .map(|report| (figure(report, "sessions"), figure(report, "requests")))
        .collect()
}

/// The figures after so many more sessions with each partner.
fn rounds_after(node: &Reconciling, before: Vec<(u64, u64)>, more: u64) -> Vec<(u64, u64)> {
    wait(WITHIN, || {
        let now = figures(node);
        match now.iter().zip(&before).all(|(now, before)| now.0 >= before.0 + more) {
            true => Ok(now),
            false => Err(format!("{now:?} after {before:?}\n{}", node.log())),
        }
    })
    .unwrap()
}

#[test]
fn what_three_peers_hold_stays_erased_and_nobody_is_flooded() {
    let mut all = cert().to_bytes();
    generate::write(&mut all, 1, 0..OTHERS as u64).unwrap();
    let hub = Reconciling::new(Node::new(), "127.0.0.1").gossip(1);
    let peer = |address: &str| {
        let peer = Reconciling::new(Node::with(&[&all]), address);
        peer.partner(&hub.recon).gossip(1).start()
    };
    let peers = [peer("127.0.0.2"), peer("127.0.0.3")];
    let file = hub.node.file("all.pgp", &all);
    let sks = sks(&[&file], &[hub.port()], false);
    let mut hub = hub
        .partner(&format!("{},name=first", peers[0].recon))
        .partner(&format!("{},name=second", peers[1].recon))
        .partner(&format!("127.0.0.1:{},pause_seconds=0.2,name=sks", sks.recon_port()))
        .start();
    wait_for(&hub, (OTHERS + 1, 200));

    decide(&hub, "erase");
    assert_eq!(state(&hub), (OTHERS, 404));
    let asked = peers.each_ref().map(Reconciling::asked);
    // What each session came to is noted some time after it.
    let before = rounds_after(&hub, figures(&hub), 5);
    let after = rounds_after(&hub, before.clone(), rounds());
    println!("sessions and requests with each partner: {before:?}, then {after:?}");
    assert_eq!(state(&hub), (OTHERS, 404), "{}", hub.log());
    let requests = |figures: &[(u64, u64)]| figures.iter().map(|figure| figure.1).sum::<u64>();
    assert_eq!(requests(&after), requests(&before), "{}", hub.log());
    for (peer, before) in peers.iter().zip(asked) {
        let asked = peer.asked() - before;
        println!("asked {asked} times");
        assert!(asked <= DATASETS, "asked {asked} times");
        assert_eq!(state(peer), (OTHERS + 1, 200), "they have other rules");
    }
    let held = peers[0].digests();
    assert_eq!(handed_out(&mut Client::new(sks.http()), &held), held);

    decide(&hub, "unblock");
    wait_for(&hub, (OTHERS + 1, 200));
    hub.server().terminate();
    hub.node.check();
}
