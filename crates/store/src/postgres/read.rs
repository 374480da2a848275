//! Every query that reads, in whatever session or transaction.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::connection::Connection;
use super::fault::Fault;
use super::sql;
use crate::{
    Bounds, ChangeRow, Component, Dataset, Element, Found, Listed, PAGE_OCTETS, Realm, RecordId, Refusal, StoreError,
    Stored, Term, Vector,
};

pub(super) fn get(connection: &mut Connection, realm: Realm, ids: &[RecordId]) -> Result<Vec<Option<Stored>>, Fault> {
    let asked: Vec<&[u8]> = ids.iter().map(RecordId::as_bytes).collect();
    let rows = connection.rows(sql::GET, &[&number(realm.0), &asked])?;
    let found = rows.iter().map(|row| {
        let stored = stored(row)?;
        Ok((stored.id.clone(), stored))
    });
    let found = found.collect::<Result<HashMap<_, _>, Fault>>()?;
    Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
}

pub(super) fn search(
    connection: &mut Connection,
    realm: Realm,
    term: &Term,
    after: Option<&RecordId>,
    bounds: Bounds,
) -> Result<Found, Fault> {
    let rows = connection.rows(
        sql::SEARCH,
        &[
            &key(term),
            &end(term),
            &number(realm.0),
            &octets_of(after),
            &limit(bounds.records),
            &limit(bounds.octets),
            &limit(bounds.records.saturating_add(bounds.listed)),
        ],
    )?;
    let mut found = Found::default();
    for row in &rows {
        match column::<Option<&[u8]>>(row, 4)? {
            Some(_) => found.records.push(stored(row)?),
            None if found.rest.len() < bounds.listed => found.rest.push(listed(row, 0, 5)?),
            None => break,
        }
    }
    Ok(found)
}

pub(super) fn holders(connection: &mut Connection, realm: Realm, term: &Term, most: usize) -> Result<usize, Fault> {
    let rows = connection.rows(sql::HOLDERS, &[&key(term), &end(term), &number(realm.0), &limit(most)])?;
    Ok(one::<i64>(&rows)?.try_into().unwrap_or(usize::MAX))
}

pub(super) fn by_element(
    connection: &mut Connection,
    realm: Realm,
    dataset: Dataset,
    elements: &[Vec<u8>],
) -> Result<Vec<Listed>, Fault> {
    let rows = connection.rows(sql::BY_ELEMENT, &[&number(dataset.0), &elements])?;
    let mut holders: HashMap<Vec<u8>, Vec<RecordId>> = HashMap::new();
    for row in &rows {
        let of_realm = self::ids(row, 1)?.into_iter().filter(|(of, _)| *of == realm);
        holders.insert(column(row, 0)?, of_realm.map(|(_, id)| id).collect());
    }
    let mut seen = HashSet::new();
    let asked = elements.iter().filter_map(|element| holders.get(element)).flatten();
    let ids: Vec<&RecordId> = asked.filter(|id| seen.insert(*id)).collect();
    let octets: Vec<&[u8]> = ids.iter().map(|id| id.as_bytes()).collect();
    let rows = connection.rows(sql::LENGTHS, &[&number(realm.0), &octets])?;
    let lengths = rows.iter().map(|row| Ok((record_id(row, 0)?, listed(row, 0, 1)?)));
    let mut lengths = lengths.collect::<Result<HashMap<_, _>, Fault>>()?;
    // One that has just been deleted is passed over.
    Ok(ids.into_iter().filter_map(|id| lengths.remove(id)).collect())
}

pub(super) fn lacking(
    connection: &mut Connection,
    dataset: Dataset,
    elements: &[Vec<u8>],
) -> Result<Vec<Vec<u8>>, Fault> {
    let rows = connection.rows(sql::BY_ELEMENT, &[&number(dataset.0), &elements])?;
    let held = rows
        .iter()
        .map(|row| column(row, 0))
        .collect::<Result<HashSet<Vec<u8>>, Fault>>()?;
    Ok(elements
        .iter()
        .filter(|element| !held.contains(*element))
        .cloned()
        .collect())
}

pub(super) fn range(
    connection: &mut Connection,
    dataset: Dataset,
    first: &[u8],
    last: &[u8],
    most: usize,
) -> Result<Vec<Vec<u8>>, Fault> {
    let rows = connection.rows(sql::RANGE, &[&number(dataset.0), &first, &last, &limit(most)])?;
    rows.iter().map(|row| column(row, 0)).collect()
}

/// Change rows of all lanes; in one view, so that no lane is read further than what it follows from in another.
pub(super) fn changes(connection: &mut Connection, since: &Vector, most: usize) -> Result<Vec<ChangeRow>, Fault> {
    let mut found = Vec::new();
    for (writer, newest) in vector(connection)? {
        let seen = since.get(&writer).copied().unwrap_or(0);
        if newest <= seen || found.len() >= most {
            continue;
        }
        let rows = connection.rows(
            sql::CHANGES,
            &[&writer.cast_signed(), &number_64(seen), &limit(most - found.len())],
        )?;
        for row in &rows {
            found.push(change(row)?);
        }
    }
    Ok(found)
}

pub(super) fn vector(connection: &mut Connection) -> Result<Vector, Fault> {
    let rows = connection.rows(sql::VECTOR, &[])?;
    rows.iter()
        .map(|row| Ok((column::<i32>(row, 0)?.cast_unsigned(), unsigned(row, 1)?)))
        .collect()
}

pub(super) fn refusals(
    connection: &mut Connection,
    source: &str,
    dataset: Dataset,
    elements: &[Vec<u8>],
) -> Result<Vec<Refusal>, Fault> {
    let rows = connection.rows(sql::REFUSALS, &[&source, &number(dataset.0), &elements])?;
    let mut known = HashMap::new();
    for row in &rows {
        let refusal = Refusal {
            element: column(row, 0)?,
            times: unsigned(row, 1)?.try_into().unwrap_or(u32::MAX),
            until: unsigned(row, 2)?,
        };
        known.insert(refusal.element.clone(), refusal);
    }
    Ok(elements
        .iter()
        .filter_map(|element| known.get(element).cloned())
        .collect())
}

pub(super) fn refusal_count(connection: &mut Connection, source: &str) -> Result<u64, Fault> {
    let rows = connection.rows(sql::REFUSAL_COUNT, &[&source])?;
    Ok(one::<i64>(&rows)?.cast_unsigned())
}

pub(super) fn count(connection: &mut Connection, realm: Realm) -> Result<u64, Fault> {
    let rows = connection.rows(sql::COUNT, &[&number(realm.0)])?;
    Ok(one::<i64>(&rows)?.cast_unsigned())
}

/// How many records there are more than were counted.
pub(super) fn uncounted(connection: &mut Connection, realm: Realm) -> Result<i64, Fault> {
    one(&connection.rows(sql::UNCOUNTED, &[&number(realm.0)])?)
}

pub(super) fn note(connection: &mut Connection, key: &str) -> Result<Option<Vec<u8>>, Fault> {
    let rows = connection.rows(sql::NOTE, &[&key])?;
    rows.first().map(|row| column(row, 0)).transpose()
}

pub(super) fn records(
    connection: &mut Connection,
    realm: Realm,
    after: Option<&RecordId>,
    most: usize,
) -> Result<Vec<Stored>, Fault> {
    let rows = connection.rows(
        sql::RECORDS,
        &[&number(realm.0), &octets_of(after), &limit(most), &limit(PAGE_OCTETS)],
    )?;
    rows.iter().map(stored).collect()
}

pub(super) fn terms(
    connection: &mut Connection,
    realm: Realm,
    after: Option<&(Term, RecordId)>,
    most: usize,
) -> Result<Vec<(Term, RecordId)>, Fault> {
    let term = after.map_or_else(Vec::new, |(term, _)| key(term));
    let id = octets_of(after.map(|(_, id)| id));
    let rows = connection.rows(sql::TERMS, &[&number(realm.0), &term, &id, &limit(most)])?;
    rows.iter()
        .map(|row| Ok((self::term(row, 0)?, record_id(row, 1)?)))
        .collect()
}

pub(super) fn components(
    connection: &mut Connection,
    realm: Realm,
    after: Option<&(RecordId, u32)>,
    most: usize,
) -> Result<Vec<(RecordId, Component)>, Fault> {
    let id = octets_of(after.map(|(id, _)| id));
    let place = after.map_or(-1, |(_, place)| place.cast_signed());
    let rows = connection.rows(sql::COMPONENTS, &[&number(realm.0), &id, &place, &limit(most)])?;
    rows.iter().map(component).collect()
}

/// The components of these records.
pub(super) fn components_of(
    connection: &mut Connection,
    realm: Realm,
    ids: &[&[u8]],
) -> Result<Vec<(RecordId, Component)>, Fault> {
    let rows = connection.rows(sql::COMPONENTS_OF, &[&number(realm.0), &ids])?;
    rows.iter().map(component).collect()
}

fn component(row: &Row) -> Result<(RecordId, Component), Fault> {
    let small = |at: usize| -> Result<Option<u8>, Fault> {
        // What is out of range is not what was written.
        Ok(column::<Option<i16>>(row, at)?.map(|number| number.try_into().unwrap_or(u8::MAX)))
    };
    let time = |at: usize| Ok::<_, Fault>(column::<Option<i64>>(row, at)?.map(i64::cast_unsigned));
    let component = Component {
        place: column::<i32>(row, 1)?.cast_unsigned(),
        kind: small(2)?.unwrap_or_default(),
        version: small(3)?,
        fingerprint: column(row, 4)?,
        text: column(row, 5)?,
        algorithm: small(6)?,
        bits: time(7)?.map(|bits| bits.try_into().unwrap_or(u32::MAX)),
        created: time(8)?,
        expires: time(9)?,
        revoked: time(10)?,
    };
    Ok((record_id(row, 0)?, component))
}

/// A row of the table can stand for several here, and the first may have been given to its end already.
pub(super) fn elements(
    connection: &mut Connection,
    dataset: Dataset,
    after: Option<&(Vec<u8>, RecordId)>,
    most: usize,
) -> Result<Vec<(Vec<u8>, RecordId)>, Fault> {
    let first = after.map_or(&[][..], |(bytes, _)| bytes);
    let rows = connection.rows(
        sql::ELEMENTS,
        &[&number(dataset.0), &first, &limit(most.saturating_add(1))],
    )?;
    let mut found = Vec::new();
    for row in &rows {
        let bytes: Vec<u8> = column(row, 0)?;
        let mut ids: Vec<_> = self::ids(row, 1)?.into_iter().map(|(_, id)| id).collect();
        ids.sort_unstable();
        found.extend(ids.into_iter().map(|id| (bytes.clone(), id)));
    }
    found.retain(|row| after.is_none_or(|after| row > after));
    found.truncate(most);
    Ok(found)
}

/// The first five columns of a record's row.
pub(super) fn stored(row: &Row) -> Result<Stored, Fault> {
    Ok(Stored {
        id: record_id(row, 0)?,
        policy: column::<i32>(row, 1)?.cast_unsigned(),
        created: unsigned(row, 2)?,
        modified: unsigned(row, 3)?,
        data: column(row, 4)?,
    })
}

fn listed(row: &Row, id: usize, octets: usize) -> Result<Listed, Fault> {
    Ok(Listed {
        id: record_id(row, id)?,
        octets: column::<i32>(row, octets)?.try_into().unwrap_or(usize::MAX),
    })
}

fn change(row: &Row) -> Result<ChangeRow, Fault> {
    Ok(ChangeRow {
        writer: column::<i32>(row, 0)?.cast_unsigned(),
        n: unsigned(row, 1)?,
        element: Element {
            dataset: Dataset(octet(row, 2)?),
            bytes: column(row, 3)?,
        },
        added: column(row, 4)?,
        time: unsigned(row, 5)?,
    })
}

fn record_id(row: &Row, at: usize) -> Result<RecordId, Fault> {
    let octets: &[u8] = column(row, at)?;
    RecordId::new(octets).ok_or_else(|| damaged(format!("an id of {} octets", octets.len())))
}

fn term(row: &Row, at: usize) -> Result<Term, Fault> {
    let octets: &[u8] = column(row, at)?;
    let (kind, text) = octets
        .split_first()
        .ok_or_else(|| damaged("a term without a kind".to_owned()))?;
    Ok(Term {
        kind: *kind,
        text: text.to_vec(),
    })
}

/// Realms and ids of an element's holders.
fn ids(row: &Row, at: usize) -> Result<Vec<(Realm, RecordId)>, Fault> {
    let holders: Vec<&[u8]> = column(row, at)?;
    let read = |holder: &[u8]| {
        let (realm, id) = holder.split_first()?;
        Some((Realm(*realm), RecordId::new(id)?))
    };
    let ids = holders
        .into_iter()
        .map(|holder| read(holder).ok_or_else(|| damaged("an element's holder".to_owned())));
    ids.collect()
}

/// A term as the table has it.
pub(super) fn key(term: &Term) -> Vec<u8> {
    [&[term.kind], &term.text[..]].concat()
}

/// The first row behind all that begin with a term.
fn end(term: &Term) -> Vec<u8> {
    [&[term.kind], &term.end()[..]].concat()
}

/// A record that holds an element, as the table has it.
pub(super) fn holder(realm: Realm, id: &RecordId) -> Vec<u8> {
    [&[realm.0], id.as_bytes()].concat()
}

pub(super) fn column<'a, T: FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, Fault> {
    Ok(row.try_get(at)?)
}

/// The only column of the only row.
pub(super) fn one<T: for<'a> FromSql<'a>>(rows: &[Row]) -> Result<T, Fault> {
    let row = rows
        .first()
        .ok_or_else(|| damaged("no answer to a question".to_owned()))?;
    column(row, 0)
}

pub(super) fn octet(row: &Row, at: usize) -> Result<u8, Fault> {
    let number: i16 = column(row, at)?;
    number
        .try_into()
        .map_err(|_| damaged(format!("the number {number} of a realm or dataset")))
}

pub(super) fn unsigned(row: &Row, at: usize) -> Result<u64, Fault> {
    Ok(column::<i64>(row, at)?.cast_unsigned())
}

fn damaged(what: String) -> Fault {
    StoreError::Damaged(format!("the database holds {what}")).into()
}

fn octets_of(id: Option<&RecordId>) -> &[u8] {
    id.map_or(&[], RecordId::as_bytes)
}

pub(super) fn number(number: u8) -> i16 {
    number.into()
}

pub(super) fn number_64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
