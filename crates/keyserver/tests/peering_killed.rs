//! A node that is killed while it reconciles, again and again: nothing is lost, and all become equal.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::Node;
use common::peering::{Reconciling, handed_out, wait};
use keyrink_recon::random::Random;
use keyrink_testkit::http::Client;
use keyrink_testkit::peers::{Sks, SksOptions};
use keyrink_testkit::{armor, generate};

/// Shortened; `scripts/crash-peers` has fifty rounds of it.
#[test]
fn killed_during_sessions_and_recovery_it_converges() {
    let rounds: u64 = std::env::var("KEYRINK_PEERING_KILLS").map_or(4, |rounds| rounds.parse().unwrap());
    let mut nodes = Nodes::new();
    let (mut random, mut kills) = (Random::new(rounds), Vec::new());
    for round in 0..rounds {
        let partner = if round % 2 == 0 { "other" } else { "sks" };
        let aim = if round % 4 < 2 { "fetching" } else { "session" };
        let kill = nodes.round(round, partner, aim, &mut random);
        println!("round {round}: killed while {kill:?}");
        kills.push(kill);
    }
    let during = |what: &[&str], partner: &str| {
        let hit = |kill: &Vec<Doing>| {
            kill.iter()
                .any(|doing| what.contains(&&*doing.state) && doing.partner == partner)
        };
        kills.iter().filter(|kill| hit(kill)).count()
    };
    let (mut all_sessions, mut all_recoveries) = (0, 0);
    for partner in ["other", "sks"] {
        let (sessions, recoveries) = (during(&SESSION, partner), during(&["fetching"], partner));
        println!("{partner}: {sessions} kills during a session, {recoveries} while fetching");
        assert!(sessions + recoveries > 0, "{kills:?}");
        (all_sessions, all_recoveries) = (all_sessions + sessions, all_recoveries + recoveries);
    }
    assert!(all_recoveries > 0, "{kills:?}");
    // In a few rounds none may be hit: each takes but some milliseconds.
    assert!(all_sessions > 0 || rounds < 8, "{kills:?}");
    nodes.converge();
}

/// What the victim was doing with a partner.
#[derive(Debug)]
struct Doing {
    partner: String,
    state: String,
}

/// States of a session.
const SESSION: [&str; 2] = ["calling", "answering"];
/// Certificates that a partner gets in each round.
const MORE: u64 = 300;

/// The one that is killed, and its partners.
struct Nodes {
    victim: Reconciling,
    other: Reconciling,
    sks: Sks,
    /// How many certificates there are.
    count: u64,
}

impl Nodes {
    fn new() -> Self {
        let victim = Reconciling::new(Node::with(&[&certificates(1, 0..10)]), "127.0.0.2");
        let other = Reconciling::new(Node::with(&[&certificates(2, 0..10)]), "127.0.0.3");
        let sks = Sks::start(SksOptions {
            membership: vec![("127.0.0.2".to_owned(), victim.port())],
            recon: true,
            gossip_minutes: 0.05,
            both_filters: true,
            ..SksOptions::default()
        })
        .unwrap();
        let (at_victim, at_other) = (victim.recon.clone(), other.recon.clone());
        let at_sks = format!("127.0.0.1:{}", sks.recon_port());
        let victim = victim
            .partner(&format!("{at_other},name=other,pause_seconds=0.02"))
            .partner(&format!("{at_sks},name=sks,pause_seconds=0.1"))
            .setting("KEYRINK_LOG_FILTER=info,keyrink::peers=debug")
            .gossip(1);
        let other = other.partner(&at_victim).gossip(1).start();
        Self {
            victim,
            other,
            sks,
            count: 20,
        }
    }

    /// Gives a partner something new and kills the victim at a moment after it began to do `aim` with that partner, again
    /// until it did something when it died. Tells what. Nothing, if all sessions were over sooner: it died between two of them
    /// then, which is a moment like any other.
    fn round(&mut self, round: u64, partner: &str, aim: &str, random: &mut Random) -> Vec<Doing> {
        let mut ever_begun = false;
        for attempt in 0..ATTEMPTS_MAX {
            let more = certificates(3, self.count..self.count + MORE);
            match partner {
                "sks" => assert_eq!(Client::new(self.sks.http()).add(&armor(&more)).unwrap().status, 200),
                _ => drop(self.other.node.load(&[&self.other.node.file("more.pgp", &more)])),
            }
            self.victim.start_again();
            let own = generate::certificate(4, round * ATTEMPTS_MAX + attempt).armored();
            assert_eq!(self.victim.client().add(&own).unwrap().status, 200);
            self.count += MORE + 1;
            let begun = wait_briefly(|| {
                let doing = doing(&self.victim.log());
                let wanted = |state: &str| state == aim || aim == "session" && SESSION.contains(&state);
                doing
                    .iter()
                    .any(|doing| doing.partner == partner && wanted(&doing.state))
            });
            ever_begun |= begun;
            if begun {
                let most = if aim == "session" { 3_000 } else { 200_000 };
                thread::sleep(Duration::from_micros(random.next_u64() % most));
            }
            self.victim.server().kill();
            self.victim.node.check();
            let mut doing = doing(&self.victim.log());
            doing.retain(|doing| doing.state == "fetching" || SESSION.contains(&&*doing.state));
            if !doing.is_empty() {
                return doing;
            }
        }
        assert!(ever_begun, "the victim does not reconcile: {}", self.victim.log());
        assert_eq!(aim, "session", "no fetch was hit: {}", self.victim.log());
        Vec::new()
    }

    /// All three come to hold everything.
    fn converge(&mut self) {
        self.victim.start_again();
        wait(Duration::from_secs(300), || {
            let (one, two) = (self.victim.digests(), self.other.digests());
            let three = handed_out(&mut Client::new(self.sks.http()), &two);
            match one == two && two == three && one.len() as u64 == self.count {
                true => Ok(()),
                false => Err(format!(
                    "{}, {} and {} of {}\n{}",
                    one.len(),
                    two.len(),
                    three.len(),
                    self.count,
                    self.victim.log()
                )),
            }
        })
        .unwrap();
        self.victim.server().terminate();
        self.victim.node.check();
        self.other.node.check();
    }
}

/// A round is tried again when the victim was between two sessions at its end.
const ATTEMPTS_MAX: u64 = 8;

/// What was said last about each partner, by the log.
fn doing(log: &str) -> Vec<Doing> {
    let last = |partner: &str| {
        let mut lines = log.lines().rev();
        let line = lines.find(|line| line.contains(": now ") && line.contains(&format!("partner=\"{partner}\"")))?;
        let state = line.split(": now ").nth(1)?.split(' ').next()?;
        Some(Doing {
            partner: partner.to_owned(),
            state: state.to_owned(),
        })
    };
    ["other", "sks"].into_iter().filter_map(last).collect()
}

/// Looks again and again, because a session of a few hundred differences takes but some milliseconds.
fn wait_briefly(mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(15) {
        if done() {
            return true;
        }
        thread::sleep(Duration::from_micros(100));
    }
    false
}

fn certificates(seed: u64, indices: std::ops::Range<u64>) -> Vec<u8> {
    let mut octets = Vec::new();
    generate::write(&mut octets, seed, indices).unwrap();
    octets
}
