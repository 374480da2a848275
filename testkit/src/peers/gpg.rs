//! GnuPG (Debian's `gnupg`) with a home of its own.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use super::process::run;
use crate::error::{At, Error};

/// A keyring and the daemons of its own; all end with the drop.
#[derive(Debug)]
pub struct Gpg {
    home: TempDir,
}

impl Gpg {
    /// An empty keyring.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new() -> Result<Self, Error> {
        // The short name leaves room for the sockets of the daemons, whose paths have 108 octets at most.
        let home = tempfile::Builder::new().prefix("gpg").tempdir_in("/tmp").at("/tmp")?;
        fs::set_permissions(home.path(), Permissions::from_mode(0o700)).at(home.path())?;
        Ok(Self { home })
    }

    /// Runs `gpg` with `arguments` and without questions; what it wrote, if it succeeded.
    ///
    /// # Errors
    /// When it is missing or ends with a failure.
    pub fn run(&self, arguments: &[&str]) -> Result<Output, Error> {
        let mut command = Command::new("gpg");
        command.args([
            "--batch",
            "--no-tty",
            "--no-auto-check-trustdb",
            "--display-charset",
            "utf-8",
        ]);
        run(command.args(arguments).envs(self.environment()), PACKAGE)
    }

    /// Runs `gpg` with `arguments` against the keyserver at `server`.
    ///
    /// # Errors
    /// When it is missing or ends with a failure. Call [`Gpg::forget_failures`] before another try.
    pub fn with_keyserver(&self, server: SocketAddr, arguments: &[&str]) -> Result<Output, Error> {
        let server = format!("hkp://{server}");
        self.run(&[&["--keyserver", server.as_str()], arguments].concat())
    }

    /// Imports `octets`; what GnuPG said about them.
    ///
    /// # Errors
    /// When it complains.
    pub fn import(&self, octets: &[u8]) -> Result<String, Error> {
        let path = self.home.path().join("import.pgp");
        fs::write(&path, octets).at(&path)?;
        let output = self.run(&["--import", &path.display().to_string()])?;
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Fingerprints of the primary keys held, in upper-case digits, in GnuPG's order.
    ///
    /// # Errors
    /// When `gpg` fails.
    pub fn fingerprints(&self) -> Result<Vec<String>, Error> {
        let listing = self.run(&["--with-colons", "--list-keys"])?;
        let text = String::from_utf8_lossy(&listing.stdout).into_owned();
        let mut primary = false;
        let mut fingerprints = Vec::new();
        for line in text.lines() {
            match line.split(':').next() {
                Some("pub") => primary = true,
                Some("fpr") if primary => {
                    fingerprints.extend(line.split(':').nth(9).map(str::to_owned));
                    primary = false;
                }
                _ => {}
            }
        }
        Ok(fingerprints)
    }

    /// Ends the daemons, which remember hosts that failed.
    pub fn forget_failures(&self) {
        let _ = run(
            Command::new("gpgconf").args(["--kill", "all"]).envs(self.environment()),
            PACKAGE,
        );
    }

    /// The folder of keyring and configuration.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    fn environment(&self) -> [(&'static str, String); 2] {
        [
            ("GNUPGHOME", self.home.path().display().to_string()),
            ("LC_ALL", "C.UTF-8".to_owned()),
        ]
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        self.forget_failures();
    }
}

const PACKAGE: &str = "gnupg";
