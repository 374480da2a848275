//! Recovery: fetching what a partner has and this node lacks.
//!
//! Each partner has a queue, filled by sessions and worked off by one task: one request at a time, with a pause
//! between two. Batches grow as long as they succeed and shrink when they fail, so that one certificate that makes a
//! peer stumble does not hold up the others. What comes back goes the way of every submission. What does not come, or
//! does not become what was offered, is refused for a while.

use super::Node;
use super::claims::{CLAIM_LASTS, Claim};
use super::dataset::Kind;
use super::figures;
use super::partner::Partner;
use super::refused;
use super::status::{Doing, Trouble};
use crate::client::hashquery::{DigestState, FetchError, Fetched, Source};
use crate::ingest::Receipt;
use keyrink_store::StoreError;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    /// Each element, behind what has it, with how often that was asked for in vain.
    elements: BTreeMap<(Vec<u8>, Vec<u8>), u32>,
    kind: Option<&'static Kind>,
    /// When the partner was asked last.
    asked: Option<Instant>,
}

/// What to do about a part of the queue.
enum Choice {
    /// Ask for this.
    Ask(Claim),
    /// Others are asking for all of it.
    Wait,
    /// Nothing of it was needed.
    Nothing,
}

/// How much of a batch came.
enum Came {
    /// All that will come.
    All,
    /// As much as fits into one answer, perhaps.
    Some,
}

/// Why a batch failed.
#[derive(Debug, thiserror::Error)]
enum BatchError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Queue {
    /// Adds what a session found. Elements of another dataset make room.
    pub(crate) fn add(&self, kind: &'static Kind, elements: Vec<Vec<u8>>) {
        if elements.is_empty() {
            return;
        }
        let mut waiting = self.waiting();
        if waiting.kind.is_none_or(|known| !std::ptr::eq(known, kind)) {
            waiting.elements.clear();
            waiting.kind = Some(kind);
        }
        for element in elements {
            if waiting.elements.len() >= QUEUE_MAX {
                break;
            }
            waiting.elements.entry(key(kind, &element)).or_insert(0);
        }
        drop(waiting);
        self.filled.notify_one();
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting().elements.len()
    }

    /// Some of them, from the front.
    fn peek(&self, count: usize) -> Option<(&'static Kind, Vec<Vec<u8>>)> {
        let waiting = self.waiting();
        let some: Vec<_> = waiting
            .elements
            .keys()
            .take(count)
            .map(|(_, element)| element.clone())
            .collect();
        Some((waiting.kind?, some)).filter(|(_, some)| !some.is_empty())
    }

    fn remove<'a>(&self, kind: &Kind, elements: impl IntoIterator<Item = &'a Vec<u8>>) {
        let mut waiting = self.waiting();
        for element in elements {
            waiting.elements.remove(&key(kind, element));
        }
    }

    fn again(&self, kind: &Kind, elements: &[Vec<u8>]) {
        let mut waiting = self.waiting();
        for element in elements {
            waiting
                .elements
                .entry(key(kind, element))
                .and_modify(|times| *times += 1);
        }
    }

    /// How often it was asked for in vain.
    fn times(&self, kind: &Kind, element: &[u8]) -> u32 {
        self.waiting().elements.get(&key(kind, element)).copied().unwrap_or(0)
    }

    /// Those of the elements that the partner is asked for: of each certificate one, and each of those that one was asked for
    /// in vain.
    fn question(&self, kind: &Kind, elements: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let of_one = elements.chunk_by(|one, other| kind.subject(one) == kind.subject(other));
        let asked = of_one.flat_map(|elements| {
            let others = elements.iter().skip(1);
            elements
                .first()
                .into_iter()
                .chain(others.filter(|element| self.times(kind, element) > 0))
        });
        asked.cloned().collect()
    }

    fn clear(&self) {
        self.waiting().elements.clear();
    }

    /// Waits until the last request is so long ago, whichever session caused it.
    async fn keep_distance(&self, pause: Duration) {
        let asked = self.waiting().asked;
        if let Some(asked) = asked {
            tokio::time::sleep_until(asked + pause).await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(kind: &Kind, element: &[u8]) -> (Vec<u8>, Vec<u8>) {
    (kind.subject(element).to_vec(), element.to_vec())
}

/// Works off the queue of a partner until it is none any more.
pub(crate) async fn work(node: Arc<Node>, partner: Arc<Partner>) {
    let mut removed = partner.removed.subscribe();
    loop {
        let work = async {
            partner.queue.filled.notified().await;
            drain(&node, &partner).await;
        };
        tokio::select! {
            () = work => {}
            // What was asked for already still comes in.
            _ = removed.wait_for(|removed| *removed) => return partner.queue.clear(),
        }
    }
}

/// Works off the queue of a partner until it is empty or nothing comes; the rest waits for the next session.
pub(crate) async fn drain(node: &Arc<Node>, partner: &Arc<Partner>) {
    if !is_worked_off(node, partner).await {
        partner.queue.clear();
    }
    partner.enter(Doing::Waiting);
}

async fn is_worked_off(node: &Arc<Node>, partner: &Arc<Partner>) -> bool {
    let mut size = BATCH_FIRST;
    let mut failures = 0;
    while let Some((kind, some)) = partner.queue.peek(LOOK_AT) {
        let Some((source, pause)) = partner.source(kind) else {
            return false;
        };
        // Before something is claimed, or others would wait too.
        partner.queue.keep_distance(pause).await;
        let freed = node.claims.listen();
        let claim = match choose(node, partner, kind, some, size).await {
            Ok(Choice::Ask(claim)) => claim,
            Ok(Choice::Nothing) => continue,
            Ok(Choice::Wait) => {
                let _ = tokio::time::timeout(CLAIM_LASTS, freed).await;
                continue;
            }
            Err(error) => {
                partner.complain(Trouble::Fetch, &error.to_string());
                return false;
            }
        };
        match fetch(node, partner, kind, source, claim).await {
            Ok(came) => {
                failures = 0;
                partner.note(|report| report.fetch_failures = 0);
                size = match came {
                    Came::All => (size * 2).min(BATCH_MAX),
                    Came::Some => (size / 2).max(1),
                };
            }
            Err(error) => {
                failures += 1;
                partner.complain(Trouble::Fetch, &error.to_string());
                if failures >= FAILURES_MAX {
                    partner.note(|report| report.fetch_failures = report.fetch_failures.saturating_add(1));
                    return false;
                }
                let pause = match error {
                    // It is not what was asked for that it minds.
                    BatchError::Fetch(FetchError::Busy(_, pause)) => pause,
                    _ => {
                        size = (size / 2).max(1);
                        AFTER_FAILURE
                    }
                };
                tokio::time::sleep(pause).await;
            }
        }
    }
    true
}

/// Claims those of the elements that are worth asking for now, at most `size`; what is not needed leaves the queue.
async fn choose(
    node: &Arc<Node>,
    partner: &Arc<Partner>,
    kind: &'static Kind,
    elements: Vec<Vec<u8>>,
    size: usize,
) -> Result<Choice, StoreError> {
    let (node, partner) = (Arc::clone(node), Arc::clone(partner));
    crate::http::handoff::blocking(move || {
        let lacking = node.store.lacking(kind.dataset, &elements)?;
        let mut wanted = refused::wanted(&*node.store, partner.name(), kind.dataset, lacking)?;
        let gone = elements.iter().filter(|element| wanted.binary_search(element).is_err());
        partner.queue.remove(kind, gone);
        wanted.sort_by(|one, other| kind.subject(one).cmp(kind.subject(other)).then(one.cmp(other)));
        if wanted.is_empty() {
            return Ok(Choice::Nothing);
        }
        Ok(node.claims.take(kind, wanted, size).map_or(Choice::Wait, Choice::Ask))
    })
    .await
}

/// Asks for a batch and stores what comes.
async fn fetch(
    node: &Arc<Node>,
    partner: &Arc<Partner>,
    kind: &'static Kind,
    source: Source,
    claim: Claim,
) -> Result<Came, BatchError> {
    partner.queue.waiting().asked = Some(Instant::now());
    partner.enter(Doing::Fetching);
    partner.note(|report| report.requests += 1);
    metrics::counter!("keyrink_peer_requests_total", "partner" => partner.name().to_owned()).increment(1);
    let (node, partner) = (Arc::clone(node), Arc::clone(partner));
    crate::http::handoff::blocking(move || fetch_blocking(&node, &partner, kind, &source, claim.elements())).await
}

fn fetch_blocking(
    node: &Node,
    partner: &Partner,
    kind: &'static Kind,
    source: &Source,
    batch: &[Vec<u8>],
) -> Result<Came, BatchError> {
    let mut taking = Taking::new(node, kind);
    let asked = partner.queue.question(kind, batch);
    let fetched = node
        .fetcher
        .fetch(source, &asked, |certificate| taking.take(certificate));
    let receipt = taking.finish()?;
    partner.note(|report| {
        report.fetched_octets += fetched.as_ref().map_or(0, |fetched| fetched.octets);
        report.fetched += receipt.certificates;
        report.needless += receipt.needless;
    });
    figures::count_certificates(partner.name(), kind, receipt.certificates, receipt.needless);
    let lacking = node.store.lacking(kind.dataset, batch)?;
    let stays: BTreeSet<&Vec<u8>> = lacking.iter().collect();
    partner
        .queue
        .remove(kind, batch.iter().filter(|element| !stays.contains(element)));
    match fetched {
        Ok(fetched) => judge(node, partner, kind, (&asked, &fetched), &receipt, lacking),
        // It failed before in the company of others, and must not keep those from being asked for with every session.
        Err(error) => {
            if asked.len() == 1 && !matches!(error, FetchError::Unreachable(..) | FetchError::Busy(..)) {
                refuse(node, partner, kind, lacking, Vec::new())?;
            }
            Err(error.into())
        }
    }
}

/// What is to be done about elements that are still lacking after an answer.
fn judge(
    node: &Node,
    partner: &Partner,
    kind: &'static Kind,
    (asked, fetched): (&[Vec<u8>], &Fetched),
    receipt: &Receipt,
    lacking: Vec<Vec<u8>>,
) -> Result<Came, BatchError> {
    let states: BTreeMap<&[u8], DigestState> = asked
        .iter()
        .map(|element| kind.subject(element))
        .zip(fetched.states.iter().copied())
        .collect();
    let state = |element: &Vec<u8>| states.get(kind.subject(element)).copied();
    let told_later = |element: &Vec<u8>| matches!(state(element), Some(DigestState::LeftOut | DigestState::Busy));
    // Peers that do not say so end an answer that gets long, and leave out the rest.
    let is_cut = states.is_empty() && fetched.octets > LONG_OCTETS && asked.len() > 1;
    let (later, lacking): (Vec<_>, Vec<_>) = lacking
        .into_iter()
        .partition(|element| receipt.certificates > 0 && (is_cut || told_later(element)));
    let (forbidden, lacking): (Vec<_>, Vec<_>) = lacking
        .into_iter()
        .partition(|element| receipt.forbidden.contains(element));
    refused::refuse_from_everybody(&*node.store, kind.dataset, &forbidden)?;
    partner.queue.remove(kind, &forbidden);
    let (given, kept_back) = lacking
        .into_iter()
        .partition(|element| receipt.elements.contains(element) || state(element) == Some(DigestState::Withheld));
    refuse(node, partner, kind, given, kept_back)?;
    Ok(if later.is_empty() && !is_cut {
        Came::All
    } else {
        Came::Some
    })
}

/// Notes what came and is not wanted, and what did not come. The latter gets a second chance.
fn refuse(
    node: &Node,
    partner: &Partner,
    kind: &'static Kind,
    given: Vec<Vec<u8>>,
    kept_back: Vec<Vec<u8>>,
) -> Result<(), StoreError> {
    let may_again = |element: &Vec<u8>| partner.queue.times(kind, element) + 1 < ASK_MAX;
    let (again, never): (Vec<_>, Vec<_>) = kept_back.into_iter().partition(may_again);
    partner.queue.again(kind, &again);
    let refused = [given, never].concat();
    if refused.is_empty() {
        return Ok(());
    }
    tracing::info!(
        partner = partner.name(),
        "{} elements that it offers are not asked for for a while: they did not come, or became something else here",
        refused.len()
    );
    let count = refused::refuse(&*node.store, partner.name(), kind.dataset, kind.refused_first, &refused)?;
    partner.queue.remove(kind, &refused);
    partner.note(|report| report.refused = count);
    Ok(())
}

/// Certificates on their way into the store, some at a time.
struct Taking<'a> {
    node: &'a Node,
    kind: &'static Kind,
    waiting: Vec<Vec<u8>>,
    octets: usize,
    receipt: Receipt,
    error: Option<StoreError>,
}

impl<'a> Taking<'a> {
    fn new(node: &'a Node, kind: &'static Kind) -> Self {
        Self {
            node,
            kind,
            waiting: Vec::new(),
            octets: 0,
            receipt: Receipt::default(),
            error: None,
        }
    }

    fn take(&mut self, certificate: Vec<u8>) {
        self.octets += certificate.len();
        self.waiting.push(certificate);
        if self.octets >= TAKE_OCTETS {
            self.store();
        }
    }

    fn store(&mut self) {
        self.octets = 0;
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() || self.error.is_some() {
            return;
        }
        match self.node.ingest.receive(self.kind.dataset, &waiting) {
            Ok(receipt) => self.receipt.add(receipt),
            Err(error) => self.error = Some(error),
        }
    }

    fn finish(mut self) -> Result<Receipt, StoreError> {
        self.store();
        self.error.map_or(Ok(self.receipt), Err)
    }
}

/// As many elements as one session finds.
const QUEUE_MAX: usize = 250_000;
const BATCH_FIRST: usize = 10;
const BATCH_MAX: usize = 100;
/// How much of a queue is looked at to find a batch.
const LOOK_AT: usize = 1000;
/// How often something is asked for that does not come.
const ASK_MAX: u32 = 2;
/// After so many failures in a row the rest waits for the next session.
const FAILURES_MAX: u32 = 6;
/// An answer of so many octets may have been cut: this program ends one at 64 MB, others at more.
const LONG_OCTETS: u64 = 32 << 20;
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Octets of certificates that are verified and stored together.
const TAKE_OCTETS: usize = 4 << 20;

#[cfg(test)]
mod tests;
