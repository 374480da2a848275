//! Versions of the schema, and files that are something else.

use std::fs;

use rusqlite::Connection;

use super::*;
use crate::sqlite::schema::MIGRATIONS;

/// What a second migration might be.
const TWO: Migrations = &[
    MIGRATIONS[0],
    "ALTER TABLE record ADD COLUMN seen INTEGER NOT NULL DEFAULT 5;
     CREATE TABLE refused (id BLOB PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
     INSERT INTO refused SELECT id, 0 FROM record;",
];

fn open_with(dir: &Path, migrations: Migrations, read_only: bool) -> Result<SqliteStore, StoreError> {
    SqliteStore::open_with(
        dir,
        &Options {
            read_only,
            ..Options::default()
        },
        migrations,
    )
}

#[test]
fn a_store_moves_forward_with_its_records() {
    let dir = TempDir::new().unwrap();
    put(&open(dir.path()), 1, "brown fox");
    let old = unavailable(open_with(dir.path(), TWO, true));
    assert!(old.contains("open it once for writing"), "{old}");

    let store = open_with(dir.path(), TWO, false).unwrap();
    let row = store.readers.run(|connection| {
        let both = "SELECT seen, (SELECT count(*) FROM refused) FROM record";
        Ok(connection.query_row(both, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?)
    });
    assert_eq!(row.unwrap(), (5, 1));
    put(&store, 1, "red fox");
    put(&store, 2, "blue fox");
    assert_sound(&store);
    drop(store);
    assert_sound(&open_with(dir.path(), TWO, true).unwrap());
}

#[test]
fn a_newer_store_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    drop(open_with(dir.path(), TWO, false).unwrap());
    for read_only in [false, true] {
        let outcome = open_with(dir.path(), MIGRATIONS, read_only);
        assert!(matches!(outcome, Err(StoreError::TooNew { found: 2, known: 1 })));
    }
    drop(open_with(dir.path(), TWO, false).unwrap());
}

#[test]
fn a_migration_that_fails_changes_nothing() {
    const BROKEN: Migrations = &[
        MIGRATIONS[0],
        "CREATE TABLE half (n INTEGER); DROP TABLE no_such_table;",
    ];
    let dir = TempDir::new().unwrap();
    put(&open(dir.path()), 1, "brown fox");
    assert!(open_with(dir.path(), BROKEN, false).is_err());
    let store = open_with(dir.path(), MIGRATIONS, false).unwrap();
    put(&store, 2, "brown fox");
    assert_sound(&store);
}

#[test]
fn one_fresh_folder_opened_by_many_at_once() {
    for _ in 0..5 {
        let dir = TempDir::new().unwrap();
        std::thread::scope(|scope| {
            for number in 0..6 {
                let dir = dir.path();
                scope.spawn(move || put(&open(dir), number, &format!("line {number}")));
            }
        });
        let store = open(dir.path());
        assert_eq!(store.count(TOYS).unwrap(), 6);
        assert_sound(&store);
    }
}

#[test]
fn what_is_not_a_store_is_named() {
    let dir = TempDir::new().unwrap();
    let folder = |name: &str| dir.path().join(name);
    for (name, content) in [
        ("text", "no database at all, ".repeat(100)),
        ("short", "no database".repeat(60)),
    ] {
        fs::create_dir(folder(name)).unwrap();
        fs::write(folder(name).join(SqliteStore::FILE), content).unwrap();
        for read_only in [false, true] {
            let error = open_with(&folder(name), MIGRATIONS, read_only).err().unwrap();
            assert!(
                matches!(&error, StoreError::Damaged(reason) if reason.contains(name)),
                "{error}"
            );
        }
    }
    fs::create_dir(folder("other")).unwrap();
    let other = Connection::open(folder("other").join(SqliteStore::FILE)).unwrap();
    other.execute_batch("CREATE TABLE bookmark (url TEXT)").unwrap();
    let error = open_with(&folder("other"), MIGRATIONS, false).err().unwrap();
    assert!(error.to_string().contains("belongs to another program"), "{error}");

    fs::write(folder("file"), "x").unwrap();
    let reason = unavailable(open_with(&folder("file"), MIGRATIONS, false));
    assert!(reason.contains("file"), "{reason}");
    let reason = unavailable(open_to_read(&folder("nowhere")));
    assert!(reason.contains("nowhere") && !folder("nowhere").exists(), "{reason}");
}
