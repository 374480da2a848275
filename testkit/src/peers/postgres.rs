//! PostgreSQL (Debian's `postgresql`): a cluster in a throw-away folder, as an unprivileged user.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::process::{free_port, run};
use crate::error::{At, Error};

/// A running server with the user `postgres`, no password, and the database `postgres`.
#[derive(Debug)]
pub struct Postgres {
    folder: TempDir,
    programs: PathBuf,
    port: u16,
    settings: Vec<String>,
}

impl Postgres {
    /// Makes a cluster and starts it.
    ///
    /// # Errors
    /// When PostgreSQL is missing or does not start.
    pub fn start() -> Result<Self, Error> {
        Self::start_with(&[])
    }

    /// The same with settings such as `fsync=off`, which is safe as long as the machine does not crash.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn start_with(settings: &[&str]) -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").at("/tmp")?;
        let server = Self {
            folder,
            programs: programs()?,
            port: free_port()?,
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
        };
        if rustix::process::geteuid().is_root() {
            // PostgreSQL refuses to run as root, and wants to own its folder.
            run(Command::new("chown").arg("postgres").arg(server.folder.path()), PACKAGE)?;
        }
        run(
            server
                .command("initdb")
                .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync", "-D"])
                .arg(server.data()),
            PACKAGE,
        )?;
        server.start_again()?;
        Ok(server)
    }

    /// What clients connect to.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// What clients of one of its databases connect to.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes an empty database; what clients of it connect to.
    ///
    /// # Errors
    /// When it is there already.
    pub fn create(&self, database: &str) -> Result<String, Error> {
        self.ask("postgres", &format!("CREATE DATABASE {database}"))?;
        Ok(self.url_of(database))
    }

    /// What `psql` says to some SQL, bare: columns divided by `|`.
    ///
    /// # Errors
    /// When the SQL is refused.
    pub fn ask(&self, database: &str, sql: &str) -> Result<String, Error> {
        let url = self.url_of(database);
        let output = run(self.client("psql").args([&url, "-XAtqc", sql]), PACKAGE)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// One of its client programs, such as `pg_dump`, to be given the URL.
    pub fn client(&self, program: &str) -> Command {
        Command::new(self.programs.join(program))
    }

    /// Starts it after it was stopped or killed.
    ///
    /// # Errors
    /// When it does not start within half a minute.
    pub fn start_again(&self) -> Result<(), Error> {
        let settings: String = self.settings.iter().map(|setting| format!(" -c {setting}")).collect();
        let sockets = self.folder.path().display();
        let options = format!("-p {} -k {sockets} -h 127.0.0.1{settings}", self.port);
        let log = self.folder.path().join("log");
        let deadline = Instant::now() + START_WITHIN;
        loop {
            let mut start = self.command("pg_ctl");
            start.arg("-D").arg(self.data()).arg("-l").arg(&log);
            match run(start.args(["-o", &options, "-w", "start"]), PACKAGE) {
                // What a killed server left behind takes a moment to go.
                Err(Error::Failed { .. }) if Instant::now() < deadline => thread::sleep(Duration::from_millis(100)),
                other => return other.map(drop),
            }
        }
    }

    /// Stops it: `fast` breaks connections in an orderly way, `immediate` as a crash of the database does.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop(&self, mode: &str) -> Result<(), Error> {
        let mut stop = self.command("pg_ctl");
        stop.arg("-D").arg(self.data()).args(["-m", mode, "-w", "stop"]);
        run(&mut stop, PACKAGE).map(drop)
    }

    /// Ends all its processes at once with SIGKILL.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Lets all its processes stand still, so that it accepts connections and never answers.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Processor time that all its processes have taken so far, in seconds, those of sessions that have ended included.
    pub fn cpu_seconds(&self) -> f64 {
        let processes = self.processes();
        let ended = processes
            .first()
            .and_then(|first| super::process::ended_cpu_seconds(*first));
        let running = processes.into_iter().filter_map(super::process::cpu_seconds);
        running.chain(ended).sum()
    }

    fn signal(&self, signal: Signal) {
        for id in self.processes() {
            if let Some(id) = Pid::from_raw(id) {
                let _ = kill_process(id, signal);
            }
        }
    }

    /// Its processes, the one that starts the others first.
    fn processes(&self) -> Vec<i32> {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let Some(first) = file.lines().next().and_then(|line| line.trim().parse().ok()) else {
            return Vec::new();
        };
        let mut found = vec![first];
        found.extend(super::process::children(first));
        found
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        if rustix::process::geteuid().is_root() {
            let mut command = Command::new("runuser");
            command
                .args(["-u", "postgres", "--"])
                .arg(program)
                .current_dir(self.folder.path());
            command
        } else {
            Command::new(program)
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.thaw();
        // It may have been stopped already.
        let _ = self.stop("immediate");
    }
}

const PACKAGE: &str = "postgresql";
const START_WITHIN: Duration = Duration::from_secs(30);

/// The folder of the newest version installed.
fn programs() -> Result<PathBuf, Error> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let folders = versions
        .map(|entry| entry.path())
        .filter(|path| path.join("bin/initdb").exists());
    let newest = folders.max_by_key(|path| version(path));
    let missing = || Error::Missing {
        program: "initdb".to_owned(),
        package: PACKAGE,
    };
    newest.map(|path| path.join("bin")).ok_or_else(missing)
}
