//! Elements that are being fetched, so that no two partners are asked for the same at the same time.
//!
//! A claim ends when its owner is done, however that comes about, and after some seconds in any case: a partner that
//! stalls must not keep others from delivering.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// All elements that are claimed.
#[derive(Default)]
pub(crate) struct Claims {
    held: Mutex<Held>,
    freed: Notify,
}

#[derive(Default)]
struct Held {
    /// Each with the number of its claim and the time when that ends.
    elements: BTreeMap<Vec<u8>, (u64, Instant)>,
    last: u64,
}

/// Elements that somebody may ask for now.
pub(super) struct Claim {
    claims: Arc<Claims>,
    number: u64,
    elements: Vec<Vec<u8>>,
}

impl Claims {
    /// Claims those of `wanted` that nobody claims yet, at most `count`; `None` if that is none.
    pub(super) fn take(self: &Arc<Self>, wanted: Vec<Vec<u8>>, count: usize) -> Option<Claim> {
        self.take_at(Instant::now(), wanted, count)
    }

    fn take_at(self: &Arc<Self>, now: Instant, wanted: Vec<Vec<u8>>, count: usize) -> Option<Claim> {
        let mut held = self.held();
        let free = |element: &Vec<u8>| held.elements.get(element).is_none_or(|(_, until)| *until <= now);
        let elements: Vec<_> = wanted.into_iter().filter(free).take(count).collect();
        if elements.is_empty() {
            return None;
        }
        held.last += 1;
        let number = held.last;
        let claimed = elements
            .iter()
            .map(|element| (element.clone(), (number, now + CLAIM_LASTS)));
        held.elements.extend(claimed);
        Some(Claim {
            claims: Arc::clone(self),
            number,
            elements,
        })
    }

    /// Starts to listen for claims that end.
    pub(super) fn listen(&self) -> Pin<Box<Notified<'_>>> {
        let mut freed = Box::pin(self.freed.notified());
        freed.as_mut().enable();
        freed
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// What was claimed.
    pub(super) fn elements(&self) -> &[Vec<u8>] {
        &self.elements
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut held = self.claims.held();
        for element in &self.elements {
            // It may have ended before, and be somebody else's now.
            if held
                .elements
                .get(element)
                .is_some_and(|(number, _)| *number == self.number)
            {
                held.elements.remove(element);
            }
        }
        drop(held);
        self.claims.freed.notify_waiters();
    }
}

/// After so long others may ask for the same. An answer usually takes less than a second.
pub(super) const CLAIM_LASTS: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Vec<u8>> {
        (0..3).map(|octet| vec![octet]).collect()
    }

    #[test]
    fn claims_end_with_their_owner_or_in_time() {
        let (claims, now) = (Arc::new(Claims::default()), Instant::now());
        let first = claims.take_at(now, all(), 2).unwrap();
        let second = claims.take_at(now, all(), 2).unwrap();
        assert_eq!((first.elements().len(), second.elements()), (2, &all()[2..]));
        assert!(claims.take_at(now, all(), 2).is_none());
        drop(second);
        let late = now + CLAIM_LASTS;
        let third = claims.take_at(late, all(), 9).unwrap();
        assert_eq!(third.elements().len(), 3);
        drop(first);
        assert!(claims.take_at(late, all(), 9).is_none(), "it gives back only its own");
    }

    #[tokio::test]
    async fn who_waits_is_told_of_a_panic_too() {
        let claims = Arc::new(Claims::default());
        let claim = claims.take(all(), 9);
        let freed = claims.listen();
        let failed = std::thread::spawn(move || {
            let _claim = claim;
            panic!("a bug");
        });
        assert!(failed.join().is_err());
        tokio::time::timeout(Duration::from_secs(5), freed).await.unwrap();
        assert!(claims.take(all(), 9).is_some());
    }
}
