//! `keyrink import-hockeypuck` on databases such as Hockeypuck has them, into either engine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use base64::Engine;
use common::{Finished, Node, finish, get};
use keyrink_testkit::generate;
use keyrink_testkit::http::Client;
use keyrink_testkit::keyring::entries;
use keyrink_testkit::peers::{Postgres, run};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The tables of Hockeypuck 2.4, as far as the rows fill them.
const TABLES: &str = "
    CREATE TABLE keys (rfingerprint text NOT NULL PRIMARY KEY, doc jsonb NOT NULL, ctime timestamptz NOT NULL,
        mtime timestamptz NOT NULL, idxtime timestamptz NOT NULL, md5 text NOT NULL UNIQUE, keywords tsvector,
        vfingerprint text NOT NULL UNIQUE);
    CREATE TABLE subkeys (rfingerprint text NOT NULL, rsubfp text NOT NULL PRIMARY KEY, vsubfp text NOT NULL);
    CREATE TABLE userids (rfingerprint text NOT NULL, uidstring text NOT NULL, identity text, confidence integer NOT NULL,
        PRIMARY KEY (rfingerprint, uidstring));
";

/// Databases in which somebody else keeps certificates are databases of nodes that are never started.
fn hockeypuck(fill: &Path) -> Node {
    let node = Node::on_postgres();
    let tables = node.file("tables.sql", TABLES.as_bytes());
    for file in [tables.as_path(), fill] {
        let mut client = node.postgres().client("psql");
        client
            .arg(node.data())
            .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-f"])
            .arg(file);
        run(&mut client, "postgresql").unwrap();
    }
    node
}

fn vectors(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata/hockeypuck-database")
        .join(name)
}

/// `keyrink import-hockeypuck` from one node's database into another node's store.
fn import(from: &Node, into: &Node) -> Command {
    import_from(&from.data(), into)
}

fn import_from(url: &Path, into: &Node) -> Command {
    let mut command = Command::new(common::PROGRAM);
    let target = into.data();
    let option = if target.starts_with("postgres:") {
        "--into"
    } else {
        "--data"
    };
    command
        .args(["import-hockeypuck", "--database"])
        .arg(url)
        .arg(option)
        .arg(target);
    let (name, value) = DATASETS.split_once('=').unwrap();
    command.env(name, value);
    command
}

/// The elements of dataset `hockeypuck` that a store holds, as their XOR, which `keyrink check` prints.
fn xor(into: &Node) -> String {
    let report = into.check_with(&[DATASETS.to_owned()]);
    let line = report.lines().find(|line| line.starts_with("hockeypuck xor"));
    line.unwrap().rsplit(' ').next().unwrap().to_owned()
}

fn succeeded(finished: &Finished) -> &str {
    assert_eq!(finished.code, Some(0), "{finished:?}");
    &finished.out
}

#[test]
fn rows_of_hockeypuck_become_the_same_certificates() {
    let from = hockeypuck(&vectors("rows.sql"));
    let expected = std::fs::read_to_string(vectors("expected.tsv")).unwrap();
    let mut digests = [0; 16];
    for line in expected.lines() {
        let digest = u128::from_str_radix(line.split_once('\t').unwrap().1, 16).unwrap();
        digests
            .iter_mut()
            .zip(digest.to_be_bytes())
            .for_each(|(sum, octet)| *sum ^= octet);
    }
    let digests: String = digests.iter().map(|octet| format!("{octet:02x}")).collect();
    for into in [Node::embedded(), Node::on_postgres()] {
        let report = finish(import(&from, &into), &[]);
        let report = succeeded(&report);
        assert!(
            report.contains("11 rows: 11 digests as Hockeypuck has them, 0 not"),
            "{report}"
        );
        assert!(report.contains("11 inserted"), "{report}");
        assert_eq!(xor(&into), digests);
        let server = into.serve_with(&[DATASETS], &[]);
        assert_eq!(
            get(
                &mut Client::new(server.http()),
                "9ea68c551d63d953237f4910e779edc70cd67910"
            )
            .status,
            200
        );
        let again = finish(import(&from, &into), &[]);
        // One was certified by the owner of another, whose key is known by now: that alone is no news.
        assert!(succeeded(&again).contains("11 unchanged"), "{again:?}");
    }
}

/// A row for the certificate with this number, with a digest that is none.
fn row(sql: &mut String, number: u64) {
    let certificate = generate::certificate(88, number);
    let object = |(tag, body): &(u8, Vec<u8>)| {
        let length = [&[0xFF][..], &(body.len() as u32).to_be_bytes()].concat();
        let data = base64::engine::general_purpose::STANDARD.encode([&[0xC0 | tag], &length[..], body].concat());
        format!(r#""packet": {{"tag": {tag}, "data": "{data}"}}"#)
    };
    let entry = entries(&certificate.to_bytes()).remove(0);
    let mut objects = entry.bodies.iter().map(object);
    let first = objects.next().unwrap();
    let others: Vec<_> = objects.map(|object| format!("{{{object}}}")).collect();
    let reversed: String = certificate.fingerprint().to_lowercase().chars().rev().collect();
    let doc = format!(r#"{{{first}, "userIDs": [{}]}}"#, others.join(", "));
    writeln!(
        sql,
        "{reversed}\t{doc}\t{DAY}\t{DAY}\t{DAY}\t{number:032x}\t\\N\t{reversed}"
    )
    .unwrap();
}

/// What all nodes here keep.
const DATASETS: &str = "KEYRINK_PEERS_DATASETS=sks,hockeypuck";
const COPY: &str = "COPY keys (rfingerprint, doc, ctime, mtime, idxtime, md5, keywords, vfingerprint) FROM stdin;\n";
const DAY: &str = "2026-01-01";

#[test]
fn an_import_goes_on_where_it_was_killed_and_says_what_differs() {
    const ROWS: u64 = 6_000;
    let into = Node::new();
    let mut sql = COPY.to_owned();
    (0..ROWS).for_each(|number| row(&mut sql, number));
    // What is no certificate must not keep the others out. It comes near the end, long after the kill.
    sql.push_str(&format!(
        "fffbad\t{{\"packet\": {{\"data\": \"!\"}}}}\t{DAY}\t{DAY}\t{DAY}\tbad\t\\N\tfffbad\n\\.\n"
    ));
    let from = hockeypuck(&into.file("rows.sql", sql.as_bytes()));
    let mut running = import(&from, &into)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    // So many that the first of them have been noted, in whatever order they were committed.
    let some = |report: &str| {
        let count = report.lines().find_map(|line| line.strip_prefix("certificates"));
        count.is_some_and(|count| count.trim().parse().is_ok_and(|count: u64| count >= 500))
    };
    while !some(&into.run("check", &[]).out) {
        assert!(began.elapsed() < Duration::from_secs(60));
    }
    running.kill().unwrap();
    assert!(!running.wait().unwrap().success(), "the import was over too early");
    let report = finish(import(&from, &into), &[]);
    let report = succeeded(&report);
    assert!(report.contains("resumed: goes on after row "), "{report}");
    assert!(
        report.contains("different: ") && report.contains("refused: row: dabfff: a packet"),
        "{report}"
    );
    let check = into.check_with(&[DATASETS.to_owned()]);
    assert!(
        check
            .lines()
            .next()
            .is_some_and(|line| line.ends_with(&format!(" {ROWS}"))),
        "{check}"
    );
    let named: BTreeSet<_> = report.lines().filter(|line| line.starts_with("different: ")).collect();
    assert_eq!(named.len(), 100, "{report}");
}

/// Databases of one name on one host differ by their ports, as at the ends of two tunnels.
#[test]
fn each_database_goes_on_where_it_was_itself() {
    let into = Node::on_postgres();
    let [one, other] = [0..5, 5..12].map(|numbers| {
        let server = Postgres::start_with(&["fsync=off"]).unwrap();
        let mut rows = String::new();
        numbers.for_each(|number| row(&mut rows, number));
        let file = into.file("rows.sql", format!("{TABLES}{COPY}{rows}\\.\n").as_bytes());
        let mut client = server.client("psql");
        let client = client.arg(server.url()).args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-f"]);
        run(client.arg(file), "postgresql").unwrap();
        server
    });
    into.succeed("migrate", &[]);
    let note = format!("import the database postgres at 127.0.0.1:{}", one.port());
    into.ask(&format!("INSERT INTO note VALUES ('{note}', 'ffff')"));
    for (server, rows, resumed) in [(&other, 7, false), (&one, 0, true)] {
        let finished = finish(import_from(Path::new(&server.url()), &into), &[]);
        let report = succeeded(&finished);
        assert!(report.contains(&format!("{rows} rows: ")), "{report}");
        assert_eq!(report.contains("goes on after row ffff"), resumed, "{report}");
    }
}

#[test]
fn what_is_no_hockeypuck_is_said_to_be_none() {
    let (empty, into) = (Node::on_postgres(), Node::embedded());
    let refused = finish(import(&empty, &into), &[]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("is not that of a Hockeypuck"), "{refused:?}");
}
