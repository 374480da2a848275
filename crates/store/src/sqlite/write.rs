//! Every statement that writes. All of it runs inside the one transaction of the writer thread.

use std::cmp::Reverse;

use rusqlite::{Connection, OptionalExtension, params};

use super::fault::Fault;
use super::{log, read};
use crate::batch::{Edit, Kept, Plan, difference};
use crate::derived;
use crate::{Applied, Batch, Dataset, Element, Realm, RecordId, Refusal, StoreError, Stored, Term};

/// A transaction under way, and what it has to tell the log before it commits.
pub(super) struct Transaction<'a> {
    connection: &'a Connection,
    time: u64,
    log: log::Entry,
}

impl<'a> Transaction<'a> {
    /// Takes the write lock.
    pub(super) fn begin(connection: &'a Connection, time: u64) -> Result<Self, Fault> {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        // Dropped when an error occurs, it rolls back.
        let mut transaction = Self {
            connection,
            time,
            log: log::Entry::default(),
        };
        transaction.log = log::Entry::begin(connection)?;
        Ok(transaction)
    }

    /// Runs one batch; nothing is written unless all of it can be.
    pub(super) fn run(&mut self, batch: &Batch) -> Result<Vec<Applied>, Fault> {
        if let Some((key, value)) = &batch.premise
            && read::note(self.connection, key)?.as_ref() != Some(value)
        {
            return Err(StoreError::Overtaken.into());
        }
        let plan = Plan::make(batch, self.time, |id| self.current(batch.realm, id))?;
        let mut rows = Rows::default();
        for edit in &plan.edits {
            let rec = self.record(batch.realm, edit)?;
            rows.add(edit, rec);
        }
        // In the order of their B-trees, neighbours share the pages that the processor just had in hand.
        rows.terms.sort_unstable();
        rows.elements.sort_unstable();
        self.terms(batch.realm, &rows.terms)?;
        self.elements(batch.realm, &rows.elements)?;
        for (key, value) in &batch.notes {
            self.note(key, value.as_deref())?;
        }
        Ok(plan.applied)
    }

    /// Writes the row of the log and makes everything durable.
    pub(super) fn commit(self) -> Result<(), Fault> {
        self.log.write(self.connection, self.time)?;
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    pub(super) fn note(&self, key: &str, value: Option<&[u8]>) -> Result<(), Fault> {
        match value {
            Some(value) => self
                .connection
                .prepare_cached("INSERT OR REPLACE INTO note (key, value) VALUES (?1, ?2)")?
                .execute(params![key, value])?,
            None => self
                .connection
                .prepare_cached("DELETE FROM note WHERE key = ?1")?
                .execute([key])?,
        };
        Ok(())
    }

    pub(super) fn refuse(&self, source: &str, dataset: Dataset, refusals: &[Refusal]) -> Result<(), Fault> {
        let mut insert = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO refusal (source, dataset, bytes, times, until) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let mut delete = self
            .connection
            .prepare_cached("DELETE FROM refusal WHERE source = ?1 AND dataset = ?2 AND bytes = ?3")?;
        for refusal in refusals {
            let Refusal { element, times, until } = refusal;
            match times {
                0 => delete.execute(params![source, dataset.0, element])?,
                _ => insert.execute(params![source, dataset.0, element, times, read::sql_number(*until)])?,
            };
        }
        Ok(())
    }

    pub(super) fn connection(&self) -> &'a Connection {
        self.connection
    }

    pub(super) fn log(&mut self) -> &mut log::Entry {
        &mut self.log
    }

    /// A record and what it has rows for. A list of these that can't be read counts as empty: whatever it named and is
    /// named no more is found by looking at all rows.
    pub(super) fn current(&self, realm: Realm, id: &RecordId) -> Result<Option<(i64, Kept)>, Fault> {
        let mut statement = self.connection.prepare_cached(
            "SELECT rec, policy, created, modified, derived, data FROM record WHERE realm = ?1 AND id = ?2",
        )?;
        let row = statement.query_row(params![realm.0, id.as_bytes()], |row| {
            let stored = Stored {
                id: id.clone(),
                policy: row.get(1)?,
                created: row.get::<_, i64>(2)?.cast_unsigned(),
                modified: row.get::<_, i64>(3)?.cast_unsigned(),
                data: row.get(5)?,
            };
            Ok((row.get(0)?, stored, row.get::<_, Vec<u8>>(4)?))
        });
        let Some((rec, stored, derived)) = row.optional()? else {
            return Ok(None);
        };
        let (terms, elements, components) = derived::decode(id, &stored.data, &derived).unwrap_or_default();
        Ok(Some((
            rec,
            Kept {
                stored,
                terms,
                elements,
                components,
            },
        )))
    }

    /// Writes the row of one record and returns its number.
    fn record(&mut self, realm: Realm, edit: &Edit<i64>) -> Result<i64, Fault> {
        match edit {
            Edit::Insert(new) => self.insert(realm, new),
            Edit::Replace { handle, new, .. } => self.replace(*handle, new),
            Edit::Delete { handle, .. } => self.delete(realm, *handle),
        }
    }

    fn insert(&mut self, realm: Realm, new: &Kept) -> Result<i64, Fault> {
        let (stored, derived) = (&new.stored, derived::encode(new));
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO record (realm, id, policy, created, modified, derived, data)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        self.log.tally(realm, 1);
        Ok(statement.insert(params![
            realm.0,
            stored.id.as_bytes(),
            stored.policy,
            read::sql_number(stored.created),
            read::sql_number(stored.modified),
            derived,
            stored.data
        ])?)
    }

    fn replace(&self, rec: i64, new: &Kept) -> Result<i64, Fault> {
        let (stored, derived) = (&new.stored, derived::encode(new));
        let mut statement = self
            .connection
            .prepare_cached("UPDATE record SET policy = ?2, modified = ?3, derived = ?4, data = ?5 WHERE rec = ?1")?;
        let modified = read::sql_number(stored.modified);
        statement.execute(params![rec, stored.policy, modified, derived, stored.data])?;
        Ok(rec)
    }

    fn delete(&mut self, realm: Realm, rec: i64) -> Result<i64, Fault> {
        self.connection
            .prepare_cached("DELETE FROM record WHERE rec = ?1")?
            .execute([rec])?;
        self.log.tally(realm, -1);
        Ok(rec)
    }

    fn terms(&self, realm: Realm, rows: &[(&Term, Rank, i64)]) -> Result<(), Fault> {
        let mut insert = self
            .connection
            .prepare_cached("INSERT OR IGNORE INTO term (realm, kind, text, rec) VALUES (?1, ?2, ?3, ?4)")?;
        let mut delete = self
            .connection
            .prepare_cached("DELETE FROM term WHERE realm = ?1 AND kind = ?2 AND text = ?3 AND rec = ?4")?;
        for (term, rank, rec) in rows {
            let statement = if *rank == Rank::Come { &mut insert } else { &mut delete };
            statement.execute(params![realm.0, term.kind, term.text, rec])?;
        }
        Ok(())
    }

    fn elements(&mut self, realm: Realm, rows: &[(&Element, Reverse<Rank>, &RecordId)]) -> Result<(), Fault> {
        let mut insert = self
            .connection
            .prepare_cached("INSERT OR IGNORE INTO element (dataset, bytes, id, realm) VALUES (?1, ?2, ?3, ?4)")?;
        let mut delete = self
            .connection
            .prepare_cached("DELETE FROM element WHERE dataset = ?1 AND bytes = ?2 AND id = ?3 AND realm = ?4")?;
        for (element, Reverse(rank), id) in rows {
            let row = params![element.dataset.0, element.bytes, id.as_bytes(), realm.0];
            let (held, come) = match rank {
                Rank::Come => (self.held(element)?, insert.execute(row)? > 0),
                Rank::Gone => (delete.execute(row)? == 0 || self.held(element)?, false),
            };
            if !held {
                self.log.add(element, come);
            }
        }
        Ok(())
    }

    /// Whether any record holds the element.
    pub(super) fn held(&self, element: &Element) -> Result<bool, Fault> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT 1 FROM element WHERE dataset = ?1 AND bytes = ?2")?;
        Ok(statement.exists(params![element.dataset.0, element.bytes])?)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // Not committed, or SQLite would be in autocommit mode. Some errors roll back by themselves.
        if !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }
}

/// Deletes refusals that ended before `before`: nobody offered their elements since.
pub(super) fn forget_refusals(connection: &Connection, before: u64) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached("DELETE FROM refusal WHERE until < ?1")?;
    statement.execute([read::sql_number(before)])?;
    Ok(())
}

/// Deletes the refusals of a source that end first, until at most so many are left.
pub(super) fn trim_refusals(connection: &Connection, source: &str, most: u64) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM refusal WHERE source = ?1 AND (dataset, bytes) IN (
             SELECT dataset, bytes FROM refusal WHERE source = ?1 ORDER BY until
             LIMIT max(0, (SELECT count(*) FROM refusal WHERE source = ?1) - ?2))",
    )?;
    statement.execute(params![source, read::sql_number(most)])?;
    Ok(())
}

/// The rows that a batch adds to the term and element tables and removes from them.
#[derive(Default)]
struct Rows<'a> {
    terms: Vec<(&'a Term, Rank, i64)>,
    elements: Vec<(&'a Element, Reverse<Rank>, &'a RecordId)>,
}

/// Whether a row goes or comes. Terms go before they come: a deleted record's number may have gone to a new one. Elements
/// come before they go: one that moves from record to record within a batch has never left the set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Gone,
    Come,
}

impl<'a> Rows<'a> {
    fn add(&mut self, edit: &'a Edit<i64>, rec: i64) {
        let (gone, come) = difference(edit.before().map(|old| &old.terms), edit.after().map(|new| &new.terms));
        self.terms.extend(gone.into_iter().map(|term| (term, Rank::Gone, rec)));
        self.terms.extend(come.into_iter().map(|term| (term, Rank::Come, rec)));
        let row = |rank| move |element| (element, Reverse(rank), edit.id());
        let (gone, come) = difference(
            edit.before().map(|old| &old.elements),
            edit.after().map(|new| &new.elements),
        );
        self.elements.extend(gone.into_iter().map(row(Rank::Gone)));
        self.elements.extend(come.into_iter().map(row(Rank::Come)));
    }
}
