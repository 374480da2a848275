//! Partners that misbehave: others are not affected, the log tells what happened, and memory stays as it is.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::Node;
use common::peering::{Reconciling, wait};
use keyrink_recon::dataset::Dataset;
use keyrink_recon::element::{Prefix, Value};
use keyrink_recon::random::Random;
use keyrink_recon::wire::{Config, Message, Verdict};
use keyrink_testkit::generate;

const WITHIN: Duration = Duration::from_secs(60);

/// What hostile partners do with every call.
const MISDEEDS: [fn(&mut TcpStream); 9] = [
    |_| (),
    |stream| {
        stream
            .write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            .unwrap_or_default()
    },
    // A frame that says to be of two gigabytes.
    |stream| {
        stream
            .write_all(&[0x7F, 0xFF, 0xFF, 0xFF, 10, 0, 0])
            .unwrap_or_default()
    },
    // A list that says to be of a thousand million elements.
    |stream| {
        greet(
            stream,
            &[
                0, 0, 0, 17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0x3F, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4,
            ],
        )
    },
    // A number of samples that no tree has.
    |stream| {
        greet(
            stream,
            &[0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0],
        )
    },
    // The middle of a message, and then nothing.
    |stream| {
        greet(stream, &[0, 0, 0, 100, 1, 0, 0]);
        thread::sleep(Duration::from_secs(3));
    },
    // The beginning of a configuration, and then nothing.
    |stream| {
        let _ = stream.write_all(&config()[..50]);
        thread::sleep(Duration::from_secs(3));
    },
    // A message that announces more than the protocol allows: it is left alone for an hour after that.
    |stream| greet(stream, &[0x02, 0, 0, 0, 1]),
    // Nothing at all, for longer than anybody waits.
    |_| thread::sleep(Duration::from_secs(3600)),
];

#[test]
fn partners_that_break_the_protocol_harm_nobody() {
    let (mut a, b) = pair(&[&certificates(0..50)], &[&certificates(40..60)], 1, |mut a| {
        for (nth, misdeed) in MISDEEDS.into_iter().enumerate() {
            let hostile = TcpListener::bind(format!("127.0.0.{}:0", 66 + nth)).unwrap();
            let address = hostile.local_addr().unwrap();
            a = a.partner(&format!("{address},name=hostile-{nth}"));
            thread::spawn(move || {
                for mut stream in hostile.incoming().flatten() {
                    thread::spawn(move || misdeed(&mut stream));
                }
            });
        }
        // Somebody calls, too.
        let own = a.recon.clone();
        thread::spawn(move || call_with_garbage(&own));
        a
    });
    same(&a, &b, 60);
    let before = a.memory();
    let start = Instant::now();
    let mut added = 60;
    while start.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_secs(2));
        let answer = b.client().add(&generate::certificate(1, added).armored()).unwrap();
        assert_eq!(answer.status, 200);
        added += 1;
        same(&a, &b, added);
    }
    let after = a.memory();
    assert!(after < before + 20_000, "{before} KiB became {after} KiB");
    let log = a.log();
    for nth in 0..MISDEEDS.len() {
        let name = format!("hostile-{nth}");
        let said = wait(WITHIN, || match &a.report_of(&name)["last_error"][1] {
            serde_json::Value::String(said) => Ok(said.clone()),
            none => Err(format!("{name}: {none}")),
        });
        assert!(said.unwrap().split(' ').count() > 2);
    }
    assert!(log.lines().count() < 500, "{}", log.lines().count());
    a.server().terminate();
    a.node.check();
}

#[test]
fn phantoms_are_asked_for_less_and_less() {
    let asked = Arc::new(AtomicU64::new(0));
    let http = TcpListener::bind("127.0.0.66:0").unwrap();
    let source = http.local_addr().unwrap();
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for mut stream in http.incoming().flatten() {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = stream.read(&mut [0; 8192]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\n\0\0\0\0\r\n");
        }
    });
    let recon = TcpListener::bind("127.0.0.66:0").unwrap();
    let address = recon.local_addr().unwrap();
    let sessions = Arc::new(AtomicU64::new(0));
    let done = Arc::clone(&sessions);
    thread::spawn(move || {
        for mut stream in recon.incoming().flatten() {
            phantoms(&mut stream, 300);
            done.fetch_add(1, Ordering::Relaxed);
        }
    });
    let (mut a, b) = pair(&[&certificates(0..50)], &[&certificates(40..60)], 1, |a| {
        a.partner(&format!(
            "{address},http=http://{source},name=phantoms,pause_seconds=0.01"
        ))
    });
    same(&a, &b, 60);
    let settled = wait(WITHIN, || {
        match (
            sessions.load(Ordering::Relaxed),
            a.report_of("phantoms")["refused"].as_u64(),
        ) {
            (2.., Some(300)) => Ok(asked.load(Ordering::Relaxed)),
            other => Err(format!("{other:?} {}", a.log())),
        }
    })
    .unwrap();
    let before = sessions.load(Ordering::Relaxed);
    wait(WITHIN, || match sessions.load(Ordering::Relaxed) {
        now if now >= before + 3 => Ok(()),
        now => Err(format!("{now} sessions")),
    })
    .unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), settled, "{}", a.log());
    // The refusals last over a restart.
    a.server().terminate();
    a.start_again();
    wait(WITHIN, || match sessions.load(Ordering::Relaxed) {
        now if now >= before + 5 => Ok(()),
        now => Err(format!("{now} sessions")),
    })
    .unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), settled, "{}", a.log());
    same(&a, &b, 60);
}

#[test]
fn answers_that_hang_or_never_end_harm_nobody() {
    let http = TcpListener::bind("127.0.0.66:0").unwrap();
    let recon = TcpListener::bind("127.0.0.66:0").unwrap();
    let (source, address) = (http.local_addr().unwrap(), recon.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let turn = Arc::clone(&asked);
    thread::spawn(move || {
        for mut stream in http.incoming().flatten() {
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 8192]);
                match turn % 3 {
                    0 => thread::sleep(Duration::from_secs(3)),
                    1 => drop(stream.write_all(&[0xFF; 3000])),
                    _ => {
                        // One certificate of two gigabytes.
                        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n\0\0\0\x01\x7f\xff\xff\xff");
                        while stream.write_all(&[0; 65_536]).is_ok() {}
                    }
                }
            });
        }
    });
    thread::spawn(move || {
        for mut stream in recon.incoming().flatten() {
            phantoms(&mut stream, 300);
        }
    });
    let (a, b) = pair(&[&certificates(0..50)], &[&certificates(40..60)], 1, |a| {
        a.partner(&format!(
            "{address},http=http://{source},name=stalls,pause_seconds=0.01"
        ))
    });
    same(&a, &b, 60);
    let before = a.memory();
    let turns = || asked.load(Ordering::Relaxed);
    wait(WITHIN, || if turns() >= 4 { Ok(()) } else { Err(a.log()) }).unwrap();
    assert_eq!(
        b.client().add(&generate::certificate(1, 60).armored()).unwrap().status,
        200
    );
    same(&a, &b, 61);
    let after = a.memory();
    assert!(after < before + 30_000, "{before} KiB became {after} KiB");
    for sentence in ["broke off: ", "is longer than 268435456 octets"] {
        assert!(a.log().contains(sentence), "{sentence}: {}", a.log());
    }
}

#[test]
fn a_partner_has_one_session_at_a_time_and_not_too_many() {
    let node = Reconciling::new(Node::with(&[&certificates(0..1)]), "127.0.0.4");
    let node = node.partner("127.0.0.66:1").start();
    let mut first = call(&node.recon).unwrap();
    assert!(hears(&mut first));
    for _ in 0..5 {
        assert!(!hears(&mut call(&node.recon).unwrap()), "there is one already");
    }
    drop(first);
    let mut answered = 0;
    for _ in 0..60 {
        thread::sleep(Duration::from_millis(50));
        answered += u32::from(hears(&mut call(&node.recon).unwrap()));
    }
    assert!((20..35).contains(&answered), "{answered}");
}

#[test]
fn hang_up_leaves_sessions_alone() {
    let node = Node::with(&[&certificates(0..1)]);
    let recon = format!("127.0.0.1:{}", keyrink_testkit::peers::free_port().unwrap());
    let partner = |name: &str| {
        let text = format!(
            "[peers]\nlisten = [\"{recon}\"]\n[[partner]]\nrecon = \"127.0.0.66:1\"\n[[partner]]\nrecon = \"{name}\"\n"
        );
        node.file("keyrink.toml", text.as_bytes())
    };
    let file = partner("127.0.0.67:1");
    let server = node.serve_with(&[], &["--config", file.to_str().unwrap()]);
    let mut session = call(&recon).unwrap();
    greet(&mut session, &[]);
    partner("127.0.0.68:1");
    let status = std::process::Command::new("kill")
        .args(["-HUP", &server.id().to_string()])
        .status();
    assert!(status.unwrap().success());
    wait(WITHIN, || match server.log() {
        log if log.contains("the partners were read again") => Ok(()),
        log => Err(log),
    })
    .unwrap();
    let waits = session.read(&mut [0; 64]).unwrap_err();
    assert_eq!(waits.kind(), std::io::ErrorKind::WouldBlock, "it is still open");
}

#[test]
fn strangers_get_no_answer() {
    let node = Reconciling::new(Node::with(&[&certificates(0..1)]), "127.0.0.1");
    let node = node.partner("127.0.0.99:1").start();
    let mut stream = TcpStream::connect(&node.recon).unwrap();
    let mut answer = Vec::new();
    assert!(matches!(stream.read_to_end(&mut answer), Ok(0) | Err(_)) && answer.is_empty());
}

/// Two nodes that know each other, started; the first is changed before.
fn pair(
    first: &[&[u8]],
    second: &[&[u8]],
    gossip: u32,
    change: impl FnOnce(Reconciling) -> Reconciling,
) -> (Reconciling, Reconciling) {
    let a = Reconciling::new(Node::with(first), "127.0.0.2");
    let b = Reconciling::new(Node::with(second), "127.0.0.3");
    let (at_a, at_b) = (a.recon.clone(), b.recon.clone());
    let a = change(a).partner(&at_b).gossip(gossip).start();
    (a, b.partner(&at_a).gossip(gossip).start())
}

/// Waits until both hold the same so many certificates.
fn same(a: &Reconciling, b: &Reconciling, count: u64) {
    wait(WITHIN, || {
        let (one, other) = (a.digests(), b.digests());
        if one == other && one.len() as u64 == count {
            return Ok(());
        }
        Err(format!(
            "{} and {} of {count}\n{}\n---\n{}",
            one.len(),
            other.len(),
            end(&a.log()),
            end(&b.log())
        ))
    })
    .unwrap();
}

fn end(log: &str) -> &str {
    &log[log.floor_char_boundary(log.len().saturating_sub(2000))..]
}

fn certificates(indices: std::ops::Range<u64>) -> Vec<u8> {
    let mut octets = Vec::new();
    generate::write(&mut octets, 1, indices).unwrap();
    octets
}

/// Connects from the address of the hostile partner.
fn call(recon: &str) -> std::io::Result<TcpStream> {
    let connect = async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind("127.0.0.66:0".parse().unwrap())?;
        socket.connect(recon.parse().unwrap()).await?.into_std()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let stream = runtime.block_on(connect)?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    Ok(stream)
}

/// Whether a call is answered with anything.
fn hears(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 4096]), Ok(1..))
}

/// Calls as the partner, with octets of no meaning.
fn call_with_garbage(recon: &str) {
    let mut random = Random::new(1);
    loop {
        thread::sleep(Duration::from_secs(3));
        let Ok(mut stream) = call(recon) else {
            continue;
        };
        let _ = stream.write_all(&random.next_u64().to_be_bytes());
    }
}

fn config() -> Vec<u8> {
    let mut config = Config::default();
    config.put("version", "1.1.6");
    config.put_number("http port", 1);
    config.put_number("bitquantum", 2);
    config.put_number("mbar", 5);
    config.put("filters", "yminsky.dedup,yminsky.merge");
    let mut out = Vec::new();
    config.encode(&mut out);
    Verdict::Passed.encode(&mut out);
    out
}

/// Agrees to a session and goes on with these octets.
fn greet(stream: &mut TcpStream, then: &[u8]) {
    let _ = stream.write_all(&config());
    let mut answer = [0; 1024];
    let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
    while matches!(stream.read(&mut answer), Ok(1..)) {}
    let _ = stream.write_all(then);
}

/// A session whose walker says to have these elements, and nothing else.
fn phantoms(stream: &mut TcpStream, count: u64) {
    let dataset = Dataset::v1("sks");
    let mut random = Random::new(5);
    let mut value = || [random.next_u64().to_be_bytes(), random.next_u64().to_be_bytes()].concat();
    let values = (0..count).map(|_| Value::<3>::from_bytes(&value()).unwrap()).collect();
    let mut out = Vec::new();
    Message::Full(Prefix::ROOT, values).encode(&dataset, &mut out);
    Message::<3>::Flush.encode(&dataset, &mut out);
    greet(stream, &out);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let _ = stream.read(&mut [0; 4096]);
    let mut done = Vec::new();
    Message::<3>::Done.encode(&dataset, &mut done);
    let _ = stream.write_all(&done);
}
