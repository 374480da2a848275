//! What only this engine has to show: many processes on one database that fails in every way it can.

mod document;
mod hostile;
mod schema;
mod sharing;
mod statements;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

pub(super) use hostile::Hostile;
use keyrink_testkit::peers::Postgres;

use super::*;
use crate::conformance;
use crate::conformance::toy::{TOYS, change, elements, record, terms};

/// A server and the databases made in it.
struct Server {
    postgres: Postgres,
    databases: AtomicU32,
}

impl Server {
    fn start() -> Self {
        Self {
            postgres: Postgres::start_with(&["fsync=off"]).unwrap(),
            databases: AtomicU32::new(0),
        }
    }

    /// The URL of a new, empty database.
    fn fresh(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        self.postgres.create(&format!("test{number}")).unwrap()
    }
}

fn open(url: &str) -> PostgresStore {
    PostgresStore::open(&Options::new(url)).unwrap()
}

fn open_to_read(url: &str) -> Result<PostgresStore, StoreError> {
    PostgresStore::open(&Options {
        read_only: true,
        ..Options::new(url)
    })
}

#[test]
fn conforms() {
    let server = Server::start();
    conformance::run(|_| open(&server.fresh()));
}

/// Nothing contradicts anything: the toy realm says what terms and elements the records must have, and the changes of all
/// lanes together, from the first one on, say what elements there must be.
fn assert_sound(store: &PostgresStore) {
    let view = store.snapshot().unwrap();
    let (mut must_terms, mut must_elements) = (BTreeSet::new(), BTreeSet::new());
    let records = view.records(TOYS, None, usize::MAX).unwrap();
    for stored in &records {
        let toy = record(std::str::from_utf8(&stored.data).unwrap());
        must_terms.extend(toy.terms.into_iter().map(|term| (term, stored.id.clone())));
        let held = toy
            .elements
            .into_iter()
            .map(|element| (element.bytes, stored.id.clone()));
        must_elements.extend(held);
    }
    assert!(terms(&*view, 1_000).into_iter().eq(must_terms), "terms differ");
    assert!(elements(&*view, 1_000).iter().eq(&must_elements), "elements differ");
    assert_eq!(view.count(TOYS).unwrap(), records.len() as u64);

    let vector = view.vector().unwrap();
    let (mut seen, mut sum) = (Vector::new(), std::collections::BTreeMap::<_, i64>::new());
    for row in store.changes(&Vector::new(), usize::MAX).unwrap() {
        let before = seen.insert(row.writer, row.n).unwrap_or(0);
        assert_eq!(row.n, before + 1, "numbers without gaps");
        if row.n <= vector[&row.writer] {
            *sum.entry(row.element.bytes).or_default() += if row.added { 1 } else { -1 };
        }
    }
    sum.retain(|_, sum| *sum != 0);
    let held: BTreeSet<_> = must_elements.into_iter().map(|row| row.0).collect();
    assert!(sum.values().all(|sum| *sum == 1), "an element that came or went twice");
    assert!(sum.into_keys().eq(held), "changes and elements differ");
}

/// The reason of an error, which must be that the store is not available.
fn unavailable<T>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Unavailable(reason)) => reason,
        Err(error) => panic!("not the kind of error expected: {error}"),
        Ok(_) => panic!("an error was expected"),
    }
}
