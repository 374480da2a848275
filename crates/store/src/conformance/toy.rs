//! The toy realm: a record is a line of words. It is found by each word, and one element stands for the whole line.

use crate::{
    Applied, Batch, Component, Dataset, Decision, Element, Realm, Record, RecordId, Snapshot, Store, StoreError, Term,
};

/// Where toys live, far from the realms of real keys.
pub(crate) const TOYS: Realm = Realm(200);
/// Where their elements live.
pub(crate) const LINES: Dataset = Dataset(201);
/// The kind of a word.
pub(crate) const WORD: u8 = 3;

/// The id made of `number`.
pub(crate) fn id(number: u32) -> RecordId {
    RecordId::new(&number.to_be_bytes()).expect("four octets are an id")
}

/// The term for `word`.
pub(crate) fn word(word: &str) -> Term {
    Term {
        kind: WORD,
        text: word.as_bytes().to_vec(),
    }
}

/// What stands for `line`: a digest that a child could compute, so that collisions can be made.
pub(crate) fn element(line: &str) -> Element {
    let sum = line
        .bytes()
        .fold(7u64, |sum, octet| sum.wrapping_mul(31).wrapping_add(u64::from(octet)));
    Element {
        dataset: LINES,
        bytes: sum.to_be_bytes().to_vec(),
    }
}

/// The part of a line that a word at some place is.
fn component((word, place): (&str, u32)) -> Component {
    Component {
        place,
        kind: 1,
        text: (!word.starts_with('x')).then(|| word.to_owned()),
        fingerprint: word.starts_with('x').then(|| word.as_bytes().to_vec()),
        bits: Some(word.len() as u32),
        ..Component::default()
    }
}

/// The record that `line` is.
pub(crate) fn record(line: &str) -> Record {
    Record {
        data: line.as_bytes().to_vec(),
        policy: 1,
        terms: line.split_whitespace().map(word).collect(),
        elements: vec![element(line)],
        components: line.split_whitespace().zip(0..).map(component).collect(),
    }
}

/// Stores `line` under `number` whatever was there.
pub(crate) fn put(store: &dyn Store, number: u32, line: &str) -> Applied {
    change(store, number, Some(record(line))).expect("a put of a valid record")
}

/// Stores or deletes one record.
pub(crate) fn change(store: &dyn Store, number: u32, new: Option<Record>) -> Result<Applied, StoreError> {
    let batch = batch(&[number], move |_| match &new {
        Some(record) => Decision::Put(record.clone()),
        None => Decision::Delete,
    });
    store.update(batch).map(|applied| applied[0])
}

/// A batch over `numbers` whose closure sees only the index.
pub(crate) fn batch(numbers: &[u32], decide: impl Fn(usize) -> Decision + Send + Sync + 'static) -> Batch {
    Batch {
        realm: TOYS,
        ids: numbers.iter().copied().map(id).collect(),
        decide: Box::new(move |index, _| decide(index)),
        notes: vec![],
        premise: None,
    }
}

/// The lines found by `word`, in the order of their ids.
pub(crate) fn found(store: &dyn Store, text: &str) -> Vec<String> {
    let hits = store.find(TOYS, &word(text), None, usize::MAX).expect("a search");
    hits.into_iter()
        .map(|stored| String::from_utf8(stored.data).expect("toys are text"))
        .collect()
}

/// All rows of the term table, read `step` at a time.
pub(crate) fn terms(view: &dyn Snapshot, step: usize) -> Vec<(Term, RecordId)> {
    let mut rows = Vec::new();
    loop {
        let more = view.terms(TOYS, rows.last(), step).expect("a page of terms");
        if more.is_empty() {
            return rows;
        }
        assert!(more.len() <= step, "a page of {} rows, asked for {step}", more.len());
        rows.extend(more);
    }
}

/// All rows of the element table, read `step` at a time.
pub(crate) fn elements(view: &dyn Snapshot, step: usize) -> Vec<(Vec<u8>, RecordId)> {
    let mut rows = Vec::new();
    loop {
        let more = view.elements(LINES, rows.last(), step).expect("a page of elements");
        if more.is_empty() {
            return rows;
        }
        assert!(more.len() <= step, "a page of {} rows, asked for {step}", more.len());
        rows.extend(more);
    }
}
