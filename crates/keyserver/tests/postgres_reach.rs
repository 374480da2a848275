//! How the program gets to a PostgreSQL database, and how its operators copy and move what is in one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use common::peering::wait;
use common::{Finished, Node, finish, get};
use keyrink_testkit::http::Client;
use keyrink_testkit::peers::{Postgres, run};
use keyrink_testkit::{Error, generate};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What operators do: copy the database while a server runs, restore it into an empty cluster, move to the embedded store and back.
#[test]
fn copies_and_moves_hold_the_same() {
    let node = Node::on_postgres();
    let mut octets = Vec::new();
    generate::write(&mut octets, 6, 0..300).unwrap();
    node.load(&[&node.file("keyring.pgp", &octets)]);

    let (restored, copy) = (Node::on_its_own_postgres(), node.path("copy"));
    std::fs::write(&copy, []).unwrap();
    let url = |node: &Node| node.data().to_str().unwrap().to_owned();
    let mut dump = node.postgres().client("pg_dump");
    let dump = dump.args(["--format=custom", "--file"]).arg(&copy).arg(url(&node));
    let before = beside_submissions(&node, 300, || run(dump, "postgresql"));
    let mut restore = node.postgres().client("pg_restore");
    run(
        restore
            .args(["--exit-on-error", "--dbname", &url(&restored)])
            .arg(&copy),
        "postgresql",
    )
    .unwrap();
    let (copied, report) = (certificates(&restored.check()), certificates(&node.check()));
    assert!((before..=report).contains(&copied), "{copied} of {before} to {report}");
    let server = restored.serve();
    let fingerprint = generate::certificate(6, 299).fingerprint();
    assert_eq!(get(&mut Client::new(server.http()), &fingerprint).status, 200);

    let report = node.check();
    let mut from = node;
    for target in [Node::embedded(), Node::on_postgres()] {
        let dump = from.path("dump");
        from.succeed("dump", &[dump.to_str().unwrap()]);
        target.load(&[&dump]);
        assert_eq!(target.check(), report);
        from = target;
    }
}

/// The number of certificates in the report of a check.
fn certificates(report: &str) -> u64 {
    let line = report.lines().find_map(|line| line.strip_prefix("certificates"));
    line.unwrap().trim().parse().unwrap()
}

/// Works while a server takes submissions of certificates from this number on; how many had come before.
fn beside_submissions(node: &Node, first: u64, work: impl FnOnce() -> Result<Output, Error>) -> u64 {
    let server = node.serve();
    let (taken, ended) = (AtomicU64::new(first), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::new(server.http());
            while !ended.load(Ordering::Relaxed) {
                let number = taken.load(Ordering::Relaxed);
                let answer = client.add(&generate::certificate(6, number).armored()).unwrap();
                assert_eq!(answer.status, 200, "{}", answer.text());
                taken.fetch_add(1, Ordering::Relaxed);
            }
        });
        let some = wait(Duration::from_secs(20), || match taken.load(Ordering::Relaxed) {
            taken if taken > first + 20 => Ok(taken),
            taken => Err(taken.to_string()),
        });
        let worked = some.is_ok().then(work).transpose();
        ended.store(true, Ordering::Relaxed);
        worked.unwrap();
        some.unwrap()
    })
}

fn openssl(folder: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    run(command.current_dir(folder).args(arguments.split(' ')), "openssl").unwrap();
}

/// A database that shows a certificate for `subject`, made by an authority of this name.
fn secured(folder: &Path, name: &str, subject: &str) -> Postgres {
    std::fs::write(folder.join("names"), format!("subjectAltName={subject}")).unwrap();
    let new = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for arguments in [
        format!("{new} -x509 -days 2 -subj /CN={name} -keyout {name}.key -out {name}.pem"),
        format!("{new} -subj /CN=db -keyout {name}-db.key -out {name}-db.csr"),
        format!(
            "x509 -req -in {name}-db.csr -CA {name}.pem -CAkey {name}.key -days 2 -extfile names -out {name}-db.pem"
        ),
    ] {
        openssl(folder, &arguments);
    }
    let [key, certificate] = ["key", "pem"].map(|kind| folder.join(format!("{name}-db.{kind}")));
    // Only root has to give it away: otherwise the database runs as this user.
    let _ = Command::new("chown").arg("postgres").arg(&key).status();
    let settings = [
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", certificate.display()),
        format!("ssl_key_file={}", key.display()),
    ];
    Postgres::start_with(&settings.each_ref().map(String::as_str)).unwrap()
}

/// Only a certificate that was verified, and for its own name, is believed.
#[test]
fn only_the_right_certificate_is_believed() {
    let folder = tempfile::Builder::new().prefix("tls-").tempdir_in("/tmp").unwrap();
    run(Command::new("chmod").arg("755").arg(folder.path()), "coreutils").unwrap();
    let ours = secured(folder.path(), "ours", "IP:127.0.0.1");
    let other = secured(folder.path(), "other", "DNS:db.example.org");
    let plain = Postgres::start().unwrap();
    let migrate = |database: &Postgres, query: &str| {
        let mut command = Command::new(common::PROGRAM);
        let url = format!("{}?{query}", database.url());
        command.args(["migrate", "--database", &url]);
        common::finish(command, b"")
    };
    let roots = |name: &str| format!("sslrootcert={}/{name}.pem", folder.path().display());
    let verified = format!("sslmode=verify-full&{}", roots("ours"));

    let done = migrate(&ours, &verified);
    assert_eq!(done.code, Some(0), "{done:?}");
    // With an authority it is TLS also on this machine.
    let done = migrate(&ours, &roots("ours"));
    assert_eq!(done.code, Some(0), "{done:?}");
    for (database, query) in [
        (&ours, "sslmode=verify-full".to_owned()),
        (&ours, format!("sslmode=verify-full&{}", roots("other"))),
        (&other, format!("sslmode=verify-full&{}", roots("other"))),
        (&other, format!("sslmode=require&{}", roots("other"))),
        (&plain, verified),
    ] {
        let refused = migrate(database, &query);
        assert_eq!(refused.code, Some(1), "{query}: {refused:?}");
        assert!(refused.err.contains("TLS"), "{query}: {refused:?}");
    }
}

/// `keyrink migrate` with settings such as `PGPASSFILE=…`, and a URL unless these name it.
fn migrate(url: Option<&str>, settings: &[(&str, &Path)]) -> Finished {
    let mut command = Command::new(common::PROGRAM);
    command
        .arg("migrate")
        .env_remove("PGPASSFILE")
        .envs(settings.iter().copied());
    command.args(url.iter().flat_map(|url| ["--database", url]));
    finish(command, b"")
}

#[test]
fn sockets_and_passwords_open_the_way() {
    let server = Postgres::start_with(&["fsync=off"]).unwrap();
    let done = migrate(Some(&server.socket_url_of("postgres")), &[]);
    assert_eq!(done.code, Some(0), "{done:?}");

    server.secured_role("keeper", "pass:word").unwrap();
    let node = Node::embedded();
    let file = |name: &str, text: &str, mode: u32| {
        let path = node.file(name, text.as_bytes());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let at = format!("127.0.0.1:{}", server.port());
    let url = format!("postgres://keeper@{at}/postgres");
    let right = file("right", &format!("{at}:*:keeper:pass\\:word\n"), 0o600);
    let open = file("open", &format!("{at}:*:keeper:pass\\:word\n"), 0o644);
    let wrong = file("wrong", "*:*:*:*:guessed\n", 0o600);
    let whole = file(
        "whole",
        &format!("postgres://keeper:pass%3Aword@{at}/postgres\n"),
        0o600,
    );
    for (url, settings) in [
        (Some(url.as_str()), &[("PGPASSFILE", &*right)]),
        (Some(url.as_str()), &[("KEYRINK_STORE_PASSWORD_FILE", &*right)]),
        (None, &[("KEYRINK_STORE_DATABASE_FILE", &*whole)]),
    ] {
        let done = migrate(url, settings);
        assert_eq!(done.code, Some(0), "{settings:?}: {done:?}");
    }
    for (setting, reason) in [
        (&wrong, "refuses the password"),
        (&node.path("none"), "refuses the password"),
        (&open, "others can read it"),
    ] {
        let refused = migrate(Some(&url), &[("PGPASSFILE", setting)]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(
            refused.err.contains(reason) && !refused.err.contains("guessed"),
            "{refused:?}"
        );
    }
}
