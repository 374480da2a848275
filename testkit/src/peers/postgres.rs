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
        let server = Self::new(settings.iter().map(|setting| (*setting).to_owned()).collect())?;
        server.fill()?;
        server.start_again()?;
        Ok(server)
    }

    /// Makes an empty cluster: a copy of one that all tests of this user share, since making one takes some seconds.
    fn fill(&self) -> Result<(), Error> {
        let name = self.programs.to_string_lossy().replace('/', "-");
        let user = rustix::process::geteuid().as_raw();
        let shared = std::env::temp_dir().join(format!("keyrink-cluster-{user}{name}"));
        let copy = |from: &Path, to: &Path| run(self.command("/bin/cp").arg("-a").args([from, to]), PACKAGE);
        if !shared.join("PG_VERSION").exists() {
            let new = self.folder.path().join("new");
            let mut initdb = self.command("initdb");
            initdb.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync", "-D"]);
            run(initdb.arg(&new), PACKAGE)?;
            // Whoever comes second finds that it is there, and leaves it.
            let _ = run(self.command("/bin/mv").arg("-T").args([&new, &shared]), PACKAGE);
        }
        copy(&shared, &self.data()).map(drop)
    }

    /// Another server that follows this one, and can be read meanwhile.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn standby(&self) -> Result<Self, Error> {
        let server = Self::new(self.settings.clone())?;
        let from = format!("host=127.0.0.1 port={} user=postgres", self.port);
        let mut copy = server.command("pg_basebackup");
        copy.args([
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
            "--dbname",
            &from,
            "--pgdata",
        ]);
        run(copy.arg(server.data()), PACKAGE)?;
        server.start_again()?;
        Ok(server)
    }

    /// Makes a standby a server of its own.
    ///
    /// # Errors
    /// When it is none.
    pub fn promote(&self) -> Result<(), Error> {
        let mut promote = self.command("pg_ctl");
        promote.arg("-D").arg(self.data()).args(["-w", "promote"]);
        run(&mut promote, PACKAGE).map(drop)
    }

    /// A folder, a port and the programs, with no server yet.
    fn new(settings: Vec<String>) -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").at("/tmp")?;
        let server = Self {
            folder,
            programs: programs()?,
            port: free_port()?,
            settings,
        };
        if rustix::process::geteuid().is_root() {
            // PostgreSQL refuses to run as root, and wants to own its folder.
            run(Command::new("chown").arg("postgres").arg(server.folder.path()), PACKAGE)?;
        }
        Ok(server)
    }

    /// The port of this server on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What clients connect to by its socket.
    pub fn socket_url_of(&self, database: &str) -> String {
        let folder = self.folder.path().display();
        format!("postgres://postgres@/{database}?host={folder}&port={}", self.port)
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

    /// Makes a superuser who has to show this password from now on.
    ///
    /// # Errors
    /// When there is one of this name.
    pub fn secured_role(&self, name: &str, password: &str) -> Result<(), Error> {
        // The default of version 13 is MD5.
        let make = format!(
            "SET password_encryption = 'scram-sha-256'; CREATE ROLE {name} SUPERUSER LOGIN PASSWORD '{password}'"
        );
        self.ask("postgres", &make)?;
        let file = self.data().join("pg_hba.conf");
        let rules = fs::read_to_string(&file).at(&file)?;
        let rule = format!("host all {name} 127.0.0.1/32 scram-sha-256\n");
        fs::write(&file, rule + &rules).at(&file)?;
        self.ask("postgres", "SELECT pg_reload_conf()").map(drop)
    }

    /// From now on one of ten transactions that write to a database with Keyrink's tables ends in a serialization failure when it
    /// commits, some do before, and some connections break while they commit. Bulk loads keep their connections.
    ///
    /// # Errors
    /// When the tables are not there.
    pub fn trouble(&self, database: &str) -> Result<(), Error> {
        self.ask(database, TROUBLE).map(drop)
    }

    /// What came of [`Postgres::trouble`]: commits that were tried, those that failed, statements that failed before, and
    /// connections that broke.
    ///
    /// # Errors
    /// When it was not asked for.
    pub fn troubles(&self, database: &str) -> Result<[u64; 4], Error> {
        let counted = ["tried", "late", "early", "cut"].map(|name| {
            // A sequence says 1 before it was used and after.
            let sql = format!("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM trouble_{name}");
            let text = self.ask(database, &sql)?;
            text.parse::<u64>().map_err(|_| Error::Answer(text))
        });
        let [tried, late, early, cut] = counted;
        Ok([tried?, late?, early?, cut?])
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

/// Sequences count also what is rolled back.
const TROUBLE: &str = "
    CREATE SEQUENCE trouble_tried; CREATE SEQUENCE trouble_late; CREATE SEQUENCE trouble_early; CREATE SEQUENCE trouble_cut;
    CREATE FUNCTION trouble_early() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF random() < 0.02 THEN
            PERFORM nextval('trouble_early');
            RAISE EXCEPTION 'on purpose' USING ERRCODE = '40001';
        END IF;
        RETURN NULL;
    END $$;
    CREATE FUNCTION trouble_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM nextval('trouble_tried');
        IF random() < 0.1 THEN
            PERFORM nextval('trouble_late');
            RAISE EXCEPTION 'on purpose' USING ERRCODE = '40001';
        END IF;
        IF random() < 0.02 AND current_setting('synchronous_commit') <> 'off' THEN
            PERFORM nextval('trouble_cut');
            PERFORM pg_terminate_backend(pg_backend_pid());
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER trouble AFTER INSERT OR UPDATE OR DELETE ON term FOR EACH STATEMENT EXECUTE FUNCTION trouble_early();
    CREATE TRIGGER trouble AFTER INSERT OR UPDATE OR DELETE ON element FOR EACH STATEMENT EXECUTE FUNCTION trouble_early();
    CREATE CONSTRAINT TRIGGER trouble AFTER UPDATE ON lane DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION trouble_late();
    CREATE CONSTRAINT TRIGGER trouble AFTER INSERT OR UPDATE ON note DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION trouble_late();
";

/// The folder of the newest version installed, or the one that KEYRINK_TEST_POSTGRES names.
fn programs() -> Result<PathBuf, Error> {
    if let Some(folder) = std::env::var_os("KEYRINK_TEST_POSTGRES") {
        return Ok(PathBuf::from(folder).join("bin"));
    }
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
