//! What reads and snapshots promise.

use super::Check;
use super::toy::{LINES, TOYS, WORD, batch, change, element, elements, found, id, put, record, terms, word};
use crate::{Bounds, Dataset, Decision, Element, PAGE_OCTETS, Realm, Record, RecordId, Refusal, Store, Term};

pub(crate) const CHECKS: &[Check] = &[
    ("get answers in the order asked", in_order),
    ("a term finds all its records, page by page", paged_find),
    ("a search reads and lists within its bounds", bounded_search),
    ("a term is found by its kind and what it begins with", beginnings),
    ("elements lead to records, each once", by_element),
    ("elements that are not there are told apart", lacking),
    ("a range of elements comes with its changes", range),
    ("refusals are kept by source until they are forgotten", refusals),
    ("rows of a snapshot come in order, page by page", paged_rows),
    ("pages of long records are short", long_pages),
    ("elements come in the order of their bytes", order_of_bytes),
    ("a snapshot stays as it was", frozen),
    ("a store that works is ready", ready),
];

fn in_order(store: &dyn Store) {
    for number in [3, 1, 2] {
        put(store, number, &format!("line {number}"));
    }
    let asked = [id(2), id(9), id(1), id(2)];
    let stored = store.get(TOYS, &asked).unwrap();
    let ids: Vec<_> = stored
        .iter()
        .map(|stored| stored.as_ref().map(|stored| stored.id.clone()))
        .collect();
    assert_eq!(ids, [Some(id(2)), None, Some(id(1)), Some(id(2))]);
    assert_eq!(store.get(TOYS, &[]).unwrap(), []);
}

fn paged_find(store: &dyn Store) {
    let mut numbers: Vec<u32> = (0..50).map(|number| number * 7_919 % 1_000).collect();
    for number in &numbers {
        put(store, *number, &format!("common {number}"));
    }
    numbers.sort_unstable();
    let all: Vec<RecordId> = numbers.into_iter().map(id).collect();
    for step in [1, 7, 49, 50, 51] {
        let mut ids: Vec<RecordId> = Vec::new();
        loop {
            let page = store.find(TOYS, &word("common"), ids.last(), step).unwrap();
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= step);
            ids.extend(page.into_iter().map(|stored| stored.id));
        }
        assert_eq!(ids, all, "in pages of {step}");
    }
    assert_eq!(store.find(TOYS, &word("common"), None, 0).unwrap(), []);
}

fn bounded_search(store: &dyn Store) {
    for number in (0..9).rev() {
        put(store, number, &format!("common {}", "x".repeat(number as usize)));
    }
    put(store, 10, "alone");
    let search = |text: &str, after: Option<u32>, (records, octets, listed)| {
        let bounds = Bounds {
            records,
            octets,
            listed,
        };
        let found = store.search(TOYS, &word(text), after.map(id).as_ref(), bounds).unwrap();
        let read: Vec<_> = found.records.into_iter().map(|record| record.id).collect();
        let rest: Vec<_> = found
            .rest
            .into_iter()
            .map(|listed| (listed.id, listed.octets))
            .collect();
        (read, rest)
    };
    let ids = |numbers: std::ops::Range<u32>| numbers.map(id).collect::<Vec<_>>();
    let listed = |numbers: std::ops::Range<u32>| numbers.map(|number| (id(number), 7 + number as usize)).collect();
    assert_eq!(search("common", None, (9, 999, 9)), (ids(0..9), vec![]));
    assert_eq!(search("common", None, (3, 999, 9)), (ids(0..3), listed(3..9)));
    assert_eq!(search("common", Some(1), (3, 999, 2)), (ids(2..5), listed(5..7)));
    assert_eq!(search("common", None, (9, 7 + 8 + 9, 9)), (ids(0..3), listed(3..9)));
    assert_eq!(search("common", Some(6), (9, 13, 9)), (vec![], listed(7..9)));
    assert_eq!(search("common", None, (0, 0, 0)), (vec![], vec![]));
    assert_eq!(search("alone", None, (9, 5, 9)), (vec![id(10)], vec![]));
    assert_eq!(search("alone", None, (9, 4, 9)), (vec![], vec![(id(10), 5)]));
    assert_eq!(search("alone", None, (0, 9, 9)), (vec![], vec![(id(10), 5)]));
    let holders = |text, limit| store.holders(TOYS, &word(text), limit).unwrap();
    assert_eq!(
        (holders("common", 99), holders("common", 4), holders("none", 9)),
        (9, 4, 0)
    );
}

fn beginnings(store: &dyn Store) {
    put(store, 1, "foxes foxy");
    put(store, 2, "fox");
    put(store, 3, "foz");
    for (text, must) in [
        ("fox", vec!["foxes foxy", "fox"]),
        ("foxe", vec!["foxes foxy"]),
        ("foxyy", vec![]),
        ("fo", vec!["foxes foxy", "fox", "foz"]),
        ("", vec!["foxes foxy", "fox", "foz"]),
    ] {
        assert_eq!(found(store, text), must, "{text}");
        assert_eq!(store.holders(TOYS, &word(text), 9).unwrap(), must.len(), "{text}");
    }
    let mut end = record("end");
    let of = |octets: &[u8]| Term {
        kind: WORD,
        text: octets.to_vec(),
    };
    end.terms = vec![of(&[7, 0xff, 0xff]), of(&[0xff; 3])];
    change(store, 4, Some(end)).unwrap();
    for octets in [&[7, 0xff][..], &[0xff, 0xff], &[0xff, 0xff, 0xff]] {
        assert_eq!(store.holders(TOYS, &of(octets), 9).unwrap(), 1, "{octets:?}");
    }
    assert_eq!(store.holders(TOYS, &of(&[0xff; 4]), 9).unwrap(), 0);
    assert_eq!(
        store
            .find(
                TOYS,
                &Term {
                    kind: 4,
                    text: b"fox".to_vec()
                },
                None,
                9
            )
            .unwrap(),
        []
    );
}

fn by_element(store: &dyn Store) {
    let mut both = record("one");
    both.elements.push(element("two"));
    both.elements.push(Element {
        dataset: Dataset(9),
        bytes: element("three").bytes,
    });
    change(store, 1, Some(both)).unwrap();
    put(store, 2, "two");
    let ask = |lines: &[&str]| {
        let bytes: Vec<_> = lines.iter().map(|line| element(line).bytes).collect();
        let mut ids: Vec<_> = store
            .by_element(TOYS, LINES, &bytes)
            .unwrap()
            .into_iter()
            .map(|stored| stored.id)
            .collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(ask(&["one"]), [id(1)]);
    assert_eq!(ask(&["two", "one", "two"]), [id(1), id(2)]);
    assert_eq!(ask(&["three", "unknown"]), []);
    assert_eq!(ask(&[]), []);
    let listed = &store.by_element(TOYS, LINES, &[element("one").bytes]).unwrap()[0];
    assert_eq!(listed.octets, 3);
    assert_eq!(store.by_element(Realm(9), LINES, &[element("one").bytes]).unwrap(), []);
}

fn lacking(store: &dyn Store) {
    put(store, 1, "one");
    let bytes = |lines: &[&str]| lines.iter().map(|line| element(line).bytes).collect::<Vec<_>>();
    let asked = bytes(&["two", "one", "three"]);
    assert_eq!(store.lacking(LINES, &asked).unwrap(), bytes(&["two", "three"]));
    assert_eq!(store.lacking(Dataset(9), &bytes(&["one"])).unwrap(), bytes(&["one"]));
}

fn range(store: &dyn Store) {
    let mut held: Vec<_> = ["one", "two", "three", "four"]
        .iter()
        .zip(1..)
        .map(|(line, number)| {
            put(store, number, line);
            element(line).bytes
        })
        .collect();
    put(store, 9, "one");
    held.sort_unstable();
    let all = store.range(LINES, &[], &[0xff; 32], 9).unwrap();
    assert_eq!(all, (held.clone(), store.vector().unwrap()));
    let some = store.range(LINES, &held[1], &held[2], 9).unwrap().0;
    assert_eq!(some, held[1..=2]);
    assert_eq!(store.range(LINES, &[], &[0xff; 32], 3).unwrap().0, held[..3]);
    assert_eq!(store.range(Dataset(9), &[], &[0xff; 32], 9).unwrap().0.len(), 0);
    let view = store.snapshot().unwrap();
    put(store, 1, "another");
    assert_eq!(view.range(LINES, &held[1], &[0xff; 32], 9).unwrap(), held[1..]);
}

fn refusals(store: &dyn Store) {
    let refusal = |line: &str, times| Refusal {
        element: element(line).bytes,
        times,
        until: 100 * u64::from(times),
    };
    let asked = [element("one").bytes, element("two").bytes];
    let noted = vec![refusal("one", 1), refusal("two", 1)];
    store.refuse("a", LINES, noted.clone()).unwrap();
    store.refuse("b", LINES, vec![refusal("one", 5)]).unwrap();
    assert_eq!(store.refusals("a", LINES, &asked).unwrap(), noted);
    assert_eq!(store.refusals("b", LINES, &asked).unwrap(), [refusal("one", 5)]);
    assert_eq!(store.refusals("a", Dataset(9), &asked).unwrap(), []);
    store
        .refuse("t", LINES, vec![refusal("one", 2), refusal("two", 1)])
        .unwrap();
    for (most, left) in [(2, 2), (1, 1), (1, 1)] {
        store.trim_refusals("t", most).unwrap();
        assert_eq!(store.refusals("t", LINES, &asked).unwrap().len(), left);
    }
    assert_eq!(store.refusals("t", LINES, &asked).unwrap(), [refusal("one", 2)]);
    assert_eq!(store.refusal_count("a").unwrap(), 2);
    store
        .refuse("a", LINES, vec![refusal("one", 2), refusal("two", 0)])
        .unwrap();
    assert_eq!(store.refusals("a", LINES, &asked).unwrap(), [refusal("one", 2)]);
    assert_eq!(
        (store.refusal_count("a").unwrap(), store.refusal_count("c").unwrap()),
        (1, 0)
    );
    store.maintain(300).unwrap();
    assert_eq!(
        (store.refusal_count("a").unwrap(), store.refusal_count("b").unwrap()),
        (0, 1)
    );
}

fn paged_rows(store: &dyn Store) {
    for number in 0..40u32 {
        put(
            store,
            number * 17 % 41,
            &format!("common word{} even{}", number, number % 2),
        );
    }
    put(store, 99, "common word0 even0");
    let view = store.snapshot().unwrap();
    let all_terms = terms(&*view, usize::MAX);
    let all_elements = elements(&*view, usize::MAX);
    assert_eq!((all_terms.len(), all_elements.len()), (123, 41));
    assert!(all_terms.is_sorted() && all_elements.is_sorted());
    for step in [1, 2, 5, 40, 41, 200] {
        assert_eq!(terms(&*view, step), all_terms, "terms in pages of {step}");
        assert_eq!(elements(&*view, step), all_elements, "elements in pages of {step}");
        let mut ids: Vec<RecordId> = Vec::new();
        loop {
            let page = view.records(TOYS, ids.last(), step).unwrap();
            if page.is_empty() {
                break;
            }
            ids.extend(page.into_iter().map(|stored| stored.id));
        }
        assert!(ids.len() == 41 && ids.is_sorted(), "records in pages of {step}");
    }
}

fn long_pages(store: &dyn Store) {
    for number in 0..5 {
        let long = Record {
            data: vec![7; PAGE_OCTETS / 2],
            ..record("long")
        };
        change(store, number, Some(long)).unwrap();
    }
    let view = store.snapshot().unwrap();
    let (mut after, mut pages) = (None, Vec::new());
    loop {
        let page = view.records(TOYS, after.as_ref(), 500).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        pages.push(page.len());
    }
    assert_eq!(pages, [2, 2, 1]);
}

fn order_of_bytes(store: &dyn Store) {
    let mut record = record("x");
    let bytes: [&[u8]; 7] = [&[0xff], &[0, 0], &[0x80, 1], &[0], &[0x7f], &[], &[0x80]];
    record.elements = bytes
        .iter()
        .map(|bytes| Element {
            dataset: LINES,
            bytes: bytes.to_vec(),
        })
        .collect();
    change(store, 1, Some(record)).unwrap();
    let rows = elements(&*store.snapshot().unwrap(), 2);
    let mut sorted = bytes.to_vec();
    sorted.sort_unstable();
    assert_eq!(rows.iter().map(|row| row.0.as_slice()).collect::<Vec<_>>(), sorted);
}

fn frozen(store: &dyn Store) {
    put(store, 1, "before");
    let view = store.snapshot().unwrap();
    let seen = || {
        (
            view.records(TOYS, None, 9).unwrap(),
            terms(&*view, 9),
            view.vector().unwrap(),
            view.count(TOYS).unwrap(),
        )
    };
    let before = seen();
    put(store, 1, "after");
    put(store, 2, "after");
    store
        .update(batch(&[3, 4], |_| Decision::Put(record("after"))))
        .unwrap();
    assert_eq!(seen(), before);
    assert_eq!(elements(&*view, 9), [(element("before").bytes, id(1))]);
    let later = store.snapshot().unwrap();
    assert_eq!(later.count(TOYS).unwrap(), 4);
    assert_eq!(later.vector().unwrap(), store.vector().unwrap());
    assert_ne!(later.vector().unwrap(), view.vector().unwrap());
}

fn ready(store: &dyn Store) {
    let before = store.vector().unwrap();
    store.ready().unwrap();
    put(store, 1, "x");
    store.ready().unwrap();
    assert_ne!(store.vector().unwrap(), before);
    assert_eq!(store.count(TOYS).unwrap(), 1);
}
