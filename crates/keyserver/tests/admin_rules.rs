//! `keyrink admin` beside running servers: what it prints, and that it holds at once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use common::{Finished, Node, PROGRAM, finish, get};
use keyrink_testkit::http::Client;
use keyrink_testkit::peers::store_arguments;
use keyrink_testkit::{Certificate, Reason, dearmor};
use std::process::Command;

fn cert(seed: u64, email: &str) -> Certificate {
    Certificate::v4(seed, "someone").user_id(format!("Someone <{email}>"))
}

fn admin(node: &Node, name: &str, arguments: &[&str]) -> Finished {
    let mut command = Command::new(PROGRAM);
    command
        .args(["admin", name])
        .args(store_arguments(&node.data()))
        .args(arguments);
    command.env("USER", "operator").env_remove("SUDO_USER");
    finish(command, b"")
}

fn succeed(node: &Node, name: &str, arguments: &[&str]) -> String {
    let finished = admin(node, name, arguments);
    assert_eq!(finished.code, Some(0), "{name} {arguments:?}: {finished:?}");
    finished.out
}

/// Finds by a search.
fn status(client: &mut Client, search: &str) -> u16 {
    client
        .get(&format!("/pks/lookup?op=index&options=mr&search={search}"))
        .unwrap()
        .status
}

#[test]
fn a_decision_holds_at_once_and_is_listed() {
    let (one, two) = (cert(1, "one@spam.example"), cert(2, "two@spam.example"));
    let good = cert(3, "three@example.org");
    let node = Node::with(&[&one.to_bytes(), &two.to_bytes(), &good.to_bytes()]);
    let server = node.serve();
    let mut client = Client::new(server.http());
    assert_eq!(status(&mut client, "one@spam.example"), 200);

    let preview = succeed(&node, "block", &["--reason", "spam", "--dry-run", "@spam.example"]);
    assert!(
        preview.starts_with("@spam.example: 2 stored certificates\n"),
        "{preview}"
    );
    assert!(preview.contains(&one.fingerprint()) && preview.contains(&two.fingerprint()));
    let unsure = admin(&node, "block", &["--reason", "spam", "@spam.example"]);
    assert_eq!(
        (unsure.code, unsure.err.contains("--yes")),
        (Some(1), true),
        "{unsure:?}"
    );
    assert_eq!(status(&mut client, "one@spam.example"), 200);

    let done = succeed(&node, "block", &["--reason", "spam", "--yes", "@spam.example"]);
    assert!(done.ends_with("block: done, 2 stored certificates\n"), "{done}");
    assert_eq!(status(&mut client, "one@spam.example"), 404);
    assert_eq!(get(&mut client, &two.fingerprint()).status, 404);
    assert_eq!(status(&mut client, "three@example.org"), 200);
    let later = client.add(&cert(4, "four@spam.example").armored()).unwrap();
    assert_eq!(
        (later.status, later.text().starts_with("refused")),
        (403, true),
        "{}",
        later.text()
    );

    let revoked = cert(1, "one@spam.example").revoke(Reason::Compromised);
    assert_eq!(client.add(&revoked.armored()).unwrap().status, 200);
    let answer = get(&mut client, &one.fingerprint());
    assert_eq!(answer.status, 200);
    let alone = Certificate::v4(1, "someone").revoke(Reason::Compromised).to_bytes();
    assert_eq!(dearmor(&answer.text()).len(), alone.len());

    assert_counted(&node, &mut client, &one);
    succeed(
        &node,
        "unblock",
        &["--reason", "better now", "--by", "Alice", "@spam.example"],
    );
    assert_eq!(status(&mut client, "two@spam.example"), 200);
    let log = succeed(&node, "list", &["--log"]);
    let lines: Vec<&str> = log.lines().collect();
    assert!(
        lines.len() == 2 && lines[1].contains("unblock") && lines[1].ends_with("Alice: better now"),
        "{log}"
    );
    node.check();
}

/// Both certificates of the domain are blocked, and everything that counts or explains says so.
fn assert_counted(node: &Node, client: &mut Client, one: &Certificate) {
    let stats: serde_json::Value =
        serde_json::from_slice(&client.get("/pks/stats?options=json").unwrap().body).unwrap();
    assert_eq!((&stats["blocked"], &stats["erased"]), (&2.into(), &0.into()), "{stats}");
    let listed = succeed(node, "list", &[]);
    assert!(
        listed.starts_with("block     @spam.example") && listed.contains("operator: spam"),
        "{listed}"
    );
    let check = node.check();
    assert!(check.contains("blocked") && check.contains("rules: block"), "{check}");
    let explained = node.succeed("explain", &[&one.fingerprint()]);
    assert!(
        explained.contains("rule: block @spam.example, by operator at "),
        "{explained}"
    );
    assert!(explained.contains("digest in sks: none"), "{explained}");
}

#[test]
fn what_is_erased_is_explained_and_stays_away_from_loads_and_dumps() {
    let (gone, good) = (cert(1, "one@example.org"), cert(2, "two@example.org"));
    let node = Node::with(&[&gone.to_bytes(), &good.to_bytes()]);
    succeed(&node, "erase", &["--reason", "asked", &gone.fingerprint()]);
    let explained = node.run("explain", &[&gone.fingerprint()]);
    assert!(explained.err.contains("there is a rule: erase "), "{explained:?}");
    let file = node.file("again.pgp", &[gone.to_bytes(), good.to_bytes()].concat());
    let report = node.load(&[&file]);
    assert!(
        report.contains("refused: 1\n") && report.contains("has blocked or erased"),
        "{report}"
    );
    let dump = node.path("dump");
    let dumped = node.succeed("dump", &[dump.to_str().unwrap()]);
    assert!(dumped.starts_with("1 certificates in 1 files"), "{dumped}");
    let rebuilt = node.succeed("rebuild", &[]);
    assert!(rebuilt.starts_with("1 certificates"), "{rebuilt}");
    let check = node.check();
    let first: Vec<&str> = check.split_whitespace().take(2).collect();
    assert_eq!(first, ["certificates", "1"], "{check}");
}

#[test]
fn lists_travel_between_servers() {
    let all = [
        cert(1, "one@example.org"),
        cert(2, "two@example.org"),
        cert(3, "a@spam.example"),
    ];
    let octets: Vec<Vec<u8>> = all.iter().map(Certificate::to_bytes).collect();
    let octets: Vec<&[u8]> = octets.iter().map(Vec::as_slice).collect();
    let (here, there) = (Node::with(&octets), Node::with(&octets));
    succeed(
        &here,
        "erase",
        &["--reason", "asked, \"urgently\"", &all[0].fingerprint()],
    );
    succeed(&here, "hide-uid", &["--reason", "asked", "--yes", "two@example.org"]);
    succeed(
        &here,
        "block",
        &["--reason", "spam", "--yes", "@spam.example", "@.spam.example"],
    );
    let exported = succeed(&here, "list", &["--export"]);
    assert_eq!(exported.lines().count(), 4, "{exported}");
    let file = there.file("rules.jsonl", exported.as_bytes());
    let file = file.to_str().unwrap();
    assert!(succeed(&there, "import", &["--reason", "shared", "--dry-run", file]).starts_with("4 rules, nothing"));
    assert_eq!(succeed(&there, "list", &[]), "");
    assert_eq!(
        succeed(&there, "import", &["--reason", "shared", file]),
        "import: done, 4 rules\n"
    );
    assert_eq!(succeed(&there, "list", &["--export"]), exported);
    assert_eq!(there.check(), here.check());
    let server = there.serve();
    let mut client = Client::new(server.http());
    assert_eq!(get(&mut client, &all[0].fingerprint()).status, 404);
    assert_eq!(get(&mut client, &all[1].fingerprint()).status, 200);
    assert_eq!(status(&mut client, "two@example.org"), 404);
    assert_eq!(status(&mut client, "a@spam.example"), 404);

    let wrong = there.file("wrong.jsonl", format!("{exported}{{\"action\":\"ban\"}}\n").as_bytes());
    let refused = admin(&there, "import", &["--reason", "x", wrong.to_str().unwrap()]);
    assert!(refused.code == Some(1) && refused.err.contains("line 5"), "{refused:?}");
}

#[test]
fn what_selects_nothing_is_named() {
    let node = Node::with(&[&cert(1, "one@example.org").encryption_subkey("sub").to_bytes()]);
    for (name, what, reason) in [
        ("block", "example.org", "selects no certificate"),
        ("unblock", "6C8857E0D8E8F074", "there is no rule about 6C8857E0D8E8F074"),
        ("erase", "12345678", "selects no certificate"),
    ] {
        let refused = admin(&node, name, &["--reason", "x", what]);
        assert!(refused.code == Some(1) && refused.err.contains(reason), "{refused:?}");
    }
    let help = admin(&node, "block", &["--help"]);
    assert!(
        help.out.contains("EXAMPLES:") && help.out.contains("--dry-run"),
        "{help:?}"
    );
}

/// Two servers on one database hear of a rule with the next request.
#[test]
fn all_servers_on_a_database_follow() {
    let node = Node::on_postgres();
    let cert = cert(1, "one@example.org");
    let file = node.file("first.pgp", &cert.to_bytes());
    node.load(&[&file]);
    let servers = [node.serve(), node.beside().serve()];
    let mut clients = servers.each_ref().map(|server| Client::new(server.http()));
    for round in 0..3 {
        // Each has written since the last change, so each knows the rules of before.
        for client in &mut clients {
            assert_eq!(client.add(&cert.armored()).unwrap().status, 200, "{round}");
            assert_eq!(get(client, &cert.fingerprint()).status, 200);
        }
        succeed(&node, "erase", &["--reason", "asked", &cert.fingerprint()]);
        for client in &mut clients {
            assert_eq!(get(client, &cert.fingerprint()).status, 404);
            assert_eq!(client.add(&cert.armored()).unwrap().status, 403);
        }
        succeed(&node, "unblock", &["--reason", "asked again", &cert.fingerprint()]);
    }
    node.check();
}
