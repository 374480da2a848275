//! Disks that are full or can't be written to: clear errors, nothing lost, and work goes on without a restart.

use std::path::PathBuf;
use std::process::Command;

use super::*;

#[test]
fn a_full_disk_is_named_and_recovered_from() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    put(&store, 1, "brown fox");
    limit_pages(&store, Some(0));
    let reason = unavailable(fill(&store));
    assert!(
        reason.contains("keyrink.db") && reason.contains("full") && reason.contains("free some space"),
        "{reason}"
    );
    assert_eq!(
        store
            .find(TOYS, &crate::conformance::toy::word("fox"), None, 9)
            .unwrap()
            .len(),
        1
    );
    assert_sound(&store);
    limit_pages(&store, None);
    fill(&store).unwrap();
    store.ready().unwrap();
    assert_sound(&store);
}

/// Everyone whose batch shares the failed commit is told, and none of it is there.
#[test]
fn a_full_disk_fails_whole_groups() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    limit_pages(&store, Some(20));
    let acknowledged: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let store = &store;
                scope.spawn(move || {
                    let mut stored = record("x");
                    stored.data = vec![b'x'; 900];
                    (0..40)
                        .filter(|n| change(store, thread * 100 + n, Some(stored.clone())).is_ok())
                        .count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(0 < acknowledged && acknowledged < 320, "{acknowledged}");
    assert_eq!(store.count(TOYS).unwrap(), acknowledged as u64);
}

#[test]
fn a_read_only_disk_is_named_and_recovered_from() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    put(&store, 1, "brown fox");
    let read_only = |value: bool| {
        let writer = store.writer().unwrap();
        writer
            .run(move |connection| Ok(connection.pragma_update(None, "query_only", value)?))
            .unwrap();
    };
    read_only(true);
    for reason in [
        unavailable(change(&store, 2, Some(record("red fox")))),
        unavailable(store.ready()),
    ] {
        assert!(reason.contains("keyrink.db") && reason.contains("writable"), "{reason}");
    }
    assert_eq!(store.count(TOYS).unwrap(), 1);
    read_only(false);
    store.ready().unwrap();
    put(&store, 2, "red fox");
    assert_sound(&store);
}

/// The same on a real file system of a few megabytes. Mounting one needs root; without it the test says so.
#[test]
fn a_small_file_system_fills_and_empties() {
    let Some(disk) = SmallDisk::mount() else {
        return keyrink_testkit::report::skipped("this user can't mount a file system");
    };
    let ballast = disk.dir.path().join("ballast");
    let store = open(&disk.dir.path().join("store"));
    put(&store, 1, "brown fox");
    std::fs::write(&ballast, vec![1; 2 << 20]).unwrap();
    let mut stored = 0;
    let reason = loop {
        match fill_from(&store, 1_000 + stored * 100) {
            Ok(()) => stored += 1,
            Err(error) => break unavailable::<()>(Err(error)),
        }
    };
    assert!(reason.contains("keyrink.db") && reason.contains("full"), "{reason}");
    assert_eq!(store.count(TOYS).unwrap(), u64::from(1 + stored * 100));
    assert_sound(&store);
    std::fs::remove_file(&ballast).unwrap();
    fill_from(&store, 1_000 + stored * 100).unwrap();
    store.ready().unwrap();
    assert_sound(&store);
    // The log is emptied into the file, which takes room for both.
    disk.remount("size=16m");
    drop(store);

    disk.remount("ro");
    let reason = unavailable(SqliteStore::open(&disk.dir.path().join("store"), &Options::default()));
    assert!(reason.contains("keyrink.db") && reason.contains("writable"), "{reason}");
    let to_read = Options {
        read_only: true,
        ..Options::default()
    };
    let read = SqliteStore::open(&disk.dir.path().join("store"), &to_read).unwrap();
    assert_sound(&read);
    assert_eq!(read.count(TOYS).unwrap(), u64::from(1 + stored * 100 + 100));
    drop(read);
    disk.remount("rw");
    assert_sound(&open(&disk.dir.path().join("store")));
}

fn fill(store: &SqliteStore) -> Result<(), StoreError> {
    fill_from(store, 1_000)
}

/// A hundred records of about a kilobyte.
fn fill_from(store: &SqliteStore, first: u32) -> Result<(), StoreError> {
    let numbers: Vec<u32> = (first..first + 100).collect();
    let lines = numbers.clone();
    let line = move |index: usize| format!("{:0>1000}", lines[index]);
    store
        .update(batch(&numbers, move |index| Decision::Put(record(&line(index)))))
        .map(|_| ())
}

/// Lets the file grow by so many pages and no more.
fn limit_pages(store: &SqliteStore, more: Option<u32>) {
    let task = move |connection: &Connection| {
        let pages: u32 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        let limit = more.map_or(u32::MAX - 1, |more| pages + more);
        Ok(connection.query_row(&format!("PRAGMA max_page_count = {limit}"), [], |_| Ok(()))?)
    };
    store.writer().unwrap().run(task).unwrap();
}

struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    fn mount() -> Option<Self> {
        let disk = Self {
            dir: TempDir::new().unwrap(),
        };
        disk.run("mount", &["-t", "tmpfs", "-o", "size=4m", "none"])
            .then_some(disk)
    }

    fn remount(&self, mode: &str) {
        assert!(self.run("mount", &["-o", &format!("remount,{mode}")]));
    }

    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        let path: PathBuf = self.dir.path().into();
        Command::new(program)
            .args(arguments)
            .arg(path)
            .output()
            .is_ok_and(|output| output.status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.run("umount", &[]);
    }
}
