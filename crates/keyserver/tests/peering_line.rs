//! Several nodes: in a line with SKS between them, and with links that come and go.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::peering::{Digests, Reconciling, digests, handed_out, wait};
use common::{Node, PROGRAM};
use keyrink_recon::random::Random;
use keyrink_testkit::generate;
use keyrink_testkit::http::Client;
use keyrink_testkit::peers::{Sks, SksOptions};

#[test]
fn three_keyrinks_and_two_sks_in_a_line() {
    let part = |at: u64| certificates(1, 40 * at..40 * (at + 1));
    let node = |at, address| Reconciling::new(Node::with(&[&part(at)]), address);
    let [first, middle, last] = [node(0, "127.0.0.2"), node(2, "127.0.0.3"), node(4, "127.0.0.4")];
    let one = sks_between(&first, &middle, &part(1));
    let other = sks_between(&middle, &last, &part(3));
    // Both have the same address: the ports tell them apart.
    let known = |sks: &Sks| {
        format!(
            "127.0.0.1:{},http=http://{},pause_seconds=0.5",
            sks.recon_port(),
            sks.http()
        )
    };
    let nodes = [
        first.partner(&known(&one)),
        middle.partner(&known(&one)).partner(&known(&other)),
        last.partner(&known(&other)),
    ];
    let nodes = nodes.map(|node| node.gossip(3).start());
    wait(Duration::from_secs(240), || {
        let held = nodes.each_ref().map(Reconciling::digests);
        let there = [&one, &other].map(|sks| handed_out(&mut Client::new(sks.http()), &held[0]));
        let counts: Vec<usize> = held.iter().chain(&there).map(Digests::len).collect();
        if held[0].len() == 200 && held.iter().chain(&there).all(|set| *set == held[0]) {
            return Ok(());
        }
        Err(format!("{counts:?}\n{}", nodes[1].log()))
    })
    .unwrap();
}

#[test]
fn links_that_come_and_go() {
    let Some(network) = Network::new() else {
        return keyrink_testkit::report::skipped("network namespaces are not permitted here");
    };
    let mut random = Random::new(7);
    let (mut up, mut count) = ([true; NODES], 0);
    for _ in 0..30 {
        let link = random.next_u64() as usize % NODES;
        up[link] = !up[link];
        network.set(link, up[link]);
        network.load(random.next_u64() as usize % NODES, &certificates(5, count..count + 3));
        count += 3;
        thread::sleep(Duration::from_millis(random.next_u64() % 500));
    }
    (0..NODES).for_each(|link| network.set(link, true));
    let (healed, before) = (Instant::now(), network.calls());
    let rounds = wait(Duration::from_secs(120), || {
        let rounds = network.rounds_since(&before);
        let held: Vec<Digests> = network.nodes.iter().map(|node| digests(&node.data)).collect();
        let counts: Vec<usize> = held.iter().map(Digests::len).collect();
        match held.iter().all(|set| set.len() as u64 == count && *set == held[0]) {
            true => Ok(rounds),
            false if rounds > ROUNDS_MAX => panic!("{counts:?} of {count} after {rounds} rounds"),
            false => Err(format!("{counts:?} of {count} after {rounds} rounds")),
        }
    })
    .unwrap();
    let seconds = healed.elapsed().as_secs_f64();
    println!("equal {seconds:.1} s and {rounds} whole rounds after the last link was healed");
}

/// A round is over when every node has begun another call to every partner, for what a call finds is fetched before
/// the next one.
const ROUNDS_MAX: u64 = 3;
/// Nodes in a ring, as many as links.
const NODES: usize = 5;
/// Seconds between two calls.
const GOSSIP: u64 = 2;

/// Five network namespaces, joined to a ring, with a Keyrink in each.
struct Network {
    names: Vec<String>,
    nodes: Vec<InNetwork>,
    _folder: tempfile::TempDir,
}

struct InNetwork {
    data: PathBuf,
    child: Child,
}

impl Network {
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..NODES).map(|at| format!("kr{}n{at}", std::process::id())).collect();
        let mut network = Self {
            names: Vec::new(),
            nodes: Vec::new(),
            _folder: folder,
        };
        for name in names {
            if !ip(&["netns", "add", &name]) {
                return None;
            }
            assert!(ip(&["-n", &name, "link", "set", "lo", "up"]));
            network.names.push(name);
        }
        for link in 0..NODES {
            let [left, right] = [link, (link + 1) % NODES].map(|at| network.names[at].clone());
            let [l, r] = [format!("l{link}"), format!("r{link}")];
            assert!(ip(&[
                "link", "add", &l, "netns", &left, "type", "veth", "peer", "name", &r, "netns", &right
            ]));
            for (name, device, host) in [(&left, &l, 1), (&right, &r, 2)] {
                let address = format!("10.91.{link}.{host}/30");
                assert!(ip(&["-n", name, "address", "add", &address, "dev", device]));
                assert!(ip(&["-n", name, "link", "set", device, "up"]));
            }
        }
        for at in 0..NODES {
            let node = network.start(at);
            network.nodes.push(node);
        }
        Some(network)
    }

    fn start(&self, at: usize) -> InNetwork {
        let folder = self._folder.path().join(at.to_string());
        std::fs::create_dir(&folder).unwrap();
        let before = (at + NODES - 1) % NODES;
        let partners = [format!("10.91.{before}.1:11370"), format!("10.91.{at}.2:11370")];
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.names[at], PROGRAM, "serve", "--data"])
            .arg(folder.join("data"));
        command.args([
            "--http",
            "0.0.0.0:11371",
            "--recon",
            "0.0.0.0:11370",
            "--gossip-interval",
            &GOSSIP.to_string(),
        ]);
        for partner in partners {
            command.args(["--partner", &format!("recon={partner}")]);
        }
        let log = File::create(folder.join("log")).unwrap();
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let data = folder.join("data");
        wait(Duration::from_secs(30), || {
            match data.join("keyrink.db").exists() {
                true => Ok(()),
                false => Err("no store"),
            }
            .map_err(str::to_owned)
        })
        .unwrap();
        InNetwork { data, child }
    }

    /// How many calls each node has begun to each of its partners.
    fn calls(&self) -> Vec<u64> {
        let calls = |name: &String| {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", name, "curl", "-s", "http://127.0.0.1:11371/metrics"]);
            let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
            let lines = text.lines().filter(|line| line.starts_with("keyrink_peer_calls_total"));
            let mut counts: Vec<(String, u64)> = lines
                .map(|line| line.rsplit_once(' ').unwrap())
                .map(|(partner, count)| (partner.to_owned(), count.parse().unwrap()))
                .collect();
            counts.sort();
            assert_eq!(counts.len(), 2, "{text}");
            counts.into_iter().map(|(_, count)| count)
        };
        self.names.iter().flat_map(calls).collect()
    }

    fn rounds_since(&self, before: &[u64]) -> u64 {
        let begun = self.calls().into_iter().zip(before).map(|(now, before)| now - before);
        begun.min().unwrap().saturating_sub(1)
    }

    fn set(&self, link: usize, up: bool) {
        let state = if up { "up" } else { "down" };
        assert!(ip(&[
            "-n",
            &self.names[link],
            "link",
            "set",
            &format!("l{link}"),
            state
        ]));
    }

    fn load(&self, at: usize, octets: &[u8]) {
        let node = &self.nodes[at];
        let file = node.data.with_file_name("more.pgp");
        std::fs::write(&file, octets).unwrap();
        let mut command = Command::new(PROGRAM);
        command
            .arg("load")
            .arg("--data")
            .arg(&node.data)
            .arg(&file)
            .stdout(Stdio::null());
        assert!(command.status().unwrap().success());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.child.kill();
            let _ = node.child.wait();
            if thread::panicking() {
                let log = std::fs::read_to_string(node.data.with_file_name("log")).unwrap_or_default();
                eprintln!("{}\n{log}", node.data.display());
            }
        }
        for name in &self.names {
            ip(&["netns", "del", name]);
        }
    }
}

fn ip(arguments: &[&str]) -> bool {
    let mut command = Command::new("ip");
    let command = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// An SKS with two partners.
fn sks_between(left: &Reconciling, right: &Reconciling, keyring: &[u8]) -> Sks {
    let file = left.node.file("sks.pgp", keyring);
    let member = |node: &Reconciling| (node.recon.split(':').next().unwrap().to_owned(), node.port());
    Sks::start(SksOptions {
        keyrings: vec![file],
        membership: vec![member(left), member(right)],
        recon: true,
        gossip_minutes: 0.05,
        both_filters: true,
        ..SksOptions::default()
    })
    .unwrap()
}

fn certificates(seed: u64, indices: std::ops::Range<u64>) -> Vec<u8> {
    let mut octets = Vec::new();
    generate::write(&mut octets, seed, indices).unwrap();
    octets
}
