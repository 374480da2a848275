//! One transaction for all the batches that wait: what is stored is locked, the closures decide one after the other, and
//! what comes out is written with a handful of statements, however many records there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::connection::Connection;
use super::fault::Fault;
use super::lane::Lane;
use super::read::{self, number, number_64};
use super::rows::{components, elements, records, terms};
use super::sql;
use super::table::{self, Column};
use crate::batch::{Edit, Kept, Plan};
use crate::derived;
use crate::{Applied, Batch, Element, Realm, RecordId, StoreError};

/// What each batch came to.
pub(super) type Results = Vec<Result<Vec<Applied>, StoreError>>;

/// A record's place.
pub(super) type Key = (Realm, RecordId);

/// A transaction that has locked the records its batches are about.
pub(super) struct Transaction<'a> {
    connection: &'a mut Connection,
    lane: Lane,
    time: u64,
    /// What is stored.
    stored: HashMap<Key, Kept>,
    /// What is to be stored under the ids that the batches changed, in the order in which it is written.
    wanted: BTreeMap<Key, Option<Kept>>,
    notes: BTreeMap<String, Option<Vec<u8>>>,
    premises: Premises,
}

impl<'a> Transaction<'a> {
    /// Begins, and locks what `batches` are tied to and what is stored under their ids.
    pub(super) fn begin(
        connection: &'a mut Connection,
        lane: Lane,
        time: u64,
        batches: &[&Batch],
    ) -> Result<Self, Fault> {
        let mut ids: BTreeMap<Realm, BTreeSet<&RecordId>> = BTreeMap::new();
        for batch in batches.iter().filter(|batch| !batch.ids.is_empty()) {
            ids.entry(batch.realm).or_default().extend(&batch.ids);
        }
        connection.execute(sql::BEGIN, &[])?;
        let premises = Premises::read(connection, batches)?;
        let mut stored = HashMap::new();
        for (realm, ids) in ids {
            lock(connection, realm, &ids, &mut stored)?;
        }
        Ok(Self {
            connection,
            lane,
            time,
            stored,
            wanted: BTreeMap::new(),
            notes: BTreeMap::new(),
            premises,
        })
    }

    /// Lets the closures decide. Each batch sees what those before it did; one that is refused does nothing.
    pub(super) fn decide(&mut self, batches: &[&Batch]) -> Results {
        batches.iter().map(|batch| self.decide_one(batch)).collect()
    }

    fn decide_one(&mut self, batch: &Batch) -> Result<Vec<Applied>, StoreError> {
        if let Some((key, value)) = &batch.premise
            && self.note(key) != Some(value)
        {
            return Err(StoreError::Overtaken);
        }
        let plan = Plan::make::<StoreError>(batch, self.time, |id| {
            let key = (batch.realm, id.clone());
            let now = match self.wanted.get(&key) {
                Some(wanted) => wanted.as_ref(),
                None => self.stored.get(&key),
            };
            Ok(now.map(|kept| ((), kept.clone())))
        })?;
        for edit in plan.edits {
            let key = (batch.realm, edit.id().clone());
            let wanted = match edit {
                Edit::Insert(new) | Edit::Replace { new, .. } => Some(new),
                Edit::Delete { .. } => None,
            };
            self.wanted.insert(key, wanted);
        }
        self.notes.extend(batch.notes.iter().cloned());
        Ok(plan.applied)
    }

    /// A note that some batch is tied to, as those before it left it.
    fn note(&self, key: &str) -> Option<&Vec<u8>> {
        match self.notes.get(key) {
            Some(written) => written.as_ref(),
            None => self.premises.notes.get(key),
        }
    }

    /// Writes what was decided, up to but without the commit; false if there is nothing to commit. `token` will tell
    /// whether this transaction was committed.
    pub(super) fn write(self, token: i64) -> Result<bool, Fault> {
        let Self {
            connection,
            lane,
            time,
            mut stored,
            wanted,
            notes,
            premises,
        } = self;
        let edits = wanted.into_iter().filter_map(|((realm, id), new)| {
            let old = stored.remove(&(realm, id));
            let edit = match (old, new) {
                (None, None) => return None,
                (None, Some(new)) => Edit::Insert(new),
                (Some(old), None) => Edit::Delete { handle: (), old },
                (Some(old), Some(new)) if old == new => return None,
                (Some(old), Some(new)) => Edit::Replace { handle: (), old, new },
            };
            Some((realm, edit))
        });
        let edits: Vec<(Realm, Edit<()>)> = edits.collect();
        if edits.is_empty() && notes.is_empty() {
            return Ok(false);
        }
        let tally = records(connection, &edits)?;
        terms(connection, &edits)?;
        components(connection, &edits)?;
        let changes = elements(connection, &edits)?;
        seal(connection, lane, token, &changes, &tally, time)?;
        premises.check(connection)?;
        // Last, because writers of one load meet in its note.
        self::notes(connection, &notes)?;
        Ok(true)
    }
}

/// What the batches of a transaction are tied to.
///
/// Every transaction locks its lane last and keeps it to its end. Whoever changes a note that batches are tied to locks all
/// lanes first: what was tied to the old value is committed by then, and what comes later finds the new one when it has its
/// lane, and is run again. So nobody waits for a row that all writers share. Who makes a lane waits for the rows of `meta`, which
/// whoever locks all lanes locks first.
#[derive(Default)]
struct Premises {
    notes: BTreeMap<String, Vec<u8>>,
    /// This transaction changes one of them, and has all lanes to itself.
    changes: bool,
}

impl Premises {
    fn read(connection: &mut Connection, batches: &[&Batch]) -> Result<Self, Fault> {
        let premises = batches.iter().filter_map(|batch| batch.premise.as_ref());
        let keys: BTreeSet<&str> = premises.map(|(key, _)| key.as_str()).collect();
        if keys.is_empty() {
            return Ok(Self::default());
        }
        let mut written = batches.iter().flat_map(|batch| &batch.notes);
        let changes = written.any(|(key, _)| keys.contains(key.as_str()));
        if changes {
            connection.rows(sql::LOCK_META, &[])?;
            connection.rows(sql::LOCK_LANES, &[])?;
        }
        let keys: Vec<&str> = keys.into_iter().collect();
        let notes = notes_of(connection, &keys)?;
        Ok(Self { notes, changes })
    }

    /// Do they still hold, now that the lane is locked?
    fn check(&self, connection: &mut Connection) -> Result<(), Fault> {
        if self.changes || self.notes.is_empty() {
            return Ok(());
        }
        let keys: Vec<&str> = self.notes.keys().map(String::as_str).collect();
        match notes_of(connection, &keys)? == self.notes {
            true => Ok(()),
            false => Err(Fault::Conflict),
        }
    }
}

fn notes_of(connection: &mut Connection, keys: &[&str]) -> Result<BTreeMap<String, Vec<u8>>, Fault> {
    let rows = connection.rows(sql::NOTES, &[&keys])?;
    let note = |row| Ok((read::column(row, 0)?, read::column(row, 1)?));
    rows.iter().map(note).collect()
}

/// Numbers the changes and counts the records, which locks the lane up to the commit.
pub(super) fn seal(
    connection: &mut Connection,
    lane: Lane,
    token: i64,
    changes: &[(Element, bool)],
    tally: &BTreeMap<Realm, i64>,
    time: u64,
) -> Result<(), Fault> {
    let newest = lane.advance(connection, changes.len(), token)?;
    log(connection, lane, newest, changes, time)?;
    for (realm, records) in tally {
        connection.execute(sql::ADD_TALLY, &[&lane.number(), &number(realm.0), records])?;
    }
    Ok(())
}

/// Locks records in order of their ids and reads them. A list of what a record has rows for that can't be read counts as empty:
/// whatever it named and is named no more is found by looking at all rows.
pub(super) fn lock(
    connection: &mut Connection,
    realm: Realm,
    ids: &BTreeSet<&RecordId>,
    stored: &mut HashMap<Key, Kept>,
) -> Result<(), Fault> {
    let ids: Vec<&[u8]> = ids.iter().map(|id| id.as_bytes()).collect();
    for row in connection.rows(sql::LOCK, &[&number(realm.0), &ids])? {
        let record = read::stored(&row)?;
        let derived: &[u8] = read::column(&row, 5)?;
        let (terms, elements, components) = derived::decode(&record.id, &record.data, derived).unwrap_or_default();
        let kept = Kept {
            stored: record,
            terms,
            elements,
            components,
        };
        stored.insert((realm, kept.stored.id.clone()), kept);
    }
    Ok(())
}

fn notes(connection: &mut Connection, notes: &BTreeMap<String, Option<Vec<u8>>>) -> Result<(), Fault> {
    for (key, value) in notes {
        match value {
            Some(value) => connection.execute(sql::PUT_NOTE, &[key, value])?,
            None => connection.execute(sql::DELETE_NOTE, &[key])?,
        };
    }
    Ok(())
}

/// Writes the change rows, which end with the number `newest`.
fn log(
    connection: &mut Connection,
    lane: Lane,
    newest: i64,
    changes: &[(Element, bool)],
    time: u64,
) -> Result<(), Fault> {
    if changes.is_empty() {
        return Ok(());
    }
    let numbers: Vec<i64> = (newest - changes.len() as i64 + 1..=newest).collect();
    let datasets: Vec<i16> = changes.iter().map(|(element, _)| number(element.dataset.0)).collect();
    let bytes: Vec<&[u8]> = changes.iter().map(|(element, _)| &element.bytes[..]).collect();
    let added: Vec<bool> = changes.iter().map(|(_, added)| *added).collect();
    let (writers, times) = (vec![lane.number(); numbers.len()], vec![number_64(time); numbers.len()]);
    let columns: &[&dyn Column] = &[&writers, &numbers, &datasets, &bytes, &added, &times];
    table::CHANGES.insert(connection, columns).map(drop)
}
