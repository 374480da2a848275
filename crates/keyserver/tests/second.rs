//! The second generation between nodes: what is fetched, and what is not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use common::peering::{Digests, Reconciling, digests_of, wait};
use common::{Node, debian};
use keyrink::formats::{Family, SECOND, SKS};
use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::facts::{Fact, Facts};
use keyrink_openpgp::packet;
use keyrink_openpgp::policy::Limits;
use keyrink_openpgp::read::Keyring;
use keyrink_openpgp::verify::verify;
use keyrink_testkit::Certificate;
use keyrink_testkit::keyring::{Entry, entries};
use std::collections::BTreeSet;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(120);
/// Certificates that only one side has.
const ALONE: usize = 178;
/// Those on both sides of which one side has a newer self-signature, half of them there and half here.
const NEWER: usize = 100;
/// Those of which one side has more signatures by others.
const OTHERS: usize = 50;
/// Those that differ in what says nothing: the unhashed area, the order of packets, an invalid packet.
const NOISE: usize = 50;

fn held(node: &Reconciling, family: &Family) -> Digests {
    digests_of(&node.node.data(), family)
}

fn joined(bodies: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    bodies
        .iter()
        .for_each(|(tag, body)| packet::write(&mut out, *tag, body));
    out
}

fn read(octets: &[u8]) -> Cert {
    let mut cert = Keyring::read(octets, &Limits::default()).certs.remove(0).cert;
    verify(&mut cert, None);
    cert
}

/// The signatures of a certificate of which the verdict is so.
fn signatures(entry: &Entry, is: impl Fn(&Facts) -> bool) -> BTreeSet<Vec<u8>> {
    let cert = read(&entry.octets);
    let all = cert.components().iter().flat_map(|component| &component.signatures);
    all.filter(|signature| is(&signature.facts))
        .map(|signature| signature.body.to_vec())
        .collect()
}

fn own(entry: &Entry) -> BTreeSet<Vec<u8>> {
    signatures(entry, |facts| facts.has(Fact::Enumerable))
}

fn others(entry: &Entry) -> BTreeSet<Vec<u8>> {
    signatures(entry, |facts| facts.plausible())
}

/// A certificate without some packets.
fn without(entry: &Entry, gone: &BTreeSet<Vec<u8>>) -> Vec<u8> {
    let kept = entry
        .bodies
        .iter()
        .filter(|(tag, body)| *tag != 2 || !gone.contains(body));
    joined(&kept.cloned().collect::<Vec<_>>())
}

/// A certificate that says the same in other octets.
fn rephrased(entry: &Entry, nth: usize) -> Vec<u8> {
    let mut bodies = entry.bodies.clone();
    let own = own(entry);
    let at = bodies
        .iter()
        .position(|(tag, body)| *tag == 2 && own.contains(body))
        .unwrap();
    match nth % 3 {
        0 => {
            let body = &mut bodies[at].1;
            let hashed = usize::from(u16::from_be_bytes([body[4], body[5]]));
            let unhashed = usize::from(u16::from_be_bytes([body[6 + hashed], body[7 + hashed]]));
            let longer = (unhashed as u16 + 3).to_be_bytes();
            body[6 + hashed..8 + hashed].copy_from_slice(&longer);
            let end = 8 + hashed + unhashed;
            body.splice(end..end, [2, 100, 7]);
        }
        1 => {
            let end = (at..bodies.len())
                .find(|nth| bodies[*nth].0 != 2)
                .unwrap_or(bodies.len());
            bodies[at..end].reverse();
        }
        _ => {
            let (tag, mut body) = bodies[at].clone();
            *body.last_mut().unwrap() ^= 1;
            bodies.insert(at + 1, (tag, body));
        }
    }
    joined(&bodies)
}

/// What two nodes have: 1 000 of Debian's certificates each, of which 822 are on both sides, and not all of these are the
/// same.
fn sides() -> [Vec<u8>; 2] {
    let names = ["keyring", "maintainers", "nonupload", "role-keys"];
    let keyrings = names.iter().map(|name| std::fs::read(debian(name)).unwrap());
    let all: Vec<Entry> = keyrings.flat_map(|keyring| entries(&keyring)).collect();
    assert_eq!(all.len(), 1000 + ALONE);
    let [mut here, mut there] = [&all[..ALONE], &all[1000..]].map(|alone| {
        let octets = alone.iter().flat_map(|entry| entry.octets.clone());
        octets.collect::<Vec<u8>>()
    });
    let (mut newer, mut more, mut noise) = (0, 0, 0);
    for entry in &all[ALONE..1000] {
        let (own, others) = (own(entry), others(entry));
        let is_plain = entry.bodies.iter().all(|(tag, body)| *tag != 2 || body[0] == 4);
        let other = if own.len() >= 2 && newer < NEWER {
            newer += 1;
            without(entry, &own.iter().take(1).cloned().collect())
        } else if !others.is_empty() && more < OTHERS {
            more += 1;
            without(entry, &others)
        } else if is_plain && !own.is_empty() && noise < NOISE {
            noise += 1;
            rephrased(entry, noise)
        } else {
            entry.octets.clone()
        };
        let (one, two) = if (newer + more + noise) % 2 == 0 {
            (entry.octets.clone(), other)
        } else {
            (other, entry.octets.clone())
        };
        here.extend(one);
        there.extend(two);
    }
    assert_eq!((newer, more, noise), (NEWER, OTHERS, NOISE));
    [here, there]
}

/// Two nodes that know each other, with what they have, started.
fn pair(sides: &[Vec<u8>; 2], datasets: &str, settings: &[&str]) -> [Reconciling; 2] {
    let datasets = format!("KEYRINK_PEERS_DATASETS={datasets}");
    let nodes = ["127.0.0.1", "127.0.0.2"].map(|address| (Node::new(), address));
    let mut nodes = nodes.map(|(node, address)| {
        let node = Reconciling::new(node, address).setting(&datasets).gossip(1);
        settings.iter().fold(node, |node, setting| node.setting(setting))
    });
    for (node, side) in nodes.iter().zip(sides) {
        let file = node.node.file("first.pgp", side);
        node.node.load(&[&file]);
    }
    let addresses = [nodes[1].recon.clone(), nodes[0].recon.clone()];
    nodes = {
        let [one, two] = nodes;
        [one.partner(&addresses[0]), two.partner(&addresses[1])]
    };
    for node in &mut nodes {
        // What was loaded without these settings is derived for them.
        let mut rebuild = node.node.command("rebuild", &[]);
        rebuild.envs(node.settings().iter().map(|setting| setting.split_once('=').unwrap()));
        assert!(rebuild.output().unwrap().status.success());
        node.start_again();
    }
    nodes
}

/// Waits until both hold the same, and then until further sessions have found nothing.
fn settle(nodes: &[Reconciling; 2], family: &Family) {
    let equal = || match held(&nodes[0], family) == held(&nodes[1], family) {
        true => Ok(()),
        false => Err(nodes.each_ref().map(|node| node.log()).concat()),
    };
    wait(WITHIN, equal).unwrap();
    quiet(nodes, 3);
}

/// Waits for so many further sessions, and sees that nothing is fetched meanwhile.
fn quiet(nodes: &[Reconciling; 2], sessions: u64) {
    std::thread::sleep(Duration::from_secs(2));
    let requests = || nodes.each_ref().map(|node| node.number("requests"));
    let (before, start) = (requests(), nodes.each_ref().map(Reconciling::sessions));
    wait(WITHIN, || {
        let now = nodes.each_ref().map(Reconciling::sessions);
        let all = now.iter().zip(start).all(|(now, start)| *now >= start + sessions);
        if all { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .unwrap();
    assert_eq!(requests(), before);
}

fn fetched(nodes: &[Reconciling; 2]) -> [(u64, u64); 2] {
    nodes
        .each_ref()
        .map(|node| (node.number("fetched"), node.number("needless")))
}

#[test]
fn exactly_what_is_newer_is_fetched() {
    let sides = sides();
    let nodes = pair(&sides, "sks,openpgp/2", &["KEYRINK_PEERS_FIRST_GENERATION_HOURS=0"]);
    settle(&nodes, &SECOND);
    let second = fetched(&nodes);
    for node in &nodes {
        assert_eq!(node.report()["dataset"], "openpgp/2");
    }
    let expected = ALONE as u64 + NEWER as u64 / 2;
    assert_eq!(second, [(expected, 0); 2]);
    for mut node in nodes {
        node.server().terminate();
        node.node.check();
    }

    let nodes = pair(&sides, "sks", &[]);
    settle(&nodes, &SKS);
    let first = fetched(&nodes);
    println!("fetched and of no use: first generation {first:?}, second {second:?}");
    assert!(first.iter().all(|(fetched, _)| *fetched > expected + NEWER as u64 / 2));
}

/// A key that comes by one generation is found by the other, signatures by others and bare keys included.
#[test]
fn both_generations_go_over_one_store() {
    let (key, signer) = (
        || Certificate::v4(3, "a").user_id("A <a@example.org>"),
        Certificate::v4(3, "b").user_id("B"),
    );
    let certified = key().certified_by(signer.primary());
    let bare = Certificate::v4(3, "c").bare_user_id("C");
    let sides = [[certified.to_bytes(), bare.to_bytes()].concat(), key().to_bytes()];
    let nodes = pair(&sides, "sks,openpgp/2", &["KEYRINK_PEERS_FIRST_GENERATION_HOURS=24"]);
    settle(&nodes, &SKS);
    settle(&nodes, &SECOND);
    assert_eq!(held(&nodes[1], &SKS).len(), 2);
    assert_eq!(
        nodes[0].report()["dataset"],
        "openpgp/2",
        "the first generation is for once a day"
    );
    let newer = key().user_id("A <other@example.org>");
    assert_eq!(nodes[1].client().add(&newer.armored()).unwrap().status, 200);
    settle(&nodes, &SECOND);
    assert_eq!(held(&nodes[0], &SKS).len(), 2);
}
