//! Records, search terms, reconciliation elements and changes, in one transaction.
//!
//! A [`Record`] is the format-neutral unit: bytes under an id, the [`Term`]s it is found by and the [`Element`]s
//! that stand for it in the reconciled datasets. The store never looks into the bytes. Whatever one call of
//! [`Store::update`] changes (records, terms, elements, change rows, notes) becomes durable together or not at all.
//!
//! The element table is the durable prefix tree: its rows in the order of their bytes are the tree's order, so
//! every tree node is one contiguous range. There is no second structure that could drift from the records.
//!
//! All calls block. Engines: [`sqlite`] (embedded, the default), [`postgres`] (shared by any number of processes) and
//! [`memory`] (for tests). One suite, `conformance`, holds for every engine.

mod batch;
mod component;
#[cfg(test)]
mod conformance;
mod derived;
pub mod memory;
pub mod postgres;
mod record;
pub mod sqlite;

pub use component::Component;
pub use record::{Bounds, Dataset, Derived, Element, Found, Listed, Realm, RecordId, Stored, Term};
use thiserror::Error;

/// What a store can do. Every call is one transaction and may be made from any thread.
pub trait Store: Send + Sync {
    /// The records with these ids, in the order asked; `None` where there is none.
    fn get(&self, realm: Realm, ids: &[RecordId]) -> Result<Vec<Option<Stored>>, StoreError>;

    /// Records with a term that begins with `term`, in order of their ids, after `after`, at most `limit` of them.
    fn find(
        &self,
        realm: Realm,
        term: &Term,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Result<Vec<Stored>, StoreError> {
        let bounds = Bounds {
            records: limit,
            octets: usize::MAX,
            listed: 0,
        };
        Ok(self.search(realm, term, after, bounds)?.records)
    }

    /// What `term` finds after `after`, read and listed within `bounds`.
    fn search(&self, realm: Realm, term: &Term, after: Option<&RecordId>, bounds: Bounds) -> Result<Found, StoreError>;

    /// How many records `term` finds, counted up to `limit`.
    fn holders(&self, realm: Realm, term: &Term, limit: usize) -> Result<usize, StoreError>;

    /// Records of `realm` that hold any of these elements of `dataset`, in the order asked, each once. An element can
    /// stand for several records.
    fn by_element(&self, realm: Realm, dataset: Dataset, elements: &[Vec<u8>]) -> Result<Vec<Listed>, StoreError>;

    /// Those of these elements of `dataset` that no record holds, in the order asked.
    fn lacking(&self, dataset: Dataset, elements: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, StoreError>;

    /// Elements of `dataset` from `first` to `last`, both included, in order and each once, together with the changes
    /// this view includes. At most `limit` of them.
    fn range(
        &self,
        dataset: Dataset,
        first: &[u8],
        last: &[u8],
        limit: usize,
    ) -> Result<(Vec<Vec<u8>>, Vector), StoreError>;

    /// What is known about these elements as refused from `source`; nothing about those that are not.
    fn refusals(&self, source: &str, dataset: Dataset, elements: &[Vec<u8>]) -> Result<Vec<Refusal>, StoreError>;

    /// Notes refusals from `source`, each in place of an older one of its element. Zero times means none.
    fn refuse(&self, source: &str, dataset: Dataset, refusals: Vec<Refusal>) -> Result<(), StoreError>;

    /// How many elements are refused from `source`.
    fn refusal_count(&self, source: &str) -> Result<u64, StoreError>;

    /// Forgets refusals from `source`, those that end first, until at most so many are left.
    fn trim_refusals(&self, source: &str, most: u64) -> Result<(), StoreError>;

    /// Runs `batch` in one transaction and returns, once it is durable, what it did to each id, in order.
    /// [`Batch::premise`] ties it to a note.
    ///
    /// The closure is pure and may run more than once: a conflict with another writer starts the batch again.
    /// Concurrent calls share one commit where the engine can do so.
    fn update(&self, batch: Batch) -> Result<Vec<Applied>, StoreError>;

    /// Makes rows agree with their records, in one transaction: each of `rows` is there from then on if the record with
    /// its id has that term, element or component, and not if it has not or is gone. Elements that come or go are changes like
    /// all others. How many rows were wrong.
    fn mend(&self, realm: Realm, rows: Vec<(RecordId, Derived)>) -> Result<u64, StoreError>;

    /// Counts the records of a realm anew; whether [`Store::count`] was wrong.
    fn recount(&self, realm: Realm) -> Result<bool, StoreError>;

    /// A consistent view that does not change while writers go on.
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError>;

    /// Change rows after `since`, oldest first within each writer, at most `limit` of them.
    ///
    /// Rows do not last for ever ([`Store::maintain`]). A first row of some writer that is not the one after `since`,
    /// or no row although [`Store::vector`] is ahead, means that some are gone: read the elements anew.
    fn changes(&self, since: &Vector, limit: usize) -> Result<Vec<ChangeRow>, StoreError>;

    /// Counters of every writer: the newest change each has committed.
    fn vector(&self) -> Result<Vector, StoreError>;

    /// How many records a realm has; one small read, kept by the writers.
    fn count(&self, realm: Realm) -> Result<u64, StoreError>;

    /// A small value kept beside the records, written by [`Batch::notes`].
    fn note(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Writes a note if it is still what the caller saw, `None` where there was none; whether that was so.
    fn swap_note(&self, key: &str, seen: Option<&[u8]>, new: &[u8]) -> Result<bool, StoreError>;

    /// Whether servers on several machines may share this store.
    fn is_shared(&self) -> bool {
        false
    }

    /// Waits until everything that was stored is durable, where an engine was opened not to wait for each update. An error
    /// means that some of it may be gone.
    fn settle(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Gives back what this process holds of a store that others share, before it ends.
    fn leave(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// How many calls of [`Store::update`] it works on at the same time.
    fn writers(&self) -> usize {
        1
    }

    /// Deletes change rows older than `before` (Unix seconds) and refusals that ended before it, and does the engine's
    /// own housekeeping.
    fn maintain(&self, before: u64) -> Result<(), StoreError>;

    /// Proves that the store can be read and written to right now, without changing anything that lasts.
    fn ready(&self) -> Result<(), StoreError>;
}

/// Octets of data after which a page of records ends.
pub const PAGE_OCTETS: usize = 8 << 20;

/// A consistent read view for work on the whole store: dump, check, building trees.
pub trait Snapshot {
    /// Records after `after` in order of their ids, at most `limit` of them. Fewer if they are long: the page ends with
    /// the record that makes it [`PAGE_OCTETS`] or more.
    fn records(&self, realm: Realm, after: Option<&RecordId>, limit: usize) -> Result<Vec<Stored>, StoreError>;
    /// Rows of the term table after `after`, in the order of (kind, text, id), at most `limit` of them. A row of a record
    /// that is gone has an id that no record has.
    fn terms(
        &self,
        realm: Realm,
        after: Option<&(Term, RecordId)>,
        limit: usize,
    ) -> Result<Vec<(Term, RecordId)>, StoreError>;
    /// Rows of the element table after `after`, in the order of (bytes, id), at most `limit` of them.
    fn elements(
        &self,
        dataset: Dataset,
        after: Option<&(Vec<u8>, RecordId)>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, RecordId)>, StoreError>;
    /// Rows about the parts of records after the one given, in the order of (id, place), at most `limit` of them; none where the
    /// engine has no such table.
    fn components(
        &self,
        _realm: Realm,
        _after: Option<&(RecordId, u32)>,
        _limit: usize,
    ) -> Result<Vec<(RecordId, Component)>, StoreError> {
        Ok(Vec::new())
    }
    /// Elements from `first` to `last`, both included, in order and each once, at most `limit` of them.
    fn range(&self, dataset: Dataset, first: &[u8], last: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, StoreError>;
    /// The change counters this view includes.
    fn vector(&self) -> Result<Vector, StoreError>;
    /// How many records of `realm` this view holds, as the writers count them.
    fn count(&self, realm: Realm) -> Result<u64, StoreError>;
}

/// One transaction's worth of changes.
pub struct Batch {
    /// The realm of all ids.
    pub realm: Realm,
    /// The records to change. An id may occur twice: the second run sees the first one's result.
    pub ids: Vec<RecordId>,
    /// Decides about `ids[i]`, given what is stored there now. Pure; may run again.
    pub decide: Decide,
    /// Small values written in the same transaction; `None` removes.
    pub notes: Vec<(String, Option<Vec<u8>>)>,
    /// A note, and the value it must have at that moment: with another one, or without the note, nothing is done and the
    /// answer is [`StoreError::Overtaken`]. Nobody changes the note between this and the end of the transaction, so the
    /// closure may rely on whatever the note stands for. Once it is there, only batches with this premise may change it.
    pub premise: Option<(String, Vec<u8>)>,
}

/// The closure of a batch: the position of an id in it and what is stored under that id.
pub type Decide = Box<dyn Fn(usize, Option<&Stored>) -> Decision + Send + Sync>;

/// What to do with one record.
pub enum Decision {
    /// Leave it as it is.
    Keep,
    /// Store this in its place.
    Put(Record),
    /// Remove it with its terms and elements.
    Delete,
}

/// A record as a caller hands it over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Opaque bytes.
    pub data: Vec<u8>,
    /// Version of the policy that derived terms and elements.
    pub policy: u32,
    /// What it can be found by; duplicates are folded.
    pub terms: Vec<Term>,
    /// What stands for it in the reconciled sets; duplicates are folded.
    pub elements: Vec<Element>,
    /// Its parts, in the order of their places, for engines that have a table of them.
    pub components: Vec<Component>,
}

impl Record {
    /// The most octets of data.
    pub const OCTETS_MAX: usize = 64 << 20;
}

/// What an update did to one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Nothing changed.
    Unchanged,
    /// It is new.
    Inserted,
    /// It replaced an older version.
    Updated,
    /// It is gone.
    Deleted,
}

/// One row of the change log: an element that came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeRow {
    /// The lane that wrote it.
    pub writer: u32,
    /// Its number in that lane: 1, 2, 3 … without gaps.
    pub n: u64,
    /// The element.
    pub element: Element,
    /// Came (true) or went.
    pub added: bool,
    /// When, in Unix seconds.
    pub time: u64,
}

/// An element that some source offered in vain: it is not asked for again until a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The element.
    pub element: Vec<u8>,
    /// How often it was asked for in vain.
    pub times: u32,
    /// Until when it is not asked for, in Unix seconds.
    pub until: u64,
}

/// For each writer the number of the newest change seen.
pub type Vector = std::collections::BTreeMap<u32, u64>;

/// Why a store could not answer.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// The store is away, full, read-only or busy: nothing was changed, try again later.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// What is stored contradicts itself.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// Written by a newer Keyrink.
    #[error("the store has schema {found}, this program knows up to {known}: use a newer Keyrink")]
    TooNew {
        /// Version found.
        found: u32,
        /// Newest version known.
        known: u32,
    },
    /// The premise of a batch does not hold any more: nothing was changed, look again and decide anew.
    #[error("what this was decided by has changed meanwhile")]
    Overtaken,
    /// The caller handed over something the store can't hold.
    #[error("{0}")]
    Invalid(String),
}
