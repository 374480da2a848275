//! Who calls a partner when several servers share one store: one of them at a time, by a lease.
//!
//! A lease is a note in the store, changed only by whoever sees it as it is. Its holder shows twice a second that it is
//! alive by counting a beat; another server that has seen the same beat for [`SILENCE`] takes the lease with the next token.
//! Nobody compares clocks: each server counts the time since it saw something. The holder itself stops acting
//! [`HOLDING`] after it began its last beat that succeeded, before anybody else can have waited long enough, so no two
//! servers act on one token, and never two at the same time on the word of the store.

use super::Node;
use super::partner::Partner;
use crate::http::handoff::blocking;
use keyrink_store::{Store, StoreError};
use metrics::gauge;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The right to call a partner.
pub(crate) struct Lease {
    key: String,
    /// This server; another number after each start.
    holder: u64,
    /// Whether there can be other servers; the only one always holds it.
    shared: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Somebody else's lease, and since when it is as it is.
    others: Option<(Row, Instant)>,
    /// The token, and until when it is good.
    held: Option<(u64, Instant)>,
    /// This server wants it no more.
    released: bool,
}

/// What the note says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    token: u64,
    holder: u64,
    beat: u64,
}

impl Lease {
    /// The lease for calling the partner of this name.
    pub(crate) fn new(partner: &str, store: &dyn Store) -> Self {
        Self {
            key: format!("lease {partner}"),
            holder: RandomState::new().hash_one(Instant::now()),
            shared: store.is_shared(),
            state: Mutex::default(),
        }
    }

    /// What to act on, while this server holds the lease.
    pub(crate) fn token(&self) -> Option<u64> {
        self.token_at(Instant::now())
    }

    fn token_at(&self, now: Instant) -> Option<u64> {
        if !self.shared {
            return Some(0);
        }
        let (token, until) = self.state().held?;
        (now < until).then_some(token)
    }

    /// Shows that this server is alive, or takes the lease if its holder is not; true if it has just been taken. Blocks.
    fn beat(&self, store: &dyn Store) -> Result<bool, StoreError> {
        self.beat_at(store, Instant::now())
    }

    fn beat_at(&self, store: &dyn Store, now: Instant) -> Result<bool, StoreError> {
        if self.state().released {
            return Ok(false);
        }
        let note = store.note(&self.key)?;
        let row = note.as_deref().and_then(Row::read);
        let (next, news) = match row {
            Some(row) if row.holder == self.holder => (row.beaten(), false),
            Some(row) if !self.is_silent(row, now) => {
                self.state().held = None;
                return Ok(false);
            }
            other => (Row::taken(other, self.holder), true),
        };
        let done = store.swap_note(&self.key, note.as_deref(), next.to_string().as_bytes())?;
        let mut state = self.state();
        let news = done && (news || state.held.is_none());
        state.held = done.then_some((next.token, now + HOLDING));
        Ok(news)
    }

    /// Gives it back, for another server to take at once. Only for one that does not act on it any more. Blocks.
    pub(crate) fn release(&self, store: &dyn Store) -> Result<(), StoreError> {
        let mut state = self.state();
        state.released = true;
        let held = state.held.take();
        drop(state);
        let note = store.note(&self.key)?;
        match note
            .as_deref()
            .and_then(Row::read)
            .filter(|row| held.is_some() && row.holder == self.holder)
        {
            Some(row) => {
                let free = Row { holder: NOBODY, ..row };
                store
                    .swap_note(&self.key, note.as_deref(), free.to_string().as_bytes())
                    .map(drop)
            }
            None => Ok(()),
        }
    }

    /// Has somebody else's lease been the same for so long that its holder must be gone?
    fn is_silent(&self, row: Row, now: Instant) -> bool {
        let mut state = self.state();
        match state.others {
            _ if row.holder == NOBODY => true,
            Some((seen, since)) if seen == row => now.duration_since(since) >= SILENCE,
            _ => {
                state.others = Some((row, now));
                false
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Row {
    fn taken(before: Option<Self>, holder: u64) -> Self {
        Self {
            token: before.map_or(0, |before| before.token) + 1,
            holder,
            beat: 0,
        }
    }

    fn beaten(self) -> Self {
        Self {
            beat: self.beat + 1,
            ..self
        }
    }

    fn read(note: &[u8]) -> Option<Self> {
        let mut numbers = std::str::from_utf8(note).ok()?.split(' ');
        let mut number = |name: &str| numbers.next()?.strip_prefix(name)?.strip_prefix('=')?.parse().ok();
        Some(Self {
            token: number("token")?,
            holder: number("holder")?,
            beat: number("beat")?,
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token={} holder={} beat={}", self.token, self.holder, self.beat)
    }
}

/// Keeps the lease of a partner, or waits for it, until it is a partner no more.
pub(crate) async fn keep(node: Arc<Node>, partner: Arc<Partner>) {
    if !partner.lease.shared {
        return;
    }
    let mut removed = partner.removed.subscribe();
    loop {
        let (store, other) = (Arc::clone(&node.store), Arc::clone(&partner));
        match blocking(move || other.lease.beat(&*store)).await {
            Ok(true) => {
                let token = partner.lease.token();
                tracing::info!(partner = partner.name(), token, "this server calls from now on");
                let (store, other) = (Arc::clone(&node.store), Arc::clone(&partner));
                blocking(move || other.recall(&*store)).await;
                partner.wake.notify_one();
            }
            Ok(false) => {}
            // Others say that the store is away; without it nobody calls.
            Err(error) => tracing::debug!(partner = partner.name(), %error, "its lease cannot be kept"),
        }
        let token = partner.lease.token().unwrap_or(0) as f64;
        gauge!("keyrink_peer_lease", "partner" => partner.name().to_owned()).set(token);
        tokio::select! {
            () = tokio::time::sleep(BEAT) => {}
            _ = removed.wait_for(|removed| *removed) => return,
        }
    }
}

/// Who holds a lease that was given back.
const NOBODY: u64 = 0;
/// How often the holder shows that it is alive, and others look.
const BEAT: Duration = Duration::from_millis(500);
/// How long after a beat its holder acts.
const HOLDING: Duration = Duration::from_millis(2_000);
/// How long others must have seen no beat.
const SILENCE: Duration = Duration::from_millis(2_500);

#[cfg(test)]
mod tests {
    use super::*;
    use keyrink_store::memory::MemoryStore;

    fn lease() -> Lease {
        Lease {
            shared: true,
            ..Lease::new("partner", &MemoryStore::new())
        }
    }

    #[test]
    fn the_only_server_needs_no_lease() {
        assert_eq!(Lease::new("partner", &MemoryStore::new()).token(), Some(0));
    }

    #[test]
    fn a_lease_that_is_kept_is_taken_by_nobody() {
        let (store, start) = (MemoryStore::new(), Instant::now());
        let (one, other) = (lease(), lease());
        let at = |millis| start + Duration::from_millis(millis);
        assert!(one.beat_at(&store, at(0)).unwrap());
        for step in 1..100 {
            assert!(!one.beat_at(&store, at(step * 500)).unwrap());
            assert!(!other.beat_at(&store, at(step * 500 + 100)).unwrap());
            assert_eq!(
                (one.token_at(at(step * 500 + 200)), other.token_at(at(step * 500))),
                (Some(1), None)
            );
        }
    }

    #[test]
    fn a_lease_whose_holder_is_gone_is_taken_once_and_with_a_new_token() {
        let (store, start) = (MemoryStore::new(), Instant::now());
        let leases = [lease(), lease(), lease()];
        let at = |millis| start + Duration::from_millis(millis);
        assert!(leases[0].beat_at(&store, at(0)).unwrap());
        let mut taken = Vec::new();
        for step in 0..20 {
            for (number, lease) in leases.iter().enumerate().skip(1) {
                if lease.beat_at(&store, at(step * 500 + number as u64)).unwrap() {
                    taken.push((number, step));
                    assert_eq!(leases[0].token_at(at(step * 500)), None, "two at the same time");
                }
            }
        }
        assert_eq!(taken, [(1, 5)]);
        assert_eq!(
            (leases[1].token_at(at(9_600)), leases[2].token_at(at(9_600))),
            (Some(2), None)
        );
        // It was only asleep, and finds that it holds nothing any more.
        assert!(!leases[0].beat_at(&store, at(9_700)).unwrap());
        assert_eq!(leases[0].token_at(at(9_700)), None);
    }

    #[test]
    fn a_lease_that_is_given_back_is_taken_at_once() {
        let (store, now) = (MemoryStore::new(), Instant::now());
        let (one, other) = (lease(), lease());
        one.beat_at(&store, now).unwrap();
        other.release(&store).unwrap();
        assert_eq!(one.token_at(now), Some(1), "it was not the other's to give");
        one.release(&store).unwrap();
        assert!(!one.beat_at(&store, now).unwrap());
        assert!(lease().beat_at(&store, now).unwrap());
        assert_eq!((one.token_at(now), other.token_at(now)), (None, None));
    }

    #[test]
    fn a_holder_that_cannot_reach_the_store_stops_in_time() {
        let (store, start) = (MemoryStore::new(), Instant::now());
        let one = lease();
        one.beat_at(&store, start).unwrap();
        assert_eq!(one.token_at(start + HOLDING), None);
        const { assert!(HOLDING.as_millis() < SILENCE.as_millis()) };
    }

    #[test]
    fn what_is_written_is_read() {
        let row = Row {
            token: 3,
            holder: u64::MAX,
            beat: 0,
        };
        assert_eq!(Row::read(row.to_string().as_bytes()), Some(row));
        assert_eq!(Row::read(b"token=1 holder=x beat=2"), None);
    }
}
