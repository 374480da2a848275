//! From a batch to a plan: every closure is run and every decision checked before an engine writes anything.
//!
//! A batch that breaks a limit or whose closure panics is refused here, as a whole, so batches that share a commit
//! cannot spoil each other. An id that occurs twice is folded: the second run sees the first one's result, and only
//! the difference between the first state and the last is written.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Applied, Batch, Component, Decision, Element, Record, RecordId, StoreError, Stored, Term};

/// What a batch comes to.
pub(crate) struct Plan<H> {
    /// One for each id that changes.
    pub(crate) edits: Vec<Edit<H>>,
    /// One for each id of the batch.
    pub(crate) applied: Vec<Applied>,
}

/// What changes under one id; `H` is the engine's handle to what is stored there now.
pub(crate) enum Edit<H> {
    Insert(Kept),
    Replace { handle: H, old: Kept, new: Kept },
    Delete { handle: H, old: Kept },
}

/// A record with everything that is stored because of it; terms and elements in order, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) stored: Stored,
    pub(crate) terms: Vec<Term>,
    pub(crate) elements: Vec<Element>,
    pub(crate) components: Vec<Component>,
}

/// An id on its way to an edit.
struct Draft<H> {
    old: Option<(H, Kept)>,
    /// The result of the decisions so far; `None` while all were to keep.
    new: Option<Option<Kept>>,
}

impl<H> Plan<H> {
    /// Runs the closure of `batch` on every id; `current` gives what is stored.
    pub(crate) fn make<E: From<StoreError>>(
        batch: &Batch,
        now: u64,
        mut current: impl FnMut(&RecordId) -> Result<Option<(H, Kept)>, E>,
    ) -> Result<Self, E> {
        let mut places: HashMap<&RecordId, usize> = HashMap::with_capacity(batch.ids.len());
        let mut drafts: Vec<Draft<H>> = Vec::with_capacity(batch.ids.len());
        let mut applied = Vec::with_capacity(batch.ids.len());
        for (index, id) in batch.ids.iter().enumerate() {
            let place = *places.entry(id).or_insert(drafts.len());
            if place == drafts.len() {
                drafts.push(Draft {
                    old: current(id)?,
                    new: None,
                });
            }
            applied.push(drafts[place].decide(batch, index, now)?);
        }
        Ok(Self {
            edits: drafts.into_iter().filter_map(Draft::edit).collect(),
            applied,
        })
    }
}

impl<H> Draft<H> {
    /// Lets the closure decide, given what came out so far.
    fn decide(&mut self, batch: &Batch, index: usize, now: u64) -> Result<Applied, StoreError> {
        let id = &batch.ids[index];
        let state = self.state();
        let decision = catch_unwind(AssertUnwindSafe(|| {
            (batch.decide)(index, state.map(|kept| &kept.stored))
        }))
        .map_err(|_| StoreError::Invalid(format!("deciding about the record {id:?} panicked")))?;
        let (new, applied) = match (decision, state) {
            (Decision::Keep, _) | (Decision::Delete, None) => return Ok(Applied::Unchanged),
            (Decision::Delete, Some(_)) => (None, Applied::Deleted),
            (Decision::Put(record), None) => (Some(kept(id, record, now)?), Applied::Inserted),
            (Decision::Put(record), Some(old)) => {
                let mut new = kept(id, record, now)?;
                new.stored.created = old.stored.created;
                new.stored.modified = old.stored.modified;
                if *old == new {
                    return Ok(Applied::Unchanged);
                }
                new.stored.modified = now;
                (Some(new), Applied::Updated)
            }
        };
        self.new = Some(new);
        Ok(applied)
    }

    fn state(&self) -> Option<&Kept> {
        match &self.new {
            Some(new) => new.as_ref(),
            None => self.old.as_ref().map(|(_, old)| old),
        }
    }

    fn edit(self) -> Option<Edit<H>> {
        match (self.old, self.new?) {
            (None, None) => None,
            (None, Some(new)) => Some(Edit::Insert(new)),
            (Some((handle, old)), None) => Some(Edit::Delete { handle, old }),
            (Some((_, old)), Some(new)) if old == new => None,
            (Some((handle, old)), Some(new)) => Some(Edit::Replace { handle, old, new }),
        }
    }
}

impl<H> Edit<H> {
    pub(crate) fn id(&self) -> &RecordId {
        match self {
            Self::Insert(kept) | Self::Replace { new: kept, .. } | Self::Delete { old: kept, .. } => &kept.stored.id,
        }
    }

    /// What was stored before.
    pub(crate) fn before(&self) -> Option<&Kept> {
        match self {
            Self::Insert(_) => None,
            Self::Replace { old, .. } | Self::Delete { old, .. } => Some(old),
        }
    }

    /// What is stored from now on.
    pub(crate) fn after(&self) -> Option<&Kept> {
        match self {
            Self::Insert(new) | Self::Replace { new, .. } => Some(new),
            Self::Delete { .. } => None,
        }
    }
}

/// Checks a record against the limits and brings its terms and elements into their order.
fn kept(id: &RecordId, record: Record, now: u64) -> Result<Kept, StoreError> {
    let Record {
        data,
        policy,
        mut terms,
        mut elements,
        components,
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
    components.iter().try_for_each(Component::check)?;
    if !components.is_sorted_by(|one, next| one.place < next.place) {
        return Err(StoreError::Invalid(format!(
            "the components of the record {id:?} are out of order"
        )));
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
        components,
    })
}

fn too_long(what: &str, id: &RecordId, octets: usize, limit: usize) -> StoreError {
    StoreError::Invalid(format!(
        "{what} of the record {id:?} has {octets} octets; the limit is {limit}"
    ))
}

/// What is only in `old` and what is only in `new`, both in order and without duplicates.
pub(crate) fn difference<'a, T: Ord>(old: Option<&'a Vec<T>>, new: Option<&'a Vec<T>>) -> (Vec<&'a T>, Vec<&'a T>) {
    let only = |this: Option<&'a Vec<T>>, other: Option<&'a Vec<T>>| {
        let known = |item: &T| other.is_some_and(|other| other.binary_search(item).is_ok());
        this.into_iter().flatten().filter(|item| !known(item)).collect()
    };
    (only(old, new), only(new, old))
}

/// Unix seconds.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
