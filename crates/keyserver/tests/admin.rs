//! Subcommands on the store: what they promise an operator.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Node, PROGRAM, datasets, debian, finish, get};
use keyrink_openpgp::crypto::digest::Hasher;
use keyrink_store::sqlite::SqliteStore;
use keyrink_testkit::http::Client;
use keyrink_testkit::keyring::{Entry, entries};
use keyrink_testkit::peers::store_arguments;
use keyrink_testkit::{Certificate, Kind, Reason, Signature, armor, generate};

#[test]
fn keyrings_are_loaded_from_everywhere() {
    let node = Node::new();
    let some = |range: std::ops::Range<u64>| {
        let mut octets = Vec::new();
        generate::write(&mut octets, 1, range).unwrap();
        octets
    };
    fs::create_dir_all(node.path("folder/below")).unwrap();
    node.file("plain.pgp", &some(0..10));
    node.file("folder/armored.asc", armor(&some(10..20)).as_bytes());
    node.file("folder/below/packed.pgp.gz", &gzip(&some(20..30)));
    node.file(
        "folder/below/packed.pgp.zst",
        &zstd::encode_all(&some(30..40)[..], 0).unwrap(),
    );
    node.file("folder/note.txt", b"no keyring");
    node.file("part-1.pgp", &some(40..50));
    node.file("part-2.pgp", &gzip(armor(&some(50..60)).as_bytes()));
    let pattern = node.path("part-*.pgp");
    let report = node.load(&[&node.path("plain.pgp"), &node.path("folder"), &pattern]);
    assert!(
        report.starts_with("60 certificates: 60 inserted, 0 updated, 0 unchanged, 0 "),
        "{report}"
    );
    for input in [some(60..70), armor(&some(70..80)).into_bytes(), gzip(&some(80..90))] {
        let finished = finish(node.command("load", &["-"]), &input);
        assert!(
            finished.out.starts_with("10 certificates: 10 inserted, "),
            "{finished:?}"
        );
    }
    let more: Vec<u8> = generate::certificate(1, 3).user_id("More").to_bytes();
    let wrong = [some(0..3), more, b"\0\0garbage".to_vec(), some(4..6)].concat();
    let finished = finish(node.command("load", &["-"]), &wrong);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(
        finished.out.contains("0 inserted, 1 updated, ") && finished.out.contains("refused: "),
        "{finished:?}"
    );
    assert!(node.check().contains("certificates  90\n"));
    let missing = node.run("load", &["/nowhere/*.pgp"]);
    assert_eq!((missing.code, missing.out.as_str()), (Some(1), ""), "{missing:?}");
    assert!(missing.err.contains("/nowhere/*.pgp"), "{missing:?}");
}

#[test]
fn a_keybox_of_gpg_is_read() {
    let node = Node::new();
    let mut octets = Vec::new();
    generate::write(&mut octets, 1, 0..10).unwrap();
    let (keys, home) = (node.file("keys.pgp", &octets), node.path("home"));
    fs::create_dir(&home).unwrap();
    let gpg = |arguments: &[&str]| {
        let mut gpg = Command::new("gpg");
        gpg.args(["--batch", "--quiet", "--no-autostart", "--no-auto-check-trustdb"]);
        gpg.arg("--homedir").arg(&home).args(arguments);
        finish(gpg, b"")
    };
    gpg(&["--import", keys.to_str().unwrap()]);
    // What was deleted stays in the file, but not in the keyring.
    let deleted = generate::certificate(1, 3).fingerprint();
    gpg(&["--yes", "--delete-keys", &deleted]);
    let report = node.load(&[&home.join("pubring.kbx")]);
    assert!(report.starts_with("9 certificates: 9 inserted, "), "{report}");
    let missing = node.run("load", &[keys.to_str().unwrap()]);
    assert!(
        missing
            .out
            .starts_with("10 certificates: 1 inserted, 0 updated, 9 unchanged, "),
        "{missing:?}"
    );
}

#[test]
fn a_load_goes_on_where_it_was_killed() {
    let node = Node::new();
    let mut octets = Vec::new();
    generate::write(&mut octets, 2, 0..CERTIFICATES).unwrap();
    let file = node.file("keyring.pgp", &octets);
    let name = file.to_str().unwrap();
    let mut command = node.command("load", &[name]);
    let mut load = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    // Pieces are committed as they get ready: a few are in the store before the note says that the first ones are.
    while records(&node) < CERTIFICATES / 4 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    load.kill().unwrap();
    assert!(!load.wait().unwrap().success(), "the load was over too early");
    let before = records(&node);
    assert!((1..CERTIFICATES).contains(&before), "{before}");
    node.check();

    let report = node.load(&[&file]);
    assert!(report.contains("goes on at octet "), "{report}");
    assert!(
        report.contains(&format!("{} inserted", CERTIFICATES - before)),
        "{before}: {report}"
    );
    assert!(node.check().contains(&format!("certificates  {CERTIFICATES}\n")));
    let whole = Node::new();
    whole.load(&[&file]);
    assert_eq!(node.check(), whole.check());
    // A load that came to its end leaves nothing behind that would stop the next one from reading.
    let again = node.load(&[&file]);
    assert!(again.contains(&format!("{CERTIFICATES} unchanged")), "{again}");
}

#[test]
fn a_server_finds_at_once_what_is_loaded_beside_it() {
    let node = Node::new();
    let server = node.serve();
    let mut client = Client::new(server.http());
    let mut octets = Vec::new();
    generate::write(&mut octets, 3, 0..1000).unwrap();
    let fingerprint = generate::certificate(3, 999).fingerprint();
    assert_eq!(get(&mut client, &fingerprint).status, 404);
    let file = node.file("keyring.pgp", &octets);
    let mut load = node
        .command("load", &[file.to_str().unwrap()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // Submissions go on meanwhile.
    for index in 1000..1020 {
        let answer = client.add(&generate::certificate(3, index).armored()).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert!(load.wait().unwrap().success());
    assert_eq!(get(&mut client, &fingerprint).status, 200);
    assert!(node.check().contains("certificates  1020\n"));
}

#[test]
fn a_dump_loads_into_the_same_store() {
    let node = Node::new();
    let damaged = Certificate::v4(4, "person")
        .user_id("Person <person@example.org>")
        .user_id_with("Forged", Signature::new(Kind::PositiveCertification).damaged())
        .user_attribute(b"\x05\x01\x10\x00\x01\x01")
        .bare_user_id("Bare");
    let twice = [damaged.to_bytes(), entries(&damaged.to_bytes())[0].octets[..].to_vec()].concat();
    fs::create_dir(node.path("vectors")).unwrap();
    for (number, path) in vectors().enumerate() {
        fs::copy(path, node.path(&format!("vectors/{number}.pgp"))).unwrap();
    }
    let files = [
        node.path("vectors"),
        node.file("damaged.pgp", &twice),
        debian("role-keys"),
    ];
    node.load(&files.each_ref().map(|file| file.as_path()));
    let dump = node.path("dump");
    let said = node.succeed("dump", &["--certificates-per-file", "100", dump.to_str().unwrap()]);
    let report = node.check();
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(dump.join("manifest.json")).unwrap()).unwrap();
    let count = manifest["certificates"].as_u64().unwrap();
    assert!(
        report.contains(&format!("certificates  {count}\n")) && count > 400,
        "{said} {report}"
    );
    assert!(report.contains(manifest["sks_xor"].as_str().unwrap()), "{report}");

    let copy = Node::new();
    copy.load(&[&dump]);
    assert_eq!(copy.check(), report);
    let again = node.run("dump", &[dump.to_str().unwrap()]);
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("not empty"), "{again:?}");
}

#[test]
fn debian_keyrings_are_dumped_as_each_family_has_them() {
    let node = Node::new();
    let names = ["keyring", "maintainers", "nonupload", "role-keys"];
    let files = names.map(debian);
    node.load(&files.each_ref().map(|file| file.as_path()));
    let table = fs::read_to_string(datasets().join("debian-keyring.tsv")).unwrap();
    for (dataset, column) in [("sks", 1), ("hockeypuck", 3)] {
        let dump = node.path(dataset);
        node.succeed("dump", &["--dataset", dataset, dump.to_str().unwrap()]);
        let files = fs::read_dir(&dump).unwrap().map(|file| file.unwrap().path());
        let keyrings = files.filter(|path| path.extension().is_some_and(|ending| ending == "pgp"));
        let found: BTreeSet<String> = keyrings
            .flat_map(|path| entries(&fs::read(path).unwrap()))
            .map(sks_digest)
            .collect();
        let digests = table.lines().skip(1).map(|line| line.split('\t').nth(column).unwrap());
        let stored = digests.filter(|digest| *digest != "-");
        let expected: BTreeSet<String> = stored.map(str::to_owned).collect();
        assert!(
            found == expected,
            "{dataset}: {:?}",
            found.symmetric_difference(&expected).collect::<Vec<_>>()
        );
    }
}

#[test]
fn check_names_damage() {
    for at in 0.. {
        let (node, _) = small();
        let Some((damage, sign)) = damages(&node).get(at) else {
            break;
        };
        assert_eq!(sql(&node, damage), 1, "{damage}");
        let found = node.run("check", &[]);
        assert_eq!(found.code, Some(1), "{damage}: {found:?}");
        assert!(
            found.out.contains("differences  1\n") && found.out.contains(sign),
            "{damage}: {found:?}"
        );
        assert!(found.err.contains("dump"), "{found:?}");
    }
}

/// The records are the truth: whatever happened to the rows derived from them, a dump holds everything.
#[test]
fn a_dump_of_a_damaged_store_loads_into_a_sound_one() {
    let (node, sound) = small();
    for (damage, _) in damages(&node) {
        assert_eq!(sql(&node, damage), 1, "{damage}");
    }
    let dump = node.path("dump");
    node.succeed("dump", &[dump.to_str().unwrap()]);
    let fresh = Node::new();
    fresh.load(&[&dump]);
    assert_eq!(fresh.check(), sound);
}

/// All the damage at once, beside a server that goes on, and one that only starts to keep a tree afterwards.
#[test]
fn a_rebuild_mends_rows_while_a_server_runs() {
    let (node, sound) = small();
    let server = node.serve_with(&[], &["--recon", "127.0.0.1:0", "--partner", "recon=127.0.0.99:1"]);
    let shown = |figure: &str| {
        let text = Client::new(server.http()).get("/metrics").unwrap().text();
        let line = text.lines().find(|line| line.starts_with(figure))?;
        Some(line.rsplit(' ').next().unwrap().to_owned())
    };
    let wait_for = |figure: &str, value: &str| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while shown(figure).as_deref() != Some(value) {
            assert!(
                Instant::now() < deadline,
                "{figure} is {:?}, not {value}",
                shown(figure)
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    wait_for(r#"keyrink_tree_sum{dataset="sks"}"#, sum(&sound));
    let worse = if node.is_embedded() { WORSE } else { WORSE_POSTGRES };
    for damage in damages(&node).iter().map(|(damage, _)| damage).chain(worse) {
        assert_eq!(sql(&node, damage), 1, "{damage}");
    }
    assert_eq!(node.run("check", &[]).code, Some(1));
    let said = node.succeed("rebuild", &[]);
    assert!(
        said.contains("99 certificates: ") && said.contains("the number of certificates"),
        "{said}"
    );
    let mended = node.check();
    assert!(
        mended.contains("certificates  99\n") && mended.contains("sks elements  99\n"),
        "{mended}"
    );
    // The server's tree is that of the rows again, and follows.
    wait_for(r#"keyrink_tree_sum{dataset="sks"}"#, sum(&mended));
    wait_for(r#"keyrink_tree_elements{dataset="sks"}"#, "99");
    let mut client = Client::new(server.http());
    assert_eq!(
        client.add(&generate::certificate(5, 100).armored()).unwrap().status,
        200
    );
    wait_for(r#"keyrink_tree_elements{dataset="sks"}"#, "100");
    wait_for(r#"keyrink_tree_sum{dataset="sks"}"#, sum(&node.check()));
    let again = node.succeed("rebuild", &[]);
    assert_eq!(
        again,
        "100 certificates: terms and elements derived anew, 0 rows mended\n"
    );
}

/// The part of a tree's sums in the report of a check.
fn sum(report: &str) -> &str {
    let line = report.lines().find_map(|line| line.strip_prefix("sks sum"));
    line.unwrap().trim()
}

/// Damage that more than one row shows.
const WORSE: &[&str] = &[
    "UPDATE record SET derived = x'ff' WHERE rec = 20",
    "DELETE FROM record WHERE rec = 30",
    "INSERT INTO term SELECT realm, kind, text, 4711 FROM term LIMIT 1",
    "INSERT INTO element SELECT dataset, bytes, zeroblob(20), realm FROM element LIMIT 1",
];
const WORSE_POSTGRES: &[&str] = &[
    "UPDATE record SET derived = '\\xff' WHERE id = (SELECT id FROM record WHERE realm = 1 ORDER BY id LIMIT 1 OFFSET 20)",
    "DELETE FROM record WHERE id = (SELECT id FROM record WHERE realm = 1 ORDER BY id LIMIT 1 OFFSET 30)",
    "INSERT INTO term SELECT term, realm, '\\x00004711' FROM term LIMIT 1",
    "UPDATE element SET holders = holders || ARRAY['\\x0100004711'::bytea]
     WHERE bytes = (SELECT bytes FROM element WHERE dataset = 1 LIMIT 1)",
];

/// Damage to single rows, and how a check names it.
type Damages = &'static [(&'static str, &'static str)];

fn damages(node: &Node) -> Damages {
    if node.is_embedded() { DAMAGES } else { DAMAGES_POSTGRES }
}

const DAMAGES: Damages = &[
    (
        "DELETE FROM term WHERE kind = 3 AND instr(text, CAST('user7@' AS BLOB)) = 1",
        "user id user7@example.org, name 7 <user7@example.org> is missing",
    ),
    (
        "INSERT INTO term SELECT realm, 3, CAST('nobody@example.org' AS BLOB), rec FROM term LIMIT 1",
        "user id nobody@example.org is too much",
    ),
    (
        "DELETE FROM element WHERE bytes = (SELECT bytes FROM element LIMIT 1)",
        "is missing",
    ),
    (
        "INSERT INTO element SELECT dataset, zeroblob(16), id, realm FROM element LIMIT 1",
        "00000000000000000000000000000000 is too much",
    ),
];

/// The same in PostgreSQL, which has rows about components besides.
const DAMAGES_POSTGRES: Damages = &[
    (
        "DELETE FROM term WHERE position('\\x03'::bytea || 'user7@' in term) = 1",
        "user id user7@example.org, name 7 <user7@example.org> is missing",
    ),
    (
        "INSERT INTO term SELECT '\\x03'::bytea || 'nobody@example.org', realm, id FROM term LIMIT 1",
        "user id nobody@example.org is too much",
    ),
    (
        "DELETE FROM element WHERE bytes = (SELECT bytes FROM element LIMIT 1)",
        "is missing",
    ),
    (
        "INSERT INTO element SELECT decode(repeat('00', 16), 'hex'), dataset, holders FROM element WHERE dataset = 1 LIMIT 1",
        "00000000000000000000000000000000 is too much",
    ),
    ("DELETE FROM component WHERE text LIKE '%<user7@%'", "is missing"),
    (
        "INSERT INTO component SELECT id, realm, 99, kind, version, fingerprint, text, algorithm, bits, created, expires, revoked
         FROM component WHERE text LIKE '%<user8@%'",
        "is too much",
    ),
];

/// A small store and the report of its check.
fn small() -> (Node, String) {
    let mut octets = Vec::new();
    generate::write(&mut octets, 5, 0..100).unwrap();
    let node = Node::with(&[&octets]);
    let report = node.check();
    (node, report)
}

#[test]
fn a_backup_is_a_store() {
    let node = Node::new();
    if !node.is_embedded() {
        let refused = node.run("backup", &["copy"]);
        assert!(
            refused.code == Some(1) && refused.err.contains("pg_dump"),
            "{refused:?}"
        );
        return;
    }
    let mut octets = Vec::new();
    generate::write(&mut octets, 6, 0..500).unwrap();
    let file = node.file("keyring.pgp", &octets);
    node.load(&[&file]);
    let report = node.check();
    let server = node.serve();
    let copy = Node::new();
    node.succeed("backup", &[copy.data().to_str().unwrap()]);
    let mut client = Client::new(server.http());
    client.add(&generate::certificate(6, 500).armored()).unwrap();
    assert_eq!(copy.check(), report);
    assert_ne!(node.check(), report);
    let restored = copy.serve();
    let fingerprint = generate::certificate(6, 499).fingerprint();
    let answers = [server.http(), restored.http()].map(|address| get(&mut Client::new(address), &fingerprint));
    assert_eq!((answers[0].status, &answers[0].body), (200, &answers[1].body));
    assert_eq!(
        node.run("backup", &[copy.data().to_str().unwrap()]).code,
        Some(1),
        "a backup replaces nothing"
    );
}

#[test]
fn words_are_found_after_a_rebuild() {
    let alice = Certificate::v4(7, "alice").user_id("Alice Ærøskøbing (at work) <alice@example.org>");
    let node = Node::with(&[&alice.to_bytes(), &generate::certificate(7, 0).to_bytes()]);
    let search = "/pks/lookup?op=index&options=mr&search=%C3%A6r%C3%B8sk%C3%B8bing%20ALICE";
    let server = node.serve();
    assert_eq!(Client::new(server.http()).get(search).unwrap().status, 404);
    drop(server);
    let without = node.check();
    let config = node.file("keyrink.toml", b"[search]\nwords = true\n");
    let config = ["--config", config.to_str().unwrap()];
    assert!(node.succeed("check", &config).contains("outdated  2 "));
    node.succeed("rebuild", &config);
    let server = node.serve_with(&[], &config);
    let answer = Client::new(server.http()).get(search).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().contains(&alice.fingerprint()) && answer.text().starts_with("info:1:1\n"));
    node.succeed("check", &config);
    drop(server);
    node.succeed("rebuild", &[]);
    assert_eq!(node.check(), without, "and they are gone after a rebuild without them");
}

#[test]
fn packets_are_explained() {
    let cert = Certificate::v4(7, "explained")
        .user_id("Explained <e@example.org>")
        .bare_user_id("Grafted <g@example.org>")
        .signing_subkey("explained/sign");
    let node = Node::with(&[&cert.to_bytes()]);
    let explained = node.succeed("explain", &[&cert.fingerprint()]);
    let file = node.file("key.asc", cert.armored().as_bytes());
    assert_eq!(node.succeed("explain", &[file.to_str().unwrap()]), explained);
    for line in [
        "digest in hockeypuck: ",
        "user id \"Explained <e@example.org>\"\n    bound by a valid self-signature",
        "user id \"Grafted <g@example.org>\"\n    no valid self-signature binds it to the key (RFC 9580, section 10.1)\n    \
         seen by sks, openpgp/2\n    not in hockeypuck: drop:unbound\n",
        "    valid: the owner made it (RFC 9580, section 5.2.4)\n      seen by users, sks, hockeypuck, openpgp/2\n      \
         element in openpgp/2: ",
    ] {
        assert!(explained.contains(line), "{line}\n{explained}");
    }
    let elements = explained
        .lines()
        .find_map(|line| line.strip_prefix("elements in openpgp/2: "));
    for element in elements.unwrap().split(' ') {
        assert!(
            explained.contains(&format!("      element in openpgp/2: {element}\n")),
            "{element}"
        );
    }
    assert_eq!(node.run("explain", &["0123456789ABCDEF"]).code, Some(1));
}

/// Every reason comes with the rule that it is by.
#[test]
fn what_is_kept_from_users_or_peers_is_explained() {
    let node = Node::new();
    let friend = Certificate::v4(8, "friend");
    let certified = || Certificate::v4(7, "explained").user_id("Explained <e@example.org>");
    let explain = |cert: &Certificate, setting: &str| {
        let file = node.file("key.pgp", &cert.to_bytes());
        let mut command = node.command("explain", &[file.to_str().unwrap()]);
        command.envs(setting.split_once('='));
        finish(command, &[]).out
    };
    for (cert, setting, line) in [
        (
            certified().certified_by(friend.primary()),
            "KEYRINK_LIMITS_APPROVED_ONLY=true",
            "has not approved it, or there is no room for it (`approved_only` and `others_octets` in [limits])\n      \
             seen by sks, hockeypuck, openpgp/2\n",
        ),
        (
            certified().certified_by(friend.primary()),
            "KEYRINK_LIMITS_OTHERS_OCTETS=0",
            "of known issuers are given out (`others_octets` in [limits])\n      seen by sks, hockeypuck, openpgp/2\n",
        ),
        (
            certified().revoke(Reason::Compromised),
            "",
            "only the revocation is given out (HIP 005)\n    seen by sks, openpgp/2\n    \
             not in hockeypuck: drop:hardRevokedCruft\n",
        ),
        (
            Certificate::v6(7, "new").user_id("New <n@example.org>"),
            "",
            "seen by users who ask with options=bin, hockeypuck, openpgp/2\n    not in sks: it takes keys up to version 4\n",
        ),
        (
            certified().sign_last(Signature::new(Kind::PositiveCertification).created(1).damaged()),
            "",
            "seen by sks, openpgp/2\n      not in hockeypuck: drop:invalidSelfSig\n",
        ),
        (
            certified().user_attribute(b"photograph"),
            "",
            "but not shown (this program's choice)\n    seen by sks, openpgp/2\n    not in hockeypuck: drop:UAT\n",
        ),
    ] {
        let explained = explain(&cert, setting);
        assert!(explained.contains(line), "{line}\n{explained}");
    }
    node.load(&[&node.file("key.pgp", &certified().to_bytes())]);
    let mut hide = Command::new(PROGRAM);
    hide.args(["admin", "hide-uid", "--reason", "asked", "--yes", "e@example.org"]);
    hide.args(store_arguments(&node.data()));
    assert_eq!(finish(hide, &[]).code, Some(0));
    let explained = node.succeed("explain", &[&certified().fingerprint()]);
    let line = "keeps it back (a rule of the operator)\n    seen by sks, hockeypuck, openpgp/2\n";
    assert!(explained.contains(line), "{explained}");
}

/// Enough that nobody loads them at once.
const CERTIFICATES: u64 = 6000;

fn gzip(octets: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(octets).unwrap();
    packer.finish().unwrap()
}

/// The files of the vectors that begin with a packet.
fn vectors() -> impl Iterator<Item = PathBuf> {
    let folders = fs::read_dir(datasets()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = folders
        .filter(|path| path.is_dir())
        .flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| fs::read(path).unwrap().first().is_some_and(|first| *first >= 0x80))
        .collect();
    files.sort();
    files.into_iter()
}

/// How many records another process has written so far.
fn records(node: &Node) -> u64 {
    let path = node.data().join(SqliteStore::FILE);
    if !node.is_embedded() {
        let there = node.ask("SELECT count(*) FROM information_schema.tables WHERE table_name = 'note'") == "1";
        return if there {
            node.ask("SELECT count(*) FROM record").parse().unwrap()
        } else {
            0
        };
    }
    let Ok(database) = open(&path) else { return 0 };
    database
        .query_row("SELECT count(*) FROM record", [], |row| row.get::<_, i64>(0))
        .map_or(0, i64::unsigned_abs)
}

/// Changes rows behind the back of the program; how many.
fn sql(node: &Node, statement: &str) -> usize {
    if !node.is_embedded() {
        let counted = format!("WITH done AS ({statement} RETURNING 1) SELECT count(*) FROM done");
        return node.ask(&counted).parse().unwrap();
    }
    open(&node.data().join(SqliteStore::FILE))
        .unwrap()
        .execute(statement, [])
        .unwrap()
}

fn open(path: &Path) -> rusqlite::Result<rusqlite::Connection> {
    rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE)
}

/// The digest of SKS: MD5 of all packets, sorted, each with tag and length in four octets.
fn sks_digest(mut entry: Entry) -> String {
    entry.bodies.sort();
    let mut hasher = Hasher::new(MD5).unwrap();
    for (tag, body) in &entry.bodies {
        hasher.update(&u32::from(*tag).to_be_bytes());
        hasher.update(&(body.len() as u32).to_be_bytes());
        hasher.update(body);
    }
    keyrink_testkit::hex(hasher.finish().as_bytes()).to_lowercase()
}

/// OpenPGP's number for MD5.
const MD5: u8 = 1;
