//! Reconciliation with a real SKS, both ways, and how quiet it is afterwards.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::peering::{Digests, Reconciling, dumped, handed_out, sks, wait, wait_until_equal};
use common::{Node, datasets, debian};
use keyrink_testkit::Certificate;
use keyrink_testkit::http::Client;
use keyrink_testkit::keyring::entries;
use keyrink_testkit::peers::{Sks, SksOptions};

const WITHIN: Duration = Duration::from_secs(120);

#[test]
fn both_end_with_the_union_when_keyrink_calls() {
    let Halves { ours, theirs, union } = halves();
    let node = Node::with(&[&ours]);
    let file = node.file("theirs.pgp", &theirs);
    let keyrink = Reconciling::new(node, "127.0.0.1");
    let mut sks = sks(&[&file], &[keyrink.port()], false);
    let mut keyrink = keyrink
        .partner(&format!("127.0.0.1:{}", sks.recon_port()))
        .gossip(2)
        .start();
    let union = wait_until_equal(&keyrink, &sks, union, WITHIN).unwrap();
    stays_quiet(&keyrink, &sks);
    assert_same(&mut keyrink, &mut sks, &union);
}

#[test]
fn both_end_with_the_union_when_sks_calls() {
    let Halves { ours, theirs, union } = halves();
    let node = Node::with(&[&ours]);
    let file = node.file("theirs.pgp", &theirs);
    let keyrink = Reconciling::new(node, "127.0.0.1");
    // Announcing one filter, as an SKS does that was filled in the usual way.
    let mut sks = Sks::build(SksOptions {
        keyrings: vec![file],
        membership: vec![("127.0.0.1".into(), keyrink.port())],
        gossip_minutes: 0.05,
        ..SksOptions::default()
    })
    .unwrap();
    let partner = format!("127.0.0.1:{}", sks.recon_port());
    let mut keyrink = keyrink.partner(&partner).gossip(100_000).start();
    // Its first call must fail, so that it does not call again.
    wait(WITHIN, || match keyrink.number("failures") {
        0 => Err("no call failed".into()),
        _ => Ok(()),
    })
    .unwrap();
    sks.start_db().unwrap();
    sks.start_recon().unwrap();
    let union = wait_until_equal(&keyrink, &sks, union, WITHIN).unwrap();
    stays_quiet(&keyrink, &sks);
    assert_eq!(keyrink.report()["called"], false);
    assert_same(&mut keyrink, &mut sks, &union);
}

#[test]
fn changes_arrive_on_the_other_side() {
    let first = || Certificate::v4(7, "a").user_id("A <a@example.org>");
    let second = || Certificate::v4(7, "b").user_id("B <b@example.org>");
    let node = Node::with(&[&first().to_bytes(), &second().to_bytes()]);
    let file = node.file("both.pgp", &[first().to_bytes(), second().to_bytes()].concat());
    let keyrink = Reconciling::new(node, "127.0.0.1");
    let sks = sks(&[&file], &[keyrink.port()], false);
    let keyrink = keyrink
        .partner(&format!("127.0.0.1:{}", sks.recon_port()))
        .gossip(100_000)
        .start();
    wait_until_equal(&keyrink, &sks, 2, WITHIN).unwrap();
    wait(WITHIN, || match keyrink.number("sessions") {
        0 => Err("no session".into()),
        _ => Ok(()),
    })
    .unwrap();
    // No timer of Keyrink's will ring, and SKS never calls: the submission itself has to make the call.
    let newer = first().user_id("A <other@example.org>");
    assert_eq!(keyrink.client().add(&newer.armored()).unwrap().status, 200);
    let start = Instant::now();
    let (held, page) = ("other@example.org", "/pks/lookup?op=index&search=0x");
    wait(Duration::from_secs(40), || {
        let answer = Client::new(sks.http())
            .get(&format!("{page}{}", first().fingerprint()))
            .unwrap();
        if answer.text().contains(held) {
            Ok(())
        } else {
            Err(answer.text())
        }
    })
    .unwrap();
    println!("a submission reached SKS after {:.1} s", start.elapsed().as_secs_f64());
    // The other way: SKS gets something new, and Keyrink finds it with its next session.
    let newer = second().user_id("B <more@example.org>");
    assert_eq!(Client::new(sks.http()).add(&newer.armored()).unwrap().status, 200);
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(
        keyrink
            .client()
            .add(&Certificate::v4(7, "c").user_id("C").armored())
            .unwrap()
            .status,
        200
    );
    wait_until_equal(&keyrink, &sks, 3, WITHIN).unwrap();
    let answer = keyrink
        .client()
        .get(&format!("{page}{}&options=mr", second().fingerprint()))
        .unwrap();
    assert!(answer.text().contains("more@example.org"), "{}", answer.text());
}

/// Every vector of what keyservers make of a certificate: a third of them here, a third there, a third on both sides.
#[test]
fn whatever_keyservers_disagree_about_converges() {
    let keyrink = Reconciling::new(Node::with(&[]), "127.0.0.1");
    let mut sks = sks(&[], &[keyrink.port()], false);
    let partner = format!("127.0.0.1:{},pause_seconds=0.2", sks.recon_port());
    let mut keyrink = keyrink.partner(&partner).gossip(2).start();
    let text = std::fs::read_to_string(datasets().join("vectors.json")).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (at, vector) in document["vectors"].as_array().unwrap().iter().enumerate() {
        for file in vector["submit"].as_array().unwrap() {
            let armored = keyrink_testkit::armor(&std::fs::read(datasets().join(file.as_str().unwrap())).unwrap());
            for (third, server) in [(1, keyrink.server().http()), (2, sks.http())] {
                if at % 3 != third {
                    // Either may refuse what it likes.
                    let _ = Client::new(server).add(&armored);
                }
            }
        }
    }
    let union = wait(WITHIN, || {
        let ours = keyrink.digests();
        let theirs = handed_out(&mut Client::new(sks.http()), &ours);
        let odd: Vec<String> = ours
            .difference(&theirs)
            .map(|digest| keyrink_testkit::hex(digest))
            .collect();
        match (odd.is_empty(), keyrink.number("differences"), keyrink.number("queue")) {
            (true, 0, 0) => Ok(ours),
            (_, differences, queue) => Err(format!(
                "SKS lacks {odd:?}, {differences} differences, {queue} to fetch\n{}",
                keyrink.log()
            )),
        }
    })
    .unwrap();
    println!("{} certificates", union.len());
    stays_quiet(&keyrink, &sks);
    assert_same(&mut keyrink, &mut sks, &union);
}

/// Ten further sessions find no difference and lead to no request on either side.
fn stays_quiet(keyrink: &Reconciling, sks: &Sks) {
    // The session that found the last differences may still have somebody fetch.
    std::thread::sleep(Duration::from_secs(12));
    let asked = || {
        (
            keyrink.number("requests"),
            keyrink.asked(),
            sks.log("recon").matches("Requesting ").count(),
        )
    };
    let (before, sessions) = (asked(), keyrink.number("sessions"));
    wait(WITHIN, || {
        let now = keyrink.number("sessions");
        assert_eq!(keyrink.number("differences"), 0, "{}", keyrink.log());
        if now >= sessions + 10 {
            Ok(())
        } else {
            Err(format!("{now} sessions after {sessions}"))
        }
    })
    .unwrap();
    assert_eq!(asked(), before, "{}\n{}", keyrink.log(), sks.log("recon"));
    assert!(before.0 > 0 && before.1 > 0);
}

/// The judge is the dump of SKS.
fn assert_same(keyrink: &mut Reconciling, sks: &mut Sks, union: &Digests) {
    assert_eq!(handed_out(&mut keyrink.client(), union), *union);
    keyrink.server().terminate();
    assert_eq!(dumped(sks), *union);
    keyrink.node.check();
}

/// What each side starts with, and how many certificates both have in the end.
struct Halves {
    ours: Vec<u8>,
    theirs: Vec<u8>,
    union: usize,
}

/// 700 of Debian's certificates on each side, overlapping in part, and certificates that keyservers disagree about.
fn halves() -> Halves {
    let names = ["keyring", "maintainers", "nonupload", "role-keys"];
    let keyrings = names.iter().map(|name| std::fs::read(debian(name)).unwrap());
    let all: Vec<Vec<u8>> = keyrings
        .flat_map(|keyring| entries(&keyring))
        .map(|entry| entry.octets)
        .collect();
    let ours = [
        "plain",
        "trust-packet",
        "dup-uid",
        "uid-unsigned",
        "marker-packet",
        "second",
        "dup-sig-same-uid",
        "new-format-headers",
        "sigs-reordered",
        "subkey-before-uid",
        "private-packet-60",
        "version-6-byte",
    ];
    let theirs = [
        "dup-sig-other-uid",
        "user-attribute-unsigned",
        "bad-selfsig",
        "primary-only",
        "uids-swapped",
    ];
    let start = all.len() - 700;
    Halves {
        ours: [all[..700].concat(), quirky(&ours)].concat(),
        theirs: [all[start..].concat(), quirky(&theirs)].concat(),
        // The quirky ones are of two keys.
        union: all.len() + 2,
    }
}

fn quirky(names: &[&str]) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/recon-v1/certs");
    let files = names
        .iter()
        .map(|name| std::fs::read(folder.join(format!("{name}.pgp"))).unwrap());
    files.collect::<Vec<_>>().concat()
}
