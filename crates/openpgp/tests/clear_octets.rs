//! The two octets of the digest that stand in clear in a signature: what it costs when they are wrong, and what counts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use keyrink_openpgp::cert::{Attached, Cert};
use keyrink_openpgp::facts::Fact;
use keyrink_openpgp::packet::tag;
use keyrink_openpgp::policy::Limits;
use keyrink_openpgp::read::Keyring;
use keyrink_openpgp::verify::verify;
use keyrink_testkit::Certificate;

/// Less than any public-key operation costs, and more than hashing what these certificates hold.
const HASHING: u64 = 10_000;

fn read(certificate: &Certificate) -> Cert {
    Keyring::read(&certificate.to_bytes(), &Limits::default())
        .certs
        .remove(0)
        .cert
}

/// What verifying costs, and the facts about the signatures on the user id.
fn verified(mut cert: Cert) -> (u64, Vec<Attached>) {
    let cost = verify(&mut cert, None);
    let user_id = cert.components().iter().find(|component| component.tag == tag::USER_ID);
    (cost, user_id.unwrap().signatures.clone())
}

/// The certificate with the clear octets of every signature on its user id spoiled that `which` picks.
fn spoiled(cert: &Cert, which: impl Fn(&Attached) -> bool) -> Cert {
    let mut components = cert.components().to_vec();
    for component in components.iter_mut().filter(|component| component.tag == tag::USER_ID) {
        for signature in component.signatures.iter_mut().filter(|signature| which(signature)) {
            let at = clear_octets(&signature.body);
            signature.body[at] ^= 0xFF;
        }
        component.signatures.sort_by(|one, other| one.body.cmp(&other.body));
    }
    Cert::new(components).unwrap()
}

/// Where they stand: after the hashed and the unhashed subpackets (RFC 9580, section 5.2.3).
fn clear_octets(body: &[u8]) -> usize {
    let width = if body[0] == 6 { 4 } else { 2 };
    let length = |at: usize| {
        body[at..at + width]
            .iter()
            .fold(0, |sum, octet| sum << 8 | usize::from(*octet))
    };
    let unhashed = 4 + width + length(4);
    unhashed + width + length(unhashed)
}

#[test]
fn a_version_4_self_signature_is_verified_whatever_they_are() {
    let cert = read(&Certificate::v4(1, "alice").user_id("Alice"));
    let (right, signatures) = verified(cert.clone());
    assert!(signatures[0].facts.own_valid() && signatures[0].facts.has(Fact::DigestMatches));
    let (wrong, signatures) = verified(spoiled(&cert, |_| true));
    assert!(signatures[0].facts.own_valid() && !signatures[0].facts.has(Fact::DigestMatches));
    assert_eq!(right, wrong);
}

#[test]
fn a_version_6_self_signature_is_not_looked_at_further() {
    let cert = read(&Certificate::v6(1, "alice").user_id("Alice"));
    let (right, signatures) = verified(cert.clone());
    assert!(signatures[0].facts.own_valid());
    let (wrong, signatures) = verified(spoiled(&cert, |_| true));
    assert!(!signatures[0].facts.own_valid());
    assert!(wrong + HASHING < right, "{wrong} is hardly less than {right}");
}

#[test]
fn signatures_by_others_cost_no_public_key_work_and_count_only_if_they_are_right() {
    let bob = Certificate::v4(2, "bob").user_id("Bob");
    let alone = read(&Certificate::v4(1, "alice").user_id("Alice"));
    let cert = read(&Certificate::v4(1, "alice").user_id("Alice").certified_by(bob.primary()));
    let (own, signatures) = verified(alone);
    let body = &signatures[0].body;
    let others = |cert: Cert| {
        let (cost, signatures) = verified(cert);
        assert!(cost < own + HASHING, "{cost} is more than {own}");
        let other = signatures.into_iter().find(|signature| signature.body != *body);
        other.unwrap().facts
    };
    assert!(others(cert.clone()).plausible());
    let facts = others(spoiled(&cert, |signature| signature.body != *body));
    assert!(!facts.plausible() && !facts.has(Fact::DigestMatches));
}
