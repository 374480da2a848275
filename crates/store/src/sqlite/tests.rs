//! What only this engine has to show: it is the model made durable, for several processes, on disks that fail.

mod disk;
mod schema;
mod sharing;

use std::collections::BTreeSet;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::conformance::toy::{TOYS, batch, change, element, elements, id, put, record, terms};
use crate::memory::MemoryStore;
use crate::{Decision, Derived, Element, conformance};

#[test]
fn conforms() {
    let dir = TempDir::new().unwrap();
    conformance::run(|number| open_fast(&dir.path().join(number.to_string())));
}

/// Random batches, some of which are refused, on both engines; the store is closed and opened again on the way.
#[test]
fn equals_the_model() {
    let dir = TempDir::new().unwrap();
    let (mut store, model) = (open_fast(dir.path()), MemoryStore::new());
    let mut random = random_numbers(7);
    for round in 0..300 {
        let numbers: Vec<u32> = (0..random() % 8).map(|_| (random() % 20) as u32).collect();
        let choices: Vec<u64> = numbers.iter().map(|_| random()).collect();
        let made = |engine: &dyn Store| {
            let choices = choices.clone();
            engine.update(batch(&numbers, move |index| chosen(choices[index])))
        };
        let (stored, modelled) = (made(&store), made(&model));
        assert_eq!(
            stored.as_ref().ok(),
            modelled.as_ref().ok(),
            "round {round}: {stored:?}, {modelled:?}"
        );
        if round % 50 == 49 {
            drop(store);
            store = open_fast(dir.path());
            assert_same(&store, &model);
        }
    }
}

/// What a random number decides: a line of few words, so that records share words and elements.
fn chosen(choice: u64) -> Decision {
    const WORDS: [&str; 4] = ["north", "east", "south", "west"];
    let word = |shift: u32| WORDS[(choice >> shift) as usize % WORDS.len()];
    match choice % 8 {
        0 => Decision::Keep,
        1 => Decision::Delete,
        2 if choice.is_multiple_of(5) => {
            let mut refused = record("never");
            refused.elements[0].bytes = vec![0; Element::OCTETS_MAX + 1];
            Decision::Put(refused)
        }
        _ => Decision::Put(record(&format!("{} {} {}", word(8), word(16), word(24)))),
    }
}

fn assert_same(store: &SqliteStore, model: &MemoryStore) {
    let (view, model_view) = (store.snapshot().unwrap(), model.snapshot().unwrap());
    let data = |view: &dyn Snapshot| {
        let records = view.records(TOYS, None, usize::MAX).unwrap();
        records
            .into_iter()
            .map(|stored| (stored.id, stored.data))
            .collect::<Vec<_>>()
    };
    assert_eq!(data(&*view), data(&*model_view));
    assert_eq!(terms(&*view, 7), terms(&*model_view, 7));
    assert_eq!(elements(&*view, 7), elements(&*model_view, 7));
    assert_eq!(view.count(TOYS).unwrap(), model_view.count(TOYS).unwrap());
    assert_sound(store);
}

/// A record of one page and one of many, both with a text that occurs nowhere else.
#[test]
fn what_is_erased_is_overwritten() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(dir.path(), &Options::default()).unwrap();
    let (short, long) = ("secret fox", "secret fox ".repeat(20_000));
    put(&store, 1, short);
    put(&store, 2, &long);
    put(&store, 3, "red fox");
    for number in [1, 2] {
        change(&store, number, None).unwrap();
    }
    drop(store);
    let octets = std::fs::read(dir.path().join(SqliteStore::FILE)).unwrap();
    let has = |text: &[u8]| octets.windows(text.len()).any(|window| window == text);
    assert!(has(b"red fox") && !has(b"secret"));
}

#[test]
fn damaged_rows_are_mended() {
    let dir = TempDir::new().unwrap();
    let store = open_fast(dir.path());
    let fill = |store: &dyn Store| {
        put(store, 1, "brown fox");
        put(store, 2, "red fox");
        put(store, 3, "fox");
        change(store, 3, None).unwrap();
    };
    let model = MemoryStore::new();
    fill(&store);
    fill(&model);
    let since = store.vector().unwrap();
    let damages = [
        "DELETE FROM term WHERE text = CAST('brown' AS BLOB)",
        "INSERT INTO term SELECT realm, kind, CAST('wolf' AS BLOB), rec FROM term LIMIT 1",
        "INSERT INTO term SELECT realm, kind, text, 99 FROM term LIMIT 1",
        "INSERT INTO element SELECT dataset, zeroblob(8), id, realm FROM element LIMIT 1",
        "DELETE FROM element WHERE id = (SELECT id FROM record LIMIT 1) AND bytes <> zeroblob(8)",
        "UPDATE record SET derived = x'ff' WHERE rec = 2",
        "UPDATE change SET counts = x'C84D' WHERE newest = (SELECT max(newest) FROM change)",
    ];
    for damage in damages {
        let damage = move |connection: &Connection| Ok(connection.execute(damage, [])?);
        assert_eq!(store.writer().unwrap().run(damage).unwrap(), 1);
    }
    put(&store, 2, "red fox");
    let view = store.snapshot().unwrap();
    let there = terms(&*view, 1).into_iter().map(|(term, id)| (id, Derived::Term(term)));
    let element_row = |(bytes, id)| {
        let dataset = crate::conformance::toy::LINES;
        (id, Derived::Element(Element { dataset, bytes }))
    };
    let mut rows: Vec<_> = there.chain(elements(&*view, 1).into_iter().map(element_row)).collect();
    rows.push((id(1), Derived::Term(crate::conformance::toy::word("brown"))));
    rows.push((id(1), Derived::Element(element("brown fox"))));
    assert_eq!(store.mend(TOYS, rows.clone()).unwrap(), 5);
    assert_eq!(store.mend(TOYS, rows).unwrap(), 0);
    assert!(store.recount(TOYS).unwrap() && !store.recount(TOYS).unwrap());
    let (view, model) = (store.snapshot().unwrap(), model.snapshot().unwrap());
    assert_eq!(terms(&*view, 7), terms(&*model, 7));
    assert_eq!(elements(&*view, 7), elements(&*model, 7));
    assert_eq!(view.count(TOYS).unwrap(), 2);
    // What the damage did behind everybody's back is not among the changes, what was mended is.
    let changes = store.changes(&since, 9).unwrap();
    let mut changes: Vec<_> = changes.into_iter().map(|row| (row.added, row.element)).collect();
    changes.sort_unstable();
    let zero = Element {
        dataset: crate::conformance::toy::LINES,
        bytes: vec![0; 8],
    };
    assert_eq!(changes, [(false, zero), (true, element("brown fox"))]);
}

/// Nothing contradicts anything: the toy realm says what terms and elements the records must have, and the changes,
/// from the first one on, say what elements there must be.
fn assert_sound(store: &SqliteStore) {
    let view = store.snapshot().unwrap();
    let (mut must_terms, mut must_elements) = (BTreeSet::new(), BTreeSet::new());
    let records = view.records(TOYS, None, usize::MAX).unwrap();
    for stored in &records {
        let toy = record(std::str::from_utf8(&stored.data).unwrap());
        must_terms.extend(toy.terms.into_iter().map(|term| (term, stored.id.clone())));
        must_elements.extend(
            toy.elements
                .into_iter()
                .map(|element| (element.bytes, stored.id.clone())),
        );
    }
    assert!(terms(&*view, 1_000).into_iter().eq(must_terms), "terms differ");
    assert!(elements(&*view, 1_000).iter().eq(&must_elements), "elements differ");
    assert_eq!(view.count(TOYS).unwrap(), records.len() as u64);

    let vector = view.vector().unwrap();
    let mut replayed = BTreeSet::new();
    for row in store.changes(&Vector::new(), usize::MAX).unwrap() {
        if row.n > vector[&row.writer] {
            continue;
        }
        let news = if row.added {
            replayed.insert(row.element.bytes)
        } else {
            replayed.remove(&row.element.bytes)
        };
        assert!(news, "change {} says what was so before", row.n);
    }
    assert!(
        replayed
            .into_iter()
            .eq(must_elements.into_iter().map(|row| row.0).collect::<BTreeSet<_>>())
    );
    let whole: String = store
        .readers
        .run(|connection| Ok(connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?))
        .unwrap();
    assert_eq!(whole, "ok");
}

fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(dir, &Options::default()).unwrap()
}

/// Without a sync for each of many commits.
fn open_fast(dir: &Path) -> SqliteStore {
    SqliteStore::open(
        dir,
        &Options {
            durability: Durability::Normal,
            ..Options::default()
        },
    )
    .unwrap()
}

fn open_to_read(dir: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(
        dir,
        &Options {
            read_only: true,
            ..Options::default()
        },
    )
}

/// The reason of an error, which must be that the store is not available.
fn unavailable<T>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Unavailable(reason)) => reason,
        Err(error) => panic!("not the kind of error expected: {error}"),
        Ok(_) => panic!("an error was expected"),
    }
}

fn random_numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state >> 20
    }
}
