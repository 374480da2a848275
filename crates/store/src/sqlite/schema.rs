//! Opening the database file: how connections are set up, and how a schema moves forward.
//!
//! The schema version is SQLite's `user_version`. Migration `n` (file `migrations/000n.sql`) brings version `n - 1` to
//! `n`; a store is migrated in one transaction when it is opened for writing, and never backwards.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::fault::Fault;
use super::{Durability, log_file};
use crate::StoreError;

/// Migrations, oldest first; their number is the newest version.
pub(super) type Migrations = &'static [&'static str];

/// All migrations there are.
pub(super) const MIGRATIONS: Migrations = &[include_str!("migrations/0001.sql")];

/// Opens `file` for writing, creates it if it isn't there, and brings its schema to the newest version.
///
/// Begins again while others hold the file: SQLite does not wait where two that set up the journal of a fresh file could
/// wait for each other for ever.
pub(super) fn open_writer(file: &Path, durability: Durability, migrations: Migrations) -> Result<Connection, Fault> {
    let started = Instant::now();
    loop {
        match open_writer_at_once(file, durability, migrations) {
            Err(Fault::Sqlite(error)) if is_busy(&error) && started.elapsed() < OPEN_WITHIN => {
                std::thread::sleep(BUSY_STEP);
            }
            other => return other,
        }
    }
}

fn open_writer_at_once(file: &Path, durability: Durability, migrations: Migrations) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // Bulk loads make transactions that are not to be kept in memory as a whole.
    let mut connection = match durability {
        Durability::Full => log_file::open(file, flags)?,
        Durability::Normal => Connection::open_with_flags(file, flags)?,
    };
    prepare(&mut connection)?;
    // What is erased is overwritten, wherever decisions are made; loads erase nothing that was not theirs.
    let (cache_kib, secure_delete) = match durability {
        Durability::Full => (WRITER_CACHE_KIB, "ON"),
        Durability::Normal => (BULK_CACHE_KIB, "OFF"),
    };
    let synchronous = synchronous(durability);
    // The page size counts only before the first table, and before the change to WAL.
    connection.execute_batch(&format!(
        "PRAGMA page_size = {PAGE_OCTETS};
         PRAGMA synchronous = {synchronous};
         PRAGMA cache_size = -{cache_kib};
         PRAGMA secure_delete = {secure_delete};
         PRAGMA wal_autocheckpoint = 0;"
    ))?;
    check_owner(&connection)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    migrate(&mut connection, migrations)?;
    Ok(connection)
}

/// Opens `file`, which another connection writes, for checkpoints only. These make durable what that one promised.
pub(super) fn open_mover(file: &Path, durability: Durability) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(file, flags)?;
    prepare(&mut connection)?;
    connection.execute_batch(&format!("PRAGMA synchronous = {};", synchronous(durability)))?;
    // Only a connection that has read something knows of the log.
    check_owner(&connection)?;
    Ok(connection)
}

fn synchronous(durability: Durability) -> &'static str {
    match durability {
        Durability::Full => "FULL",
        Durability::Normal => "NORMAL",
    }
}

/// Opens `file` for reading only. Its schema must be the newest.
pub(super) fn open_reader(file: &Path, cache_kib: u32, migrations: Migrations) -> Result<Connection, Fault> {
    let connection = reader(file, OpenFlags::empty(), cache_kib)?;
    check_version(connection, file, migrations)
}

/// The same for a store that this process does not write. Where nothing can be written beside the file, not even SQLite's
/// index of the log, and there is no log, the file is all there is: it is read as one that does not change, which holds
/// as long as nobody else starts to write it meanwhile.
pub(super) fn open_lone_reader(file: &Path, cache_kib: u32, migrations: Migrations) -> Result<Connection, Fault> {
    let connection = match reader(file, OpenFlags::empty(), cache_kib) {
        Err(Fault::Sqlite(error)) if is_shut(&error) && !has_log(file) => {
            reader(&unchanging(file), OpenFlags::SQLITE_OPEN_URI, cache_kib)?
        }
        other => other?,
    };
    check_version(connection, file, migrations)
}

fn reader(file: &Path, flags: OpenFlags, cache_kib: u32) -> Result<Connection, Fault> {
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(file, flags)?;
    prepare(&mut connection)?;
    connection.execute_batch(&format!("PRAGMA cache_size = -{cache_kib};"))?;
    check_owner(&connection)?;
    Ok(connection)
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

fn is_shut(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly)
    )
}

fn has_log(file: &Path) -> bool {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    // One that cannot be looked for may be there.
    Path::new(&log).try_exists().unwrap_or(true)
}

/// The URI of a file that does not change (<https://sqlite.org/uri.html>).
fn unchanging(file: &Path) -> PathBuf {
    let mut uri = String::from("file:");
    for &octet in file.as_os_str().as_encoded_bytes() {
        match octet {
            b'/' | b'-' | b'.' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => uri.push(octet.into()),
            _ => uri.push_str(&format!("%{octet:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    uri.into()
}

fn check_version(connection: Connection, file: &Path, migrations: Migrations) -> Result<Connection, Fault> {
    let (found, known) = (version(&connection)?, migrations.len() as u32);
    if found > known {
        return Err(StoreError::TooNew { found, known }.into());
    }
    if found < known {
        let reason = "its schema is older than this program: open it once for writing, which brings it up to date";
        return Err(StoreError::Unavailable(format!("{}: {reason}", file.display())).into());
    }
    Ok(connection)
}

/// What all connections share.
fn prepare(connection: &mut Connection) -> Result<(), Fault> {
    wait_when_busy(connection)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY;")?;
    Ok(())
}

/// SQLite's own waiting sleeps up to 100 ms at a time; a server waiting beside a busy `load` would miss the short gaps
/// between its transactions.
fn wait_when_busy(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.busy_handler(Some(|count| {
        std::thread::sleep(BUSY_STEP);
        count < BUSY_STEPS_MAX
    }))
}

/// Runs `work`, which then finds what other processes lock busy at once.
pub(super) fn without_waiting<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.busy_handler(None::<fn(i32) -> bool>)?;
    let result = work(connection);
    wait_when_busy(connection)?;
    result
}

/// Refuses a database that some other program made.
fn check_owner(connection: &Connection) -> Result<(), Fault> {
    // In this order: who makes the first table sets the number in the same transaction.
    let tables: u32 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let owner: u32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if owner != APPLICATION && tables > 0 {
        let reason = "this database belongs to another program: choose another folder";
        return Err(StoreError::Damaged(reason.into()).into());
    }
    Ok(())
}

fn version(connection: &Connection) -> Result<u32, Fault> {
    Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

fn migrate(connection: &mut Connection, migrations: Migrations) -> Result<(), Fault> {
    let known = migrations.len() as u32;
    if version(connection)? == known {
        return Ok(());
    }
    // Another process may do the same: whoever comes second finds it done.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    if found > known {
        return Err(StoreError::TooNew { found, known }.into());
    }
    for migration in &migrations[found as usize..] {
        transaction.execute_batch(migration)?;
    }
    transaction.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {known};"
    ))?;
    transaction.commit()?;
    Ok(())
}

/// "Krnk" in the header of the file.
const APPLICATION: u32 = 0x4b72_6e6b;
/// A commit writes every page that it touches to the log as a whole, and a small record touches about ten: with pages of
/// 8 KiB one submission at a time takes a fifth longer, and neither large records nor a load gain.
const PAGE_OCTETS: u32 = 4_096;
/// Enough for the upper levels of the B-trees. The leaves that a small record lands on are hardly ever in a cache of any
/// size, and SQLite looks through all of it after most splits of a page: with 4 MiB submissions take some 8 % longer.
const WRITER_CACHE_KIB: u32 = 1 << 10;
/// `load` is a short-lived process and gains from holding the upper levels of every B-tree.
const BULK_CACHE_KIB: u32 = 48 << 10;
const BUSY_STEP: Duration = Duration::from_millis(1);
/// How long opening begins again.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// About thirty seconds.
const BUSY_STEPS_MAX: i32 = 28_000;
