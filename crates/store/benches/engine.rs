//! How fast the embedded engine is, and how much disk and memory it takes, on records like small certificates:
//! about 750 octets, six terms, one element of 16 octets.
//!
//! `cargo bench -p keyrink-store [-- RECORDS [DIR]]`; 50 000 records in a temporary folder unless told otherwise.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keyrink_store::sqlite::{Durability, Options, SqliteStore};
use keyrink_store::{Batch, Dataset, Decision, Element, Realm, Record, RecordId, Store, Term};

const REALM: Realm = Realm(1);
const DATASET: Dataset = Dataset(1);

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let records: usize = arguments
        .next()
        .map_or(50_000, |count| count.parse().expect("a number of records"));
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let dir = arguments.next().map_or(temporary.path().to_owned(), Into::into);
    let dir = dir.join("bench");
    load(&dir, records);
    if std::env::var("ONLY").as_deref() == Ok("load") {
        return;
    }
    if std::env::var("ONLY").as_deref() == Ok("single") {
        return singles(&dir, records, 1);
    }
    if std::env::var("ONLY").as_deref() == Ok("eight") {
        return singles(&dir, records, 8);
    }
    serve(&dir, records);
    if std::env::var("ONLY").as_deref() == Ok("serve") {
        return;
    }
    singles(&dir, records, 1);
    singles(&dir, records, 8);
    beside_a_load(&dir, records);
}

fn load(dir: &Path, records: usize) {
    let options = Options {
        durability: Durability::Normal,
        ..Options::default()
    };
    let store = SqliteStore::open(dir, &options).expect("a store");
    let next = AtomicUsize::new(0);
    let started = Clock::start();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let start = next.fetch_add(500, Ordering::Relaxed);
                    if start >= records {
                        break;
                    }
                    store.update(batch(start..(start + 500).min(records))).expect("a batch");
                }
            });
        }
    });
    report("load, batches of 500, two threads", records, &started);
    let started = Clock::start();
    drop(store);
    println!("{:<52}{:>9.0} ms", "  closing it", started.seconds() * 1e3);
    let octets: u64 = dir
        .read_dir()
        .expect("the folder")
        .map(|file| file.and_then(|file| file.metadata()).map_or(0, |file| file.len()))
        .sum();
    println!(
        "{:<52}{:>9.1} MB, {} octets a record",
        "  on disk",
        octets as f64 / 1e6,
        octets as usize / records
    );
    println!("{:<52}{:>9.1} MB", "  resident", resident());
}

fn serve(dir: &Path, records: usize) {
    let started = Clock::start();
    let store = SqliteStore::open(dir, &Options::default()).expect("a store");
    store.find(REALM, &record(7).terms[0], None, 10).expect("an answer");
    println!(
        "{:<52}{:>9.2} ms, {:.1} MB resident",
        "open and first answer",
        started.seconds() * 1e3,
        resident()
    );
    for (name, term) in [("find by fingerprint", 0), ("find by address", 4)] {
        let wanted: Vec<Term> = (0..20_000)
            .map(|i| record(i * 7_919 % records).terms[term].clone())
            .collect();
        let started = Clock::start();
        for term in &wanted {
            assert_eq!(store.find(REALM, term, None, 10).expect("an answer").len(), 1);
        }
        report(name, wanted.len(), &started);
    }
    let wanted: Vec<RecordId> = (0..20_000).map(|i| id(i * 7_919 % records)).collect();
    let started = Clock::start();
    for id in &wanted {
        assert!(store.get(REALM, std::slice::from_ref(id)).expect("an answer")[0].is_some());
    }
    report("get one", wanted.len(), &started);
    let started = Clock::start();
    for ids in wanted.chunks(100) {
        store.get(REALM, ids).expect("an answer");
    }
    report("get a hundred at a time", wanted.len(), &started);
    let started = Clock::start();
    for chunk in (0..20_000).collect::<Vec<_>>().chunks(100) {
        let elements: Vec<_> = chunk
            .iter()
            .map(|i| record(i % records).elements[0].bytes.clone())
            .collect();
        let found = store.by_element(REALM, DATASET, &elements).expect("an answer");
        let ids: Vec<_> = found.into_iter().map(|listed| listed.id).collect();
        assert_eq!(store.get(REALM, &ids).expect("an answer").len(), 100);
    }
    report("by element, a hundred at a time", 20_000, &started);
    scan(&store);
    let started = Clock::start();
    store.backup(&dir.with_extension("backup")).expect("a backup");
    println!("{:<52}{:>9.0} ms", "backup", started.seconds() * 1e3);
    println!("{:<52}{:>9.1} MB", "resident after all this", resident());
}

fn scan(store: &SqliteStore) {
    let view = store.snapshot().expect("a snapshot");
    let started = Clock::start();
    let rows = pages(|after| view.elements(DATASET, after, 10_000).expect("elements"));
    report("snapshot: elements", rows, &started);
    let started = Clock::start();
    let rows = pages(|after| view.terms(REALM, after, 10_000).expect("terms"));
    report("snapshot: terms", rows, &started);
    let started = Clock::start();
    let rows = pages(|after: Option<&keyrink_store::Stored>| {
        view.records(REALM, after.map(|stored| &stored.id), 1_000)
            .expect("records")
    });
    report("snapshot: records", rows, &started);
}

fn pages<T>(page: impl Fn(Option<&T>) -> Vec<T>) -> usize {
    let mut rows = 0;
    let mut last = None;
    loop {
        let mut more = page(last.as_ref());
        rows += more.len();
        let Some(row) = more.pop() else { return rows };
        last = Some(row);
    }
}

fn singles(dir: &Path, records: usize, threads: usize) {
    let store = SqliteStore::open(dir, &Options::default()).expect("a store");
    let next = AtomicUsize::new(records * (threads + 1));
    let started = Clock::start();
    let end = next.load(Ordering::Relaxed) + 8_000;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= end {
                        break;
                    }
                    store.update(batch(at..at + 1)).expect("a batch");
                }
            });
        }
    });
    report(
        &format!("durable updates of one record, {threads} threads"),
        8_000,
        &started,
    );
}

/// A server's single updates while another connection loads, as `serve` and `load` do on one file.
fn beside_a_load(dir: &Path, records: usize) {
    let server = SqliteStore::open(dir, &Options::default()).expect("a store");
    let options = Options {
        durability: Durability::Normal,
        ..Options::default()
    };
    let loader = SqliteStore::open(dir, &options).expect("a store");
    let done = AtomicUsize::new(0);
    let mut waits = Vec::new();
    let started = Clock::start();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for start in (records * 20..records * 20 + 20_000).step_by(500) {
                loader.update(batch(start..start + 500)).expect("a batch");
            }
            done.store(1, Ordering::Relaxed);
        });
        let mut at = records * 40;
        while done.load(Ordering::Relaxed) == 0 {
            let began = Instant::now();
            server.update(batch(at..at + 1)).expect("a batch");
            waits.push(began.elapsed());
            at += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    report("load beside a server's updates", 20_000, &started);
    waits.sort_unstable();
    let (middle, longest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    println!(
        "{:<52}{middle:>9.1?} in the middle, {longest:.1?} at most, {} of them",
        "  the server's updates took",
        waits.len()
    );
}

fn batch(range: std::ops::Range<usize>) -> Batch {
    let made: Arc<Vec<Record>> = Arc::new(range.clone().map(record).collect());
    Batch {
        realm: REALM,
        ids: range.map(id).collect(),
        decide: Box::new(move |index, _| Decision::Put(made[index].clone())),
        notes: vec![],
        premise: None,
    }
}

fn id(number: usize) -> RecordId {
    RecordId::new(&octets(number as u64 * 4, 20)).expect("a fingerprint's length")
}

/// Octets of a certificate that no one could verify: random, with the names and key ids where they would be.
fn record(number: usize) -> Record {
    let seed = number as u64 * 4;
    let (primary, subkey) = (octets(seed, 20), octets(seed + 1, 20));
    let address = format!("person{:07}@mail{:03}.example", number, number % 997);
    let name = format!("Person {number:07}  <{}>", &address[..address.len()]);
    let mut data = octets(seed + 2, 750);
    for at in [150, 400] {
        data[at..at + 20].copy_from_slice(&primary);
        data[at + 30..at + 38].copy_from_slice(&primary[12..]);
    }
    data[80..80 + name.len()].copy_from_slice(name.as_bytes());
    let texts = [
        primary.clone(),
        subkey.clone(),
        primary[12..].to_vec(),
        subkey[12..].to_vec(),
        address.into(),
        name.into(),
    ];
    let kinds = [1, 1, 2, 2, 3, 4];
    let terms = texts
        .into_iter()
        .zip(kinds)
        .map(|(text, kind)| Term { kind, text })
        .collect();
    Record {
        data,
        policy: 1,
        terms,
        elements: vec![Element {
            dataset: DATASET,
            bytes: octets(seed + 3, 16),
        }],
        components: vec![],
    }
}

fn octets(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let words = std::iter::repeat_with(|| {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    });
    words.flat_map(u64::to_be_bytes).take(count).collect()
}

/// Wall time and the processor time of all threads.
struct Clock {
    wall: Instant,
    cpu: f64,
}

impl Clock {
    fn start() -> Self {
        Self {
            wall: Instant::now(),
            cpu: cpu_seconds(),
        }
    }

    fn seconds(&self) -> f64 {
        self.wall.elapsed().as_secs_f64()
    }
}

/// Seconds of processor time this process has used, in steps of 10 ms.
fn cpu_seconds() -> f64 {
    let status = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = status.rsplit(") ").next().unwrap_or_default().split(' ');
    fields
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

fn report(what: &str, count: usize, started: &Clock) {
    let (wall, cpu) = (started.seconds(), cpu_seconds() - started.cpu);
    let rate = count as f64 / wall;
    println!(
        "{what:<52}{rate:>9.0} a second, {wall:.2} s, {:.1} µs of processor each",
        cpu / count as f64 * 1e6
    );
}

fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0.0);
    pages * 4_096.0 / 1e6
}
