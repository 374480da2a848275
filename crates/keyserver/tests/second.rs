//! The second generation between nodes: what is fetched, and what is not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;
#[path = "second/mesh.rs"]
mod mesh;
#[path = "second/policies.rs"]
mod policies;
#[path = "second/rebuilt.rs"]
mod rebuilt;
#[path = "second/sides.rs"]
mod sides;

use common::Node;
use common::peering::{Digests, Reconciling, certificates, digest, digests_of, wait};
use keyrink::formats::{Family, SECOND, SKS};
use keyrink_testkit::http::Client;
use keyrink_testkit::{Certificate, generate};
use sides::{ALONE, NEWER, sides};
use std::ops::Range;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(120);

fn held(node: &Reconciling, family: &Family) -> Digests {
    digests_of(&node.node.data(), family)
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
        rebuild(node);
        node.start_again();
    }
    nodes
}

/// Derives what was loaded without the settings of a node for them.
fn rebuild(node: &Reconciling) {
    let mut rebuild = node.node.command("rebuild", &[]);
    rebuild.envs(node.settings().iter().map(|setting| setting.split_once('=').unwrap()));
    assert!(rebuild.output().unwrap().status.success());
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

/// Waits for so many further sessions of each with each of its partners, and sees that nothing is fetched meanwhile.
fn quiet(nodes: &[Reconciling], sessions: u64) {
    std::thread::sleep(Duration::from_secs(3));
    let requests = || -> Vec<Vec<u64>> { nodes.iter().map(|node| numbers(node, "requests")).collect() };
    let before = requests();
    sessions_more(nodes, sessions);
    assert_eq!(requests(), before);
}

/// Waits until each has had so many more sessions with each of its partners.
fn sessions_more(nodes: &[Reconciling], more: u64) {
    let sessions = || -> Vec<Vec<u64>> { nodes.iter().map(|node| numbers(node, "sessions")).collect() };
    let start = sessions();
    wait(WITHIN + Duration::from_secs(2) * more as u32, || {
        let now = sessions();
        let mut pairs = now.iter().flatten().zip(start.iter().flatten());
        match pairs.all(|(now, start)| *now >= start + more) {
            true => Ok(()),
            false => Err(format!("{now:?} sessions after {start:?}")),
        }
    })
    .unwrap();
}

/// A number of what a node knows about each partner, in the order in which they were given to it.
fn numbers(node: &Reconciling, key: &str) -> Vec<u64> {
    let reports: serde_json::Value = serde_json::from_str(&node.node.succeed("peers", &["--json"])).unwrap();
    let all = reports.as_array().unwrap().iter();
    all.map(|report| report[key].as_u64().unwrap()).collect()
}

fn sum(node: &Reconciling, key: &str) -> u64 {
    numbers(node, key).iter().sum()
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

/// What a node fetched of its only partner, how much of that brought nothing new, and how much went the wrong way.
fn fetched(report: &serde_json::Value) -> [u64; 3] {
    ["fetched", "needless", "wrong_way"].map(|key| report[key].as_u64().unwrap())
}

/// One session tells both what they lack, and both have exactly that afterwards.
#[test]
fn exactly_what_is_newer_is_fetched() {
    let sides = sides();
    let second = one_session(&sides);
    let expected = ALONE as u64 + NEWER as u64 / 2;
    assert_eq!(second, [[expected, 0, 0]; 2]);

    let nodes = pair(&sides, "sks", &[]);
    settle(&nodes, &SKS);
    let first = nodes.each_ref().map(|node| fetched(&node.report()));
    println!("fetched, of no use, the wrong way: first generation {first:?}, second {second:?}");
    for [fetched, needless, _] in first {
        // Everything that differs goes one way at least, and much of it comes for nothing.
        assert!(fetched > expected + NEWER as u64 / 2 && needless > 0, "{first:?}");
    }
}

/// What each of two nodes fetches for one session, and that a second one finds nothing. Neither calls the other of itself:
/// one knows no partner, and the other a wrong port.
fn one_session(sides: &[Vec<u8>; 2]) -> [[u64; 3]; 2] {
    let here = Reconciling::new(Node::with(&[&sides[0]]), "127.0.0.1").start();
    let at_here = here.server.as_ref().unwrap().http();
    let there = Reconciling::new(Node::with(&[&sides[1]]), "127.0.0.2").gossip(100_000);
    let there = there.partner(&format!("127.0.0.1:1,http=http://{at_here}")).start();
    let (recon, at_there) = (&there.recon, there.server.as_ref().unwrap().http());
    let text = format!(
        "[peers]\nlisten = [\"127.0.0.1:0\"]\n\n[[partner]]\nname = \"there\"\nrecon = \"{recon}\"\n\
         http = \"http://{at_there}\"\ndataset = \"openpgp/2\"\n"
    );
    let file = here.node.file("keyrink.toml", text.as_bytes());
    let peers = |arguments: &[&str]| {
        let config = ["--config", file.to_str().unwrap()];
        here.node.succeed("peers", &[&config[..], arguments].concat())
    };
    peers(&["sync", "there"]);
    wait(WITHIN, || match held(&here, &SECOND) == held(&there, &SECOND) {
        true => Ok(()),
        false => Err([here.log(), there.log()].concat()),
    })
    .unwrap();
    let reports = || {
        // They are written every second.
        std::thread::sleep(Duration::from_secs(2));
        let ours: serde_json::Value = serde_json::from_str(&peers(&["--json"])).unwrap();
        [ours[0].clone(), there.report()]
    };
    let first = reports();
    assert_eq!(first.each_ref().map(|report| report["sessions"].as_u64()), [Some(1); 2]);
    let again = peers(&["sync", "there"]);
    assert!(again.starts_with("it has 0 elements that are not here\n"), "{again}");
    let second = reports();
    assert_eq!(
        second.each_ref().map(|report| report["differences"].as_u64()),
        [Some(0); 2]
    );
    assert_eq!(second.each_ref().map(fetched), first.each_ref().map(fetched));
    for node in [&here, &there] {
        node.node.check();
    }
    first.each_ref().map(fetched)
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

/// A key that is submitted to one of five nodes in a ring is soon served by all of them, and they cost each other little
/// while there is none. The nodes are as they come, both generations included.
#[test]
fn a_ring_of_five_spreads_what_is_submitted() {
    let submissions = rounds("KEYRINK_SUBMISSIONS", 15);
    // Calls while nothing happens: as usual, unless there is no time to wait for some.
    let gossip = if submissions >= 200 { 60 } else { 10 };
    let mut nodes: Vec<Reconciling> = (1..=5)
        .map(|nth| {
            let node = Reconciling::new(Node::with(&[&generated(0..50)]), &format!("127.0.0.{nth}"));
            node.gossip(gossip)
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
        let (armored, path) = (
            cert.armored(),
            format!("/pks/lookup?op=get&search=0x{}", cert.fingerprint()),
        );
        let start = Instant::now();
        assert_eq!(clients[at].add(&armored).unwrap().status, 200);
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
    std::thread::sleep(Duration::from_secs(2 * u64::from(gossip) + 5));
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
