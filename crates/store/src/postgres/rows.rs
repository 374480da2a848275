//! The rows that come from records: with a handful of statements for all records of a transaction.

use std::collections::BTreeMap;

use tokio_postgres::types::ToSql;

use super::connection::Connection;
use super::fault::Fault;
use super::read::{self, holder, key, number, number_64};
use super::sql::{self, Sql};
use super::table::{self, Column, Parts};
use crate::batch::{Edit, Kept, difference};
use crate::derived;
use crate::{Component, Dataset, Element, Realm, RecordId};

/// Writes the rows of the records; how many came to each realm, less those that went.
pub(super) fn records(connection: &mut Connection, edits: &[(Realm, Edit<()>)]) -> Result<BTreeMap<Realm, i64>, Fault> {
    let mut tally: BTreeMap<Realm, i64> = BTreeMap::new();
    let (mut insert, mut replace) = (Rows::default(), Rows::default());
    let (mut gone, mut realms): (Vec<&[u8]>, Vec<i16>) = Default::default();
    for (realm, edit) in edits {
        match edit {
            Edit::Insert(new) => {
                *tally.entry(*realm).or_default() += 1;
                insert.push(*realm, new);
            }
            Edit::Replace { new, .. } => replace.push(*realm, new),
            Edit::Delete { old, .. } => {
                *tally.entry(*realm).or_default() -= 1;
                gone.push(old.stored.id.as_bytes());
                realms.push(number(realm.0));
            }
        }
        if insert.octets + replace.octets >= STATEMENT_OCTETS {
            insert.insert(connection)?;
            replace.replace(connection)?;
        }
    }
    insert.insert(connection)?;
    replace.replace(connection)?;
    all(connection, sql::DELETE_RECORDS, gone.len(), &[&gone, &realms])?;
    tally.retain(|_, records| *records != 0);
    Ok(tally)
}

/// Rows of the record table, column by column.
#[derive(Default)]
struct Rows<'a> {
    ids: Vec<&'a [u8]>,
    realms: Vec<i16>,
    policies: Vec<i32>,
    created: Vec<i64>,
    modified: Vec<i64>,
    derived: Vec<Vec<u8>>,
    data: Vec<&'a [u8]>,
    octets: usize,
}

impl<'a> Rows<'a> {
    fn push(&mut self, realm: Realm, kept: &'a Kept) {
        let stored = &kept.stored;
        self.ids.push(stored.id.as_bytes());
        self.realms.push(number(realm.0));
        self.policies.push(stored.policy.cast_signed());
        self.created.push(number_64(stored.created));
        self.modified.push(number_64(stored.modified));
        self.derived.push(derived::encode(kept));
        self.data.push(&stored.data);
        self.octets += stored.data.len();
    }

    fn insert(&mut self, connection: &mut Connection) -> Result<(), Fault> {
        let Self {
            ids,
            realms,
            policies,
            created,
            modified,
            derived,
            data,
            ..
        } = std::mem::take(self);
        let columns: &[&dyn Column] = &[&ids, &realms, &policies, &created, &modified, &derived, &data];
        match table::RECORDS.insert(connection, columns)? == ids.len() as u64 {
            true => Ok(()),
            false => Err(Fault::Conflict),
        }
    }

    fn replace(&mut self, connection: &mut Connection) -> Result<(), Fault> {
        let Self {
            ids,
            realms,
            policies,
            modified,
            derived,
            data,
            ..
        } = std::mem::take(self);
        let parameters: &[&(dyn ToSql + Sync)] = &[&ids, &realms, &policies, &modified, &derived, &data];
        all(connection, sql::REPLACE_RECORDS, ids.len(), parameters)
    }
}

/// Runs a statement that must touch so many rows; if not, somebody else stored or removed one of these records since
/// they were looked for.
fn all(
    connection: &mut Connection,
    statement: Sql,
    rows: usize,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<(), Fault> {
    if rows == 0 || connection.execute(statement, parameters)? == rows as u64 {
        return Ok(());
    }
    Err(Fault::Conflict)
}

/// Writes the rows of the components.
pub(super) fn components(connection: &mut Connection, edits: &[(Realm, Edit<()>)]) -> Result<(), Fault> {
    let (mut gone, mut come) = (Vec::new(), Parts::default());
    for (realm, edit) in edits {
        let lists = (
            edit.before().map(|old| &old.components),
            edit.after().map(|new| &new.components),
        );
        let (old, new) = difference(lists.0, lists.1);
        let place = |old: &Component| (edit.id().as_bytes(), number(realm.0), old.place.cast_signed());
        gone.extend(old.into_iter().map(place));
        new.iter().for_each(|new| come.push(*realm, edit.id(), new));
    }
    delete_components(connection, gone)?;
    come.insert(connection).map(drop)
}

/// A component's record, realm and place.
type Place<'a> = (&'a [u8], i16, i32);

pub(super) fn delete_components(connection: &mut Connection, gone: Vec<Place<'_>>) -> Result<u64, Fault> {
    if gone.is_empty() {
        return Ok(0);
    }
    let (ids, realms, places) = three(gone);
    connection.execute(sql::DELETE_COMPONENTS, &[&ids, &realms, &places])
}

pub(super) fn terms(connection: &mut Connection, edits: &[(Realm, Edit<()>)]) -> Result<(), Fault> {
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    for (realm, edit) in edits {
        let (old, new) = difference(edit.before().map(|old| &old.terms), edit.after().map(|new| &new.terms));
        let row = |term| (key(term), number(realm.0), edit.id().as_bytes());
        gone.extend(old.into_iter().map(row));
        come.extend(new.into_iter().map(row));
    }
    change_terms(connection, gone, come).map(drop)
}

/// A row of the term table.
type Found<'a> = (Vec<u8>, i16, &'a [u8]);

/// Writes rows of terms; how many were not so before.
pub(super) fn change_terms(
    connection: &mut Connection,
    gone: Vec<Found<'_>>,
    come: Vec<Found<'_>>,
) -> Result<u64, Fault> {
    let mut touched = 0;
    for (mut rows, come) in [(gone, false), (come, true)] {
        // Neighbours in the index share its pages, and all writers lock in this order.
        rows.sort_unstable();
        let (terms, realms, ids) = three(rows);
        touched += match (come, terms.len()) {
            (_, 0) => 0,
            (true, _) => table::TERMS.insert(connection, &[&terms, &realms, &ids])?,
            (false, _) => connection.execute(sql::DELETE_TERMS, &[&terms, &realms, &ids])?,
        };
    }
    Ok(touched)
}

/// Writes the rows of the elements; what came into the sets and what left them.
///
/// Elements come before they go: one that moves from record to record within a transaction has never left the set.
pub(super) fn elements(
    connection: &mut Connection,
    edits: &[(Realm, Edit<()>)],
) -> Result<Vec<(Element, bool)>, Fault> {
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    for (realm, edit) in edits {
        let lists = (
            edit.before().map(|old| &old.elements),
            edit.after().map(|new| &new.elements),
        );
        let (old, new) = difference(lists.0, lists.1);
        gone.extend(old.into_iter().map(|element| held(*realm, edit.id(), element)));
        come.extend(new.into_iter().map(|element| held(*realm, edit.id(), element)));
    }
    let mut changes = Vec::new();
    add_holders(connection, come, &mut changes)?;
    remove_holders(connection, gone, &mut changes)?;
    Ok(changes)
}

/// A row of an element: bytes, dataset and holder.
type Held = (Vec<u8>, i16, Vec<u8>);

pub(super) fn held(realm: Realm, id: &RecordId, element: &Element) -> Held {
    (element.bytes.clone(), number(element.dataset.0), holder(realm, id))
}

/// Adds holders to elements; how many were none before.
pub(super) fn add_holders(
    connection: &mut Connection,
    rows: Vec<Held>,
    changes: &mut Vec<(Element, bool)>,
) -> Result<u64, Fault> {
    let mut touched = 0;
    for rows in rounds(rows) {
        let (bytes, datasets, holders) = three(rows);
        if connection.copies && bytes.len() >= table::COPY_ROWS_MIN {
            let arrays: Vec<Vec<&[u8]>> = holders.iter().map(|holder| vec![&holder[..]]).collect();
            table::ELEMENTS.copy(connection, &[&bytes, &datasets, &arrays])?;
            touched += bytes.len() as u64;
            let come = bytes.into_iter().zip(datasets);
            changes.extend(come.map(|(bytes, dataset)| (named(bytes, dataset), true)));
            continue;
        }
        let added = connection.rows(sql::ADD_HOLDERS, &[&bytes, &datasets, &holders])?;
        touched += added.len() as u64;
        for row in &added {
            if read::column::<i32>(row, 2)? == 1 {
                changes.push((element(row)?, true));
            }
        }
    }
    Ok(touched)
}

/// Removes holders from elements; how many were there.
pub(super) fn remove_holders(
    connection: &mut Connection,
    rows: Vec<Held>,
    changes: &mut Vec<(Element, bool)>,
) -> Result<u64, Fault> {
    let mut touched = 0;
    for rows in rounds(rows) {
        let (bytes, datasets, holders) = three(rows);
        let parameters: &[&(dyn ToSql + Sync)] = &[&bytes, &datasets, &holders];
        let mut deleted = connection.rows(sql::DELETE_ELEMENTS, parameters)?;
        touched += deleted.len() as u64;
        if deleted.len() < bytes.len() {
            touched += connection.execute(sql::REMOVE_HOLDERS, parameters)?;
            deleted.extend(connection.rows(sql::DELETE_EMPTY, &[&bytes, &datasets])?);
        }
        for row in &deleted {
            changes.push((element(row)?, false));
        }
    }
    Ok(touched)
}

fn element(row: &tokio_postgres::Row) -> Result<Element, Fault> {
    Ok(Element {
        bytes: read::column(row, 0)?,
        dataset: Dataset(read::octet(row, 1)?),
    })
}

fn named(bytes: Vec<u8>, dataset: i16) -> Element {
    Element {
        bytes,
        // It was made of one.
        dataset: Dataset(dataset as u8),
    }
}

/// Rows in the order of the table, dealt out so that no round has two of one element: nearly always a single one.
fn rounds(mut rows: Vec<Held>) -> Vec<Vec<Held>> {
    rows.sort_unstable();
    let mut rounds: Vec<Vec<Held>> = Vec::new();
    let (mut last, mut round) = (None, 0);
    for row in rows {
        let element = (row.0.clone(), row.1);
        round = if last.as_ref() == Some(&element) { round + 1 } else { 0 };
        last = Some(element);
        if round == rounds.len() {
            rounds.push(Vec::new());
        }
        rounds[round].push(row);
    }
    rounds
}

/// Rows of three columns, column by column.
pub(super) fn three<A, B, C>(rows: Vec<(A, B, C)>) -> (Vec<A>, Vec<B>, Vec<C>) {
    let mut columns = (Vec::new(), Vec::new(), Vec::new());
    for (a, b, c) in rows {
        columns.0.push(a);
        columns.1.push(b);
        columns.2.push(c);
    }
    columns
}

/// Octets of records after which a statement is sent.
const STATEMENT_OCTETS: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_round_has_an_element_twice() {
        let row = |bytes: u8, holder: u8| (vec![bytes], 1, vec![holder]);
        let dealt = rounds(vec![row(2, 1), row(1, 2), row(1, 1), row(1, 3)]);
        assert_eq!(dealt, [vec![row(1, 1), row(2, 1)], vec![row(1, 2)], vec![row(1, 3)]]);
        assert!(rounds(vec![]).is_empty());
    }
}
