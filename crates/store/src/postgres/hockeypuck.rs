//! The certificates of a Hockeypuck database, to be read and nothing else. Documents are handed on as they are.
//!
//! Its table `keys` has one row for each certificate: `rfingerprint` (the digits of the fingerprint in reverse order, primary
//! key), `doc` (its packets as JSON) and `md5` (the digest). Of the other tables nothing is needed.

use std::sync::Arc;

use super::address::Address;
use super::database::{self, Database};
use super::pool::Pool;
use super::{Options, read, sql};
use crate::StoreError;

/// A Hockeypuck database.
pub struct Hockeypuck {
    pool: Pool,
    name: String,
}

/// One of its certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HockeypuckRow {
    /// By what rows are ordered: the digits of the fingerprint in reverse order.
    pub rfingerprint: String,
    /// The digest that Hockeypuck found, in hexadecimal.
    pub md5: String,
    /// JSON; none if it is longer than [`HockeypuckRow::DOCUMENT_OCTETS_MAX`].
    pub document: Option<String>,
}

impl HockeypuckRow {
    /// The longest document that is read, in characters; Hockeypuck takes certificates of 8 MiB unless it is told otherwise.
    pub const DOCUMENT_OCTETS_MAX: usize = 256 << 20;
}

impl Hockeypuck {
    /// Connects, in sessions that can't write; of `options` only the way there counts.
    pub fn open(options: &Options) -> Result<Self, StoreError> {
        let address = Address::new(&options.url, options.password_file.as_deref())?;
        let database = Arc::new(Database::new(address, database::session(true, false))?);
        let name = database.name().to_owned();
        let pool = Pool::new(database, 1);
        let there = pool.run(|connection| connection.rows(sql::HAS_HOCKEYPUCK, &[]))?;
        match there.first().and_then(|row| row.try_get::<_, i64>(0).ok()) {
            Some(1..) => Ok(Self { pool, name }),
            _ => Err(StoreError::Invalid(format!(
                "{name} is not that of a Hockeypuck: it has no table `keys` with the columns rfingerprint, doc and md5"
            ))),
        }
    }

    /// How it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many certificates it has, which may take a while.
    pub fn count(&self) -> Result<u64, StoreError> {
        self.pool.run(|connection| {
            let rows = connection.rows(sql::COUNT_HOCKEYPUCK, &[])?;
            read::one::<i64>(&rows).map(i64::cast_unsigned)
        })
    }

    /// The rows after `rfingerprint`, at most `limit` of them: fewer if they are long, none at the end.
    pub fn rows(&self, after: &str, limit: usize) -> Result<Vec<HockeypuckRow>, StoreError> {
        self.pool.run(|connection| {
            let (longest, page) = (HockeypuckRow::DOCUMENT_OCTETS_MAX, PAGE_OCTETS);
            let limits = [limit, longest, page].map(read::limit);
            let rows = connection.rows(sql::HOCKEYPUCK, &[&after, &limits[0], &limits[1], &limits[2]])?;
            let row = |row| {
                Ok(HockeypuckRow {
                    rfingerprint: read::column(row, 0)?,
                    md5: read::column(row, 1)?,
                    document: read::column(row, 2)?,
                })
            };
            rows.iter().map(row).collect()
        })
    }
}

/// Characters of documents after which a page ends.
const PAGE_OCTETS: usize = 4 << 20;
