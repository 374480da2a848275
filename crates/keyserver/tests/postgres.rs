//! Several servers on one PostgreSQL database: they show the same, one of them calls each partner, and the database may
//! go and come back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use common::peering::{Reconciling, digests, wait};
use common::{Node, get};
use keyrink_testkit::generate;
use keyrink_testkit::http::Client;
use keyrink_testkit::peers::run;
use std::collections::BTreeSet;
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

/// What a server's tree comes to, and at which version of the store.
fn tree(server: &Reconciling) -> (BTreeSet<String>, String) {
    let text = server.client().get("/metrics").unwrap().text();
    let lines = |name: &'static str| {
        text.lines()
            .filter(move |line| line.starts_with(name))
            .map(str::to_owned)
    };
    let sum = lines("keyrink_tree_sum").next().unwrap_or_default();
    (
        lines("keyrink_tree_seen")
            .filter(|line| !line.ends_with(" 0"))
            .collect(),
        sum,
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

#[test]
fn a_partner_is_called_by_one_server_after_another() {
    let partner = Reconciling::new(Node::embedded(), "127.0.0.33");
    let node = Node::on_postgres();
    let mut servers = servers(&node, &[&partner.recon]);
    let callers = |servers: &[Reconciling]| -> Vec<(usize, f64)> {
        let running = servers.iter().enumerate().filter(|(_, server)| server.server.is_some());
        let tokens = running.map(|(number, server)| (number, shown(server, "keyrink_peer_lease{")));
        tokens.filter(|(_, token)| *token > 0.0).collect()
    };
    let one = |servers: &[Reconciling]| {
        wait(Duration::from_secs(5), || match callers(servers)[..] {
            [one] => Ok(one),
            ref others => Err(format!("{others:?}")),
        })
    };
    let (mut holder, mut token) = one(&servers).unwrap();
    let mut logs = Vec::new();
    for round in 0..4 {
        logs.push((holder, servers[holder].log()));
        servers[holder].server = None;
        let began = Instant::now();
        let next = one(&servers).unwrap();
        println!("taken over after {:?}", began.elapsed());
        assert!(
            next.0 != holder && next.1 == token + 1.0,
            "round {round}: {next:?} after {token}"
        );
        servers[holder].start_again();
        (holder, token) = next;
    }
    // Whoever called, by the tokens that the logs of all lives of all servers name.
    logs.extend(
        servers
            .iter()
            .enumerate()
            .map(|(number, server)| (number, server.log())),
    );
    let mut used = std::collections::BTreeMap::new();
    for (server, log) in &logs {
        for line in log
            .lines()
            .filter(|line| line.contains("calling") && line.contains("token="))
        {
            let token = line
                .split("token=")
                .nth(1)
                .unwrap()
                .split_whitespace()
                .next()
                .unwrap()
                .to_owned();
            assert_eq!(*used.entry(token).or_insert(*server), *server, "{line}");
        }
    }
    assert!(used.len() >= 3, "{used:?}");
}

#[test]
fn a_database_that_is_away_is_said_to_be_and_found_again() {
    let node = Node::on_postgres();
    let server = node.serve();
    let known = generate::certificate(5, 0);
    let mut client = Client::new(server.http());
    client.add(&known.armored()).unwrap();
    node.postgres().kill();
    let mut asked = |path: &str| {
        client.close();
        let began = Instant::now();
        let status = client.get(path).unwrap().status;
        assert!(
            began.elapsed() < Duration::from_secs(8),
            "{path}: {:?}",
            began.elapsed()
        );
        status
    };
    let lookup = format!("/pks/lookup?op=get&search=0x{}", known.fingerprint());
    // It was looked at a moment ago.
    let noticed = wait(Duration::from_secs(5), || match asked("/readyz") {
        503 => Ok(()),
        status => Err(status.to_string()),
    });
    noticed.unwrap();
    assert_eq!((asked(&lookup), asked("/healthz")), (500, 200));
    let refused = Client::new(server.http())
        .add(&generate::certificate(5, 1).armored())
        .unwrap();
    assert_eq!(refused.status, 500, "{}", refused.text());
    node.postgres().start_again().unwrap();
    let ready = wait(Duration::from_secs(5), || match asked("/readyz") {
        200 => Ok(()),
        status => Err(status.to_string()),
    });
    ready.unwrap();
    assert_eq!(get(&mut client, &known.fingerprint()).status, 200);
    let taken = client.add(&generate::certificate(5, 1).armored()).unwrap();
    assert_eq!(taken.status, 200, "{}", taken.text());
    assert!(node.check().contains("certificates  2"));
}

/// What operators do: copy the database, restore it into an empty one, move to the embedded store and back.
#[test]
fn copies_and_moves_hold_the_same() {
    let node = Node::on_postgres();
    let mut octets = Vec::new();
    generate::write(&mut octets, 6, 0..300).unwrap();
    node.load(&[&node.file("keyring.pgp", &octets)]);
    let report = node.check();

    let (restored, copy) = (Node::on_postgres(), node.path("copy"));
    std::fs::write(&copy, []).unwrap();
    let url = |node: &Node| node.data().to_str().unwrap().to_owned();
    let mut dump = node.postgres().client("pg_dump");
    run(
        dump.args(["--format=custom", "--file"]).arg(&copy).arg(url(&node)),
        "postgresql",
    )
    .unwrap();
    let mut restore = node.postgres().client("pg_restore");
    run(
        restore
            .args(["--exit-on-error", "--dbname", &url(&restored)])
            .arg(&copy),
        "postgresql",
    )
    .unwrap();
    assert_eq!(restored.check(), report);
    let server = restored.serve();
    let fingerprint = generate::certificate(6, 299).fingerprint();
    assert_eq!(get(&mut Client::new(server.http()), &fingerprint).status, 200);

    let mut from = node;
    for target in [Node::embedded(), Node::on_postgres()] {
        let dump = from.path("dump");
        from.succeed("dump", &[dump.to_str().unwrap()]);
        target.load(&[&dump]);
        assert_eq!(target.check(), report);
        from = target;
    }
}
