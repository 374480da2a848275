//! `kill -9` at random moments: nothing acknowledged may be lost, and the store must agree with itself.
//!
//! Each round starts from an empty store and does one of three things until it is killed: a `load`, submissions over
//! eight connections to a `serve`, or both on one store. Then `keyrink check` must find no difference, and every
//! certificate that was acknowledged must come back whole by `op=get`. A load that was cut short is run again and must
//! end complete. A round depends on the seed and its number only, so that a failing one can be repeated.
//!
//! On PostgreSQL every other round kills the database instead, and the programs a moment later.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::armor::dearmor;
use crate::error::{At, Error};
use crate::generate;
use crate::http::Client;
use crate::keyring::entries;
use crate::peers::{Keyrink, Postgres, run as run_program, store_arguments};

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `keyrink` program.
    pub program: PathBuf,
    /// Number of the first round.
    pub first: u64,
    /// How many rounds.
    pub rounds: u64,
    /// Decides keys and moments.
    pub seed: u64,
    /// Whether the store is a PostgreSQL database.
    pub postgres: bool,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Rounds done.
    pub rounds: u64,
    /// Rounds in which the load was still running when it was killed.
    pub loads_cut_short: u64,
    /// Certificates whose submission or load was acknowledged; each was asked for afterwards.
    pub acknowledged: u64,
    /// One sentence each; empty if all is well.
    pub faults: Vec<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{} rounds, {} loads cut short", self.rounds, self.loads_cut_short)?;
        writeln!(
            out,
            "{} certificates acknowledged, {} faults",
            self.acknowledged,
            self.faults.len()
        )?;
        self.faults.iter().try_for_each(|fault| writeln!(out, "  {fault}"))
    }
}

/// Runs the rounds, calling `progress` after each one.
///
/// # Errors
/// When a program cannot be started at all; whatever Keyrink gets wrong is a fault in the summary.
pub fn run(plan: &Plan, mut progress: impl FnMut(&Summary)) -> Result<Summary, Error> {
    let database = match plan.postgres {
        // Processes are killed, not the machine.
        true => Some(Postgres::start_with(&["fsync=off"])?),
        false => None,
    };
    let load_time = time_of_a_load(plan, database.as_ref())?;
    let mut summary = Summary::default();
    for number in plan.first..plan.first + plan.rounds {
        let mut round = Round::new(plan, number, database.as_ref())?;
        round.until_killed(load_time)?;
        round.judge()?;
        summary.rounds += 1;
        summary.loads_cut_short += u64::from(round.load_cut_short);
        summary.acknowledged += round.acknowledged.len() as u64;
        if !round.faults.is_empty() {
            let kept = round.folder.keep();
            let head = format!("round {number} of seed {}, kept in {}", plan.seed, kept.display());
            summary
                .faults
                .extend(round.faults.iter().map(|fault| format!("{head}: {fault}")));
        }
        progress(&summary);
    }
    Ok(summary)
}

/// Certificates in the file that is loaded: numbers below this one.
const LOADED: u64 = 3000;
const CONNECTIONS: u64 = 8;
/// How long the programs go on after their database was killed.
const WITHOUT_DATABASE: Duration = Duration::from_millis(300);
/// Submissions are killed within this time.
const SUBMITTING_MAX: Duration = Duration::from_millis(800);

struct Round<'a> {
    plan: &'a Plan,
    folder: TempDir,
    /// The folder of the store, or the URL of its database.
    data: PathBuf,
    /// The database that is killed.
    victim: Option<&'a Postgres>,
    keys_seed: u64,
    random: Random,
    loads: bool,
    submits: bool,
    load_cut_short: bool,
    /// Numbers of the certificates that must be there.
    acknowledged: Vec<u64>,
    faults: Vec<String>,
}

impl<'a> Round<'a> {
    fn new(plan: &'a Plan, number: u64, database: Option<&'a Postgres>) -> Result<Self, Error> {
        let mut random = Random(plan.seed.wrapping_mul(0x9E37_79B9).wrapping_add(number));
        let folder = tempfile::Builder::new()
            .prefix("crash-")
            .tempdir()
            .at("temporary folder")?;
        let data = match database {
            Some(database) => PathBuf::from(database.create(&format!("round{number}"))?),
            None => folder.path().join("data"),
        };
        let round = Self {
            plan,
            folder,
            data,
            victim: database.filter(|_| number % 2 == 1),
            keys_seed: random.next(),
            random,
            loads: number % 3 != 1,
            submits: !number.is_multiple_of(3),
            load_cut_short: false,
            acknowledged: Vec::new(),
            faults: Vec::new(),
        };
        if database.is_some() {
            // A check wants tables, however early the kill.
            let mut command = Command::new(&plan.program);
            run_program(command.arg("migrate").args(store_arguments(&round.data)), "keyrink")?;
        }
        let mut file = File::create(round.keyring()).at(round.keyring())?;
        generate::write(&mut file, round.keys_seed, 0..LOADED).at(round.keyring())?;
        Ok(round)
    }

    /// Works until a random moment, then kills everything.
    fn until_killed(&mut self, load_time: Duration) -> Result<(), Error> {
        let mut server = if self.submits {
            Some(Keyrink::start(&self.plan.program, &self.data)?)
        } else {
            None
        };
        let mut load = if self.loads { Some(self.start_load()?) } else { None };
        let longest = if self.loads {
            load_time.mul_f64(1.1)
        } else {
            SUBMITTING_MAX
        };
        let moment = Instant::now() + longest.mul_f64(self.random.share());
        let (next, taken, refused) = (AtomicU64::new(LOADED), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            if let Some(server) = &server {
                for _ in 0..CONNECTIONS {
                    let client = Client::new(server.http());
                    let refused = self.victim.is_none().then_some(&refused);
                    let (next, taken, seed) = (&next, &taken, self.keys_seed);
                    scope.spawn(move || submit(client, seed, next, taken, refused));
                }
            }
            thread::sleep(moment.saturating_duration_since(Instant::now()));
            if let Some(database) = self.victim {
                database.kill();
                thread::sleep(WITHOUT_DATABASE);
            }
            if let Some(load) = &mut load {
                self.load_cut_short = load.try_wait().is_ok_and(|status| status.is_none());
                let _ = load.kill();
            }
            if let Some(server) = &mut server {
                server.kill();
            }
        });
        if let Some(database) = self.victim {
            database.start_again()?;
        }
        self.acknowledged = taken.into_inner().unwrap_or_default();
        self.faults = refused.into_inner().unwrap_or_default();
        if let Some(mut load) = load {
            let status = load.wait().at("keyrink load")?;
            match (self.load_cut_short, status.success()) {
                (true, _) => {}
                (false, true) => self.acknowledged.extend(0..LOADED),
                // It may have ended because the database did.
                (false, false) if self.victim.is_some() => self.load_cut_short = true,
                (false, false) => self.faults.push(format!("load ended by itself: {status}")),
            }
        }
        Ok(())
    }

    /// Looks at what is left.
    fn judge(&mut self) -> Result<(), Error> {
        self.check("check after the kill");
        self.ask_for_acknowledged()?;
        if self.load_cut_short {
            let again = self.start_load()?.wait().at("keyrink load")?;
            if !again.success() {
                self.faults.push(format!("load after the kill: {again}"));
            }
            self.check("check after the second load");
            self.acknowledged.extend(0..LOADED);
            self.ask_for_acknowledged()?;
        }
        Ok(())
    }

    fn check(&mut self, what: &str) {
        let mut command = Command::new(&self.plan.program);
        if let Err(error) = run_program(command.arg("check").args(store_arguments(&self.data)), "keyrink") {
            self.faults.push(format!("{what}: {error}"));
        }
    }

    fn ask_for_acknowledged(&mut self) -> Result<(), Error> {
        let server = Keyrink::start(&self.plan.program, &self.data)?;
        let mut client = Client::new(server.http());
        for index in &self.acknowledged {
            let sent = generate::certificate(self.keys_seed, *index);
            let answer = client.get(&format!("/pks/lookup?op=get&search=0x{}", sent.fingerprint()))?;
            let got = entries(&dearmor(&answer.text()));
            let whole = got.iter().any(|got| {
                let sent = entries(&sent.to_bytes());
                sent.iter()
                    .flat_map(|sent| &sent.bodies)
                    .all(|packet| got.bodies.contains(packet))
            });
            if !whole {
                self.faults.push(format!(
                    "certificate {index} was acknowledged; op=get says {}",
                    answer.status
                ));
            }
        }
        Ok(())
    }

    fn start_load(&self) -> Result<Child, Error> {
        start_load(
            &self.plan.program,
            &self.data,
            &self.keyring(),
            &self.folder.path().join("load.log"),
        )
    }

    fn keyring(&self) -> PathBuf {
        self.folder.path().join("keyring.pgp")
    }
}

/// Submits certificates until the connection breaks, which is when the server dies. Where nothing is noted as refused, it
/// may be.
fn submit(
    mut client: Client,
    seed: u64,
    next: &AtomicU64,
    taken: &Mutex<Vec<u64>>,
    refused: Option<&Mutex<Vec<String>>>,
) {
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        match client.add(&generate::certificate(seed, index).armored()) {
            Ok(answer) if answer.status == 200 => taken.lock().map(|mut taken| taken.push(index)).unwrap_or_default(),
            Ok(answer) => {
                let fault = format!("submission answered with {}: {}", answer.status, answer.text());
                if let Some(Ok(mut refused)) = refused.map(Mutex::lock) {
                    refused.push(fault);
                }
            }
            Err(_) => return,
        }
    }
}

/// How long a load takes when nobody kills it.
fn time_of_a_load(plan: &Plan, database: Option<&Postgres>) -> Result<Duration, Error> {
    let round = Round::new(plan, u64::MAX / 3 * 3, database)?;
    let start = Instant::now();
    let status = round.start_load()?.wait().at("keyrink load")?;
    if status.success() {
        return Ok(start.elapsed());
    }
    let output = fs::read_to_string(round.folder.path().join("load.log")).unwrap_or_default();
    Err(Error::Failed {
        command: "keyrink load".to_owned(),
        output,
    })
}

fn start_load(program: &Path, data: &Path, keyring: &Path, log: &Path) -> Result<Child, Error> {
    let file = File::create(log).at(log)?;
    let errors = file.try_clone().at(log)?;
    let mut command = Command::new(program);
    command
        .arg("load")
        .args(store_arguments(data))
        .arg(keyring)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(errors);
    command.spawn().at(program)
}

/// SplitMix64: small, and good enough to choose moments.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// A number in 0..1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
