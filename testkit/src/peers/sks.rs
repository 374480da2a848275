//! SKS 1.1.6 (Debian's `sks`): a keyserver database and its reconciling process.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::process::{Process, free_port, run};
use crate::error::{At, Error};

/// What an SKS holds and whom it knows.
#[derive(Clone, Debug, Default)]
pub struct SksOptions {
    /// Binary keyrings to build the database from; none makes an empty one.
    pub keyrings: Vec<PathBuf>,
    /// Partners as host and reconciliation port. SKS resolves the host and compares it with a caller's address; the
    /// port is used for calling only.
    pub membership: Vec<(String, u16)>,
    /// Start the reconciling process beside the database.
    pub recon: bool,
    /// Minutes between its calls to partners, fractions allowed; 0.0166 if zero. A large number makes it never call.
    pub gossip_minutes: f64,
    /// Run `sks cleandb`, so that the filters announced are `yminsky.dedup,yminsky.merge` instead of the first alone.
    pub both_filters: bool,
    /// What to put before the command line of the database, such as `taskset -c 0`.
    pub wrapper: Vec<String>,
}

/// A running SKS in a throw-away folder.
#[derive(Debug)]
pub struct Sks {
    // The processes go before their folder.
    recon: Option<Process>,
    db: Option<Process>,
    http: SocketAddr,
    recon_port: u16,
    options: SksOptions,
    folder: TempDir,
}

impl Sks {
    /// Builds the database and starts what `options` asks for.
    ///
    /// # Errors
    /// When SKS is missing, refuses a keyring, or does not start.
    pub fn start(options: SksOptions) -> Result<Self, Error> {
        let mut sks = Self::build(options)?;
        sks.start_db()?;
        if sks.options.recon {
            sks.start_recon()?;
        }
        Ok(sks)
    }

    /// Builds the database and the prefix tree, and starts nothing yet.
    ///
    /// # Errors
    /// When SKS is missing or refuses a keyring.
    pub fn build(options: SksOptions) -> Result<Self, Error> {
        let folder = tempfile::Builder::new()
            .prefix("sks-")
            .tempdir()
            .at("temporary folder")?;
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let sks = Self {
            recon: None,
            db: None,
            http,
            recon_port: free_port()?,
            options,
            folder,
        };
        sks.write_configuration()?;
        let empty = sks.folder.path().join("empty.pgp");
        fs::write(&empty, []).at(&empty)?;
        let keyrings = match sks.options.keyrings.as_slice() {
            [] => vec![empty],
            some => some.to_vec(),
        };
        run(
            sks.command(&["build"])
                .args(keyrings)
                .args(["-n", "10", "-cache", "100"]),
            PACKAGE,
        )?;
        if sks.options.both_filters {
            // It ends with a segmentation fault after its work is done.
            let _ = run(&mut sks.command(&["cleandb"]), PACKAGE);
        }
        if !sks.options.keyrings.is_empty() {
            // It fails on an empty database; `sks recon` then makes the empty tree itself.
            run(
                &mut sks.command(&["pbuild", "-cache", "20", "-ptree_cache", "70"]),
                PACKAGE,
            )?;
        }
        Ok(sks)
    }

    /// Starts the database process and waits until it answers.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_db(&mut self) -> Result<(), Error> {
        let mut db = Process::spawn(self.server("db"), PACKAGE, &self.folder.path().join("db.out"))?;
        db.wait_for_port(self.http)?;
        self.db = Some(db);
        Ok(())
    }

    /// Starts the reconciling process; the database has to run.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_recon(&mut self) -> Result<(), Error> {
        let mut recon = Process::spawn(self.server("recon"), PACKAGE, &self.folder.path().join("recon.out"))?;
        recon.wait_for_port(SocketAddr::from((Ipv4Addr::LOCALHOST, self.recon_port)))?;
        self.recon = Some(recon);
        Ok(())
    }

    /// Stops both processes cleanly; the folder stays until the drop.
    pub fn stop(&mut self) {
        for mut process in [self.recon.take(), self.db.take()].into_iter().flatten() {
            process.terminate();
        }
    }

    /// Stops it and lets it dump its database: all certificates, one after another.
    ///
    /// # Errors
    /// When the dump fails.
    pub fn dump(&mut self) -> Result<Vec<u8>, Error> {
        self.stop();
        let folder = self.folder.path().join("dumped");
        fs::create_dir_all(&folder).at(&folder)?;
        run(self.command(&["dump", "1000000"]).arg(&folder), PACKAGE)?;
        let mut all = Vec::new();
        for entry in fs::read_dir(&folder).at(&folder)? {
            let path = entry.at(&folder)?.path();
            if path.extension().is_some_and(|extension| extension == "pgp") {
                all.extend(fs::read(&path).at(&path)?);
            }
        }
        Ok(all)
    }

    /// Where it answers HTTP.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// The port at which it takes reconciliation.
    pub fn recon_port(&self) -> u16 {
        self.recon_port
    }

    /// Changes whom it knows; the reconciling process reads that when it starts.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_membership(&mut self, membership: Vec<(String, u16)>) -> Result<(), Error> {
        self.options.membership = membership;
        self.write_configuration()
    }

    /// Kills the reconciling process, as a power failure would.
    pub fn kill_recon(&mut self) {
        self.recon = None;
    }

    /// Process number of the reconciling process, while it runs.
    pub fn recon_id(&self) -> Option<u32> {
        self.recon.as_ref().map(Process::id)
    }

    /// Process number of the database, while it runs.
    pub fn db_id(&self) -> Option<u32> {
        self.db.as_ref().map(Process::id)
    }

    /// The folder that holds `KDB` and `PTree`.
    pub fn storage(&self) -> PathBuf {
        self.folder.path().join("var/lib/sks")
    }

    /// What the process `db` or `recon` has logged so far.
    pub fn log(&self, process: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("var/log/sks/{process}.log"))).unwrap_or_default()
    }

    fn write_configuration(&self) -> Result<(), Error> {
        let root = self.folder.path();
        for folder in FOLDERS {
            fs::create_dir_all(root.join(folder)).at(root.join(folder))?;
        }
        let membership: String = self
            .options
            .membership
            .iter()
            .map(|(host, port)| format!("{host} {port}\n"))
            .collect();
        let files = [("sksconf", SKSCONF), ("mailsync", ""), ("membership", &membership)];
        for (name, text) in files {
            let path = root.join("etc/sks").join(name);
            fs::write(&path, text).at(&path)?;
        }
        Ok(())
    }

    fn server(&self, process: &str) -> Command {
        let mut command = match (process, self.options.wrapper.split_first()) {
            ("db", Some((program, arguments))) => {
                let mut command = Command::new(program);
                command.args(arguments).arg("sks");
                command
            }
            _ => Command::new("sks"),
        };
        let port = self.http.port().to_string();
        command
            .arg(process)
            .arg("-basedir")
            .arg(self.folder.path())
            .args(["-hostname", "127.0.0.9"]);
        command.args([
            "-nodename",
            "sks.example",
            "-recon_address",
            "127.0.0.1",
            "-hkp_address",
            "127.0.0.1",
        ]);
        command.args(["-recon_port", &self.recon_port.to_string(), "-hkp_port", &port]);
        let minutes = match self.options.gossip_minutes {
            0.0 => "0.0166".to_owned(),
            minutes => minutes.to_string(),
        };
        command.args(["-gossip_interval", &minutes, "-debuglevel", "4"]);
        command
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("sks");
        command
            .args(arguments)
            .arg("-basedir")
            .arg(self.folder.path())
            .current_dir(self.folder.path());
        command
    }

    /// The throw-away folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Sks {
    fn drop(&mut self) {
        self.recon = None;
        self.db = None;
    }
}

const PACKAGE: &str = "sks";

/// What Debian's build expects below its base folder.
const FOLDERS: &[&str] = &[
    "etc/sks",
    "var/log/sks",
    "var/lib/sks/dump",
    "var/lib/sks/www",
    "var/run/sks",
    "var/spool/sks/messages",
    "var/spool/sks/failed_messages",
];

const SKSCONF: &str = "disable_mailsync:\ninitial_stat:\npagesize: 16\nptree_pagesize: 16\n";
