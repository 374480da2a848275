//! Nodes that do not want the same: what differs stays as it is, and nobody is asked for it again.

use super::common::peering::{Digests, Reconciling, wait};
use super::common::{Node, PROGRAM, finish};
use super::{WITHIN, generated, held, numbers, quiet, rounds, sessions_more, sum};
use keyrink::formats::SECOND;
use keyrink_testkit::peers::store_arguments;
use keyrink_testkit::{Certificate, Kind, Signature, generate};
use std::process::Command;
use std::time::Duration;

/// Keys that one node blocks.
const BLOCKED: u64 = 50;
/// Certificates with a user id that another node drops.
const LONG: u64 = 20;
/// Certificates of which the third has a portrait, and those of which it has a signature of version 3: it leaves both out of
/// sessions. The others have neither.
const LEFT_OUT: u64 = 10;

/// One omits, one blocks, one drops: what differs stays as it is, and nothing is asked for again.
#[test]
fn different_policies_are_quiet() {
    let whole = [generated(0..100), long(), left_out(true)].concat();
    let nodes = mesh([
        (&whole, "KEYRINK_PEERS_OMIT=user-attributes,v3"),
        (
            &[generated(50..150), left_out(false)].concat(),
            "KEYRINK_LOG_FILTER=info",
        ),
        (
            &[generated(150..200), left_out(false)].concat(),
            "KEYRINK_LIMITS_USER_ID_OCTETS=100",
        ),
    ]);
    let blocked: Vec<String> = (0..BLOCKED)
        .map(|nth| generate::certificate(11, nth).fingerprint())
        .collect();
    block(&nodes[1], &blocked);
    let nodes = nodes.map(Reconciling::start);
    let kept_from_second = converge(&nodes, &blocked);

    // Of each pair the one that lacks something is told so in each session.
    let expected = [vec![0, 0], vec![kept_from_second; 2], vec![LONG; 2]];
    let differences = || nodes.each_ref().map(|node| numbers(node, "differences"));
    wait(WITHIN, || match (differences(), numbers(&nodes[2], "refused")) {
        (found, refused) if found == expected && refused == [LONG; 2] => Ok(()),
        found => Err(format!("{found:?}")),
    })
    .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_fetched_once(&nodes);
    let requests = || nodes.each_ref().map(|node| numbers(node, "requests"));
    let before = requests();
    for round in 1..=rounds("KEYRINK_ROUNDS", 10) {
        sessions_more(&nodes, 1);
        assert_eq!(differences(), expected, "round {round}");
        assert_eq!(requests(), before, "round {round}");
    }
    assert_away(&nodes);
    let omitted = nodes[1].node.succeed("peers", &[]);
    assert!(omitted.contains("left out of sessions: "), "{omitted}");
}

/// What a partner does not want to answer stays as it is, all else comes, and the operator sees which part it was.
#[test]
fn a_part_that_is_refused_is_left_alone_and_told() {
    let parts = [
        ([generated(0..20), left_out(true)].concat(), "KEYRINK_PEERS_REFUSE=0011"),
        ([generated(10..30), left_out(false)].concat(), "KEYRINK_LOG_FILTER=info"),
    ];
    let [refusing, asking] = [0, 1].map(|nth| {
        let (octets, setting) = &parts[nth];
        let node = Reconciling::new(Node::with(&[octets]), &format!("127.0.0.{}", nth + 1)).gossip(1);
        node.setting("KEYRINK_PEERS_DATASETS=openpgp/2").setting(setting)
    });
    let addresses = [asking.recon.clone(), refusing.recon.clone()];
    let nodes = [refusing.partner(&addresses[0]), asking.partner(&addresses[1])].map(Reconciling::start);

    let counts = || nodes.each_ref().map(left_out_there);
    let portraits = [LEFT_OUT, 0];
    wait(WITHIN, || match (nodes.each_ref().map(records), counts()) {
        (records, counts) if records == [30 + 2 * LEFT_OUT; 2] && counts == portraits.map(|n| [LEFT_OUT, n]) => Ok(()),
        found => Err(format!("{found:?}\n{}", nodes[1].log())),
    })
    .unwrap();
    let told = || nodes[1].node.succeed("peers", &[]);
    wait(WITHIN, || match told() {
        text if text.contains("it refuses the part 0011: ") => Ok(()),
        text => Err(text),
    })
    .unwrap();
    quiet(&nodes, 3);
    assert_eq!(counts(), portraits.map(|n| [LEFT_OUT, n]));
    assert!(nodes[1].log().contains("it does not reconcile the part 0011"));
}

fn long() -> Vec<u8> {
    let certificate = |nth| Certificate::v4(nth, "long").user_id("Short").user_id("x".repeat(200));
    (0..LONG).flat_map(|nth| certificate(nth).to_bytes()).collect()
}

/// Certificates with what the first node leaves out of sessions, or without.
fn left_out(is_there: bool) -> Vec<u8> {
    let portrait = |nth| {
        let plain = Certificate::v4(nth, "portrait").user_id("Portrait");
        if is_there {
            plain.user_attribute(&[7; 40])
        } else {
            plain
        }
    };
    let old = |nth| {
        let plain = Certificate::v4(nth, "old").user_id("Old");
        let again = Signature::new(Kind::PositiveCertification).version3();
        if is_there { plain.sign_last(again) } else { plain }
    };
    let both = |nth| [portrait(nth).to_bytes(), old(nth).to_bytes()].concat();
    (0..LEFT_OUT).flat_map(both).collect()
}

/// Three nodes that know each other, with what they have and a setting each, not started yet.
fn mesh(parts: [(&Vec<u8>, &str); 3]) -> [Reconciling; 3] {
    let mut nth = 0;
    let nodes = parts.map(|(octets, setting)| {
        nth += 1;
        let node = Reconciling::new(Node::with(&[octets]), &format!("127.0.0.{nth}")).gossip(1);
        node.setting("KEYRINK_PEERS_DATASETS=openpgp/2").setting(setting)
    });
    let addresses = nodes.each_ref().map(|node| node.recon.clone());
    nodes.map(|node| {
        let own = node.recon.clone();
        let others = addresses.iter().filter(|address| **address != own);
        others.fold(node, |node, address| node.partner(address))
    })
}

fn block(node: &Reconciling, fingerprints: &[String]) {
    let mut command = Command::new(PROGRAM);
    command
        .args(["admin", "block"])
        .args(store_arguments(&node.node.data()));
    command.args(["--reason", "test"]).args(fingerprints);
    let finished = finish(command, b"");
    assert_eq!(finished.code, Some(0), "{finished:?}");
}

/// Waits until each has all that it wants; how many elements the keys have that the second one blocks.
fn converge(nodes: &[Reconciling; 3], blocked: &[String]) -> u64 {
    let is_blocked = |element: &&Vec<u8>| {
        let subject: String = element[16..].iter().map(|octet| format!("{octet:02X}")).collect();
        blocked.iter().any(|fingerprint| fingerprint.ends_with(&subject))
    };
    wait(WITHIN, || {
        let sets = nodes.each_ref().map(|node| held(node, &SECOND));
        let [first, second, third] = sets.each_ref().map(Digests::len);
        let away = sets[0].iter().filter(is_blocked).count();
        let is_whole = records(&nodes[0]) == 200 + LONG + 2 * LEFT_OUT;
        let others = [away, LONG as usize].map(|away| first - away - 2 * LEFT_OUT as usize);
        match is_whole && [second, third] == others {
            true => Ok(away as u64),
            false => Err(format!("{first} {second} {third} elements\n{}", nodes[1].log())),
        }
    })
    .unwrap()
}

fn records(node: &Reconciling) -> u64 {
    let text = node.client().get("/pks/stats?options=json").unwrap().text();
    let stats: serde_json::Value = serde_json::from_str(&text).unwrap();
    stats["total"].as_u64().unwrap()
}

/// What came in vain is only what a node drops, of each partner once, and a second time from the one of which it got the
/// certificate: then it asked for the other user id, and there could be another certificate of this name.
fn assert_fetched_once(nodes: &[Reconciling; 3]) {
    let all = |key: &str| nodes.each_ref().map(|node| sum(node, key));
    let (fetched, needless, wrong_way) = (all("fetched"), all("needless"), all("wrong_way"));
    println!("fetched {fetched:?}, of no use {needless:?}, the wrong way {wrong_way:?}");
    let in_vain = needless[2];
    assert!((LONG..=2 * LONG).contains(&in_vain), "{in_vain}");
    // What two partners deliver at the same moment is of no use the second time, but went the right way.
    assert_eq!((needless, &wrong_way[..2]), ([0, 0, in_vain], &[0, 0][..]));
    assert!((LONG..=in_vain).contains(&wrong_way[2]), "{wrong_way:?}");
    let [first, second, third] = fetched;
    assert_eq!([first, third], [100, 150 + LONG + in_vain]);
    // What the third node holds of the certificates with a user id that it drops may come before the whole.
    let least = 50 + LONG + BLOCKED;
    assert!((least..=least + LONG).contains(&second), "{second}");
}

/// What one leaves out of sessions has not come to the others.
fn assert_away(nodes: &[Reconciling; 3]) {
    assert_eq!(nodes.each_ref().map(left_out_there), [[LEFT_OUT; 2], [0; 2], [0; 2]]);
}

/// How many elements are those of signatures of version 3, and of portraits.
fn left_out_there(node: &Reconciling) -> [u64; 2] {
    let elements = held(node, &SECOND);
    let is_old = elements.iter().filter(|element| element[0] >> 6 == 3).count();
    let is_portrait = elements.iter().filter(|element| element[0] >> 4 & 3 == 3).count();
    [is_old as u64, is_portrait as u64]
}
