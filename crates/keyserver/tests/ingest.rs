//! The write path: what is refused, and how it is said.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use common::{On, on_store};
use keyrink::admin::progress::Progress;
use keyrink::admin::rebuild::rebuild;
use keyrink::config::Config;
use keyrink::formats::{OPENPGP, Policy, SKS};
use keyrink::ingest::{Ingest, IngestError, Outcome, Report};
use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::crypto::digest::{sha1, sha256};
use keyrink_openpgp::facts::Fact;
use keyrink_openpgp::policy::Limits;
use keyrink_openpgp::project::Projection;
use keyrink_openpgp::stored::write_projection;
use keyrink_testkit::{Algorithm, Certificate, EPOCH, Format, Kind, Reason, Signature, Tag, Target, packet};
use std::sync::Arc;

fn ingest(limits: Limits) -> On<Ingest> {
    on_store(|store| Ingest {
        store,
        limits,
        policy: Policy::default(),
        rules: Arc::default(),
    })
}

fn outcomes(report: &Report) -> Vec<Outcome> {
    report.certs.iter().map(|cert| cert.outcome).collect()
}

/// User ids that the owner signed, two packets each.
fn with_user_ids(count: u32) -> Certificate {
    (0..count).fold(Certificate::v4(1, "large"), |cert, n| {
        cert.user_id(format!("{n} {}", "x".repeat(200)))
    })
}

#[test]
fn what_is_too_large_is_not_called_known() {
    let ingest = ingest(Limits {
        packets: 2,
        ..Limits::default()
    });
    let submit = |count| outcomes(&ingest.submit(&with_user_ids(count).to_bytes()).unwrap());
    assert_eq!(submit(20), [Outcome::TooLarge]);
    assert_eq!(submit(2), [Outcome::Inserted]);
    assert_eq!(submit(20), [Outcome::TooLarge]);
    assert_eq!(submit(2), [Outcome::Unchanged]);
}

#[test]
fn armor_is_found_behind_text_of_any_language() {
    let armored = Certificate::v4(2, "text").user_id("Text").armored();
    for before in ["\u{FEFF}", "Über\n", "\u{FEFF}Grüße\n\n", "ключ:\r\n", ""] {
        let report = ingest(Limits::default()).submit(format!("{before}{armored}").as_bytes());
        assert_eq!(outcomes(&report.unwrap()), [Outcome::Inserted], "{before:?}");
    }
    let misleading = Certificate::v4(2, "text").user_id("a\n-----BEGIN PGP PUBLIC KEY BLOCK-----\n");
    let report = ingest(Limits::default()).submit(&misleading.to_bytes());
    assert_eq!(outcomes(&report.unwrap()), [Outcome::Inserted]);
}

#[test]
fn damaged_secret_keys_are_secret_keys() {
    let secret = Certificate::v4(3, "secret").user_id("Secret").to_secret_bytes();
    let public = Certificate::v4(3, "secret").user_id("Secret").to_bytes();
    let armored = keyrink_testkit::armor(&secret).replace("PUBLIC KEY", "PRIVATE KEY");
    let half = armored.len() / 2;
    let lost = [&armored[..half], "ä", &armored[half + 1..]].concat();
    let cut = [&public[..], &secret[..20]].concat();
    for sent in [&armored.as_bytes()[..half], lost.as_bytes(), &secret[..20], &cut] {
        let refused = ingest(Limits::default()).submit(sent);
        assert!(matches!(refused, Err(IngestError::SecretKey)), "{refused:?}");
    }
}

#[test]
fn planted_keys_do_not_hide_a_certificate_from_its_revocation() {
    let ingest = ingest(Limits::default());
    let victim = Certificate::v4(4, "victim").user_id("Victim");
    ingest.submit(&victim.to_bytes()).unwrap();
    for n in 0..30 {
        // Version 3: the key id is the end of the modulus.
        let modulus = [&[0x80 | n; 56][..], &victim.primary().key_id()].concat();
        let key = [&[3, 0, 0, 0, n, 0, 0, 1, 2, 0][..], &modulus, &[0, 2, 3]].concat();
        let planted = packet(Tag::PublicKey, Format::OpenPgp, &key);
        let user_id = packet(Tag::UserId, Format::OpenPgp, b"Planted");
        ingest.submit(&[planted, user_id].concat()).unwrap();
    }
    let report = ingest.submit(&victim.revocation(Reason::Retired)).unwrap();
    assert_eq!(outcomes(&report), [Outcome::Updated]);
    assert_eq!(
        report.certs[0].fingerprint.to_string().to_lowercase(),
        victim.fingerprint().to_lowercase()
    );
}

/// What users get of the only certificate.
fn served(ingest: &Ingest) -> Vec<u8> {
    let stored = ingest.store.snapshot().unwrap().records(OPENPGP, None, 1).unwrap();
    let mut out = Vec::new();
    write_projection(&stored[0].data, Projection::Served, &mut out).unwrap();
    out
}

#[test]
fn many_bogus_certifications_leave_room_for_what_the_owner_signs() {
    let ingest = ingest(Limits::default());
    let victim = || Certificate::v4(5, "poisoned").user_id("Poisoned <p@example.org>");
    let mallory = Certificate::v4(6, "mallory");
    for upload in 0..20u32 {
        let owner = victim();
        let user_id = Target::UserId(owner.primary(), b"Poisoned <p@example.org>");
        let bogus = (0..400u32).map(|n| {
            let signature = Signature::new(Kind::GenericCertification).created(EPOCH + upload * 400 + n);
            signature.packet(mallory.primary(), user_id)
        });
        let poisoned = [owner.to_bytes(), bogus.collect::<Vec<_>>().concat()].concat();
        ingest.submit(&poisoned).unwrap();
    }
    assert!(
        (60_000..100_000).contains(&served(&ingest).len()),
        "{}",
        served(&ingest).len()
    );
    let again = victim().sign_last(Signature::new(Kind::PositiveCertification).created(EPOCH + 99));
    let report = ingest.submit(&again.to_bytes()).unwrap();
    assert_eq!(
        (outcomes(&report), report.certs[0].dropped.len()),
        (vec![Outcome::Updated], 0)
    );
    let revocation = victim().revocation(Reason::Compromised);
    assert_eq!(outcomes(&ingest.submit(&revocation).unwrap()), [Outcome::Updated]);
    let served = served(&ingest);
    // Without its header, which is written anew.
    let revocation = &revocation[3..];
    assert!(served.windows(revocation.len()).any(|octets| octets == revocation));
    let name = b"Poisoned";
    assert!(
        !served.windows(name.len()).any(|octets| octets == name),
        "a revoked key has no user ids"
    );
}

/// A self-signature that nobody can verify is one that anybody can make: its clear octets say nothing.
#[test]
fn strangers_graft_nothing_onto_a_key_that_cannot_be_verified() {
    let ingest = ingest(Limits::default());
    // An ElGamal key that signs.
    let key = [&[4, 0x40, 0, 0, 0, 20][..], &[0, 9, 1, 7].repeat(3)].concat();
    let framed = [&[0x99, 0, key.len() as u8][..], &key].concat();
    let fingerprint = sha1(&[&framed]);
    let claims = |kind: u8, text: &[u8]| {
        let flags = [2, 27, 2];
        let hashed = [&[22, 33, 4][..], &fingerprint, &flags, &[5, 2, 0x40, 0, 0, 1]].concat();
        let head = [&[4, kind, 20, 8, 0, hashed.len() as u8][..], &hashed].concat();
        let end = [&[4, 0xFF, 0, 0, 0][..], &[head.len() as u8]].concat();
        let clear = sha256(&[&framed, text, &head, &end]);
        let body = [&head[..], &[0, 0], &clear[..2], &[0, 9, 1, 1, 0, 9, 1, 1]].concat();
        packet(Tag::Signature, Format::OpenPgp, &body)
    };
    let name = b"Grafted <grafted@example.org>";
    let named = [&[0xB4, 0, 0, 0, name.len() as u8][..], name].concat();
    let subkey = [&[4, 0x40, 0, 0, 0, 20][..], &[0, 9, 1, 9].repeat(3)].concat();
    let subkey_framed = [&[0x99, 0, subkey.len() as u8][..], &subkey].concat();
    let sent = [
        packet(Tag::PublicKey, Format::OpenPgp, &key),
        packet(Tag::UserId, Format::OpenPgp, name),
        claims(0x13, &named),
        packet(Tag::PublicSubkey, Format::OpenPgp, &subkey),
        claims(0x18, &subkey_framed),
    ];
    let report = ingest.submit(&sent.concat()).unwrap();
    assert_eq!(outcomes(&report), [Outcome::Invalid]);
    let stored = ingest.store.snapshot().unwrap().records(OPENPGP, None, 1).unwrap();
    let cert = Cert::decode(&stored[0].data).unwrap();
    let all = cert.components().iter().flat_map(|component| &component.signatures);
    let fitting = all.filter(|signature| signature.facts.has(Fact::DigestMatches));
    assert_eq!(fitting.count(), 2, "they look as they should");
    assert!(served(&ingest).is_empty());
    assert_eq!(cert.own_user_ids().count(), 0);
    assert!(cert.digest(Projection::Sks).is_some(), "peers hold it");
}

/// Whoever puts packets behind somebody else's signatures must not use up the room for what its owner will sign.
#[test]
fn trust_packets_leave_room_for_the_owner() {
    let ingest = ingest(Limits {
        packets: 20,
        ..Limits::default()
    });
    let notation = [&[0, 0, 0, 0, 0, 1, 0, 80, b'n'][..], &[b'v'; 80]].concat();
    let trust = [b"\0\0sks\0", &[notation.len() as u8 + 1, 20][..], &notation].concat();
    let mut octets = with_user_ids(1).to_bytes();
    octets.extend(packet(Tag::Trust, Format::Legacy, &trust).repeat(200));
    assert_eq!(outcomes(&ingest.submit(&octets).unwrap()), [Outcome::Inserted]);
    let more = with_user_ids(2).to_bytes();
    assert_eq!(outcomes(&ingest.submit(&more).unwrap()), [Outcome::Updated]);
}

#[test]
fn a_peer_sends_few_certificates_as_one() {
    let ingest = ingest(Limits::default());
    let many: Vec<Vec<u8>> = (0..40)
        .map(|n| Certificate::v4(4, &n.to_string()).user_id("x").to_bytes())
        .collect();
    let sent = [many.concat(), [0x98, 1, 7].repeat(99), [0x88, 0].repeat(99)];
    let receipt = ingest.receive(SKS.dataset, &sent).unwrap();
    assert_eq!(receipt.certificates, 16);
    assert_eq!(ingest.store.count(OPENPGP).unwrap(), 16);
}

/// What was derived by another policy is derived anew when the same certificate comes again.
#[test]
fn the_policy_counts_as_well_as_the_packets() {
    let first = ingest(Limits::default());
    let octets = Certificate::v4(5, "policy").user_id("Policy").to_bytes();
    first.submit(&octets).unwrap();
    let second = Ingest {
        store: Arc::clone(&first.store),
        limits: Limits::default(),
        policy: Policy::new(&Config::default()),
        rules: Arc::default(),
    };
    let count = |ingest: &Ingest| ingest.store.range(SKS.dataset, &[], &[0xFF; 16], 9).unwrap().0.len();
    assert_eq!(count(&first), 0, "this policy keeps no dataset");
    second.submit(&octets).unwrap();
    assert_eq!(count(&second), 1);
    assert_eq!(outcomes(&second.submit(&octets).unwrap()), [Outcome::Unchanged]);
}

/// The certificate of somebody who is certified, with what is behind its user id.
fn certified(signatures: &[Vec<u8>]) -> Vec<u8> {
    let owner = Certificate::v4(7, "crowded").user_id(CROWDED);
    [owner.to_bytes(), signatures.concat()].concat()
}

const CROWDED: &str = "Crowded <c@example.org>";

fn certification(by: &Certificate, created: u32) -> Vec<u8> {
    let owner = Certificate::v4(7, "crowded");
    let signature = Signature::new(Kind::GenericCertification).created(created);
    signature.packet(by.primary(), Target::UserId(owner.primary(), CROWDED.as_bytes()))
}

fn shows(ingest: &Ingest, packet: &[u8]) -> bool {
    let (body, mut out) = (&packet[3..], Vec::new());
    for stored in ingest.store.snapshot().unwrap().records(OPENPGP, None, 9).unwrap() {
        write_projection(&stored.data, Projection::Served, &mut out).unwrap();
    }
    out.windows(body.len()).any(|octets| octets == body)
}

#[test]
fn where_there_is_no_room_for_all_known_issuers_come_first_and_the_future_last() {
    let ingest = ingest(Limits::default());
    let (friend, later) = (
        Certificate::v4(8, "friend").user_id("F"),
        Certificate::v4(8, "later").user_id("L"),
    );
    let [by_friend, by_later] = [&friend, &later].map(|by| certification(by, EPOCH + 1));
    let future = certification(&friend, u32::MAX - 5);
    // In another store, so that there is no other certificate to look at.
    let stored = |ingest: &Ingest| {
        let bogus = (0..600).map(|n| certification(&Certificate::v4(n, "stranger"), EPOCH + 100));
        let some = [by_friend.clone(), by_later.clone(), future.clone()];
        ingest
            .submit(&certified(&bogus.chain(some).collect::<Vec<_>>()))
            .unwrap();
    };
    ingest.submit(&friend.to_bytes()).unwrap();
    stored(&ingest);
    assert!(shows(&ingest, &by_friend) && !shows(&ingest, &by_later) && !shows(&ingest, &future));

    ingest.submit(&later.to_bytes()).unwrap();
    assert!(!shows(&ingest, &by_later), "nobody has looked since");
    rebuild(&*ingest.store, ingest.policy, &Progress::for_terminal).unwrap();
    assert!(shows(&ingest, &by_friend) && shows(&ingest, &by_later) && !shows(&ingest, &future));
}

#[test]
fn who_is_known_changes_no_digest() {
    let friend = Certificate::v4(8, "friend").user_id("F");
    let signatures: Vec<_> = (0..600).map(|n| certification(&friend, EPOCH + n)).collect();
    let elements = |first: &[u8]| {
        let ingest = on_store(|store| Ingest::new(&Config::default(), store));
        ingest.submit(first).unwrap();
        ingest.submit(&certified(&signatures)).unwrap();
        ingest.submit(&friend.to_bytes()).unwrap();
        ingest.store.range(SKS.dataset, &[], &[0xFF; 16], 9).unwrap().0
    };
    let stranger = Certificate::v4(8, "stranger").user_id("S").to_bytes();
    let [known, unknown] = [elements(&friend.to_bytes()), elements(&stranger)];
    assert_eq!((known.len(), unknown.len()), (2, 3));
    assert!(known.iter().all(|element| unknown.contains(element)));
}

#[test]
fn a_subkey_that_signs_has_to_agree() {
    let ingest = ingest(Limits::default());
    let key = Certificate::v4(9, "signs").user_id("Signs");
    let subkey = |label: &str| {
        key.primary()
            .subkey(label, Algorithm::EdDsaLegacy)
            .public_packet(Tag::PublicSubkey)
    };
    let (claimed, agreed) = (subkey("claimed"), subkey("agreed"));
    let taken = key.primary().subkey("claimed", Algorithm::EdDsaLegacy);
    let cert = Certificate::v4(9, "signs")
        .user_id("Signs")
        .subkey_with(taken, Signature::new(Kind::SubkeyBinding).key_flags(0x02))
        .signing_subkey("agreed");
    ingest.submit(&cert.to_bytes()).unwrap();
    assert!(!shows(&ingest, &claimed) && shows(&ingest, &agreed));
}
