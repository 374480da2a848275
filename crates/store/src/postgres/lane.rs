//! Lanes: where the changes of a process are numbered.
//!
//! Whoever commits changes locks its lane's row, takes the next numbers and commits, so numbers become visible in order and
//! without gaps even if several processes use one lane. A claim only keeps them from waiting for each other; it ends by
//! itself, so that the number of lanes stays that of the processes that run at the same time.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use super::connection::Connection;
use super::fault::Fault;
use super::{read, sql};
use crate::StoreError;
use crate::batch::now;

/// The lane of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lane(i32);

impl Lane {
    /// Claims a lane that nobody claims any more, or a new one.
    pub(super) fn claim(connection: &mut Connection) -> Result<Self, Fault> {
        let now = now();
        // Those that start at the same moment see the same one first, which one of them gets.
        for _ in 0..CLAIMS_MAX {
            let free = connection.rows(sql::CLAIM_LANE, &[&read::number_64(now), &claimed(now)])?;
            if let Some(row) = free.first() {
                return Ok(Self(read::column(row, 0)?));
            }
            if connection.rows(sql::FREE_LANE, &[&read::number_64(now)])?.is_empty() {
                break;
            }
        }
        loop {
            // Not counted on, so that no place of the table is more crowded than the others.
            let writer = (random() >> 33) as i32;
            connection.execute(sql::BEGIN, &[])?;
            // Whoever locks all lanes has locked this first, and must not miss one.
            connection.rows(sql::LOCK_META, &[])?;
            let made = connection.execute(sql::NEW_LANE, &[&writer, &claimed(now)])?;
            connection.execute(sql::COMMIT, &[])?;
            if made == 1 {
                return Ok(Self(writer));
            }
        }
    }

    pub(super) fn number(self) -> i32 {
        self.0
    }

    /// Claims it for some more time; shows that the database can be written to.
    pub(super) fn keep(self, connection: &mut Connection) -> Result<(), Fault> {
        match connection.execute(sql::KEEP_LANE, &[&self.0, &claimed(now())])? {
            0 => Err(gone()),
            _ => Ok(()),
        }
    }

    /// Lets others have it.
    pub(super) fn release(self, connection: &mut Connection) -> Result<(), Fault> {
        connection.execute(sql::KEEP_LANE, &[&self.0, &0_i64]).map(drop)
    }

    /// Takes the next `count` numbers for the transaction `token`; the last of them.
    pub(super) fn advance(self, connection: &mut Connection, count: usize, token: i64) -> Result<i64, Fault> {
        let rows = connection.rows(
            sql::ADVANCE_LANE,
            &[&self.0, &read::limit(count), &token, &claimed(now())],
        )?;
        read::column(rows.first().ok_or_else(gone)?, 0)
    }

    /// Was `token` the last transaction? Waits for one that is still under way.
    pub(super) fn ended_with(self, connection: &mut Connection, token: i64) -> Result<bool, Fault> {
        let rows = connection.rows(sql::LAST_IN_LANE, &[&self.0])?;
        let last = rows.first().map(|row| read::column::<i64>(row, 0)).transpose()?;
        Ok(last == Some(token))
    }
}

fn gone() -> Fault {
    StoreError::Damaged("the lane of this process is gone: start the program again".to_owned()).into()
}

fn claimed(now: u64) -> i64 {
    read::number_64(now + CLAIM_SECS)
}

/// A number that nobody else comes up with.
pub(super) fn random() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    RandomState::new().hash_one((COUNT.fetch_add(1, Ordering::Relaxed), std::time::SystemTime::now()))
}

/// How often a free lane is tried for that others may take first.
const CLAIMS_MAX: u32 = 100;
/// After so long without a commit others may use the lane too.
const CLAIM_SECS: u64 = 600;
