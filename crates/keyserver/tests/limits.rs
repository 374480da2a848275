//! Clients that are slow, and a machine in trouble.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{Node, get};
use keyrink_testkit::http::Client;
use keyrink_testkit::peers::Keyrink;
use keyrink_testkit::{Certificate, Kind, Signature, generate};

#[test]
fn slow_clients_are_cut_and_others_served_meanwhile() {
    let node = Node::with(&[&generate::certificate(1, 0).to_bytes()]);
    let settings = ["KEYRINK_HTTP_HEADER_SECONDS=1", "KEYRINK_HTTP_BODY_SECONDS=1"];
    let server = node.serve_with(&settings, &[]);
    let begin = Instant::now();
    let slow = [
        ("", ""),
        ("GET /pks/lookup?op=get HTTP/1.1\r\nHost: a\r\nX-Slow: ", ""),
        (
            "POST /pks/add HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\nabc",
            "HTTP/1.1 408 ",
        ),
    ];
    let connections = slow.map(|(sent, expected)| {
        let mut connection = TcpStream::connect(server.http()).unwrap();
        connection.write_all(sent.as_bytes()).unwrap();
        (connection, expected)
    });
    let mut client = Client::new(server.http());
    assert_eq!(get(&mut client, &generate::certificate(1, 0).fingerprint()).status, 200);
    for (connection, expected) in connections {
        let answer = rest(connection);
        assert!(
            answer.starts_with(expected) && answer.is_empty() == expected.is_empty(),
            "{answer}"
        );
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn announced_bodies_take_no_room_from_others() {
    let node = Node::new();
    let settings = [
        "KEYRINK_HTTP_BODY_OCTETS=100000",
        "KEYRINK_HTTP_SUBMISSIONS_OCTETS=400000",
    ];
    let server = node.serve_with(&settings, &[]);
    let head = "POST /pks/add HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 100000\r\n\r\nx";
    let idle: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut connection = TcpStream::connect(server.http()).unwrap();
            connection.write_all(head.as_bytes()).unwrap();
            connection
        })
        .collect();
    thread::sleep(Duration::from_millis(200));
    let begin = Instant::now();
    let answer = Client::new(server.http())
        .add(&generate::certificate(1, 0).armored())
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    drop(idle);
}

#[test]
fn clients_that_do_not_read_take_little_memory() {
    let long = (0..500).fold(Certificate::v4(9, "long"), |certificate, number| {
        let long = Signature::new(Kind::PositiveCertification).hashed(100, &[0; 14 << 10]);
        certificate.user_id_with(number.to_string(), long)
    });
    let small = generate::certificate(1, 0);
    let node = Node::with(&[&long.to_bytes(), &small.to_bytes()]);
    let server = node.serve_with(&["KEYRINK_HTTP_ANSWERS_OCTETS=16000000"], &[]);
    let before = peak_kibibytes(&server);
    let fingerprint = long.fingerprint();
    let request = format!("GET /pks/lookup?op=get&search=0x{fingerprint} HTTP/1.1\r\nHost: a\r\n\r\n");
    let connections: Vec<TcpStream> = (0..24)
        .map(|_| {
            let mut connection = TcpStream::connect(server.http()).unwrap();
            connection.write_all(request.as_bytes()).unwrap();
            connection
        })
        .collect();
    thread::sleep(Duration::from_secs(1));
    let mut client = Client::new(server.http());
    assert_eq!(
        get(&mut client, &small.fingerprint()).status,
        200,
        "what is small needs no room"
    );
    let heads: Vec<String> = connections.iter().map(head).collect();
    let refused = heads.iter().filter(|head| head.starts_with("HTTP/1.1 429 "));
    assert!(refused.clone().count() > 0 && refused.count() < 24, "{heads:?}");
    let grown = peak_kibibytes(&server) - before;
    assert!(grown < 100 << 10, "{grown} KiB for answers of 9 MB each");
    drop(connections);
    assert_eq!(get(&mut client, &fingerprint).status, 200, "room again");
}

/// The beginning of an answer.
fn head(mut connection: &TcpStream) -> String {
    connection.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    let mut head = [0; 16];
    connection.read_exact(&mut head).unwrap();
    String::from_utf8_lossy(&head).into_owned()
}

/// The most memory that a server had until now.
fn peak_kibibytes(server: &Keyrink) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_stop_finishes_what_was_begun() {
    let node = Node::new();
    let mut server = node.serve();
    let certificate = generate::certificate(2, 0);
    let body = certificate.to_bytes();
    let mut connection = TcpStream::connect(server.http()).unwrap();
    let length = body.len();
    let head = format!(
        "POST /pks/add HTTP/1.1\r\nHost: a\r\nContent-Type: application/pgp\r\nContent-Length: {length}\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(&body[..100]).unwrap();
    thread::sleep(Duration::from_millis(200));
    let stopping = thread::spawn(move || (server.terminate(), server));
    thread::sleep(Duration::from_millis(200));
    connection.write_all(&body[100..]).unwrap();
    let answer = rest(connection);
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("inserted"),
        "{answer}"
    );
    let (status, server) = stopping.join().unwrap();
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    assert!(TcpStream::connect(server.http()).is_err());
    let again = node.serve();
    assert_eq!(
        get(&mut Client::new(again.http()), &certificate.fingerprint()).status,
        200
    );
}

#[test]
fn a_second_signal_ends_at_once() {
    let node = Node::new();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut server = node.command("serve", &["--http", "127.0.0.1:0"]);
        let mut server = server.stderr(Stdio::piped()).spawn().unwrap();
        let process = server.id().to_string();
        let send = |signal: &str| {
            let sent = Command::new("kill").args(["-s", signal, &process]).status();
            assert!(sent.unwrap().success());
        };
        let mut log = BufReader::new(server.stderr.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let listening = log.find(|line| line.contains("listening")).unwrap();
        let address = listening.rsplit("address=").next().unwrap().trim().to_owned();
        // A request that is not finished keeps the server from ending.
        let mut connection = TcpStream::connect(address).unwrap();
        connection
            .write_all(b"POST /pks/add HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
            .unwrap();
        thread::sleep(Duration::from_millis(200));
        send(signal);
        assert!(log.any(|line| line.ends_with("stopping")));
        let begin = Instant::now();
        send(signal);
        assert_eq!(server.wait().unwrap().code(), Some(code));
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
        assert!(log.any(|line| line.contains("stopping at once")));
    }
}

#[test]
fn a_full_disk_is_told_and_survived() {
    let Some(disk) = Disk::mount("a_full_disk", "size=4m") else {
        return;
    };
    let server = disk.serve();
    let mut client = Client::new(server.http());
    let refused = (0..20).find_map(|index| {
        let answer = submit(&mut client, index);
        (answer.0 != 200).then_some((index, answer))
    });
    let (refused, (status, sentence)) = refused.expect("4 MiB are full by now");
    assert_eq!(status, 500, "{sentence}");
    insta::assert_snapshot!("add_store_away", sentence);
    // What is there can be read, and the server says how it is.
    for index in (0..refused).map(|index| index * SUBMITTED) {
        assert_eq!(
            get(&mut client, &generate::certificate(3, index).fingerprint()).status,
            200
        );
    }
    disk.remount("size=64m");
    assert_eq!(submit(&mut client, refused).0, 200, "room again, no restart");
    disk.check();
}

#[test]
fn a_disk_that_takes_no_writes_is_told_and_survived() {
    let Some(disk) = Disk::mount("a_disk_that_takes_no_writes", "size=64m") else {
        return;
    };
    let server = disk.serve();
    let mut client = Client::new(server.http());
    assert_eq!(submit(&mut client, 0).0, 200);
    // A quota behaves so too: every write fails, reading goes on.
    disk.fill();
    let (status, sentence) = (0..5)
        .map(|index| submit(&mut client, 1 + index))
        .find(|answer| answer.0 != 200)
        .expect("no room");
    assert_eq!(status, 500, "{sentence}");
    assert_eq!(get(&mut client, &generate::certificate(3, 0).fingerprint()).status, 200);
    std::fs::remove_file(disk.folder.join("filler")).unwrap();
    assert_eq!(submit(&mut client, 10).0, 200, "room again, no restart");
    disk.check();
}

#[test]
fn a_disk_that_is_read_only_is_named_and_read_from() {
    let Some(disk) = Disk::mount("a_disk_that_is_read_only", "size=64m") else {
        return;
    };
    let server = disk.serve();
    assert_eq!(submit(&mut Client::new(server.http()), 0).0, 200);
    drop(server);
    disk.remount("ro");
    disk.check();
    // What is there is served, but the server is not ready, so it is started without waiting for that.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut serve = Command::new(common::PROGRAM);
    serve.arg("serve").arg("--data").arg(disk.data());
    let mut server = serve.args(["--http", &address.to_string()]).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut client = Client::new(address);
    while !client.get("/healthz").is_ok_and(|answer| answer.status == 200) {
        assert!(Instant::now() < deadline, "the server does not answer");
        thread::sleep(Duration::from_millis(50));
    }
    let first = generate::certificate(3, 0).fingerprint();
    assert_eq!(get(&mut client, &first).status, 200);
    assert_eq!(client.get("/readyz").unwrap().status, 503);
    let (status, sentence) = submit(&mut client, 1);
    assert_eq!(status, 500, "{sentence}");
    disk.remount("rw");
    // The server that is running finds it writable again.
    let deadline = Instant::now() + Duration::from_secs(20);
    while client.get("/readyz").unwrap().status != 200 {
        assert!(Instant::now() < deadline, "the server does not recover");
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(submit(&mut client, 1).0, 200);
    server.kill().unwrap();
    server.wait().unwrap();
    disk.check();
}

#[test]
fn a_store_that_cannot_be_opened_is_named() {
    let node = Node::new();
    let file = node.file("data", b"this is a file");
    let finished = node.run("serve", &["--http", "127.0.0.1:0"]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.err.contains(file.to_str().unwrap()), "{finished:?}");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    node.file(
        "data/keyrink.db",
        b"this is no database, and longer than a header of one would be: 100 octets and more, so that it is read",
    );
    let finished = node.run("check", &[]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(
        finished.err.contains("keyrink.db") || finished.err.contains(file.to_str().unwrap()),
        "{finished:?}"
    );
}

/// Certificates in one submission: some 350 kB.
const SUBMITTED: u64 = 500;

/// Status and text of the answer to submission number `index`.
fn submit(client: &mut Client, index: u64) -> (u16, String) {
    let mut octets = Vec::new();
    generate::write(&mut octets, 3, index * SUBMITTED..(index + 1) * SUBMITTED).unwrap();
    let fields = [("Content-Type", "application/octet-stream")];
    let answer = client.request("POST", "/pks/add", &fields, &octets).unwrap();
    (answer.status, answer.text())
}

fn rest(mut connection: TcpStream) -> String {
    connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut answer = Vec::new();
    // A server that cuts a connection may reset it; what arrived before counts.
    let _ = connection.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A small file system of its own, with a store on it.
struct Disk {
    folder: PathBuf,
    _node: Node,
}

impl Disk {
    /// None, with a line that says so, where nobody may mount; where everything has to be tested, that fails.
    fn mount(test: &str, options: &str) -> Option<Self> {
        let node = Node::embedded();
        let folder = node.path("disk");
        std::fs::create_dir(&folder).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&folder)
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { folder, _node: node });
        }
        assert!(
            std::env::var_os("CI").is_none(),
            "{test}: a tmpfs has to be mounted (it takes root)"
        );
        keyrink_testkit::report::skipped("a tmpfs cannot be mounted here (it takes root)");
        None
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.folder).status();
        assert!(status.unwrap().success());
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut filler = std::fs::File::create(self.folder.join("filler")).unwrap();
        let piece = vec![1; 4096];
        while filler.write_all(&piece).is_ok() {}
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn serve(&self) -> Keyrink {
        Keyrink::start(Path::new(common::PROGRAM), &self.data()).unwrap()
    }

    fn check(&self) {
        let output = Command::new(common::PROGRAM)
            .arg("check")
            .arg("--data")
            .arg(self.data())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The server may still be on its way out.
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}

#[test]
fn who_asks_very_much_is_told_to_come_again_also_behind_a_proxy() {
    let certificate = generate::certificate(1, 0);
    let node = Node::with(&[&certificate.to_bytes()]);
    let settings = [
        "KEYRINK_THROTTLE_TOKENS=20",
        "KEYRINK_THROTTLE_TOKENS_PER_SECOND=1",
        "KEYRINK_HTTP_PROXIES=127.0.0.1",
    ];
    let server = node.serve_with(&settings, &[]);
    let mut client = Client::new(server.http());
    let target = format!("/pks/lookup?op=get&search=0x{}", certificate.fingerprint());
    let mut ask = |from: &str| {
        client
            .request("GET", &target, &[("X-Forwarded-For", from)], b"")
            .unwrap()
    };
    let begin = Instant::now();
    let statuses: Vec<u16> = (0..40).map(|_| ask("198.51.100.1, 192.0.2.1").status).collect();
    let good = statuses.iter().filter(|status| **status == 200).count();
    assert!(
        good >= 20 && good <= 21 + begin.elapsed().as_secs() as usize,
        "{statuses:?}"
    );
    let refused = ask("192.0.2.1");
    assert_eq!(refused.status, 429, "what the client says itself does not count");
    assert_eq!(refused.field("access-control-allow-origin"), Some("*"));
    assert!(refused.field("retry-after").unwrap().parse::<u32>().unwrap() <= 2);
    assert_eq!((ask("192.0.2.2").status, ask("2001:db8::1").status), (200, 200));
    for _ in 0..100 {
        assert_eq!(
            get(&mut Client::new(server.http()), &certificate.fingerprint()).status,
            200
        );
    }
    let metrics = Client::new(server.http()).get("/metrics").unwrap().text();
    assert!(
        metrics.contains("keyrink_http_requests_total{route=\"/pks/lookup\",status=\"429\"}"),
        "{metrics}"
    );
}

#[test]
fn connections_that_do_nothing_make_room() {
    let certificate = generate::certificate(1, 0);
    let node = Node::with(&[&certificate.to_bytes()]);
    let server = node.serve_with(&["KEYRINK_HTTP_CONNECTIONS=8"], &[]);
    let idle: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(server.http()).unwrap()).collect();
    thread::sleep(Duration::from_millis(1200));
    let begin = Instant::now();
    assert_eq!(
        get(&mut Client::new(server.http()), &certificate.fingerprint()).status,
        200
    );
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let metrics = Client::new(server.http()).get("/metrics").unwrap().text();
    assert!(
        metrics.contains("keyrink_http_connections_pushed_out_total"),
        "{metrics}"
    );
    drop(idle);
}
