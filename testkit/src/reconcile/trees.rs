//! What the tree of a dataset costs a node: how many elements certificates have, how long a start takes that reads all of
//! them, or the sums that the server before saved, and the memory.
//!
//! One dataset at a time, each derived by a rebuild, which also throws the saved sums away.

use std::fmt::Write as _;
use std::fs::File;
use std::io::BufWriter;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::{figure, held, until};
use crate::error::{At, Error};
use crate::http::Client;
use crate::peers::{Keyrink, KeyrinkOptions, free_port, run as run_program};
use crate::{generate, machine};

/// Measures both generations over generated certificates, so many for each row, and over keyrings: a table in Markdown.
pub(super) fn table(
    program: &Path,
    sizes: &[u64],
    keyrings: &[PathBuf],
    mut log: impl FnMut(String),
) -> Result<String, Error> {
    let mut out = "\n**Trees:**\n\n| certificates | dataset | elements | of each certificate | derive all, s | start and read all of \
                   them, s | start with saved sums, s | tree, MB |\n|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    let mut measure = |title: String, files: &dyn Fn(&Path) -> Result<Vec<PathBuf>, Error>| {
        let folder = tempfile::Builder::new()
            .prefix("trees-")
            .tempdir()
            .at("temporary folder")?;
        let data = folder.path().join("data");
        let files = files(folder.path())?;
        let mut load = Command::new(program);
        run_program(load.arg("load").arg("--data").arg(&data).args(files), "keyrink")?;
        for dataset in ["openpgp/2", "sks"] {
            out.push_str(&row(program, &data, &title, dataset)?);
            log(format!("tree of {title}, {dataset}: done"));
        }
        Ok::<_, Error>(())
    };
    for &size in sizes {
        measure(format!("{size} generated"), &|folder| {
            let path = folder.join("generated.pgp");
            let mut file = BufWriter::new(File::create(&path).at(&path)?);
            generate::write(&mut file, 1, 0..size).at(&path)?;
            Ok(vec![path])
        })?;
    }
    if !keyrings.is_empty() {
        measure(format!("{} keyrings", keyrings.len()), &|_| Ok(keyrings.to_vec()))?;
    }
    Ok(out)
}

fn row(program: &Path, data: &Path, title: &str, dataset: &str) -> Result<String, Error> {
    let setting = format!("KEYRINK_PEERS_DATASETS={dataset}");
    let began = Instant::now();
    let mut rebuild = Command::new("env");
    rebuild
        .arg(&setting)
        .arg(program)
        .arg("rebuild")
        .arg("--data")
        .arg(data);
    run_program(&mut rebuild, "keyrink")?;
    let derived = began.elapsed().as_secs_f64();

    let first = start(program, data, &setting, true)?;
    // The sums are saved some time after the start.
    thread::sleep(SAVED_WITHIN);
    drop(first.server);
    let second = start(program, data, &setting, true)?;
    let certificates = held(&mut Client::new(second.server.http()))?;
    let with_tree = resident(&second.server);
    drop(second.server);
    let without = resident(&start(program, data, &setting, false)?.server);

    let (elements, read, saved) = (first.elements, first.seconds, second.seconds);
    let (each, tree) = (
        elements / certificates as f64,
        with_tree.saturating_sub(without) as f64 / 1e6,
    );
    let mut row = String::new();
    let _ = writeln!(
        row,
        "| {certificates} ({title}) | {dataset} | {elements} | {each:.2} | {derived:.1} | {read:.2} | {saved:.2} | {tree:.1} |"
    );
    Ok(row)
}

/// A server that was started.
struct Started {
    server: Keyrink,
    /// From the start of the program until it answers, or until its tree stands.
    seconds: f64,
    elements: f64,
}

/// Starts a server with a partner that is not there, so that it keeps a tree, or with none.
fn start(program: &Path, data: &Path, setting: &str, with_tree: bool) -> Result<Started, Error> {
    let own = format!("127.0.0.2:{}", free_port()?);
    let arguments = ["--recon", &own, "--partner", "recon=127.0.0.99:1"].map(str::to_owned);
    let began = Instant::now();
    let server = Keyrink::start_with(&KeyrinkOptions {
        program: program.to_owned(),
        data: data.to_owned(),
        address: Ipv4Addr::LOCALHOST,
        arguments: if with_tree { arguments.to_vec() } else { Vec::new() },
        wrapper: ["env", setting].map(str::to_owned).to_vec(),
    })?;
    let (mut client, mut elements) = (Client::new(server.http()), 0.0);
    if with_tree {
        until(|| {
            elements = figure(&mut client, "keyrink_tree_elements")?;
            Ok(elements > 0.0)
        })?;
    }
    Ok(Started {
        server,
        seconds: began.elapsed().as_secs_f64(),
        elements,
    })
}

/// Octets in memory when all is quiet.
fn resident(server: &Keyrink) -> u64 {
    thread::sleep(Duration::from_secs(2));
    machine::resident_octets(server.id())
}

const SAVED_WITHIN: Duration = Duration::from_secs(13);
