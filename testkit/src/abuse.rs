//! What a hostile stranger can do to a keyserver, done to Keyrink, and how it fares meanwhile.
//!
//! Every trial starts a server of its own and gives its findings: a figure, the bound that it must keep, and whether it
//! does. An ordinary client (`Watch`) looks up an ordinary certificate all the while, on a new connection each time.

mod bodies;
mod costly;
mod idle;
mod poison;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::error::{At, Error};
use crate::http::Client;
use crate::peers::{Keyrink, KeyrinkOptions};
use crate::{Certificate, generate};

/// How much of everything.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `keyrink` program.
    pub keyrink: PathBuf,
    /// Bogus certifications put on one certificate.
    pub certifications: u32,
    /// Certifications in one upload.
    pub upload: u32,
    /// User ids and subkeys of others grafted onto one certificate, of each so many.
    pub grafts: u32,
    /// User ids that are files, put on one certificate.
    pub files: u32,
    /// Octets that the server may keep of one certificate.
    pub certificate_octets: u32,
    /// Broken bodies sent.
    pub bodies: u32,
    /// Submissions that are as expensive to verify as a stranger can make them.
    pub costly: u32,
    /// Connections that send nothing.
    pub idle: usize,
    /// Connections that send an octet a second.
    pub slow: usize,
    /// How long those are kept up.
    pub patience: Duration,
}

impl Plan {
    /// As much as the documented figures are of: some ten minutes.
    pub fn full(keyrink: PathBuf) -> Self {
        Self {
            keyrink,
            certifications: 150_000,
            upload: 1500,
            grafts: 1000,
            files: 500,
            certificate_octets: 16 << 20,
            bodies: 100_000,
            costly: 1000,
            idle: 10_000,
            slow: 1000,
            patience: Duration::from_secs(40),
        }
    }

    /// So little that every run of the tests can do it.
    pub fn short(keyrink: PathBuf) -> Self {
        Self {
            certifications: 3000,
            upload: 1000,
            grafts: 100,
            files: 50,
            certificate_octets: 256 << 10,
            bodies: 2000,
            costly: 6,
            idle: 500,
            slow: 50,
            patience: Duration::from_secs(3),
            ..Self::full(keyrink)
        }
    }
}

/// One thing to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// Certifications, user ids, subkeys and files that others put on a certificate.
    Poison,
    /// Bodies that are nearly right, for `/pks/add` and `/pks/hashquery`.
    Bodies,
    /// Certificates made to take long to verify.
    Costly,
    /// Connections that do nothing, or next to nothing.
    Idle,
}

impl Trial {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Poison, Self::Bodies, Self::Costly, Self::Idle];

    /// Does it to a server of its own.
    ///
    /// # Errors
    /// When a program is missing or fails, or an answer is no HTTP.
    pub fn run(self, plan: &Plan, log: &mut dyn FnMut(String)) -> Result<Vec<Finding>, Error> {
        match self {
            Self::Poison => poison::run(plan, log),
            Self::Bodies => bodies::run(plan, log),
            Self::Costly => costly::run(plan, log),
            Self::Idle => idle::run(plan, log),
        }
    }
}

/// What a trial showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Of what.
    pub what: String,
    /// The figure, with its unit.
    pub figure: String,
    /// What it must be; empty if it is only told.
    pub bound: String,
    /// It is.
    pub holds: bool,
}

impl Finding {
    /// Does it depend on how busy the machine is?
    pub fn is_time(&self) -> bool {
        self.figure.ends_with(" ms") || self.figure.ends_with(" s")
    }

    /// A figure that must be below `bound`.
    fn below(what: &str, figure: f64, bound: f64, unit: &str) -> Self {
        Self {
            what: what.to_owned(),
            figure: format!("{figure:.*} {unit}", usize::from(figure < 10.0)),
            bound: format!("< {bound} {unit}"),
            holds: figure < bound,
        }
    }

    /// A number that must be what it is.
    fn exactly(what: &str, figure: usize, bound: usize) -> Self {
        Self {
            what: what.to_owned(),
            figure: figure.to_string(),
            bound: bound.to_string(),
            holds: figure == bound,
        }
    }

    /// A number that must be reached.
    fn at_least(what: &str, figure: usize, bound: usize) -> Self {
        Self {
            bound: format!("≥ {bound}"),
            holds: figure >= bound,
            ..Self::exactly(what, figure, bound)
        }
    }

    /// Something that is told.
    fn told(what: &str, figure: impl Into<String>) -> Self {
        Self {
            what: what.to_owned(),
            figure: figure.into(),
            bound: String::new(),
            holds: true,
        }
    }
}

/// A row of a table in Markdown.
impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what, figure, bound, ..
        } = self;
        let holds = match (bound.as_str(), self.holds) {
            ("", _) => "",
            (_, true) => "yes",
            (_, false) => "**no**",
        };
        write!(out, "| {what} | {figure} | {bound} | {holds} |")
    }
}

/// A server on an empty store in a folder of its own.
struct Victim {
    server: Keyrink,
    folder: TempDir,
}

impl Victim {
    /// Starts it with settings such as `KEYRINK_HTTP_CONNECTIONS=99` and arguments of `serve`.
    fn start(program: &Path, settings: &[&str], arguments: &[&str]) -> Result<Self, Error> {
        let folder = tempfile::Builder::new()
            .prefix("abuse-")
            .tempdir()
            .at("temporary folder")?;
        // As the systemd unit has it.
        let wrapper = [&["env", "MALLOC_MMAP_THRESHOLD_=131072"], settings].concat();
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let server = Keyrink::start_with(&KeyrinkOptions {
            program: program.to_owned(),
            data: folder.path().join("data"),
            address: std::net::Ipv4Addr::LOCALHOST,
            arguments: own(arguments),
            wrapper: own(&wrapper),
        })?;
        Ok(Self { server, folder })
    }

    fn http(&self) -> SocketAddr {
        self.server.http()
    }

    fn client(&self) -> Client {
        Client::new(self.http())
    }

    /// An ordinary certificate that it holds, to be looked up.
    fn ordinary(&self) -> Result<Certificate, Error> {
        let certificate = generate::certificate(1, 0);
        submit(&mut self.client(), &certificate.to_bytes())?;
        Ok(certificate)
    }
}

/// Submits packets, which must be taken.
fn submit(client: &mut Client, octets: &[u8]) -> Result<(), Error> {
    let answer = client.add(&crate::armor(octets))?;
    match answer.status {
        200 => Ok(()),
        status => Err(Error::Answer(format!("{status} {}", answer.text()))),
    }
}

/// The target that gets a certificate.
fn get_of(fingerprint: &str) -> String {
    format!("/pks/lookup?op=get&search=0x{fingerprint}")
}

/// An ordinary client that looks up one certificate again and again, each time on a new connection.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Latencies>,
}

/// What it saw.
#[derive(Debug, Default)]
struct Latencies {
    /// Sorted when it is done.
    all: Vec<Duration>,
    /// No answer, or another than 200.
    failed: usize,
}

impl Watch {
    fn start(server: SocketAddr, target: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut seen = Latencies::default();
            while !stopped.load(Ordering::Relaxed) {
                seen.ask(server, &target);
                thread::sleep(BETWEEN_LOOKUPS);
            }
            seen.all.sort();
            seen
        });
        Self { stop, thread }
    }

    fn finish(self) -> Latencies {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

impl Latencies {
    /// So many lookups one after another.
    fn of(server: SocketAddr, target: &str, count: usize) -> Self {
        let mut seen = Self::default();
        (0..count).for_each(|_| seen.ask(server, target));
        seen.all.sort();
        seen
    }

    fn ask(&mut self, server: SocketAddr, target: &str) {
        let start = Instant::now();
        let answer = Client::new(server).get(target);
        self.all.push(start.elapsed());
        self.failed += usize::from(!answer.is_ok_and(|answer| answer.status == 200));
    }

    /// The time within which this share of all answers came, in milliseconds.
    fn millis(&self, share: f64) -> f64 {
        let place = (self.all.len() as f64 * share) as usize;
        let place = place.min(self.all.len().saturating_sub(1));
        self.all.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }

    /// How an ordinary client fared.
    fn findings(&self, whose: &str, millis_max: f64) -> [Finding; 2] {
        let p99 = format!("{whose}, p99 of {}", self.all.len());
        [
            Finding::below(&p99, self.millis(0.99), millis_max, "ms"),
            Finding::exactly(&format!("{whose}, failed"), self.failed, 0),
        ]
    }
}

/// Pause of an ordinary client.
const BETWEEN_LOOKUPS: Duration = Duration::from_millis(10);
