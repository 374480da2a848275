//! Several servers on one PostgreSQL database: they show the same, one of them calls each partner, and the database may
//! go and come back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use common::peering::{Reconciling, digests, wait};
use common::{Node, get};
use keyrink_testkit::http::Client;
use keyrink_testkit::peers::{Postgres, run};
use keyrink_testkit::{Certificate, Reason, generate};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
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

fn status(server: &keyrink_testkit::peers::Keyrink, path: &str) -> u16 {
    Client::new(server.http()).get(path).unwrap().status
}

/// Waits for `/readyz` to say so.
fn until_ready(server: &keyrink_testkit::peers::Keyrink, wanted: u16) {
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
        println!("not root, or no mounts here: nothing to fill");
        return;
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
    fn at(folder: &std::path::Path) -> Option<Self> {
        let owner = ["-t", "tmpfs", "-o", &format!("size={DISK_OCTETS},mode=777"), "none"].map(str::to_owned);
        let mounted = std::process::Command::new("mount")
            .args(owner)
            .arg(folder)
            .status()
            .ok()?;
        mounted.success().then(|| {
            std::process::Command::new("chown")
                .arg("postgres")
                .arg(folder)
                .status()
                .unwrap();
            Self(folder.to_owned())
        })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
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
