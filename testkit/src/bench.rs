//! Keyrink and SKS side by side: the same input, the same machine, one run.
//!
//! Each side loads a corpus, serves it on core 0 to a load generator on core 1, and takes submissions of certificates it
//! has not seen.

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
    /// How often each corpus is loaded; the fastest time counts.
    pub loads: usize,
    /// Length of each measurement over HTTP.
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
        let mut table = Table::new(&corpus.title, corpus.real);
        for name in &plan.sides {
            let mut side: Box<dyn Side> = match name {
                SideName::Sks => Box::new(SksSide::default()),
                SideName::Keyrink => Box::new(KeyrinkSide::new(&plan.keyrink)?),
            };
            let mut measure = Measure {
                plan,
                corpus: &corpus,
                name: *name,
                table: &mut table,
                log: &mut log,
            };
            measure.load(side.as_mut())?;
            measure.serve(side.as_mut())?;
        }
        out.push_str(&format!("\n{table}"));
    }
    Ok(out)
}

/// Where the server runs; the load generator has the other one.
const SERVER_CORE: usize = 0;
const GENERATOR_CORE: usize = 1;
const CONNECTIONS: usize = 16;
/// Memory counts as idle so long after the first answer.
const SETTLE: Duration = Duration::from_secs(2);
const WARM_UP: Duration = Duration::from_millis(500);
/// Certificates kept ready to submit in one measurement.
const SUBMISSIONS: u64 = 60_000;
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

/// Takes the figures of one side.
struct Measure<'a> {
    plan: &'a Plan,
    corpus: &'a Corpus,
    name: SideName,
    table: &'a mut Table,
    log: &'a mut dyn FnMut(String),
}

impl Measure<'_> {
    fn load(&mut self, side: &mut dyn Side) -> Result<(), Error> {
        let mut times = Vec::new();
        for _ in 0..self.plan.loads.max(1) {
            times.push(side.load(&self.corpus.files)?);
            self.say(format!("load {:.2} s", times[times.len() - 1].as_secs_f64()));
        }
        let fastest = times.iter().min().copied().unwrap_or_default();
        self.table.set(Figure::Load, self.name, fastest.as_secs_f64());
        self.table.set(
            Figure::Disk,
            self.name,
            machine::disk_octets(&side.storage()) as f64 / 1e6,
        );
        Ok(())
    }

    fn serve(&mut self, side: &mut dyn Side) -> Result<(), Error> {
        let gets = self
            .corpus
            .fingerprints
            .iter()
            .map(|digits| format!("/pks/lookup?op=get&search=0x{digits}"));
        let gets: Vec<String> = gets.collect();
        let addresses = self.corpus.addresses.iter().map(|address| form_encode(address));
        let indexes = addresses.map(|address| format!("/pks/lookup?op=index&options=mr&search={address}"));

        let start = Instant::now();
        let server = side.start()?;
        let mut client = Client::new(server.http);
        while client.get(&gets[0])?.status != 200 {}
        self.table
            .set(Figure::FirstAnswer, self.name, start.elapsed().as_secs_f64() * 1e3);
        thread::sleep(SETTLE);
        self.memory(Figure::MemoryIdle, &server);
        drop(client);

        self.rate(Figure::Get, &server, CONNECTIONS, &Work::get(gets))?;
        self.rate(Figure::Index, &server, CONNECTIONS, &Work::get(indexes))?;
        self.memory(Figure::MemoryServed, &server);

        let submissions = |range: std::ops::Range<u64>| {
            Work::submit(range.map(|index| generate::certificate(SEEDS[1], index).to_bytes()))
        };
        self.rate(Figure::SubmitOne, &server, 1, &submissions(0..SUBMISSIONS))?;
        self.rate(
            Figure::SubmitEight,
            &server,
            8,
            &submissions(SUBMISSIONS..2 * SUBMISSIONS),
        )?;
        side.stop();
        Ok(())
    }

    fn rate(&mut self, figure: Figure, server: &Running, connections: usize, work: &Work) -> Result<(), Error> {
        if let Work::Cycle(_) = work {
            generate_load(server, connections, WARM_UP, work)?;
        }
        let cpu = || [machine::cpu_time(server.id), machine::cpu_time(std::process::id())];
        let before = cpu();
        let report = generate_load(server, connections, self.plan.duration, work)?;
        let busy = |side: usize| (cpu()[side] - before[side]).as_secs_f64() / report.elapsed.as_secs_f64() * 100.0;
        self.say(format!(
            "{figure}: {report}; CPU: server {:.0} %, generator {:.0} %",
            busy(0),
            busy(1)
        ));
        self.table.set(figure, self.name, report.per_second());
        Ok(())
    }

    fn memory(&mut self, figure: Figure, server: &Running) {
        self.table
            .set(figure, self.name, machine::resident_octets(server.id) as f64 / 1e6);
    }

    fn say(&mut self, text: String) {
        (self.log)(format!("{} | {} | {text}", self.corpus.title, self.name));
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
