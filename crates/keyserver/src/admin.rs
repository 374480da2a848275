//! Subcommands that work on the store: beside a running server, or without one.

pub mod check;
pub(crate) mod cutter;
mod derived;
pub mod dump;
mod keybox;
pub mod load;
pub mod peers;
pub mod progress;
pub mod rebuild;
mod source;

use crate::cli;
use crate::config::{Config, ConfigError};
use crate::formats::{FAMILIES, OPENPGP};
use keyrink_store::sqlite::{Durability, Options, SqliteStore};
use keyrink_store::{Snapshot, StoreError, Stored};

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
    /// A partner, in words.
    #[error("{0}")]
    Peer(String),
    /// What a check found.
    #[error(
        "{0} differences: `keyrink rebuild` mends rows; if records are damaged restore a backup, or load a dump of this \
         store into an empty folder"
    )]
    Differences(u64),
}

/// Opens the store that the configuration names, to read and write.
pub fn open_store(config: &Config, durability: Durability) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(
        &config.store.directory,
        &Options {
            durability,
            ..Options::default()
        },
    )
}

fn open_to_read(config: &Config) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(
        &config.store.directory,
        &Options {
            read_only: true,
            ..Options::default()
        },
    )
}

/// `keyrink backup`
pub fn backup(arguments: &cli::Backup) -> Result<(), AdminError> {
    let config = arguments.source.configuration()?;
    let failed = |error| AdminError::Write(arguments.target.display().to_string(), error);
    let store = open_to_read(&config)?;
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
