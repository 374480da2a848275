//! Every answer to submissions and peers, and what the server tells about itself, as a client gets it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::{Node, shown};
use keyrink_testkit::http::Client;
use keyrink_testkit::{Certificate, Reason, Tag, packet};

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
fn submissions_of_several_and_of_little() {
    let node = Node::new();
    let server = node.serve();
    let mut client = Client::new(server.http());
    let alice = || Certificate::v4(1, "alice").user_id("Alice <alice@example.org>");
    let more = alice().encryption_subkey("alice/encrypt");
    let unsigned = Certificate::v4(1, "bare").bare_user_id("B");
    for (name, body) in [
        ("inserted", alice().to_bytes()),
        ("unchanged", alice().to_bytes()),
        ("updated", more.to_bytes()),
        ("several", [unsigned.to_bytes(), alice().to_bytes()].concat()),
        ("revocation", alice().revocation(Reason::Retired)),
        ("revocation_of_nobody", unsigned.revocation(Reason::Retired)),
    ] {
        for (form, accept) in [("text", "*/*"), ("json", "application/json")] {
            // The second form tells that nothing is new, so it gets a store of its own.
            let again = (form == "json").then(Node::new);
            let server = again.as_ref().map(Node::serve);
            let mut other = server.as_ref().map(|server| Client::new(server.http()));
            let client = other.as_mut().unwrap_or(&mut client);
            if form == "json" && name != "inserted" {
                client.add(&alice().armored()).unwrap();
            }
            let fields = [("Content-Type", "application/octet-stream"), ("Accept", accept)];
            let answer = client.request("POST", "/pks/add", &fields, &body).unwrap();
            insta::assert_snapshot!(format!("add_{name}_{form}"), shown(&answer));
        }
    }
    for path in ["/pks/delete", "/pks/replace"] {
        let answer = client
            .post_form(path, &[("keytext", "nothing"), ("keysig", "nothing")])
            .unwrap();
        insta::assert_snapshot!(format!("order{}", path.replace('/', "_")), shown(&answer));
    }
}

#[test]
fn lookups_in_every_other_case() {
    let node = Node::new();
    let server = node.serve_with(&["KEYRINK_SEARCH_RESULTS=2", "KEYRINK_SEARCH_WORDS=true"], &[]);
    let mut client = Client::new(server.http());
    for nth in 0..3 {
        let many = Certificate::v4(nth, "many").user_id("Many <many@example.org>");
        assert_eq!(client.add(&many.armored()).unwrap().status, 200);
    }
    let one = Certificate::v4(1, "many");
    let digest = client.get(&format!(
        "/pks/lookup?op=index&options=json&hash=on&search={}",
        one.fingerprint()
    ));
    let digest = digest.unwrap().text();
    let digest = digest
        .split("\"md5\":\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let digest = digest.expect("the index has the digest");
    let tag = client
        .get("/assets/style.css")
        .unwrap()
        .field("etag")
        .unwrap()
        .to_owned();
    let first = client
        .get("/pks/lookup?op=index&options=json&search=many@example.org")
        .unwrap();
    let after = first
        .field("link")
        .and_then(|link| link.split(['<', '>']).nth(1))
        .unwrap()
        .to_owned();
    let question = [&[0, 0, 0, 1, 0, 0, 0, 16][..], &octets(digest)].concat();
    let path = format!("/pks/lookup?op=get&search=0x{}", one.fingerprint());
    for (name, method, path, fields, body) in [
        (
            "hget",
            "GET",
            format!("/pks/lookup?op=hget&search={digest}"),
            vec![],
            &b""[..],
        ),
        (
            "not_modified",
            "GET",
            "/assets/style.css".into(),
            vec![("If-None-Match", &*tag)],
            b"",
        ),
        ("head", "HEAD", path.clone(), vec![], b""),
        ("options", "OPTIONS", path.clone(), vec![], b""),
        ("wrong_method", "PUT", path, vec![], b"x"),
        ("second_page", "GET", after, vec![], b""),
        (
            "words",
            "GET",
            "/pks/lookup?op=index&options=json&search=many".into(),
            vec![],
            b"",
        ),
        ("hashquery_found", "POST", "/pks/hashquery".into(), vec![], &*question),
    ] {
        let answer = client.request(method, &path, &fields, body).unwrap();
        insta::assert_snapshot!(format!("lookup_{name}"), shown(&answer));
    }
}

#[test]
fn requests_that_are_refused_before_they_are_read() {
    let node = Node::new();
    let settings = [
        "KEYRINK_HTTP_HEADER_SECONDS=1",
        "KEYRINK_THROTTLE_TOKENS=5",
        "KEYRINK_THROTTLE_TOKENS_PER_SECOND=1",
        "KEYRINK_THROTTLE_EXEMPT=192.0.2.1",
    ];
    let server = node.serve_with(&settings, &[]);
    let long = format!("GET / HTTP/1.1\r\nX-Long: {}\r\n\r\n", "x".repeat(300_000));
    for (name, head) in [
        ("broken", "GET\r\n\r\n"),
        ("long", &*long),
        ("slow", "GET / HTTP/1.1\r\n"),
    ] {
        let mut connection = TcpStream::connect(server.http()).unwrap();
        // The server may hang up before it has taken all of it.
        let _ = connection.write_all(head.as_bytes());
        let mut answer = Vec::new();
        let _ = connection.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let lines = text.lines().filter(|line| !line.to_lowercase().starts_with("date:"));
        insta::assert_snapshot!(format!("refused_{name}"), lines.collect::<Vec<_>>().join("\n"));
    }
    let mut client = Client::new(server.http());
    let refused = (0..20).find_map(|_| {
        let answer = client.get("/pks/lookup?op=get&search=nobody@example.org").unwrap();
        (answer.status == 429).then_some(answer)
    });
    insta::assert_snapshot!("refused_throttled", shown(&refused.expect("five tokens do not last")));
}

#[test]
fn lookups_while_the_store_is_away() {
    let node = Node::on_postgres();
    let server = node.serve();
    node.postgres().kill();
    let mut client = Client::new(server.http());
    for (name, path, accept) in [
        ("get", "/pks/lookup?op=get&search=a@example.org", "*/*"),
        (
            "index_json",
            "/pks/lookup?op=index&options=json&search=a@example.org",
            "*/*",
        ),
        ("index_page", "/pks/lookup?op=index&search=a@example.org", "text/html"),
        ("stats_json", "/pks/stats?options=json", "*/*"),
    ] {
        let answer = client.request("GET", path, &[("Accept", accept)], b"").unwrap();
        assert_eq!(answer.status, 500, "{name}: {}", answer.text());
        insta::assert_snapshot!(format!("away_{name}"), shown(&answer));
    }
    // What was proven a moment ago is believed for a moment.
    let unready = (0..100).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(200));
        let answer = client.get("/readyz").unwrap();
        (answer.status != 200).then_some(answer)
    });
    insta::assert_snapshot!("away_readyz", shown(&unready.unwrap()));
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
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
