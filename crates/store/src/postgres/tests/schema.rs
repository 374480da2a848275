//! Versions of the schema, and front ends of two versions at work on one database.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::super::schema::{MIGRATIONS, Migration, Migrations};
use super::*;
use crate::conformance::toy::put;

/// What a second migration might be: programs that know only the first go on working.
pub(super) const TWO: Migrations = &[
    MIGRATIONS[0],
    Migration {
        script: "ALTER TABLE record ADD COLUMN seen bigint NOT NULL DEFAULT 5; CREATE TABLE extra (id bytea PRIMARY KEY);",
        oldest: 1,
    },
];

/// A third that leaves the first behind.
const THREE: Migrations = &[
    MIGRATIONS[0],
    TWO[1],
    Migration {
        script: "ALTER TABLE record RENAME COLUMN policy TO rules;",
        oldest: 3,
    },
];

fn open_with(url: &str, migrations: Migrations, migrate: bool) -> Result<PostgresStore, StoreError> {
    let options = Options {
        migrate,
        ..Options::new(url)
    };
    PostgresStore::open_with(&options, migrations)
}

#[test]
fn programs_of_the_version_before_go_on_working() {
    let server = Server::start();
    let url = server.fresh();
    let old = open(&url);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                put(&old, number % 50, &format!("line {number}"));
                if done.load(Ordering::Acquire) {
                    break;
                }
            }
        });
        std::thread::sleep(Duration::from_millis(100));
        let reason = unavailable(open_with(&url, TWO, false));
        assert!(reason.contains("keyrink migrate"), "{reason}");
        let new = open_with(&url, TWO, true).unwrap();
        put(&new, 99, "by the new one");
        assert_sound(&new);
        done.store(true, Ordering::Release);
    });
    put(&old, 98, "by the old one");
    assert_sound(&old);
    // Also one that starts anew.
    assert_sound(&open(&url));
    let seen = server
        .postgres
        .ask("test0", "SELECT DISTINCT seen FROM record")
        .unwrap();
    assert_eq!(seen, "5");
}

/// A dump reads a table for as long as it takes. A step that has to wait for it must not keep servers waiting.
#[test]
fn nobody_waits_for_long_behind_a_step_that_waits() {
    const READS: Duration = Duration::from_secs(6);
    let server = Server::start();
    let url = server.fresh();
    let old = open(&url);
    put(&old, 1, "before");
    let mut dump = server.postgres.client("psql");
    let reading = format!("SELECT count(*) FROM record; SELECT pg_sleep({})", READS.as_secs());
    let mut dump = dump
        .args([&url, "-Xqc", &reading])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    std::thread::scope(|scope| {
        let migrating = scope.spawn(|| open_with(&url, TWO, true).map(drop));
        let mut longest = Duration::ZERO;
        for number in 2.. {
            let asked = Instant::now();
            put(&old, number, "meanwhile");
            longest = longest.max(asked.elapsed());
            if migrating.is_finished() {
                break;
            }
        }
        migrating.join().unwrap().unwrap();
        assert!(
            began.elapsed() > READS - Duration::from_secs(2),
            "the step had nothing to wait for"
        );
        assert!(longest < READS / 2, "{longest:?}");
    });
    assert!(dump.wait().unwrap().success());
    assert_sound(&open_with(&url, TWO, false).unwrap());
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let server = Server::start();
    let url = server.fresh();
    drop(open_with(&url, THREE, true).unwrap());
    for outcome in [
        open_with(&url, TWO, true),
        open_with(&url, MIGRATIONS, false),
        open_to_read(&url),
    ] {
        assert!(matches!(outcome, Err(StoreError::TooNew { found: 3, known: 1 | 2 })));
    }
}

#[test]
fn a_migration_that_fails_changes_nothing() {
    const BROKEN: Migrations = &[
        MIGRATIONS[0],
        Migration {
            script: "CREATE TABLE half (n bigint); DROP TABLE no_such_table;",
            oldest: 1,
        },
    ];
    let server = Server::start();
    let url = server.fresh();
    put(&open(&url), 1, "brown fox");
    assert!(open_with(&url, BROKEN, true).is_err());
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_name = 'half'";
    assert_eq!(server.postgres.ask("test0", tables).unwrap(), "0");
    assert_sound(&open(&url));
}

#[test]
fn one_empty_database_opened_by_many_at_once() {
    let server = Server::start();
    for _ in 0..3 {
        let url = server.fresh();
        std::thread::scope(|scope| {
            for number in 0..5 {
                let url = &url;
                scope.spawn(move || put(&open(url), number, &format!("line {number}")));
            }
        });
        let store = open(&url);
        assert_eq!(store.count(TOYS).unwrap(), 5);
        assert_sound(&store);
    }
}

#[test]
fn what_cannot_be_opened_is_named() {
    let server = Server::start();
    let reason = unavailable(open_with(&server.fresh().replace("test0", "nowhere"), MIGRATIONS, true));
    assert!(reason.contains("nowhere") && reason.contains("createdb"), "{reason}");
    let reason = unavailable(open_with("postgres://x@127.0.0.1:1/y", MIGRATIONS, true));
    assert!(reason.contains("the database y at 127.0.0.1:1 is away"), "{reason}");
    let url = server.fresh();
    server
        .postgres
        .ask("test1", "CREATE TABLE record (title text)")
        .unwrap();
    let error = open_with(&url, MIGRATIONS, true).err().unwrap().to_string();
    assert!(error.contains("belongs to another program"), "{error}");
}
