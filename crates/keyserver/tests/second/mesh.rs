//! Nodes of both generations, one that keeps the first only, and SKS.

use super::common::Node;
use super::common::peering::{Digests, Reconciling, dumped, handed_out, wait, wait_until_equal};
use super::{WITHIN, generated, held, quiet, rebuild};
use keyrink::formats::{SECOND, SKS};
use keyrink_testkit::Certificate;
use keyrink_testkit::http::Client;
use keyrink_testkit::peers::{Sks, SksOptions};
use std::time::Duration;

/// Two nodes with the second generation, one with the first only, two SKS: the second generation joins its part at once, the
/// first what it is spoken between, and both together everything.
#[test]
fn a_mesh_of_both_generations() {
    let part = |nth: u64| {
        let key = Certificate::v4(nth, "key").user_id(format!("Key {nth}"));
        let shared = Certificate::v4(99, "shared").user_id("Shared");
        let certified = shared.certified_by(Certificate::v4(nth, "signer").primary());
        let bare = Certificate::v4(nth, "bare").bare_user_id("Bare");
        [
            key.to_bytes(),
            certified.to_bytes(),
            bare.to_bytes(),
            generated(20 * nth..20 * nth + 20),
        ]
        .concat()
    };
    let node = |nth, address| Reconciling::new(Node::with(&[&part(nth)]), address).gossip(2);
    // None at the address from which the test looks whether SKS is there yet: SKS would note a session that ended at once.
    let [a, b, c] = [node(0, "127.0.0.2"), node(1, "127.0.0.4"), node(2, "127.0.0.3")];
    let c = c.setting("KEYRINK_PEERS_DATASETS=sks");
    rebuild(&c);
    let beside = |nth: u64, node: &Reconciling, gossip_minutes| {
        let file = node.node.file("sks.pgp", &part(nth));
        let address = node.recon.split(':').next().unwrap().to_owned();
        let peer = Sks::start(SksOptions {
            keyrings: vec![file],
            membership: vec![(address, node.port())],
            recon: true,
            gossip_minutes,
            both_filters: true,
            ..SksOptions::default()
        });
        let peer = peer.unwrap();
        let partner = format!(
            "127.0.0.1:{},http=http://{},pause_seconds=0.2",
            peer.recon_port(),
            peer.http()
        );
        (peer, partner)
    };
    // One that calls, and one that is only called.
    let ((s1, at_s1), (s2, at_s2)) = (beside(3, &b, 0.05), beside(4, &c, 100_000.0));
    let (at_a, at_b, at_c) = (a.recon.clone(), b.recon.clone(), c.recon.clone());
    let never = "KEYRINK_PEERS_FIRST_GENERATION_HOURS=0";
    let nodes = [
        a.partner(&format!("{at_b},name=b")).partner(&format!("{at_c},name=c")),
        b.partner(&format!("{at_a},name=a")).partner(&at_s1),
        c.partner(&format!("{at_a},name=a")).partner(&at_s2),
    ]
    .map(|node| node.setting(never).start());
    wait(WITHIN, || {
        let [a, b] = [0, 1].map(|nth| held(&nodes[nth], &SECOND));
        let [a_sks, b_sks, c_sks] = nodes.each_ref().map(|node| held(node, &SKS));
        match a == b && a_sks == c_sks && a.len() > 5 * 40 {
            true if lacks_nothing(&s1, &b_sks) && lacks_nothing(&s2, &c_sks) => Ok(()),
            _ => Err(format!("{} {} elements", a.len(), b.len())),
        }
    })
    .unwrap();
    let [a_sks, b_sks, _] = nodes.each_ref().map(|node| held(node, &SKS));
    assert_ne!(
        a_sks, b_sks,
        "signatures by others and bare keys do not go over the link of the second generation"
    );
    assert_eq!(nodes[0].report_of("b")["dataset"], "openpgp/2");
    assert_eq!(nodes[0].report_of("c")["trees"], serde_json::json!(["openpgp/1"]));
    let [mut a, b, c] = nodes;
    a.server().terminate();
    let again = a.setting("KEYRINK_PEERS_FIRST_GENERATION_HOURS=24").start();
    finish_mesh([again, b, c], [s1, s2]);
}

/// What one session of the first generation between nodes of the second makes of the mesh.
fn finish_mesh(mut nodes: [Reconciling; 3], peers: [Sks; 2]) {
    // 5 keys, 5 bare ones, one that all have signed, and 100 others.
    let all = 111;
    wait(WITHIN, || {
        let sets = nodes.each_ref().map(|node| held(node, &SKS));
        let there = peers.each_ref().map(|peer| lacks_nothing(peer, &sets[0]));
        match sets.iter().all(|set| set.len() == all && *set == sets[0]) && there == [true; 2] {
            true => Ok(()),
            false => Err(format!(
                "{:?} {there:?}\n{}",
                sets.each_ref().map(Digests::len),
                nodes[0].log()
            )),
        }
    })
    .unwrap();
    for (node, peer) in nodes[1..].iter().zip(&peers) {
        wait_until_equal(node, peer, all, WITHIN).unwrap();
    }
    nobody_asks(&nodes, &peers);
    peers.iter().for_each(has_nothing_to_note);
    let [a, b, c] = &mut nodes;
    assert_eq!(held(a, &SECOND), held(b, &SECOND));
    assert!(held(c, &SECOND).is_empty(), "it keeps the first generation only");
    // What it would have had in the second.
    c.server().terminate();
    c.node.succeed("rebuild", &[]);
    assert_eq!(held(a, &SECOND), held(c, &SECOND));
    // The judge is the dump of SKS.
    for mut peer in peers {
        assert_eq!(dumped(&mut peer), held(a, &SKS));
    }
}

/// Sessions go on, and nobody fetches anything from anybody: no Keyrink, and no SKS.
fn nobody_asks(nodes: &[Reconciling], peers: &[Sks]) {
    // The session that found the last differences may still have SKS fetch.
    std::thread::sleep(Duration::from_secs(12));
    let asked = || {
        let by_sks = peers
            .iter()
            .map(|peer| peer.log("recon").matches("Requesting ").count());
        (
            nodes.iter().map(Reconciling::asked).collect::<Vec<_>>(),
            by_sks.collect::<Vec<_>>(),
        )
    };
    let before = asked();
    assert!(before.1.iter().all(|count| *count > 0), "{before:?}");
    quiet(nodes, 4);
    assert_eq!(asked(), before);
}

/// Neither process of an SKS logs a line of a kind that it does not log beside another SKS.
fn has_nothing_to_note(peer: &Sks) {
    let logs = [peer.log("recon"), peer.log("db")].concat();
    assert!(logs.contains("Reconciliation complete"), "{logs}");
    let strange = logs
        .lines()
        .filter(|line| !USUAL.iter().chain(&OWN_DOING).any(|known| line.contains(known)));
    let strange: Vec<_> = strange.collect();
    assert!(strange.is_empty(), "{strange:#?}");
}

/// What SKS logs when it starts, reconciles with another SKS and is asked for certificates.
const USUAL: [&str; 34] = [
    "Opening ",
    "Using BerkeleyDB",
    "Copyright ",
    "Licensed under",
    "SKS version",
    "Setting up PTree",
    "PTree setup complete",
    "Database opened",
    "Calculating DB stats",
    "Done calculating",
    "Applied filters",
    "Fetching filters",
    "http port:",
    "Starting event loop",
    "Received config message",
    "address for ",
    "Recon partner:",
    "Initiating ",
    "Joining reconciliation",
    "Beginning recon as",
    "while gossip disabled",
    "Reconciliation complete",
    "hashes recovered from",
    "Requesting ",
    "keys received",
    "\t",
    "Handling /pks/hashquery",
    "keys found",
    "potential merges found",
    "updates found before",
    "considering keyid",
    " hash",
    "Sending LogResp",
    "Applying ",
];
/// What the test does to it: it knocks until SKS is there, asks for what has not come yet, and starts a node again.
const OWN_DOING: [&str; 3] = [
    "unauthorized host <ADDR_INET [127.0.0.1]",
    "Not_found",
    "Connection refused",
];

fn lacks_nothing(peer: &Sks, digests: &Digests) -> bool {
    handed_out(&mut Client::new(peer.http()), digests) == *digests
}
