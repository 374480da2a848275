//! What operators do with peers: `keyrink peers`, HUP, and keeping less than the partners do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use common::Node;
use common::peering::{Reconciling, wait};
use keyrink_testkit::generate;

const WITHIN: Duration = Duration::from_secs(60);

#[test]
fn a_test_tells_how_far_apart_and_changes_nothing() {
    let here = Node::with(&[&certificates(0..30)]);
    let there = Reconciling::new(Node::with(&[&certificates(20..70)]), "127.0.0.3");
    let there = there.partner("127.0.0.1:1").gossip(100_000).start();
    let before = here.check();
    let said = here.succeed("peers", &["test", &there.recon]);
    for line in [
        "it announces version 1.1.6, filters \"yminsky.dedup,yminsky.merge\", trees openpgp/2 openpgp/1",
        "dataset openpgp/2: 60 elements here",
        "it has 80 that are not here, and lacks 40 of ours",
    ] {
        assert!(said.contains(line), "{said}");
    }
    assert_eq!(here.check(), before);
    assert_eq!(there.asked(), 0);
    let refused = here.run("peers", &["test", "127.0.0.1:1"]);
    assert!(
        refused.code == Some(1) && refused.err.contains("cannot be reached"),
        "{refused:?}"
    );
    let stranger = Reconciling::new(Node::with(&[&certificates(0..1)]), "127.0.0.4")
        .partner("127.0.0.99:1")
        .start();
    let closed = here.run("peers", &["test", &stranger.recon]);
    assert!(closed.err.contains("does not know this node's address"), "{closed:?}");
}

#[test]
fn partners_have_addresses_of_both_families() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return keyrink_testkit::report::skipped("no IPv6 here");
    }
    let address = format!("[::1]:{}", keyrink_testkit::peers::free_port().unwrap());
    let there = Reconciling::new(Node::with(&[&certificates(0..5)]), "127.0.0.5").listen(&address);
    let there = there.partner("[::1]:1").partner("127.0.0.1:1").gossip(100_000).start();
    let here = Node::with(&[&certificates(0..1)]);
    for address in [&address, &there.recon] {
        assert!(
            here.succeed("peers", &["test", address])
                .contains("it has 8 that are not here")
        );
    }
}

#[test]
fn sessions_go_over_both_families() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return keyrink_testkit::report::skipped("no IPv6 here");
    }
    let address = || format!("[::1]:{}", keyrink_testkit::peers::free_port().unwrap());
    let (at_here, at_there) = (address(), address());
    let there = Reconciling::new(Node::with(&[&certificates(0..5)]), "127.0.0.5").listen(&at_there);
    let _there = there.partner(&at_here).gossip(100_000).start();
    let here = Reconciling::new(Node::with(&[&certificates(0..1)]), "127.0.0.6").listen(&at_here);
    let here = here.partner(&at_there).gossip(1).start();
    wait(WITHIN, || match (here.number("sessions"), here.number("differences")) {
        // Of each certificate two self-signatures.
        (1.., 8) => Ok(()),
        other => Err(format!("{other:?}\n{}", here.log())),
    })
    .unwrap();
}

#[test]
fn the_first_partner_makes_a_listener() {
    let here = Node::with(&[&certificates(0..1)]);
    let file = here.file("keyrink.toml", b"");
    let server = here.serve_with(&[], &["--config", file.to_str().unwrap()]);
    here.file(
        "keyrink.toml",
        b"[[partner]]\nrecon = \"127.0.0.99:1\"\nname = \"gone\"\n",
    );
    hang_up(server.id());
    wait(WITHIN, || match server.log() {
        log if log.contains("127.0.0.1:11370") && log.contains("partners were read again") => Ok(()),
        log => Err(log),
    })
    .unwrap();
    let mut client = keyrink_testkit::http::Client::new(server.http());
    let mut queue = |value: &str| {
        let line = format!("keyrink_peer_queue{{partner=\"gone\"}} {value}");
        wait(WITHIN, || match client.get("/metrics").unwrap().text() {
            text if text.contains(&line) => Ok(()),
            text => Err(text),
        })
        .unwrap();
    };
    queue("0");
    here.file("keyrink.toml", b"");
    hang_up(server.id());
    queue("NaN");
}

#[test]
fn a_sync_fetches_now_and_the_table_shows_it() {
    let there = Reconciling::new(Node::with(&[&certificates(0..50)]), "127.0.0.3");
    let there = there.partner("127.0.0.1:1").gossip(100_000).start();
    let here = Node::with(&[&certificates(0..20)]);
    let file = configuration(&here, &there.recon);
    let config = ["--config", file.to_str().unwrap()];
    let said = here.succeed("peers", &[&config[..], &["sync", "there"]].concat());
    assert!(
        said.contains("it has 60 elements") && said.contains("30 certificates fetched in 2 requests"),
        "{said}"
    );
    let table = here.succeed("peers", &config);
    let row = table.lines().nth(1).unwrap();
    assert!(
        row.starts_with("there") && row.contains("waiting") && row.contains("openpgp/2"),
        "{table}"
    );
    assert!(here.check().contains("sks elements  50"));
    let nobody = here.run("peers", &[&config[..], &["sync", "nobody"]].concat());
    assert!(
        nobody.err.contains("no [[partner]] has the name \"nobody\""),
        "{nobody:?}"
    );
}

#[test]
fn hang_up_changes_partners() {
    let there = Reconciling::new(Node::with(&[&certificates(0..50)]), "127.0.0.3");
    let there = there.partner("127.0.0.1:1").gossip(100_000).start();
    let here = Node::with(&[&certificates(0..1)]);
    let file = here.file("keyrink.toml", b"[peers]\nlisten = [\"127.0.0.1:0\"]\n");
    let mut server = here.serve_with(&[], &["--config", file.to_str().unwrap()]);
    configuration(&here, &there.recon);
    hang_up(server.id());
    let held = || common::peering::digests(&here.data()).len();
    wait(WITHIN, || if held() == 50 { Ok(()) } else { Err(server.log()) }).unwrap();
    let page = keyrink_testkit::http::Client::new(server.http())
        .get("/pks/stats")
        .unwrap()
        .text();
    assert!(page.contains("there") && page.contains("Last session"), "{page}");
    // A mistake changes nothing; no partner is fine.
    here.file("keyrink.toml", b"[[partner]]\nrecon = \"nowhere\"\n");
    hang_up(server.id());
    wait(WITHIN, || match server.log() {
        log if log.contains("the old partners stay in use") && log.contains("is no host and port") => Ok(()),
        log => Err(log),
    })
    .unwrap();
    assert!(server.terminate().is_some_and(|status| status.success()));
}

#[test]
fn who_keeps_less_stays_quiet_too() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/recon-v1/certs");
    let quirky = [
        "primary-only",
        "uid-unsigned",
        "user-attribute-unsigned",
        "bad-selfsig",
        "second",
    ];
    let quirky: Vec<Vec<u8>> = quirky
        .iter()
        .map(|name| std::fs::read(folder.join(format!("{name}.pgp"))).unwrap())
        .collect();
    let there = Node::with(&[&certificates(0..20), &quirky.concat()]);
    let there = Reconciling::new(there, "127.0.0.3");
    let here = Reconciling::new(Node::with(&[&certificates(0..10)]), "127.0.0.2");
    let (at_here, at_there) = (here.recon.clone(), there.recon.clone());
    let there = there.partner(&at_here).gossip(1).start();
    let mut here = here
        .setting("KEYRINK_LIMITS_EXTRA_OCTETS=0")
        .partner(&at_there)
        .gossip(1)
        .start();
    wait(WITHIN, || match (here.digests().len(), here.number("sessions")) {
        (22, 5..) => Ok(()),
        other => Err(format!("{other:?}\n{}", here.log())),
    })
    .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let requests = || (here.number("requests"), there.number("requests"));
    let (before, sessions) = (requests(), here.number("sessions"));
    wait(WITHIN, || match here.number("sessions") {
        now if now >= sessions + 5 => Ok(()),
        now => Err(format!("{now} sessions")),
    })
    .unwrap();
    assert_eq!(requests(), before, "{}\n---\n{}", here.log(), there.log());
    here.server().terminate();
    here.node.check();
}

/// A configuration with one partner.
fn configuration(node: &Node, recon: &str) -> PathBuf {
    let text = format!(
        "[peers]\nlisten = [\"127.0.0.1:0\"]\n\n[[partner]]\nname = \"there\"\nrecon = \"{recon}\"\nhttp = \"http://{}\"\n",
        http(recon)
    );
    node.file("keyrink.toml", text.as_bytes())
}

/// Where the node that reconciles at this address answers HTTP; its port is found by asking.
fn http(recon: &str) -> String {
    let probe = Node::with(&[]);
    let said = probe.succeed("peers", &["test", recon]);
    let port = said
        .lines()
        .find_map(|line| line.strip_prefix("it serves certificates at port "))
        .unwrap();
    format!("{}:{port}", recon.split(':').next().unwrap())
}

fn hang_up(id: u32) {
    assert!(
        Command::new("kill")
            .args(["-HUP", &id.to_string()])
            .status()
            .unwrap()
            .success()
    );
}

fn certificates(indices: std::ops::Range<u64>) -> Vec<u8> {
    let mut octets = Vec::new();
    generate::write(&mut octets, 1, indices).unwrap();
    octets
}
