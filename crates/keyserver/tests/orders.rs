//! Signed orders: carried out once, on this server, soon, and for nobody but an administrator.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use common::{Node, On, PROGRAM, finish, get, on_store};
use keyrink::config::Config;
use keyrink::formats::OPENPGP;
use keyrink::http::time::Instant;
use keyrink::ingest::{Ingest, Outcome};
use keyrink::lifecycle::{Action, Change, DECISIONS, OrderError, Orders, Verb, entries};
use keyrink_openpgp::armor::encode;
use keyrink_openpgp::project::Projection;
use keyrink_openpgp::stored::write_projection;
use keyrink_openpgp::verify::detached::DetachedError;
use keyrink_store::{RecordId, Store};
use keyrink_testkit::http::{Answer, Client};
use keyrink_testkit::peers::Gpg;
use keyrink_testkit::{Algorithm, Certificate, Key, Kind, Reason, Signature, Target};
use std::process::Command;
use std::sync::Arc;

const NOW: u64 = 1_700_000_000;
const HOST: &str = "keys.example.org";

fn admin() -> Certificate {
    Certificate::v4(1, "admin")
        .user_id("Admin")
        .signing_subkey("admin/sign")
        .encryption_subkey("admin/encrypt")
}

fn alice() -> Certificate {
    Certificate::v4(2, "alice")
        .user_id("Alice <alice@example.org>")
        .user_id("Alice <alice@work.example>")
}

/// A server that knows Alice and its administrator.
fn server(unbound: bool) -> On<Orders> {
    on_store(|store| server_on(store, unbound))
}

fn server_on(store: Arc<dyn Store>, unbound: bool) -> Orders {
    let mut config = Config::default();
    config.orders.keys = vec![admin().fingerprint()];
    config.orders.unbound = unbound;
    config.http.hostname = HOST.into();
    let ingest = Ingest::new(&config, store);
    ingest
        .submit(&[admin().to_bytes(), alice().to_bytes()].concat())
        .unwrap();
    Orders::new(&config, ingest, || NOW)
}

fn text(verb: Verb, lines: &str, cert: &Certificate) -> String {
    format!("{}\n{lines}{}", verb.path(), cert.armored())
}

fn bound() -> String {
    format!("host: {HOST}\ntime: 2023-11-14T22:13:20Z\n\n")
}

fn sign_with(signer: &Key, signature: Signature, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode("SIGNATURE", &signature.packet(signer, Target::Text(text)), &mut out);
    out
}

fn signature(age: i64) -> Signature {
    Signature::new(Kind::Binary).created((NOW as i64 - age) as u32)
}

fn sign(text: &str) -> Vec<u8> {
    sign_with(admin().primary(), signature(0), text.as_bytes())
}

fn obey(orders: &Orders, verb: Verb, text: &str, signature: &[u8]) -> Result<usize, OrderError> {
    orders.obey(verb, text.as_bytes(), signature).map(|about| about.len())
}

fn is_stored(orders: &Orders, cert: &Certificate) -> bool {
    let id = RecordId::new(&cert.primary().fingerprint()).unwrap();
    orders.ingest.store.get(OPENPGP, &[id]).unwrap()[0].is_some()
}

#[test]
fn what_an_administrator_deletes_is_erased() {
    for lines in [String::new(), bound(), "reason: asked\n\n".into()] {
        let orders = server(true);
        let text = text(Verb::Delete, &lines, &alice());
        assert_eq!(obey(&orders, Verb::Delete, &text, &sign(&text)).unwrap(), 1);
        assert!(!is_stored(&orders, &alice()) && is_stored(&orders, &admin()));
        let again = orders.ingest.submit(&alice().to_bytes()).unwrap();
        assert_eq!(again.certs[0].outcome, Outcome::Forbidden);
        let missing = obey(&orders, Verb::Delete, &text, &sign(&text)).unwrap_err();
        assert!(missing.to_string().contains("there is no certificate"), "{missing}");
    }
}

#[test]
fn a_subkey_for_signing_and_texts_with_other_line_ends_will_do() {
    let subkey = admin().primary().subkey("admin/sign", Algorithm::EdDsaLegacy);
    let text = text(Verb::Delete, "", &alice());
    let lines = text.replace('\n', "\r\n");
    for (signer, kind, signed) in [
        (&subkey, Kind::Binary, &text),
        (&subkey, Kind::Text, &lines),
        (admin().primary(), Kind::Text, &lines),
    ] {
        let signature = Signature::new(kind).created(NOW as u32);
        let signature = sign_with(signer, signature, signed.as_bytes());
        assert_eq!(obey(&server(true), Verb::Delete, &text, &signature).unwrap(), 1);
    }
}

#[test]
fn a_replaced_certificate_has_what_the_order_says() {
    let orders = server(true);
    let less = Certificate::v4(2, "alice").user_id("Alice <alice@work.example>");
    let text = text(Verb::Replace, &bound(), &less);
    assert_eq!(obey(&orders, Verb::Replace, &text, &sign(&text)).unwrap(), 1);
    let id = RecordId::new(&alice().primary().fingerprint()).unwrap();
    let stored = orders.ingest.store.get(OPENPGP, &[id]).unwrap().remove(0).unwrap();
    let mut served = Vec::new();
    write_projection(&stored.data, Projection::Served, &mut served).unwrap();
    assert!(!String::from_utf8_lossy(&served).contains("alice@example.org"));
    assert!(String::from_utf8_lossy(&served).contains("alice@work.example"));
    let unknown = self::text(Verb::Replace, "", &Certificate::v4(3, "new").user_id("New"));
    let error = obey(&orders, Verb::Replace, &unknown, &sign(&unknown)).unwrap_err();
    assert!(matches!(error, OrderError::Unknown(_)), "{error}");
}

/// What could not be done is neither spent nor said to be done.
#[test]
fn an_order_that_failed_may_be_given_again() {
    let orders = server(true);
    let ingest = &orders.ingest;
    let decide = |action| {
        let change = Change {
            action,
            selectors: vec![alice().fingerprint().parse().unwrap()],
            once: false,
            reason: "because".into(),
            by: "a test".into(),
            time: Instant(NOW),
            order: None,
        };
        change.make(&*ingest.store, &ingest.rules, ingest.policy).unwrap();
    };
    let logged = || {
        let mut count = 0;
        entries(&*ingest.store, &mut |entry| {
            count += usize::from(entry.action == "replace")
        })
        .unwrap();
        count
    };
    let text = text(Verb::Replace, &bound(), &alice());
    decide(Some(Action::Block));
    let error = obey(&orders, Verb::Replace, &text, &sign(&text)).unwrap_err();
    assert!(matches!(error, OrderError::Refused(..)), "{error}");
    assert_eq!(logged(), 0);
    decide(None);
    assert_eq!(obey(&orders, Verb::Replace, &text, &sign(&text)).unwrap(), 1);
    let error = obey(&orders, Verb::Replace, &text, &sign(&text)).unwrap_err();
    assert!(matches!(error, OrderError::Replayed), "{error}");
    assert_eq!(logged(), 1);
}

#[test]
fn nobody_else_gives_orders() {
    let orders = server(true);
    let order = text(Verb::Delete, "", &alice());
    let refused = |signature: &[u8], reason: DetachedError| {
        let error = obey(&orders, Verb::Delete, &order, signature).unwrap_err();
        assert!(
            matches!(&error, OrderError::Signature(found) if *found == reason),
            "{error}"
        );
    };
    let encrypts = admin().primary().subkey("admin/encrypt", Algorithm::EdDsaLegacy);
    refused(
        &sign_with(alice().primary(), signature(0), order.as_bytes()),
        DetachedError::Stranger,
    );
    refused(
        &sign_with(&encrypts, signature(0), order.as_bytes()),
        DetachedError::Stranger,
    );
    refused(
        &sign(&text(Verb::Delete, "reason: another one\n", &alice())),
        DetachedError::Wrong,
    );
    let damaged = sign_with(admin().primary(), signature(0).damaged(), order.as_bytes());
    refused(&damaged, DetachedError::Wrong);
}

#[test]
fn an_order_is_good_once() {
    let orders = server(true);
    let text = text(Verb::Delete, &bound(), &alice());
    let order = sign(&text);
    obey(&orders, Verb::Delete, &text, &order).unwrap();
    // What a signature does not protect makes no other order of it.
    let dressed = sign_with(
        admin().primary(),
        signature(0).unhashed(101, b"another one"),
        text.as_bytes(),
    );
    let selector = alice().fingerprint().parse().unwrap();
    let undo = keyrink::lifecycle::Change {
        action: None,
        selectors: vec![selector],
        once: false,
        reason: "undo".into(),
        by: "a test".into(),
        time: keyrink::http::time::Instant(NOW),
        order: None,
    };
    let ingest = &orders.ingest;
    undo.make(&*ingest.store, &ingest.rules, ingest.policy).unwrap();
    ingest.submit(&alice().to_bytes()).unwrap();
    // Another server on the same store knows of it too.
    let other = Ingest::new(&Config::default(), Arc::clone(&ingest.store));
    let other = Orders {
        ingest: other,
        ..server_like(&orders)
    };
    for signature in [order, dressed] {
        for server in [&orders, &other] {
            let error = obey(server, Verb::Delete, &text, &signature).unwrap_err();
            assert!(matches!(error, OrderError::Replayed), "{error}");
        }
    }
    assert!(is_stored(&orders, &alice()));
    assert!(ingest.store.count(DECISIONS).unwrap() > 0);
}

fn server_like(orders: &Orders) -> Orders {
    Orders {
        ingest: orders.ingest.clone(),
        keys: orders.keys.clone(),
        unbound: orders.unbound,
        hostname: orders.hostname.clone(),
        now: orders.now,
    }
}

#[test]
fn an_order_is_for_one_server_and_one_moment() {
    let orders = server(true);
    let refused = |orders: &Orders, lines: &str, age: i64, reason: &str| {
        let text = text(Verb::Delete, lines, &alice());
        let signature = sign_with(admin().primary(), signature(age), text.as_bytes());
        let error = obey(orders, Verb::Delete, &text, &signature).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    };
    refused(
        &orders,
        "",
        901,
        "the order is of 2023-11-14T21:58:19Z, and here it is 2023-11-14T22:13:20Z",
    );
    refused(&orders, "", -901, "the order is of 2023-11-14T22:28:21Z");
    refused(
        &orders,
        "time: 2023-11-14T21:00:00Z\n",
        0,
        "the order is of 2023-11-14T21:00:00Z",
    );
    refused(
        &orders,
        "host: other.example\n",
        0,
        "is for the server \"other.example\", this one is",
    );
    refused(&server(false), "", 0, "must name the server and the time");
    refused(
        &server(false),
        &format!("host: {HOST}\n"),
        0,
        "must name the server and the time",
    );
    let text = text(Verb::Delete, &bound(), &alice());
    assert_eq!(obey(&server(false), Verb::Delete, &text, &sign(&text)).unwrap(), 1);
    let error = obey(&server(true), Verb::Replace, &text, &sign(&text)).unwrap_err();
    assert!(matches!(error, OrderError::FirstLine("/pks/replace")), "{error}");
}

#[test]
fn a_revoked_or_blocked_administrator_gives_no_orders() {
    let orders = server(true);
    let order = text(Verb::Delete, "", &alice());
    let revoked = admin().revocation(Reason::Compromised);
    orders.ingest.submit(&revoked).unwrap();
    let error = obey(&orders, Verb::Delete, &order, &sign(&order)).unwrap_err();
    assert!(matches!(error, OrderError::Signature(DetachedError::Over)), "{error}");
    let orders = server(true);
    let block = Change {
        action: Some(Action::Block),
        selectors: vec![admin().fingerprint().parse().unwrap()],
        once: false,
        reason: "left".into(),
        by: "a test".into(),
        time: Instant(NOW),
        order: None,
    };
    let ingest = &orders.ingest;
    block.make(&*ingest.store, &ingest.rules, ingest.policy).unwrap();
    let error = obey(&orders, Verb::Delete, &order, &sign(&order)).unwrap_err();
    assert!(
        matches!(error, OrderError::Signature(DetachedError::Stranger)),
        "{error}"
    );
    assert!(is_stored(&orders, &alice()));
    let nobody = Orders {
        keys: Vec::new(),
        ..server_like(&orders)
    };
    let error = obey(&nobody, Verb::Delete, &order, &sign(&order)).unwrap_err();
    assert!(matches!(error, OrderError::NoKeys), "{error}");
}

/// As administrators of Hockeypuck do it: gpg signs a file, curl sends both.
#[test]
fn gpg_signs_orders() {
    let (node, gpg, stranger) = (Node::new(), Gpg::new().unwrap(), Gpg::new().unwrap());
    let (admin, stranger_key) = (gpg_key(&gpg, "Admin"), gpg_key(&stranger, "Stranger"));
    let setting = format!("KEYRINK_ORDERS_KEYS={}", admin.0);
    let mut server = node.serve_with(&[&setting], &[]);
    let mut client = Client::new(server.http());
    for armored in [&admin.1, &stranger_key.1, &alice().armored()] {
        assert_eq!(client.add(armored).unwrap().status, 200);
    }
    let text = text(Verb::Delete, "", &alice());
    let order = gpg_sign(&gpg, &text);
    let wrong = order_to(&mut client, Verb::Delete, &text, &gpg_sign(&stranger, &text));
    assert_eq!(
        (wrong.status, wrong.text().contains("may not sign this")),
        (422, true),
        "{}",
        wrong.text()
    );
    let wrong = order_to(&mut client, Verb::Replace, &text, &order);
    assert_eq!(
        (wrong.status, wrong.text().contains("first line")),
        (400, true),
        "{}",
        wrong.text()
    );
    let done = order_to(&mut client, Verb::Delete, &text, &order);
    assert_eq!(done.status, 200, "{}", done.text());
    let json: serde_json::Value = serde_json::from_slice(&done.body).unwrap();
    assert_eq!(json["deleted"][0]["fingerprint"], alice().fingerprint().to_lowercase());
    assert_eq!(get(&mut client, &alice().fingerprint()).status, 404);
    assert_eq!(client.add(&alice().armored()).unwrap().status, 403);
    server.terminate();

    let mut undo = Command::new(PROGRAM);
    undo.args(["admin", "unblock"])
        .args(keyrink_testkit::peers::store_arguments(&node.data()));
    undo.args(["--reason", "undo", &alice().fingerprint()]);
    let undone = finish(undo, b"");
    assert_eq!(undone.code, Some(0), "{undone:?}");
    let server = node.serve_with(&[&setting], &[]);
    let mut client = Client::new(server.http());
    assert_eq!(client.add(&alice().armored()).unwrap().status, 200);
    let again = order_to(&mut client, Verb::Delete, &text, &order);
    assert_eq!(
        (again.status, again.text().contains("carried out before")),
        (409, true),
        "{}",
        again.text()
    );
    let missing = client.post_form("/pks/delete", &[("keytext", &text)]).unwrap();
    assert_eq!((missing.status, missing.text().contains("`keysig`")), (400, true));
    assert_eq!(get(&mut client, &alice().fingerprint()).status, 200);
}

/// A key with a subkey for signing; its fingerprint and its certificate.
fn gpg_key(gpg: &Gpg, name: &str) -> (String, String) {
    let quiet = ["--pinentry-mode", "loopback", "--passphrase", ""];
    gpg.run(&[&quiet[..], &["--quick-gen-key", name, "ed25519", "cert", "never"]].concat())
        .unwrap();
    let fingerprint = gpg.fingerprints().unwrap().remove(0);
    gpg.run(
        &[
            &quiet[..],
            &["--quick-add-key", &fingerprint, "ed25519", "sign", "never"],
        ]
        .concat(),
    )
    .unwrap();
    let exported = gpg.run(&["--armor", "--export", &fingerprint]).unwrap();
    (fingerprint, String::from_utf8(exported.stdout).unwrap())
}

fn gpg_sign(gpg: &Gpg, text: &str) -> String {
    let path = gpg.home().join("order.txt");
    std::fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    let arguments = [
        "--pinentry-mode",
        "loopback",
        "--passphrase",
        "",
        "--armor",
        "--detach-sign",
        "--output",
        "-",
        &path,
    ];
    String::from_utf8(gpg.run(&arguments).unwrap().stdout).unwrap()
}

fn order_to(client: &mut Client, verb: Verb, text: &str, signature: &str) -> Answer {
    client
        .post_form(verb.path(), &[("keytext", text), ("keysig", signature)])
        .unwrap()
}
