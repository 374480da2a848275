//! From a batch to a plan: every closure is run and every decision checked before an engine writes anything.
//!
//! A batch that breaks a limit or whose closure panics is refused here, as a whole, so batches that share a commit
//! cannot spoil each other. An id that occurs twice is folded: the second run sees the first one's result, and only
//! the difference between the first state and the last is written.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Applied, Batch, Decision, Element, Record, RecordId, StoreError, Stored, Term};

/// What a batch comes to.
pub(crate) struct Plan<H> {
    /// One for each id that changes.
    pub(crate) edits: Vec<Edit<H>>,
    /// One for each id of the batch.
    pub(crate) applied: Vec<Applied>,
}

/// The difference between what is stored under an id and what is to be.
pub(crate) struct Edit<H> {
    pub(crate) id: RecordId,
    /// What is there now, with the engine's handle to it.
    pub(crate) old: Option<(H, Kept)>,
    pub(crate) new: Option<Kept>,
}

/// A record with everything that is stored because of it; terms and elements in order, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) stored: Stored,
    pub(crate) terms: Vec<Term>,
    pub(crate) elements: Vec<Element>,
}

impl<H> Plan<H> {
    /// Runs the closure of `batch` on every id; `current` gives what is stored.
    pub(crate) fn make<E: From<StoreError>>(
        batch: &Batch,
        now: u64,
        mut current: impl FnMut(&RecordId) -> Result<Option<(H, Kept)>, E>,
    ) -> Result<Self, E> {
        let mut places: HashMap<&RecordId, usize> = HashMap::with_capacity(batch.ids.len());
        let mut edits: Vec<Edit<H>> = Vec::with_capacity(batch.ids.len());
        let mut applied = Vec::with_capacity(batch.ids.len());
        for (index, id) in batch.ids.iter().enumerate() {
            let place = match places.get(id) {
                Some(&place) => place,
                None => {
                    let old = current(id)?;
                    let new = old.as_ref().map(|(_, kept)| kept.clone());
                    edits.push(Edit {
                        id: id.clone(),
                        old,
                        new,
                    });
                    places.insert(id, edits.len() - 1);
                    edits.len() - 1
                }
            };
            applied.push(step(batch, index, &mut edits[place].new, now)?);
        }
        edits.retain(|edit| edit.old.as_ref().map(|(_, kept)| kept) != edit.new.as_ref());
        Ok(Self { edits, applied })
    }
}

/// Lets the closure decide about one id and brings `state` to what it decided.
fn step(batch: &Batch, index: usize, state: &mut Option<Kept>, now: u64) -> Result<Applied, StoreError> {
    let id = &batch.ids[index];
    let decision = catch_unwind(AssertUnwindSafe(|| {
        (batch.decide)(index, state.as_ref().map(|kept| &kept.stored))
    }))
    .map_err(|_| StoreError::Invalid(format!("deciding about the record {id:?} panicked")))?;
    let record = match decision {
        Decision::Keep => return Ok(Applied::Unchanged),
        Decision::Delete => {
            return Ok(if state.take().is_some() {
                Applied::Deleted
            } else {
                Applied::Unchanged
            });
        }
        Decision::Put(record) => record,
    };
    let mut new = kept(id, record, now)?;
    let outcome = match state {
        None => Applied::Inserted,
        Some(old) => {
            new.stored.created = old.stored.created;
            new.stored.modified = old.stored.modified;
            if *old == new {
                return Ok(Applied::Unchanged);
            }
            new.stored.modified = now;
            Applied::Updated
        }
    };
    *state = Some(new);
    Ok(outcome)
}

/// Checks a record against the limits and brings its terms and elements into their order.
fn kept(id: &RecordId, record: Record, now: u64) -> Result<Kept, StoreError> {
    let Record {
        data,
        policy,
        mut terms,
        mut elements,
    } = record;
    if data.len() > Record::OCTETS_MAX {
        return Err(too_long("the data", id, data.len(), Record::OCTETS_MAX));
    }
    if let Some(term) = terms.iter().find(|term| term.text.len() > Term::OCTETS_MAX) {
        return Err(too_long("a term", id, term.text.len(), Term::OCTETS_MAX));
    }
    if let Some(element) = elements
        .iter()
        .find(|element| element.bytes.len() > Element::OCTETS_MAX)
    {
        return Err(too_long("an element", id, element.bytes.len(), Element::OCTETS_MAX));
    }
    terms.sort_unstable();
    terms.dedup();
    elements.sort_unstable();
    elements.dedup();
    let stored = Stored {
        id: id.clone(),
        data,
        policy,
        created: now,
        modified: now,
    };
    Ok(Kept {
        stored,
        terms,
        elements,
    })
}

fn too_long(what: &str, id: &RecordId, octets: usize, limit: usize) -> StoreError {
    StoreError::Invalid(format!(
        "{what} of the record {id:?} has {octets} octets; the limit is {limit}"
    ))
}

/// What is only in `old` and what is only in `new`, both in order and without duplicates.
pub(crate) fn difference<'a, T: Ord>(old: &'a [T], new: &'a [T]) -> (Vec<&'a T>, Vec<&'a T>) {
    let gone = old.iter().filter(|item| new.binary_search(item).is_err()).collect();
    let come = new.iter().filter(|item| old.binary_search(item).is_err()).collect();
    (gone, come)
}

/// Unix seconds.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
