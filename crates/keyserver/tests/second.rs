//! The second generation between nodes: what is fetched, and what is not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use common::peering::{Digests, Reconciling, certificates, digest, digests_of, handed_out, wait, wait_until_equal};
use common::{Node, debian};
use keyrink::formats::{Family, SECOND, SKS};
use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::facts::{Fact, Facts};
use keyrink_openpgp::packet;
use keyrink_openpgp::policy::Limits;
use keyrink_openpgp::read::Keyring;
use keyrink_openpgp::verify::verify;
use keyrink_testkit::http::Client;
use keyrink_testkit::keyring::{Entry, entries};
use keyrink_testkit::peers::{Sks, SksOptions};
use keyrink_testkit::{Certificate, generate};
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(120);
/// Certificates that only one side has.
const ALONE: usize = 178;
/// Those on both sides of which one side has a newer self-signature, half of them there and half here.
const NEWER: usize = 100;
/// Those of which one side has more signatures by others.
const OTHERS: usize = 50;
/// Those that differ in what says nothing: the unhashed area, the order of packets, an invalid packet.
const NOISE: usize = 50;

fn held(node: &Reconciling, family: &Family) -> Digests {
    digests_of(&node.node.data(), family)
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

/// The signatures of a certificate of which the verdict is so.
fn signatures(entry: &Entry, is: impl Fn(&Facts) -> bool) -> BTreeSet<Vec<u8>> {
    let cert = read(&entry.octets);
    let all = cert.components().iter().flat_map(|component| &component.signatures);
    all.filter(|signature| is(&signature.facts))
        .map(|signature| signature.body.to_vec())
        .collect()
}

fn own(entry: &Entry) -> BTreeSet<Vec<u8>> {
    signatures(entry, |facts| facts.has(Fact::Enumerable))
}

fn others(entry: &Entry) -> BTreeSet<Vec<u8>> {
    signatures(entry, |facts| facts.plausible())
}

/// A certificate without some packets.
fn without(entry: &Entry, gone: &BTreeSet<Vec<u8>>) -> Vec<u8> {
    let kept = entry
        .bodies
        .iter()
        .filter(|(tag, body)| *tag != 2 || !gone.contains(body));
    joined(&kept.cloned().collect::<Vec<_>>())
}

/// A certificate that says the same in other octets.
fn rephrased(entry: &Entry, nth: usize) -> Vec<u8> {
    let mut bodies = entry.bodies.clone();
    let own = own(entry);
    let at = bodies
        .iter()
        .position(|(tag, body)| *tag == 2 && own.contains(body))
        .unwrap();
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
        1 => {
            let end = (at..bodies.len())
                .find(|nth| bodies[*nth].0 != 2)
                .unwrap_or(bodies.len());
            bodies[at..end].reverse();
        }
        _ => {
            let (tag, mut body) = bodies[at].clone();
            *body.last_mut().unwrap() ^= 1;
            bodies.insert(at + 1, (tag, body));
        }
    }
    joined(&bodies)
}

/// What two nodes have: 1 000 of Debian's certificates each, of which 822 are on both sides, and not all of these are the
/// same.
fn sides() -> [Vec<u8>; 2] {
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
            without(entry, &own.iter().take(1).cloned().collect())
        } else if !others.is_empty() && more < OTHERS {
            more += 1;
            without(entry, &others)
        } else if is_plain && !own.is_empty() && noise < NOISE {
            noise += 1;
            rephrased(entry, noise)
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

/// Two nodes that know each other, with what they have, started.
fn pair(sides: &[Vec<u8>; 2], datasets: &str, settings: &[&str]) -> [Reconciling; 2] {
    let datasets = format!("KEYRINK_PEERS_DATASETS={datasets}");
    let nodes = ["127.0.0.1", "127.0.0.2"].map(|address| (Node::new(), address));
    let mut nodes = nodes.map(|(node, address)| {
        let node = Reconciling::new(node, address).setting(&datasets).gossip(1);
        settings.iter().fold(node, |node, setting| node.setting(setting))
    });
    for (node, side) in nodes.iter().zip(sides) {
        let file = node.node.file("first.pgp", side);
        node.node.load(&[&file]);
    }
    let addresses = [nodes[1].recon.clone(), nodes[0].recon.clone()];
    nodes = {
        let [one, two] = nodes;
        [one.partner(&addresses[0]), two.partner(&addresses[1])]
    };
    for node in &mut nodes {
        // What was loaded without these settings is derived for them.
        let mut rebuild = node.node.command("rebuild", &[]);
        rebuild.envs(node.settings().iter().map(|setting| setting.split_once('=').unwrap()));
        assert!(rebuild.output().unwrap().status.success());
        node.start_again();
    }
    nodes
}

/// Waits until both hold the same, and then until further sessions have found nothing.
fn settle(nodes: &[Reconciling; 2], family: &Family) {
    let equal = || match held(&nodes[0], family) == held(&nodes[1], family) {
        true => Ok(()),
        false => Err(nodes.each_ref().map(|node| node.log()).concat()),
    };
    wait(WITHIN, equal).unwrap();
    quiet(nodes, 3);
}

/// Waits for so many further sessions, and sees that nothing is fetched meanwhile.
fn quiet(nodes: &[Reconciling], sessions: u64) {
    std::thread::sleep(Duration::from_secs(3));
    let all = |number: fn(&Reconciling) -> u64| -> Vec<u64> { nodes.iter().map(number).collect() };
    let (before, start) = (all(requests), all(Reconciling::sessions));
    wait(WITHIN + Duration::from_secs(2) * sessions as u32, || {
        let now = all(Reconciling::sessions);
        let over = now.iter().zip(&start).all(|(now, start)| *now >= start + sessions);
        if over { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .unwrap();
    assert_eq!(all(requests), before);
}

/// Requests for certificates that a node has sent to any partner.
fn requests(node: &Reconciling) -> u64 {
    sum(node, "requests")
}

fn sum(node: &Reconciling, key: &str) -> u64 {
    let reports: serde_json::Value = serde_json::from_str(&node.node.succeed("peers", &["--json"])).unwrap();
    let all = reports.as_array().unwrap().iter();
    all.map(|report| report[key].as_u64().unwrap()).sum()
}

/// How long a demonstration is: as the environment says, or short.
fn rounds(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |rounds| rounds.parse().unwrap())
}

fn generated(indices: Range<u64>) -> Vec<u8> {
    let mut octets = Vec::new();
    generate::write(&mut octets, 11, indices).unwrap();
    octets
}

fn fetched(nodes: &[Reconciling; 2]) -> [(u64, u64); 2] {
    nodes
        .each_ref()
        .map(|node| (node.number("fetched"), node.number("needless")))
}

#[test]
fn exactly_what_is_newer_is_fetched() {
    let sides = sides();
    let nodes = pair(&sides, "sks,openpgp/2", &["KEYRINK_PEERS_FIRST_GENERATION_HOURS=0"]);
    settle(&nodes, &SECOND);
    let second = fetched(&nodes);
    for node in &nodes {
        assert_eq!(node.report()["dataset"], "openpgp/2");
    }
    let expected = ALONE as u64 + NEWER as u64 / 2;
    assert_eq!(second, [(expected, 0); 2]);
    for mut node in nodes {
        node.server().terminate();
        node.node.check();
    }

    let nodes = pair(&sides, "sks", &[]);
    settle(&nodes, &SKS);
    let first = fetched(&nodes);
    println!("fetched and of no use: first generation {first:?}, second {second:?}");
    assert!(first.iter().all(|(fetched, _)| *fetched > expected + NEWER as u64 / 2));
}

/// A key that comes by one generation is found by the other, signatures by others and bare keys included.
#[test]
fn both_generations_go_over_one_store() {
    let (key, signer) = (
        || Certificate::v4(3, "a").user_id("A <a@example.org>"),
        Certificate::v4(3, "b").user_id("B"),
    );
    let certified = key().certified_by(signer.primary());
    let bare = Certificate::v4(3, "c").bare_user_id("C");
    let sides = [[certified.to_bytes(), bare.to_bytes()].concat(), key().to_bytes()];
    let nodes = pair(&sides, "sks,openpgp/2", &["KEYRINK_PEERS_FIRST_GENERATION_HOURS=24"]);
    settle(&nodes, &SKS);
    settle(&nodes, &SECOND);
    assert_eq!(held(&nodes[1], &SKS).len(), 2);
    assert_eq!(
        nodes[0].report()["dataset"],
        "openpgp/2",
        "the first generation is for once a day"
    );
    let newer = key().user_id("A <other@example.org>");
    assert_eq!(nodes[1].client().add(&newer.armored()).unwrap().status, 200);
    settle(&nodes, &SECOND);
    assert_eq!(held(&nodes[0], &SKS).len(), 2);
}

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
    let beside = |nth: u64, node: &Reconciling| {
        let file = node.node.file("sks.pgp", &part(nth));
        let address = node.recon.split(':').next().unwrap().to_owned();
        let peer = Sks::start(SksOptions {
            keyrings: vec![file],
            membership: vec![(address, node.port())],
            recon: true,
            gossip_minutes: 100_000.0,
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
    let ((s1, at_s1), (s2, at_s2)) = (beside(3, &b), beside(4, &c));
    let (at_a, at_b, at_c) = (a.recon.clone(), b.recon.clone(), c.recon.clone());
    let never = "KEYRINK_PEERS_FIRST_GENERATION_HOURS=0";
    let nodes = [
        a.partner(&format!("{at_b},name=b"))
            .partner(&format!("{at_c},name=c,dataset=sks")),
        b.partner(&format!("{at_a},name=a")).partner(&at_s1),
        c.partner(&format!("{at_a},name=a,dataset=sks")).partner(&at_s2),
    ]
    .map(|node| node.setting(never).start());
    wait(WITHIN, || {
        let sets = nodes.each_ref().map(|node| (held(node, &SECOND), held(node, &SKS)));
        let [(a, a_sks), (b, b_sks), (c, c_sks)] = &sets;
        match a == b && b == c && a_sks == c_sks && a.len() > 5 * 40 {
            true if lacks_nothing(&s1, b_sks) && lacks_nothing(&s2, c_sks) => Ok(()),
            _ => Err(format!("{} {} {} elements", a.len(), b.len(), c.len())),
        }
    })
    .unwrap();
    let [a_sks, b_sks, _] = nodes.each_ref().map(|node| held(node, &SKS));
    assert_ne!(
        a_sks, b_sks,
        "signatures by others and bare keys do not go over the link of the second generation"
    );
    let [mut a, b, c] = nodes;
    a.server().terminate();
    let again = a.setting("KEYRINK_PEERS_FIRST_GENERATION_HOURS=24").start();
    finish_mesh([again, b, c], [s1, s2]);
}

/// What one session of the first generation between nodes of the second makes of the mesh.
fn finish_mesh(nodes: [Reconciling; 3], peers: [Sks; 2]) {
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
    wait_until_equal(&nodes[1], &peers[0], all, WITHIN).unwrap();
    assert_eq!(held(&nodes[0], &SECOND), held(&nodes[2], &SECOND));
    quiet(&nodes, 4);
    for peer in &peers {
        let log = peer.log("recon");
        let strange = log
            .lines()
            .filter(|line| line.contains("error") || line.contains("xception"));
        let strange: Vec<_> = strange.filter(|line| !line.contains("Connection refused")).collect();
        assert!(strange.is_empty(), "{strange:#?}");
    }
}

fn lacks_nothing(peer: &Sks, digests: &Digests) -> bool {
    handed_out(&mut Client::new(peer.http()), digests) == *digests
}

/// A hundred ordinary certificates, fifty with too many user ids, twenty with a long one, ten with a portrait.
fn oddities() -> Vec<u8> {
    let many_user_ids = |nth: u64| {
        let begin = Certificate::v4(nth, "large").user_id("Large");
        (0..150)
            .fold(begin, |cert, id| cert.user_id(format!("Large {nth} {id}")))
            .to_bytes()
    };
    let long_user_id = |nth: u64| {
        Certificate::v4(nth, "long")
            .user_id("Short")
            .user_id("x".repeat(200))
            .to_bytes()
    };
    let portrait = |nth: u64| {
        Certificate::v4(nth, "portrait")
            .user_id("Portrait")
            .user_attribute(&[7; 40])
            .to_bytes()
    };
    [
        generated(0..100),
        (0..50).flat_map(many_user_ids).collect(),
        (0..20).flat_map(long_user_id).collect(),
        (0..10).flat_map(portrait).collect(),
    ]
    .concat()
}

/// One omits, one refuses, one drops: what differs stays as it is, and nothing is asked for again.
#[test]
fn different_policies_are_quiet() {
    let all = oddities();
    let second = "KEYRINK_PEERS_DATASETS=openpgp/2";
    let node = |address, octets: &[u8], setting: &str| {
        let node = Reconciling::new(Node::with(&[octets]), address).gossip(1);
        node.setting(second).setting(setting)
    };
    let nodes = [
        node("127.0.0.1", &all, "KEYRINK_PEERS_OMIT=user-attributes,v3"),
        node(
            "127.0.0.2",
            &generated(50..150),
            "KEYRINK_LIMITS_CERTIFICATE_OCTETS=4096",
        ),
        node("127.0.0.3", &generated(150..200), "KEYRINK_LIMITS_USER_ID_OCTETS=100"),
    ];
    let addresses = nodes.each_ref().map(|node| node.recon.clone());
    let mut nth = 0;
    let nodes = nodes.map(|node| {
        let own = nth;
        nth += 1;
        let others = addresses.iter().enumerate().filter(|(nth, _)| *nth != own);
        others.fold(node, |node, (_, address)| node.partner(address)).start()
    });
    let records = |node: &Reconciling| -> u64 {
        let text = node.client().get("/pks/stats?options=json").unwrap().text();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["total"]
            .as_u64()
            .unwrap()
    };
    wait(WITHIN, || match nodes.each_ref().map(records) {
        [280, 230, 280] => Ok(()),
        other => Err(format!("{other:?}\n{}", nodes[1].log())),
    })
    .unwrap();
    // What is asked for in vain is asked for twice, by each who lacks it.
    wait(WITHIN, || {
        match (sum(&nodes[1], "refused"), sum(&nodes[2], "refused")) {
            (1.., 1..) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap();
    std::thread::sleep(Duration::from_secs(8));
    quiet(&nodes, rounds("KEYRINK_ROUNDS", 10));
    let omitted = nodes[1].node.succeed("peers", &[]);
    assert!(omitted.contains("left out of sessions: "), "{omitted}");
}

/// A key that is submitted to one of five nodes in a ring is soon served by all of them.
#[test]
fn a_ring_of_five_spreads_what_is_submitted() {
    let submissions = rounds("KEYRINK_SUBMISSIONS", 15);
    let mut nodes: Vec<Reconciling> = (1..=5)
        .map(|nth| {
            let node = Reconciling::new(Node::with(&[&generated(0..50)]), &format!("127.0.0.{nth}"));
            node.setting("KEYRINK_PEERS_DATASETS=openpgp/2").gossip(10)
        })
        .collect();
    let addresses: Vec<String> = nodes.iter().map(|node| node.recon.clone()).collect();
    nodes = nodes
        .into_iter()
        .enumerate()
        .map(|(nth, node)| {
            node.partner(&addresses[(nth + 1) % 5])
                .partner(&addresses[(nth + 4) % 5])
                .start()
        })
        .collect();
    let mut clients: Vec<Client> = nodes.iter().map(Reconciling::client).collect();
    // Whoever starts first calls before the others are there, and waits some seconds.
    std::thread::sleep(Duration::from_secs(12));
    let mut times: Vec<f64> = Vec::new();
    for nth in 0..submissions {
        let cert = generate::certificate(12, nth);
        let at = nth as usize % 5;
        assert_eq!(clients[at].add(&cert.armored()).unwrap().status, 200);
        let (start, path) = (
            Instant::now(),
            format!("/pks/lookup?op=get&search=0x{}", cert.fingerprint()),
        );
        for client in &mut clients {
            wait(WITHIN, || match client.get(&path).unwrap().status {
                200 => Ok(()),
                other => Err(format!("{other}")),
            })
            .unwrap();
        }
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() as f64 * part).ceil() as usize).clamp(1, times.len()) - 1];
    let (median, late) = (at(0.5), at(0.99));
    std::thread::sleep(Duration::from_secs(5));
    let octets = || -> u64 { nodes.iter().map(|node| sum(node, "sent")).sum() };
    let (before, start) = (octets(), Instant::now());
    std::thread::sleep(Duration::from_secs(22));
    let idle = (octets() - before) as f64 / start.elapsed().as_secs_f64() / 5.0;
    println!("served by all after {median:.2} s (median), {late:.2} s (p99); {idle:.0} octets/s on an idle link");
    assert!(median <= 2.0 && late <= 5.0 && idle < 1000.0, "{median} {late} {idle}");
}

/// Who asks in the second generation learns what became of each digest.
#[test]
fn the_state_of_each_digest_is_told() {
    let cert = Certificate::v4(5, "a").user_id("A").user_id("B");
    let node = Node::with(&[&cert.to_bytes()]);
    let server = node.serve();
    let known: Vec<Vec<u8>> = digests_of(&node.data(), &SECOND).into_iter().collect();
    assert_eq!(known.len(), 2);
    // By its digest of the first generation too: who asks by both gets it once.
    let whole = digests_of(&node.data(), &SKS).into_iter().next().unwrap();
    let asked = [known[0].clone(), known[1].clone(), vec![9; 32], vec![1, 2], whole];
    let mut question = (asked.len() as u32).to_be_bytes().to_vec();
    for digest in &asked {
        question.extend((digest.len() as u32).to_be_bytes());
        question.extend(digest);
    }
    let mut client = Client::new(server.http());
    let answer = client
        .request("POST", "/pks/hashquery", &[("Sks-Recon", "2")], &question)
        .unwrap();
    let given: Vec<_> = certificates(&answer.body).iter().map(|octets| digest(octets)).collect();
    assert_eq!(given, [digest(&cert.to_bytes())]);
    assert!(
        answer.body.ends_with(b"\r\n\0\0\0\x05\0\0\x01\x01\0"),
        "{:?}",
        answer.body.last_chunk::<12>()
    );
    let answer = client.request("POST", "/pks/hashquery", &[], &question).unwrap();
    assert!(answer.body.ends_with(b"\r\n"));
}
