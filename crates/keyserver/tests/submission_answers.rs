//! Every answer to submissions and peers, and what the server tells about itself, as a client gets it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use std::io::Write;
use std::net::TcpStream;

use common::{Node, shown};
use keyrink_testkit::http::Client;
use keyrink_testkit::{Certificate, Tag, packet};

#[test]
fn submissions() {
    let node = Node::new();
    let server = node.serve_with(&["KEYRINK_HTTP_BODY_OCTETS=100000"], &[]);
    let mut client = Client::new(server.http());
    let good = |name: &str| Certificate::v4(1, name).user_id("Alice <alice@example.org>");
    let partly = good("partly").bare_user_id("Unsigned <nobody@example.org>");
    let octets = "application/octet-stream";
    let secret = [
        good("a").to_bytes(),
        packet(Tag::SecretKey, keyrink_testkit::Format::Legacy, b"\x04"),
    ]
    .concat();
    for (name, kind, body, status) in [
        ("partly", octets, partly.to_bytes(), 200),
        ("nothing", octets, Vec::new(), 400),
        ("long", octets, vec![b'x'; 100_001], 413),
        ("picture", "image/png", b"\x89PNG".to_vec(), 415),
        (
            "unsigned",
            octets,
            Certificate::v4(1, "bare").bare_user_id("B").to_bytes(),
            422,
        ),
        ("secret", octets, secret, 422),
    ] {
        for (form, accept) in [("text", "*/*"), ("json", "application/json"), ("page", "text/html")] {
            let fields = [("Content-Type", kind), ("Accept", accept)];
            let answer = client.request("POST", "/pks/add", &fields, &body).unwrap();
            assert_eq!(answer.status, status, "{name}: {}", answer.text());
            assert_eq!(answer.field("cache-control"), Some("no-store"), "{name}");
            insta::assert_snapshot!(format!("add_{name}_{form}"), shown(&answer));
        }
    }
    for options in ["/pks/add?options=JSON", "/pks/add?options=nm,%20json"] {
        let answer = client.request("POST", options, &[], b"").unwrap();
        assert_eq!(answer.field("content-type"), Some("application/json"), "{options}");
    }
    let options = client.request("OPTIONS", "/pks/add", &[], b"").unwrap();
    insta::assert_snapshot!("add_options", shown(&options));
}

#[test]
fn a_submission_that_finds_no_room() {
    let node = Node::new();
    let settings = [
        "KEYRINK_HTTP_BODY_OCTETS=100000",
        "KEYRINK_HTTP_SUBMISSIONS_OCTETS=100000",
    ];
    let server = node.serve_with(&settings, &[]);
    let mut unfinished = TcpStream::connect(server.http()).unwrap();
    let head = "POST /pks/add HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 100000\r\n\r\n";
    unfinished.write_all(head.as_bytes()).unwrap();
    unfinished.write_all(&[b'x'; 90_000]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    let mut client = Client::new(server.http());
    let answer = client.request("POST", "/pks/add", &[], &[b'x'; 50_000]).unwrap();
    assert_eq!(answer.status, 429);
    insta::assert_snapshot!("add_no_room", shown(&answer));
    drop(unfinished);
}

#[test]
fn the_server_about_itself() {
    let node = Node::with(&[&Certificate::v4(1, "a").user_id("A <a@example.org>").to_bytes()]);
    let server = node.serve();
    let mut client = Client::new(server.http());
    for (name, path) in [("healthz", "/healthz"), ("readyz", "/readyz")] {
        insta::assert_snapshot!(name, shown(&client.get(path).unwrap()));
    }
    let metrics = client.get("/metrics").unwrap();
    let text = metrics.text();
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    names.sort_unstable();
    insta::assert_snapshot!("metrics", names.join("\n"));
    for (name, question) in [
        ("hashquery_nothing", &[0, 0, 0, 0][..]),
        ("hashquery_cut_off", &[0, 0, 0, 1, 0]),
        ("hashquery_many", &[0xFF; 4]),
    ] {
        let answer = client.request("POST", "/pks/hashquery", &[], question).unwrap();
        insta::assert_snapshot!(name, shown(&answer));
        client.close();
    }
}

/// Sure proofs cost a durable transaction each: many questions at once share one.
#[test]
fn readiness_is_not_proven_for_everybody_anew() {
    let node = Node::new();
    let server = node.serve();
    let mut client = Client::new(server.http());
    let written = || std::fs::read_to_string(format!("/proc/{}/io", server.id())).unwrap();
    let octets = |io: &str| -> u64 {
        let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
        line.parse().unwrap()
    };
    assert_eq!(client.get("/readyz").unwrap().status, 200);
    let before = octets(&written());
    for _ in 0..200 {
        assert_eq!(client.get("/readyz").unwrap().status, 200);
    }
    // An answer has some 200 octets; a transaction writes pages of 4096.
    let grown = octets(&written()) - before;
    assert!(grown < 200 * 1000, "{grown} octets written for 200 questions");
}

#[test]
fn all_fields_of_a_form_are_taken() {
    let node = Node::new();
    let server = node.serve();
    let mut client = Client::new(server.http());
    let certificate = |name| Certificate::v4(2, name).user_id("A <a@example.org>");
    let secret = packet(Tag::SecretKey, keyrink_testkit::Format::Legacy, b"\x04");
    let mut post = |parts: [Vec<u8>; 3]| {
        let mut body = Vec::new();
        for (name, octets) in ["keytext", "keyfile", "keyfile"].iter().zip(parts) {
            let head = format!("--cut\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
            body.extend([head.as_bytes(), &octets, b"\r\n"].concat());
        }
        body.extend(b"--cut--\r\n");
        let kind = [("Content-Type", "multipart/form-data; boundary=cut")];
        client.request("POST", "/pks/add", &kind, &body).unwrap()
    };
    let answer = post([
        b" \r\n".to_vec(),
        secret.to_vec(),
        certificate("a").armored().into_bytes(),
    ]);
    assert_eq!(answer.status, 422, "{}", answer.text());
    let answer = post([
        certificate("a").armored().into_bytes(),
        certificate("b").to_bytes(),
        certificate("c").armored().into_bytes(),
    ]);
    assert_eq!(
        (answer.status, answer.text().matches("inserted").count()),
        (200, 3),
        "{}",
        answer.text()
    );
}
