//! Keyrink and SKS side by side: the same input, the same machine, one run.
//!
//! Each side loads a corpus, serves it on core 0 to a load generator on core 1, and takes submissions of certificates it
//! has not seen. For submissions, which leave the generator idle, a server may use both cores. The sides take turns in
//! short rounds and each figure is the median of them, because a machine shared with others is not equally fast for
//! long.

mod side;
mod table;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub use side::SideName;
use side::{KeyrinkSide, Running, Side, SksSide};
use table::{Figure, Table};

use crate::armor::form_encode;
use crate::error::{At, Error};
use crate::http::Client;
use crate::keyring::entries;
use crate::load::{self, Report, Work};
use crate::{generate, machine};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Keyrings of the *real* corpus; none leaves it out.
    pub keyrings: Vec<PathBuf>,
    /// Certificates of the *synthetic* corpus; 0 leaves it out.
    pub synthetic: u64,
    /// The `keyrink` program; not needed for SKS alone.
    pub keyrink: PathBuf,
    /// The sides, in this order.
    pub sides: Vec<SideName>,
    /// How often each corpus is loaded.
    pub loads: usize,
    /// Length of each measurement over HTTP, all rounds together.
    pub duration: Duration,
}

/// Measures, telling `log` about each step; the finished tables in Markdown.
///
/// # Errors
/// When a program is missing or fails.
pub fn run(plan: &Plan, mut log: impl FnMut(String)) -> Result<String, Error> {
    let folder = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir()
        .at("temporary folder")?;
    let mut out = format!("{}\n", machine::description());
    for corpus in corpora(plan, &folder)? {
        let mut measure = Measure {
            plan,
            table: Table::new(&corpus.title, corpus.real),
            corpus: &corpus,
            log: &mut log,
        };
        let mut sides = Vec::new();
        for name in &plan.sides {
            let side: Box<dyn Side> = match name {
                SideName::Sks => Box::new(SksSide::default()),
                SideName::Keyrink => Box::new(KeyrinkSide::new(&plan.keyrink)?),
            };
            sides.push((*name, side));
        }
        measure.load(&mut sides)?;
        measure.serve(&mut sides)?;
        out.push_str(&format!("\n{}", measure.table));
    }
    Ok(out)
}

/// Where the server runs; the load generator has the other one.
const SERVER_CORE: usize = 0;
const GENERATOR_CORE: usize = 1;
const CONNECTIONS: usize = 16;
/// Memory counts as idle so long after the first answer.
const SETTLE: Duration = Duration::from_secs(2);
const WARM_UP: Duration = Duration::from_millis(200);
/// Rounds of a measurement over HTTP.
const ROUNDS: u32 = 5;
/// Certificates kept ready for each second of submissions.
const SUBMISSIONS_PER_SECOND: f64 = 12_000.0;
/// The generator's seed for the corpus, and for what is submitted.
const SEEDS: [u64; 2] = [1, 2];

/// Some keyrings, and what to ask about them.
struct Corpus {
    title: String,
    real: bool,
    files: Vec<PathBuf>,
    fingerprints: Vec<String>,
    addresses: Vec<String>,
}

type Sides = Vec<(SideName, Box<dyn Side>)>;

/// Takes the figures of one corpus.
struct Measure<'a> {
    plan: &'a Plan,
    corpus: &'a Corpus,
    table: Table,
    log: &'a mut dyn FnMut(String),
}

impl Measure<'_> {
    fn load(&mut self, sides: &mut Sides) -> Result<(), Error> {
        for _ in 0..self.plan.loads.max(1) {
            for (name, side) in &mut *sides {
                let seconds = side.load(&self.corpus.files)?.as_secs_f64();
                self.say(*name, &format!("load {seconds:.2} s"));
                self.table.add(Figure::Load, *name, seconds);
            }
        }
        for (name, side) in sides {
            let octets = machine::disk_octets(&side.storage());
            self.table.add(Figure::Disk, *name, octets as f64 / 1e6);
        }
        Ok(())
    }

    fn serve(&mut self, sides: &mut Sides) -> Result<(), Error> {
        let digits = self.corpus.fingerprints.iter();
        let gets: Vec<String> = digits
            .map(|digits| format!("/pks/lookup?op=get&search=0x{digits}"))
            .collect();
        let addresses = self.corpus.addresses.iter().map(|address| form_encode(address));
        let indexes = addresses.map(|address| format!("/pks/lookup?op=index&options=mr&search={address}"));

        let mut servers = Vec::new();
        for (name, side) in &mut *sides {
            servers.push((*name, self.start(*name, side.as_mut(), &gets[0])?));
        }
        self.rounds(Figure::Get, &servers, CONNECTIONS, |_| Work::get(gets.clone()))?;
        let indexes: Vec<String> = indexes.collect();
        self.rounds(Figure::Index, &servers, CONNECTIONS, |_| Work::get(indexes.clone()))?;
        for (name, server) in &servers {
            self.memory(Figure::MemoryServed, *name, server);
            machine::allow_cores(server.id, &[SERVER_CORE, GENERATOR_CORE])?;
        }
        let ready = (self.round().as_secs_f64() * SUBMISSIONS_PER_SECOND) as u64;
        for (at, (figure, connections)) in [(Figure::SubmitOne, 1), (Figure::SubmitEight, 8)]
            .into_iter()
            .enumerate()
        {
            self.rounds(figure, &servers, connections, |round| {
                let first = (at as u64 * u64::from(ROUNDS) + u64::from(round)) * ready;
                Work::submit((first..first + ready).map(|index| generate::certificate(SEEDS[1], index).to_bytes()))
            })?;
        }
        for (_, side) in sides {
            side.stop();
        }
        Ok(())
    }

    /// Starts a server and takes the figures of a server that starts.
    fn start(&mut self, name: SideName, side: &mut dyn Side, target: &str) -> Result<Running, Error> {
        let start = Instant::now();
        let server = side.start()?;
        let mut client = Client::new(server.http);
        while client.get(target)?.status != 200 {}
        let millis = start.elapsed().as_secs_f64() * 1e3;
        self.table.add(Figure::FirstAnswer, name, millis);
        thread::sleep(SETTLE);
        self.memory(Figure::MemoryIdle, name, &server);
        Ok(server)
    }

    /// Lets the servers take turns with the work of each round.
    fn rounds(
        &mut self,
        figure: Figure,
        servers: &[(SideName, Running)],
        connections: usize,
        work: impl Fn(u32) -> Work,
    ) -> Result<(), Error> {
        for round in 0..ROUNDS {
            let work = work(round);
            for (name, server) in servers {
                let rate = self.rate(figure, *name, server, connections, &work)?;
                self.table.add(figure, *name, rate);
            }
        }
        Ok(())
    }

    fn rate(
        &mut self,
        figure: Figure,
        name: SideName,
        server: &Running,
        connections: usize,
        work: &Work,
    ) -> Result<f64, Error> {
        if let Work::Cycle(_) = work {
            generate_load(server, connections, WARM_UP, work)?;
        }
        let cpu = || [machine::cpu_time(server.id), machine::cpu_time(std::process::id())];
        let before = cpu();
        let report = generate_load(server, connections, self.round(), work)?;
        let after = cpu();
        let busy = |side: usize| (after[side] - before[side]).as_secs_f64() / report.elapsed.as_secs_f64() * 100.0;
        let (server, generator) = (busy(0), busy(1));
        self.say(
            name,
            &format!("{figure}: {report}; CPU: server {server:.0} %, generator {generator:.0} %"),
        );
        Ok(report.per_second())
    }

    fn round(&self) -> Duration {
        self.plan.duration / ROUNDS
    }

    fn memory(&mut self, figure: Figure, name: SideName, server: &Running) {
        let octets = machine::resident_octets(server.id);
        self.table.add(figure, name, octets as f64 / 1e6);
    }

    fn say(&mut self, name: SideName, text: &str) {
        (self.log)(format!("{} | {name} | {text}", self.corpus.title));
    }
}

/// In a thread of its own, because a thread and what it starts stay where they were pinned.
fn generate_load(server: &Running, connections: usize, duration: Duration, work: &Work) -> Result<Report, Error> {
    thread::scope(|scope| {
        let generator = scope.spawn(|| {
            machine::pin_to_core(GENERATOR_CORE);
            load::run(server.http, connections, duration, work)
        });
        generator
            .join()
            .unwrap_or_else(|_| Err(Error::Answer("the load generator failed".to_owned())))
    })
}

fn corpora(plan: &Plan, folder: &TempDir) -> Result<Vec<Corpus>, Error> {
    let mut corpora = Vec::new();
    if !plan.keyrings.is_empty() {
        corpora.push(corpus("keyrings", true, plan.keyrings.clone())?);
    }
    if plan.synthetic > 0 {
        let path = folder.path().join("synthetic.pgp");
        let mut file = BufWriter::new(File::create(&path).at(&path)?);
        generate::write(&mut file, SEEDS[0], 0..plan.synthetic).at(&path)?;
        file.flush().at(&path)?;
        corpora.push(corpus("synthetic", false, vec![path])?);
    }
    Ok(corpora)
}

fn corpus(title: &str, real: bool, files: Vec<PathBuf>) -> Result<Corpus, Error> {
    let mut octets = Vec::new();
    for file in &files {
        octets.extend(fs::read(file).at(file)?);
    }
    let found = entries(&octets);
    // A certificate may be in two keyrings.
    let fingerprints: BTreeSet<String> = found.iter().map(|entry| entry.fingerprint()).collect();
    let addresses: BTreeSet<String> = found.iter().filter_map(|entry| entry.address()).collect();
    let title = format!(
        "{title}: {} certificates, {:.1} MB",
        fingerprints.len(),
        octets.len() as f64 / 1e6
    );
    let (fingerprints, addresses) = (fingerprints.into_iter().collect(), addresses.into_iter().collect());
    Ok(Corpus {
        title,
        real,
        files,
        fingerprints,
        addresses,
    })
}
