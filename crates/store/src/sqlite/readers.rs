//! The pool of reading connections: opened when first needed, handed out one caller at a time.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::fault::Fault;
use super::schema::{self, Migrations};
use crate::StoreError;

/// Connections that only read.
pub(super) struct Readers {
    file: PathBuf,
    /// How a connection is opened.
    open: Open,
    migrations: Migrations,
    connections_max: usize,
    state: Mutex<State>,
    returned: Condvar,
}

/// Opens a file, with so many KiB of cache.
type Open = fn(&Path, u32, Migrations) -> Result<Connection, Fault>;

#[derive(Default)]
struct State {
    /// The first one lies on top whenever it is here, its cache is the largest; below it the one last used.
    idle: Vec<Reader>,
    lent: usize,
    /// How often all connections were forgotten.
    age: u32,
}

struct Reader {
    connection: Connection,
    is_first: bool,
}

/// A connection on loan; `None` once it is given back or found unfit.
struct Loan<'a> {
    readers: &'a Readers,
    reader: Option<Reader>,
    /// No other is on loan.
    is_alone: bool,
    age: u32,
}

impl Readers {
    /// `alone` if this process does not write the file.
    pub(super) fn new(file: PathBuf, migrations: Migrations, connections_max: usize, alone: bool) -> Self {
        Self {
            file,
            open: if alone {
                schema::open_lone_reader
            } else {
                schema::open_reader
            },
            migrations,
            connections_max: connections_max.max(1),
            state: Mutex::default(),
            returned: Condvar::new(),
        }
    }

    /// Runs `read` on a connection; waits for one if all are in use.
    pub(super) fn run<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, StoreError> {
        self.attempt(read).map_err(|fault| fault.at(&self.file))
    }

    /// Closes all connections, those on loan when they come back.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        state.age = state.age.wrapping_add(1);
        state.idle.clear();
    }

    /// A connection of its own for a long view; it does not count against the pool.
    pub(super) fn dedicated(&self) -> Result<Connection, StoreError> {
        (self.open)(&self.file, SNAPSHOT_CACHE_KIB, self.migrations).map_err(|fault| fault.at(&self.file))
    }

    fn attempt<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut loan = self.borrow();
        let reader = match loan.reader.take() {
            Some(reader) => reader,
            None => self.another(loan.is_alone)?,
        };
        let result = read(&reader.connection);
        // A connection that saw an error may be the reason for it: the next caller gets a fresh one.
        if result.is_ok() && reader.connection.is_autocommit() {
            loan.reader = Some(reader);
        }
        result
    }

    fn another(&self, is_first: bool) -> Result<Reader, Fault> {
        let cache_kib = if is_first { FIRST_CACHE_KIB } else { READER_CACHE_KIB };
        let connection = (self.open)(&self.file, cache_kib, self.migrations)?;
        Ok(Reader { connection, is_first })
    }

    fn borrow(&self) -> Loan<'_> {
        let mut state = self.state();
        while state.idle.is_empty() && state.lent >= self.connections_max {
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.lent += 1;
        Loan {
            readers: self,
            reader: state.idle.pop(),
            is_alone: state.lent == 1,
            age: state.age,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let mut state = self.readers.state();
        state.lent -= 1;
        if self.age == state.age {
            state.idle.extend(self.reader.take());
            state.idle.sort_by_key(|reader| reader.is_first);
        }
        drop(state);
        self.readers.returned.notify_one();
    }
}

/// Reads are short, so that nearly all can take turns on one connection: it has the cache that is worth something. A page that is
/// not in it costs a system call and a copy, and a large certificate has ten.
const FIRST_CACHE_KIB: u32 = 36 << 10;
const READER_CACHE_KIB: u32 = 2 << 10;
const SNAPSHOT_CACHE_KIB: u32 = 4 << 10;
