//! Many stores on one database, as many processes are, and a database that goes and comes back.

use std::time::{Duration, Instant};

use super::super::fault::Fault;
use super::super::sql;
use super::*;
use crate::conformance::toy::{LINES, batch, element, found, id, put, word};
use crate::conformance::updates::tied_among;
use crate::{Applied, Decision, Element};

/// Makes record 1 longer by one letter so many times, and as often stores some others that everybody stores.
pub(super) fn append(store: &PostgresStore, times: u32) {
    for time in 0..times {
        let mut longer = batch(&[1, 2 + time % 7, 9], |_| Decision::Keep);
        longer.decide = Box::new(move |at, old| match at {
            0 => {
                let line = old.map_or(String::new(), |old| String::from_utf8_lossy(&old.data).into_owned());
                Decision::Put(record(&(line + "x")))
            }
            _ => Decision::Put(record(&format!("common {}", time % 3))),
        });
        store.update(longer).unwrap();
    }
}

pub(super) fn assert_appended(store: &PostgresStore, times: u32) {
    let stored = store.get(TOYS, &[id(1)]).unwrap()[0].clone().unwrap();
    assert_eq!(stored.data.len(), times as usize);
}

#[test]
fn three_processes_share_a_database() {
    let server = Server::start();
    let url = server.fresh();
    let stores = [open(&url), open(&url), open(&url)];
    std::thread::scope(|scope| {
        for store in &stores {
            for _ in 0..4 {
                scope.spawn(|| append(store, 50));
            }
        }
    });
    assert_appended(&stores[1], 3 * 4 * 50);
    let vectors = stores.each_ref().map(|store| store.vector().unwrap());
    assert!(
        vectors[0].len() == 3 && vectors[0] == vectors[1] && vectors[1] == vectors[2],
        "{vectors:?}"
    );
    assert_sound(&stores[2]);
}

/// The same element comes by several processes at the same moment, each with a record of its own.
#[test]
fn an_element_that_comes_twice_at_once_comes_once() {
    let server = Server::start();
    let url = server.fresh();
    let stores = [open(&url), open(&url)];
    for round in 0..30 {
        std::thread::scope(|scope| {
            for (number, store) in (0..).zip(&stores) {
                scope.spawn(move || put(store, 2 * round + number, &format!("line {round}")));
            }
        });
        if round % 3 == 0 {
            std::thread::scope(|scope| {
                for (number, store) in (0..).zip(&stores) {
                    scope.spawn(move || change(store, 2 * round + number, None));
                }
            });
        }
    }
    assert_sound(&stores[0]);
}

#[test]
fn no_process_writes_by_a_premise_that_is_gone() {
    let server = Server::start();
    let url = server.fresh();
    let stores = [open(&url), open(&url), open(&url)];
    tied_among(&[&stores[0], &stores[1], &stores[2]]);
    assert_sound(&stores[0]);
}

/// A process that starts while a premise changes does not write by the old one.
#[test]
fn a_new_lane_waits_for_whoever_changes_a_premise() {
    let server = Server::start();
    let url = server.fresh();
    let store = open(&url);
    assert!(store.swap_note("rule", None, &[0]).unwrap());
    let tied = |number: u32, decided: Box<dyn Fn() + Send + Sync>| {
        let mut batch = batch(&[number], move |_| {
            decided();
            Decision::Put(record("line"))
        });
        batch.premise = Some(("rule".into(), vec![0]));
        batch
    };
    let (changing, changes) = std::sync::mpsc::channel();
    let changing = std::sync::Mutex::new(changing);
    let mut change = tied(
        1,
        Box::new(move || {
            let _ = changing.lock().unwrap().send(());
            std::thread::sleep(Duration::from_secs(1));
        }),
    );
    change.notes = vec![("rule".into(), Some(vec![1]))];
    std::thread::scope(|scope| {
        scope.spawn(|| store.update(change).unwrap());
        changes.recv().unwrap();
        let written = open(&url).update(tied(2, Box::new(|| ())));
        assert!(matches!(written, Err(StoreError::Overtaken)), "{written:?}");
    });
    assert_sound(&store);
}

#[test]
fn those_that_start_together_take_the_lanes_there_are() {
    let server = Server::start();
    let url = server.fresh();
    for round in 0..5 {
        let stores = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| open(&url))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect::<Vec<_>>()
        });
        for (number, store) in (0..).zip(&stores) {
            put(store, number, &format!("line {round}"));
        }
        assert_eq!(stores[0].vector().unwrap().len(), 4, "round {round}");
    }
}

/// Inserts do what a COPY can't, after what counts as a conflict.
#[test]
fn a_copy_that_the_database_does_not_know_is_no_fault() {
    let server = Server::start();
    let address = Address::new(&server.fresh(), None).unwrap();
    let database = Database::new(address, database::session(false, false)).unwrap();
    let mut connection = database.connect().unwrap();
    let copied = connection.copy(sql::NONSENSE, &[], 0, &|_| Vec::new());
    assert!(matches!(copied, Err(Fault::Conflict)), "{copied:?}");
}

/// All that is written together with it would fail.
#[test]
fn a_database_that_cannot_hold_every_text_is_refused() {
    let server = Server::start();
    let make = "CREATE DATABASE narrow ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'";
    server.postgres.ask("postgres", make).unwrap();
    let refused = PostgresStore::open(&Options::new(&server.postgres.url_of("narrow")));
    let reason = refused.map(drop).unwrap_err().to_string();
    assert!(
        reason.contains("LATIN1") && reason.contains("--encoding=UTF8"),
        "{reason}"
    );
}

#[test]
fn lanes_are_used_again() {
    let server = Server::start();
    let url = server.fresh();
    for number in 0..5 {
        let (store, other) = (open(&url), open(&url));
        put(&store, number, "line");
        put(&other, number, "other line");
        assert_eq!(store.vector().unwrap().len(), 2);
    }
    let store = open(&url);
    assert_sound(&store);
    // One that claims another's lane makes it wait and does no harm.
    let lane = store.writer().unwrap().lane();
    server
        .postgres
        .ask(
            "test0",
            &format!(
                "UPDATE lane SET claimed = CASE writer WHEN {} THEN 0 ELSE 9e9 END",
                lane.number()
            ),
        )
        .unwrap();
    let second = open(&url);
    assert_eq!(second.writer().unwrap().lane(), lane);
    std::thread::scope(|scope| {
        for store in [&store, &second] {
            scope.spawn(|| append(store, 50));
        }
    });
    assert_sound(&store);
}

#[test]
fn a_reader_follows_and_never_writes() {
    let server = Server::start();
    let url = server.fresh();
    let reason = unavailable(open_to_read(&url));
    assert!(reason.contains("keyrink migrate"), "{reason}");
    let writer = open(&url);
    let reader = open_to_read(&url).unwrap();
    put(&writer, 1, "brown fox");
    assert_eq!(
        (reader.count(TOYS).unwrap(), reader.vector().unwrap()),
        (1, writer.vector().unwrap())
    );
    let reason = unavailable(change(&reader, 2, Some(record("x"))));
    assert!(reason.contains("reading only"), "{reason}");
    unavailable(reader.maintain(0));
    reader.ready().unwrap();
}

#[test]
fn a_batch_that_is_refused_does_not_spoil_its_company() {
    let server = Server::start();
    let store = open(&server.fresh());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..24)
            .map(|number| {
                let store = &store;
                scope.spawn(move || match number % 3 {
                    0 => store.update(batch(&[number], |_| panic!("on purpose"))).is_err(),
                    _ => put(store, number, &format!("line {number}")) == Applied::Inserted,
                })
            })
            .collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    });
    assert_eq!(store.count(TOYS).unwrap(), 16);
    assert_sound(&store);
}

/// What the database itself objects to, which nobody here foresaw.
#[test]
fn a_batch_that_the_database_refuses_does_not_spoil_its_company() {
    let server = Server::start();
    let store = open(&server.fresh());
    let objection = "ALTER TABLE record ADD CHECK (data <> 'unlucky'::bytea)";
    server.postgres.ask("test0", objection).unwrap();
    let (begun, begins) = std::sync::mpsc::channel();
    let begun = std::sync::Mutex::new(begun);
    // While this one takes its time, all others come, and together they go.
    let slow = batch(&[100], move |_| {
        let _ = begun.lock().unwrap().send(());
        std::thread::sleep(Duration::from_millis(500));
        Decision::Put(record("slow"))
    });
    std::thread::scope(|scope| {
        scope.spawn(|| store.update(slow).unwrap());
        begins.recv().unwrap();
        let update = |number| {
            let line = if number == 4 {
                "unlucky".into()
            } else {
                format!("line {number}")
            };
            store
                .update(batch(&[number], move |_| Decision::Put(record(&line))))
                .is_ok()
        };
        let threads: Vec<_> = (0..9).map(|number| scope.spawn(move || update(number))).collect();
        let stored: Vec<bool> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(stored, (0..9).map(|number| number != 4).collect::<Vec<_>>());
    });
    assert_eq!(store.count(TOYS).unwrap(), 9);
    assert_sound(&store);
}

#[test]
fn a_lazy_load_is_safe_once_it_is_settled() {
    let server = Server::start();
    let url = server.fresh();
    let load = open_lazily(&url, 2);
    for number in 0..20 {
        put(&load, number, &format!("line {number}"));
    }
    load.settle().unwrap();
    server.postgres.kill();
    server.postgres.start_again().unwrap();
    let store = open(&url);
    assert_eq!(store.count(TOYS).unwrap(), 20);
    assert_sound(&store);
    // What was settled is no longer at stake: work goes on in another session.
    put(&load, 20, "line 20");
}

/// Whether it stays away or comes back: what was not settled may be gone, and nothing is built on it.
#[test]
fn a_lazy_load_whose_database_crashed_says_so() {
    for comes_back in [false, true] {
        let server = Server::start();
        let url = server.fresh();
        let load = open_lazily(&url, 1);
        put(&load, 1, "before");
        server.postgres.kill();
        if comes_back {
            server.postgres.start_again().unwrap();
        }
        let reason = unavailable(load.settle());
        assert!(
            reason.contains("may have lost") && reason.contains("start again"),
            "{reason}"
        );
        unavailable(change(&load, 2, Some(record("after"))));
        unavailable(load.settle());
        if comes_back {
            assert_eq!(open(&url).get(TOYS, &[id(2)]).unwrap(), [None]);
        }
    }
}

fn open_lazily(url: &str, writers: usize) -> PostgresStore {
    PostgresStore::open(&Options {
        lazy: true,
        writers,
        ..Options::new(url)
    })
    .unwrap()
}

/// Killed and stopped, it comes back and so does everything here, and what was acknowledged is there.
#[test]
fn a_database_that_comes_back_is_used_again() {
    let server = Server::start();
    let url = server.fresh();
    let store = open(&url);
    let mut acknowledged = 0;
    for round in 0..3 {
        for _ in 0..10 {
            put(&store, acknowledged, &format!("line {acknowledged}"));
            acknowledged += 1;
        }
        match round {
            0 => server.postgres.kill(),
            1 => server.postgres.stop("fast").unwrap(),
            _ => server.postgres.stop("immediate").unwrap(),
        }
        let reason = unavailable(store.ready());
        assert!(reason.contains("the database test0"), "{reason}");
        assert!(unavailable(store.count(TOYS)).contains("without a restart"));
        unavailable(change(&store, 1_000, Some(record("never"))));
        server.postgres.start_again().unwrap();
        until(Duration::from_secs(5), || store.ready().is_ok());
        let asked: Vec<_> = (0..acknowledged).map(id).collect();
        assert!(store.get(TOYS, &asked).unwrap().iter().all(Option::is_some));
        assert_sound(&store);
    }
}

/// It stands still while an update is under way and goes on later.
#[test]
fn a_database_that_stands_still_is_waited_for() {
    let server = Server::start();
    let store = open(&server.fresh());
    put(&store, 1, "before");
    server.postgres.freeze();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| put(&store, 2, "meanwhile"));
        std::thread::sleep(Duration::from_millis(500));
        assert!(!waiting.is_finished());
        server.postgres.thaw();
        assert_eq!(waiting.join().unwrap(), Applied::Inserted);
    });
    assert_sound(&store);
}

#[test]
fn a_database_that_became_read_only_says_so() {
    let server = Server::start();
    let url = server.fresh();
    let store = open(&url);
    put(&store, 1, "before");
    let set = |value| {
        let setting = format!("ALTER DATABASE test0 SET default_transaction_read_only = {value}");
        server.postgres.ask("postgres", &setting).unwrap();
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'test0'";
        server.postgres.ask("postgres", end).unwrap();
    };
    set("on");
    let reason = unavailable(change(&store, 2, Some(record("x"))));
    assert!(reason.contains("is read-only"), "{reason}");
    unavailable(store.ready());
    assert_eq!(store.count(TOYS).unwrap(), 1);
    set("off");
    until(Duration::from_secs(5), || store.ready().is_ok());
    put(&store, 2, "after");
    assert_sound(&store);
}

#[test]
fn damaged_rows_are_mended() {
    let server = Server::start();
    let store = open(&server.fresh());
    put(&store, 1, "brown fox");
    put(&store, 2, "red fox");
    let since = store.vector().unwrap();
    for damage in [
        "DELETE FROM term WHERE term = '\\x03' || 'brown'::bytea",
        "INSERT INTO term SELECT '\\x03' || 'wolf'::bytea, realm, id FROM record WHERE id = '\\x00000001'",
        "INSERT INTO element VALUES ('\\x0000000000000000', 201, ARRAY['\\xc800000001'::bytea])",
        "DELETE FROM element WHERE holders = ARRAY['\\xc800000001'::bytea] AND bytes <> '\\x0000000000000000'",
        "UPDATE tally SET records = 77",
    ] {
        server.postgres.ask("test0", damage).unwrap();
    }
    let view = store.snapshot().unwrap();
    let there = terms(&*view, 9).into_iter().map(|(term, id)| (id, Derived::Term(term)));
    let element_row = |(bytes, id)| (id, Derived::Element(Element { dataset: LINES, bytes }));
    let mut rows: Vec<_> = there.chain(elements(&*view, 9).into_iter().map(element_row)).collect();
    rows.push((id(1), Derived::Term(word("brown"))));
    rows.push((id(1), Derived::Element(element("brown fox"))));
    assert_eq!(store.mend(TOYS, rows.clone()).unwrap(), 4);
    assert_eq!(store.mend(TOYS, rows).unwrap(), 0);
    assert!(store.recount(TOYS).unwrap() && !store.recount(TOYS).unwrap());
    let changes = store.changes(&since, 9).unwrap();
    let came: Vec<_> = changes.into_iter().map(|row| (row.added, row.element)).collect();
    assert!(
        came.len() == 2 && came.contains(&(true, element("brown fox"))),
        "{came:?}"
    );
    assert_eq!(found(&store, "brown"), ["brown fox"]);
    assert_eq!((found(&store, "wolf").len(), store.count(TOYS).unwrap()), (0, 2));
}

fn until(within: Duration, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !done() {
        assert!(Instant::now() < deadline, "not within {within:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Rows about the parts of records, which queries of operators see.
#[test]
fn components_follow_their_records() {
    let server = Server::start();
    let store = open(&server.fresh());
    let rows = || {
        server.postgres.ask(
            "test0",
            "SELECT count(*), sum(bits), count(text), count(fingerprint) FROM component",
        )
    };
    put(&store, 1, "brown fox xerox");
    put(&store, 2, "red fox");
    assert_eq!(rows().unwrap(), "5|19|4|1");
    put(&store, 1, "brown xerox");
    assert_eq!(rows().unwrap(), "4|16|3|1");
    assert_components(&store);
    for damage in [
        "UPDATE component SET bits = 9 WHERE text = 'red'",
        "DELETE FROM component WHERE text = 'fox'",
        "INSERT INTO component (id, realm, place, kind) VALUES ('\\x00000001', 200, 8, 1), ('\\x00000007', 200, 0, 1)",
    ] {
        server.postgres.ask("test0", damage).unwrap();
    }
    let view = store.snapshot().unwrap();
    let found = view.components(TOYS, None, 99).unwrap().into_iter();
    let mut found: Vec<_> = found.map(|(id, row)| (id, Derived::Component(row))).collect();
    found.push((id(2), Derived::Component(record("red fox").components.remove(1))));
    assert_eq!(store.mend(TOYS, found.clone()).unwrap(), 5);
    assert_eq!(store.mend(TOYS, found).unwrap(), 0);
    assert_components(&store);
    change(&store, 1, None).unwrap();
    assert_components(&store);
}

/// As many as arrive at once come by COPY, over several lanes; among them some that are there already.
#[test]
fn a_bulk_load_beside_others_is_sound() {
    let server = Server::start();
    let url = server.fresh();
    let (other, load) = (open(&url), open_lazily(&url, 3));
    assert_eq!(load.writers(), 3);
    std::thread::scope(|scope| {
        let (load, other) = (&load, &other);
        for part in 0..4 {
            scope.spawn(move || {
                for round in 0..12 {
                    let numbers: Vec<u32> = (0..100).map(|n| (part * 997 + round * 100 + n) % 3_000).collect();
                    let lines: Vec<_> = numbers.iter().map(|n| format!("word{} line{n}", n % 7)).collect();
                    load.update(batch(&numbers, move |at| Decision::Put(record(&lines[at]))))
                        .unwrap();
                }
            });
        }
        scope.spawn(move || {
            for n in 0..300 {
                put(other, n * 10, &format!("other line{n}"));
            }
        });
    });
    assert_sound(&other);
    assert_components(&other);
    assert!(other.vector().unwrap().len() == 4);
}

fn assert_components(store: &PostgresStore) {
    let view = store.snapshot().unwrap();
    let mut must = Vec::new();
    for stored in view.records(TOYS, None, usize::MAX).unwrap() {
        let toy = record(std::str::from_utf8(&stored.data).unwrap());
        must.extend(
            toy.components
                .into_iter()
                .map(|component| (stored.id.clone(), component)),
        );
    }
    let mut found: Vec<(RecordId, crate::Component)> = Vec::new();
    loop {
        let after = found.last().map(|(id, component)| (id.clone(), component.place));
        let page = view.components(TOYS, after.as_ref(), 7_000).unwrap();
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    assert!(found == must, "{} instead of {}", found.len(), must.len());
}
