//! PostgreSQL (Debian's `postgresql`): a cluster in a throw-away folder, as an unprivileged user.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::process::{free_port, run};
use crate::error::{At, Error};

/// A running server with the user `postgres`, no password, and the database `postgres`.
#[derive(Debug)]
pub struct Postgres {
    folder: TempDir,
    programs: PathBuf,
    port: u16,
}

impl Postgres {
    /// Makes a cluster and starts it.
    ///
    /// # Errors
    /// When PostgreSQL is missing or does not start.
    pub fn start() -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").at("/tmp")?;
        let server = Self {
            folder,
            programs: programs()?,
            port: free_port()?,
        };
        if rustix::process::geteuid().is_root() {
            // PostgreSQL refuses to run as root, and wants to own its folder.
            run(Command::new("chown").arg("postgres").arg(server.folder.path()), PACKAGE)?;
        }
        let data = server.data();
        run(
            server
                .command("initdb")
                .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "-D"])
                .arg(&data),
            PACKAGE,
        )?;
        let sockets = server.folder.path().display();
        let options = format!("-p {} -k {sockets} -h 127.0.0.1", server.port);
        let log = server.folder.path().join("log");
        let mut start = server.command("pg_ctl");
        run(
            start
                .arg("-D")
                .arg(&data)
                .arg("-l")
                .arg(log)
                .args(["-o", &options, "-w", "start"]),
            PACKAGE,
        )?;
        Ok(server)
    }

    /// What clients connect to.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
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
        let _ = run(
            self.command("pg_ctl")
                .arg("-D")
                .arg(self.data())
                .args(["-m", "immediate", "-w", "stop"]),
            PACKAGE,
        );
    }
}

const PACKAGE: &str = "postgresql";

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
