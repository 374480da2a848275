//! Subcommands that work on the store: beside a running server, or without one.

pub mod check;
pub(crate) mod cutter;
pub mod decide;
mod derived;
pub mod dump;
pub mod explain;
pub mod import;
mod keybox;
pub mod load;
pub mod peers;
mod pipeline;
pub mod progress;
pub mod rebuild;
pub(crate) mod source;

use crate::cli;
use crate::config::{Config, ConfigError};
use crate::formats::{FAMILIES, OPENPGP};
use crate::lifecycle::{ChangeError, SelectorError};
use keyrink_store::postgres::{self, PostgresStore};
use keyrink_store::sqlite::{self, Durability, SqliteStore};
use keyrink_store::{Snapshot, Store, StoreError, Stored};
use std::path::PathBuf;
use std::sync::Arc;

/// Why a subcommand failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An input.
    #[error("{0}{separator}{1}", separator = if .0.is_empty() { "" } else { ": " })]
    Read(String, std::io::Error),
    /// An output.
    #[error("{0}: {1}")]
    Write(String, std::io::Error),
    /// Inputs of a load; each has been named.
    #[error("{0} inputs could not be read to their end")]
    Incomplete(usize),
    /// A stored certificate.
    #[error("the record {0} cannot be read: run `keyrink check`")]
    Damaged(String),
    /// A name on the command line.
    #[error("there is no dataset {0:?}; known: {known}", known = FAMILIES.map(|family| family.name).join(", "))]
    UnknownDataset(String),
    /// What was to be explained.
    #[error("there is no file and no stored certificate {0:?}: give a path, a fingerprint or a key id of 16 digits")]
    Unknown(String),
    /// What was to be explained is not stored, because of a rule.
    #[error("it is not stored; there is a rule: {0}")]
    Ruled(String),
    /// A selector on the command line.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// A selector that selects nothing, because rules are about primary keys.
    #[error("{0} is a subkey: rules are about primary keys, here {1}")]
    Subkey(String, String),
    /// A decision that may be about many certificates.
    #[error("nothing was changed: add --yes if that is what you want, or --dry-run if not")]
    Unconfirmed,
    /// A rule that was to be changed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// A partner, in words.
    #[error("{0}")]
    Peer(String),
    /// What this kind of store has other means for.
    #[error("{0}")]
    OtherMeans(&'static str),
    /// What a check found.
    #[error(
        "{0} differences: `keyrink rebuild` mends rows; if records are damaged restore a backup, or load a dump of this \
         store into an empty folder"
    )]
    Differences(u64),
}

/// Opens the store that the configuration names, to read and write.
pub fn open_store(config: &Config, durability: Durability) -> Result<Arc<dyn Store>, StoreError> {
    let Some(url) = &config.store.database else {
        let options = sqlite::Options {
            durability,
            ..sqlite::Options::default()
        };
        return Ok(Arc::new(SqliteStore::open(&config.store.directory, &options)?));
    };
    let options = postgres::Options {
        lazy: durability == Durability::Normal,
        writers: if durability == Durability::Normal {
            config.load.threads()
        } else {
            1
        },
        ..postgres_options(config, url)
    };
    Ok(Arc::new(PostgresStore::open(&options)?))
}

fn open_to_read(config: &Config) -> Result<Arc<dyn Store>, StoreError> {
    let Some(url) = &config.store.database else {
        return Ok(Arc::new(open_embedded_to_read(config)?));
    };
    let options = postgres::Options {
        read_only: true,
        ..postgres_options(config, url)
    };
    Ok(Arc::new(PostgresStore::open(&options)?))
}

fn open_embedded_to_read(config: &Config) -> Result<SqliteStore, StoreError> {
    let options = sqlite::Options {
        read_only: true,
        ..sqlite::Options::default()
    };
    SqliteStore::open(&config.store.directory, &options)
}

fn postgres_options(config: &Config, url: &str) -> postgres::Options {
    // Where PostgreSQL's own programs look.
    let usual = || match std::env::var_os("PGPASSFILE") {
        Some(file) => Some(PathBuf::from(file)),
        None => Some(PathBuf::from(std::env::var_os("HOME")?).join(".pgpass")),
    };
    postgres::Options {
        password_file: config.store.password_file.clone().or_else(usual),
        migrate: config.store.migrate,
        connections: config.store.connections.get() as usize,
        ..postgres::Options::new(url)
    }
}

/// `keyrink migrate`
pub fn migrate(arguments: &cli::Migrate) -> Result<(), AdminError> {
    let config = arguments.source.configuration()?;
    let Some(url) = &config.store.database else {
        return Err(AdminError::OtherMeans(
            "the embedded database is brought up to date by whatever opens it to write",
        ));
    };
    match PostgresStore::migrate(&postgres_options(&config, url))? {
        0 => println!("the tables are up to date"),
        steps => println!("the tables are up to date now, after {steps} steps"),
    }
    Ok(())
}

/// `keyrink backup`
pub fn backup(arguments: &cli::Backup) -> Result<(), AdminError> {
    let config = arguments.source.configuration()?;
    let failed = |error| AdminError::Write(arguments.target.display().to_string(), error);
    if config.store.database.is_some() {
        return Err(AdminError::OtherMeans(
            "a PostgreSQL database is copied by `pg_dump --format=custom` and restored by `pg_restore`",
        ));
    }
    let store = open_embedded_to_read(&config)?;
    std::fs::create_dir(&arguments.target).map_err(failed)?;
    store.backup(&arguments.target.join(SqliteStore::FILE))?;
    println!("copied to {}", arguments.target.display());
    Ok(())
}

const PAGE_RECORDS: usize = 500;

/// Calls `visit` with every certificate's record, in order of their ids.
fn for_each_record(
    snapshot: &dyn Snapshot,
    mut visit: impl FnMut(&Stored) -> Result<(), AdminError>,
) -> Result<(), AdminError> {
    let mut after = None;
    loop {
        let page = snapshot.records(OPENPGP, after.as_ref(), PAGE_RECORDS)?;
        page.iter().try_for_each(&mut visit)?;
        let Some(last) = page.into_iter().next_back() else {
            return Ok(());
        };
        after = Some(last.id);
    }
}
