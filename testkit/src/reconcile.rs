//! How fast two nodes become equal, and what it costs them: two Keyrinks in each generation of the protocol, and two SKS
//! beside them.
//!
//! Both nodes hold the same small certificates and some that the other lacks. The clock runs from the moment at which
//! both are up until both hold all. Nothing is held back for the purpose: the nodes call each other as they always do.

mod trees;

use std::fmt::Write as _;
use std::fs::File;
use std::io::BufWriter;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::error::{At, Error};
use crate::http::Client;
use crate::load::{self, Work};
use crate::peers::{Keyrink, KeyrinkOptions, Sks, SksOptions, free_port, run as run_program};
use crate::{generate, machine};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `keyrink` program.
    pub keyrink: PathBuf,
    /// Certificates that both hold.
    pub base: u64,
    /// Certificates that each side lacks; one measurement for each number.
    pub differences: Vec<u64>,
    /// Measure two SKS too.
    pub sks: bool,
    /// Sizes of stores for the measurement of growth, with 1 000 differences on each side.
    pub sizes: Vec<u64>,
    /// Generated certificates to measure trees of; one measurement for each number.
    pub trees: Vec<u64>,
    /// Keyrings to measure the trees of, together.
    pub keyrings: Vec<PathBuf>,
}

/// What one measurement came to.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    seconds: f64,
    /// Of both nodes.
    cpu: f64,
    /// Octets of the sessions.
    octets: Option<u64>,
    /// Octets of the answers to requests for certificates, of both.
    fetched: Option<u64>,
    /// Requests for certificates, of both.
    requests: u64,
    /// Resident memory of the larger one, in octets.
    memory: u64,
    /// From the start of the second node to its first session.
    first_session: f64,
}

/// Measures, telling `log` about each step; the finished tables in Markdown.
///
/// # Errors
/// When a program is missing or fails, or two nodes do not become equal.
pub fn run(plan: &Plan, mut log: impl FnMut(String)) -> Result<String, Error> {
    let mut out = format!("{}\n", machine::description());
    if !plan.differences.is_empty() {
        let _ = writeln!(
            out,
            "\n**{} certificates on both sides, and so many more on each:**\n",
            plan.base
        );
        out.push_str(
            "| | differences on each side | s until equal | CPU s of both | octets a difference | requests | kB fetched |\n",
        );
        out.push_str("|---|---|---|---|---|---|---|\n");
    }
    for &differences in &plan.differences {
        for (name, dataset) in [("Keyrink, second generation", "openpgp/2"), ("Keyrink, first", "sks")] {
            let data = Stores::new(plan, plan.base, differences)?;
            line(
                &mut out,
                name,
                differences,
                &between_keyrinks(plan, &data, dataset, differences)?,
            );
            log(format!("two Keyrinks, {dataset}, {differences}: done"));
        }
        if plan.sks {
            let data = Stores::new(plan, plan.base, differences)?;
            line(&mut out, "SKS", differences, &between_sks(&data, differences)?);
            log(format!("two SKS, {differences}: done"));
        }
    }
    if !plan.sizes.is_empty() {
        out.push_str(
            "\n**Growth, 1000 differences on each side:**\n\n| certificates | load, s | disk, MB | op=get, req/s | ",
        );
        out.push_str(
            "start to first session, s | s until equal | CPU s of both | memory, MB | of that for the tree, MB |\n",
        );
        out.push_str("|---|---|---|---|---|---|---|---|---|\n");
    }
    for &size in &plan.sizes {
        out.push_str(&growth(plan, size)?);
        log(format!("{size} certificates: done"));
    }
    if !plan.trees.is_empty() || !plan.keyrings.is_empty() {
        out.push_str(&trees::table(&plan.keyrink, &plan.trees, &plan.keyrings, log)?);
    }
    Ok(out)
}

fn line(out: &mut String, name: &str, differences: u64, cost: &Cost) {
    let told = |octets: Option<u64>, unit: f64| {
        octets.map_or_else(|| "-".to_owned(), |octets| format!("{:.0}", octets as f64 / unit))
    };
    let (octets, fetched) = (told(cost.octets, (2 * differences) as f64), told(cost.fetched, 1000.0));
    let Cost {
        seconds, cpu, requests, ..
    } = cost;
    let _ = writeln!(
        out,
        "| {name} | {differences} | {seconds:.2} | {cpu:.2} | {octets} | {requests} | {fetched} |"
    );
}

/// Two stores and the keyrings that they were made of.
struct Stores {
    folder: TempDir,
    /// Of the base.
    load: Duration,
    total: u64,
}

impl Stores {
    fn new(plan: &Plan, base: u64, differences: u64) -> Result<Self, Error> {
        let folder = tempfile::Builder::new()
            .prefix("reconcile-")
            .tempdir()
            .at("temporary folder")?;
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, indices: std::ops::Range<u64>| {
            let mut file = BufWriter::new(File::create(path(name)).at(path(name))?);
            generate::write(&mut file, 1, indices).at(path(name))
        };
        write("base.pgp", 0..base)?;
        write("0.pgp", base..base + differences)?;
        write("1.pgp", base + differences..base + 2 * differences)?;
        let load = |data: &str, file: &str| {
            let mut command = Command::new(&plan.keyrink);
            run_program(
                command.arg("load").arg("--data").arg(path(data)).arg(path(file)),
                "keyrink",
            )
        };
        let start = Instant::now();
        load("data0", "base.pgp")?;
        let time = start.elapsed();
        run_program(
            Command::new("cp").arg("-r").arg(path("data0")).arg(path("data1")),
            "coreutils",
        )?;
        load("data0", "0.pgp")?;
        load("data1", "1.pgp")?;
        Ok(Self {
            load: time,
            total: base + 2 * differences,
            folder,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn between_keyrinks(plan: &Plan, stores: &Stores, dataset: &str, differences: u64) -> Result<Cost, Error> {
    let addresses = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)];
    let ports = [free_port()?, free_port()?];
    let node = |at: usize| {
        let other = 1 - at;
        let own = format!("{}:{}", addresses[at], ports[at]);
        let partner = format!(
            "recon={}:{},name=other,dataset={dataset}",
            addresses[other], ports[other]
        );
        Keyrink::start_with(&KeyrinkOptions {
            program: plan.keyrink.clone(),
            data: stores.path(&format!("data{at}")),
            address: addresses[at],
            arguments: ["--recon", &own, "--partner", &partner].map(str::to_owned).to_vec(),
            wrapper: Vec::new(),
        })
    };
    let first = node(0)?;
    let started = Instant::now();
    let second = node(1)?;
    let begin = Instant::now();
    let mut clients = [Client::new(first.http()), Client::new(second.http())];
    let mut cost = Cost::default();
    until(|| {
        if cost.first_session == 0.0 && figure(&mut clients[1], "keyrink_peer_sessions_total")? > 0.0 {
            cost.first_session = started.elapsed().as_secs_f64();
        }
        let held = clients.each_mut().map(held);
        Ok(held.into_iter().all(|held| held.is_ok_and(|held| held == stores.total)))
    })?;
    cost.seconds = begin.elapsed().as_secs_f64();
    cost.cpu = [first.id(), second.id()]
        .map(machine::cpu_time)
        .iter()
        .map(Duration::as_secs_f64)
        .sum();
    cost.memory = machine::resident_octets(first.id()).max(machine::resident_octets(second.id()));
    // Reports are written every second.
    thread::sleep(Duration::from_secs(2));
    let reports = [0, 1].map(|at| report(plan, &stores.path(&format!("data{at}"))));
    for report in reports {
        let report = report?;
        let number = |key: &str| report[0][key].as_u64().unwrap_or(0);
        cost.requests += number("requests");
        cost.fetched = Some(cost.fetched.unwrap_or_default() + number("fetched_octets"));
        cost.octets = cost.octets.or(Some(number("received") + number("sent")));
    }
    drop((first, second));
    judge(plan, stores, differences)?;
    Ok(cost)
}

/// Both stores must agree with themselves and with each other.
fn judge(plan: &Plan, stores: &Stores, differences: u64) -> Result<(), Error> {
    let check = |at: usize| {
        let mut command = Command::new(&plan.keyrink);
        let data = stores.path(&format!("data{at}"));
        let output = run_program(command.arg("check").arg("--data").arg(data), "keyrink")?;
        Ok::<_, Error>(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    match check(0)? == check(1)? {
        true => Ok(()),
        false => Err(Error::Answer(format!(
            "the nodes differ after {differences} differences"
        ))),
    }
}

fn between_sks(stores: &Stores, differences: u64) -> Result<Cost, Error> {
    let build = |own: &str| {
        Sks::build(SksOptions {
            keyrings: vec![stores.path("base.pgp"), stores.path(own)],
            both_filters: true,
            ..SksOptions::default()
        })
    };
    let mut both = [build("0.pgp")?, build("1.pgp")?];
    let ports = both.each_ref().map(Sks::recon_port);
    for (at, sks) in both.iter_mut().enumerate() {
        sks.set_membership(vec![("127.0.0.1".to_owned(), ports[1 - at])])?;
        sks.start_db()?;
    }
    for sks in &mut both {
        sks.start_recon()?;
    }
    let begin = Instant::now();
    until(|| Ok(both.iter().all(|sks| added(sks) >= differences)))?;
    let requests = both
        .iter()
        .map(|sks| sks.log("recon").matches("Requesting ").count() as u64);
    let ids = both.iter().flat_map(|sks| [sks.db_id(), sks.recon_id()]).flatten();
    Ok(Cost {
        seconds: begin.elapsed().as_secs_f64(),
        cpu: ids.map(|id| machine::cpu_time(id).as_secs_f64()).sum(),
        requests: requests.sum(),
        ..Cost::default()
    })
}

/// How many certificates have come into the tree of an SKS since it started.
fn added(sks: &Sks) -> u64 {
    let log = sks.log("recon");
    let counts = log.split("Added ").skip(1).filter(|rest| rest.contains("hash-updates"));
    counts
        .filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

fn growth(plan: &Plan, size: u64) -> Result<String, Error> {
    let stores = Stores::new(plan, size, 1000)?;
    let disk = machine::disk_octets(&stores.path("data0"));
    let alone = Keyrink::start(&plan.keyrink, &stores.path("data0"))?;
    let step = (size / 2000).max(1);
    let targets = (0..size).step_by(step as usize);
    let targets = targets.map(|at| {
        format!(
            "/pks/lookup?op=get&search=0x{}",
            generate::certificate(1, at).fingerprint()
        )
    });
    let served = load::run(alone.http(), 16, Duration::from_secs(3), &Work::get(targets))?;
    drop(alone);
    let alone = Keyrink::start(&plan.keyrink, &stores.path("data0"))?;
    let _ = Client::new(alone.http()).get("/pks/stats")?;
    thread::sleep(Duration::from_secs(2));
    let idle = machine::resident_octets(alone.id());
    drop(alone);
    let tree = memory_with_tree(plan, &stores)?.saturating_sub(idle);
    let cost = between_keyrinks(plan, &stores, "openpgp/2", 1000)?;
    let megabytes = |octets: u64| octets as f64 / 1e6;
    let Cost {
        seconds,
        cpu,
        memory,
        first_session,
        ..
    } = cost;
    let (load, rate) = (stores.load.as_secs_f64(), served.per_second());
    Ok(format!(
        "| {size} | {load:.1} | {:.0} | {rate:.0} | {first_session:.2} | {seconds:.2} | {cpu:.2} | {:.0} | {:.1} |\n",
        megabytes(disk),
        megabytes(memory),
        megabytes(tree)
    ))
}

/// Resident memory of a server that keeps a tree and has met nobody.
fn memory_with_tree(plan: &Plan, stores: &Stores) -> Result<u64, Error> {
    let own = format!("127.0.0.2:{}", free_port()?);
    let server = Keyrink::start_with(&KeyrinkOptions {
        program: plan.keyrink.clone(),
        data: stores.path("data0"),
        address: Ipv4Addr::LOCALHOST,
        arguments: ["--recon", &own, "--partner", "recon=127.0.0.99:1"]
            .map(str::to_owned)
            .to_vec(),
        wrapper: Vec::new(),
    })?;
    let mut client = Client::new(server.http());
    until(|| Ok(figure(&mut client, "keyrink_tree_elements")? > 0.0))?;
    thread::sleep(Duration::from_secs(2));
    Ok(machine::resident_octets(server.id()))
}

fn held(client: &mut Client) -> Result<u64, Error> {
    let answer = client.get("/pks/stats?options=json")?;
    let stats: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    stats["total"].as_u64().ok_or_else(|| Error::Answer(answer.text()))
}

fn figure(client: &mut Client, name: &str) -> Result<f64, Error> {
    let text = client.get("/metrics")?.text();
    let lines = text.lines().filter(|line| line.starts_with(name));
    Ok(lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum())
}

fn report(plan: &Plan, data: &Path) -> Result<Value, Error> {
    let mut command = Command::new(&plan.keyrink);
    let output = run_program(command.arg("peers").arg("--data").arg(data).arg("--json"), "keyrink")?;
    Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
}

fn until(mut done: impl FnMut() -> Result<bool, Error>) -> Result<(), Error> {
    let deadline = Instant::now() + WITHIN;
    while !done()? {
        if Instant::now() > deadline {
            return Err(Error::Answer("the nodes did not become equal".to_owned()));
        }
        thread::sleep(POLL);
    }
    Ok(())
}

const WITHIN: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(20);
