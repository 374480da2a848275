//! `keyrink load`: keyrings into the store, on all cores.
//!
//! The sources are cut into pieces of whole certificates, which a `Pipeline` verifies and commits. A load that was
//! interrupted goes on where its notes say that each source is done.

use super::cutter::{self, Cutter};
use super::pipeline::{Committed, Piece, Pipeline, Ready};
use super::progress::Progress;
use super::source::Source;
use super::{AdminError, open_store};
use crate::cli;
use crate::config::Config;
use crate::derive::Deriving;
use crate::ingest::{self, Ingest, Outcome};
use keyrink_openpgp::read::Keyring;
use keyrink_store::sqlite::Durability;
use keyrink_store::{Store, StoreError};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// `keyrink load`
pub fn run(arguments: &cli::Load) -> Result<(), AdminError> {
    let config = arguments.source.configuration()?;
    let store = open_store(&config, Durability::Normal)?;
    let report = load(
        &config,
        store,
        &arguments.paths,
        arguments.restart,
        &Progress::for_terminal,
    )?;
    print!("{report}");
    if report.unread.is_empty() {
        Ok(())
    } else {
        Err(AdminError::Incomplete(report.unread.len()))
    }
}

/// Loads what `paths` mean into `store`.
pub fn load(
    config: &Config,
    store: Arc<dyn Store>,
    paths: &[PathBuf],
    restart: bool,
    progress: &dyn Fn(u64) -> Progress,
) -> Result<LoadReport, AdminError> {
    let sources = Source::find(paths).map_err(|error| AdminError::Read(String::new(), error))?;
    let ingest = Ingest::new(config, store);
    begin(&ingest)?;
    let mut loading = Loading {
        progress: progress(sources.iter().map(Source::octets).sum()),
        read: Arc::new(AtomicU64::new(0)),
        report: LoadReport::default(),
        threads: config.load.threads(),
        ingest,
    };
    let mut notes = Vec::new();
    for source in &sources {
        let note = source.identity().map(|identity| format!("load {identity}"));
        let done = note.as_ref().map_or(Ok(0), |note| loading.done(note, restart))?;
        match loading.load(source, done, note.as_deref()) {
            // One bad file must not keep the others out.
            Err(error @ AdminError::Read(..)) => loading.report.unread.push(error.to_string()),
            other => other?,
        }
        notes.extend(note.map(|note| (note, None)));
    }
    // Only a load that was interrupted leaves notes behind.
    finish(&loading.ingest, notes)?;
    loading.progress.finish();
    Ok(loading.report)
}

/// What comes before many certificates at once.
pub(super) fn begin(ingest: &Ingest) -> Result<(), StoreError> {
    Deriving::begin(&*ingest.store, ingest.policy)?.announce()
}

/// What comes behind them, with the last notes.
pub(super) fn finish(ingest: &Ingest, notes: Vec<(String, Option<Vec<u8>>)>) -> Result<(), StoreError> {
    ingest.commit(&Arc::default(), notes)?;
    // Again: a server may have gone over the records meanwhile, by another policy.
    Deriving::begin(&*ingest.store, ingest.policy)?.look_again()?;
    if let Err(error) = crate::peers::dataset::save_trees(&ingest.store, ingest.policy) {
        tracing::warn!("the sums of the trees could not be saved: {error}");
    }
    // Whoever reads the report may delete the source.
    ingest.store.settle()
}

/// Value of a note behind the end of its source.
const DONE: u64 = u64::MAX;
/// A certificate is read up to so many times the room it has, and then trimmed.
const LOAD_FACTOR: u64 = 16;
struct Loading {
    ingest: Ingest,
    threads: usize,
    progress: Progress,
    /// Octets taken from the disk.
    read: Arc<AtomicU64>,
    report: LoadReport,
}

impl Loading {
    fn done(&self, note: &str, restart: bool) -> Result<u64, StoreError> {
        if restart {
            return Ok(0);
        }
        let value = self.ingest.store.note(note)?;
        Ok(value
            .and_then(|value| value.try_into().ok())
            .map_or(0, u64::from_be_bytes))
    }

    /// Loads one source from octet `done` on.
    fn load(&mut self, source: &Source, done: u64, note: Option<&str>) -> Result<(), AdminError> {
        let failed = |error| AdminError::Read(source.name(), error);
        if done == DONE {
            self.read.fetch_add(source.octets(), Ordering::Relaxed);
            self.report
                .resumed
                .push(format!("{} was loaded before the interruption", source.name()));
            return Ok(());
        }
        if done > 0 {
            self.report
                .resumed
                .push(format!("{} goes on at octet {done}", source.name()));
        }
        let reader = source.open(&self.read).map_err(failed)?;
        let certificate_octets_max = self.ingest.limits.certificate_octets.saturating_mul(LOAD_FACTOR) as usize;
        let mut cutter = Cutter::new(reader, done, certificate_octets_max).map_err(failed)?;
        let name = source.name();
        let pipeline = Pipeline {
            ingest: &self.ingest.clone(),
            threads: self.threads,
            note,
        };
        pipeline.run(
            || Ok(cutter.next_piece().map_err(failed)?.map(piece)),
            |piece| verify(piece, pipeline.ingest),
            |committed| {
                self.report.add(&name, committed);
                self.progress
                    .at(self.read.load(Ordering::Relaxed), self.report.certificates());
            },
            || failed(std::io::Error::other("reading failed")),
        )?;
        let finished = note.map(|note| (note.to_owned(), Some(DONE.to_be_bytes().to_vec())));
        self.ingest.commit(&Arc::default(), finished.into_iter().collect())?;
        Ok(())
    }
}

fn piece(cut: cutter::Piece) -> Piece<cutter::Piece> {
    Piece {
        octets: cut.octets.len(),
        end: cut.end.to_be_bytes().to_vec(),
        what: cut,
    }
}

/// Reads and verifies the certificates of a piece.
fn verify(piece: cutter::Piece, ingest: &Ingest) -> Result<Ready<Vec<String>>, StoreError> {
    let cutter::Piece {
        octets,
        end,
        skipped: mut refused,
    } = piece;
    let keyring = Keyring::read(&octets, &ingest.limits);
    let start = end - octets.len() as u64;
    let unread = keyring.refused.iter();
    refused.extend(unread.map(|refused| format!("at octet {}: {}", start + refused.offset as u64, refused.reason)));
    refused.extend((keyring.refused_more > 0).then(|| format!("{} more like that", keyring.refused_more)));
    if !keyring.bare_signatures.is_empty() {
        refused.push(format!(
            "{} signatures come before any key",
            keyring.bare_signatures.len()
        ));
    }
    Ok(Ready {
        prepared: ingest.prepare(keyring.certs)?,
        remarks: refused,
    })
}

/// What a load did.
#[derive(Debug, Default)]
pub struct LoadReport {
    /// Certificates that are new.
    pub inserted: u64,
    /// Certificates that told something new.
    pub updated: u64,
    /// Certificates of which everything was known.
    pub unchanged: u64,
    /// Certificates kept for peers only, because nothing proves that somebody holds the key.
    pub invalid: u64,
    /// What became no certificate, in words; the first of them.
    pub refused: Vec<String>,
    /// How much became no certificate.
    pub refused_count: u64,
    /// Inputs that could not be read to their end, with the reason.
    pub unread: Vec<String>,
    /// What an earlier, interrupted load had done.
    pub resumed: Vec<String>,
    invalid_examples: Vec<String>,
}

/// Cases named one by one in a report.
const EXAMPLES_MAX: usize = 50;

impl LoadReport {
    /// Certificates read.
    pub fn certificates(&self) -> u64 {
        self.inserted + self.updated + self.unchanged + self.invalid
    }

    pub(super) fn add(&mut self, source: &str, committed: Committed<Vec<String>>) {
        let mut refused = committed.remarks;
        for (prepared, outcome) in committed.prepared.iter().zip(&committed.outcomes) {
            let fingerprint = || prepared.cert.key().fingerprint().to_string();
            match outcome {
                Outcome::Inserted => self.inserted += 1,
                Outcome::Updated => self.updated += 1,
                Outcome::Unchanged => self.unchanged += 1,
                Outcome::Invalid => {
                    self.invalid += 1;
                    if self.invalid_examples.len() < EXAMPLES_MAX {
                        self.invalid_examples.push(fingerprint());
                    }
                }
                Outcome::TooLarge => refused.push(format!("{}: {}", fingerprint(), ingest::TOO_LARGE)),
                Outcome::Forbidden => refused.push(format!("{}: {}", fingerprint(), ingest::FORBIDDEN)),
            }
        }
        self.refused_count += refused.len() as u64;
        let room = EXAMPLES_MAX.saturating_sub(self.refused.len());
        self.refused.extend(
            refused
                .into_iter()
                .take(room)
                .map(|refused| format!("{source}: {refused}")),
        );
    }
}

impl std::fmt::Display for LoadReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.resumed
            .iter()
            .try_for_each(|resumed| writeln!(f, "resumed: {resumed}"))?;
        writeln!(
            f,
            "{} certificates: {} inserted, {} updated, {} unchanged, {} without a valid self-signature (kept, not shown)",
            self.certificates(),
            self.inserted,
            self.updated,
            self.unchanged,
            self.invalid
        )?;
        self.invalid_examples
            .iter()
            .try_for_each(|id| writeln!(f, "no valid self-signature: {id}"))?;
        if self.refused_count > 0 {
            writeln!(f, "refused: {}", self.refused_count)?;
        }
        self.refused
            .iter()
            .try_for_each(|refused| writeln!(f, "refused: {refused}"))?;
        self.unread
            .iter()
            .try_for_each(|unread| writeln!(f, "not read: {unread}"))
    }
}
