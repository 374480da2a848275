//! The store as a model: ordered sets in memory, one lock, nothing durable. For tests, and as the plainest statement
//! of what an engine must do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::batch::{Edit, Kept, Plan, difference, now};
use crate::{
    Applied, Batch, Bounds, ChangeRow, Dataset, Derived, Element, Found, Listed, PAGE_OCTETS, Realm, RecordId, Refusal,
    Snapshot, Store, StoreError, Stored, Term, Vector,
};

/// A store that lives as long as its value.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<Arc<State>>,
}

/// A state that stays as it was; the store goes on with a copy.
struct Frozen(Arc<State>);

#[derive(Clone, Default)]
struct State {
    records: BTreeMap<(Realm, RecordId), Kept>,
    terms: BTreeMap<(Realm, Term), BTreeSet<RecordId>>,
    elements: BTreeMap<Element, BTreeSet<(RecordId, Realm)>>,
    changes: Vec<ChangeRow>,
    newest: u64,
    notes: BTreeMap<String, Vec<u8>>,
    refusals: BTreeMap<(String, Element), Refusal>,
}

/// The one lane of this engine.
const WRITER: u32 = 1;

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, Arc<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn get(&self, realm: Realm, ids: &[RecordId]) -> Result<Vec<Option<Stored>>, StoreError> {
        let state = self.state();
        Ok(ids.iter().map(|id| state.stored(realm, id)).collect())
    }

    fn search(&self, realm: Realm, term: &Term, after: Option<&RecordId>, bounds: Bounds) -> Result<Found, StoreError> {
        let state = self.state();
        let hits = state.holders(realm, term);
        let hits = hits.into_iter().filter(|id| after.is_none_or(|after| *id > after));
        let (mut found, mut octets) = (Found::default(), 0);
        for record in hits.filter_map(|id| state.stored(realm, id)) {
            octets += record.data.len();
            if found.rest.is_empty() && found.records.len() < bounds.records && octets <= bounds.octets {
                found.records.push(record);
            } else if found.rest.len() < bounds.listed {
                found.rest.push(listed(record));
            } else {
                break;
            }
        }
        Ok(found)
    }

    fn holders(&self, realm: Realm, term: &Term, limit: usize) -> Result<usize, StoreError> {
        Ok(self.state().holders(realm, term).len().min(limit))
    }

    fn by_element(&self, realm: Realm, dataset: Dataset, elements: &[Vec<u8>]) -> Result<Vec<Listed>, StoreError> {
        let state = self.state();
        let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
        for bytes in elements {
            let holders = state.elements.get(&element(dataset, bytes)).into_iter().flatten();
            for (id, _) in holders.filter(|(_, of)| *of == realm) {
                if seen.insert(id.clone()) {
                    found.extend(state.stored(realm, id).map(listed));
                }
            }
        }
        Ok(found)
    }

    fn lacking(&self, dataset: Dataset, elements: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, StoreError> {
        let state = self.state();
        let held = |bytes: &&Vec<u8>| state.elements.contains_key(&element(dataset, bytes));
        Ok(elements.iter().filter(|bytes| !held(bytes)).cloned().collect())
    }

    fn range(
        &self,
        dataset: Dataset,
        first: &[u8],
        last: &[u8],
        limit: usize,
    ) -> Result<(Vec<Vec<u8>>, Vector), StoreError> {
        let state = self.state();
        Ok((state.range(dataset, first, last, limit), state.vector()))
    }

    fn refusals(&self, source: &str, dataset: Dataset, elements: &[Vec<u8>]) -> Result<Vec<Refusal>, StoreError> {
        let state = self.state();
        let known = |bytes: &Vec<u8>| state.refusals.get(&(source.to_owned(), element(dataset, bytes)));
        Ok(elements.iter().filter_map(known).cloned().collect())
    }

    fn refuse(&self, source: &str, dataset: Dataset, refusals: Vec<Refusal>) -> Result<(), StoreError> {
        let mut state = self.state();
        let known = &mut Arc::make_mut(&mut state).refusals;
        for refusal in refusals {
            let key = (source.to_owned(), element(dataset, &refusal.element));
            match refusal.times {
                0 => known.remove(&key),
                _ => known.insert(key, refusal),
            };
        }
        Ok(())
    }

    fn trim_refusals(&self, source: &str, most: u64) -> Result<(), StoreError> {
        let mut state = self.state();
        let known = &mut Arc::make_mut(&mut state).refusals;
        let mut ends: Vec<_> = known
            .iter()
            .filter(|((of, _), _)| of == source)
            .map(|(key, refusal)| (refusal.until, key.clone()))
            .collect();
        ends.sort_unstable();
        let left = usize::try_from(most).unwrap_or(usize::MAX);
        for (_, key) in &ends[..ends.len().saturating_sub(left)] {
            known.remove(key);
        }
        Ok(())
    }

    fn refusal_count(&self, source: &str) -> Result<u64, StoreError> {
        Ok(self.state().refusals.keys().filter(|(of, _)| of == source).count() as u64)
    }

    fn update(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        let mut state = self.state();
        let now = now();
        if let Some((key, value)) = &batch.premise
            && state.notes.get(key) != Some(value)
        {
            return Err(StoreError::Overtaken);
        }
        let plan = Plan::make::<StoreError>(&batch, now, |id| {
            Ok(state
                .records
                .get(&(batch.realm, id.clone()))
                .map(|kept| ((), kept.clone())))
        })?;
        let state = Arc::make_mut(&mut state);
        for edit in &plan.edits {
            state.apply(batch.realm, edit, now);
        }
        for (key, value) in batch.notes {
            match value {
                Some(value) => state.notes.insert(key, value),
                None => state.notes.remove(&key),
            };
        }
        Ok(plan.applied)
    }

    fn mend(&self, realm: Realm, rows: Vec<(RecordId, Derived)>) -> Result<u64, StoreError> {
        let mut state = self.state();
        let (state, time) = (Arc::make_mut(&mut state), now());
        Ok(rows.iter().filter(|(id, row)| state.mend(realm, id, row, time)).count() as u64)
    }

    fn recount(&self, _realm: Realm) -> Result<bool, StoreError> {
        // Counted each time it is asked for.
        Ok(false)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        Ok(Box::new(Frozen(Arc::clone(&self.state()))))
    }

    fn changes(&self, since: &Vector, limit: usize) -> Result<Vec<ChangeRow>, StoreError> {
        let seen = since.get(&WRITER).copied().unwrap_or(0);
        Ok(self
            .state()
            .changes
            .iter()
            .filter(|row| row.n > seen)
            .take(limit)
            .cloned()
            .collect())
    }

    fn vector(&self) -> Result<Vector, StoreError> {
        Ok(self.state().vector())
    }

    fn count(&self, realm: Realm) -> Result<u64, StoreError> {
        Ok(self.state().count(realm))
    }

    fn note(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state().notes.get(key).cloned())
    }

    fn swap_note(&self, key: &str, seen: Option<&[u8]>, new: &[u8]) -> Result<bool, StoreError> {
        let mut state = self.state();
        let same = state.notes.get(key).map(Vec::as_slice) == seen;
        if same {
            Arc::make_mut(&mut state).notes.insert(key.to_owned(), new.to_vec());
        }
        Ok(same)
    }

    fn maintain(&self, before: u64) -> Result<(), StoreError> {
        let mut state = self.state();
        let keep = state
            .changes
            .iter()
            .position(|row| row.time >= before)
            .unwrap_or(state.changes.len());
        let state = Arc::make_mut(&mut state);
        state.changes.drain(..keep);
        state.refusals.retain(|_, refusal| refusal.until >= before);
        Ok(())
    }

    fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Snapshot for Frozen {
    fn records(&self, realm: Realm, after: Option<&RecordId>, limit: usize) -> Result<Vec<Stored>, StoreError> {
        let records = self
            .0
            .records
            .iter()
            .filter(|((r, id), _)| *r == realm && after.is_none_or(|a| id > a));
        let mut octets = 0;
        let page = records.take(limit).take_while(|(_, kept)| {
            let room = octets < PAGE_OCTETS;
            octets += kept.stored.data.len();
            room
        });
        Ok(page.map(|(_, kept)| kept.stored.clone()).collect())
    }

    fn terms(
        &self,
        realm: Realm,
        after: Option<&(Term, RecordId)>,
        limit: usize,
    ) -> Result<Vec<(Term, RecordId)>, StoreError> {
        let groups = self.0.terms.iter().filter(|((r, _), _)| *r == realm);
        let rows = groups.flat_map(|((_, term), ids)| ids.iter().map(|id| (term.clone(), id.clone())));
        Ok(rows
            .filter(|row| after.is_none_or(|after| row > after))
            .take(limit)
            .collect())
    }

    fn elements(
        &self,
        dataset: Dataset,
        after: Option<&(Vec<u8>, RecordId)>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, RecordId)>, StoreError> {
        let groups = self.0.elements.iter().filter(|(element, _)| element.dataset == dataset);
        let rows =
            groups.flat_map(|(element, holders)| holders.iter().map(|(id, _)| (element.bytes.clone(), id.clone())));
        Ok(rows
            .filter(|row| after.is_none_or(|after| row > after))
            .take(limit)
            .collect())
    }

    fn range(&self, dataset: Dataset, first: &[u8], last: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        Ok(self.0.range(dataset, first, last, limit))
    }

    fn vector(&self) -> Result<Vector, StoreError> {
        Ok(self.0.vector())
    }

    fn count(&self, realm: Realm) -> Result<u64, StoreError> {
        Ok(self.0.count(realm))
    }
}

impl State {
    /// Records with a term that begins with `term`.
    fn holders(&self, realm: Realm, term: &Term) -> BTreeSet<&RecordId> {
        let end = Term {
            kind: term.kind,
            text: term.end(),
        };
        let rows = self.terms.range((realm, term.clone())..(realm, end));
        rows.flat_map(|(_, ids)| ids).collect()
    }

    fn stored(&self, realm: Realm, id: &RecordId) -> Option<Stored> {
        self.records.get(&(realm, id.clone())).map(|kept| kept.stored.clone())
    }

    fn count(&self, realm: Realm) -> u64 {
        self.records.keys().filter(|(r, _)| *r == realm).count() as u64
    }

    fn vector(&self) -> Vector {
        Vector::from([(WRITER, self.newest)])
    }

    fn range(&self, dataset: Dataset, first: &[u8], last: &[u8], limit: usize) -> Vec<Vec<u8>> {
        let all = self.elements.range(element(dataset, first)..);
        let within = all.take_while(|(found, _)| found.dataset == dataset && *found.bytes <= *last);
        within.take(limit).map(|(found, _)| found.bytes.clone()).collect()
    }

    fn apply(&mut self, realm: Realm, edit: &Edit<()>, time: u64) {
        let id = edit.id();
        let (gone, come) = difference(edit.before().map(|old| &old.terms), edit.after().map(|new| &new.terms));
        for term in gone {
            remove(&mut self.terms, (realm, term.clone()), id);
        }
        for term in come {
            self.terms.entry((realm, term.clone())).or_default().insert(id.clone());
        }
        let (gone, come) = difference(
            edit.before().map(|old| &old.elements),
            edit.after().map(|new| &new.elements),
        );
        let holder = (id.clone(), realm);
        for element in gone {
            if remove(&mut self.elements, element.clone(), &holder) {
                self.log(element, false, time);
            }
        }
        for element in come {
            if !self.elements.contains_key(element) {
                self.log(element, true, time);
            }
            self.elements.entry(element.clone()).or_default().insert(holder.clone());
        }
        match edit.after() {
            Some(kept) => self.records.insert((realm, id.clone()), kept.clone()),
            None => self.records.remove(&(realm, id.clone())),
        };
    }

    /// Makes a row agree with its record; whether it was wrong.
    fn mend(&mut self, realm: Realm, id: &RecordId, row: &Derived, time: u64) -> bool {
        let kept = self.records.get(&(realm, id.clone()));
        match row {
            Derived::Term(term) => {
                let key = (realm, term.clone());
                if kept.is_some_and(|kept| kept.terms.contains(term)) {
                    return self.terms.entry(key).or_default().insert(id.clone());
                }
                let wrong = self.terms.get(&key).is_some_and(|ids| ids.contains(id));
                remove(&mut self.terms, key, id);
                wrong
            }
            // This engine has no rows of these.
            Derived::Component(_) => false,
            Derived::Element(element) => {
                let (held, holder) = (self.elements.contains_key(element), (id.clone(), realm));
                let wrong = if kept.is_some_and(|kept| kept.elements.contains(element)) {
                    self.elements.entry(element.clone()).or_default().insert(holder)
                } else {
                    let wrong = self.elements.get(element).is_some_and(|ids| ids.contains(&holder));
                    remove(&mut self.elements, element.clone(), &holder);
                    wrong
                };
                let holds = self.elements.contains_key(element);
                if held != holds {
                    self.log(element, holds, time);
                }
                wrong
            }
        }
    }

    fn log(&mut self, element: &Element, added: bool, time: u64) {
        self.newest += 1;
        self.changes.push(ChangeRow {
            writer: WRITER,
            n: self.newest,
            element: element.clone(),
            added,
            time,
        });
    }
}

fn listed(record: Stored) -> Listed {
    Listed {
        octets: record.data.len(),
        id: record.id,
    }
}

fn element(dataset: Dataset, bytes: &[u8]) -> Element {
    Element {
        dataset,
        bytes: bytes.to_vec(),
    }
}

/// Takes `member` out of the set under `key`; true if that was the last one.
fn remove<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: K, member: &V) -> bool {
    let Some(set) = sets.get_mut(&key) else { return false };
    set.remove(member);
    let last = set.is_empty();
    if last {
        sets.remove(&key);
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conforms() {
        crate::conformance::run(|_| MemoryStore::new());
    }
}
