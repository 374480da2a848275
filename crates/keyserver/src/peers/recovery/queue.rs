//! What is to be fetched from one partner.
//!
//! Each dataset has a place of its own, so that what a rare session found is not lost when another one comes in between.
//! Of the second generation there is little at a time, and somebody waits for it: it goes first.

use super::super::dataset::Kind;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What is to be fetched from a partner.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    portions: Vec<Portion>,
    /// When the partner was asked last.
    asked: Option<Instant>,
}

/// What waits of one dataset.
struct Portion {
    kind: &'static Kind,
    /// Each element, behind what has it, with how often that was asked for in vain.
    elements: BTreeMap<(Vec<u8>, Vec<u8>), u32>,
    /// The last session went to its end, and all that it found is or was here.
    is_whole: bool,
}

impl Queue {
    /// Adds what a session found, which went to its end or did not.
    pub(crate) fn add(&self, kind: &'static Kind, elements: Vec<Vec<u8>>, is_whole: bool) {
        let mut waiting = self.waiting();
        let portion = waiting.portion(kind);
        portion.is_whole = is_whole;
        let is_filled = !elements.is_empty();
        for element in elements {
            if portion.elements.len() >= QUEUE_MAX {
                portion.is_whole = false;
                break;
            }
            portion.elements.entry(key(kind, &element)).or_insert(0);
        }
        drop(waiting);
        if is_filled {
            self.filled.notify_one();
        }
    }

    /// Waits until something is added.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting()
            .portions
            .iter()
            .map(|portion| portion.elements.len())
            .sum()
    }

    /// Did a whole session of the first generation find nothing that still waits? Says so once.
    pub(crate) fn take_first_done(&self) -> bool {
        let mut waiting = self.waiting();
        let is_done =
            |portion: &&mut Portion| portion.is_whole && portion.kind.is_first() && portion.elements.is_empty();
        let done = waiting.portions.iter_mut().filter(is_done);
        done.map(|portion| portion.is_whole = false).count() > 0
    }

    /// Some of one dataset, from the front.
    pub(super) fn peek(&self, count: usize) -> Option<(&'static Kind, Vec<Vec<u8>>)> {
        let waiting = self.waiting();
        let filled = waiting.portions.iter().filter(|portion| !portion.elements.is_empty());
        let portion = filled.min_by_key(|portion| portion.kind.is_first())?;
        let elements = portion.elements.keys().take(count);
        Some((portion.kind, elements.map(|(_, element)| element.clone()).collect()))
    }

    pub(super) fn remove<'a>(&self, kind: &'static Kind, elements: impl IntoIterator<Item = &'a Vec<u8>>) {
        let mut waiting = self.waiting();
        let portion = waiting.portion(kind);
        for element in elements {
            portion.elements.remove(&key(kind, element));
        }
    }

    /// Notes that these were asked for in vain.
    pub(super) fn again(&self, kind: &'static Kind, elements: &[Vec<u8>]) {
        let mut waiting = self.waiting();
        let portion = waiting.portion(kind);
        for element in elements {
            let times = portion.elements.entry(key(kind, element));
            times.and_modify(|times| *times += 1);
        }
    }

    /// How often it was asked for in vain.
    pub(super) fn times(&self, kind: &'static Kind, element: &[u8]) -> u32 {
        let mut waiting = self.waiting();
        let times = waiting.portion(kind).elements.get(&key(kind, element));
        times.copied().unwrap_or(0)
    }

    /// Those of the elements that the partner is asked for, at most so many: of each certificate one, and each of those that one
    /// was asked for in vain. With them the elements that the question is about.
    pub(super) fn question<'a>(
        &self,
        kind: &'static Kind,
        elements: &'a [Vec<u8>],
        most: usize,
    ) -> (Vec<Vec<u8>>, &'a [Vec<u8>]) {
        let (mut asked, mut subject) = (Vec::new(), None);
        for (at, element) in elements.iter().enumerate() {
            let is_another = subject.replace(kind.subject(element)) != Some(kind.subject(element));
            if !is_another && self.times(kind, element) == 0 {
                continue;
            }
            if asked.len() == most {
                return (asked, &elements[..at]);
            }
            asked.push(element.clone());
        }
        (asked, elements)
    }

    pub(super) fn clear(&self) {
        self.waiting().portions.clear();
    }

    /// Notes that the partner is asked now.
    pub(super) fn note_request(&self) {
        self.waiting().asked = Some(Instant::now());
    }

    /// Waits until the last request is so long ago, whichever session caused it.
    pub(super) async fn keep_distance(&self, pause: Duration) {
        let asked = self.waiting().asked;
        if let Some(asked) = asked {
            tokio::time::sleep_until(asked + pause).await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn portion(&mut self, kind: &'static Kind) -> &mut Portion {
        let known = self
            .portions
            .iter()
            .position(|portion| std::ptr::eq(portion.kind, kind));
        let at = known.unwrap_or_else(|| {
            self.portions.push(Portion {
                kind,
                elements: BTreeMap::new(),
                is_whole: false,
            });
            self.portions.len() - 1
        });
        &mut self.portions[at]
    }
}

fn key(kind: &Kind, element: &[u8]) -> (Vec<u8>, Vec<u8>) {
    (kind.subject(element).to_vec(), element.to_vec())
}

/// Elements of one dataset: as many as one session finds.
const QUEUE_MAX: usize = 250_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::dataset::{SECOND, SKS};

    #[test]
    fn what_another_generation_found_stays_and_comes_later() {
        let queue = Queue::default();
        queue.add(&SKS, vec![vec![1; 16], vec![2; 16]], true);
        queue.add(&SECOND, vec![vec![3; 32]], true);
        assert_eq!(queue.len(), 3);
        let (kind, elements) = queue.peek(9).unwrap();
        assert_eq!((kind.name, &elements), (SECOND.name, &vec![vec![3; 32]]));
        queue.remove(kind, &elements);
        let (kind, elements) = queue.peek(9).unwrap();
        assert_eq!((kind.name, elements.len()), (SKS.name, 2));
        assert!(!queue.take_first_done());
        queue.remove(kind, &elements);
        assert_eq!([queue.take_first_done(), queue.take_first_done()], [true, false]);
    }

    #[test]
    fn a_question_has_an_end() {
        let queue = Queue::default();
        let elements: Vec<Vec<u8>> = (0..9).map(|octet| [[octet; 16], [octet / 3; 16]].concat()).collect();
        queue.add(&SECOND, elements.clone(), true);
        let (asked, about) = queue.question(&SECOND, &elements, 4);
        assert_eq!((asked.len(), about.len()), (3, 9));
        queue.again(&SECOND, &elements[1..6]);
        let (asked, about) = queue.question(&SECOND, &elements, 4);
        assert_eq!((&asked[..], about), (&elements[..4], &elements[..4]));
    }
}
