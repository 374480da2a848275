//! What two nodes have that know much of the same: 1 000 of Debian's certificates each, in a hundred of which one side
//! has something newer, and in a hundred something that is not.

use super::common::debian;
use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::facts::{Fact, Facts};
use keyrink_openpgp::packet;
use keyrink_openpgp::policy::Limits;
use keyrink_openpgp::read::Keyring;
use keyrink_openpgp::verify::verify;
use keyrink_testkit::keyring::{Entry, entries};
use std::collections::BTreeSet;

/// Certificates that only one side has.
pub const ALONE: usize = 178;
/// Those on both sides of which one side has a newer self-signature, half of them there and half here.
pub const NEWER: usize = 100;
/// Those of which one side has more signatures by others.
const OTHERS: usize = 50;
/// Those that differ in what says nothing: the unhashed area, the order of packets, an invalid packet.
const NOISE: usize = 50;

/// What each of two nodes has.
pub fn sides() -> [Vec<u8>; 2] {
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
            without(entry, &BTreeSet::from([newest(&own)]))
        } else if !others.is_empty() && more < OTHERS {
            more += 1;
            without(entry, &others)
        } else if is_plain && !own.is_empty() && noise < NOISE {
            let other = rephrased(entry, noise);
            noise += usize::from(other.is_some());
            other.unwrap_or_else(|| entry.octets.clone())
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

/// The signatures of a certificate of which the verdict is so, by the time of their creation.
fn signatures(entry: &Entry, is: impl Fn(&Facts) -> bool) -> BTreeSet<(u32, Vec<u8>)> {
    let cert = read(&entry.octets);
    let all = cert.components().iter().flat_map(|component| &component.signatures);
    all.filter(|signature| is(&signature.facts))
        .map(|signature| (signature.facts.created, signature.body.to_vec()))
        .collect()
}

fn own(entry: &Entry) -> BTreeSet<(u32, Vec<u8>)> {
    signatures(entry, |facts| facts.has(Fact::Enumerable))
}

fn newest(signatures: &BTreeSet<(u32, Vec<u8>)>) -> Vec<u8> {
    signatures.last().unwrap().1.clone()
}

fn others(entry: &Entry) -> BTreeSet<Vec<u8>> {
    let others = signatures(entry, |facts| facts.plausible());
    others.into_iter().map(|(_, body)| body).collect()
}

/// A certificate without some packets.
fn without(entry: &Entry, gone: &BTreeSet<Vec<u8>>) -> Vec<u8> {
    let kept = entry
        .bodies
        .iter()
        .filter(|(tag, body)| *tag != 2 || !gone.contains(body));
    joined(&kept.cloned().collect::<Vec<_>>())
}

/// A certificate that says the same in other octets; none if it has nothing that could change its place.
fn rephrased(entry: &Entry, nth: usize) -> Option<Vec<u8>> {
    let mut bodies = entry.bodies.clone();
    let own = own(entry);
    let is_own = |(tag, body): &(u8, Vec<u8>)| *tag == 2 && own.iter().any(|(_, own)| own == body);
    let at = bodies.iter().position(is_own).unwrap();
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
        1 => turn(&mut bodies)?,
        _ => {
            let (tag, mut body) = bodies[at].clone();
            *body.last_mut().unwrap() ^= 1;
            bodies.insert(at + 1, (tag, body));
        }
    }
    let other = joined(&bodies);
    assert_ne!(other, joined(&entry.bodies));
    Some(other)
}

/// Puts the last user id first, with its signatures the other way round.
fn turn(bodies: &mut Vec<(u8, Vec<u8>)>) -> Option<()> {
    let user_ids = || (0..bodies.len()).filter(|nth| bodies[*nth].0 == 13);
    let (first, last) = (user_ids().next()?, user_ids().next_back()?);
    let after = bodies[last + 1..].iter().take_while(|(tag, _)| *tag == 2).count();
    let mut moved: Vec<_> = bodies.drain(last..=last + after).collect();
    moved[1..].reverse();
    let is_same = first == last && after < 2;
    bodies.splice(first..first, moved);
    (!is_same).then_some(())
}
