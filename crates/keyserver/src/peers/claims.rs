//! Elements that are being fetched, so that no two partners are asked for the same at the same time. What is claimed is what
//! has the elements: of the second generation a certificate, whichever of its elements a partner offers.
//!
//! A claim ends when its owner is done, however that comes about, and after some seconds in any case: a partner that
//! stalls must not keep others from delivering.

use super::dataset::Kind;
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
    subjects: BTreeMap<Vec<u8>, (u64, Instant)>,
    last: u64,
}

/// Elements that somebody may ask for now.
pub(super) struct Claim {
    claims: Arc<Claims>,
    number: u64,
    kind: &'static Kind,
    elements: Vec<Vec<u8>>,
}

impl Claims {
    /// Claims those of `wanted` that nobody claims yet, of at most `count` subjects; `None` if that is none. Elements of one
    /// subject follow one another in `wanted`.
    pub(super) fn take(self: &Arc<Self>, kind: &'static Kind, wanted: Vec<Vec<u8>>, count: usize) -> Option<Claim> {
        self.take_at(Instant::now(), kind, wanted, count)
    }

    fn take_at(
        self: &Arc<Self>,
        now: Instant,
        kind: &'static Kind,
        wanted: Vec<Vec<u8>>,
        count: usize,
    ) -> Option<Claim> {
        let mut held = self.held();
        let free = |element: &Vec<u8>| {
            let claimed = held.subjects.get(kind.subject(element));
            claimed.is_none_or(|(_, until)| *until <= now)
        };
        let (mut elements, mut subjects) = (Vec::new(), Vec::<Vec<u8>>::new());
        for element in wanted.into_iter().filter(free) {
            let subject = kind.subject(&element);
            if subjects.last().is_none_or(|last| last != subject) {
                if subjects.len() == count {
                    break;
                }
                subjects.push(subject.to_vec());
            }
            elements.push(element);
        }
        if elements.is_empty() {
            return None;
        }
        held.last += 1;
        let number = held.last;
        let claimed = subjects
            .into_iter()
            .map(|subject| (subject, (number, now + CLAIM_LASTS)));
        held.subjects.extend(claimed);
        Some(Claim {
            claims: Arc::clone(self),
            number,
            kind,
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
            let subject = self.kind.subject(element);
            if held
                .subjects
                .get(subject)
                .is_some_and(|(number, _)| *number == self.number)
            {
                held.subjects.remove(subject);
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
    use crate::peers::dataset::{SECOND, SKS};

    fn all() -> Vec<Vec<u8>> {
        (0..3).map(|octet| vec![octet]).collect()
    }

    #[test]
    fn claims_end_with_their_owner_or_in_time() {
        let (claims, now) = (Arc::new(Claims::default()), Instant::now());
        let first = claims.take_at(now, &SKS, all(), 2).unwrap();
        let second = claims.take_at(now, &SKS, all(), 2).unwrap();
        assert_eq!((first.elements().len(), second.elements()), (2, &all()[2..]));
        assert!(claims.take_at(now, &SKS, all(), 2).is_none());
        drop(second);
        let late = now + CLAIM_LASTS;
        let third = claims.take_at(late, &SKS, all(), 9).unwrap();
        assert_eq!(third.elements().len(), 3);
        drop(first);
        assert!(
            claims.take_at(late, &SKS, all(), 9).is_none(),
            "it gives back only its own"
        );
    }

    #[test]
    fn a_certificate_is_claimed_by_any_of_its_elements() {
        let (claims, now) = (Arc::new(Claims::default()), Instant::now());
        let element = |digest: u8, subject: u8| [[digest; 16], [subject; 16]].concat();
        let wanted = vec![element(1, 1), element(2, 1), element(1, 2), element(1, 3)];
        let first = claims.take_at(now, &SECOND, wanted.clone(), 2).unwrap();
        assert_eq!(first.elements(), &wanted[..3]);
        let others = vec![element(9, 1), element(9, 2), element(9, 3)];
        let second = claims.take_at(now, &SECOND, others.clone(), 9).unwrap();
        assert_eq!(second.elements(), &others[2..]);
        drop(first);
        assert_eq!(claims.take_at(now, &SECOND, others, 9).unwrap().elements().len(), 2);
    }

    #[tokio::test]
    async fn who_waits_is_told_of_a_panic_too() {
        let claims = Arc::new(Claims::default());
        let claim = claims.take(&SKS, all(), 9);
        let freed = claims.listen();
        let failed = std::thread::spawn(move || {
            let _claim = claim;
            panic!("a bug");
        });
        assert!(failed.join().is_err());
        tokio::time::timeout(Duration::from_secs(5), freed).await.unwrap();
        assert!(claims.take(&SKS, all(), 9).is_some());
    }
}
