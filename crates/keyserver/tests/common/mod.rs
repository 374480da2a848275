//! The program on a store in a throw-away folder, as these tests use it; or, if KEYRINK_TEST_ENGINE is `postgres`, on a
//! PostgreSQL database in a throw-away cluster; or, if it is `troubled`, on one where transactions fail and connections break.
#![allow(dead_code, reason = "each test program uses a part of this")]

pub mod peering;

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use keyrink_store::Store;
use keyrink_store::memory::MemoryStore;
use keyrink_store::postgres::{Options, PostgresStore};
use keyrink_store::sqlite::SqliteStore;
use keyrink_testkit::http::{Answer, Client};
use keyrink_testkit::peers::{Keyrink, KeyrinkOptions, Postgres, store_arguments};
use keyrink_testkit::report;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_keyrink");

/// A store and what is done with it.
pub struct Node {
    folder: tempfile::TempDir,
    database: Option<Database>,
}

/// A database and the server it is in, which ends with the last database.
#[derive(Clone)]
struct Database {
    name: String,
    server: Arc<Postgres>,
}

impl Database {
    /// A new one, if these tests are to run on PostgreSQL.
    fn wanted() -> Option<Self> {
        let engine = std::env::var("KEYRINK_TEST_ENGINE").ok()?;
        let troubled = match engine.as_str() {
            "postgres" => false,
            "troubled" => true,
            "sqlite" => {
                report::runs_on(&engine);
                return None;
            }
            other => panic!("KEYRINK_TEST_ENGINE is {other}, which nothing here knows"),
        };
        report::runs_on(&engine);
        let database = Self::new();
        if troubled {
            drop(database.open());
            database.server.trouble(&database.name).unwrap();
        }
        Some(database)
    }

    fn new() -> Self {
        static SERVER: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
        let mut running = SERVER.lock().unwrap();
        let server = running.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Postgres::start_with(&["fsync=off"]).unwrap());
            *running = Arc::downgrade(&server);
            server
        });
        Self::on(server)
    }

    fn on(server: Arc<Postgres>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("node{}", COUNT.fetch_add(1, Ordering::Relaxed));
        server.create(&name).unwrap();
        report::runs_on("postgres");
        Self { name, server }
    }

    fn open(&self) -> PostgresStore {
        PostgresStore::open(&Options::new(&self.server.url_of(&self.name))).unwrap()
    }
}

/// Part of the program, and what its store is in.
pub struct On<T> {
    part: T,
    _database: Option<Database>,
    _folder: Option<tempfile::TempDir>,
}

/// A part of the program on a store of its own: in memory, or on the engine that KEYRINK_TEST_ENGINE names.
pub fn on_store<T>(make: impl FnOnce(Arc<dyn Store>) -> T) -> On<T> {
    let database = Database::wanted();
    let sqlite = std::env::var_os("KEYRINK_TEST_ENGINE").is_some_and(|engine| engine == "sqlite");
    let folder = sqlite.then(|| tempfile::tempdir().unwrap());
    let store: Arc<dyn Store> = match (&database, &folder) {
        (Some(database), _) => Arc::new(database.open()),
        (None, Some(folder)) => Arc::new(SqliteStore::open(folder.path(), &Default::default()).unwrap()),
        (None, None) => Arc::new(MemoryStore::new()),
    };
    On {
        part: make(store),
        _database: database,
        _folder: folder,
    }
}

impl<T> std::ops::Deref for On<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.part
    }
}

/// How a command ended and what it wrote.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Node {
    pub fn new() -> Self {
        Self {
            database: Database::wanted(),
            ..Self::embedded()
        }
    }

    /// A node that holds `keyrings`.
    pub fn with(keyrings: &[&[u8]]) -> Self {
        let node = Self::new();
        let file = node.file("first.pgp", &keyrings.concat());
        node.load(&[&file]);
        node
    }

    /// The store: a folder, or the URL of a PostgreSQL database.
    pub fn data(&self) -> PathBuf {
        match &self.database {
            Some(database) => PathBuf::from(database.server.url_of(&database.name)),
            None => self.path("data"),
        }
    }

    /// Is the store the embedded one?
    pub fn is_embedded(&self) -> bool {
        self.database.is_none()
    }

    /// A node on PostgreSQL, whatever the other tests run on.
    pub fn on_postgres() -> Self {
        Self {
            database: Some(Database::new()),
            ..Self::embedded()
        }
    }

    /// A node on a PostgreSQL that nobody else uses.
    pub fn on_its_own_postgres() -> Self {
        Self::on_server(Postgres::start_with(&["fsync=off"]).unwrap())
    }

    /// A node on a server, in a new database.
    pub fn on_server(server: Postgres) -> Self {
        Self {
            database: Some(Database::on(Arc::new(server))),
            ..Self::embedded()
        }
    }

    /// A node on the embedded store, whatever the other tests run on.
    pub fn embedded() -> Self {
        Self {
            folder: tempfile::Builder::new().prefix("keyrink-").tempdir().unwrap(),
            database: None,
        }
    }

    /// Another node on the same database.
    pub fn beside(&self) -> Self {
        assert!(self.database.is_some(), "only PostgreSQL is shared");
        Self {
            database: self.database.clone(),
            ..Self::embedded()
        }
    }

    /// The name of its database.
    pub fn database(&self) -> &str {
        &self.database.as_ref().unwrap().name
    }

    /// The server of its database.
    pub fn postgres(&self) -> &Postgres {
        &self.database.as_ref().unwrap().server
    }

    /// What its database says to some SQL.
    pub fn ask(&self, sql: &str) -> String {
        let database = self.database.as_ref().unwrap();
        database.server.ask(&database.name, sql).unwrap()
    }

    /// A path beside the store.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file beside the store.
    pub fn file(&self, name: &str, octets: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, octets).unwrap();
        path
    }

    /// `keyrink COMMAND --data STORE ARGUMENTS`, not started yet.
    pub fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg(name).args(store_arguments(&self.data())).args(arguments);
        command
    }

    /// Runs a subcommand to its end.
    pub fn run(&self, name: &str, arguments: &[&str]) -> Finished {
        let mut finished = finish(self.command(name, arguments), b"");
        if name == "check" {
            finished.out = narrow(&finished.out);
        }
        finished
    }

    /// Runs a subcommand that has to succeed; what it wrote to standard output.
    pub fn succeed(&self, name: &str, arguments: &[&str]) -> String {
        let finished = self.run(name, arguments);
        assert_eq!(finished.code, Some(0), "{name} {arguments:?}: {finished:?}");
        finished.out
    }

    /// Loads files; the report. On a database that breaks connections a load asks to be started again, and is.
    pub fn load(&self, paths: &[&Path]) -> String {
        let paths: Vec<&str> = paths.iter().map(|path| path.to_str().unwrap()).collect();
        let troubled = std::env::var("KEYRINK_TEST_ENGINE").is_ok_and(|engine| engine == "troubled");
        for _ in 0..STARTS_MAX {
            let finished = self.run("load", &paths);
            if finished.code == Some(0) {
                return finished.out;
            }
            assert!(
                troubled && finished.err.contains("start again"),
                "{paths:?}: {finished:?}"
            );
        }
        panic!("{paths:?}: started {STARTS_MAX} times")
    }

    /// The report of a check that has to be clean.
    pub fn check(&self) -> String {
        self.succeed("check", &[])
    }

    /// The same with settings such as `KEYRINK_SEARCH_WORDS=true`.
    pub fn check_with(&self, settings: &[String]) -> String {
        let mut command = self.command("check", &[]);
        command.envs(settings.iter().map(|setting| setting.split_once('=').unwrap()));
        let finished = finish(command, b"");
        assert_eq!(finished.code, Some(0), "{finished:?}");
        finished.out
    }

    /// Starts the server.
    pub fn serve(&self) -> Keyrink {
        self.serve_with(&[], &[])
    }

    /// Starts the server with settings such as `KEYRINK_HTTP_BODY_SECONDS=1`, and further arguments.
    pub fn serve_with(&self, settings: &[&str], arguments: &[&str]) -> Keyrink {
        self.serve_at(Ipv4Addr::LOCALHOST, settings, arguments)
    }

    /// The same on another address of the loopback network.
    pub fn serve_at(&self, address: Ipv4Addr, settings: &[&str], arguments: &[&str]) -> Keyrink {
        let wrapper = [&["env"], settings].concat();
        let options = KeyrinkOptions {
            program: PROGRAM.into(),
            data: self.data(),
            address,
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            wrapper: wrapper.iter().map(|word| (*word).to_owned()).collect(),
        };
        Keyrink::start_with(&options).unwrap()
    }
}

/// The report of a check with two spaces between its columns, whatever the names of datasets make of their width.
fn narrow(report: &str) -> String {
    let lines = report.lines().map(|line| match line.split_once("  ") {
        Some((name, value)) if !name.is_empty() => format!("{name}  {}\n", value.trim_start()),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

/// Runs a command that gets `input`.
pub fn finish(mut command: Command, input: &[u8]) -> Finished {
    let command = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that fails early need not read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    Finished {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// `op=get` of a fingerprint.
pub fn get(client: &mut Client, fingerprint: &str) -> Answer {
    client
        .get(&format!("/pks/lookup?op=get&search=0x{fingerprint}"))
        .unwrap()
}

/// One of Debian's keyrings.
pub fn debian(name: &str) -> PathBuf {
    let path = PathBuf::from(format!("/usr/share/keyrings/debian-{name}.gpg"));
    assert!(path.exists(), "{}: apt-get install debian-keyring", path.display());
    path
}

/// The folder of vectors.
pub fn datasets() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/datasets")
}

/// As it goes over the wire, but for the time, the lengths and addresses; pages broken before each tag.
pub fn shown(answer: &Answer) -> String {
    let mut out = format!("{}\n", answer.status);
    for (name, value) in &answer.fields {
        if !["date", "content-length"].contains(&name.as_str()) {
            out += &format!("{name}: {value}\n");
        }
    }
    let is_page = answer
        .field("content-type")
        .is_some_and(|kind| kind.starts_with("text/html"));
    let body = match std::str::from_utf8(&answer.body) {
        Ok(page) if is_page => page.replace('<', "\n<").replace("\n</", "</").trim_start().to_owned(),
        Ok(text) => text.to_owned(),
        Err(_) => format!("({} octets)", answer.body.len()),
    };
    format!("{out}\n{body}")
}

/// How often a load is started that asks for it.
const STARTS_MAX: usize = 20;
