//! The suite on a database that misbehaves: one in ten transactions ends in a serialization failure, and connections break
//! at any moment, also while a commit is under way.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::super::connection::{Connection, Step};
use super::super::fault::Fault;
use super::super::lane::random;
use super::super::schema::{MIGRATIONS, prepare};
use super::super::sql;
use super::*;
use crate::conformance;

/// What goes wrong on purpose in a session.
#[derive(Default)]
pub(in crate::postgres) struct Hostile {
    /// Decided when a transaction begins: after how many further statements it fails.
    fails_after: Cell<Option<u64>>,
}

static CONFLICTS: AtomicU64 = AtomicU64::new(0);
static CUTS: AtomicU64 = AtomicU64::new(0);
static COMMITS_CUT: AtomicU64 = AtomicU64::new(0);

impl Hostile {
    /// Does harm before statements are sent, or while they are.
    pub(in crate::postgres) fn before(connection: &mut Connection, steps: &[Step<'_>]) -> Result<(), Fault> {
        let Some(hostile) = &connection.hostile else {
            return Ok(());
        };
        let (first, _) = steps[0];
        if first == sql::BEGIN {
            hostile
                .fails_after
                .set(random().is_multiple_of(10).then(|| random() % 8));
        }
        match hostile.fails_after.get() {
            Some(0) => {
                hostile.fails_after.set(None);
                CONFLICTS.fetch_add(1, Ordering::Relaxed);
                return Err(Fault::Conflict);
            }
            Some(left) => hostile.fails_after.set(Some(left - 1)),
            None => {}
        }
        let commits = first == sql::COMMIT;
        if random().is_multiple_of(if commits { 20 } else { 100 }) {
            CUTS.fetch_add(1, Ordering::Relaxed);
            COMMITS_CUT.fetch_add(u64::from(commits), Ordering::Relaxed);
            connection.cut_soon(Duration::from_micros(random() % 400));
        }
        Ok(())
    }
}

#[test]
fn conforms_on_a_hostile_database() {
    let server = Server::start();
    conformance::run(|_| open_hostile(&server.fresh()));
    let counted = [&CONFLICTS, &CUTS, &COMMITS_CUT].map(|count| count.load(Ordering::Relaxed));
    println!("conflicts, broken connections, of these at a commit: {counted:?}");
    assert!(counted.into_iter().all(|count| count > 0), "{counted:?}");
}

#[test]
fn writers_on_a_hostile_database_lose_nothing_and_do_nothing_twice() {
    let server = Server::start();
    let url = server.fresh();
    let stores = [open_hostile(&url), open_hostile(&url)];
    std::thread::scope(|scope| {
        for store in &stores {
            for _ in 0..3 {
                scope.spawn(|| sharing::append(store, 40));
            }
        }
    });
    sharing::assert_appended(&stores[0], 2 * 3 * 40);
    assert_sound(&open(&url));
}

fn open_hostile(url: &str) -> PostgresStore {
    let address = Address::new(url, None).unwrap();
    let mut database = Database::new(address, database::session(false, false)).unwrap();
    prepare(&database, MIGRATIONS, true).unwrap();
    database.hostile = true;
    let database = Arc::new(database);
    PostgresStore {
        writers: vec![
            Writer::start(&database, false).unwrap(),
            Writer::start(&database, false).unwrap(),
        ],
        pool: Pool::new(Arc::clone(&database), 4),
        database,
    }
}
