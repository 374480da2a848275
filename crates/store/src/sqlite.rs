//! The embedded engine: one SQLite file that several processes may use at once.
//!
//! One connection of the process writes (`writer`), a pool of connections reads (`readers`); readers and the writer
//! never wait for each other. The file is in WAL mode with large pages. Acknowledged means synced, unless a bulk load
//! asks for [`Durability::Normal`].

mod fault;
mod log;
mod log_file;
mod mend;
mod read;
mod readers;
mod schema;
#[cfg(test)]
mod tests;
mod write;
mod writer;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;

use self::fault::Fault;
use self::readers::Readers;
use self::schema::Migrations;
use self::write::Transaction;
use self::writer::Writer;
use crate::batch::now;
use crate::{
    Applied, Batch, Bounds, ChangeRow, Dataset, Derived, Found, Listed, Realm, RecordId, Refusal, Snapshot, Store,
    StoreError, Stored, Term, Vector,
};

/// A store in a folder of the local file system.
pub struct SqliteStore {
    file: PathBuf,
    readers: Arc<Readers>,
    /// `None` when opened for reading only. Dropped after the readers, so that it can empty the log.
    writer: Option<Writer>,
}

/// How a [`SqliteStore`] is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Never write, not even to bring the schema up to date. The store must exist.
    pub read_only: bool,
    /// What an acknowledged update survives.
    pub durability: Durability,
    /// Connections that may read at the same time.
    pub readers: usize,
}

/// What an acknowledged update survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Power loss: every commit is synced to the disk.
    Full,
    /// The end of this process at any point, but not power loss before the store is closed. For bulk loads that can
    /// be started again.
    Normal,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            read_only: false,
            durability: Durability::Full,
            readers: 4,
        }
    }
}

impl SqliteStore {
    /// The database's name in its folder. `-wal` and `-shm` files beside it belong to it.
    pub const FILE: &str = "keyrink.db";

    /// Opens the store in the folder `dir`; creates folder and store unless `options` say to read only.
    pub fn open(dir: &Path, options: &Options) -> Result<Self, StoreError> {
        Self::open_with(dir, options, schema::MIGRATIONS)
    }

    /// Writes a copy of the store, as it is now, to the new file `target` while work goes on. To restore it, put it
    /// into an empty folder under the name [`SqliteStore::FILE`].
    pub fn backup(&self, target: &Path) -> Result<(), StoreError> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            StoreError::Unavailable(format!("the backup {} {what}: {error}", target.display()))
        };
        if target.exists() {
            return Err(StoreError::Invalid(format!(
                "the backup {} exists already",
                target.display()
            )));
        }
        let mut part = target.to_owned().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let _ = std::fs::remove_file(&part);
        let connection = self.readers.dedicated()?;
        let name = part
            .to_str()
            .ok_or_else(|| failed("can't be written", &"its name is not UTF-8"))?;
        connection
            .execute("VACUUM INTO ?1", [name])
            .map_err(|error| failed("can't be written", &error))?;
        let folder = target
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        File::open(&part)
            .and_then(|file| file.sync_all())
            .and_then(|()| std::fs::rename(&part, target))
            .and_then(|()| File::open(folder)?.sync_all())
            .map_err(|error| failed("can't be finished", &error))
    }

    fn open_with(dir: &Path, options: &Options, migrations: Migrations) -> Result<Self, StoreError> {
        let file = dir.join(Self::FILE);
        let readers = Readers::new(file.clone(), migrations, options.readers, options.read_only);
        let readers = Arc::new(readers);
        let writer = if options.read_only {
            if !file.exists() {
                let reason = "is not there: check the folder, or load something first";
                return Err(StoreError::Unavailable(format!("{} {reason}", file.display())));
            }
            None
        } else {
            std::fs::create_dir_all(dir).map_err(|error| {
                StoreError::Unavailable(format!("the folder {} can't be created: {error}", dir.display()))
            })?;
            Some(Writer::start(
                &file,
                options.durability,
                migrations,
                Arc::clone(&readers),
            )?)
        };
        let store = Self { file, readers, writer };
        store.vector()?;
        Ok(store)
    }

    fn writer(&self) -> Result<&Writer, StoreError> {
        self.writer
            .as_ref()
            .ok_or_else(|| StoreError::Unavailable(format!("{} was opened for reading only", self.file.display())))
    }
}

impl Store for SqliteStore {
    fn get(&self, realm: Realm, ids: &[RecordId]) -> Result<Vec<Option<Stored>>, StoreError> {
        self.readers.run(|connection| match ids {
            [_] => read::get(connection, realm, ids),
            _ => read::consistent(connection, |connection| read::get(connection, realm, ids)),
        })
    }

    fn search(&self, realm: Realm, term: &Term, after: Option<&RecordId>, bounds: Bounds) -> Result<Found, StoreError> {
        self.readers
            .run(|connection| read::search(connection, realm, term, after, bounds))
    }

    fn holders(&self, realm: Realm, term: &Term, limit: usize) -> Result<usize, StoreError> {
        self.readers
            .run(|connection| read::holders(connection, realm, term, limit))
    }

    fn by_element(&self, realm: Realm, dataset: Dataset, elements: &[Vec<u8>]) -> Result<Vec<Listed>, StoreError> {
        self.readers.run(|connection| {
            read::consistent(connection, |connection| {
                read::by_element(connection, realm, dataset, elements)
            })
        })
    }

    fn lacking(&self, dataset: Dataset, elements: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, StoreError> {
        self.readers
            .run(|connection| read::consistent(connection, |connection| read::lacking(connection, dataset, elements)))
    }

    fn range(
        &self,
        dataset: Dataset,
        first: &[u8],
        last: &[u8],
        limit: usize,
    ) -> Result<(Vec<Vec<u8>>, Vector), StoreError> {
        self.readers.run(|connection| {
            read::consistent(connection, |connection| {
                Ok((
                    read::range(connection, dataset, first, last, limit)?,
                    log::vector(connection)?,
                ))
            })
        })
    }

    fn refusals(&self, source: &str, dataset: Dataset, elements: &[Vec<u8>]) -> Result<Vec<Refusal>, StoreError> {
        self.readers
            .run(|connection| read::refusals(connection, source, dataset, elements))
    }

    fn refuse(&self, source: &str, dataset: Dataset, refusals: Vec<Refusal>) -> Result<(), StoreError> {
        let source = source.to_owned();
        self.writer()?.run(move |connection| {
            let transaction = Transaction::begin(connection, now())?;
            transaction.refuse(&source, dataset, &refusals)?;
            transaction.commit()
        })
    }

    fn refusal_count(&self, source: &str) -> Result<u64, StoreError> {
        self.readers.run(|connection| read::refusal_count(connection, source))
    }

    fn trim_refusals(&self, source: &str, most: u64) -> Result<(), StoreError> {
        let source = source.to_owned();
        self.writer()?
            .run(move |connection| write::trim_refusals(connection, &source, most))
    }

    fn update(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        self.writer()?.update(batch)
    }

    fn mend(&self, realm: Realm, rows: Vec<(RecordId, Derived)>) -> Result<u64, StoreError> {
        self.writer()?.run(move |connection| {
            let mut transaction = Transaction::begin(connection, now())?;
            let wrong = transaction.mend(realm, &rows)?;
            transaction.commit()?;
            Ok(wrong)
        })
    }

    fn recount(&self, realm: Realm) -> Result<bool, StoreError> {
        self.writer()?.run(move |connection| {
            let mut transaction = Transaction::begin(connection, now())?;
            let wrong = transaction.recount(realm)?;
            transaction.commit()?;
            Ok(wrong)
        })
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        let view = View {
            file: &self.file,
            connection: self.readers.dedicated()?,
        };
        view.connection
            .execute_batch("BEGIN")
            .map_err(|error| Fault::from(error).at(&self.file))?;
        // The view is fixed by the first read, not by BEGIN.
        view.vector()?;
        Ok(Box::new(view))
    }

    fn changes(&self, since: &Vector, limit: usize) -> Result<Vec<ChangeRow>, StoreError> {
        self.readers
            .run(|connection| read::consistent(connection, |connection| log::changes(connection, since, limit)))
    }

    fn vector(&self) -> Result<Vector, StoreError> {
        self.readers.run(log::vector)
    }

    fn count(&self, realm: Realm) -> Result<u64, StoreError> {
        self.readers.run(|connection| log::count(connection, realm))
    }

    fn note(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.readers.run(|connection| read::note(connection, key))
    }

    fn swap_note(&self, key: &str, seen: Option<&[u8]>, new: &[u8]) -> Result<bool, StoreError> {
        let (key, seen, new) = (key.to_owned(), seen.map(<[u8]>::to_vec), new.to_vec());
        self.writer()?.run(move |connection| {
            let transaction = Transaction::begin(connection, now())?;
            let same = read::note(connection, &key)? == seen;
            if same {
                transaction.note(&key, Some(&new))?;
            }
            transaction.commit()?;
            Ok(same)
        })
    }

    fn maintain(&self, before: u64) -> Result<(), StoreError> {
        let writer = self.writer()?;
        // In steps, so that updates get in between.
        while writer.run(move |connection| log::forget(connection, before, FORGET_ROWS_MAX))? > 0 {}
        writer.run(move |connection| write::forget_refusals(connection, before))
    }

    fn ready(&self) -> Result<(), StoreError> {
        self.vector()?;
        let Some(writer) = &self.writer else { return Ok(()) };
        writer.run(|connection| {
            let transaction = Transaction::begin(connection, now())?;
            transaction.note(READY_NOTE, Some(b""))?;
            transaction.note(READY_NOTE, None)?;
            transaction.commit()
        })
    }
}

/// A read transaction on a connection of its own.
struct View<'a> {
    file: &'a Path,
    connection: Connection,
}

impl View<'_> {
    fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, StoreError> {
        read(&self.connection).map_err(|fault| fault.at(self.file))
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
        self.read(log::vector)
    }

    fn count(&self, realm: Realm) -> Result<u64, StoreError> {
        self.read(|connection| log::count(connection, realm))
    }
}

/// Rows of the log deleted in one transaction. One of a load tells of a thousand records.
const FORGET_ROWS_MAX: i64 = 200;
/// Written and removed again by [`Store::ready`].
const READY_NOTE: &str = "ready";
