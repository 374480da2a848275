//! Keyrink on PostgreSQL beside itself on the embedded store: the same input, the same machine, one run.
//!
//! Everything runs on the same cores: the server, the database and the load generator. The engines take turns, figure by figure,
//! because a machine shared with others is not equally fast for long.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tempfile::TempDir;

use crate::error::{At, Error};
use crate::http::Client;
use crate::keyring::entries;
use crate::load::{self, Work};
use crate::peers::{Keyrink, KeyrinkOptions, Postgres, ended_cpu_seconds, run as run_program, store_arguments};
use crate::{generate, machine};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `keyrink` program.
    pub program: PathBuf,
    /// Keyrings of the *real* corpus; none leaves it out.
    pub keyrings: Vec<PathBuf>,
    /// Small certificates of the corpus that is served.
    pub synthetic: u64,
    /// Small certificates of the corpus that is only loaded; 0 leaves it out.
    pub large: u64,
    /// Elements of the tree with which a server starts; 0 leaves that out.
    pub elements: u64,
    /// Length of each measurement over HTTP.
    pub duration: Duration,
}

/// Measures, telling `log` about each step; the finished table in Markdown.
///
/// # Errors
/// When a program is missing or fails.
pub fn run(plan: &Plan, log: impl FnMut(String)) -> Result<String, Error> {
    let folder = tempfile::Builder::new()
        .prefix("engines-")
        .tempdir()
        .at("temporary folder")?;
    let mut measure = Measure {
        plan,
        database: Postgres::start_with(&SETTINGS)?,
        folder,
        rows: Vec::new(),
        log,
    };
    let head = format!(
        "{}\nPostgreSQL with {}\n\n",
        machine::description(),
        SETTINGS.join(", ")
    );
    if !plan.keyrings.is_empty() {
        measure.load("keyrings", &plan.keyrings)?;
    }
    let small = measure.corpus("small", plan.synthetic)?;
    let stores = measure.load(
        &format!("{} small certificates", plan.synthetic),
        std::slice::from_ref(&small),
    )?;
    measure.serve(&stores, &small)?;
    if plan.large > 0 {
        let large = measure.corpus("large", plan.large)?;
        measure.load(&format!("{} small certificates", plan.large), &[large])?;
    }
    if plan.elements > 0 {
        measure.start_up(plan.elements)?;
    }
    Ok(head + &measure.table())
}

/// What the page for operators advises.
const SETTINGS: [&str; 3] = ["shared_buffers=512MB", "max_wal_size=4GB", "max_connections=200"];
const CONNECTIONS: usize = 16;
/// Connections that submit.
const SUBMITTERS: [usize; 3] = [1, 8, 32];
const WARM_UP: Duration = Duration::from_millis(300);
const READ_WITHIN: Duration = Duration::from_secs(120);
/// Certificates kept ready for each second of submissions.
const SUBMISSIONS_PER_SECOND: f64 = 6_000.0;

/// PostgreSQL and the embedded store, in this order everywhere.
type Both<T> = [T; 2];

struct Measure<'a, L> {
    plan: &'a Plan,
    database: Postgres,
    folder: TempDir,
    rows: Vec<Row>,
    log: L,
}

/// What was measured, of both.
struct Row {
    title: String,
    figures: Both<String>,
    /// What is demanded of PostgreSQL, and whether it is so.
    demand: Option<(&'static str, bool)>,
}

/// A load: how long it took, and the processor time of the program and of PostgreSQL. All in seconds.
#[derive(Clone, Copy, Default)]
struct Loaded {
    seconds: f64,
    own: f64,
    postgres: f64,
}

impl<L: FnMut(String)> Measure<'_, L> {
    /// Loads files into new stores, which are given back.
    fn load(&mut self, title: &str, files: &[PathBuf]) -> Result<Both<PathBuf>, Error> {
        let name = format!("base{}", self.rows.len());
        let stores = [
            PathBuf::from(self.database.create(&name)?),
            self.folder.path().join(&name),
        ];
        let octets = |database: &Postgres| -> Result<f64, Error> {
            let octets = database.ask(&name, "SELECT pg_database_size(current_database())")?;
            Ok(octets.parse().unwrap_or(0.0))
        };
        // What every database has, whatever is in it.
        let empty = octets(&self.database)?;
        let mut figures = <Both<Loaded>>::default();
        let mut certificates = 0;
        for (store, figure) in stores.iter().zip(&mut figures) {
            (*figure, certificates) = self.load_into(store, files)?;
        }
        let octets = [octets(&self.database)? - empty, machine::disk_octets(&stores[1]) as f64];
        let demand = (certificates == 50_000).then_some(("≤ 10 s", figures[0].seconds <= 10.0));
        self.row(
            &format!("load of {title}, s"),
            figures.map(|figure| format!("{:.1}", figure.seconds)),
            demand,
        );
        let cpu = figures.map(|figure| format!("{:.1}", figure.own + figure.postgres));
        self.row("… processor time, s", cpu, None);
        let share = figures.map(|figure| format!("{:.0} %", 100.0 * figure.postgres / (figure.own + figure.postgres)));
        self.row("… of that in PostgreSQL", share, None);
        let each = octets.map(|octets| format!("{:.2}", octets / 1e3 / f64::from(certificates.max(1))));
        self.row("… size for each certificate, kB", each, None);
        Ok(stores)
    }

    /// Loads files into one new store; how many certificates they were.
    fn load_into(&self, store: &Path, files: &[PathBuf]) -> Result<(Loaded, u32), Error> {
        let own = || ended_cpu_seconds(std::process::id().cast_signed()).unwrap_or_default();
        let is_shared = store.starts_with("postgres:");
        let (began, own_before, before) = (Instant::now(), own(), self.database.cpu_seconds());
        let mut command = Command::new(&self.plan.program);
        let output = run_program(command.arg("load").args(store_arguments(store)).args(files), "keyrink")?;
        let loaded = Loaded {
            seconds: began.elapsed().as_secs_f64(),
            own: own() - own_before,
            // What it does while another engine loads is upkeep of what was before.
            postgres: if is_shared {
                self.database.cpu_seconds() - before
            } else {
                0.0
            },
        };
        Ok((loaded, first_number(&String::from_utf8_lossy(&output.stdout))))
    }

    /// Serves a corpus and takes submissions.
    fn serve(&mut self, stores: &Both<PathBuf>, corpus: &Path) -> Result<(), Error> {
        let found = entries(&fs::read(corpus).at(corpus)?);
        let targets = found
            .iter()
            .map(|entry| format!("/pks/lookup?op=get&search=0x{}", entry.fingerprint()));
        let gets = Work::get(targets);
        let servers = [self.start(&stores[0], &[])?, self.start(&stores[1], &[])?];
        let mut rates = <Both<f64>>::default();
        for (server, rate) in servers.iter().zip(&mut rates) {
            load::run(server.http(), CONNECTIONS, WARM_UP, &gets)?;
            *rate = load::run(server.http(), CONNECTIONS, self.plan.duration, &gets)?.per_second();
        }
        self.row(
            "op=get, 16 connections, req/s",
            rates.map(|rate| format!("{rate:.0}")),
            Some(("≥ 4 000", rates[0] >= 4_000.0)),
        );
        let ready = (self.plan.duration.as_secs_f64() * SUBMISSIONS_PER_SECOND) as u64;
        let mut rates = BTreeMap::new();
        for (round, connections) in (0..).zip(SUBMITTERS) {
            let numbers = round * ready..(round + 1) * ready;
            let work = Work::submit(numbers.map(|number| generate::certificate(2, number).to_bytes()));
            let mut measured = <Both<f64>>::default();
            for (server, rate) in servers.iter().zip(&mut measured) {
                *rate = load::run(server.http(), connections, self.plan.duration, &work)?.per_second();
            }
            rates.insert(connections, measured);
            self.row(
                &format!("submissions/s, {connections} connections"),
                measured.map(|rate| format!("{rate:.0}")),
                None,
            );
        }
        let ratio = [0, 1].map(|side| rates[&32][side] / rates[&8][side].max(1e-9));
        self.row(
            "… with 32 connections, of those with 8",
            ratio.map(|ratio| format!("{ratio:.2}")),
            Some(("≥ 0.8", ratio[0] >= 0.8)),
        );
        Ok(())
    }

    /// Starts servers on a tree of so many made-up elements, and again when its sums have been saved.
    fn start_up(&mut self, elements: u64) -> Result<(), Error> {
        let stores = [
            PathBuf::from(self.database.create("tree")?),
            self.folder.path().join("tree"),
        ];
        let mut migrate = Command::new(&self.plan.program);
        run_program(migrate.arg("migrate").args(store_arguments(&stores[0])), "keyrink")?;
        // A server makes the tables of its own store.
        drop(self.start(&stores[1], &[])?);
        let insert = format!(
            "INSERT INTO element SELECT decode(md5(n::text), 'hex'), 1, ARRAY['\\x01'::bytea || decode(md5(n::text), 'hex')]
             FROM generate_series(1, {elements}) AS n"
        );
        self.database.ask("tree", &insert)?;
        let embedded = Embedded::open(&stores[1])?;
        embedded.make_up(elements)?;
        for title in ["reading all of them", "with the sums that the server before saved"] {
            let mut figures = <Both<String>>::default();
            for (at, figure) in figures.iter_mut().enumerate() {
                let (server, answered, read) = self.start_with_tree(&stores[at])?;
                *figure = format!("{answered:.2}, {read:.2}");
                let saved = || match at {
                    0 => Ok(self.database.ask("tree", SAVED_TREES)? != "0"),
                    _ => embedded.has_saved_trees(),
                };
                while !saved()? {
                    std::thread::sleep(Duration::from_millis(500));
                }
                drop(server);
            }
            let title = format!("start with {elements} elements, {title}: to the first answer, to the tree, s");
            self.row(&title, figures, None);
        }
        Ok(())
    }

    /// Starts a server that keeps a tree: after how many seconds it has answered, and has read the tree.
    fn start_with_tree(&self, store: &Path) -> Result<(Keyrink, f64, f64), Error> {
        let began = Instant::now();
        let server = self.start(store, &["--recon", "127.0.0.1:0", "--partner", "recon=127.0.0.9:9"])?;
        let answered = began.elapsed().as_secs_f64();
        let mut client = Client::new(server.http());
        let is_read = |text: &str| text.lines().any(|line| line.starts_with("keyrink_tree_sum"));
        while !is_read(&client.get("/metrics")?.text()) {
            if began.elapsed() > READ_WITHIN {
                return Err(Error::Answer("the tree was not read in time".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok((server, answered, began.elapsed().as_secs_f64()))
    }

    fn start(&self, store: &Path, arguments: &[&str]) -> Result<Keyrink, Error> {
        Keyrink::start_with(&KeyrinkOptions {
            program: self.plan.program.clone(),
            data: store.to_owned(),
            address: Ipv4Addr::LOCALHOST,
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            wrapper: Vec::new(),
        })
    }

    fn corpus(&self, name: &str, certificates: u64) -> Result<PathBuf, Error> {
        let path = self.folder.path().join(format!("{name}.pgp"));
        let mut file = BufWriter::new(File::create(&path).at(&path)?);
        generate::write(&mut file, 1, 0..certificates).at(&path)?;
        file.flush().at(&path)?;
        Ok(path)
    }

    fn row(&mut self, title: &str, figures: Both<String>, demand: Option<(&'static str, bool)>) {
        (self.log)(format!("{title}: {} / {}", figures[0], figures[1]));
        self.rows.push(Row {
            title: title.to_owned(),
            figures,
            demand,
        });
    }

    fn table(&self) -> String {
        let mut table = "| | PostgreSQL | embedded | PostgreSQL must | does it? |\n|---|---|---|---|---|\n".to_owned();
        for row in &self.rows {
            let [postgres, embedded] = &row.figures;
            let (demand, verdict) = match row.demand {
                Some((demand, true)) => (demand, "yes"),
                Some((demand, false)) => (demand, "**no**"),
                None => ("", ""),
            };
            let _ = writeln!(
                table,
                "| {} | {postgres} | {embedded} | {demand} | {verdict} |",
                row.title
            );
        }
        table
    }
}

/// The file of an embedded store, changed behind the back of its servers.
struct Embedded {
    database: Connection,
    place: String,
}

impl Embedded {
    fn open(store: &Path) -> Result<Self, Error> {
        let file = store.join("keyrink.db");
        let place = file.display().to_string();
        match Connection::open(&file) {
            Ok(database) => Ok(Self { database, place }),
            Err(source) => Err(Error::Sqlite { place, source }),
        }
    }

    /// So many elements of no record.
    fn make_up(&self, elements: u64) -> Result<(), Error> {
        let insert = format!(
            "INSERT INTO element WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {elements})
             SELECT 1, randomblob(16), randomblob(16), 1 FROM numbers"
        );
        let inserted = self.database.execute(&insert, []);
        inserted.map(drop).map_err(|source| self.failed(source))
    }

    fn has_saved_trees(&self) -> Result<bool, Error> {
        let count = self.database.query_row(SAVED_TREES, [], |row| row.get::<_, i64>(0));
        Ok(count.map_err(|source| self.failed(source))? > 0)
    }

    fn failed(&self, source: rusqlite::Error) -> Error {
        let place = self.place.clone();
        Error::Sqlite { place, source }
    }
}

const SAVED_TREES: &str = "SELECT count(*) FROM note WHERE key LIKE 'tree %'";

/// The number that a report begins with.
fn first_number(report: &str) -> u32 {
    let lines = report.lines().find_map(|line| line.split_once(" certificates: "));
    lines.and_then(|(number, _)| number.parse().ok()).unwrap_or(0)
}
