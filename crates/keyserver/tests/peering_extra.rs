//! Less usual peering with a real SKS: one whose name comes to mean another address, and one that keeps more than this node
//! is allowed to.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use std::process::Command;
use std::time::Duration;

use common::Node;
use common::peering::{Reconciling, digest, sks, wait};
use keyrink_testkit::{Certificate, generate};

const WITHIN: Duration = Duration::from_secs(120);

/// In a mount namespace of its own the node has a file of hosts that the test can change.
#[test]
fn a_name_that_means_another_address_is_followed() {
    let node = Node::with(&[&certificates(0..5)]);
    let hosts = node.file("hosts", b"127.0.0.77 sks.test\n");
    let mut trial = Command::new("unshare");
    if !trial.args(["-m", "true"]).status().is_ok_and(|status| status.success()) {
        return keyrink_testkit::report::skipped("mount namespaces are not permitted here");
    }
    let file = node.file("theirs.pgp", &certificates(3..9));
    let keyrink = Reconciling::new(node, "127.0.0.1");
    let sks = sks(&[&file], &[keyrink.port()], true);
    let own_hosts = format!("mount --bind {} /etc/hosts && exec \"$0\" \"$@\"", hosts.display());
    let keyrink = ["unshare", "-m", "sh", "-c", &own_hosts]
        .iter()
        .fold(keyrink, |node, word| node.setting(word));
    let keyrink = keyrink
        .partner(&format!("sks.test:{}", sks.recon_port()))
        .gossip(2)
        .start();
    wait(WITHIN, || match keyrink.report()["last_error"][1].as_str() {
        Some(error) if error.contains("cannot be reached") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
    assert_eq!(
        keyrink.number("sessions"),
        0,
        "SKS called from an address that is not its own yet"
    );
    // Written in place, as the file is mounted.
    std::fs::write(&hosts, b"127.0.0.1 sks.test\n").unwrap();
    for called in [true, false] {
        wait(WITHIN, || match keyrink.report() {
            report if report["called"] == called && report["last_session"].is_u64() => Ok(()),
            report => Err(format!("{report}")),
        })
        .unwrap();
    }
    wait(WITHIN, || match keyrink.digests().len() {
        9 => Ok(()),
        held => Err(format!("{held}")),
    })
    .unwrap();
}

#[test]
fn commands_work_with_sks() {
    let node = Node::with(&[&certificates(0..5)]);
    let file = node.file("theirs.pgp", &certificates(3..9));
    let sks = sks(&[&file], &[1], false);
    let before = node.check();
    let address = format!("127.0.0.1:{}", sks.recon_port());
    let said = node.succeed("peers", &["test", &address]);
    for line in [
        "it announces version 1.1.6, filters \"yminsky.dedup,yminsky.merge\"\n",
        "dataset sks: 5 elements here\n",
        "it has 4 that are not here, and lacks 3 of ours\n",
    ] {
        assert!(said.contains(line), "{said}");
    }
    assert_eq!(node.check(), before);
    let partner = format!(
        "[[partner]]\nname = \"sks\"\nrecon = \"{address}\"\nhttp = \"http://{}\"\n",
        sks.http()
    );
    let config = node.file("keyrink.toml", partner.as_bytes());
    // Its own attempt to fetch from here comes to nothing, and meanwhile it takes no calls.
    let said = wait(WITHIN, || {
        let done = node.run("peers", &["--config", config.to_str().unwrap(), "sync", "sks"]);
        if done.code == Some(0) {
            Ok(done.out)
        } else {
            Err(done.err)
        }
    })
    .unwrap();
    assert!(
        said.contains("it has 4 elements") && said.contains("4 certificates fetched in 1 requests"),
        "{said}"
    );
    assert!(node.check().contains("sks elements  9\n"));
}

/// Somebody writes all the time, and nobody is turned away for that.
#[test]
fn sessions_go_on_while_a_load_writes() {
    let writer = Reconciling::new(Node::with(&[&certificates(0..5)]), "127.0.0.2");
    let caller = Reconciling::new(Node::with(&[&certificates(0..5)]), "127.0.0.3");
    let (at_writer, at_caller) = (writer.recon.clone(), caller.recon.clone());
    let writer = writer.partner(&at_caller).gossip(100_000).start();
    let caller = caller.partner(&at_writer).gossip(1).start();
    let file = writer.node.file("more.pgp", &certificates(5..8000));
    let mut load = writer.node.command("load", &[file.to_str().unwrap()]);
    let mut load = load.stdout(std::process::Stdio::null()).spawn().unwrap();
    let mut during = 0;
    let mut seen = caller.number("sessions");
    while load.try_wait().unwrap().is_none() {
        let now = caller.number("sessions");
        during += now - seen;
        seen = now;
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(during >= 2, "{during} sessions: {}", caller.log());
    wait(WITHIN, || match (caller.digests().len(), caller.report()) {
        (8000, report) if report["last_error"].is_null() => Ok(()),
        (held, report) => Err(format!("{held} {report}")),
    })
    .unwrap();
    println!("{during} sessions during the load");
}

/// There is room for a photograph and not for many user ids that nobody signed.
#[test]
fn a_part_of_what_sks_keeps_is_kept_and_the_rest_is_left_alone() {
    let keyrink = Reconciling::new(Node::with(&[&certificates(0..5)]), "127.0.0.1");
    let person = |label: &str| Certificate::v4(9, label).user_id(label);
    let photograph = person("photograph").user_attribute(&[7; 500]);
    let many = (0..20).fold(person("many"), |cert, number| {
        cert.bare_user_id(format!("nobody {number}"))
    });
    let theirs = [certificates(3..9), photograph.to_bytes(), many.to_bytes()].concat();
    let file = keyrink.node.file("theirs.pgp", &theirs);
    let sks = sks(&[&file], &[keyrink.port()], false);
    let keyrink = keyrink.setting("KEYRINK_LIMITS_EXTRA_OCTETS=8192");
    let keyrink = keyrink.partner(&format!("127.0.0.1:{},pause_seconds=0.1", sks.recon_port()));
    let keyrink = keyrink.gossip(1).start();
    wait(WITHIN, || match (keyrink.digests().len(), keyrink.number("refused")) {
        (11, 1) => Ok(()),
        other => Err(format!("{other:?} {}", keyrink.log())),
    })
    .unwrap();
    let held = keyrink.digests();
    assert!(held.contains(&digest(&photograph.to_bytes())) && !held.contains(&digest(&many.to_bytes())));
    let (asked, sessions) = (keyrink.number("requests"), keyrink.number("sessions"));
    // SKS has no such memory: it asks for the other form after each of them, and takes no call meanwhile.
    wait(WITHIN, || match keyrink.number("sessions") {
        now if now >= sessions + 3 => Ok(()),
        now => Err(format!("{now} sessions after {sessions}")),
    })
    .unwrap();
    assert_eq!((keyrink.number("requests"), keyrink.number("differences")), (asked, 1));
    let figures = keyrink.client().get("/metrics").unwrap().text();
    let name = format!("127.0.0.1:{}", sks.recon_port());
    for line in [
        format!("keyrink_peer_refused{{partner=\"{name}\"}} 1"),
        format!("keyrink_peer_differences{{partner=\"{name}\"}} 1"),
        format!("keyrink_peer_dataset{{partner=\"{name}\",dataset=\"sks\"}} 1"),
        format!("keyrink_peer_state{{partner=\"{name}\",state=\"failing\"}} 0"),
    ] {
        assert!(figures.contains(&line), "{line}: {figures}");
    }
}

fn certificates(indices: std::ops::Range<u64>) -> Vec<u8> {
    let mut octets = Vec::new();
    generate::write(&mut octets, 1, indices).unwrap();
    octets
}
