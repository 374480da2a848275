//! Many callers, many connections, many processes on one file.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::*;
use crate::sqlite::schema::{MIGRATIONS, open_writer};

/// The image that a crash leaves: the database and its log, copied while a writer is at work. A view held open keeps
/// the log from starting over, so the two files fit together whenever they are copied.
#[test]
fn files_copied_while_writing_hold_all_that_was_acknowledged() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir.path().join("live"));
    let (acknowledged, done) = (AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                put(&store, number, &format!("line {number}"));
                put(&store, number / 2, &format!("again {}", number / 3));
                acknowledged.store(number + 1, Ordering::Release);
                if done.load(Ordering::Acquire) {
                    break;
                }
            }
        });
        for round in 0..8 {
            let _view = store.snapshot().unwrap();
            std::thread::sleep(Duration::from_millis(20));
            let before = acknowledged.load(Ordering::Acquire);
            let image = dir.path().join(format!("image{round}"));
            fs::create_dir(&image).unwrap();
            for name in [SqliteStore::FILE.to_string(), format!("{}-wal", SqliteStore::FILE)] {
                fs::copy(dir.path().join("live").join(&name), image.join(&name)).unwrap();
            }
            let opened = if round % 2 == 0 {
                open(&image)
            } else {
                open_to_read(&image).unwrap()
            };
            let there = opened.get(TOYS, &(0..before).map(id).collect::<Vec<_>>()).unwrap();
            assert!(there.iter().all(Option::is_some), "an acknowledged record is lost");
            assert_sound(&opened);
        }
        done.store(true, Ordering::Release);
    });
}

#[test]
fn no_process_writes_by_a_premise_that_is_gone() {
    let dir = TempDir::new().unwrap();
    let stores = [open(dir.path()), open(dir.path())];
    crate::conformance::updates::tied_among(&[&stores[0], &stores[1]]);
    assert_sound(&stores[0]);
}

/// Two stores on one file are as two processes: each has its writer and its readers.
#[test]
fn two_writers_share_a_file() {
    let dir = TempDir::new().unwrap();
    let options = Options {
        durability: Durability::Normal,
        ..Options::default()
    };
    let (serve, load) = (open(dir.path()), SqliteStore::open(dir.path(), &options).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for start in (0..2_000).step_by(100) {
                let numbers: Vec<u32> = (start..start + 100).collect();
                let lines = numbers.clone();
                let put = batch(&numbers, move |index| {
                    Decision::Put(record(&format!("load {}", lines[index])))
                });
                load.update(put).unwrap();
            }
        });
        for number in (0..2_000).step_by(10) {
            put(&serve, number, &format!("serve {number}"));
        }
    });
    assert_eq!((serve.count(TOYS).unwrap(), load.count(TOYS).unwrap()), (2_000, 2_000));
    assert_eq!(serve.vector().unwrap(), load.vector().unwrap());
    assert_eq!(serve.vector().unwrap().len(), 1);
    assert_sound(&serve);
    drop(load);
    put(&serve, 1, "goes on");
    assert_sound(&serve);
}

#[test]
fn a_reader_follows_a_writer_and_never_writes() {
    let dir = TempDir::new().unwrap();
    let writer = open(dir.path());
    let reader = open_to_read(dir.path()).unwrap();
    put(&writer, 1, "brown fox");
    assert_eq!(reader.count(TOYS).unwrap(), 1);
    let seen = reader.vector().unwrap();
    put(&writer, 1, "red fox");
    let rows = reader.changes(&seen, 9).unwrap();
    assert_eq!(
        rows.iter()
            .map(|row| (&row.element, row.added))
            .collect::<BTreeSet<_>>(),
        [(&element("brown fox"), false), (&element("red fox"), true),].into()
    );
    let reason = unavailable(change(&reader, 2, Some(record("x"))));
    assert!(reason.contains("reading only"), "{reason}");
    unavailable(reader.maintain(0));
    reader.ready().unwrap();
    drop(writer);
    assert_eq!(reader.count(TOYS).unwrap(), 1);
}

#[test]
fn a_refused_batch_does_not_spoil_its_company() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let (begun, has_begun) = channel();
    let (open_gate, gate) = channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Holds the writer until the others wait in the queue.
            let slow = batch(&[100], move |_| {
                let _ = begun.send(());
                let _ = gate.lock().unwrap().recv_timeout(Duration::from_secs(5));
                Decision::Keep
            });
            store.update(slow).unwrap();
        });
        has_begun.recv().unwrap();
        let waiting: Vec<_> = (0..6)
            .map(|number| {
                let store = &store;
                scope.spawn(move || match number {
                    2 => change(store, number, Some(too_long())).is_err(),
                    4 => store.update(batch(&[number], |_| panic!("on purpose"))).is_err(),
                    _ => put(store, number, &format!("line {number}")) == Applied::Inserted,
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(50));
        open_gate.send(()).unwrap();
        assert!(waiting.into_iter().all(|thread| thread.join().unwrap()));
    });
    assert_eq!(store.count(TOYS).unwrap(), 4);
    assert_sound(&store);
}

fn too_long() -> crate::Record {
    let mut record = record("never");
    record.terms[0].text = vec![b'x'; Term::OCTETS_MAX + 1];
    record
}

#[test]
fn more_callers_than_readers_take_turns() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(
        dir.path(),
        &Options {
            readers: 2,
            ..Options::default()
        },
    )
    .unwrap();
    put(&store, 1, "brown fox");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..200 {
                    assert_eq!(
                        store
                            .find(TOYS, &crate::conformance::toy::word("fox"), None, 9)
                            .unwrap()
                            .len(),
                        1
                    );
                }
            });
        }
    });
    // A view is a connection of its own: however many there are, reads go on.
    let views: Vec<_> = (0..4).map(|_| store.snapshot().unwrap()).collect();
    assert_eq!(store.count(TOYS).unwrap(), 1);
    drop(views);
}

#[test]
fn a_backup_taken_while_writing_is_a_store() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir.path().join("live"));
    for number in 0..500 {
        put(&store, number, &format!("line {number}"));
    }
    let restored = dir.path().join("restored");
    fs::create_dir(&restored).unwrap();
    let target = restored.join(SqliteStore::FILE);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 500.. {
                put(&store, number, &format!("line {number}"));
                if done.load(Ordering::Acquire) {
                    break;
                }
            }
        });
        std::thread::sleep(Duration::from_millis(20));
        store.backup(&target).unwrap();
        done.store(true, Ordering::Release);
    });
    assert!(
        matches!(store.backup(&target), Err(StoreError::Invalid(_))),
        "a backup never overwrites"
    );
    assert_eq!(fs::read_dir(&restored).unwrap().count(), 1, "nothing but the backup");
    let copy = open(&restored);
    assert!(copy.count(TOYS).unwrap() >= 500);
    assert_sound(&copy);
    put(&copy, 1, "goes on");
    assert_sound(&copy);
    assert_sound(&store);
}

#[test]
fn closing_leaves_one_file_and_idleness_a_short_log() {
    let dir = TempDir::new().unwrap();
    let log = dir.path().join(format!("{}-wal", SqliteStore::FILE));
    let store = open(dir.path());
    for number in 0..200 {
        put(&store, number, &format!("line {number}"));
    }
    assert!(fs::metadata(&log).unwrap().len() > 0);
    let deadline = Instant::now() + Duration::from_secs(20);
    while fs::metadata(&log).unwrap().len() > 0 {
        assert!(Instant::now() < deadline, "the log was not emptied");
        std::thread::sleep(Duration::from_millis(20));
    }
    put(&store, 1, "one more");
    drop(store);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// One thread moves pages out of the log while another adds to it, and yet there comes an end.
#[test]
fn a_log_begins_anew_while_writing_goes_on() {
    const OCTETS: usize = 200 << 10;
    const RECORDS: u32 = 1_500;
    let dir = TempDir::new().unwrap();
    let store = open_fast(dir.path());
    for number in 0..RECORDS {
        let mut long = record(&format!("line {number}"));
        long.data.resize(OCTETS, b'x');
        change(&store, number % 50, Some(long)).unwrap();
    }
    let log = fs::metadata(dir.path().join(format!("{}-wal", SqliteStore::FILE))).unwrap();
    let written = OCTETS as u64 * u64::from(RECORDS);
    assert!(log.len() < written / 2, "{} of {written} octets", log.len());
    assert_eq!(
        store
            .get(TOYS, &[id(RECORDS % 50)])
            .unwrap()
            .into_iter()
            .flatten()
            .count(),
        1
    );
}

/// What went to the log before a commit could outlast a rollback, in memory, and then go where others have written.
#[test]
fn nothing_is_written_before_it_is_committed() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join(SqliteStore::FILE);
    let ours = open_writer(&file, Durability::Full, MIGRATIONS).unwrap();
    ours.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    ours.execute_batch("BEGIN IMMEDIATE").unwrap();
    for number in 0..64 {
        // Many times what the cache of this connection may hold.
        let sql = "INSERT INTO note (key, value) VALUES (?1, randomblob(262144))";
        ours.execute(sql, [format!("long {number}")]).unwrap();
    }
    let log = dir.path().join(format!("{}-wal", SqliteStore::FILE));
    assert_eq!(fs::metadata(log).unwrap().len(), 0);
    ours.execute_batch("ROLLBACK").unwrap();

    let theirs = Connection::open(&file).unwrap();
    let insert = "INSERT INTO note (key, value) VALUES (?1, x'01')";
    theirs.execute(insert, ["theirs"]).unwrap();
    ours.execute(insert, ["ours"]).unwrap();
    for reader in [&theirs, &ours, &Connection::open(&file).unwrap()] {
        let ask = |sql| reader.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(
            ask("SELECT group_concat(key) FROM (SELECT key FROM note ORDER BY key)"),
            "ours,theirs"
        );
        assert_eq!(ask("PRAGMA integrity_check"), "ok");
    }
}

#[test]
fn old_changes_go_in_steps() {
    let dir = TempDir::new().unwrap();
    let store = open_fast(dir.path());
    let rows = FORGET_ROWS_MAX as u32 * 2 + 10;
    for row in 0..rows {
        let numbers = [row * 2, row * 2 + 1];
        store
            .update(batch(&numbers, move |index| {
                Decision::Put(record(&format!("{row} {index}")))
            }))
            .unwrap();
    }
    store
        .writer()
        .unwrap()
        .run(|connection| {
            Ok(connection.execute("UPDATE change SET time = 100 WHERE newest % 7 <> 0 OR newest < 600", [])?)
        })
        .unwrap();
    store.maintain(101).unwrap();
    let left = store.changes(&Vector::new(), usize::MAX).unwrap();
    // Of the two changes of the first transaction that is young enough, 601 is the first.
    assert_eq!(
        left[0].n, 601,
        "up to the first that is young enough, so that no gap is left"
    );
    assert_eq!(left.len() as u32, rows * 2 - 600);
}
