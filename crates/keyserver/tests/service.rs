//! What a running server tells others than its clients: the service manager, the operator's log; and what HUP does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use common::{Node, get};
use keyrink_testkit::generate;
use keyrink_testkit::http::Client;
use keyrink_testkit::peers::{Keyrink, free_port};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(20);

fn testdata(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "tls", name].iter().collect()
}

/// The certificate that a server shows.
fn shown_by(address: SocketAddr) -> Vec<u8> {
    let mut roots = rustls::RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(testdata("authority.pem")).unwrap();
    roots.add(authority).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut session = rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut connection = TcpStream::connect(address).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut connection).unwrap();
    }
    session.peer_certificates().unwrap()[0].to_vec()
}

fn hang_up(server: &Keyrink) {
    let status = Command::new("kill").args(["-HUP", &server.id().to_string()]).status();
    assert!(status.unwrap().success());
}

#[test]
fn certificates_are_read_again_on_hup() {
    let node = Node::new();
    let paths = ["pem", "key"].map(|kind| node.path(&format!("tls.{kind}")));
    let install = |name: &str| {
        for (kind, path) in ["pem", "key"].iter().zip(&paths) {
            std::fs::copy(testdata(&format!("{name}.{kind}")), path).unwrap();
        }
    };
    install("first");
    let address = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
    let [chain, key] = paths.each_ref().map(|path| path.to_str().unwrap());
    let https = address.to_string();
    let server = node.serve_with(&[], &["--https", &https, "--tls-cert", chain, "--tls-key", key]);
    let first = shown_by(address);

    std::fs::write(chain, "no certificate").unwrap();
    hang_up(&server);
    wait_until(|| server.log().contains(chain), || server.log());
    assert_eq!(shown_by(address), first, "the old one stays in use");

    install("second");
    hang_up(&server);
    wait_until(|| shown_by(address) != first, || server.log());
}

#[test]
fn the_service_manager_hears_of_start_life_and_end() {
    let node = Node::new();
    let path = node.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(WITHIN)).unwrap();
    let hear = || {
        let mut message = [0; 256];
        let count = manager.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..count]).trim().to_owned()
    };
    let socket = format!("NOTIFY_SOCKET={}", path.display());
    let mut server = node.serve_with(&[&socket, "WATCHDOG_USEC=400000"], &[]);
    let mut heard = Vec::new();
    while !heard.iter().any(|message| message == "READY=1") {
        heard.push(hear());
    }
    let start = Instant::now();
    for _ in 0..4 {
        assert_eq!(hear(), "WATCHDOG=1");
    }
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(server.terminate().and_then(|status| status.code()), Some(0));
    let mut last = hear();
    while last == "WATCHDOG=1" {
        last = hear();
    }
    assert_eq!(last, "STOPPING=1");
}

#[test]
fn the_log_tells_on_nobody_unless_it_has_to() {
    const SETTINGS: [&str; 2] = ["KEYRINK_LOG_ADDRESSES=true", "KEYRINK_LOG_SEARCHES=true"];
    for (settings, told) in [(&[][..], false), (&SETTINGS[..], true)] {
        let certificate = generate::certificate(6, 0);
        let node = Node::new();
        let settings = [
            &["KEYRINK_LOG_FILTER=trace", "KEYRINK_HTTP_PROXIES=127.0.0.1"],
            settings,
        ]
        .concat();
        let server = node.serve_with(&settings, &[]);
        let mut client = Client::new(server.http());
        let from = [("X-Forwarded-For", "192.0.2.77")];
        let mut ask = |target: &str| client.request("GET", target, &from, b"").unwrap().status;
        assert_eq!(ask("/pks/lookup?op=get&search=secret-term@example.org"), 404);
        assert_eq!(ask("/pks/lookup?op=nothing&search=secret-term@example.org"), 400);
        assert_eq!(ask("/?search=secret-term@example.org"), 200);
        assert_eq!(client.add(&certificate.armored()).unwrap().status, 200);
        assert_eq!(get(&mut client, &certificate.fingerprint()).status, 200);
        let log = server.log();
        for part in ["secret-term", "192.0.2.77"] {
            assert_eq!(log.contains(part), told, "{part}\n{log}");
        }
        assert!(log.contains("answered"), "{log}");
        assert_eq!(log.contains(&certificate.fingerprint()), told, "{log}");
    }
}

fn wait_until(mut ready: impl FnMut() -> bool, log: impl Fn() -> String) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < WITHIN, "{}", log());
        sleep(Duration::from_millis(20));
    }
}
