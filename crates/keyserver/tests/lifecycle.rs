//! What the operator decides about certificates: what is stored, shown and reconciled afterwards. In memory, or on the engine that
//! KEYRINK_TEST_ENGINE names.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use common::{On, on_store};
use keyrink::admin::check::check;
use keyrink::admin::progress::Progress;
use keyrink::config::Config;
use keyrink::formats::{self, OPENPGP, SKS};
use keyrink::http::time::Instant;
use keyrink::ingest::{Ingest, Outcome};
use keyrink::lifecycle::{Action, Change, ChangeError, DECISIONS, Hits, RuleSet, Rules, finish_pending};
use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::packet::Frames;
use keyrink_openpgp::project::Projection;
use keyrink_openpgp::stored::write_projection;
use keyrink_openpgp::terms::Term;
use keyrink_openpgp::veto::Veto;
use keyrink_store::{Batch, Decision, RecordId, Stored};
use keyrink_testkit::{Algorithm, Certificate, Key, Kind, Reason, Signature, hex};
use std::collections::BTreeSet;
use std::sync::Arc;

fn node() -> On<Ingest> {
    on_store(|store| Ingest::new(&Config::default(), store))
}

/// Another server on the same store.
fn beside(ingest: &Ingest) -> Ingest {
    Ingest {
        rules: Arc::default(),
        ..ingest.clone()
    }
}

fn outcome(ingest: &Ingest, octets: &[u8]) -> Outcome {
    ingest.submit(octets).unwrap().certs[0].outcome
}

fn change(action: Option<Action>, what: &[&str]) -> Change {
    Change {
        action,
        selectors: what.iter().map(|text| text.parse().unwrap()).collect(),
        once: false,
        reason: "because".into(),
        by: "a test".into(),
        time: Instant(1_780_662_896),
        order: None,
    }
}

fn decide(ingest: &Ingest, change: &Change) -> Result<u64, ChangeError> {
    change.make(&*ingest.store, &ingest.rules, ingest.policy)
}

fn put(ingest: &Ingest, action: Action, what: &[&str]) -> u64 {
    decide(ingest, &change(Some(action), what)).unwrap()
}

fn take_back(ingest: &Ingest, what: &str) -> u64 {
    decide(ingest, &change(None, &[what])).unwrap()
}

fn alice() -> Certificate {
    Certificate::v4(1, "alice")
        .user_id("Alice <alice@example.org>")
        .user_id("Alice <alice@work.example>")
        .encryption_subkey("alice/encrypt")
}

/// Types and bodies of packets: headers may be written in two ways.
type Packets = Vec<(u8, Vec<u8>)>;

fn packets(octets: &[u8]) -> Packets {
    let frames = Frames::new(octets).map(|frame| frame.unwrap());
    frames.map(|frame| (frame.tag, frame.body.to_vec())).collect()
}

/// What users get by a search.
fn served(ingest: &Ingest, term: &Term) -> Packets {
    let found = ingest.store.find(OPENPGP, &formats::beginning(term), None, 9).unwrap();
    let mut octets = Vec::new();
    for stored in found {
        write_projection(&stored.data, Projection::Served, &mut octets).unwrap();
    }
    packets(&octets)
}

fn by_fingerprint(ingest: &Ingest, cert: &Certificate) -> Packets {
    served(ingest, &Term::Fingerprint(cert.primary().fingerprint()))
}

fn by_email(ingest: &Ingest, email: &str) -> Packets {
    served(ingest, &Term::Email(email.into()))
}

fn elements(ingest: &Ingest) -> usize {
    ingest.store.range(SKS.dataset, &[], &[0xFF; 16], 99).unwrap().0.len()
}

fn is_sound(ingest: &Ingest) {
    let report = check(&*ingest.store, ingest.policy, &Progress::silent).unwrap();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_blocked_certificate_is_kept_and_nobody_gets_it() {
    let (ingest, cert) = (node(), alice());
    assert_eq!(outcome(&ingest, &cert.to_bytes()), Outcome::Inserted);
    assert_eq!(
        outcome(&ingest, &Certificate::v4(2, "bob").user_id("Bob").to_bytes()),
        Outcome::Inserted
    );
    let before = by_fingerprint(&ingest, &cert);
    assert_eq!(put(&ingest, Action::Block, &[&cert.fingerprint()]), 1);
    assert_eq!(by_fingerprint(&ingest, &cert), []);
    assert_eq!(by_email(&ingest, "alice@example.org"), []);
    assert_eq!((elements(&ingest), ingest.store.count(OPENPGP).unwrap()), (1, 2));
    let more = alice().user_id("Alice <new@example.org>");
    assert_eq!(outcome(&ingest, &more.to_bytes()), Outcome::Forbidden);
    is_sound(&ingest);
    assert_eq!(take_back(&ingest, &cert.fingerprint()), 1);
    assert_eq!(by_fingerprint(&ingest, &cert), before);
    assert_eq!(by_email(&ingest, "alice@example.org"), before);
    assert_eq!(elements(&ingest), 2);
    is_sound(&ingest);
    assert!(matches!(
        decide(&ingest, &change(None, &[&cert.fingerprint()])),
        Err(ChangeError::NoRule(_))
    ));
}

#[test]
fn a_blocked_key_tells_of_its_revocation() {
    let revoked = |reason| alice().revoke(reason);
    for bare in [false, true] {
        let (ingest, cert) = (node(), alice());
        outcome(&ingest, &cert.to_bytes());
        put(&ingest, Action::Block, &[&cert.fingerprint()]);
        let retired = revoked(Reason::Retired).to_bytes();
        assert_eq!(outcome(&ingest, &retired), Outcome::Forbidden);
        let octets = match bare {
            true => cert.revocation(Reason::Compromised),
            false => revoked(Reason::Compromised)
                .user_id("Alice <new@example.org>")
                .to_bytes(),
        };
        assert_eq!(outcome(&ingest, &octets), Outcome::Updated);
        assert_eq!(outcome(&ingest, &octets), Outcome::Unchanged);
        let alone = Certificate::v4(1, "alice").revoke(Reason::Compromised).to_bytes();
        assert_eq!(by_fingerprint(&ingest, &cert), packets(&alone));
        assert_eq!((by_email(&ingest, "alice@example.org"), elements(&ingest)), (vec![], 0));
        is_sound(&ingest);
        take_back(&ingest, &cert.fingerprint());
        assert_eq!(elements(&ingest), 1);
        is_sound(&ingest);
    }
    // Also if it was never seen before.
    let ingest = node();
    put(&ingest, Action::Block, &[&alice().fingerprint()]);
    assert_eq!(outcome(&ingest, &alice().to_bytes()), Outcome::Forbidden);
    assert_eq!(ingest.store.count(OPENPGP).unwrap(), 0);
    assert_eq!(
        outcome(&ingest, &revoked(Reason::Compromised).to_bytes()),
        Outcome::Inserted
    );
    assert!(!by_fingerprint(&ingest, &alice()).is_empty() && elements(&ingest) == 0);
    is_sound(&ingest);
}

#[test]
fn of_what_is_erased_the_fingerprint_is_kept() {
    let (ingest, cert) = (node(), alice());
    outcome(&ingest, &cert.to_bytes());
    assert_eq!(put(&ingest, Action::Erase, &[&cert.fingerprint()]), 1);
    assert_eq!((ingest.store.count(OPENPGP).unwrap(), elements(&ingest)), (0, 0));
    assert_eq!(outcome(&ingest, &cert.to_bytes()), Outcome::Forbidden);
    assert_eq!(
        outcome(&ingest, &alice().revoke(Reason::Compromised).to_bytes()),
        Outcome::Forbidden
    );
    let snapshot = ingest.store.snapshot().unwrap();
    let kept = snapshot.records(DECISIONS, None, 99).unwrap();
    let kept: Vec<String> = kept
        .iter()
        .map(|stored| String::from_utf8_lossy(&stored.data).into())
        .collect();
    assert!(kept.iter().all(|line| line.contains(&cert.fingerprint())), "{kept:?}");
    assert!(!kept.concat().contains("lice@"), "{kept:?}");
    assert_eq!(snapshot.terms(OPENPGP, None, 99).unwrap(), []);
    is_sound(&ingest);
    take_back(&ingest, &cert.fingerprint());
    assert_eq!(outcome(&ingest, &cert.to_bytes()), Outcome::Inserted);
}

#[test]
fn an_address_or_domain_binds_what_comes_later() {
    for (what, action) in [
        ("alice@example.org", Action::Block),
        ("@example.org", Action::Erase),
        ("@.org", Action::Block),
    ] {
        let ingest = node();
        outcome(&ingest, &alice().to_bytes());
        let plain = Certificate::v4(1, "alice").user_id("Alice").to_bytes();
        assert_eq!(put(&ingest, action, &[what]), 1, "{what}");
        assert_eq!(elements(&ingest), 0);
        let later = Certificate::v4(3, "alice later").user_id("ALICE <Alice@Example.ORG>");
        assert_eq!(outcome(&ingest, &later.to_bytes()), Outcome::Forbidden, "{what}");
        // Neither does the copy without the address come in.
        assert_eq!(outcome(&ingest, &plain), Outcome::Forbidden, "{what}");
        let other = Certificate::v4(4, "carol").user_id("Carol <carol@example.com>");
        assert_eq!(outcome(&ingest, &other.to_bytes()), Outcome::Inserted);
        // Somebody else's user id on a certificate is no reason.
        let grafted = other.bare_user_id("Alice <alice@example.org>");
        assert_ne!(outcome(&ingest, &grafted.to_bytes()), Outcome::Forbidden);
        is_sound(&ingest);
        take_back(&ingest, what);
        assert_eq!(
            RuleSet::read(&*ingest.store.snapshot().unwrap())
                .unwrap()
                .iter()
                .count(),
            0
        );
        assert_ne!(outcome(&ingest, &later.to_bytes()), Outcome::Forbidden);
        is_sound(&ingest);
    }
}

#[test]
fn a_blocked_address_that_is_added_blocks_the_whole() {
    let ingest = node();
    let plain = || Certificate::v4(5, "dave").user_id("Dave <dave@example.com>");
    outcome(&ingest, &plain().to_bytes());
    put(&ingest, Action::Block, &["@spam.example"]);
    let more = plain().user_id("Dave <dave@spam.example>");
    assert_eq!(outcome(&ingest, &more.to_bytes()), Outcome::Forbidden);
    assert_eq!((by_fingerprint(&ingest, &plain()), elements(&ingest)), (vec![], 0));
    is_sound(&ingest);
    take_back(&ingest, "@spam.example");
    assert_eq!(by_fingerprint(&ingest, &plain()), packets(&more.to_bytes()));
    is_sound(&ingest);
}

#[test]
fn once_keeps_no_address() {
    let ingest = node();
    outcome(&ingest, &alice().to_bytes());
    let once = Change {
        once: true,
        ..change(Some(Action::Erase), &["alice@example.org"])
    };
    assert_eq!(decide(&ingest, &once).unwrap(), 1);
    let snapshot = ingest.store.snapshot().unwrap();
    let kept = snapshot.records(DECISIONS, None, 99).unwrap();
    assert!(
        !kept
            .iter()
            .any(|stored| String::from_utf8_lossy(&stored.data).contains('@'))
    );
    assert_eq!(outcome(&ingest, &alice().to_bytes()), Outcome::Forbidden);
    let later = Certificate::v4(3, "alice later").user_id("Alice <alice@example.org>");
    assert_eq!(outcome(&ingest, &later.to_bytes()), Outcome::Inserted);
}

#[test]
fn hiding_keeps_an_address_or_names_a_certificate() {
    let ingest = node();
    outcome(&ingest, &alice().to_bytes());
    let once = Change {
        once: true,
        ..change(Some(Action::HideUid), &["alice@example.org"])
    };
    assert!(matches!(decide(&ingest, &once), Err(ChangeError::OnceHides)));
    assert_eq!(by_email(&ingest, "alice@work.example"), packets(&alice().to_bytes()));
}

#[test]
fn the_strongest_of_several_decisions_holds_and_each_is_taken_back_alone() {
    let (ingest, cert) = (node(), alice());
    let fingerprint = cert.fingerprint();
    outcome(&ingest, &cert.to_bytes());
    put(&ingest, Action::Block, &[&fingerprint]);
    put(&ingest, Action::HideUid, &[&fingerprint]);
    assert_eq!((elements(&ingest), by_fingerprint(&ingest, &cert)), (0, vec![]));
    // Of these decisions each is about the certificate too.
    for (action, what) in [(Action::Erase, "@example.org"), (Action::Erase, "@work.example")] {
        put(&ingest, action, &[what]);
    }
    take_back(&ingest, "@example.org");
    assert_eq!(outcome(&ingest, &cert.to_bytes()), Outcome::Forbidden);
    take_back(&ingest, "@work.example");
    assert_eq!(outcome(&ingest, &cert.to_bytes()), Outcome::Forbidden, "it is blocked");
    assert_eq!(take_back(&ingest, &fingerprint), 2, "blocked and hidden");
    assert_eq!(outcome(&ingest, &cert.to_bytes()), Outcome::Inserted);
    is_sound(&ingest);
}

/// Who wants one certificate back does not allow a domain.
#[test]
fn a_domain_is_taken_back_by_its_name_only() {
    let (ingest, cert) = (node(), alice());
    outcome(&ingest, &cert.to_bytes());
    put(&ingest, Action::Erase, &["@example.org"]);
    assert_eq!(take_back(&ingest, &cert.fingerprint()), 1);
    assert_eq!(outcome(&ingest, &cert.to_bytes()), Outcome::Forbidden);
    let plain = Certificate::v4(1, "alice").user_id("Alice");
    assert_eq!(outcome(&ingest, &plain.to_bytes()), Outcome::Inserted);
}

/// Nobody is shown these user ids, and rules judge by them.
#[test]
fn what_rules_judge_by_is_found() {
    let local = Signature::new(Kind::PositiveCertification).hashed(4, &[0]);
    let long = format!("{}@long.example", "a".repeat(3000));
    for (what, cert) in [
        (
            "local@spam.example",
            Certificate::v4(1, "local").user_id_with("local@spam.example", local),
        ),
        ("@long.example", Certificate::v4(1, "long").user_id(long)),
    ] {
        let ingest = node();
        outcome(&ingest, &cert.to_bytes());
        assert_eq!(put(&ingest, Action::Erase, &[what]), 1, "{what}");
        assert_eq!(ingest.store.count(OPENPGP).unwrap(), 0);
        is_sound(&ingest);
    }
}

#[test]
fn hidden_user_ids_are_neither_shown_nor_found_and_peers_keep_them() {
    let (ingest, cert) = (node(), alice());
    outcome(&ingest, &cert.to_bytes());
    let digests = || ingest.store.range(SKS.dataset, &[], &[0xFF; 16], 99).unwrap().0;
    let before = digests();
    assert_eq!(put(&ingest, Action::HideUid, &["alice@example.org"]), 1);
    let left = Certificate::v4(1, "alice")
        .user_id("Alice <alice@work.example>")
        .encryption_subkey("alice/encrypt");
    assert_eq!(by_fingerprint(&ingest, &cert), packets(&left.to_bytes()));
    assert_eq!(by_email(&ingest, "alice@example.org"), []);
    assert_eq!(by_email(&ingest, "alice@work.example"), packets(&left.to_bytes()));
    assert_eq!(digests(), before);
    assert_eq!(outcome(&ingest, &cert.to_bytes()), Outcome::Unchanged);
    is_sound(&ingest);
    put(&ingest, Action::HideUid, &[&cert.fingerprint()]);
    let bare = Certificate::v4(1, "alice").encryption_subkey("alice/encrypt");
    assert_eq!(by_fingerprint(&ingest, &cert), packets(&bare.to_bytes()));
    take_back(&ingest, &cert.fingerprint());
    take_back(&ingest, "alice@example.org");
    assert_eq!(by_email(&ingest, "alice@example.org"), packets(&cert.to_bytes()));
    is_sound(&ingest);
}

#[test]
fn a_server_that_has_not_heard_cannot_write_it_back() {
    let (ingest, cert) = (node(), alice());
    let other = beside(&ingest);
    outcome(&other, &cert.to_bytes());
    put(&ingest, Action::Erase, &[&cert.fingerprint()]);
    assert_eq!(outcome(&other, &cert.to_bytes()), Outcome::Forbidden);
    assert_eq!(ingest.store.count(OPENPGP).unwrap(), 0);
    take_back(&ingest, &cert.fingerprint());
    assert_eq!(outcome(&other, &cert.to_bytes()), Outcome::Inserted);
}

/// As if the program that made the rule had ended before what is stored followed it.
#[test]
fn what_was_begun_is_finished_by_a_server() {
    let (ingest, cert) = (node(), alice());
    outcome(&ingest, &cert.to_bytes());
    put(&ingest, Action::Block, &[&cert.fingerprint()]);
    let id = RecordId::new(&cert.primary().fingerprint()).unwrap();
    let policy = ingest.policy;
    let unblocked = move |_, old: Option<&Stored>| {
        let cert = Cert::decode(&old.unwrap().data).unwrap();
        Decision::Put(policy.record(&cert, &Veto::Nothing))
    };
    let pending = format!("{{\"{}\":1}}", cert.fingerprint()).into_bytes();
    let batch = Batch {
        realm: OPENPGP,
        ids: vec![id],
        decide: Box::new(unblocked),
        notes: vec![("rules pending".into(), Some(pending))],
        premise: None,
    };
    ingest.store.update(batch).unwrap();
    assert_eq!(elements(&ingest), 1);
    let report = check(&*ingest.store, ingest.policy, &Progress::silent).unwrap();
    assert_eq!((report.is_clean(), report.unfollowed), (true, 1), "{report}");
    finish_pending(&*ingest.store, &Rules::default(), policy).unwrap();
    assert_eq!((elements(&ingest), by_fingerprint(&ingest, &cert)), (0, vec![]));
    assert_eq!(ingest.store.note("rules pending").unwrap(), Some(b"{}".to_vec()));
    is_sound(&ingest);
}

#[test]
fn concurrent_submissions_do_not_outlive_a_rule() {
    let ingest = node();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let server = beside(&ingest);
            scope.spawn(move || (0..200).for_each(|_| drop(server.submit(&alice().to_bytes()))));
        }
        for _ in 0..10 {
            put(&ingest, Action::Erase, &[&alice().fingerprint()]);
            for _ in 0..20 {
                assert_eq!(ingest.store.count(OPENPGP).unwrap(), 0);
                std::thread::yield_now();
            }
            take_back(&ingest, &alice().fingerprint());
        }
    });
    is_sound(&ingest);
}

#[test]
fn peers_are_told_apart_from_what_nobody_wants() {
    let ingest = node();
    put(&ingest, Action::Erase, &[&alice().fingerprint()]);
    let bob = Certificate::v4(2, "bob").user_id("Bob").to_bytes();
    let receipt = ingest.receive(SKS.dataset, &[alice().to_bytes(), bob]).unwrap();
    let elements = receipt.elements.iter().map(BTreeSet::len);
    assert_eq!(elements.collect::<Vec<_>>(), [1, 1]);
    assert_eq!((receipt.certificates, receipt.forbidden.len()), (2, 1));
    let wanted = receipt.elements[1].iter().cloned().collect::<Vec<_>>();
    assert_eq!([receipt.wrong_way(&wanted), receipt.wrong_way(&[])], [1, 2]);
}

#[test]
fn a_selector_is_about_primary_keys() {
    let ingest = node();
    outcome(&ingest, &alice().to_bytes());
    let signer = Key::primary(1, "alice");
    let subkey = signer.subkey("alice/encrypt", Algorithm::EcdhLegacy);
    let selector = hex(&subkey.fingerprint()).parse().unwrap();
    let hits = Hits::of(&*ingest.store, &selector).unwrap();
    assert_eq!(
        (hits.fingerprints.len(), hits.primary_instead),
        (0, Some(signer.fingerprint()))
    );
}
