//! A PostgreSQL database that is away, stands still, takes no writes, is full, or fails over to a standby: servers say so, lose
//! nothing that they acknowledged, and go on without a restart.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use common::peering::wait;
use common::{Finished, Node, finish, get};
use keyrink_testkit::generate;
use keyrink_testkit::http::Client;
use keyrink_testkit::peers::{Keyrink, Postgres, store_arguments};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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
    // One digest, which nobody has.
    let question = [&[0, 0, 0, 1, 0, 0, 0, 16][..], &[7; 16]].concat();
    let mut peer = Client::new(server.http());
    let answer = peer.request("POST", "/pks/hashquery", &[], &question).unwrap();
    assert_eq!(answer.status, 503, "what peers get: {}", answer.text());
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

fn status(server: &Keyrink, path: &str) -> u16 {
    Client::new(server.http()).get(path).unwrap().status
}

/// Waits for `/readyz` to say so.
fn until_ready(server: &Keyrink, wanted: u16) {
    let seen = wait(Duration::from_secs(8), || match status(server, "/readyz") {
        status if status == wanted => Ok(()),
        status => Err(format!("{status}\n{}", server.log_end())),
    });
    seen.unwrap();
}

#[test]
fn a_database_that_is_read_only_is_said_to_be() {
    let node = Node::on_postgres();
    let server = node.serve();
    let known = generate::certificate(9, 0);
    let submit = |number| {
        Client::new(server.http())
            .add(&generate::certificate(9, number).armored())
            .unwrap()
    };
    assert_eq!(submit(0).status, 200);
    // As when the primary becomes a standby: sessions end, new ones can't write.
    let name = node.ask("SELECT current_database()");
    let set = |value: &str| {
        let setting = format!("ALTER DATABASE {name} SET default_transaction_read_only = {value}");
        let end = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}'");
        for sql in [setting, end] {
            node.postgres().ask("postgres", &sql).unwrap();
        }
    };
    set("on");
    until_ready(&server, 503);
    let refused = submit(1);
    assert_eq!(refused.status, 500, "{}", refused.text());
    assert_eq!(get(&mut Client::new(server.http()), &known.fingerprint()).status, 200);
    assert_eq!(status(&server, "/healthz"), 200);
    set("off");
    until_ready(&server, 200);
    assert_eq!(submit(1).status, 200);
    assert!(node.check().contains("certificates  2"));
    assert!(server.log().contains("read-only"), "{}", server.log());
}

/// The tables are on a disk of their own, which gets full while the log of PostgreSQL still has room.
#[test]
fn a_database_without_room_is_said_to_have_none() {
    let disk = tempfile::Builder::new().prefix("disk-").tempdir_in("/tmp").unwrap();
    let Some(_mounted) = Mounted::at(disk.path()) else {
        return keyrink_testkit::report::skipped("nothing can be mounted here that could get full (it takes root)");
    };
    let node = Node::on_postgres();
    let name = node.ask("SELECT current_database()");
    for sql in [
        format!("CREATE TABLESPACE small LOCATION '{}'", disk.path().display()),
        format!("ALTER DATABASE {name} SET TABLESPACE small"),
    ] {
        node.postgres().ask("postgres", &sql).unwrap();
    }
    let server = node.serve();
    let mut acknowledged = Vec::new();
    let mut submit = |number: u64| {
        // More than the pages that are left in the tables.
        let certificate = (0..20).fold(generate::certificate(10, number), |certificate, nth| {
            certificate.bare_user_id(format!("{nth}{}", "long ".repeat(300)))
        });
        let status = Client::new(server.http()).add(&certificate.armored()).unwrap().status;
        if status == 200 {
            acknowledged.push(certificate.fingerprint());
        }
        status
    };
    assert_eq!(submit(0), 200);
    let ballast = disk.path().join("ballast");
    let filled = std::fs::write(&ballast, vec![7; DISK_OCTETS]).is_err();
    assert!(filled, "the disk takes more than there is");
    assert!((1..500).any(|number| submit(number) == 500), "{}", server.log_end());
    until_ready(&server, 503);
    assert_eq!(status(&server, "/healthz"), 200);
    std::fs::remove_file(&ballast).unwrap();
    until_ready(&server, 200);
    assert_eq!(submit(1_000), 200);
    let mut client = Client::new(server.http());
    assert!(
        acknowledged
            .iter()
            .all(|fingerprint| get(&mut client, fingerprint).status == 200)
    );
    assert!(
        node.check()
            .contains(&format!("certificates  {}\n", acknowledged.len()))
    );
    assert!(server.log().contains("its disk is full"), "{}", server.log());
    drop(server);
    for sql in [
        format!("DROP DATABASE {name} WITH (FORCE)"),
        "DROP TABLESPACE small".to_owned(),
    ] {
        node.postgres().ask("postgres", &sql).unwrap();
    }
}

const DISK_OCTETS: usize = 40 << 20;

/// A disk of its own, in memory.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn at(folder: &Path) -> Option<Self> {
        let owner = ["-t", "tmpfs", "-o", &format!("size={DISK_OCTETS},mode=777"), "none"].map(str::to_owned);
        let mounted = Command::new("mount").args(owner).arg(folder).status().ok()?;
        mounted.success().then(|| {
            Command::new("chown").arg("postgres").arg(folder).status().unwrap();
            Self(folder.to_owned())
        })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// It accepts connections and never answers, as with a disk or a network that hangs.
#[test]
fn a_database_that_stands_still_is_noticed_in_time() {
    let node = Node::on_postgres();
    let server = node.serve();
    let submit = |number| Client::new(server.http()).add(&generate::certificate(13, number).armored());
    assert_eq!(submit(0).unwrap().status, 200);
    node.postgres().freeze();
    std::thread::scope(|scope| {
        let meanwhile = scope.spawn(|| submit(1));
        let noticed = wait(Duration::from_secs(8), || {
            let asked = Instant::now();
            let status = status(&server, "/readyz");
            assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
            if status == 503 { Ok(()) } else { Err(status.to_string()) }
        });
        let answers = (noticed, status(&server, "/healthz"));
        node.postgres().thaw();
        assert_eq!(answers, (Ok(()), 200));
        until_ready(&server, 200);
        let answered = meanwhile.join().unwrap().unwrap();
        assert!([200, 500].contains(&answered.status), "{}", answered.text());
    });
    assert_eq!(submit(2).unwrap().status, 200);
    let report = node.check();
    assert!(
        report.contains("certificates  3\n") || report.contains("certificates  2\n"),
        "{report}"
    );
}

/// A command on another database than its node's.
fn command(name: &str, url: &str, arguments: &[&str]) -> Finished {
    let mut command = Command::new(common::PROGRAM);
    command.arg(name).args(store_arguments(Path::new(url))).args(arguments);
    finish(command, b"")
}

/// A primary, and a standby that has every commit before it is acknowledged.
fn primary_and_standby() -> (Node, Postgres) {
    let node = Node::on_its_own_postgres();
    node.succeed("migrate", &[]);
    let standby = node.postgres().standby().unwrap();
    for sql in [
        "ALTER SYSTEM SET synchronous_standby_names = '*'",
        "SELECT pg_reload_conf()",
    ] {
        node.postgres().ask("postgres", sql).unwrap();
    }
    (node, standby)
}

/// Writers go on while the primary is killed and its standby takes its place. The server is never started again.
#[test]
fn a_server_follows_a_fail_over() {
    let (node, standby) = primary_and_standby();
    let ports = [node.postgres(), &standby].map(Postgres::port);
    let url = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/{}?target_session_attrs=read-write",
        ports[0],
        ports[1],
        node.database()
    );
    let server = Keyrink::start(Path::new(common::PROGRAM), Path::new(&url)).unwrap();
    let (acknowledged, ended) = (Mutex::new(BTreeSet::new()), AtomicBool::new(false));
    let write = |writer: u64| {
        let mut client = Client::new(server.http());
        for number in (0..).map(|step| step * 4 + writer) {
            match client.add(&generate::certificate(14, number).armored()) {
                Ok(answer) if answer.status == 200 => drop(acknowledged.lock().unwrap().insert(number)),
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
            if ended.load(Ordering::Relaxed) {
                break;
            }
        }
    };
    let count = || acknowledged.lock().unwrap().len();
    let more_than = |most: usize| {
        wait(Duration::from_secs(30), || {
            if count() > most { Ok(()) } else { Err(server.log_end()) }
        })
    };
    let went_on = std::thread::scope(|scope| {
        (0..4).for_each(|writer| drop(scope.spawn(move || write(writer))));
        let began = more_than(50);
        node.postgres().kill();
        std::thread::sleep(Duration::from_millis(300));
        let before = count();
        standby.promote().unwrap();
        let went_on = began.and_then(|()| more_than(before + 50));
        ended.store(true, Ordering::Relaxed);
        went_on
    });
    went_on.unwrap();
    until_ready(&server, 200);
    let mut client = Client::new(server.http());
    for number in acknowledged.lock().unwrap().iter() {
        let fingerprint = generate::certificate(14, *number).fingerprint();
        assert_eq!(get(&mut client, &fingerprint).status, 200, "{number} is lost");
    }
    let checked = command("check", &standby.url_of(node.database()), &[]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

/// A standby that follows can be read: `check` and `dump` work on it, a server refuses it with a reason.
#[test]
fn a_standby_can_be_checked_and_dumped() {
    let (node, standby) = primary_and_standby();
    let mut octets = Vec::new();
    generate::write(&mut octets, 15, 0..200).unwrap();
    node.load(&[&node.file("keyring.pgp", &octets)]);
    let (url, report) = (standby.url_of(node.database()), node.run("check", &[]));
    assert_eq!(report.code, Some(0), "{report:?}");
    let same = wait(Duration::from_secs(10), || {
        let found = command("check", &url, &[]);
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        if found.code == Some(0) && words(&found.out) == words(&report.out) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
    same.unwrap();
    let (dump, copy) = (node.path("dump"), Node::embedded());
    let dumped = command("dump", &url, &[dump.to_str().unwrap()]);
    assert_eq!(dumped.code, Some(0), "{dumped:?}");
    copy.load(&[&dump]);
    assert_eq!(copy.check(), node.check());
    let refused = command("serve", &url, &["--http", "127.0.0.1:0"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.err.contains("is read-only") && refused.err.contains("standby"),
        "{refused:?}"
    );
}
