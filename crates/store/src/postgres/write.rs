//! One transaction for all the batches that wait: what is stored is locked, the closures decide one after the other, and
//! what comes out is written with a handful of statements, however many records there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio_postgres::types::ToSql;

use super::connection::Connection;
use super::fault::Fault;
use super::lane::{Lane, random};
use super::read::{self, holder, key, number, number_64};
use super::sql::{self, Sql};
use super::table::{self, Column, Parts};
use crate::batch::{Edit, Kept, Plan, difference, now};
use crate::derived;
use crate::{Applied, Batch, Component, Dataset, Derived, Element, Realm, RecordId, Refusal, StoreError};

/// What each batch came to.
pub(super) type Results = Vec<Result<Vec<Applied>, StoreError>>;

/// A record's place.
type Key = (Realm, RecordId);

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
/// lane, and is run again. So nobody waits for a row that all writers share. (A lane that is new at that very moment is
/// missed; its process has only just started, and reads the note as one of the first things it does.)
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
fn seal(
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

/// Makes rows agree with their records; how many were wrong.
pub(super) fn mend(
    connection: &mut Connection,
    lane: Lane,
    token: i64,
    realm: Realm,
    rows: &[(RecordId, Derived)],
) -> Result<u64, Fault> {
    connection.execute(sql::BEGIN, &[])?;
    let mut stored = HashMap::new();
    lock(connection, realm, &rows.iter().map(|(id, _)| id).collect(), &mut stored)?;
    let (mut terms, mut elements) = <([Vec<_>; 2], [Vec<_>; 2])>::default();
    let mut parts = BTreeSet::new();
    for (id, row) in rows {
        let kept = stored.get(&(realm, id.clone()));
        match row {
            Derived::Term(term) => {
                let right = kept.is_some_and(|kept| kept.terms.contains(term));
                terms[usize::from(right)].push((key(term), number(realm.0), id.as_bytes()));
            }
            Derived::Element(element) => {
                let right = kept.is_some_and(|kept| kept.elements.contains(element));
                elements[usize::from(right)].push(held(realm, id, element));
            }
            Derived::Component(_) => drop(parts.insert(id)),
        }
    }
    let [not_terms, terms] = terms;
    let [not_elements, elements] = elements;
    let mut changes = Vec::new();
    let wrong = mend_components(connection, realm, &parts, &stored)?
        + change_terms(connection, not_terms, terms)?
        + add_holders(connection, elements, &mut changes)?
        + remove_holders(connection, not_elements, &mut changes)?;
    seal(connection, lane, token, &changes, &BTreeMap::new(), now())?;
    Ok(wrong)
}

/// Counts the records of a realm anew; whether the count was wrong.
pub(super) fn recount(connection: &mut Connection, lane: Lane, token: i64, realm: Realm) -> Result<bool, Fault> {
    connection.execute(sql::BEGIN, &[])?;
    let more = read::uncounted(connection, realm)?;
    seal(connection, lane, token, &[], &BTreeMap::from([(realm, more)]), now())?;
    Ok(more != 0)
}

/// Locks records in order of their ids and reads them. A list of what a record has rows for that can't be read counts as empty:
/// whatever it named and is named no more is found by looking at all rows.
fn lock(
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

/// Writes the rows of the records; how many came to each realm, less those that went.
fn records(connection: &mut Connection, edits: &[(Realm, Edit<()>)]) -> Result<BTreeMap<Realm, i64>, Fault> {
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
fn components(connection: &mut Connection, edits: &[(Realm, Edit<()>)]) -> Result<(), Fault> {
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

fn delete_components(connection: &mut Connection, gone: Vec<Place<'_>>) -> Result<u64, Fault> {
    if gone.is_empty() {
        return Ok(0);
    }
    let (ids, realms, places) = three(gone);
    connection.execute(sql::DELETE_COMPONENTS, &[&ids, &realms, &places])
}

/// Makes the components of these records what they should be; how many were not.
fn mend_components(
    connection: &mut Connection,
    realm: Realm,
    ids: &BTreeSet<&RecordId>,
    stored: &HashMap<Key, Kept>,
) -> Result<u64, Fault> {
    if ids.is_empty() {
        return Ok(0);
    }
    let octets: Vec<&[u8]> = ids.iter().map(|id| id.as_bytes()).collect();
    let found = read::components_of(connection, realm, &octets)?;
    let right = |id: &RecordId| {
        stored
            .get(&(realm, id.clone()))
            .map_or(&[][..], |kept| &kept.components[..])
    };
    let wrong = found.iter().filter(|(id, found)| !right(id).contains(found));
    let gone: Vec<_> = wrong
        .map(|(id, found)| (id.as_bytes(), number(realm.0), found.place.cast_signed()))
        .collect();
    let mut missing = Parts::default();
    for id in ids {
        let there = |component: &Component| found.iter().any(|(of, found)| of == *id && found == component);
        let lacking = right(id).iter().filter(|component| !there(component));
        lacking.for_each(|component| missing.push(realm, id, component));
    }
    Ok(delete_components(connection, gone)? + missing.insert(connection)?)
}

fn terms(connection: &mut Connection, edits: &[(Realm, Edit<()>)]) -> Result<(), Fault> {
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
fn change_terms(connection: &mut Connection, gone: Vec<Found<'_>>, come: Vec<Found<'_>>) -> Result<u64, Fault> {
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
fn elements(connection: &mut Connection, edits: &[(Realm, Edit<()>)]) -> Result<Vec<(Element, bool)>, Fault> {
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

fn held(realm: Realm, id: &RecordId, element: &Element) -> Held {
    (element.bytes.clone(), number(element.dataset.0), holder(realm, id))
}

/// Adds holders to elements; how many were none before.
fn add_holders(connection: &mut Connection, rows: Vec<Held>, changes: &mut Vec<(Element, bool)>) -> Result<u64, Fault> {
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
fn remove_holders(
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

/// Rows of three columns, column by column.
fn three<A, B, C>(rows: Vec<(A, B, C)>) -> (Vec<A>, Vec<B>, Vec<C>) {
    let mut columns = (Vec::new(), Vec::new(), Vec::new());
    for (a, b, c) in rows {
        columns.0.push(a);
        columns.1.push(b);
        columns.2.push(c);
    }
    columns
}

/// More than the pages that a table has left over.
const PROBE_OCTETS: usize = 1 << 20;
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
