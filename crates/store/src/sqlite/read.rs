//! Every query that reads, on whatever connection holds the view.

use std::collections::{BinaryHeap, HashSet};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::fault::Fault;
use crate::{Bounds, Dataset, Found, Listed, PAGE_OCTETS, Realm, RecordId, Refusal, StoreError, Stored, Term};

/// Runs `read` inside one read transaction, so that all its statements see the same state.
pub(super) fn consistent<T>(
    connection: &Connection,
    read: impl FnOnce(&Connection) -> Result<T, Fault>,
) -> Result<T, Fault> {
    connection.prepare_cached("BEGIN")?.execute([])?;
    let result = read(connection)?;
    connection.prepare_cached("COMMIT")?.execute([])?;
    Ok(result)
}

pub(super) fn get(connection: &Connection, realm: Realm, ids: &[RecordId]) -> Result<Vec<Option<Stored>>, Fault> {
    let mut statement = connection
        .prepare_cached("SELECT id, policy, created, modified, data FROM record WHERE realm = ?1 AND id = ?2")?;
    ids.iter()
        .map(|id| {
            Ok(statement
                .query_row(params![realm.0, id.as_bytes()], stored)
                .optional()?)
        })
        .collect()
}

pub(super) fn search(
    connection: &Connection,
    realm: Realm,
    term: &Term,
    after: Option<&RecordId>,
    bounds: Bounds,
) -> Result<Found, Fault> {
    let mut holders = connection
        .prepare_cached("SELECT rec FROM term WHERE realm = ?1 AND kind = ?2 AND text >= ?3 AND text < ?4")?;
    let rows = holders.query_map(params![realm.0, term.kind, term.text, term.end()], |row| row.get(0))?;
    let mut recs = rows.collect::<Result<Vec<i64>, _>>()?;
    recs.sort_unstable();
    recs.dedup();
    if let ([rec], None, 1..) = (&recs[..], after, bounds.records) {
        // Nearly every search ends here: one query for the record, or for its length if it is long.
        let alone = read_or_list(connection, *rec, bounds.octets)?;
        return Ok(alone.map_or_else(Found::default, |alone| match alone {
            Ok(record) => Found {
                records: vec![record],
                rest: Vec::new(),
            },
            Err(listed) => Found {
                records: Vec::new(),
                rest: Vec::from_iter(Some(listed).filter(|_| bounds.listed > 0)),
            },
        }));
    }
    let listed = first_listed(connection, &recs, after, bounds.records.saturating_add(bounds.listed))?;
    let mut found = Found::default();
    let mut octets: usize = 0;
    for (listed, rec) in listed {
        octets = octets.saturating_add(listed.octets);
        let reads = found.rest.is_empty() && found.records.len() < bounds.records && octets <= bounds.octets;
        match reads.then(|| read_or_list(connection, rec, usize::MAX)).transpose()? {
            Some(read) => found.records.extend(read.and_then(Result::ok)),
            None if found.rest.len() < bounds.listed => found.rest.push(listed),
            None => break,
        }
    }
    Ok(found)
}

/// A record of up to `octets_max` octets, or of a longer one its length; nothing if it has just been deleted.
fn read_or_list(connection: &Connection, rec: i64, octets_max: usize) -> Result<Option<Result<Stored, Listed>>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT id, policy, created, modified, CASE WHEN length(data) <= ?2 THEN data END, length(data) \
         FROM record WHERE rec = ?1",
    )?;
    let row = statement.query_row(params![rec, sql_limit(octets_max)], |row| {
        Ok(match row.get_ref(4)? {
            ValueRef::Null => Err(Listed {
                id: record_id(row, 0)?,
                octets: length(row, 5)?,
            }),
            _ => Ok(stored(row)?),
        })
    });
    Ok(row.optional()?)
}

/// The first `limit` of these records after `after`, in order of their ids. However many there are, no more are held.
fn first_listed(
    connection: &Connection,
    recs: &[i64],
    after: Option<&RecordId>,
    limit: usize,
) -> Result<Vec<(Listed, i64)>, Fault> {
    let mut statement = connection.prepare_cached("SELECT id, length(data) FROM record WHERE rec = ?1")?;
    let mut first = BinaryHeap::new();
    for &rec in recs {
        let listed = statement.query_row([rec], |row| {
            Ok(Listed {
                id: record_id(row, 0)?,
                octets: length(row, 1)?,
            })
        });
        let Some(listed) = listed.optional()? else { continue };
        if after.is_none_or(|after| listed.id > *after) {
            first.push((listed, rec));
        }
        if first.len() > limit {
            first.pop();
        }
    }
    Ok(first.into_sorted_vec())
}

pub(super) fn holders(connection: &Connection, realm: Realm, term: &Term, limit: usize) -> Result<usize, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT count(*) FROM (
             SELECT DISTINCT rec FROM term WHERE realm = ?1 AND kind = ?2 AND text >= ?3 AND text < ?4 LIMIT ?5)",
    )?;
    let bounds = params![realm.0, term.kind, term.text, term.end(), sql_limit(limit)];
    Ok(statement.query_row(bounds, |row| length(row, 0))?)
}

pub(super) fn by_element(
    connection: &Connection,
    realm: Realm,
    dataset: Dataset,
    elements: &[Vec<u8>],
) -> Result<Vec<Listed>, Fault> {
    let mut holders = connection.prepare_cached(
        "SELECT id, (SELECT length(data) FROM record WHERE record.realm = element.realm AND record.id = element.id) \
         FROM element WHERE dataset = ?1 AND bytes = ?2 AND realm = ?3",
    )?;
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for bytes in elements {
        let rows = holders.query_map(params![dataset.0, bytes, realm.0], |row| {
            let octets: Option<i64> = row.get(1)?;
            let id = record_id(row, 0)?;
            Ok(octets.map(|octets| Listed {
                id,
                octets: usize::try_from(octets).unwrap_or(usize::MAX),
            }))
        })?;
        for listed in rows {
            let Some(listed) = listed? else { continue };
            if seen.insert(listed.id.clone()) {
                found.push(listed);
            }
        }
    }
    Ok(found)
}

pub(super) fn lacking(connection: &Connection, dataset: Dataset, elements: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Fault> {
    let mut holder = connection.prepare_cached("SELECT 1 FROM element WHERE dataset = ?1 AND bytes = ?2")?;
    let mut lacking = Vec::new();
    for bytes in elements {
        if !holder.exists(params![dataset.0, bytes])? {
            lacking.push(bytes.clone());
        }
    }
    Ok(lacking)
}

pub(super) fn range(
    connection: &Connection,
    dataset: Dataset,
    first: &[u8],
    last: &[u8],
    limit: usize,
) -> Result<Vec<Vec<u8>>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT DISTINCT bytes FROM element WHERE dataset = ?1 AND bytes BETWEEN ?2 AND ?3 ORDER BY bytes LIMIT ?4",
    )?;
    let rows = statement.query_map(params![dataset.0, first, last, sql_limit(limit)], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn refusals(
    connection: &Connection,
    source: &str,
    dataset: Dataset,
    elements: &[Vec<u8>],
) -> Result<Vec<Refusal>, Fault> {
    let mut statement = connection
        .prepare_cached("SELECT bytes, times, until FROM refusal WHERE source = ?1 AND dataset = ?2 AND bytes = ?3")?;
    let mut found = Vec::new();
    for bytes in elements {
        let row = statement.query_row(params![source, dataset.0, bytes], |row| {
            Ok(Refusal {
                element: row.get(0)?,
                times: row.get(1)?,
                until: row.get::<_, i64>(2)?.cast_unsigned(),
            })
        });
        found.extend(row.optional()?);
    }
    Ok(found)
}

pub(super) fn refusal_count(connection: &Connection, source: &str) -> Result<u64, Fault> {
    let mut statement = connection.prepare_cached("SELECT count(*) FROM refusal WHERE source = ?1")?;
    Ok(statement
        .query_row([source], |row| row.get::<_, i64>(0))?
        .cast_unsigned())
}

pub(super) fn note(connection: &Connection, key: &str) -> Result<Option<Vec<u8>>, Fault> {
    let mut statement = connection.prepare_cached("SELECT value FROM note WHERE key = ?1")?;
    Ok(statement.query_row([key], |row| row.get(0)).optional()?)
}

pub(super) fn records(
    connection: &Connection,
    realm: Realm,
    after: Option<&RecordId>,
    limit: usize,
) -> Result<Vec<Stored>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT id, policy, created, modified, data FROM record WHERE realm = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
    )?;
    let after = after.map_or(&[][..], RecordId::as_bytes);
    let mut rows = statement.query(params![realm.0, after, sql_limit(limit)])?;
    let (mut page, mut octets) = (Vec::new(), 0);
    while octets < PAGE_OCTETS
        && let Some(row) = rows.next()?
    {
        let stored = stored(row)?;
        octets += stored.data.len();
        page.push(stored);
    }
    Ok(page)
}

/// Rows of one term lie in the order of `rec`, so a page is read to the end of its last term and then sorted by id.
pub(super) fn terms(
    connection: &Connection,
    realm: Realm,
    after: Option<&(Term, RecordId)>,
    limit: usize,
) -> Result<Vec<(Term, RecordId)>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT rec, kind, text FROM term WHERE realm = ?1 AND (kind, text) >= (?2, ?3) ORDER BY kind, text",
    )?;
    let (kind, text) = after.map_or((0, &[][..]), |(term, _)| (term.kind, &term.text));
    let mut rows = statement.query(params![realm.0, kind, text])?;
    let mut page: Vec<(i64, Term)> = Vec::new();
    // Rows of the term that the last page ended in; some of them may have been on that page.
    let mut continued = 0;
    while let Some(row) = rows.next()? {
        let term = Term {
            kind: row.get(1)?,
            text: row.get(2)?,
        };
        if page.len() - continued >= limit && page.last().is_none_or(|(_, last)| *last != term) {
            break;
        }
        continued += usize::from(after.is_some_and(|(last, _)| *last == term));
        page.push((row.get(0)?, term));
    }
    // In the order of `rec`, records that lie together are looked up together.
    page.sort_unstable_by_key(|(rec, _)| *rec);
    let recs: Vec<i64> = page.iter().map(|(rec, _)| *rec).collect();
    let ids = ids_of(connection, &recs)?;
    let mut found: Vec<_> = page.into_iter().zip(ids).map(|((_, term), id)| (term, id)).collect();
    found.retain(|row| after.is_none_or(|after| row > after));
    found.sort_unstable();
    found.truncate(limit);
    Ok(found)
}

pub(super) fn elements(
    connection: &Connection,
    dataset: Dataset,
    after: Option<&(Vec<u8>, RecordId)>,
    limit: usize,
) -> Result<Vec<(Vec<u8>, RecordId)>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT bytes, id FROM element WHERE dataset = ?1 AND (bytes, id) > (?2, ?3) ORDER BY bytes, id LIMIT ?4",
    )?;
    let (bytes, id) = after.map_or((&[][..], &[][..]), |(bytes, id)| (bytes, id.as_bytes()));
    let rows = statement.query_map(params![dataset.0, bytes, id, sql_limit(limit)], |row| {
        Ok((row.get(0)?, record_id(row, 1)?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The ids of records, in the same order; of one that is gone, its number.
fn ids_of(connection: &Connection, recs: &[i64]) -> Result<Vec<RecordId>, Fault> {
    let mut statement = connection.prepare_cached("SELECT id FROM record WHERE rec = ?1")?;
    let gone = |rec: i64| RecordId::new(&rec.to_be_bytes()).expect("eight octets are an id");
    recs.iter()
        .map(|&rec| {
            let id = statement.query_row([rec], |row| record_id(row, 0)).optional()?;
            Ok(id.unwrap_or_else(|| gone(rec)))
        })
        .collect()
}

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored {
        id: record_id(row, 0)?,
        policy: row.get(1)?,
        created: row.get::<_, i64>(2)?.cast_unsigned(),
        modified: row.get::<_, i64>(3)?.cast_unsigned(),
        data: row.get(4)?,
    })
}

fn record_id(row: &Row<'_>, column: usize) -> rusqlite::Result<RecordId> {
    let octets = row.get_ref(column)?.as_blob()?;
    RecordId::new(octets).ok_or_else(|| {
        let damaged = StoreError::Damaged(format!("an id of {} octets", octets.len()));
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Blob, Box::new(damaged))
    })
}

fn length(row: &Row<'_>, column: usize) -> rusqlite::Result<usize> {
    Ok(usize::try_from(row.get::<_, i64>(column)?).unwrap_or(usize::MAX))
}

fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn sql_number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
