//! Sequoia's command line (Debian's `sq`, 0.27).

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use super::process::run;
use crate::error::{At, Error};

/// `sq` with a home of its own.
#[derive(Debug)]
pub struct Sq {
    home: TempDir,
}

impl Sq {
    /// Makes the empty home.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            home: tempfile::tempdir().at("temporary folder")?,
        })
    }

    /// The certificates that the keyserver has for `query`: a fingerprint, key id or mail address.
    ///
    /// # Errors
    /// When `sq` is missing or finds nothing.
    pub fn get(&self, server: SocketAddr, query: &str) -> Result<Vec<u8>, Error> {
        Ok(run(self.keyserver(server).args(["get", "--binary", query]), PACKAGE)?.stdout)
    }

    /// Sends `octets`, one or more certificates.
    ///
    /// # Errors
    /// When `sq` is missing or the keyserver refuses.
    pub fn send(&self, server: SocketAddr, octets: &[u8]) -> Result<(), Error> {
        let path = self.home.path().join("send.pgp");
        fs::write(&path, octets).at(&path)?;
        run(self.keyserver(server).arg("send").arg(&path), PACKAGE).map(drop)
    }

    /// What `sq inspect --certifications` says about `octets`: its judgement of every signature.
    ///
    /// # Errors
    /// When `sq` is missing or cannot read them.
    pub fn inspect(&self, octets: &[u8]) -> Result<String, Error> {
        let path = self.home.path().join("inspect.pgp");
        fs::write(&path, octets).at(&path)?;
        let output = run(self.command().args(["inspect", "--certifications"]).arg(&path), PACKAGE)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn keyserver(&self, server: SocketAddr) -> Command {
        let mut command = self.command();
        command.args(["keyserver", "-p", "insecure", "-s", &format!("hkp://{server}")]);
        command
    }

    fn command(&self) -> Command {
        let mut command = Command::new("sq");
        command
            .env("HOME", self.home.path())
            .env("XDG_DATA_HOME", self.home.path());
        command
    }
}

const PACKAGE: &str = "sq";
