//! Annotated hashes: the vectors of the second generation of reconciliation.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use keyrink_openpgp::armor;
use keyrink_openpgp::cert::{Attached, Cert, Component};
use keyrink_openpgp::crypto::digest::{md5, sha256};
use keyrink_openpgp::digest::{AnnotatedHash, sks_digest};
use keyrink_openpgp::facts::Fact;
use keyrink_openpgp::merge::merge;
use keyrink_openpgp::packet::signature::{Signature, kind};
use keyrink_openpgp::packet::{Frames, tag};
use keyrink_openpgp::policy::Limits;
use keyrink_openpgp::project::Projection;
use keyrink_openpgp::read::Keyring;
use keyrink_openpgp::serving::Serving;
use keyrink_openpgp::stored::write_projection;
use keyrink_openpgp::verify::verify;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;

fn vectors() -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/recon-v2/vectors.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn certificates(vectors: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["certificates", "rules"].map(|list| vectors[list].as_array().unwrap());
    lists.into_iter().flatten()
}

fn read(octets: &[u8]) -> Cert {
    let mut certs = Keyring::read(octets, &Limits::default()).certs;
    assert_eq!(certs.len(), 1);
    let mut cert = certs.remove(0).cert;
    verify(&mut cert, None);
    cert
}

fn octets(vector: &Value) -> Vec<u8> {
    let base64 = vector["certificate_base64"].as_str().unwrap();
    let armored = format!("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{base64}\n-----END PGP PUBLIC KEY BLOCK-----\n");
    armor::decode(armored.as_bytes()).unwrap()
}

fn cert(vector: &Value) -> Cert {
    read(&octets(vector))
}

fn digits(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn hexadecimal(hashes: &[AnnotatedHash]) -> BTreeSet<String> {
    hashes.iter().map(|hash| digits(hash)).collect()
}

fn expected(vector: &Value) -> BTreeSet<String> {
    let hashes = vector["annotated_hashes"].as_array().unwrap().iter();
    hashes.map(|hash| hash.as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_vector_has_its_annotated_hashes() {
    let (vectors, mut count) = (vectors(), 0);
    for vector in certificates(&vectors) {
        let (name, cert) = (&vector["name"], cert(vector));
        assert_eq!(
            cert.key().fingerprint().to_string().to_lowercase(),
            vector["fingerprint"],
            "{name}"
        );
        assert_eq!(hexadecimal(&cert.annotated_hashes()), expected(vector), "{name}");
        if let Some(whole) = vector.get("v1_digest") {
            let octets = octets(vector);
            let packets: Vec<_> = Frames::new(&octets).map(Result::unwrap).collect();
            let packets = packets.iter().map(|packet| (packet.tag, &*packet.body));
            assert_eq!(digits(&sks_digest(packets)), *whole, "{name}");
        }
        count += 1;
    }
    assert_eq!(count, 22);
}

#[test]
fn every_signature_is_judged_and_hashed_on_its_own() {
    let (vectors, mut counts) = (vectors(), [0; 2]);
    for vector in certificates(&vectors) {
        let (name, octets, cert) = (&vector["name"], octets(vector), cert(vector));
        let packets: Vec<_> = Frames::new(&octets).map(Result::unwrap).collect();
        let hashes = hexadecimal(&cert.annotated_hashes());
        for expected in vector["signatures"].as_array().unwrap() {
            let body = &*packets[expected["packet"].as_u64().unwrap() as usize].body;
            let mut attached = cert.components().iter().flat_map(|component| &component.signatures);
            let enumerable = attached.any(|attached| *attached.body == *body && attached.facts.has(Fact::Enumerable));
            assert_eq!(enumerable, expected["enumerable"], "{name} {expected}");
            counts[usize::from(enumerable)] += 1;
            if !enumerable {
                continue;
            }
            let signature = Signature::read(body).unwrap();
            let (head, none, tail) = signature.without_unhashed(body);
            let input = [head, none, tail].concat();
            assert_eq!(input.len() as u64, expected["digest_input_length"], "{name}");
            assert_eq!(digits(&sha256(&[&input])), expected["digest_input_sha256"], "{name}");
            let md5 = digits(&md5(&[&input]));
            assert_eq!(md5, expected["md5"], "{name}");
            let hash = expected["annotated_hash"].as_str().unwrap();
            assert!(hashes.contains(hash) && hash[1..32] == md5[1..], "{name} {hash}");
        }
    }
    assert_eq!(counts, [21, 51]);
}

/// Elements are the valid self-signatures, less one that names somebody else as its issuer too, and those about the primary
/// key that stand on something else besides.
#[test]
fn elements_are_valid_signatures_of_the_owner() {
    let (mut strays, mut valid, mut left_out) = (0, 0, 0);
    for cert in debian_certificates().chain(certificates(&vectors()).map(cert)) {
        for component in cert.components() {
            for Attached { facts, body, .. } in &component.signatures {
                let is_about_primary = matches!(facts.kind, kind::DIRECT_KEY | kind::KEY_REVOCATION);
                match (facts.has(Fact::Enumerable), facts.own_valid()) {
                    (true, false) => {
                        assert!(is_about_primary && component.tag != tag::PUBLIC_KEY);
                        strays += 1;
                    }
                    (true, true) => valid += 1,
                    (false, true) => {
                        let signature = Signature::read(body).unwrap();
                        let key = cert.key();
                        assert!(!signature.may_be_of(&key.key_id(), key.fingerprint().as_bytes()));
                        left_out += 1;
                    }
                    (false, false) => {}
                }
            }
        }
    }
    println!("{valid} elements in their places, {strays} strays");
    assert_eq!((valid, strays, left_out), (8133, 2, 1));
}

#[test]
fn what_is_stored_and_given_to_others_keeps_them() {
    let vectors = vectors();
    for vector in certificates(&vectors) {
        let (name, cert) = (&vector["name"], cert(vector));
        let stored = cert.encode(&Serving::default());
        assert_eq!(
            hexadecimal(&Cert::decode(&stored).unwrap().annotated_hashes()),
            expected(vector),
            "{name}"
        );
        let mut sent = Vec::new();
        write_projection(&stored, Projection::All, &mut sent).unwrap();
        let received = read(&sent);
        assert_eq!(received.annotated_hashes(), cert.annotated_hashes(), "{name}");
        assert_eq!(received.digest(Projection::Sks), cert.digest(Projection::Sks), "{name}");
    }
}

#[test]
fn a_merge_has_those_of_both() {
    let vectors = vectors();
    for vector in certificates(&vectors) {
        let cert = cert(vector);
        let without = |keeps: fn(usize) -> bool| {
            let mut components = cert.components().to_vec();
            for component in &mut components {
                let mut nth = 0;
                component.signatures.retain(|_| {
                    nth += 1;
                    keeps(nth)
                });
            }
            let mut part = Cert::new(components).unwrap();
            verify(&mut part, None);
            part
        };
        let (even, odd) = (without(|nth| nth % 2 == 0), without(|nth| nth % 2 == 1));
        assert_eq!(merge(even, odd).unwrap().annotated_hashes(), cert.annotated_hashes());
    }
}

fn debian_certificates() -> impl Iterator<Item = Cert> {
    let keyrings = ["keyring", "maintainers", "nonupload", "role-keys"]
        .map(|name| std::fs::read(format!("/usr/share/keyrings/debian-{name}.gpg")).unwrap());
    let certs = keyrings
        .into_iter()
        .flat_map(|keyring| Keyring::read(&keyring, &Limits::default()).certs);
    certs.map(|incoming| {
        let mut cert = incoming.cert;
        verify(&mut cert, None);
        cert
    })
}

/// So many another program counts, which shares no code with this one.
#[test]
fn debian_keyrings_have_so_many() {
    let (mut certificates, mut hashes, mut most) = (0, 0, 0);
    for cert in debian_certificates() {
        let found = cert.annotated_hashes().len();
        assert!(found > 0, "{}", cert.key().fingerprint());
        (certificates, hashes, most) = (certificates + 1, hashes + found, most.max(found));
    }
    println!("at most {most} of one certificate");
    assert_eq!((certificates, hashes), (1178, 8084));
}

/// What stands behind the last field of a key is covered by nothing, so anybody can put it there.
#[test]
fn keys_with_a_tail_have_none() {
    let vectors = vectors();
    let mut tried = [0; 2];
    for vector in certificates(&vectors) {
        let (name, cert) = (&vector["name"], cert(vector));
        let with_tail = |tag: u8| {
            let mut components = cert.components().to_vec();
            for component in components.iter_mut().filter(|component| component.tag == tag) {
                component.body = [&component.body[..], &[0]].concat().into();
            }
            let mut cert = Cert::new(components).unwrap();
            verify(&mut cert, None);
            let valid = |component: &Component| component.signatures.iter().any(|signature| signature.facts.binds());
            let about = cert.components().iter().filter(|component| component.tag == tag);
            let is_bound = about.filter(|component| valid(component)).count() > 0;
            (cert.annotated_hashes(), usize::from(is_bound))
        };
        let (hashes, is_bound) = with_tail(tag::PUBLIC_KEY);
        tried[0] += is_bound;
        assert!(hashes.is_empty(), "{name}");
        let (hashes, is_bound) = with_tail(tag::PUBLIC_SUBKEY);
        tried[1] += is_bound;
        let mut others = cert.annotated_hashes();
        others.retain(|hash| hash[0] >> 4 & 3 != 1);
        assert_eq!(hashes, others, "{name}");
    }
    assert!(tried.iter().all(|tried| *tried > 0), "{tried:?}");
}
