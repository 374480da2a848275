//! What is written beside the records: refusals, and rows that nobody needs any more.

use std::collections::BTreeMap;

use super::connection::Connection;
use super::fault::Fault;
use super::lane::random;
use super::read::{self, number, number_64};
use super::rows::three;
use super::sql;
use crate::{Dataset, Refusal};

/// Notes refusals, or forgets those with zero times.
pub(super) fn refuse(
    connection: &mut Connection,
    source: &str,
    dataset: Dataset,
    refusals: &[Refusal],
) -> Result<(), Fault> {
    let (mut put, mut gone) = (BTreeMap::new(), Vec::new());
    for refusal in refusals {
        match refusal.times {
            0 => gone.push(&refusal.element[..]),
            times => drop(put.insert(&refusal.element[..], (i64::from(times), number_64(refusal.until)))),
        }
    }
    let (bytes, times, until) = three(
        put.into_iter()
            .map(|(bytes, (times, until))| (bytes, times, until))
            .collect(),
    );
    connection.execute(sql::REFUSE, &[&source, &number(dataset.0), &bytes, &times, &until])?;
    connection.execute(sql::UNREFUSE, &[&source, &number(dataset.0), &gone])?;
    Ok(())
}

/// Forgets the refusals of a source that end first, until at most so many are left.
pub(super) fn trim_refusals(connection: &mut Connection, source: &str, most: u64) -> Result<(), Fault> {
    let surplus = read::refusal_count(connection, source)?.saturating_sub(most);
    connection
        .execute(sql::TRIM_REFUSALS, &[&source, &number_64(surplus)])
        .map(drop)
}

/// Writes more than a database without room can take, and takes it back.
pub(super) fn try_much(connection: &mut Connection) -> Result<(), Fault> {
    let mut random = random();
    let octets = (0..PROBE_OCTETS / 8).flat_map(|_| {
        // Xorshift: nothing that could be compressed.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random.to_be_bytes()
    });
    let octets: Vec<u8> = octets.collect();
    connection.execute(sql::BEGIN, &[])?;
    connection.execute(sql::PUT_NOTE, &[&"probe", &octets])?;
    connection.execute(sql::ROLLBACK, &[]).map(drop)
}

/// Forgets refusals that ended before `before`: nobody offered their elements since.
pub(super) fn forget_refusals(connection: &mut Connection, before: u64) -> Result<(), Fault> {
    connection
        .execute(sql::FORGET_REFUSALS, &[&number_64(before)])
        .map(drop)
}

/// Deletes the oldest changes of a lane up to the first that is not older than `before`, about `rows_max` of them; true if
/// there are more.
pub(super) fn forget_changes(
    connection: &mut Connection,
    writer: u32,
    before: u64,
    rows_max: i64,
) -> Result<bool, Fault> {
    let writer = writer.cast_signed();
    let first = |rows: Vec<tokio_postgres::Row>| rows.first().map(|row| read::column::<i64>(row, 0)).transpose();
    let Some(oldest) = first(connection.rows(sql::FIRST_CHANGE, &[&writer])?)? else {
        return Ok(false);
    };
    let young = first(connection.rows(sql::FIRST_YOUNG_CHANGE, &[&writer, &number_64(before)])?)?;
    let end = young.unwrap_or(i64::MAX).min(oldest.saturating_add(rows_max));
    Ok(connection.execute(sql::FORGET_CHANGES, &[&writer, &end])? > 0)
}

/// More than the pages that a table has left over.
const PROBE_OCTETS: usize = 1 << 20;
