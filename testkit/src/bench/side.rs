//! The two programs that are compared, behind one face.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::SERVER_CORE;
use crate::error::{At, Error};
use crate::peers::{Keyrink, KeyrinkOptions, Sks, SksOptions, run};

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum SideName {
    Sks,
    Keyrink,
}

impl fmt::Display for SideName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Sks => "SKS",
            Self::Keyrink => "Keyrink",
        })
    }
}

/// A running server.
pub(super) struct Running {
    pub(super) http: SocketAddr,
    pub(super) id: u32,
}

/// A keyserver to measure.
pub(super) trait Side {
    /// Fills a new store from `files` on all cores; the time from the first command to the end of the last.
    fn load(&mut self, files: &[PathBuf]) -> Result<Duration, Error>;
    /// The folder of the store loaded last.
    fn storage(&self) -> PathBuf;
    /// Starts the server on its core, ready to answer.
    fn start(&mut self) -> Result<Running, Error>;
    fn stop(&mut self);
}

/// `sks build` and `sks pbuild`, then `sks db`.
#[derive(Default)]
pub(super) struct SksSide(Option<Sks>);

impl Side for SksSide {
    fn load(&mut self, files: &[PathBuf]) -> Result<Duration, Error> {
        self.0 = None;
        let start = Instant::now();
        let options = SksOptions {
            keyrings: files.to_vec(),
            wrapper: wrapper(),
            ..SksOptions::default()
        };
        self.0 = Some(Sks::build(options)?);
        Ok(start.elapsed())
    }

    fn storage(&self) -> PathBuf {
        self.0.as_ref().map(Sks::storage).unwrap_or_default()
    }

    fn start(&mut self) -> Result<Running, Error> {
        let sks = self.0.as_mut().ok_or_else(not_loaded)?;
        sks.start_db()?;
        Ok(Running {
            http: sks.http(),
            id: sks.db_id().unwrap_or_default(),
        })
    }

    fn stop(&mut self) {
        self.0 = None;
    }
}

/// `keyrink load`, then `keyrink serve`.
pub(super) struct KeyrinkSide {
    program: PathBuf,
    data: TempDir,
    server: Option<Keyrink>,
}

impl KeyrinkSide {
    pub(super) fn new(program: &Path) -> Result<Self, Error> {
        Ok(Self {
            program: program.to_owned(),
            data: empty_folder()?,
            server: None,
        })
    }
}

impl Side for KeyrinkSide {
    fn load(&mut self, files: &[PathBuf]) -> Result<Duration, Error> {
        self.server = None;
        self.data = empty_folder()?;
        let start = Instant::now();
        let mut command = Command::new(&self.program);
        run(
            command.arg("load").arg("--data").arg(self.data.path()).args(files),
            "keyrink",
        )?;
        Ok(start.elapsed())
    }

    fn storage(&self) -> PathBuf {
        self.data.path().to_owned()
    }

    fn start(&mut self) -> Result<Running, Error> {
        let (program, data) = (self.program.clone(), self.data.path().to_owned());
        let options = KeyrinkOptions {
            program,
            data,
            address: Ipv4Addr::LOCALHOST,
            arguments: Vec::new(),
            wrapper: wrapper(),
        };
        let server = self.server.insert(Keyrink::start_with(&options)?);
        Ok(Running {
            http: server.http(),
            id: server.id(),
        })
    }

    fn stop(&mut self) {
        self.server = None;
    }
}

fn wrapper() -> Vec<String> {
    ["taskset", "-c", &SERVER_CORE.to_string()].map(str::to_owned).to_vec()
}

fn empty_folder() -> Result<TempDir, Error> {
    tempfile::Builder::new()
        .prefix("bench-data-")
        .tempdir()
        .at("temporary folder")
}

fn not_loaded() -> Error {
    Error::Answer("nothing was loaded".to_owned())
}
