//! Connections that send nothing, and some that send their headers octet by octet: first as many as the server has places
//! for, then far more.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{Finding, Latencies, Plan, Victim, Watch, get_of};
use crate::error::Error;
use crate::machine;

/// Holds them up for a while, and opens anew what the server closes.
pub(super) fn run(plan: &Plan, log: &mut dyn FnMut(String)) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    let places = format!("KEYRINK_HTTP_CONNECTIONS={}", plan.idle + plan.slow + 100);
    for (setting, name) in [(places.as_str(), ALL), ("KEYRINK_HTTP_CONNECTIONS=768", "768 places")] {
        let victim = Victim::start(&plan.keyrink, &[setting], &[])?;
        let ordinary = victim.ordinary()?;
        let before = machine::resident_octets(victim.server.id());
        let (latencies, open, memory) = hold(plan, &victim, get_of(&ordinary.fingerprint()));
        log(format!("{name}: {open} connections open"));
        let (wanted, limit) = (plan.idle + plan.slow, machine::open_files_max());
        let what = format!(
            "{} idle and {} slow connections, {name}, {limit} open files: open in the end",
            plan.idle, plan.slow
        );
        findings.push(match name {
            ALL => {
                // The server closes those that do nothing for long; they are opened anew, some at every moment.
                let possible = wanted.min(usize::try_from(limit).unwrap_or(usize::MAX));
                Finding::at_least(&what, open, possible / 5 * 4)
            }
            _ => Finding::told(&what, open.to_string()),
        });
        let whose = format!("an ordinary `op=get` meanwhile, {name}");
        if name == ALL {
            findings.extend(latencies.findings(&whose, 100.0));
        } else {
            // It waits in the queue of the system like all others.
            let (median, most) = (latencies.millis(0.5) / 1e3, latencies.millis(1.0) / 1e3);
            let figure = format!("{median:.1} s, at most {most:.1} s, of {}", latencies.all.len());
            findings.push(Finding::told(&format!("{whose}: median"), figure));
            findings.push(Finding::exactly(&format!("{whose}, failed"), latencies.failed, 0));
        }
        let kibibytes = memory.saturating_sub(before) as f64 / 1024.0 / open.max(1) as f64;
        findings.push(Finding::told(
            &format!("memory of a connection, {name}"),
            format!("{kibibytes:.1} KiB"),
        ));
    }
    Ok(findings)
}

/// What an ordinary client saw, how many connections were open in the end, and the memory of the server then.
fn hold(plan: &Plan, victim: &Victim, target: String) -> (Latencies, usize, u64) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let share = |count: usize, thread: usize| count / THREADS + usize::from(thread < count % THREADS);
        let holders: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (idle, slow, stop) = (share(plan.idle, thread), share(plan.slow, thread), &stop);
                scope.spawn(move || keep_up(victim.http(), idle, slow, stop))
            })
            .collect();
        // Until all are there for the first time.
        thread::sleep(plan.patience / 4);
        let watch = Watch::start(victim.http(), target);
        thread::sleep(plan.patience);
        let latencies = watch.finish();
        let memory = machine::resident_octets(victim.server.id());
        stop.store(true, Ordering::Relaxed);
        let open = holders.into_iter().map(|holder| holder.join().unwrap_or(0)).sum();
        (latencies, open, memory)
    })
}

/// Keeps connections open; how many are in the end.
fn keep_up(server: SocketAddr, idle: usize, slow: usize, stop: &AtomicBool) -> usize {
    let mut connections: Vec<Option<Held>> = (0..idle + slow).map(|_| None).collect();
    while !stop.load(Ordering::Relaxed) {
        for (number, place) in connections.iter_mut().enumerate() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let held = place.take().filter(Held::is_open).or_else(|| Held::open(server));
            *place = held.and_then(|held| if number < slow { held.send_one() } else { Some(held) });
        }
        thread::sleep(ROUND);
    }
    connections.iter().flatten().filter(|held| held.is_open()).count()
}

struct Held {
    stream: TcpStream,
    sent: usize,
}

impl Held {
    fn open(server: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&server, ROUND).ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(Self { stream, sent: 0 })
    }

    /// Has the server neither closed nor answered it?
    fn is_open(&self) -> bool {
        let read = (&self.stream).read(&mut [0; 64]);
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    fn send_one(mut self) -> Option<Self> {
        let head = b"GET /pks/lookup?op=get&search=slow HTTP/1.1\r\nHost: localhost\r\nX-Endless: ";
        let octet = head.get(self.sent).copied().unwrap_or(b'x');
        self.sent += 1;
        self.stream.write_all(&[octet]).ok().map(|()| self)
    }
}

const ALL: &str = "places for all";
/// How often each connection is looked at.
const ROUND: Duration = Duration::from_secs(1);
const THREADS: usize = 4;
