//! Recovery: fetching what a partner has and this node lacks.
//!
//! Each partner has a queue, filled by sessions and worked off by one task: one request at a time, with a pause
//! between two. Batches grow as long as they succeed and shrink when they fail, so that one certificate that makes a
//! peer stumble does not hold up the others. What comes back goes the way of every submission. What does not come, or
//! does not become what was offered, is refused for a while.

use super::Node;
use super::dataset::Kind;
use super::partner::Partner;
use super::refused;
use crate::client::hashquery::{FetchError, Source};
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
    /// Each element with how often it was asked for in vain.
    elements: BTreeMap<Vec<u8>, u32>,
    kind: Option<&'static Kind>,
    /// When the partner was asked last.
    asked: Option<Instant>,
}

/// Elements that are being fetched, so that no two partners are asked for the same at the same time.
#[derive(Default)]
pub(crate) struct Claims(Mutex<BTreeSet<Vec<u8>>>);

/// How a batch went.
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
            waiting.elements.entry(element).or_insert(0);
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
        let some: Vec<_> = waiting.elements.keys().take(count).cloned().collect();
        Some((waiting.kind?, some)).filter(|(_, some)| !some.is_empty())
    }

    fn remove<'a>(&self, elements: impl IntoIterator<Item = &'a Vec<u8>>) {
        let mut waiting = self.waiting();
        for element in elements {
            waiting.elements.remove(element);
        }
    }

    fn again(&self, elements: &[Vec<u8>]) {
        let mut waiting = self.waiting();
        for element in elements {
            waiting.elements.entry(element.clone()).and_modify(|times| *times += 1);
        }
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
        self.waiting().asked = Some(Instant::now());
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Works off the queue of a partner until it is none any more.
pub(crate) async fn work(node: Arc<Node>, partner: Arc<Partner>) {
    let mut removed = partner.removed.subscribe();
    loop {
        let filled = tokio::select! {
            () = partner.queue.filled.notified() => true,
            _ = removed.wait_for(|removed| *removed) => false,
        };
        if !filled {
            return;
        }
        drain(&node, &partner).await;
    }
}

/// Works off the queue of a partner until it is empty.
pub(crate) async fn drain(node: &Arc<Node>, partner: &Arc<Partner>) {
    let mut size = BATCH_FIRST;
    let mut failures = 0;
    while let Some((kind, some)) = partner.queue.peek(LOOK_AT) {
        let Some((source, pause)) = partner.source(kind) else {
            break;
        };
        let chosen = choose(node, partner, kind, some, size).await;
        let batch = match chosen {
            Ok(batch) if batch.is_empty() => {
                // Others are fetching all of it, or it was not needed: look again in a moment.
                tokio::time::sleep(CLAIMED).await;
                continue;
            }
            Ok(batch) => batch,
            Err(error) => {
                partner.complain(&error.to_string());
                break;
            }
        };
        partner.queue.keep_distance(pause).await;
        match fetch(node, partner, kind, source, batch).await {
            Ok(()) => {
                failures = 0;
                partner.note(|report| report.fetch_failures = 0);
                size = (size * 2).min(BATCH_MAX);
            }
            Err(error) => {
                failures += 1;
                partner.complain(&error.to_string());
                if failures >= FAILURES_MAX {
                    partner.note(|report| report.fetch_failures = report.fetch_failures.saturating_add(1));
                    break;
                }
                size = (size / 2).max(1);
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
    partner.queue.clear();
    partner.note(|report| report.state = "waiting".to_owned());
}

/// Those of the elements that are worth asking for now, at most `size`; the others leave the queue, unless somebody
/// else is asked for them at this moment.
async fn choose(
    node: &Arc<Node>,
    partner: &Arc<Partner>,
    kind: &'static Kind,
    elements: Vec<Vec<u8>>,
    size: usize,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let (node, partner) = (Arc::clone(node), Arc::clone(partner));
    crate::http::handoff::blocking(move || {
        let lacking = node.store.lacking(kind.dataset, &elements)?;
        let wanted = refused::wanted(&*node.store, partner.name(), kind.dataset, lacking)?;
        partner
            .queue
            .remove(elements.iter().filter(|element| wanted.binary_search(element).is_err()));
        Ok(node.claims.take(wanted, size))
    })
    .await
}

/// Asks for a batch and stores what comes.
async fn fetch(
    node: &Arc<Node>,
    partner: &Arc<Partner>,
    kind: &'static Kind,
    source: Source,
    batch: Vec<Vec<u8>>,
) -> Result<(), BatchError> {
    partner.note(|report| {
        report.state = "fetching".to_owned();
        report.requests += 1;
    });
    metrics::counter!("keyrink_peer_requests_total", "partner" => partner.name().to_owned()).increment(1);
    let (node, partner) = (Arc::clone(node), Arc::clone(partner));
    crate::http::handoff::blocking(move || {
        let result = fetch_blocking(&node, &partner, kind, &source, &batch);
        node.claims.give_back(&batch);
        result
    })
    .await
}

fn fetch_blocking(
    node: &Node,
    partner: &Partner,
    kind: &'static Kind,
    source: &Source,
    batch: &[Vec<u8>],
) -> Result<(), BatchError> {
    let mut taking = Taking::new(node, kind);
    let octets = node
        .fetcher
        .fetch(source, batch, |certificate| taking.take(certificate));
    let receipt = taking.finish()?;
    if let Ok(octets) = &octets {
        partner.note(|report| report.fetched_octets += octets);
    }
    partner.note(|report| report.fetched += receipt.certificates);
    metrics::counter!("keyrink_peer_certificates_total", "partner" => partner.name().to_owned())
        .increment(receipt.certificates);
    let lacking = node.store.lacking(kind.dataset, batch)?;
    partner
        .queue
        .remove(batch.iter().filter(|element| lacking.binary_search(element).is_err()));
    match octets {
        Ok(_) => {
            let (given, kept_back): (Vec<_>, Vec<_>) = lacking
                .into_iter()
                .partition(|element| receipt.elements.contains(element));
            refuse(node, partner, kind, given, kept_back)?;
            Ok(())
        }
        // A certificate on its own that fails again and again must not come back with every session.
        Err(error) => {
            if batch.len() == 1 && !matches!(error, FetchError::Unreachable(..)) {
                refuse(node, partner, kind, Vec::new(), lacking)?;
            }
            Err(error.into())
        }
    }
}

/// Notes what came and is not wanted, and what did not come. The latter gets a second chance.
fn refuse(
    node: &Node,
    partner: &Partner,
    kind: &'static Kind,
    given: Vec<Vec<u8>>,
    kept_back: Vec<Vec<u8>>,
) -> Result<(), StoreError> {
    let times = |element: &Vec<u8>| partner.queue.waiting().elements.get(element).copied().unwrap_or(0);
    let (again, never): (Vec<_>, Vec<_>) = kept_back.into_iter().partition(|element| times(element) + 1 < ASK_MAX);
    partner.queue.again(&again);
    let refused = [given, never].concat();
    if refused.is_empty() {
        return Ok(());
    }
    tracing::info!(
        partner = partner.name(),
        "{} certificates that it offers are not asked for for a while: they did not come, or became something else here",
        refused.len()
    );
    let count = refused::refuse(&*node.store, partner.name(), kind.dataset, &refused)?;
    partner.queue.remove(&refused);
    partner.note(|report| report.refused = count);
    if count > REFUSED_MAX {
        partner.bar(TOO_MUCH_IN_VAIN);
        partner.complain(TOO_MUCH_IN_VAIN);
        partner.queue.clear();
    }
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

impl Claims {
    fn take(&self, wanted: Vec<Vec<u8>>, count: usize) -> Vec<Vec<u8>> {
        let mut claimed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let free = wanted.into_iter().filter(|element| !claimed.contains(element));
        let taken: Vec<_> = free.take(count).collect();
        claimed.extend(taken.iter().cloned());
        taken
    }

    fn give_back(&self, elements: &[Vec<u8>]) {
        let mut claimed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for element in elements {
            claimed.remove(element);
        }
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
/// More than that is not remembered for one partner: there is no sense in talking to it.
const REFUSED_MAX: u64 = 100_000;
const TOO_MUCH_IN_VAIN: &str = "too many elements that do not become certificates here";
const AFTER_FAILURE: Duration = Duration::from_secs(1);
const CLAIMED: Duration = Duration::from_millis(50);
/// Octets of certificates that are verified and stored together.
const TAKE_OCTETS: usize = 4 << 20;

#[cfg(test)]
mod tests;
