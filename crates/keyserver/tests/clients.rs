//! Programs that people use, against the real server: GnuPG and Sequoia.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{Node, debian, finish};
use keyrink_testkit::http::Client;
use keyrink_testkit::keyring::entries;
use keyrink_testkit::peers::{Gpg, Keyrink, Sks, SksOptions, Sq};
use keyrink_testkit::{Algorithm, Certificate, HOSTILE_USER_IDS, Key, Kind, Reason, Signature, Tag, dearmor, generate};

#[test]
fn gpg_receives_certificates_of_debian() {
    let node = Node::new();
    node.load(&[&debian("role-keys"), &debian("maintainers")]);
    let server = node.serve();
    let keyring = std::fs::read(debian("role-keys")).unwrap();
    let sent: Vec<String> = entries(&keyring).iter().map(|entry| entry.fingerprint()).collect();
    let (local, remote) = (Gpg::new().unwrap(), Gpg::new().unwrap());
    local.import(&keyring).unwrap();
    let arguments: Vec<&str> = ["--recv-keys"]
        .into_iter()
        .chain(sent.iter().map(String::as_str))
        .collect();
    remote.with_keyserver(server.http(), &arguments).unwrap();
    let (mut expected, mut found) = (local.fingerprints().unwrap(), remote.fingerprints().unwrap());
    expected.sort();
    found.sort();
    assert_eq!(expected, found);
    // GnuPG itself drops what it cannot use, so that both keyrings must list the same.
    for fingerprint in &sent {
        let list = ["--with-colons", "--list-keys", fingerprint];
        let keys = |gpg: &Gpg| -> Vec<String> {
            let lines = text(&gpg.run(&list).unwrap());
            let mut lines: Vec<String> = lines
                .lines()
                .filter(|line| {
                    ["pub:", "sub:", "uid:", "fpr:"]
                        .iter()
                        .any(|kind| line.starts_with(kind))
                })
                .map(without_origin)
                .collect();
            lines.sort();
            lines
        };
        assert_eq!(keys(&local), keys(&remote), "{fingerprint}");
    }
}

#[test]
fn gpg_sends_and_another_gpg_receives() {
    let (node, alice) = (Node::new(), Gpg::new().unwrap());
    let server = node.serve();
    let signer = Certificate::v4(1, "bob").user_id("Bob <bob@example.org>");
    let sent = Certificate::v4(1, "alice")
        .user_id("Alice Ærøskøbing <alice@example.org>")
        .certified_by(signer.primary())
        .signing_subkey("alice/sign")
        .encryption_subkey("alice/encrypt");
    alice.import(&[sent.to_bytes(), signer.to_bytes()].concat()).unwrap();
    let (fingerprint, other) = (sent.fingerprint(), signer.fingerprint());
    alice
        .with_keyserver(server.http(), &["--send-keys", &fingerprint, &other])
        .unwrap();
    let bob = Gpg::new().unwrap();
    // By default, GnuPG takes nothing but self-signatures from keyservers.
    let options = "no-self-sigs-only,no-import-clean";
    let receive = ["--keyserver-options", options, "--recv-keys", &fingerprint, &other];
    bob.with_keyserver(server.http(), &receive).unwrap();
    let check = |gpg: &Gpg| {
        let lines = text(&gpg.run(&["--with-colons", "--check-sigs", &fingerprint]).unwrap());
        let mut lines: Vec<String> = lines.lines().skip(1).map(without_origin).collect();
        lines.sort();
        lines
    };
    assert_eq!(check(&alice), check(&bob));
    let signatures = check(&bob).iter().filter(|line| line.starts_with("sig:!")).count();
    assert_eq!(signatures, 4, "{:?}", check(&bob));
}

/// GnuPG knows nothing of version 6: the subkey is left out, the certification is passed over.
#[test]
fn gpg_imports_a_certificate_with_newer_parts() {
    let newer = Certificate::v6(2, "newer").user_id("Newer <newer@example.org>");
    let foreign = newer.primary().subkey("foreign", Algorithm::X25519);
    let older = Certificate::v4(2, "older")
        .user_id("Older <older@example.org>")
        .certified_by(newer.primary())
        .encryption_subkey("older/encrypt")
        .subkey_with(foreign, Signature::new(Kind::SubkeyBinding).key_flags(0x0C));
    let node = Node::with(&[&older.to_bytes(), &newer.to_bytes()]);
    let (server, gpg) = (node.serve(), Gpg::new().unwrap());
    let target = format!("/pks/lookup?op=get&search=0x{}", older.fingerprint());
    let shown = entries(&dearmor(&Client::new(server.http()).get(&target).unwrap().text()));
    let of_version = |wanted: Tag, version: u8| {
        let bodies = shown[0].bodies.iter();
        bodies
            .filter(|(tag, body)| *tag == wanted as u8 && body[0] == version)
            .count()
    };
    let found = [Tag::PublicSubkey, Tag::Signature].map(|tag| [4, 6].map(|version| of_version(tag, version)));
    assert_eq!(found, [[1, 0], [2, 0]]);
    let options = "no-self-sigs-only,no-import-clean";
    let receive = ["--keyserver-options", options, "--recv-keys", &older.fingerprint()];
    gpg.with_keyserver(server.http(), &receive).unwrap();
    let listing = text(&gpg.run(&["--with-colons", "--list-keys"]).unwrap());
    let lines = |kind: &str| listing.lines().filter(|line| line.starts_with(kind)).count();
    assert_eq!((lines("pub:"), lines("uid:"), lines("sub:")), (1, 1, 1), "{listing}");
}

#[test]
fn gpg_learns_of_a_revocation_when_it_refreshes() {
    let before = generate::certificate(3, 1);
    let node = Node::with(&[&before.to_bytes()]);
    let (server, gpg) = (node.serve(), Gpg::new().unwrap());
    gpg.with_keyserver(server.http(), &["--recv-keys", &before.fingerprint()])
        .unwrap();
    let listing = |gpg: &Gpg| text(&gpg.run(&["--with-colons", "--list-keys"]).unwrap());
    assert!(!listing(&gpg).contains("pub:r:"));
    let revoked = generate::certificate(3, 1).revoke(Reason::Compromised);
    let answer = Client::new(server.http()).add(&revoked.armored()).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    gpg.with_keyserver(server.http(), &["--refresh-keys"]).unwrap();
    assert!(listing(&gpg).contains("pub:r:"), "{}", listing(&gpg));
}

#[test]
fn gpg_finds_user_ids_in_every_form() {
    let names = [
        "Alice Example <alice@example.org>",
        "Þórbergur Ærøskøbing <thor@example.org>",
        "田中 太郎 <tanaka@example.org>",
    ];
    let keyring: Vec<u8> = (1..)
        .zip(names)
        .flat_map(|(seed, name)| person(seed, name).to_bytes())
        .collect();
    let node = Node::with(&[&keyring]);
    let server = node.serve();
    for (seed, name) in (1..).zip(names) {
        let fingerprint = person(seed, name).fingerprint();
        let address = name.split_once('<').unwrap().1.trim_end_matches('>');
        let forms = [
            format!("={name}"),
            name.to_owned(),
            address.to_owned(),
            format!("<{address}>"),
            format!("0x{fingerprint}"),
            fingerprint[24..].to_owned(),
        ];
        for form in forms {
            let found = search(&server, &form);
            assert!(found.contains(&fingerprint), "{form}: {found}");
            assert!(found.contains("info:1:1"), "{form}: {found}");
        }
    }
}

#[test]
fn gpg_understands_what_is_revoked_and_expired() {
    let people = [
        person(1, "Good <good@example.org>"),
        person(2, "Revoked <revoked@example.org>").revoke(Reason::Retired),
        Certificate::v4(3, "person")
            .expires_after(1000)
            .user_id("Old <old@example.org>"),
    ];
    let keyring: Vec<u8> = people.iter().flat_map(Certificate::to_bytes).collect();
    let node = Node::with(&[&keyring]);
    let server = node.serve();
    for (person, flags, address) in [
        (&people[0], "", "good"),
        (&people[1], "r", "revoked"),
        (&people[2], "e", "old"),
    ] {
        let found = search(&server, &format!("{address}@example.org"));
        let line = found.lines().find(|line| line.starts_with("pub:")).unwrap();
        let fields: Vec<&str> = line.split(':').collect();
        assert_eq!(fields[1], person.fingerprint(), "{found}");
        assert_eq!(fields[6], flags, "{found}");
    }
    // What GnuPG tells a person about these keys.
    let said = |address: &str| {
        let gpg = Gpg::new().unwrap();
        let failed = gpg.with_keyserver(server.http(), &["--search-keys", &format!("{address}@example.org")]);
        match failed {
            Ok(output) => text(&output),
            Err(error) => error.to_string(),
        }
    };
    assert!(said("revoked").contains("(revoked)"), "{}", said("revoked"));
    assert!(said("old").contains("(expired)"), "{}", said("old"));
    assert!(!said("good").contains("(revoked)") && !said("good").contains("(expired)"));
}

#[test]
fn hostile_user_ids_reach_gpg_unharmed() {
    let ids = HOSTILE_USER_IDS.iter().filter(|id| !id.is_empty());
    let mallory = ids.fold(Certificate::v4(1, "mallory"), |mallory, id| mallory.user_id(id));
    let node = Node::with(&[&mallory.to_bytes()]);
    let (server, gpg) = (node.serve(), Gpg::new().unwrap());
    let found = search(&server, "quote@example.org");
    let count = |kind: &str| found.lines().filter(|line| line.starts_with(kind)).count();
    assert_eq!(
        (count("pub:"), count("uid:")),
        (1, HOSTILE_USER_IDS.len() - 1),
        "{found}"
    );
    let fingerprint = mallory.fingerprint();
    gpg.with_keyserver(server.http(), &["--recv-keys", &fingerprint])
        .unwrap();
    let direct = Gpg::new().unwrap();
    direct.import(&mallory.to_bytes()).unwrap();
    let list = |gpg: &Gpg| {
        let listing = text(&gpg.run(&["--with-colons", "--list-keys"]).unwrap());
        let mut ids: Vec<String> = listing
            .lines()
            .filter_map(|line| {
                line.split(':')
                    .nth(9)
                    .filter(|_| line.starts_with("uid:"))
                    .map(str::to_owned)
            })
            .collect();
        ids.sort();
        ids
    };
    assert_eq!(list(&gpg), list(&direct));
}

#[test]
fn gpg_is_told_when_there_is_nothing() {
    let node = Node::new();
    let (server, gpg) = (node.serve(), Gpg::new().unwrap());
    let missing = Key::primary(9, "nobody");
    let fingerprint = keyrink_testkit::hex(&missing.fingerprint());
    let error = gpg
        .with_keyserver(server.http(), &["--recv-keys", &fingerprint])
        .unwrap_err()
        .to_string();
    assert!(error.contains("No data"), "{error}");
    // After an answer that there is nothing, GnuPG must go on using this server.
    let there = person(1, "There <there@example.org>");
    Client::new(server.http()).add(&there.armored()).unwrap();
    gpg.with_keyserver(server.http(), &["--recv-keys", &there.fingerprint()])
        .unwrap();
}

#[test]
fn sequoia_gets_and_sends() {
    let node = Node::new();
    node.load(&[&debian("role-keys")]);
    let (server, sq) = (node.serve(), Sq::new().unwrap());
    let keyring = std::fs::read(debian("role-keys")).unwrap();
    let known = entries(&keyring).remove(0).fingerprint();
    let got = sq.get(server.http(), &known).unwrap();
    assert_eq!(entries(&got)[0].fingerprint(), known);

    let sent = Certificate::v4(1, "erin")
        .user_id("Erin <erin@example.org>")
        .signing_subkey("erin/sign");
    sq.send(server.http(), &sent.to_bytes()).unwrap();
    for query in [
        sent.fingerprint(),
        sent.fingerprint()[24..].to_owned(),
        "erin@example.org".to_owned(),
    ] {
        let got = sq.get(server.http(), &query).unwrap();
        let said = sq.inspect(&got).unwrap();
        assert!(said.contains("Erin") && !said.contains("Invalid"), "{query}: {said}");
    }
    assert!(sq.get(server.http(), "nobody@example.org").is_err());
}

#[test]
fn the_first_command_of_the_readme_serves_gpg() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
    let after = |start: &str| {
        let line = readme.lines().find_map(|line| line.trim().strip_prefix(start));
        line.unwrap_or_else(|| panic!("README.md has no line that begins with {start}"))
    };
    let pattern = after("cargo run --release -- serve --data ./keys --load ").trim_matches('\'');
    let address = after("gpg --keyserver hkp://127.0.0.1:11371 --search-keys ");
    let node = Node::new();
    let server = node.serve_with(&[], &["--load", pattern]);
    let deadline = Instant::now() + Duration::from_secs(120);
    let found = loop {
        let found = search(&server, address);
        if found.contains("pub:") {
            break found;
        }
        assert!(Instant::now() < deadline, "{found}\n{}", server.log_end());
        sleep(Duration::from_millis(500));
    };
    let fingerprint = found
        .lines()
        .find_map(|line| line.strip_prefix("pub:")?.split(':').next());
    let gpg = Gpg::new().unwrap();
    let fingerprint = fingerprint.unwrap();
    gpg.with_keyserver(server.http(), &["--recv-keys", fingerprint])
        .unwrap();
    assert_eq!(gpg.fingerprints().unwrap(), [fingerprint]);
}

#[test]
fn the_program_itself_is_a_client() {
    let alice = person(1, "Alice <alice@example.org>");
    let fingerprint = alice.fingerprint();
    let node = Node::with(&[&alice.to_bytes()]);
    let server = node.serve();
    let beside = tempfile::tempdir().unwrap();
    let dump = beside.path().join("dump.pgp");
    std::fs::write(&dump, alice.to_bytes()).unwrap();
    let sks = Sks::start(SksOptions {
        keyrings: vec![dump],
        ..SksOptions::default()
    });
    let sks = sks.unwrap();
    for address in [server.http(), sks.http()] {
        let address = format!("hkp://{address}");
        let run = |command: &str, arguments: &[&str]| {
            let mut client = Command::new(common::PROGRAM);
            client.args([command, "--server", &address]).args(arguments);
            finish(client, b"")
        };
        let found = run("search", &["alice@example.org"]);
        assert_eq!(found.code, Some(0), "{found:?}");
        assert!(
            found.out.contains(&fingerprint.to_lowercase()) || found.out.contains(&fingerprint),
            "{found:?}"
        );
        let got = run("get", &[&fingerprint]);
        assert!(got.out.starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----"), "{got:?}");
        let file = beside.path().join("got.pgp");
        let written = run("get", &["--bin", "-o", file.to_str().unwrap(), "alice@example.org"]);
        assert_eq!((written.code, &*written.out), (Some(0), ""), "{written:?}");
        assert_eq!(entries(&std::fs::read(&file).unwrap())[0].fingerprint(), fingerprint);
        let missing = run("get", &["nobody@example.org"]);
        assert_eq!((missing.code, missing.err.lines().count()), (Some(1), 1), "{missing:?}");
        assert!(
            missing.err.contains("nobody@example.org") && missing.err.contains(&address),
            "{missing:?}"
        );
    }
}

#[test]
fn the_configuration_is_shown_and_checked() {
    let node = Node::new();
    let run = |arguments: &[&str]| {
        let mut config = Command::new(common::PROGRAM);
        config.arg("config").args(arguments);
        finish(config, b"")
    };
    let shown = run(&["show"]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let file = node.file("keyrink.toml", shown.out.as_bytes());
    let checked = run(&["check", file.to_str().unwrap()]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let wrong = node.file("wrong.toml", b"[http]\nbody_second = 3\n");
    let checked = run(&["check", wrong.to_str().unwrap()]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(
        checked.err.contains("body_second") && checked.err.contains("wrong.toml"),
        "{checked:?}"
    );
}

/// A line of a listing without what GnuPG notes about the server that it comes from.
fn without_origin(line: &str) -> String {
    let fields: Vec<&str> = line.split(':').take(17).collect();
    fields.join(":")
}

fn person(seed: u64, name: &str) -> Certificate {
    Certificate::v4(seed, "person").user_id(name)
}

/// The lines that GnuPG hands on from the server for a search; the server's own first line included.
fn search(server: &Keyrink, text_searched: &str) -> String {
    let gpg = Gpg::new().unwrap();
    let arguments = ["--with-colons", "--search-keys", text_searched];
    match gpg.with_keyserver(server.http(), &arguments) {
        Ok(output) => text(&output),
        Err(error) => error.to_string(),
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
