//! The change log: one row a transaction, with every element that came or went and what the store then counts.
//!
//! The newest row is the one place that every commit has to write besides the rows of its records: it ends the B-tree,
//! so a commit adds to the page that it added to last time, and neither the number of the newest change nor the counts
//! of records need a page of their own. Of an old row only its elements are forgotten as long as it is the newest.
//!
//! ```text
//! counts:    realm (1 octet), records; for each realm that ever had any
//! elements:  dataset (1 octet), 2·length + (1 if it came), octets; for each change, oldest first
//! ```
//!
//! Numbers are LEB128. SQLite lets one transaction write at a time, in whatever process, and the newest row is read and
//! followed inside it: one lane serves all processes and the version vector never grows.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::fault::Fault;
use super::read::sql_number;
use crate::derived::{number, read_number, read_octets};
use crate::{ChangeRow, Dataset, Element, Realm, StoreError, Vector};

/// What a transaction adds to the log.
#[derive(Default)]
pub(super) struct Entry {
    /// The newest change of the row before.
    before: u64,
    changes: u64,
    elements: Vec<u8>,
    counts: BTreeMap<Realm, u64>,
    counts_changed: bool,
}

impl Entry {
    /// Follows the newest row.
    pub(super) fn begin(connection: &Connection) -> Result<Self, Fault> {
        let (before, counts) = newest(connection)?;
        Ok(Self {
            before,
            counts,
            ..Self::default()
        })
    }

    /// An element that came or went.
    pub(super) fn add(&mut self, element: &Element, added: bool) {
        self.changes += 1;
        self.elements.push(element.dataset.0);
        number(&mut self.elements, element.bytes.len() << 1 | usize::from(added));
        self.elements.extend_from_slice(&element.bytes);
    }

    /// Counts records that came, or went if there are less than none.
    pub(super) fn tally(&mut self, realm: Realm, more: i64) {
        let count = self.counts.entry(realm).or_default();
        *count = count.saturating_add_signed(more);
        self.counts_changed |= more != 0;
    }

    /// Writes the row, if there is anything to say.
    pub(super) fn write(&self, connection: &Connection, time: u64) -> Result<(), Fault> {
        let counts = encode_counts(&self.counts);
        if self.changes > 0 {
            let newest = sql_number(self.before + self.changes);
            connection
                .prepare_cached("INSERT INTO change (newest, time, counts, elements) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![newest, sql_number(time), counts, self.elements])?;
        } else if self.counts_changed {
            connection
                .prepare_cached("UPDATE change SET counts = ?2 WHERE newest = ?1")?
                .execute(params![sql_number(self.before), counts])?;
        }
        Ok(())
    }
}

/// Changes after `since`, oldest first, at most `limit`.
pub(super) fn changes(connection: &Connection, since: &Vector, limit: usize) -> Result<Vec<ChangeRow>, Fault> {
    let seen = since.get(&WRITER).copied().unwrap_or(0);
    let mut statement =
        connection.prepare_cached("SELECT newest, time, elements FROM change WHERE newest > ?1 ORDER BY newest")?;
    let mut rows = statement.query([sql_number(seen)])?;
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        let (newest, time) = (
            row.get::<_, i64>(0)?.cast_unsigned(),
            row.get::<_, i64>(1)?.cast_unsigned(),
        );
        let elements = decode_elements(row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?)
            .ok_or_else(|| StoreError::Damaged(format!("the changes up to {newest} can't be read")))?;
        let first = (newest + 1).saturating_sub(elements.len() as u64);
        let changes = (first..).zip(elements).filter(|(n, _)| *n > seen);
        let left = limit - found.len();
        found.extend(changes.take(left).map(|(n, (element, added))| ChangeRow {
            writer: WRITER,
            n,
            element,
            added,
            time,
        }));
    }
    Ok(found)
}

/// The newest change there is.
pub(super) fn vector(connection: &Connection) -> Result<Vector, Fault> {
    let mut statement = connection.prepare_cached("SELECT coalesce(max(newest), 0) FROM change")?;
    let newest = statement.query_row([], |row| row.get::<_, i64>(0))?;
    Ok(Vector::from([(WRITER, newest.cast_unsigned())]))
}

/// Records of a realm.
pub(super) fn count(connection: &Connection, realm: Realm) -> Result<u64, Fault> {
    Ok(newest(connection)?.1.get(&realm).copied().unwrap_or(0))
}

/// Forgets the changes of the oldest transactions, up to the first that is not older than `before`, of at most
/// `rows_max`. Returns how many of them are gone.
pub(super) fn forget(connection: &Connection, before: u64, rows_max: i64) -> Result<usize, Fault> {
    let before = sql_number(before);
    let mut statement = connection.prepare_cached(
        "DELETE FROM change WHERE newest < (
             SELECT coalesce(min(newest) FILTER (WHERE time >= ?1), max(newest))
             FROM (SELECT newest, time FROM change ORDER BY newest LIMIT ?2))",
    )?;
    let gone = statement.execute([before, rows_max])?;
    if gone == 0 {
        connection
            .prepare_cached(
                "UPDATE change SET elements = x'' WHERE time < ?1 AND elements <> x''
                 AND newest = (SELECT min(newest) FROM change) AND newest = (SELECT max(newest) FROM change)",
            )?
            .execute([before])?;
    }
    Ok(gone)
}

fn newest(connection: &Connection) -> Result<(u64, BTreeMap<Realm, u64>), Fault> {
    let mut statement = connection.prepare_cached("SELECT newest, counts FROM change ORDER BY newest DESC LIMIT 1")?;
    let (newest, counts) = statement.query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
    let counts = decode_counts(&counts).ok_or_else(|| StoreError::Damaged("the counts can't be read".into()))?;
    Ok((newest.cast_unsigned(), counts))
}

fn encode_counts(counts: &BTreeMap<Realm, u64>) -> Vec<u8> {
    let mut out = Vec::new();
    for (realm, count) in counts {
        out.push(realm.0);
        number(&mut out, usize::try_from(*count).unwrap_or(usize::MAX));
    }
    out
}

fn decode_counts(mut rest: &[u8]) -> Option<BTreeMap<Realm, u64>> {
    let mut counts = BTreeMap::new();
    while !rest.is_empty() {
        let realm = Realm(read_octets(&mut rest, 1)?[0]);
        counts.insert(realm, read_number(&mut rest)? as u64);
    }
    Some(counts)
}

fn decode_elements(mut rest: &[u8]) -> Option<Vec<(Element, bool)>> {
    let mut elements = Vec::new();
    while !rest.is_empty() {
        let dataset = Dataset(read_octets(&mut rest, 1)?[0]);
        let head = read_number(&mut rest)?;
        let bytes = read_octets(&mut rest, head >> 1)?.to_vec();
        elements.push((Element { dataset, bytes }, head & 1 == 1));
    }
    Some(elements)
}

/// The one lane of this engine.
const WRITER: u32 = 1;
