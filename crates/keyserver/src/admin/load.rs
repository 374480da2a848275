//! `keyrink load`: keyrings into the store, on all cores.
//!
//! One thread cuts the sources into pieces of whole certificates, several read and verify them, and the caller's
//! thread commits them in the order of the sources. With each transaction goes a note of how far the source is done,
//! so a load that was interrupted goes on there. Everything goes through [`Ingest`], as a submission does.

use super::cutter::{Cutter, Piece};
use super::progress::Progress;
use super::source::Source;
use super::{AdminError, open_store};
use crate::cli;
use crate::config::Config;
use crate::derive::Deriving;
use crate::formats::Policy;
use crate::ingest::{self, Ingest, Outcome, Prepared};
use keyrink_openpgp::read::Keyring;
use keyrink_store::sqlite::Durability;
use keyrink_store::{Store, StoreError};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

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
    let ingest = Ingest::new(config, Arc::clone(&store));
    let deriving = || Deriving::begin(&*store, Policy::new(config));
    deriving()?.announce()?;
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
    loading.ingest.commit(&Arc::default(), notes)?;
    // Again: a server may have gone over the records meanwhile, by another policy.
    deriving()?.announce()?;
    loading.progress.finish();
    if let Err(error) = crate::peers::dataset::save_trees(&loading.ingest.store, loading.ingest.policy) {
        tracing::warn!("the sums of the trees could not be saved: {error}");
    }
    Ok(loading.report)
}

/// Value of a note behind the end of its source.
const DONE: u64 = u64::MAX;
/// A certificate is read up to so many times the room it has, and then trimmed.
const LOAD_FACTOR: u64 = 16;
/// Pieces waiting between two stages.
const QUEUE_PIECES: usize = 4;
/// Octets of all pieces between cutting and committing. A piece has 128 KiB and the certificate that goes beyond, which
/// has up to [`LOAD_FACTOR`] times the configured room: one that is longer than this comes alone. Verified, a piece
/// takes some three times its octets, so a load stays under a GiB with the default limits.
const QUEUE_OCTETS: usize = 256 << 20;

/// Room for octets on their way.
#[derive(Default)]
struct Room {
    taken: Mutex<usize>,
    freed: Condvar,
}

/// A part of the room, given back when dropped.
struct Permit {
    room: Arc<Room>,
    octets: usize,
}

impl Room {
    /// Waits until these octets fit, or are alone.
    fn take(self: &Arc<Self>, octets: usize) -> Permit {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |taken: &mut usize| *taken > 0 && *taken + octets > QUEUE_OCTETS;
        let taken = self.freed.wait_while(taken, is_full);
        *taken.unwrap_or_else(PoisonError::into_inner) += octets;
        Permit {
            room: Arc::clone(self),
            octets,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *self.room.taken.lock().unwrap_or_else(PoisonError::into_inner) -= self.octets;
        self.room.freed.notify_all();
    }
}

struct Loading {
    ingest: Ingest,
    threads: usize,
    progress: Progress,
    /// Octets taken from the disk.
    read: Arc<AtomicU64>,
    report: LoadReport,
}

/// A piece of a source on its way: its number, and what became of it.
struct Numbered<T> {
    number: u64,
    permit: Permit,
    what: T,
}

/// A piece whose certificates are verified.
struct Ready {
    prepared: Vec<Prepared>,
    end: u64,
    refused: Vec<String>,
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
        let cutter = Cutter::new(reader, done, certificate_octets_max).map_err(failed)?;
        let name = source.name();
        std::thread::scope(|scope| {
            let (pieces, waiting) = sync_channel(QUEUE_PIECES);
            let (ready, verified) = sync_channel(QUEUE_PIECES);
            let cutting = scope.spawn(move || cut(cutter, &pieces));
            let waiting = Arc::new(Mutex::new(waiting));
            for _ in 0..self.threads {
                let (waiting, ready, ingest) = (Arc::clone(&waiting), ready.clone(), self.ingest.clone());
                scope.spawn(move || verify_pieces(&waiting, &ready, &ingest));
            }
            drop((waiting, ready));
            self.commit_all(&verified, &name, note)?;
            cutting
                .join()
                .unwrap_or_else(|_| Err(std::io::Error::other("reading failed")))
                .map_err(failed)
        })?;
        let finished = note.map(|note| (note.to_owned(), Some(DONE.to_be_bytes().to_vec())));
        self.ingest.commit(&Arc::default(), finished.into_iter().collect())?;
        Ok(())
    }

    /// Commits pieces in the order in which they were cut.
    fn commit_all(
        &mut self,
        verified: &Receiver<Numbered<Result<Ready, StoreError>>>,
        name: &str,
        note: Option<&str>,
    ) -> Result<(), StoreError> {
        let (mut early, mut next) = (BTreeMap::new(), 0);
        for Numbered { number, permit, what } in verified {
            early.insert(number, (what?, permit));
            while let Some((ready, _permit)) = early.remove(&next) {
                next += 1;
                let prepared = Arc::new(ready.prepared);
                let done = note.map(|note| (note.to_owned(), Some(ready.end.to_be_bytes().to_vec())));
                let outcomes = self.ingest.commit(&prepared, done.into_iter().collect())?;
                self.report.add(name, &prepared, &outcomes, ready.refused);
                self.progress
                    .at(self.read.load(Ordering::Relaxed), self.report.certificates());
            }
        }
        Ok(())
    }
}

fn cut<R: std::io::Read>(mut cutter: Cutter<R>, pieces: &SyncSender<Numbered<Piece>>) -> std::io::Result<()> {
    let (room, mut number) = (Arc::<Room>::default(), 0);
    while let Some(what) = cutter.next_piece()? {
        let permit = room.take(what.octets.len());
        if pieces.send(Numbered { number, permit, what }).is_err() {
            break;
        }
        number += 1;
    }
    Ok(())
}

fn verify_pieces(
    waiting: &Mutex<Receiver<Numbered<Piece>>>,
    ready: &SyncSender<Numbered<Result<Ready, StoreError>>>,
    ingest: &Ingest,
) {
    loop {
        let next = waiting.lock().map(|waiting| waiting.recv());
        let Ok(Ok(Numbered {
            number,
            permit,
            what: piece,
        })) = next
        else {
            return;
        };
        let Piece {
            octets,
            end,
            mut skipped,
        } = piece;
        let keyring = Keyring::read(&octets, &ingest.limits);
        let start = end - octets.len() as u64;
        let refused = keyring.refused.iter();
        skipped
            .extend(refused.map(|refused| format!("at octet {}: {}", start + refused.offset as u64, refused.reason)));
        if !keyring.bare_signatures.is_empty() {
            skipped.push(format!(
                "{} signatures come before any key",
                keyring.bare_signatures.len()
            ));
        }
        let prepared = ingest.prepare(keyring.certs);
        let what = prepared.map(|prepared| Ready {
            prepared,
            end,
            refused: skipped,
        });
        if ready.send(Numbered { number, permit, what }).is_err() {
            return;
        }
    }
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

    fn add(&mut self, source: &str, prepared: &[Prepared], outcomes: &[Outcome], mut refused: Vec<String>) {
        for (prepared, outcome) in prepared.iter().zip(outcomes) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn octets_on_their_way_are_bounded() {
        let room = Arc::<Room>::default();
        let first = room.take(QUEUE_OCTETS * 2);
        let (taken, waiting) = sync_channel(1);
        let later = Arc::clone(&room);
        let thread = std::thread::spawn(move || taken.send(later.take(1)));
        assert!(waiting.recv_timeout(Duration::from_millis(50)).is_err());
        drop(first);
        assert!(waiting.recv_timeout(Duration::from_secs(10)).is_ok());
        thread.join().unwrap().unwrap();
    }
}
