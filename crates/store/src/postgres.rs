//! PostgreSQL: one database that any number of processes share, on whatever machine they run.
//!
//! One session of the process updates records (`writer`), several do so in bulk loads, others do the rest (`pool`).
//! Everything the engine can say to a database stands in `sql`: no more than what distributed databases that speak
//! PostgreSQL's protocol understand too, and nothing whose correctness depends on time, on notifications or on all writers
//! being the same process.
//!
//! * An update locks its records, runs the closures and writes everything that follows in one transaction (`write`).
//! * Changes are numbered in lanes (`lane`), one for each process, and read with a version vector.
//! * A database that is away, starting, read-only or full is an error of the call that meets it, and no more.

mod address;
mod connection;
mod database;
mod fault;
mod hockeypuck;
mod lane;
mod mend;
mod pool;
mod read;
mod rows;
mod schema;
mod sql;
mod table;
#[cfg(test)]
mod tests;
mod upkeep;
mod wait;
mod write;
mod writer;

pub use self::hockeypuck::{Hockeypuck, HockeypuckRow};
use std::cell::Cell;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use self::address::Address;
use self::connection::Connection;
use self::database::Database;
use self::fault::Fault;
use self::pool::Pool;
use self::schema::Migrations;
use self::writer::Writer;
use crate::{
    Applied, Batch, Bounds, ChangeRow, Component, Dataset, Derived, Found, Listed, Realm, RecordId, Refusal, Snapshot,
    Store, StoreError, Stored, Term, Vector,
};

/// A store in a PostgreSQL database.
pub struct PostgresStore {
    /// None when opened for reading only. Dropped before the way to the database.
    writers: Vec<Writer>,
    pool: Pool,
    database: Arc<Database>,
}

/// How a [`PostgresStore`] is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it is: a URL as PostgreSQL's own programs take it, `postgres://user@host/database`. Hosts other than this
    /// machine are spoken to by TLS, and their certificates are verified, unless it says `sslmode=disable`.
    pub url: String,
    /// Where a password is looked for that the URL does not hold: a file as PostgreSQL's own programs read it.
    pub password_file: Option<PathBuf>,
    /// Never write, not even to bring the schema up to date.
    pub read_only: bool,
    /// Bring the schema up to date; otherwise one that is older is an error.
    pub migrate: bool,
    /// A crash of the database may take back the last updates, each as a whole, until [`Store::settle`] has said
    /// otherwise; after it no update is taken. For bulk loads that can be started again.
    pub lazy: bool,
    /// Sessions that update, each in a lane of its own: one, or more for bulk loads.
    pub writers: usize,
    /// Sessions beside those that update.
    pub connections: usize,
}

impl Options {
    /// What a server wants.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            password_file: None,
            read_only: false,
            migrate: true,
            lazy: false,
            writers: 1,
            connections: 16,
        }
    }
}

impl PostgresStore {
    /// Opens the store; makes its tables unless `options` forbid it.
    pub fn open(options: &Options) -> Result<Self, StoreError> {
        Self::open_with(options, schema::MIGRATIONS)
    }

    /// Brings the schema to the newest version; how many steps that took.
    pub fn migrate(options: &Options) -> Result<u32, StoreError> {
        let address = Address::new(&options.url, options.password_file.as_deref())?;
        let database = Database::new(address, database::session(false, false))?;
        schema::prepare(&database, schema::MIGRATIONS, true)
    }

    fn open_with(options: &Options, migrations: Migrations) -> Result<Self, StoreError> {
        let address = Address::new(&options.url, options.password_file.as_deref())?;
        let session = database::session(options.read_only, options.lazy);
        let database = Arc::new(Database::new(address, session)?);
        schema::prepare(&database, migrations, options.migrate && !options.read_only)?;
        let writers = if options.read_only { 0 } else { options.writers.max(1) };
        let writers = (0..writers).map(|_| Writer::start(&database, options.lazy));
        Ok(Self {
            writers: writers.collect::<Result<_, _>>()?,
            pool: Pool::new(Arc::clone(&database), options.connections),
            database,
        })
    }

    fn writer(&self) -> Result<&Writer, StoreError> {
        let reason = || StoreError::Unavailable(format!("{} was opened for reading only", self.database.name()));
        // The one that has the least to do.
        self.writers
            .iter()
            .min_by_key(|writer| writer.waiting())
            .ok_or_else(reason)
    }
}

impl Store for PostgresStore {
    fn get(&self, realm: Realm, ids: &[RecordId]) -> Result<Vec<Option<Stored>>, StoreError> {
        self.pool.run(|connection| read::get(connection, realm, ids))
    }

    fn search(&self, realm: Realm, term: &Term, after: Option<&RecordId>, bounds: Bounds) -> Result<Found, StoreError> {
        self.pool
            .run(|connection| read::search(connection, realm, term, after, bounds))
    }

    fn holders(&self, realm: Realm, term: &Term, limit: usize) -> Result<usize, StoreError> {
        self.pool
            .run(|connection| read::holders(connection, realm, term, limit))
    }

    fn by_element(&self, realm: Realm, dataset: Dataset, elements: &[Vec<u8>]) -> Result<Vec<Listed>, StoreError> {
        self.pool
            .run(|connection| read::by_element(connection, realm, dataset, elements))
    }

    fn lacking(&self, dataset: Dataset, elements: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, StoreError> {
        self.pool.run(|connection| read::lacking(connection, dataset, elements))
    }

    fn range(
        &self,
        dataset: Dataset,
        first: &[u8],
        last: &[u8],
        limit: usize,
    ) -> Result<(Vec<Vec<u8>>, Vector), StoreError> {
        self.pool.view(|connection| {
            let elements = read::range(connection, dataset, first, last, limit)?;
            Ok((elements, read::vector(connection)?))
        })
    }

    fn refusals(&self, source: &str, dataset: Dataset, elements: &[Vec<u8>]) -> Result<Vec<Refusal>, StoreError> {
        self.pool
            .run(|connection| read::refusals(connection, source, dataset, elements))
    }

    fn refuse(&self, source: &str, dataset: Dataset, refusals: Vec<Refusal>) -> Result<(), StoreError> {
        self.writer()?;
        self.pool
            .run(|connection| upkeep::refuse(connection, source, dataset, &refusals))
    }

    fn refusal_count(&self, source: &str) -> Result<u64, StoreError> {
        self.pool.run(|connection| read::refusal_count(connection, source))
    }

    fn trim_refusals(&self, source: &str, most: u64) -> Result<(), StoreError> {
        self.writer()?;
        self.pool
            .run(|connection| upkeep::trim_refusals(connection, source, most))
    }

    fn update(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        self.writer()?.update(batch)
    }

    fn mend(&self, realm: Realm, rows: Vec<(RecordId, Derived)>) -> Result<u64, StoreError> {
        self.writer()?
            .run(move |connection, lane, token| mend::mend(connection, lane, token, realm, &rows))
    }

    fn recount(&self, realm: Realm) -> Result<bool, StoreError> {
        self.writer()?
            .run(move |connection, lane, token| mend::recount(connection, lane, token, realm))
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        let mut connection = self.pool.dedicated()?;
        let begun = connection.execute(sql::BEGIN_VIEW, &[]);
        // The view is fixed by the first read.
        begun
            .and_then(|_| read::vector(&mut connection))
            .map_err(|fault| self.database.told(fault))?;
        Ok(Box::new(View {
            database: &self.database,
            connection: Mutex::new(connection),
        }))
    }

    fn changes(&self, since: &Vector, limit: usize) -> Result<Vec<ChangeRow>, StoreError> {
        self.pool.view(|connection| read::changes(connection, since, limit))
    }

    fn vector(&self) -> Result<Vector, StoreError> {
        self.pool.run(read::vector)
    }

    fn count(&self, realm: Realm) -> Result<u64, StoreError> {
        self.pool.run(|connection| read::count(connection, realm))
    }

    fn note(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.pool.run(|connection| read::note(connection, key))
    }

    fn swap_note(&self, key: &str, seen: Option<&[u8]>, new: &[u8]) -> Result<bool, StoreError> {
        self.writer()?;
        let tried = Cell::new(false);
        self.pool.run(|connection| {
            let again = tried.replace(true);
            let written = match seen {
                Some(seen) => connection.execute(sql::SWAP_NOTE, &[&key, &seen, &new])?,
                None => connection.execute(sql::NEW_NOTE, &[&key, &new])?,
            };
            // On the connection that broke it may have been written already.
            Ok(written == 1 || again && read::note(connection, key)?.as_deref() == Some(new))
        })
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn settle(&self) -> Result<(), StoreError> {
        self.writers.iter().try_for_each(Writer::settle)
    }

    fn leave(&self) -> Result<(), StoreError> {
        let mut lanes = self.writers.iter().map(Writer::lane);
        lanes.try_for_each(|lane| self.pool.run(|connection| lane.release(connection)))
    }

    fn writers(&self) -> usize {
        self.writers.len()
    }

    fn maintain(&self, before: u64) -> Result<(), StoreError> {
        self.writer()?;
        for writer in self.vector()?.into_keys() {
            while self
                .pool
                .run(|connection| upkeep::forget_changes(connection, writer, before, FORGET_ROWS_MAX))?
            {}
        }
        self.pool.run(|connection| upkeep::forget_refusals(connection, before))
    }

    fn ready(&self) -> Result<(), StoreError> {
        match self.writers.first() {
            Some(writer) => {
                self.pool.run(|connection| writer.lane().keep(connection))?;
                // A disk that is full still takes so little.
                if writer.is_troubled() {
                    self.pool.run(upkeep::try_much)?;
                    writer.calm();
                }
                Ok(())
            }
            None => self.vector().map(drop),
        }
    }
}

/// A read transaction in a session of its own.
struct View<'a> {
    database: &'a Database,
    connection: Mutex<Connection>,
}

impl View<'_> {
    fn read<T>(&self, read: impl FnOnce(&mut Connection) -> Result<T, Fault>) -> Result<T, StoreError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        read(&mut connection).map_err(|fault| self.database.told(fault))
    }
}

impl Snapshot for View<'_> {
    fn records(&self, realm: Realm, after: Option<&RecordId>, limit: usize) -> Result<Vec<Stored>, StoreError> {
        self.read(|connection| read::records(connection, realm, after, limit))
    }

    fn terms(
        &self,
        realm: Realm,
        after: Option<&(Term, RecordId)>,
        limit: usize,
    ) -> Result<Vec<(Term, RecordId)>, StoreError> {
        self.read(|connection| read::terms(connection, realm, after, limit))
    }

    fn components(
        &self,
        realm: Realm,
        after: Option<&(RecordId, u32)>,
        limit: usize,
    ) -> Result<Vec<(RecordId, Component)>, StoreError> {
        self.read(|connection| read::components(connection, realm, after, limit))
    }

    fn elements(
        &self,
        dataset: Dataset,
        after: Option<&(Vec<u8>, RecordId)>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, RecordId)>, StoreError> {
        self.read(|connection| read::elements(connection, dataset, after, limit))
    }

    fn range(&self, dataset: Dataset, first: &[u8], last: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.read(|connection| read::range(connection, dataset, first, last, limit))
    }

    fn vector(&self) -> Result<Vector, StoreError> {
        self.read(read::vector)
    }

    fn count(&self, realm: Realm) -> Result<u64, StoreError> {
        self.read(|connection| read::count(connection, realm))
    }
}

/// Change rows deleted in one transaction.
const FORGET_ROWS_MAX: i64 = 5_000;
