//! From a search to records, one page at a time, with bounds on what is read and held.
//!
//! A page begins with what needs little memory: for nearly all searches that is everything. What else was found is
//! known by its length, so that room can be had before it is read.

use super::certificate;
use super::reply::Problem;
use super::search::Search;
use crate::formats::{FAMILIES, OPENPGP, beginning};
use keyrink_openpgp::packet::tag;
use keyrink_openpgp::project::Projection;
use keyrink_openpgp::stored::{Damaged, Entries, Entry};
use keyrink_openpgp::terms::{self, Term};
use keyrink_store::{Listed, RecordId, Store, StoreError, Stored};

/// One page of what was found.
#[derive(Debug, Default)]
pub(super) struct Hits {
    /// In order of their ids.
    pub records: Vec<Stored>,
    /// There is more: the next page begins after this id.
    pub next: Option<RecordId>,
    /// Something was found whose version has no place in the answer.
    pub newer: bool,
    octets: usize,
    /// The last one that was read.
    last: Option<RecordId>,
}

/// How large a page may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The most records.
    pub records: usize,
    /// No record is added that brings their octets above this, except the first.
    pub octets: usize,
    /// The newest version of OpenPGP that has a place in the answer.
    pub version_max: u8,
}

/// The beginning of a page, and what may belong to the rest of it.
#[derive(Debug)]
pub(super) struct Begun {
    hits: Hits,
    unread: Vec<Listed>,
    words: Vec<String>,
    bounds: Bounds,
}

impl Begun {
    /// Begins the page of what `search` finds after `after`.
    pub(super) fn by_search(
        store: &dyn Store,
        search: &Search,
        after: Option<&RecordId>,
        bounds: Bounds,
    ) -> Result<Self, Problem> {
        let (term, words) = match search {
            Search::Term(term) => (beginning(term), Vec::new()),
            Search::Words(words) => (rarest(store, words)?, words.clone()),
        };
        let read = keyrink_store::Bounds {
            records: bounds.records,
            octets: SMALL_OCTETS,
            listed: LISTED_MAX,
        };
        let found = store.search(OPENPGP, &term, after, read)?;
        let mut hits = Hits::default();
        for record in found.records {
            hits.add(record, &words, bounds)?;
        }
        Ok(Self {
            hits,
            unread: found.rest,
            words,
            bounds,
        })
    }

    /// Begins the only page of what some family of peers knows by this digest.
    pub(super) fn by_digest(store: &dyn Store, digest: &[u8], bounds: Bounds) -> Result<Self, Problem> {
        let mut unread = Vec::new();
        for family in FAMILIES {
            unread.extend(store.by_element(OPENPGP, family.dataset, &[digest.to_vec()])?);
        }
        unread.sort();
        unread.dedup();
        Ok(Self {
            hits: Hits::default(),
            unread,
            words: Vec::new(),
            bounds,
        })
    }

    /// Octets that the records of the page may have, if they are more than a few.
    pub(super) fn octets(&self) -> Option<usize> {
        let unread: usize = self.unread.iter().map(|listed| listed.octets).sum();
        if self.is_full() || unread <= SMALL_OCTETS {
            return None;
        }
        let longest = self.unread.iter().map(|listed| listed.octets).max();
        Some(self.hits.octets + unread.min(self.bounds.octets + longest.unwrap_or_default()))
    }

    /// Reads the rest of the page.
    pub(super) fn finish(self, store: &dyn Store) -> Result<Hits, Problem> {
        let may_be_more = self.unread.len() >= LISTED_MAX;
        let Self {
            mut hits,
            unread,
            words,
            bounds,
        } = self;
        for listed in unread {
            let fits = hits.records.is_empty() || hits.octets + listed.octets <= bounds.octets;
            if hits.records.len() >= bounds.records || !fits {
                hits.next = hits.last.take();
                return Ok(hits);
            }
            for record in store.get(OPENPGP, &[listed.id])?.into_iter().flatten() {
                hits.add(record, &words, bounds)?;
            }
        }
        if may_be_more {
            hits.next = hits.last.take();
        }
        Ok(hits)
    }

    fn is_full(&self) -> bool {
        self.hits.records.len() >= self.bounds.records
    }
}

impl Hits {
    /// Adds a record unless it lacks a word or users are shown nothing of it.
    fn add(&mut self, record: Stored, words: &[String], bounds: Bounds) -> Result<(), Damaged> {
        self.last = Some(record.id.clone());
        match certificate::version_shown(&record.data)? {
            Some(_) if !has_words(&record.data, words) => {}
            Some(version) if version > bounds.version_max => self.newer = true,
            Some(_) => {
                self.octets += record.data.len();
                self.records.push(record);
            }
            None => {}
        }
        Ok(())
    }
}

/// The word that fewest records have, as far as they are counted.
fn rarest(store: &dyn Store, words: &[String]) -> Result<keyrink_store::Term, StoreError> {
    let mut rarest: Option<(usize, keyrink_store::Term)> = None;
    for word in words.iter().take(WORDS_PROBED) {
        let term = beginning(&Term::Word(word.clone()));
        let count = store.holders(OPENPGP, &term, COUNTED_MAX)?;
        if rarest.as_ref().is_none_or(|(fewest, _)| count < *fewest) {
            rarest = Some((count, term));
        }
    }
    // A search for words holds at least one.
    Ok(rarest.map_or_else(|| beginning(&Term::Word(String::new())), |(_, term)| term))
}

fn has_words(record: &[u8], words: &[String]) -> bool {
    if words.is_empty() {
        return true;
    }
    let Ok(user_ids) = user_ids(record) else { return false };
    let texts: Vec<String> = user_ids
        .iter()
        .map(|user_id| String::from_utf8_lossy(user_id).to_lowercase())
        .collect();
    words
        .iter()
        .all(|word| texts.iter().any(|text| terms::words(text).any(|found| found == word)))
}

fn user_ids(record: &[u8]) -> Result<Vec<&[u8]>, Damaged> {
    let mut user_ids = Vec::new();
    for entry in Entries::new(record)? {
        match entry? {
            entry if !entry.is_seen(Projection::Served) => {}
            Entry::Component(component) if component.tag == tag::USER_ID => user_ids.push(component.body),
            _ => {}
        }
    }
    Ok(user_ids)
}

/// Records of so many octets together are read at once, without room of their own.
const SMALL_OCTETS: usize = 64 << 10;
/// Records looked at for one page behind those that are read at once, what is left out included.
const LISTED_MAX: usize = 4_000;
/// Words that are tried as the one to look up.
const WORDS_PROBED: usize = 8;
/// Records counted for each of them.
const COUNTED_MAX: usize = 10_000;
