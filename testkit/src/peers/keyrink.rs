//! Keyrink itself, as a process like any other peer.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use rustix::process::Signal;
use tempfile::NamedTempFile;

use super::process::{Process, free_port};
use crate::error::{At, Error};
use crate::http::Client;

/// How to start `keyrink serve`.
#[derive(Clone, Debug)]
pub struct KeyrinkOptions {
    /// The program: `env!("CARGO_BIN_EXE_keyrink")` in tests of its crate.
    pub program: PathBuf,
    /// The folder of the embedded store, or the URL of a PostgreSQL database; it outlives the process.
    pub data: PathBuf,
    /// Where it answers HTTP, on a free port; other addresses of the loopback network keep nodes apart.
    pub address: Ipv4Addr,
    /// Further arguments of `serve`.
    pub arguments: Vec<String>,
    /// What to put before the command line, such as `taskset -c 0`.
    pub wrapper: Vec<String>,
}

/// A running `keyrink serve` on a free port, killed when dropped.
#[derive(Debug)]
pub struct Keyrink {
    process: Process,
    http: SocketAddr,
    log: NamedTempFile,
}

/// How a command of `keyrink` is told where its store is: a folder, or the URL of a PostgreSQL database.
pub fn store_arguments(store: &Path) -> [&OsStr; 2] {
    let option = match store.starts_with("postgres:") {
        true => "--database",
        false => "--data",
    };
    [OsStr::new(option), store.as_os_str()]
}

impl Keyrink {
    /// Starts `program` on the store in `data` and waits until `/readyz` says yes.
    ///
    /// # Errors
    /// When it does not become ready; the error holds the end of its log.
    pub fn start(program: &Path, data: &Path) -> Result<Self, Error> {
        let (program, data) = (program.to_owned(), data.to_owned());
        Self::start_with(&KeyrinkOptions {
            program,
            data,
            address: Ipv4Addr::LOCALHOST,
            arguments: Vec::new(),
            wrapper: Vec::new(),
        })
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`Keyrink::start`].
    pub fn start_with(options: &KeyrinkOptions) -> Result<Self, Error> {
        let http = SocketAddr::from((options.address, free_port()?));
        let mut words = options
            .wrapper
            .iter()
            .map(AsRef::as_ref)
            .chain([options.program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg("serve").args(store_arguments(&options.data));
        command.args(["--http", &http.to_string()]).args(&options.arguments);
        let log = NamedTempFile::new().at("temporary file")?;
        let mut process = Process::spawn(command, "keyrink", log.path())?;
        process.wait_until(|| {
            Client::new(http)
                .get("/readyz")
                .is_ok_and(|answer| answer.status == 200)
        })?;
        Ok(Self { process, http, log })
    }

    /// Where it answers HTTP.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills it as a power failure would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Lets it stand still.
    pub fn freeze(&mut self) {
        self.process.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&mut self) {
        self.process.signal(Signal::CONT);
    }

    /// Sends TERM and waits; its status if it ended within ten seconds.
    pub fn terminate(&mut self) -> Option<ExitStatus> {
        self.process.terminate()
    }

    /// All that it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    /// The end of what it logged.
    pub fn log_end(&self) -> String {
        self.process.log_end()
    }
}
