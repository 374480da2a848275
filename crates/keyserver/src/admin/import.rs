//! `keyrink import-hockeypuck`: the certificates of a Hockeypuck database into the store, without a dump.
//!
//! Rows are read in the order of their primary key, on which a note says how far an import is. The digest that Hockeypuck
//! found of each is compared with the one found here, of that row alone, whatever else is stored of the certificate.

pub(crate) mod document;

use super::load::{self, LoadReport};
use super::pipeline::{Committed, Piece, Pipeline, Ready};
use super::progress::Progress;
use super::{AdminError, open_store, postgres_options};
use crate::cli;
use crate::config::Config;
use crate::formats::hexadecimal;
use crate::ingest::{Ingest, Prepared};
use keyrink_openpgp::project::Projection;
use keyrink_openpgp::read::Keyring;
use keyrink_store::postgres::{Hockeypuck, HockeypuckRow};
use keyrink_store::sqlite::Durability;
use keyrink_store::{Store, StoreError};
use std::fmt;
use std::sync::Arc;

/// `keyrink import-hockeypuck`
pub fn run(arguments: &cli::ImportHockeypuck) -> Result<(), AdminError> {
    let config = arguments.target().configuration()?;
    let source = Hockeypuck::open(&postgres_options(&config, &arguments.database))?;
    let store = open_store(&config, Durability::Normal)?;
    let report = import(&config, store, &source, arguments.restart, &Progress::for_terminal)?;
    print!("{report}");
    Ok(())
}

/// Imports all rows of `source` into `store`; an import that was interrupted goes on, unless it is to `restart`.
pub fn import(
    config: &Config,
    store: Arc<dyn Store>,
    source: &Hockeypuck,
    restart: bool,
    progress: &dyn Fn(u64) -> Progress,
) -> Result<ImportReport, AdminError> {
    let ingest = Ingest::new(config, store);
    load::begin(&ingest)?;
    let note = format!("import {}", source.name());
    let mut report = ImportReport::default();
    let noted = if restart { None } else { ingest.store.note(&note)? };
    let mut after = String::from_utf8(noted.unwrap_or_default()).unwrap_or_default();
    if !after.is_empty() {
        report.load.resumed.push(format!(
            "goes on after row {after}; what follows is about the rows behind it"
        ));
    }
    // A count that takes too long for the database is worth no wait: progress goes without.
    let progress = progress(source.count().unwrap_or(0));
    let pipeline = Pipeline {
        ingest: &ingest,
        threads: config.load.threads(),
        note: Some(&note),
    };
    let read = || {
        let rows = source.rows(&after, PAGE_ROWS)?;
        Ok::<_, AdminError>(rows.last().map(|row| row.rfingerprint.clone()).map(|last| {
            after.clone_from(&last);
            piece(rows, last)
        }))
    };
    pipeline.run(
        read,
        |rows| verify(&rows, &ingest),
        |committed| {
            report.add(committed);
            progress.at(report.rows, report.load.certificates());
        },
        || AdminError::Read(source.name().to_owned(), std::io::Error::other("reading failed")),
    )?;
    load::finish(&ingest, vec![(note, None)])?;
    progress.finish();
    Ok(report)
}

/// Rows read at once.
const PAGE_ROWS: usize = 100;
/// Differences named one by one.
const EXAMPLES_MAX: usize = 100;

fn piece(rows: Vec<HockeypuckRow>, last: String) -> Piece<Vec<HockeypuckRow>> {
    Piece {
        octets: rows
            .iter()
            .filter_map(|row| row.document.as_ref())
            .map(String::len)
            .sum(),
        end: last.into_bytes(),
        what: rows,
    }
}

/// What there is to say about some rows.
#[derive(Default)]
struct Remarks {
    rows: u64,
    /// Rows of which the digest is the same here.
    equal: u64,
    different: Vec<String>,
    refused: Vec<String>,
}

/// Reads the certificates of some rows and verifies them.
fn verify(rows: &[HockeypuckRow], ingest: &Ingest) -> Result<Ready<Remarks>, StoreError> {
    let mut remarks = Remarks::default();
    let mut prepared = Vec::with_capacity(rows.len());
    for row in rows {
        remarks.rows += 1;
        let fingerprint: String = row.rfingerprint.chars().rev().collect();
        match read(row, ingest, &mut remarks)? {
            Ok(read) => {
                let same = remarks.compare(&fingerprint, &row.md5, &read);
                remarks.equal += u64::from(same);
                prepared.extend(read);
            }
            Err(reason) => remarks.refused.push(format!("{fingerprint}: {reason}")),
        }
    }
    Ok(Ready { prepared, remarks })
}

/// The certificates of a row, of which there should be one.
fn read(
    row: &HockeypuckRow,
    ingest: &Ingest,
    remarks: &mut Remarks,
) -> Result<Result<Vec<Prepared>, String>, StoreError> {
    let Some(text) = &row.document else {
        return Ok(Err(format!(
            "its document is longer than {} MiB",
            HockeypuckRow::DOCUMENT_OCTETS_MAX >> 20
        )));
    };
    let document = match document::read(text) {
        Ok(document) => document,
        Err(reason) => return Ok(Err(reason)),
    };
    let name = || row.rfingerprint.chars().rev().collect::<String>();
    let unread = document.unread.iter();
    remarks
        .refused
        .extend(unread.map(|unread| format!("{}: {unread}", name())));
    let keyring = Keyring::read(&document.packets, &ingest.limits);
    let refused = keyring.refused.iter();
    remarks
        .refused
        .extend(refused.map(|refused| format!("{}: {}", name(), refused.reason)));
    ingest.prepare(keyring.certs).map(Ok)
}

impl Remarks {
    /// Is what was read of a row what Hockeypuck says it is?
    fn compare(&mut self, fingerprint: &str, digest: &str, read: &[Prepared]) -> bool {
        let found = match read {
            [prepared] if hexadecimal(prepared.cert.key().fingerprint().as_bytes()) == fingerprint => {
                match prepared.cert.digest(Projection::Hockeypuck) {
                    Some(found) if hexadecimal(&found) == digest => return true,
                    Some(found) => hexadecimal(&found),
                    None => "nothing that it would store".to_owned(),
                }
            }
            [prepared] => format!("the key {}", prepared.cert.key().fingerprint()),
            [] => "no certificate".to_owned(),
            more => format!("{} certificates", more.len()),
        };
        self.different
            .push(format!("{fingerprint}: Hockeypuck has {digest}, found was {found}"));
        false
    }
}

/// What an import did.
#[derive(Debug, Default)]
pub struct ImportReport {
    /// What became of the certificates.
    pub load: LoadReport,
    /// Rows read.
    pub rows: u64,
    /// Rows whose digest is the one that Hockeypuck has.
    pub equal: u64,
    /// Rows whose digest is another one, in words; the first of them.
    pub different: Vec<String>,
}

impl ImportReport {
    fn add(&mut self, committed: Committed<Remarks>) {
        let Committed {
            prepared,
            outcomes,
            remarks,
        } = committed;
        self.rows += remarks.rows;
        self.equal += remarks.equal;
        let room = EXAMPLES_MAX.saturating_sub(self.different.len());
        self.different.extend(remarks.different.into_iter().take(room));
        let committed = Committed {
            prepared,
            outcomes,
            remarks: remarks.refused,
        };
        self.load.add("row", committed);
    }
}

impl fmt::Display for ImportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let different = self.rows - self.equal;
        write!(f, "{}", self.load)?;
        writeln!(
            f,
            "{} rows: {} digests as Hockeypuck has them, {different} not",
            self.rows, self.equal
        )?;
        self.different
            .iter()
            .try_for_each(|row| writeln!(f, "different: {row}"))
    }
}
