//! Laws that hold for every certificate: merging is a join of sets, trimming goes with it, and writing loses nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use keyrink_openpgp::cert::{Attached, Cert, Component};
use keyrink_openpgp::facts::{Fact, Facts};
use keyrink_openpgp::merge::merge;
use keyrink_openpgp::packet::tag;
use keyrink_openpgp::policy::Limits;
use keyrink_openpgp::project::Projection;
use keyrink_openpgp::read::Keyring;
use keyrink_openpgp::serving::Serving;
use proptest::prelude::*;

/// A version 4 key, unreadable beyond its fingerprint.
const KEY: [u8; 8] = [4, 0, 0, 0, 1, 99, 7, 7];

/// Copies of one certificate: few different packets, so that copies share many; duplicates; any verdict, but the
/// same for the same packet in the same place.
fn copy() -> impl Strategy<Value = Cert> {
    let signatures = || proptest::collection::vec(0u8..6, 0..5);
    let component = (0u8..3, 0u8..3, signatures());
    (signatures(), proptest::collection::vec(component, 0..5)).prop_map(|(direct, others)| {
        let mut components = vec![with_signatures(Component::new(tag::PUBLIC_KEY, &KEY), &direct)];
        for (kind, body, signatures) in others {
            let tag = [tag::USER_ID, tag::USER_ATTRIBUTE, tag::PUBLIC_SUBKEY][usize::from(kind)];
            components.push(with_signatures(Component::new(tag, &[4, body]), &signatures));
        }
        Cert::new(components).unwrap()
    })
}

fn with_signatures(mut component: Component, bodies: &[u8]) -> Component {
    for body in bodies {
        let mut signature = Attached::new(&vec![*body; 1 + usize::from(*body) * 3]);
        let place = u16::from(component.tag) + component.body.iter().map(|octet| u16::from(*octet)).sum::<u16>();
        let witnessed = 1 << 6;
        signature.facts = Facts::from_bits(u32::from(place * 31 + u16::from(*body) * 57) & 0x7FF & !witnessed);
        signature.facts.kind = [CERTIFICATION, REVOCATION][usize::from(body % 2)];
        component.signatures.push(signature);
    }
    component
}

const CERTIFICATION: u8 = 0x10;
const REVOCATION: u8 = 0x30;

fn join(a: &Cert, b: &Cert) -> Cert {
    merge(a.clone(), b.clone()).unwrap()
}

fn trimmed(limits: &Limits, cert: &Cert) -> Cert {
    let mut cert = cert.clone();
    limits.trim(&mut cert);
    cert
}

/// As if every packet had arrived once.
fn single(cert: &Cert) -> Cert {
    singles(cert, |_| true)
}

/// The same without components that nothing binds.
fn bound(cert: &Cert) -> Cert {
    singles(cert, |component| {
        component.tag == tag::PUBLIC_KEY || component.signatures.iter().any(|signature| signature.facts.own_valid())
    })
}

fn singles(cert: &Cert, stays: impl Fn(&Component) -> bool) -> Cert {
    let components = cert
        .components()
        .iter()
        .filter(|component| stays(component))
        .map(|component| {
            let mut single = Component::new(component.tag, &component.body);
            single.signatures.clone_from(&component.signatures);
            single.signatures.iter_mut().for_each(|signature| signature.copies = 1);
            single
        });
    Cert::new(components.collect()).unwrap()
}

fn packets(cert: &Cert) -> Vec<u8> {
    let mut out = Vec::new();
    cert.write_all(&mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn merging_is_commutative(a in copy(), b in copy()) {
        prop_assert_eq!(join(&a, &b), join(&b, &a));
    }

    #[test]
    fn merging_is_associative(a in copy(), b in copy(), c in copy()) {
        prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
    }

    #[test]
    fn merging_is_idempotent(a in copy(), b in copy()) {
        prop_assert_eq!(join(&a, &a), a.clone());
        let ab = join(&a, &b);
        prop_assert_eq!(join(&ab, &a), join(&ab, &ab));
    }

    #[test]
    fn it_does_not_matter_whether_copies_are_trimmed_before_they_are_merged(
        a in copy(), b in copy(), octets in 0u64..20,
    ) {
        // Room for as many small signatures; components that nothing binds have enough.
        let limits = Limits { packets: 50, certificate_octets: octets * 2048, packet_octets: 1, ..Limits::default() };
        let (a, b) = (bound(&a), bound(&b));
        let late = trimmed(&limits, &join(&a, &b));
        let early = trimmed(&limits, &join(&trimmed(&limits, &a), &trimmed(&limits, &b)));
        prop_assert!(late == early, "{:?}\n{:?}", late, early);
    }

    #[test]
    fn which_components_stay_does_not_depend_on_when_they_are_trimmed(a in copy(), b in copy(), packets in 0u64..4) {
        let limits = Limits { packets, ..Limits::default() };
        let (a, b) = (single(&a), single(&b));
        let late = trimmed(&limits, &join(&a, &b));
        let early = trimmed(&limits, &join(&trimmed(&limits, &a), &trimmed(&limits, &b)));
        let bodies = |cert: &Cert| cert.components().iter().map(|component| component.body.clone()).collect::<Vec<_>>();
        prop_assert_eq!(bodies(&late), bodies(&early));
    }

    #[test]
    fn trimming_keeps_what_the_owner_signed(a in copy(), packets in 1u64..20) {
        let limits = Limits { packets, ..Limits::default() };
        let own = |cert: &Cert| {
            let all = cert.components().iter().flat_map(|component| {
                let own = component.signatures.iter().filter(|signature| signature.facts.own_valid());
                own.map(|signature| (component.body.clone(), signature.body.clone()))
            });
            all.collect::<Vec<_>>()
        };
        prop_assert_eq!(own(&trimmed(&limits, &a)), own(&a));
    }

    #[test]
    fn writing_and_reading_gives_the_same_octets(a in copy()) {
        let written = packets(&a);
        let read = Keyring::read(&written, &Limits::default());
        prop_assert!(read.refused.is_empty());
        prop_assert_eq!(packets(&read.certs[0].cert), written);
    }

    #[test]
    fn the_stored_form_reads_back_and_is_canonical(a in copy()) {
        let stored = a.encode(&Serving::default());
        let back = Cert::decode(&stored).unwrap();
        prop_assert_eq!(back.encode(&Serving::default()), stored.clone());
        prop_assert_eq!(&back, &a);
        for projection in [Projection::Served, Projection::Sks, Projection::Hockeypuck] {
            let (mut direct, mut from_store) = (Vec::new(), Vec::new());
            a.write(projection, &mut direct);
            keyrink_openpgp::stored::write_projection(&stored, projection, &mut from_store).unwrap();
            let sorted = |octets: &[u8]| {
                let read = Keyring::read(octets, &Limits::default());
                read.certs.first().map(|incoming| packets(&incoming.cert))
            };
            prop_assert_eq!(sorted(&direct), sorted(&from_store));
        }
    }

    #[test]
    fn damaged_records_are_told(a in copy(), at in any::<prop::sample::Index>(), octet in any::<u8>()) {
        let mut stored = a.encode(&Serving::default());
        let at = at.index(stored.len());
        stored[at] = octet;
        let _ = Cert::decode(&stored);
        stored.truncate(at);
        let _ = Cert::decode(&stored);
    }

    #[test]
    fn any_octets_are_read(octets in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Keyring::read(&octets, &Limits::default());
    }
}

/// A plausible signature by somebody else.
fn by_other(kind: u8, issuer: u16) -> Attached {
    let mut signature = Attached::new(&[&[4, kind][..], &issuer.to_be_bytes()].concat());
    signature.facts = Facts::from_bits(Fact::Fitting as u32 | Fact::DigestMatches as u32);
    signature.facts.kind = kind;
    signature
}

/// Whoever adds signatures to a certificate cannot have a revocation go and what it revokes stay.
#[test]
fn no_certification_is_kept_without_what_revokes_it() {
    // Room for two thousand signatures.
    let limits = Limits {
        certificate_octets: 2000 * 2048,
        ..Limits::default()
    };
    let kept = |bogus: &[Attached]| {
        let mut user_id = Component::new(tag::USER_ID, b"a");
        let pairs = (0..1000).flat_map(|issuer| [CERTIFICATION, REVOCATION].map(|kind| by_other(kind, issuer)));
        user_id.signatures = pairs.chain(bogus.iter().cloned()).collect();
        let cert = Cert::new(vec![Component::new(tag::PUBLIC_KEY, &KEY), user_id]).unwrap();
        let kept = trimmed(&limits, &cert);
        let of = |kind| {
            let signatures = kept.components()[1].signatures.iter();
            let of_kind = signatures.filter(move |signature| signature.facts.kind == kind);
            of_kind
                .map(|signature| signature.body[2..].to_vec())
                .collect::<Vec<_>>()
        };
        (of(CERTIFICATION), of(REVOCATION))
    };
    let bogus = |kind| (1000..11_000).map(|issuer| by_other(kind, issuer)).collect::<Vec<_>>();
    let (certifications, revocations) = kept(&bogus(CERTIFICATION));
    assert_eq!((certifications.len(), revocations.len()), (1000, 1000));
    let (certifications, revocations) = kept(&bogus(REVOCATION));
    assert_eq!((certifications.len(), revocations.len()), (0, 2000));
}

#[test]
fn a_number_of_copies_that_cannot_be_is_damage() {
    let of = |copies| {
        let mut component = Component::new(tag::USER_ID, b"a");
        component.copies = copies;
        let cert = Cert::new(vec![Component::new(tag::PUBLIC_KEY, &KEY), component]).unwrap();
        Cert::decode(&cert.encode(&Serving::default()))
    };
    assert!(of(1 << 20).is_ok());
    assert!(of(u32::MAX).is_err());
}
