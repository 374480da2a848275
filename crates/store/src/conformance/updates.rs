//! What updates promise.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Check;
use super::toy::{LINES, TOYS, batch, change, element, elements, found, id, put, record, terms};
use crate::{Applied, Decision, Derived, Element, Realm, RecordId, Store, StoreError, Term, Vector};

pub(crate) const CHECKS: &[Check] = &[
    (
        "a record comes, changes and goes with its terms and elements",
        life_of_a_record,
    ),
    ("storing the same again changes nothing", same_again),
    ("each id of a batch has its own decision", batch_of_many),
    ("an id that occurs twice sees its first result", twice_in_a_batch),
    ("a refused batch leaves nothing behind", refused),
    ("a panic in the closure is an error and no more", panicking),
    ("duplicates of terms and elements are folded", duplicates),
    ("an element held twice comes once and goes once", shared_element),
    ("an element may move within a batch", moved_element),
    ("a deleted record and a new one keep apart", delete_and_insert),
    ("changes are numbered without gaps", numbered),
    ("notes come and go with their batch", notes),
    ("a note is swapped by one of those who saw it", swapped),
    ("a batch whose premise does not hold does nothing", overtaken),
    ("no batch ends behind a change of its premise", tied),
    ("mending leaves alone what is right", mending),
    ("realms do not meet", realms),
    ("concurrent updates of one record lose nothing", concurrent),
    ("octets of every length come back", octets),
];

fn life_of_a_record(store: &dyn Store) {
    assert_eq!(put(store, 1, "brown fox"), Applied::Inserted);
    let first = store.get(TOYS, &[id(1)]).unwrap()[0].clone().unwrap();
    assert_eq!((first.data.as_slice(), first.policy), (&b"brown fox"[..], 1));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!((now - 60..=now).contains(&first.created) && first.created == first.modified);

    assert_eq!(put(store, 1, "red fox"), Applied::Updated);
    let second = store.get(TOYS, &[id(1)]).unwrap()[0].clone().unwrap();
    assert!(second.created == first.created && second.modified >= first.modified);
    assert_eq!(
        (found(store, "brown"), found(store, "red")),
        (vec![], vec!["red fox".to_string()])
    );
    assert_eq!(
        elements(&*store.snapshot().unwrap(), 9),
        [(element("red fox").bytes, id(1))]
    );
    assert_eq!(store.count(TOYS).unwrap(), 1);

    assert_eq!(change(store, 1, None).unwrap(), Applied::Deleted);
    assert_eq!(change(store, 1, None).unwrap(), Applied::Unchanged);
    assert_eq!(store.get(TOYS, &[id(1)]).unwrap(), [None]);
    let view = store.snapshot().unwrap();
    assert_eq!((terms(&*view, 9), elements(&*view, 9)), (vec![], vec![]));
    assert_eq!(store.count(TOYS).unwrap(), 0);
}

fn same_again(store: &dyn Store) {
    put(store, 1, "brown fox");
    let before = (store.get(TOYS, &[id(1)]).unwrap(), store.vector().unwrap());
    assert_eq!(put(store, 1, "brown fox"), Applied::Unchanged);
    assert_eq!((store.get(TOYS, &[id(1)]).unwrap(), store.vector().unwrap()), before);
    let mut record = record("brown fox");
    record.policy = 2;
    assert_eq!(change(store, 1, Some(record.clone())).unwrap(), Applied::Updated);
    record.terms.pop();
    assert_eq!(change(store, 1, Some(record)).unwrap(), Applied::Updated);
    assert_eq!((found(store, "brown").len(), found(store, "fox").len()), (1, 0));
    assert_eq!(store.vector().unwrap(), before.1, "no element changed");
}

fn batch_of_many(store: &dyn Store) {
    put(store, 1, "old one");
    put(store, 2, "old two");
    put(store, 3, "old three");
    let mut batch = batch(&[1, 2, 3, 4, 5], |index| match index {
        0 => Decision::Keep,
        1 => Decision::Put(record("new two")),
        2 | 4 => Decision::Delete,
        _ => Decision::Put(record("new four")),
    });
    let seen = Arc::new(std::sync::Mutex::new(vec![]));
    let (log, decide) = (Arc::clone(&seen), batch.decide);
    batch.decide = Box::new(move |index, old| {
        log.lock().unwrap().push((index, old.map(|stored| stored.data.clone())));
        decide(index, old)
    });
    use Applied::{Deleted, Inserted, Unchanged, Updated};
    assert_eq!(
        store.update(batch).unwrap(),
        [Unchanged, Updated, Deleted, Inserted, Unchanged]
    );
    let seen = seen.lock().unwrap();
    let old = |line: &str| Some(line.as_bytes().to_vec());
    // It may have been run before, and for nothing.
    assert_eq!(
        seen[seen.len() - 5..],
        [
            (0, old("old one")),
            (1, old("old two")),
            (2, old("old three")),
            (3, None),
            (4, None)
        ]
    );
    assert_eq!(found(store, "old"), ["old one"]);
    assert_eq!(found(store, "new"), ["new two", "new four"]);
    assert_eq!(store.count(TOYS).unwrap(), 3);
    assert_eq!(store.update(self::batch(&[], |_| Decision::Keep)).unwrap(), []);
}

fn twice_in_a_batch(store: &dyn Store) {
    let lines = ["a", "a", "a b", "x", "x"];
    let applied = store.update(batch(&[1, 1, 1, 2, 2], move |index| match index {
        4 => Decision::Delete,
        _ => Decision::Put(record(lines[index])),
    }));
    use Applied::{Deleted, Inserted, Unchanged, Updated};
    assert_eq!(applied.unwrap(), [Inserted, Unchanged, Updated, Inserted, Deleted]);
    assert_eq!(
        (found(store, "a"), found(store, "x")),
        (vec!["a b".to_string()], vec![])
    );
    assert_eq!(store.count(TOYS).unwrap(), 1);
}

fn refused(store: &dyn Store) {
    put(store, 1, "stays");
    let mut long_term = record("goes");
    long_term.terms.push(Term {
        kind: 0,
        text: vec![b'x'; Term::OCTETS_MAX + 1],
    });
    let mut long_element = record("goes");
    long_element.elements.push(Element {
        dataset: LINES,
        bytes: vec![1; Element::OCTETS_MAX + 1],
    });
    for bad in [long_term, long_element] {
        let mut batch = batch(&[1, 2, 3], move |index| match index {
            2 => Decision::Put(bad.clone()),
            _ => Decision::Put(record("other line")),
        });
        batch.notes.push(("mark".into(), Some(vec![1])));
        assert!(matches!(store.update(batch), Err(StoreError::Invalid(_))));
        assert_eq!((found(store, "stays").len(), found(store, "other").len()), (1, 0));
        assert_eq!((store.count(TOYS).unwrap(), store.note("mark").unwrap()), (1, None));
    }
}

fn panicking(store: &dyn Store) {
    let outcome = store.update(batch(&[1, 2], |index| {
        if index == 1 {
            panic!("on purpose")
        } else {
            Decision::Put(record("x"))
        }
    }));
    assert!(matches!(outcome, Err(StoreError::Invalid(_))));
    assert_eq!(store.count(TOYS).unwrap(), 0);
    assert_eq!(put(store, 1, "goes on"), Applied::Inserted);
}

fn duplicates(store: &dyn Store) {
    let mut twice = record("same same");
    twice.elements.push(twice.elements[0].clone());
    change(store, 1, Some(twice)).unwrap();
    let view = store.snapshot().unwrap();
    assert_eq!((terms(&*view, 9).len(), elements(&*view, 9).len()), (1, 1));
    assert_eq!(put(store, 1, "same same"), Applied::Unchanged);
}

fn shared_element(store: &dyn Store) {
    let before = store.vector().unwrap();
    for number in 1..=3 {
        put(store, number, "one line");
    }
    let holders = store.by_element(TOYS, LINES, &[element("one line").bytes]).unwrap();
    assert_eq!(holders.len(), 3);
    assert_eq!(elements(&*store.snapshot().unwrap(), 1).len(), 3);
    let logged = || {
        let rows = store.changes(&before, 99).unwrap();
        rows.into_iter().map(|row| (row.element, row.added)).collect::<Vec<_>>()
    };
    assert_eq!(logged(), [(element("one line"), true)]);
    change(store, 2, None).unwrap();
    put(store, 1, "another");
    assert_eq!(logged(), [(element("one line"), true), (element("another"), true)]);
    change(store, 3, None).unwrap();
    assert_eq!(logged().last(), Some(&(element("one line"), false)));
}

fn moved_element(store: &dyn Store) {
    put(store, 1, "one line");
    let before = store.vector().unwrap();
    let moved = store.update(batch(&[1, 2], |index| match index {
        0 => Decision::Delete,
        _ => Decision::Put(record("one line")),
    }));
    assert_eq!(moved.unwrap(), [Applied::Deleted, Applied::Inserted]);
    assert_eq!(
        elements(&*store.snapshot().unwrap(), 9),
        [(element("one line").bytes, id(2))]
    );
    let gone_and_come = store
        .changes(&before, 9)
        .unwrap()
        .iter()
        .map(|row| row.added)
        .collect::<Vec<_>>();
    assert!(gone_and_come.is_empty() || gone_and_come == [false, true]);
}

fn delete_and_insert(store: &dyn Store) {
    put(store, 1, "same words");
    let swap = batch(&[1, 2], |index| match index {
        0 => Decision::Delete,
        _ => Decision::Put(record("same words here")),
    });
    store.update(swap).unwrap();
    assert_eq!(found(store, "same"), ["same words here"]);
    assert_eq!(terms(&*store.snapshot().unwrap(), 9).len(), 3);
}

fn numbered(store: &dyn Store) {
    let before = store.vector().unwrap();
    for number in 0..20 {
        put(store, number, &format!("line {number}"));
    }
    put(store, 5, "changed");
    let rows = store.changes(&before, usize::MAX).unwrap();
    assert_eq!(rows.len(), 22);
    let mut seen = before.clone();
    for row in &rows {
        let n = seen.entry(row.writer).or_insert(0);
        assert_eq!(row.n, *n + 1);
        *n = row.n;
    }
    assert_eq!(seen, store.vector().unwrap());
    assert_eq!(store.changes(&seen, usize::MAX).unwrap(), []);

    let mut paged = Vec::new();
    let mut since = before;
    loop {
        let page = store.changes(&since, 7).unwrap();
        since.extend(page.iter().map(|row| (row.writer, row.n)));
        assert!(page.len() <= 7);
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, rows);
    forgotten(store, &seen);
}

fn forgotten(store: &dyn Store, newest: &Vector) {
    store.maintain(0).unwrap();
    assert_eq!(
        store.changes(&Vector::new(), 99).unwrap().len(),
        22,
        "nothing is that old"
    );
    store.maintain(u64::MAX).unwrap();
    assert_eq!(store.changes(&Vector::new(), 99).unwrap(), []);
    assert_eq!(&store.vector().unwrap(), newest, "counters outlive their rows");
    put(store, 99, "one more");
    let rows = store.changes(newest, 99).unwrap();
    assert_eq!(rows.iter().map(|row| row.n).collect::<Vec<_>>(), [23]);
}

fn notes(store: &dyn Store) {
    assert_eq!(store.note("key").unwrap(), None);
    let mut first = batch(&[], |_| Decision::Keep);
    first.notes = vec![("key".into(), Some(vec![1, 2])), ("other".into(), Some(vec![]))];
    store.update(first).unwrap();
    assert_eq!(
        (store.note("key").unwrap(), store.note("other").unwrap()),
        (Some(vec![1, 2]), Some(vec![]))
    );
    let mut second = batch(&[1], |_| Decision::Put(record("with a note")));
    second.notes = vec![("key".into(), None), ("other".into(), Some(vec![3]))];
    store.update(second).unwrap();
    assert_eq!(
        (store.note("key").unwrap(), store.note("other").unwrap()),
        (None, Some(vec![3]))
    );
}

fn swapped(store: &dyn Store) {
    assert!(!store.swap_note("key", Some(b"old"), b"new").unwrap());
    assert!(store.swap_note("key", None, b"").unwrap() && !store.swap_note("key", None, b"x").unwrap());
    assert!(store.swap_note("key", Some(b""), b"0").unwrap());
    let wins = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let wins = &wins;
            scope.spawn(move || {
                for round in 0..20u8 {
                    let seen = store.note("key").unwrap().unwrap();
                    let won = store.swap_note("key", Some(&seen), &[thread, round]).unwrap();
                    wins.fetch_add(usize::from(won), Ordering::Relaxed);
                }
            });
        }
    });
    assert!((1..=80).contains(&wins.load(Ordering::Relaxed)));
    assert_eq!(store.note("key").unwrap().unwrap().len(), 2);
}

fn overtaken(store: &dyn Store) {
    let tied = |value: &[u8], line: &'static str| {
        let mut batch = batch(&[1], move |_| Decision::Put(record(line)));
        batch.premise = Some(("rule".into(), value.to_vec()));
        batch.notes = vec![("mark".into(), Some(line.into()))];
        store.update(batch)
    };
    assert!(matches!(tied(b"", "none yet"), Err(StoreError::Overtaken)));
    assert!(store.swap_note("rule", None, b"1").unwrap());
    assert_eq!(tied(b"1", "first").unwrap(), [Applied::Inserted]);
    assert!(store.swap_note("rule", Some(b"1"), b"2").unwrap());
    assert!(matches!(tied(b"1", "second"), Err(StoreError::Overtaken)));
    assert_eq!(
        (found(store, "first").len(), store.note("mark").unwrap()),
        (1, Some(b"first".to_vec()))
    );
    let mut change = batch(&[], |_| Decision::Keep);
    change.premise = Some(("rule".into(), b"2".to_vec()));
    change.notes = vec![("rule".into(), Some(b"3".to_vec()))];
    store.update(change).unwrap();
    assert_eq!(tied(b"3", "third").unwrap(), [Applied::Updated]);
}

fn tied(store: &dyn Store) {
    tied_among(&[store, store, store]);
}

/// Writers write what they were tied to, each by one of `stores`, which are one; whoever changes the premise then sees all
/// that relied on the old one.
pub(crate) fn tied_among(stores: &[&dyn Store]) {
    let first = stores[0];
    assert!(first.swap_note("rule", None, &[0]).unwrap());
    std::thread::scope(|scope| {
        for (thread, store) in (0..).zip(stores) {
            scope.spawn(move || write_until(*store, thread, ROUNDS));
        }
        for round in 0..ROUNDS {
            let mut change = batch(&[], |_| Decision::Keep);
            change.premise = Some(("rule".into(), vec![round]));
            change.notes = vec![("rule".into(), Some(vec![round + 1]))];
            stores[usize::from(round) % stores.len()].update(change).unwrap();
            let by_old = || found(first, &format!("by{round}")).len();
            let before = by_old();
            std::thread::sleep(std::time::Duration::from_millis(3));
            assert_eq!(by_old(), before, "written by a rule that was gone");
        }
    });
    assert_eq!(first.note("rule").unwrap(), Some(vec![ROUNDS]));
}

/// How often the premise changes.
const ROUNDS: u8 = 20;

fn write_until(store: &dyn Store, thread: u32, last: u8) {
    for number in (0..).map(|n| 8 * n + thread) {
        let seen = store.note("rule").unwrap().unwrap();
        if seen == [last] {
            return;
        }
        let line = format!("by{}", seen[0]);
        let mut batch = batch(&[number], move |_| Decision::Put(record(&line)));
        batch.premise = Some(("rule".into(), seen));
        match store.update(batch) {
            Ok(_) | Err(StoreError::Overtaken) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

fn mending(store: &dyn Store) {
    put(store, 1, "brown fox");
    put(store, 2, "red fox");
    let rows = |store: &dyn Store| {
        let view = store.snapshot().unwrap();
        (terms(&*view, 9), elements(&*view, 9), store.vector().unwrap())
    };
    let before = rows(store);
    let term = |text: &str| Derived::Term(super::toy::word(text));
    let looked_at = vec![
        (id(1), term("brown")),
        (id(1), term("red")),
        (id(1), Derived::Element(element("brown fox"))),
        (id(2), Derived::Element(element("brown fox"))),
        (id(3), Derived::Element(element("red fox"))),
        (id(3), term("fox")),
    ];
    assert_eq!(store.mend(TOYS, looked_at).unwrap(), 0);
    assert!(!store.recount(TOYS).unwrap());
    assert_eq!(rows(store), before);
    assert_eq!(store.count(TOYS).unwrap(), 2);
}

fn realms(store: &dyn Store) {
    put(store, 1, "here");
    let mut other = batch(&[1], |_| Decision::Put(record("here too")));
    other.realm = Realm(7);
    assert_eq!(store.update(other).unwrap(), [Applied::Inserted]);
    assert_eq!(found(store, "here"), ["here"]);
    assert_eq!(
        (
            store.count(TOYS).unwrap(),
            store.count(Realm(7)).unwrap(),
            store.count(Realm(8)).unwrap()
        ),
        (1, 1, 0)
    );
    let view = store.snapshot().unwrap();
    assert_eq!(view.records(TOYS, None, 9).unwrap().len(), 1);
    assert_eq!(view.records(Realm(8), None, 9).unwrap(), []);
    assert_eq!(terms(&*view, 9).len(), 1);
}

fn concurrent(store: &dyn Store) {
    const THREADS: usize = 8;
    const TIMES: usize = 25;
    let runs = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..TIMES {
                    let mut longer = batch(&[1], |_| Decision::Keep);
                    longer.decide = Box::new(|_, old| {
                        let line = old.map_or(String::new(), |old| String::from_utf8_lossy(&old.data).into_owned());
                        Decision::Put(record(&(line + "x")))
                    });
                    store.update(longer).unwrap();
                    runs.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let stored = store.get(TOYS, &[id(1)]).unwrap()[0].clone().unwrap();
    assert_eq!(stored.data.len(), THREADS * TIMES);
    assert_eq!(elements(&*store.snapshot().unwrap(), 9).len(), 1);
}

fn octets(store: &dyn Store) {
    let id = |length: usize| RecordId::new(&vec![0xff; length]).unwrap();
    for (number, length) in [0usize, 1, 255, 4_000, 16_384, 70_000, 1_000_000]
        .into_iter()
        .enumerate()
    {
        let data: Vec<u8> = (0..length).map(|at| ((at * 31) >> 3) as u8).collect();
        let mut batch = batch(&[], |_| Decision::Keep);
        batch.ids = vec![id(number * 10 + 1)];
        let mut record = record("");
        record.data = data.clone();
        record.terms = vec![
            Term {
                kind: 255,
                text: vec![],
            },
            Term {
                kind: 0,
                text: vec![0; length.min(Term::OCTETS_MAX)],
            },
            Term {
                kind: 1,
                text: data[length / 2..].iter().take(Term::OCTETS_MAX).copied().collect(),
            },
        ];
        let texts = record.terms.clone();
        batch.decide = Box::new(move |_, _| Decision::Put(record.clone()));
        store.update(batch).unwrap();
        assert_eq!(
            store.get(TOYS, &[id(number * 10 + 1)]).unwrap()[0]
                .as_ref()
                .unwrap()
                .data,
            data
        );
        for term in texts {
            let hits = store.find(TOYS, &term, None, 99).unwrap();
            assert!(
                hits.iter().any(|stored| stored.data == data),
                "not found by a term of {} octets",
                term.text.len()
            );
        }
    }
}
