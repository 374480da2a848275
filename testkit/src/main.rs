//! `keyrink-testkit`: test certificates, load, crashes, and the comparison with SKS.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use keyrink_testkit::load::{self, Work};
use keyrink_testkit::{Error, abuse, bench, crash, engines, generate, keyring, machine, reconcile, shared};

#[derive(Parser)]
#[command(about = "Test certificates and load for Keyrink")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write small Ed25519 certificates to standard output
    Generate(Generate),
    /// Send GET requests for the targets in a file, over and over
    Get(Get),
    /// Submit the certificates of a keyring, one a request
    Submit(Submit),
    /// Kill keyrink at random moments and look at what is left
    Crash(Crash),
    /// Measure keyrink beside SKS
    Bench(Bench),
    /// Measure keyrink on PostgreSQL beside itself on the embedded store
    Engines(Engines),
    /// Measure how two nodes become equal
    Reconcile(Reconcile),
    /// Attack keyrink and see how it fares
    Abuse(Abuse),
    /// Kill servers that share a database, and the database, and look at what is left
    Shared(Shared),
}

#[derive(Args)]
struct Generate {
    /// How many
    #[arg(long, default_value_t = 50_000)]
    count: u64,
    /// The number of the first one
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Another seed gives other keys
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Args)]
struct Target {
    /// Address of the server, such as 127.0.0.1:11371
    #[arg(long)]
    server: SocketAddr,
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// End after so many seconds
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Core to stay on
    #[arg(long)]
    core: Option<usize>,
}

#[derive(Args)]
struct Get {
    #[command(flatten)]
    target: Target,
    /// Request targets such as `/pks/lookup?op=get&search=0x…`, one a line
    targets: PathBuf,
}

#[derive(Args)]
struct Submit {
    #[command(flatten)]
    target: Target,
    /// A binary keyring
    keyring: PathBuf,
}

#[derive(Args)]
struct Crash {
    /// The program
    #[arg(long)]
    keyrink: PathBuf,
    #[arg(long, default_value_t = 100)]
    rounds: u64,
    /// The number of the first round, to repeat one that failed
    #[arg(long, default_value_t = 0)]
    first: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the store in PostgreSQL, and kill that too
    #[arg(long)]
    postgres: bool,
}

#[derive(Args)]
struct Bench {
    /// The program; not needed with `--only sks`
    #[arg(long, default_value = "keyrink")]
    keyrink: PathBuf,
    /// Measure one side alone
    #[arg(long)]
    only: Option<Side>,
    /// Size of the synthetic corpus
    #[arg(long, default_value_t = 50_000)]
    synthetic: u64,
    /// Loads of each corpus
    #[arg(long, default_value_t = 3)]
    loads: usize,
    /// Length of each measurement over HTTP
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Binary keyrings of the real corpus
    keyrings: Vec<PathBuf>,
}

#[derive(Args)]
struct Reconcile {
    /// The program
    #[arg(long, default_value = "keyrink")]
    keyrink: PathBuf,
    /// Certificates that both hold
    #[arg(long, default_value_t = 20_000)]
    base: u64,
    /// Certificates that each side lacks; may be given several times
    #[arg(long)]
    differences: Vec<u64>,
    /// Leave SKS out
    #[arg(long)]
    no_sks: bool,
    /// Size of a store for the measurement of growth; may be given several times
    #[arg(long)]
    size: Vec<u64>,
    /// Generated certificates to measure the trees of; may be given several times
    #[arg(long)]
    tree: Vec<u64>,
    /// Keyrings to measure the trees of, together
    #[arg(long, num_args = 1..)]
    keyring: Vec<PathBuf>,
}

#[derive(Args)]
struct Abuse {
    /// The program
    #[arg(long, default_value = "keyrink")]
    keyrink: PathBuf,
    /// Only this; may be given several times
    #[arg(long)]
    only: Vec<Trial>,
    /// As little as the tests do
    #[arg(long)]
    short: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Trial {
    Poison,
    Bodies,
    Costly,
    Idle,
}

impl From<Trial> for abuse::Trial {
    fn from(trial: Trial) -> Self {
        match trial {
            Trial::Poison => Self::Poison,
            Trial::Bodies => Self::Bodies,
            Trial::Costly => Self::Costly,
            Trial::Idle => Self::Idle,
        }
    }
}

#[derive(Args)]
struct Engines {
    /// The program
    #[arg(long)]
    keyrink: PathBuf,
    /// Small certificates of the first corpus, which is served and to which more is submitted
    #[arg(long, default_value_t = 50_000)]
    synthetic: u64,
    /// Small certificates of the second, which is only loaded
    #[arg(long, default_value_t = 200_000)]
    large: u64,
    /// Elements of the tree with which a server starts
    #[arg(long, default_value_t = 1_000_000)]
    elements: u64,
    /// Length of each measurement over HTTP
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Binary keyrings of the real corpus
    keyrings: Vec<PathBuf>,
}

#[derive(Args)]
struct Shared {
    /// The program
    #[arg(long)]
    keyrink: PathBuf,
    /// How long writers write before anything is killed
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// How often servers are killed, and how often the database is
    #[arg(long, default_value_t = 50)]
    kills: u64,
    /// How often the server that calls a partner is killed
    #[arg(long, default_value_t = 20)]
    leases: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Side {
    Sks,
    Keyrink,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("keyrink-testkit: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Generate(options) => write_certificates(&options)?,
        Command::Get(options) => {
            let targets = read(&options.targets)?;
            let targets = String::from_utf8_lossy(&targets)
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>();
            send(&options.target, &Work::get(targets))?;
        }
        Command::Submit(options) => {
            let entries = keyring::entries(&read(&options.keyring)?);
            send(
                &options.target,
                &Work::submit(entries.into_iter().map(|entry| entry.octets)),
            )?;
        }
        Command::Crash(options) => return run_crash(options),
        Command::Abuse(options) => return run_abuse(&options),
        Command::Shared(options) => return run_shared(options),
        Command::Bench(options) => {
            let plan = bench::Plan {
                keyrings: options.keyrings,
                synthetic: options.synthetic,
                keyrink: options.keyrink,
                sides: match options.only {
                    Some(Side::Sks) => vec![bench::SideName::Sks],
                    Some(Side::Keyrink) => vec![bench::SideName::Keyrink],
                    None => vec![bench::SideName::Sks, bench::SideName::Keyrink],
                },
                loads: options.loads,
                duration: Duration::from_secs_f64(options.seconds),
            };
            print!("{}", bench::run(&plan, |line| eprintln!("{line}"))?);
        }
        Command::Engines(options) => {
            let plan = engines::Plan {
                program: options.keyrink,
                keyrings: options.keyrings,
                synthetic: options.synthetic,
                large: options.large,
                elements: options.elements,
                duration: Duration::from_secs_f64(options.seconds),
            };
            print!("{}", engines::run(&plan, |line| eprintln!("{line}"))?);
        }
        Command::Reconcile(options) => {
            let plan = reconcile::Plan {
                keyrink: options.keyrink,
                base: options.base,
                differences: options.differences,
                sks: !options.no_sks,
                sizes: options.size,
                trees: options.tree,
                keyrings: options.keyring,
            };
            print!("{}", reconcile::run(&plan, |line| eprintln!("{line}"))?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write_certificates(options: &Generate) -> Result<(), Error> {
    let mut out = BufWriter::new(io::stdout().lock());
    generate::write(&mut out, options.seed, options.first..options.first + options.count)
        .and_then(|()| out.flush())
        .map_err(|source| Error::Io {
            place: "standard output".to_owned(),
            source,
        })
}

fn send(target: &Target, work: &Work) -> Result<(), Error> {
    if let Some(core) = target.core {
        machine::pin_to_core(core);
    }
    let duration = Duration::from_secs_f64(target.seconds);
    println!("{}", load::run(target.server, target.connections, duration, work)?);
    Ok(())
}

fn run_crash(options: Crash) -> Result<ExitCode, Error> {
    let plan = crash::Plan {
        program: options.keyrink,
        first: options.first,
        rounds: options.rounds,
        seed: options.seed,
        postgres: options.postgres,
    };
    let summary = crash::run(&plan, |summary| {
        if summary.rounds.is_multiple_of(10) {
            eprintln!("{} rounds, {} faults", summary.rounds, summary.faults.len());
        }
    })?;
    print!("{summary}");
    Ok(ExitCode::from(u8::from(!summary.faults.is_empty())))
}

fn run_abuse(options: &Abuse) -> Result<ExitCode, Error> {
    let plan = match options.short {
        true => abuse::Plan::short(options.keyrink.clone()),
        false => abuse::Plan::full(options.keyrink.clone()),
    };
    let trials = match options.only.as_slice() {
        [] => abuse::Trial::ALL.to_vec(),
        some => some.iter().map(|trial| (*trial).into()).collect(),
    };
    println!("{}\n\n| | | must be | |\n|---|---|---|---|", machine::description());
    let mut all_hold = true;
    for trial in trials {
        for finding in trial.run(&plan, &mut |line| eprintln!("{line}"))? {
            println!("{finding}");
            all_hold &= finding.holds;
        }
    }
    Ok(ExitCode::from(u8::from(!all_hold)))
}

fn run_shared(options: Shared) -> Result<ExitCode, Error> {
    let plan = shared::Plan {
        program: options.keyrink,
        duration: Duration::from_secs_f64(options.seconds),
        kills: options.kills,
        leases: options.leases,
        seed: options.seed,
    };
    let summary = shared::run(&plan, |step| eprintln!("{step}"))?;
    print!("{summary}");
    Ok(ExitCode::from(u8::from(!summary.faults.is_empty())))
}

fn read(path: &PathBuf) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Io {
        place: path.display().to_string(),
        source,
    })
}
