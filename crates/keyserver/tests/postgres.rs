//! Several servers on one PostgreSQL database: they show the same, one of them calls each partner, and a load beside them
//! loses nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use common::Node;
use common::peering::{Reconciling, digests, wait};
use keyrink_testkit::http::Client;
use keyrink_testkit::{Certificate, Reason, generate};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Servers on `node`'s database, each on an address of its own, that reconcile with `partners`.
fn servers(node: &Node, partners: &[&str]) -> Vec<Reconciling> {
    let start = |number: usize| {
        let server = Reconciling::new(node.beside(), &format!("127.0.0.{number}")).gossip(2);
        let with = partners.iter().fold(server, |server, partner| server.partner(partner));
        with.setting("KEYRINK_LOG_FILTER=info,keyrink::peers=debug").start()
    };
    (21..24).map(start).collect()
}

/// A number that a server shows.
fn shown(server: &Reconciling, figure: &str) -> f64 {
    let text = server.client().get("/metrics").unwrap().text();
    let line = text.lines().find(|line| line.starts_with(figure));
    line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// What a server's trees come to, and at which version of the store.
fn tree(server: &Reconciling) -> (BTreeSet<String>, BTreeSet<String>) {
    let text = server.client().get("/metrics").unwrap().text();
    let lines = |name: &'static str| {
        text.lines()
            .filter(move |line| line.starts_with(name))
            .map(str::to_owned)
    };
    (
        lines("keyrink_tree_seen")
            .filter(|line| !line.ends_with(" 0"))
            .collect(),
        lines("keyrink_tree_sum").collect(),
    )
}

/// Each partner reconciles with all three servers while all three take submissions of the same certificates.
#[test]
fn three_servers_show_the_same() {
    const WRITERS: u64 = 8;
    const CERTIFICATES: u64 = 120;
    let node = Node::on_postgres();
    let mut peers: Vec<_> = (31..33)
        .map(|number| Reconciling::new(Node::embedded(), &format!("127.0.0.{number}")).gossip(2))
        .collect();
    let addresses: Vec<_> = peers.iter().map(|peer| peer.recon.clone()).collect();
    let servers = servers(&node, &addresses.iter().map(String::as_str).collect::<Vec<_>>());
    for peer in &mut peers {
        let known = servers.iter().map(|server| server.recon.clone()).collect::<Vec<_>>();
        *peer = known.iter().fold(
            std::mem::replace(peer, Reconciling::new(Node::embedded(), "127.0.0.40")),
            |peer, server| peer.partner(server),
        );
        peer.start_again();
    }
    std::thread::scope(|scope| {
        for server in &servers {
            for writer in 0..WRITERS {
                scope.spawn(move || {
                    let mut client = server.client();
                    for step in 0..CERTIFICATES {
                        // Each starts elsewhere, so that all meet all others again and again.
                        let number = (step + writer * CERTIFICATES / WRITERS) % CERTIFICATES;
                        let answer = client.add(&generate::certificate(77, number).armored()).unwrap();
                        assert_eq!(answer.status, 200, "{}", answer.text());
                    }
                });
            }
        }
    });
    let report = node.check();
    assert!(report.contains(&format!("certificates  {CERTIFICATES}")), "{report}");
    let ours = digests(&node.data());
    for peer in &peers {
        let equal = wait(Duration::from_secs(60), || match peer.digests() == ours {
            true => Ok(()),
            false => Err(format!("{} of {}\n{}", peer.digests().len(), ours.len(), peer.log())),
        });
        equal.unwrap();
    }
    let trees = wait(Duration::from_secs(20), || {
        let trees: Vec<_> = servers.iter().map(tree).collect();
        let same = trees.iter().all(|tree| *tree == trees[0] && !tree.0.is_empty());
        if same { Ok(trees) } else { Err(format!("{trees:?}")) }
    });
    trees.unwrap();
    node.check();
}

/// Which of the servers says that it calls the partner, and by which token: one of them, after a moment.
fn caller(servers: &[Reconciling], still: Option<usize>) -> (usize, f64) {
    let callers = || -> Vec<(usize, f64)> {
        let running = servers.iter().enumerate().filter(|(_, server)| server.server.is_some());
        let tokens = running
            .filter(|(number, _)| Some(*number) != still)
            .map(|(number, server)| (number, shown(server, "keyrink_peer_lease{")));
        tokens.filter(|(_, token)| *token > 0.0).collect()
    };
    // Whoever stands still in the midst of a transaction keeps its locks until the database ends that, after ten seconds.
    let within = Duration::from_secs(if still.is_some() { 20 } else { 5 });
    let one = wait(within, || match callers()[..] {
        [one] => Ok(one),
        ref others => Err(format!("{others:?}")),
    });
    one.unwrap()
}

/// No two servers called by one token, as the logs of all their lives tell.
fn assert_tokens_used_once(logs: &[(usize, String)]) {
    let mut used = BTreeMap::new();
    for (server, log) in logs {
        let calls = log.lines().filter(|line| line.contains("calling"));
        for (line, token) in calls.filter_map(|line| Some((line, line.split_once("token=")?.1))) {
            let token = token.split_whitespace().next().unwrap().to_owned();
            assert_eq!(*used.entry(token).or_insert(*server), *server, "{line}");
        }
    }
    assert!(used.len() >= 3, "{used:?}");
}

fn logs(servers: &[Reconciling]) -> impl Iterator<Item = (usize, String)> {
    servers
        .iter()
        .enumerate()
        .map(|(number, server)| (number, server.log()))
}

#[test]
fn a_partner_is_called_by_one_server_after_another() {
    let partner = Reconciling::new(Node::embedded(), "127.0.0.33");
    let node = Node::on_postgres();
    let mut servers = servers(&node, &[&partner.recon]);
    let (mut holder, mut token) = caller(&servers, None);
    let mut told = Vec::new();
    for round in 0..4 {
        told.push((holder, servers[holder].log()));
        servers[holder].server = None;
        let began = Instant::now();
        let next = caller(&servers, None);
        println!("taken over after {:?}", began.elapsed());
        assert!(
            next.0 != holder && next.1 == token + 1.0,
            "round {round}: {next:?} after {token}"
        );
        servers[holder].start_again();
        (holder, token) = next;
    }
    told.extend(logs(&servers));
    assert_tokens_used_once(&told);
}

/// A server that stood still does not know how long; when it goes on, it calls nobody any more.
#[test]
fn a_caller_that_stood_still_leaves_its_partner_to_the_next() {
    let partner = Reconciling::new(Node::embedded(), "127.0.0.38").start();
    let node = Node::on_postgres();
    let mut servers = servers(&node, &[&partner.recon]);
    let (mut holder, mut token) = caller(&servers, None);
    for round in 0..3 {
        servers[holder].server.as_mut().unwrap().freeze();
        let next = caller(&servers, Some(holder));
        servers[holder].server.as_mut().unwrap().thaw();
        assert!(
            next.0 != holder && next.1 == token + 1.0,
            "round {round}: {next:?} after {token}"
        );
        // Long enough for calls and beats of both.
        let until = Instant::now() + Duration::from_secs(4);
        while Instant::now() < until {
            assert_eq!(caller(&servers, None), next, "round {round}");
        }
        (holder, token) = next;
    }
    assert_tokens_used_once(&logs(&servers).collect::<Vec<_>>());
}

/// Certificates come by a load, by submissions to a server, and by an import of the same, all at once.
#[test]
fn a_load_beside_servers_loses_nothing() {
    const LOADED: u64 = 4_000;
    let node = Node::on_postgres();
    let (server, other) = (node.serve(), node.serve());
    let mut octets = Vec::new();
    generate::write(&mut octets, 11, 0..LOADED).unwrap();
    let file = node.file("keyring.pgp", &octets);
    let mut load = node.command("load", &[file.to_str().unwrap()]);
    let mut running = load.stdout(std::process::Stdio::null()).spawn().unwrap();
    let numbers: Vec<u64> = (0..LOADED + 400).step_by(37).collect();
    std::thread::scope(|scope| {
        for (server, numbers) in [(&server, &numbers), (&other, &numbers)] {
            scope.spawn(move || {
                let mut client = Client::new(server.http());
                for number in numbers.iter().rev() {
                    let answer = client.add(&generate::certificate(11, *number).armored()).unwrap();
                    assert_eq!(answer.status, 200, "{}", answer.text());
                }
            });
        }
    });
    assert!(running.wait().unwrap().success());
    let more = numbers.iter().filter(|number| **number >= LOADED).count() as u64;
    let report = node.check();
    assert!(
        report.contains(&format!("certificates  {}\n", LOADED + more)),
        "{report}"
    );
    let lanes = node
        .ask("SELECT count(*) FROM lane WHERE n > 0")
        .parse::<u32>()
        .unwrap();
    assert!(lanes >= 3, "the load uses lanes of its own: {lanes}");
    let rows = node.ask("SELECT kind, count(*) FROM component GROUP BY kind ORDER BY kind");
    assert_eq!(rows, format!("1|{0}\n2|{0}\n3|{0}", LOADED + more));
}

/// What a server holds that ends in order is there for others at once.
#[test]
fn a_server_that_ends_gives_back_what_it_holds() {
    let partner = Reconciling::new(Node::embedded(), "127.0.0.34");
    let node = Node::on_postgres();
    let mut server = Reconciling::new(node.beside(), "127.0.0.35")
        .partner(&partner.recon)
        .start();
    let held =
        "SELECT count(*) FROM note WHERE key LIKE 'lease %' AND convert_from(value, 'UTF8') NOT LIKE '%holder=0 %'";
    wait(Duration::from_secs(5), || match node.ask(held).as_str() {
        "1" => Ok(()),
        other => Err(other.to_owned()),
    })
    .unwrap();
    assert_eq!(node.ask("SELECT count(*) FROM lane WHERE claimed > 0"), "1");
    let status = server.server.as_mut().unwrap().terminate();
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    assert_eq!(node.ask(held), "0");
    assert_eq!(node.ask("SELECT count(*) FROM lane WHERE claimed > 0"), "0");
}

/// The queries that the page about the schema proposes.
#[test]
fn the_documented_queries_say_something() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/postgresql-schema.md")).unwrap();
    let queries = page.split("```sql").nth(1).unwrap().split("```").next().unwrap();
    let queries: Vec<&str> = queries.split("\n\n").filter(|query| !query.trim().is_empty()).collect();
    assert!(queries.len() >= 9, "{queries:?}");
    let node = Node::on_postgres();
    let mut octets = Vec::new();
    generate::write(&mut octets, 12, 0..20).unwrap();
    let soon = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs() as u32
        + 86_400;
    let expiring = Certificate::v4(1, "queries");
    let age = soon - expiring.primary().created();
    octets.extend(
        expiring
            .expires_after(age)
            .user_id("Still <still@example.org>")
            .to_bytes(),
    );
    octets.extend(
        Certificate::v4(2, "queries")
            .user_id("Gone <gone@example.org>")
            .revoke(Reason::Retired)
            .to_bytes(),
    );
    node.load(&[&node.file("keyring.pgp", &octets)]);
    for query in queries {
        let answer = node.ask(query);
        let may_be_empty = query.contains("FROM note") || query.contains("FROM refusal");
        assert!(may_be_empty || !answer.is_empty(), "{query}");
        println!("{query}\n{answer}\n");
    }
}

/// The short form of `scripts/shared-database`.
#[test]
fn servers_and_their_database_are_killed_and_lose_nothing() {
    let plan = keyrink_testkit::shared::Plan {
        program: common::PROGRAM.into(),
        duration: Duration::from_secs(3),
        kills: 2,
        leases: 2,
        seed: 5,
    };
    let summary = keyrink_testkit::shared::run(&plan, |_| {}).unwrap();
    println!("{summary}");
    assert!(summary.faults.is_empty(), "{summary}");
}

/// What one server stores is in another's tree within a second, also while a dump reads everything.
#[test]
fn a_tree_follows_within_a_second() {
    const ROUNDS: u64 = 10;
    let node = Node::on_postgres();
    let mut octets = Vec::new();
    generate::write(&mut octets, 16, 0..2_000).unwrap();
    node.load(&[&node.file("keyring.pgp", &octets)]);
    // A partner that is not there: without one no tree is kept.
    let [one, other] = ["127.0.0.36", "127.0.0.37"]
        .map(|address| Reconciling::new(node.beside(), address).partner("127.0.0.99:1").start());
    let elements = || shown(&other, "keyrink_tree_elements{dataset=\"sks\"}") as u64;
    wait(Duration::from_secs(20), || match elements() {
        2_000 => Ok(()),
        elements => Err(elements.to_string()),
    })
    .unwrap();
    let dump = node.path("dump");
    let mut dumping = node.command("dump", &[dump.to_str().unwrap()]).spawn().unwrap();
    let mut late = Vec::new();
    for round in 0..ROUNDS {
        let answer = one
            .client()
            .add(&generate::certificate(16, 2_000 + round).armored())
            .unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let began = Instant::now();
        while elements() <= 2_000 + round {
            assert!(began.elapsed() < Duration::from_secs(20), "round {round}");
            std::thread::sleep(Duration::from_millis(20));
        }
        late.push(began.elapsed());
    }
    assert!(dumping.wait().unwrap().success());
    late.sort_unstable();
    println!("{late:?}");
    // One of them may have met a moment in which the machine was busy.
    assert!(late[ROUNDS as usize - 2] < Duration::from_secs(1), "{late:?}");
}
