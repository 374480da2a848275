//! From a source into the store, on all cores: one thread reads, several verify, and as many commit as the store has
//! writers.
//!
//! Pieces are committed as they get ready, in no particular order, since merging is a join. A note tells how far the source
//! is done; it is written in the transactions of the pieces and never says more than what all pieces before it have made true,
//! so an interrupted run goes on there and repeats a few pieces at most. Everything goes through [`Ingest`], as a submission
//! does.

use crate::ingest::{Ingest, Outcome, Prepared};
use keyrink_store::StoreError;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The way of one source into the store.
pub(super) struct Pipeline<'a> {
    pub(super) ingest: &'a Ingest,
    /// Threads that verify.
    pub(super) threads: usize,
    /// The note that tells how far the source is done.
    pub(super) note: Option<&'a str>,
}

/// A part of a source.
pub(super) struct Piece<T> {
    pub(super) what: T,
    /// What it takes in memory.
    pub(super) octets: usize,
    /// What the note says when this piece and all before it are done.
    pub(super) end: Vec<u8>,
}

/// A piece whose certificates are verified.
pub(super) struct Ready<R> {
    pub(super) prepared: Vec<Prepared>,
    /// What there is to say about it.
    pub(super) remarks: R,
}

/// A piece that is in the store.
pub(super) struct Committed<R> {
    pub(super) prepared: Arc<Vec<Prepared>>,
    /// One for each that was prepared.
    pub(super) outcomes: Vec<Outcome>,
    pub(super) remarks: R,
}

/// Something on its way: its number, what the note says behind it, and its room.
struct Numbered<T> {
    number: u64,
    end: Vec<u8>,
    permit: Permit,
    what: T,
}

impl Pipeline<'_> {
    /// Takes pieces from `read` until there is none, and tells `done` of each that is in the store. Ends at the first error.
    pub(super) fn run<T: Send, R: Send, E: From<StoreError> + Send>(
        &self,
        read: impl FnMut() -> Result<Option<Piece<T>>, E> + Send,
        verify: impl Fn(T) -> Result<Ready<R>, StoreError> + Sync,
        mut done: impl FnMut(Committed<R>),
        failed: impl FnOnce() -> E,
    ) -> Result<(), E> {
        let (verify, prefix) = (&verify, &Mutex::<Prefix>::default());
        std::thread::scope(|scope| {
            let (pieces, waiting) = sync_channel(QUEUE_PIECES);
            let (ready, verified) = sync_channel(QUEUE_PIECES);
            let (committed, results) = sync_channel(QUEUE_PIECES);
            let reading = scope.spawn(move || send_all(read, &pieces));
            let (waiting, verified) = (Arc::new(Mutex::new(waiting)), Arc::new(Mutex::new(verified)));
            for _ in 0..self.threads {
                let (waiting, ready) = (Arc::clone(&waiting), ready.clone());
                scope.spawn(move || pass(&waiting, &ready, |piece| Numbered::then(piece, verify)));
            }
            for _ in 0..self.ingest.store.writers() {
                let (verified, committed) = (Arc::clone(&verified), committed.clone());
                scope.spawn(move || pass(&verified, &committed, |ready| self.commit(ready?, prefix)));
            }
            drop((waiting, ready, verified, committed));
            for result in results {
                done(result?);
            }
            reading.join().unwrap_or_else(|_| Err(failed()))
        })
    }

    fn commit<R>(&self, ready: Numbered<Ready<R>>, prefix: &Mutex<Prefix>) -> Result<Committed<R>, StoreError> {
        let Numbered {
            number,
            end,
            what: Ready { prepared, remarks },
            permit: _permit,
        } = ready;
        let prepared = Arc::new(prepared);
        let far = lock(prefix).with(number, &end);
        let note = self.note.zip(far).map(|(note, far)| (note.to_owned(), Some(far)));
        let outcomes = self.ingest.commit(&prepared, note.into_iter().collect())?;
        lock(prefix).done(number, end);
        Ok(Committed {
            prepared,
            outcomes,
            remarks,
        })
    }
}

impl<T> Numbered<T> {
    fn then<U>(self, work: impl FnOnce(T) -> Result<U, StoreError>) -> Result<Numbered<U>, StoreError> {
        Ok(Numbered {
            number: self.number,
            end: self.end,
            permit: self.permit,
            what: work(self.what)?,
        })
    }
}

fn send_all<T, E>(
    mut read: impl FnMut() -> Result<Option<Piece<T>>, E>,
    pieces: &SyncSender<Numbered<T>>,
) -> Result<(), E> {
    let (room, mut number) = (Arc::<Room>::default(), 0);
    while let Some(Piece { what, octets, end }) = read()? {
        let permit = room.take(octets);
        let piece = Numbered {
            number,
            end,
            permit,
            what,
        };
        if pieces.send(piece).is_err() {
            break;
        }
        number += 1;
    }
    Ok(())
}

/// Works on what comes until nothing more does, or nobody wants the results.
fn pass<A, B>(queue: &Mutex<Receiver<A>>, results: &SyncSender<B>, work: impl Fn(A) -> B) {
    loop {
        let next = lock(queue).recv();
        let Ok(next) = next else { return };
        if results.send(work(next)).is_err() {
            return;
        }
    }
}

/// Which pieces are in the store: all before `next`, and some behind it.
#[derive(Default)]
struct Prefix {
    next: u64,
    /// The ends of those behind.
    ends: BTreeMap<u64, Vec<u8>>,
    /// The end of the last one before `next`.
    end: Option<Vec<u8>>,
}

impl Prefix {
    /// What the note may say once piece `number` is in the store as well.
    fn with(&self, number: u64, end: &[u8]) -> Option<Vec<u8>> {
        if number == self.next {
            Some(end.to_vec())
        } else {
            self.end.clone()
        }
    }

    fn done(&mut self, number: u64, end: Vec<u8>) {
        self.ends.insert(number, end);
        while let Some(end) = self.ends.remove(&self.next) {
            self.next += 1;
            self.end = Some(end);
        }
    }
}

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
        let is_full = |taken: &mut usize| *taken > 0 && *taken + octets > QUEUE_OCTETS;
        let taken = self.freed.wait_while(lock(&self.taken), is_full);
        *taken.unwrap_or_else(PoisonError::into_inner) += octets;
        Permit {
            room: Arc::clone(self),
            octets,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *lock(&self.room.taken) -= self.octets;
        self.room.freed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pieces waiting between two stages.
const QUEUE_PIECES: usize = 4;
/// Octets of all pieces between reading and committing; one that is longer comes alone. Verified, a piece takes some three times
/// its octets, so this stays under a GiB.
const QUEUE_OCTETS: usize = 256 << 20;

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

    #[test]
    fn the_note_never_says_more_than_is_done() {
        let mut prefix = Prefix::default();
        assert_eq!(
            (prefix.with(1, b"1"), prefix.with(0, b"0")),
            (None, Some(b"0".to_vec()))
        );
        prefix.done(2, b"2".to_vec());
        prefix.done(0, b"0".to_vec());
        assert_eq!(prefix.with(3, b"3"), Some(b"0".to_vec()));
        prefix.done(1, b"1".to_vec());
        assert_eq!(prefix.with(4, b"4"), Some(b"2".to_vec()));
    }
}
