//! From a search to records, one page at a time, with bounds on what is read and held.

use super::certificate;
use super::reply::Problem;
use super::search::Search;
use crate::formats::{OPENPGP, SKS, store_term};
use keyrink_openpgp::packet::tag;
use keyrink_openpgp::project::Projection;
use keyrink_openpgp::stored::{Damaged, Entries, Entry};
use keyrink_openpgp::terms::{self, Term};
use keyrink_store::{RecordId, Store, StoreError, Stored};

/// One page of what was found.
#[derive(Debug, Default)]
pub(super) struct Hits {
    /// In order of their ids.
    pub records: Vec<Stored>,
    /// There is more: the next page begins after this id.
    pub next: Option<RecordId>,
    /// Something was found whose version has no place in the answer.
    pub newer: bool,
}

/// How large a page may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The most records.
    pub records: usize,
    /// Once the records have so many octets, no further one is added.
    pub octets: usize,
    /// The newest version of OpenPGP that has a place in the answer.
    pub version_max: u8,
}

/// Reads the page that begins after `after`.
pub(super) fn find(
    store: &dyn Store,
    search: &Search,
    after: Option<RecordId>,
    bounds: Bounds,
) -> Result<Hits, Problem> {
    match search {
        Search::Term(term) => collect(store, term, after, bounds, |_| true),
        Search::Words(words) => {
            let rarest = rarest(store, words)?;
            collect(store, &Term::Word(rarest.to_owned()), after, bounds, |record| {
                has_words(&record.data, words)
            })
        }
    }
}

/// Reads what has this digest in SKS.
pub(super) fn by_digest(store: &dyn Store, digest: &[u8], bounds: Bounds) -> Result<Hits, Problem> {
    let mut hits = Hits::default();
    for record in store.by_element(SKS, &[digest.to_vec()])? {
        hits.add(record, bounds)?;
    }
    Ok(hits)
}

impl Hits {
    /// Adds a record unless users are shown nothing of it.
    fn add(&mut self, record: Stored, bounds: Bounds) -> Result<(), Damaged> {
        match certificate::version_shown(&record.data)? {
            Some(version) if version > bounds.version_max => self.newer = true,
            Some(_) => self.records.push(record),
            None => {}
        }
        Ok(())
    }

    fn octets(&self) -> usize {
        self.records.iter().map(|record| record.data.len()).sum()
    }
}

fn collect(
    store: &dyn Store,
    term: &Term,
    mut after: Option<RecordId>,
    bounds: Bounds,
    fits: impl Fn(&Stored) -> bool,
) -> Result<Hits, Problem> {
    let term = store_term(term);
    let (mut hits, mut read) = (Hits::default(), 0);
    loop {
        let found = store.find(OPENPGP, &term, after.as_ref(), CHUNK)?;
        let is_last = found.len() < CHUNK;
        for record in found {
            if hits.records.len() >= bounds.records || hits.octets() >= bounds.octets || read >= READ_MAX {
                hits.next = after;
                return Ok(hits);
            }
            read += 1;
            after = Some(record.id.clone());
            if fits(&record) {
                hits.add(record, bounds)?;
            }
        }
        if is_last {
            return Ok(hits);
        }
    }
}

/// The word that fewest records seem to have, without counting far.
fn rarest<'a>(store: &dyn Store, words: &'a [String]) -> Result<&'a str, StoreError> {
    let mut candidates: Vec<&str> = words.iter().map(String::as_str).take(WORDS_PROBED).collect();
    candidates.sort_by_key(|word| std::cmp::Reverse(word.len()));
    if candidates.len() > 1 {
        for limit in [CHUNK, 8 * CHUNK] {
            for word in &candidates {
                let term = store_term(&Term::Word((*word).to_owned()));
                if store.find(OPENPGP, &term, None, limit)?.len() < limit {
                    return Ok(word);
                }
            }
        }
    }
    Ok(candidates.first().copied().unwrap_or_default())
}

fn has_words(record: &[u8], words: &[String]) -> bool {
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

/// Records read at once.
const CHUNK: usize = 16;
/// Records read for one page, what is left out included.
const READ_MAX: usize = 4_000;
/// Words that are tried as the one to look up.
const WORDS_PROBED: usize = 8;
