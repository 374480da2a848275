//! Three servers on one PostgreSQL database, and two partners on stores of their own, while everything is killed.
//!
//! Eight writers on each server submit overlapping certificates, each in a version of its own that adds a user id, while the
//! partners reconcile. Then servers and the database are killed with SIGKILL in turn while the writers go on; then again and
//! again the server that holds the right to call a partner. After each of these `keyrink check` must find no difference, each
//! certificate must be exactly what the acknowledged versions of it come to, and all trees must be equal.

mod fleet;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::armor::dearmor;
use crate::certificate::Certificate;
use crate::error::Error;
use crate::http::Client;
use crate::keyring::entries;
use fleet::{Fleet, SERVERS};

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `keyrink` program.
    pub program: PathBuf,
    /// How long writers write before anything is killed.
    pub duration: Duration,
    /// How often servers are killed, and how often the database is.
    pub kills: u64,
    /// How often the server that calls a partner is killed.
    pub leases: u64,
    /// Decides keys.
    pub seed: u64,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Figures, a line each.
    pub lines: Vec<String>,
    /// One sentence each; empty if all is well.
    pub faults: Vec<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        writeln!(out, "{} faults", self.faults.len())?;
        self.faults.iter().try_for_each(|fault| writeln!(out, "  {fault}"))
    }
}

/// Does all of it, telling `log` about each step.
///
/// # Errors
/// When a program cannot be started at all; whatever Keyrink gets wrong is a fault in the summary.
pub fn run(plan: &Plan, mut log: impl FnMut(&str)) -> Result<Summary, Error> {
    let fleet = &Fleet::start(&plan.program)?;
    let (mut summary, writing) = (Summary::default(), Writing::new(plan.seed));
    log("writing");
    writing.beside(fleet, || {
        thread::sleep(plan.duration);
        Ok(())
    })?;
    let (sent, taken) = writing.counts();
    summary.lines.push(format!(
        "{} servers with {WRITERS} writers each, {} s: {taken} of {sent} submissions acknowledged",
        SERVERS,
        plan.duration.as_secs()
    ));
    if sent != taken {
        summary
            .faults
            .push(format!("{} submissions were refused", sent - taken));
    }
    judge(fleet, &writing, "after writing", &mut summary)?;
    if plan.kills > 0 {
        log("killing servers and the database");
        writing.beside(fleet, || fleet.kill_in_turn(plan.kills))?;
        summary.lines.push(format!(
            "{0} servers and {0} times the database killed; {1} submissions acknowledged by then",
            plan.kills,
            writing.counts().1
        ));
        judge(fleet, &writing, "after the kills", &mut summary)?;
    }
    if plan.leases > 0 {
        log("killing whoever calls");
        let found = fleet.kill_callers(plan.leases)?;
        summary.lines.push(format!(
            "the server that calls killed {} times; another called after {:.1} s at most, {:.1} s in the middle",
            plan.leases,
            found.slowest().as_secs_f64(),
            found.median().as_secs_f64()
        ));
        summary.faults.extend(found.faults);
        judge(fleet, &writing, "after the leases", &mut summary)?;
    }
    Ok(summary)
}

/// Writers on each server.
const WRITERS: u64 = 8;
/// Certificates that they all submit.
const CERTIFICATES: u64 = 1_500;
/// Versions of each certificate.
const VERSIONS: u64 = 6;
const EQUAL_WITHIN: Duration = Duration::from_secs(90);

/// Submissions, and what was acknowledged.
struct Writing {
    seed: u64,
    sent: Noted,
    /// Acknowledged.
    taken: Noted,
}

/// Submissions that came so far.
#[derive(Default)]
struct Noted {
    count: AtomicU64,
    versions: Mutex<Versions>,
}

impl Noted {
    fn add(&self, version: (u64, u64)) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.versions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(version);
    }

    fn all(&self) -> Versions {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Certificates and their versions.
type Versions = BTreeSet<(u64, u64)>;

impl Writing {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            sent: Noted::default(),
            taken: Noted::default(),
        }
    }

    fn counts(&self) -> (u64, u64) {
        let [sent, taken] = [&self.sent, &self.taken].map(|noted| noted.count.load(Ordering::Relaxed));
        (sent, taken)
    }

    /// What is wrong with a certificate as users get it: it must have every packet of the versions that were acknowledged, each
    /// once, and may have those of versions that were sent and not answered, and nothing else.
    fn wrong(&self, client: &mut Client, number: u64) -> Result<Option<String>, Error> {
        let packets = |noted: &Noted| -> BTreeSet<Packet> {
            let versions = noted.all();
            let versions = versions.range((number, 0)..(number + 1, 0));
            let octets = versions.map(|(_, version)| self.version(number, *version).to_bytes());
            let entries = octets.flat_map(|octets| entries(&octets));
            entries.flat_map(|entry| entry.bodies).collect()
        };
        let (must, may) = (packets(&self.taken), packets(&self.sent));
        if must.is_empty() {
            return Ok(None);
        }
        let fingerprint = certificate(self.seed, number).fingerprint();
        let answer = client.get(&format!("/pks/lookup?op=get&search=0x{fingerprint}"))?;
        let mut found = entries(&dearmor(&answer.text()));
        let Some(entry) = found.pop().filter(|_| found.is_empty()) else {
            return Ok(Some(format!("comes with status {} and is not one", answer.status)));
        };
        let count = entry.bodies.len();
        let has: BTreeSet<Packet> = entry.bodies.into_iter().collect();
        Ok(if let Some((tag, body)) = must.difference(&has).next() {
            let body = String::from_utf8_lossy(body);
            Some(format!("has lost a packet with tag {tag}: {body}"))
        } else if !has.is_subset(&may) {
            Some("has a packet that nobody sent".to_owned())
        } else if count != has.len() {
            Some(format!("has {count} packets, of which {} differ", has.len()))
        } else {
            None
        })
    }

    fn version(&self, number: u64, version: u64) -> Certificate {
        certificate(self.seed, number).user_id(name(version))
    }

    /// Writes until `work` is done.
    fn beside(&self, fleet: &Fleet, work: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            for writer in 0..SERVERS as u64 * WRITERS {
                let ended = &ended;
                scope.spawn(move || self.write(fleet, writer, ended));
            }
            let done = work();
            ended.store(true, Ordering::Relaxed);
            done
        })
    }

    fn write(&self, fleet: &Fleet, writer: u64, ended: &AtomicBool) {
        let server = (writer % SERVERS as u64) as usize;
        let mut client = Client::new(fleet.address(server));
        // Each goes round from another place, so that all meet all others again and again.
        let mut step = writer * CERTIFICATES / (SERVERS as u64 * WRITERS);
        while !ended.load(Ordering::Relaxed) {
            let (number, version) = (step % CERTIFICATES, (writer + step / CERTIFICATES) % VERSIONS);
            step += 1 + writer % 3;
            self.sent.add((number, version));
            match client.add(&self.version(number, version).armored()) {
                Ok(answer) if answer.status == 200 => self.taken.add((number, version)),
                Ok(_) => thread::sleep(Duration::from_millis(20)),
                Err(_) => {
                    thread::sleep(Duration::from_millis(50));
                    client = Client::new(fleet.address(server));
                }
            }
        }
    }
}

/// A packet: its tag and what it holds.
type Packet = (u8, Vec<u8>);

/// What all versions of a certificate have.
fn certificate(seed: u64, number: u64) -> Certificate {
    Certificate::v4(number, &format!("shared {seed}")).user_id(format!("Number {number}"))
}

/// The user id of a version.
fn name(version: u64) -> String {
    format!("Version {version} <v{version}@example.org>")
}

/// Waits until all nodes are equal, and looks whether they hold what they should.
fn judge(fleet: &Fleet, writing: &Writing, when: &str, summary: &mut Summary) -> Result<(), Error> {
    let (began, mut fault) = (Instant::now(), None);
    while let Some(reason) = fleet.difference()? {
        if began.elapsed() > EQUAL_WITHIN {
            fault = Some(format!("{when}: {reason}"));
            break;
        }
        thread::sleep(Duration::from_millis(200));
    }
    summary.lines.push(format!(
        "{when}: all trees equal after {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    summary.faults.extend(fault);
    summary
        .faults
        .extend(fleet.check().into_iter().map(|fault| format!("{when}: {fault}")));
    let taken = writing.taken.all();
    for server in 0..SERVERS {
        let mut client = Client::new(fleet.address(server));
        for number in (0..CERTIFICATES).filter(|number| number % SERVERS as u64 == server as u64) {
            let fault = writing.wrong(&mut client, number)?;
            summary
                .faults
                .extend(fault.map(|fault| format!("{when}: certificate {number} {fault}")));
        }
    }
    summary
        .lines
        .push(format!("{when}: {} acknowledged versions asked for", taken.len()));
    Ok(())
}
