//! How the schema moves forward while front ends of the version before go on working.
//!
//! Table `meta` has two numbers: the version of the schema, and the oldest version that a program must know to work with it.
//! A migration runs in one transaction, which locks these rows; two programs that start at once do it one after the other.
//! A step that changes a table has to wait until nobody reads it, and whoever comes later waits behind the step. So it gives
//! up soon, lets the others through, and tries again.

use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use super::connection::Connection;
use super::database::Database;
use super::fault::{Cure, Fault};
use super::{read, sql};
use crate::StoreError;

/// One step of the schema.
#[derive(Clone, Copy, Debug)]
pub(super) struct Migration {
    pub(super) script: &'static str,
    /// The oldest version that a program must know to go on working when this is done.
    pub(super) oldest: u32,
}

/// Migrations, oldest first; their number is the newest version.
pub(super) type Migrations = &'static [Migration];

/// All migrations there are.
pub(super) const MIGRATIONS: Migrations = &[Migration {
    script: include_str!("migrations/0001.sql"),
    oldest: 1,
}];

/// What `meta` says; zero where there is nothing yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Version {
    schema: u32,
    oldest: u32,
}

/// Sees that the schema is one that this program can work with; brings it to the newest version where `migrate` allows
/// that. How many steps were taken.
pub(super) fn prepare(database: &Database, migrations: Migrations, migrate: bool) -> Result<u32, StoreError> {
    let known = migrations.len() as u32;
    let (began, mut tried) = (Instant::now(), 0);
    let (version, steps) = loop {
        tried += 1;
        match attempt(database, migrations, migrate) {
            // Somebody else makes the same tables at the same time, in one transaction.
            Err(fault) if is_made(&fault) && tried > MADE_MAX => {
                let reason = "a database that belongs to another program: choose an empty one";
                return Err(StoreError::Damaged(format!("{} is {reason}", database.name())));
            }
            Err(fault) if is_locked(&fault) && began.elapsed() < LOCKED_MAX => std::thread::sleep(LOCKED_PAUSE),
            Err(fault) if tried < TRIES_MAX && (fault.cure() != Cure::Tell || is_made(&fault)) => {
                std::thread::sleep(PAUSE);
            }
            other => break other.map_err(|fault| database.told(fault))?,
        }
    };
    if version.oldest > known {
        let found = version.schema;
        return Err(StoreError::TooNew { found, known });
    }
    if version.schema < known {
        let reason = "its schema is older than this program: run `keyrink migrate`";
        return Err(StoreError::Unavailable(format!("{}: {reason}", database.name())));
    }
    Ok(steps)
}

fn attempt(database: &Database, migrations: Migrations, migrate: bool) -> Result<(Version, u32), Fault> {
    let mut connection = database.connect()?;
    is_new_enough(connection.version())?;
    takes_all_texts(connection.encoding())?;
    let there = !connection
        .rows(sql::HAS_META, &[])?
        .iter()
        .all(|row| matches!(row.try_get(0), Ok(0_i64)));
    let found = if there {
        version(&mut connection, sql::META)?
    } else {
        Version::default()
    };
    if !migrate || found.schema as usize >= migrations.len() {
        return Ok((found, 0));
    }
    connection.set(sql::STEP_TIME)?;
    connection.set(sql::STEP_LOCK_TIME)?;
    connection.execute(sql::BEGIN, &[])?;
    if !there {
        connection.execute(sql::NEW_META, &[])?;
    }
    let found = version(&mut connection, sql::LOCK_META)?;
    let steps = migrations.get(found.schema as usize..).unwrap_or_default();
    for step in steps {
        connection.script(step.script)?;
    }
    let Some(last) = steps.last() else {
        return Ok((found, 0));
    };
    let reached = Version {
        schema: migrations.len() as u32,
        oldest: last.oldest,
    };
    connection.execute(sql::PUT_META, &[&SCHEMA, &i64::from(reached.schema)])?;
    connection.execute(sql::PUT_META, &[&OLDEST, &i64::from(reached.oldest)])?;
    connection.execute(sql::COMMIT, &[])?;
    Ok((reached, steps.len() as u32))
}

fn version(connection: &mut Connection, question: sql::Sql) -> Result<Version, Fault> {
    let mut version = Version::default();
    for row in connection.rows(question, &[])? {
        let value = read::unsigned(&row, 1)?.try_into().unwrap_or(u32::MAX);
        match read::column(&row, 0)? {
            SCHEMA => version.schema = value,
            OLDEST => version.oldest = value,
            _ => {}
        }
    }
    Ok(version)
}

/// Did a table turn out to be there already?
fn is_made(fault: &Fault) -> bool {
    says(fault, &SqlState::DUPLICATE_TABLE)
}

/// Did somebody else hold a lock for too long?
fn is_locked(fault: &Fault) -> bool {
    says(fault, &SqlState::LOCK_NOT_AVAILABLE)
}

fn says(fault: &Fault, code: &SqlState) -> bool {
    matches!(fault, Fault::Postgres(error) if error.code() == Some(code))
}

/// Refuses a database of a version that does not know all statements; whatever names none is tried.
fn is_new_enough(version: Option<&str>) -> Result<(), StoreError> {
    let digits = version.and_then(|version| version.split(|character: char| !character.is_ascii_digit()).next());
    match (version, digits.and_then(|digits| digits.parse::<u32>().ok())) {
        (Some(version), Some(major)) if major < VERSION_MIN => Err(StoreError::Unavailable(format!(
            "PostgreSQL {VERSION_MIN} or newer is needed, this is {version}"
        ))),
        _ => Ok(()),
    }
}

/// Refuses a database that can't hold every text: one user id that it can't encode would fail all that is written together
/// with it. Whatever names no encoding is tried.
fn takes_all_texts(encoding: Option<&str>) -> Result<(), StoreError> {
    match encoding {
        None | Some("UTF8" | "SQL_ASCII") => Ok(()),
        Some(encoding) => Err(StoreError::Unavailable(format!(
            "the database encodes texts in {encoding}, which has no place for some user ids: \
             make one with createdb --encoding=UTF8 --template=template0"
        ))),
    }
}

/// The oldest version of PostgreSQL that operators are told will do.
const VERSION_MIN: u32 = 13;

const SCHEMA: &str = "schema";
const OLDEST: &str = "oldest";
const TRIES_MAX: u32 = 40;
/// So often others may have made one of the tables first.
const MADE_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);
/// How long a step is tried that others keep from getting its lock, and how long they get through in between.
const LOCKED_MAX: Duration = Duration::from_secs(600);
const LOCKED_PAUSE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::is_new_enough;

    #[test]
    fn versions_that_are_too_old_are_named() {
        for version in [
            None,
            Some("13.0"),
            Some("15.10 (Debian 15.10-0+deb12u1)"),
            Some("18beta1"),
            Some("x"),
        ] {
            assert!(is_new_enough(version).is_ok(), "{version:?}");
        }
        for version in ["12.22", "9.6.24"] {
            let reason = is_new_enough(Some(version)).unwrap_err().to_string();
            assert!(reason.contains("PostgreSQL 13") && reason.contains(version), "{reason}");
        }
    }
}
