//! Recovery: fetching what a partner has and this node lacks.
//!
//! Each partner has a queue, filled by sessions and worked off by one task: one request at a time, with a pause
//! between two. Batches grow as long as they succeed and shrink when they fail, so that one certificate that makes a
//! peer stumble does not hold up the others. What comes back goes the way of every submission. What does not become
//! what was offered is refused for long, what does not come for minutes: a question that fails says little about what
//! was asked for.

mod queue;

pub(crate) use queue::Queue;

use super::Node;
use super::claims::{CLAIM_LASTS, Claim};
use super::dataset::Kind;
use super::figures;
use super::partner::Partner;
use super::refused;
use super::status::{Doing, Trouble};
use crate::client::hashquery::{DigestState, FetchError, Source};
use crate::ingest::Receipt;
use keyrink_store::StoreError;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

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
    #[error("nothing of what it says it has is in its answer")]
    Nothing,
    #[error("it has no time for what it was asked for")]
    NoTime,
}

/// Works off the queue of a partner until it is none any more.
pub(crate) async fn work(node: Arc<Node>, partner: Arc<Partner>) {
    let mut removed = partner.removed.subscribe();
    loop {
        let work = async {
            partner.queue.filled().await;
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
    match is_worked_off(node, partner).await {
        true => partner.settle_first(node.first_every),
        false => partner.queue.clear(),
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
                    BatchError::NoTime => NO_TIME_PAUSE,
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
    partner.queue.note_request();
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
    // Before the rules say what is forbidden.
    let everybody = refused::everybody(&*node.store)?;
    let mut taking = Taking::new(node, kind);
    let (asked, batch) = partner.queue.question(kind, batch, BATCH_MAX);
    let fetched = node
        .fetcher
        .fetch(source, kind.path, &asked, |certificate| taking.take(certificate));
    let receipt = taking.finish()?;
    let wrong_way = receipt.wrong_way(batch);
    partner.note(|report| {
        report.fetched_octets += fetched.as_ref().map_or(0, |fetched| fetched.octets);
        report.fetched += receipt.certificates;
        report.needless += receipt.needless;
        report.wrong_way += wrong_way;
    });
    figures::count_certificates(partner.name(), kind, &receipt, wrong_way);
    let lacking = node.store.lacking(kind.dataset, batch)?;
    let (forbidden, lacking): (Vec<_>, Vec<_>) = lacking
        .into_iter()
        .partition(|element| receipt.forbidden.contains(element));
    refused::refuse_for_long(&*node.store, &everybody, kind.dataset, &forbidden)?;
    let stays: BTreeSet<&Vec<u8>> = lacking.iter().collect();
    partner
        .queue
        .remove(kind, batch.iter().filter(|element| !stays.contains(element)));
    let judged = match fetched {
        Ok(fetched) => {
            let states = states(kind, &asked, &fetched.states);
            // Peers that do not say so end an answer that gets long, and leave out the rest.
            let is_cut = states.is_empty() && fetched.octets > LONG_OCTETS && asked.len() > 1;
            let answer = Answer {
                states,
                is_cut,
                receipt,
            };
            judge(node, partner, kind, batch, &answer, lacking.clone())
        }
        Err(error) => Err(error.into()),
    };
    let says_nothing = |error: &BatchError| {
        use FetchError::{Busy, Unreachable};
        matches!(
            error,
            BatchError::Store(_) | BatchError::NoTime | BatchError::Fetch(Unreachable(..) | Busy(..))
        )
    };
    if judged.as_ref().is_err_and(|error| !says_nothing(error)) && asked.len() == 1 {
        // It may be at fault, and must not keep others from being asked for with every session.
        refuse(node, partner, kind, FAILED, &lacking)?;
    }
    judged
}

/// What came of a question.
struct Answer<'a> {
    states: BTreeMap<&'a [u8], DigestState>,
    is_cut: bool,
    receipt: Receipt,
}

/// The state of each element that was asked for, and by what has them that of the first: it is true of those that were not.
fn states<'a>(kind: &Kind, asked: &'a [Vec<u8>], told: &[DigestState]) -> BTreeMap<&'a [u8], DigestState> {
    let mut states = BTreeMap::new();
    for (element, state) in asked.iter().zip(told) {
        states.insert(&element[..], *state);
        states.entry(kind.subject(element)).or_insert(*state);
    }
    states
}

/// What is to be done about elements of a batch that are still lacking after an answer.
fn judge(
    node: &Node,
    partner: &Partner,
    kind: &'static Kind,
    batch: &[Vec<u8>],
    answer: &Answer<'_>,
    lacking: Vec<Vec<u8>>,
) -> Result<Came, BatchError> {
    let Answer {
        states,
        is_cut,
        receipt,
    } = answer;
    let state = |element: &Vec<u8>| {
        let own = states.get(&element[..]).or_else(|| states.get(kind.subject(element)));
        own.copied()
    };
    let is_cut = *is_cut && receipt.certificates > 0;
    let told_later = |element: &Vec<u8>| matches!(state(element), Some(DigestState::LeftOut | DigestState::Busy));
    let (later, lacking): (Vec<_>, Vec<_>) = lacking.into_iter().partition(|element| is_cut || told_later(element));
    if later.len() == batch.len() {
        let no_time = later.iter().any(|element| state(element) == Some(DigestState::Busy));
        return Err(if no_time {
            BatchError::NoTime
        } else {
            BatchError::Nothing
        });
    }
    // Included, and yet not here: it was read, and left out by the limits of this node.
    let was_included = |element: &Vec<u8>| states.get(&element[..]) == Some(&DigestState::Included);
    let was_given = |element: &Vec<u8>| {
        receipt.holds(element) || was_included(element) || state(element) == Some(DigestState::Withheld)
    };
    let (given, kept_back): (Vec<_>, Vec<_>) = lacking.into_iter().partition(was_given);
    refuse(node, partner, kind, kind.refused_first, &given)?;
    let may_again = |element: &Vec<u8>| partner.queue.times(kind, element) + 1 < ASK_MAX;
    let (again, never): (Vec<_>, Vec<_>) = kept_back.into_iter().partition(may_again);
    partner.queue.again(kind, &again);
    refuse(node, partner, kind, KEPT_BACK, &never)?;
    Ok(if later.is_empty() && !is_cut {
        Came::All
    } else {
        Came::Some
    })
}

/// Leaves alone, for so long the first time, what came and is not wanted, or did not come.
fn refuse(
    node: &Node,
    partner: &Partner,
    kind: &'static Kind,
    first: Duration,
    refused: &[Vec<u8>],
) -> Result<(), StoreError> {
    if refused.is_empty() {
        return Ok(());
    }
    tracing::info!(
        partner = partner.name(),
        "{} elements that it offers are not asked for for a while: they did not come, or became something else here",
        refused.len()
    );
    let count = refused::refuse(&*node.store, partner.name(), kind.dataset, first, refused)?;
    partner.queue.remove(kind, refused);
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
        match (self.kind.receive)(self.node, self.kind.dataset, &waiting) {
            Ok(receipt) => self.receipt.add(receipt),
            Err(error) => self.error = Some(error),
        }
    }

    fn finish(mut self) -> Result<Receipt, StoreError> {
        self.store();
        self.error.map_or(Ok(self.receipt), Err)
    }
}

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
/// How long a partner is left alone that says of something that it has no time for it.
const NO_TIME_PAUSE: Duration = Duration::from_secs(20);
/// How long something is not asked for the first time that a question for it alone failed.
const FAILED: Duration = Duration::from_secs(60);
/// The same of something that did not come.
const KEPT_BACK: Duration = Duration::from_secs(15 * 60);
/// Octets of certificates that are verified and stored together.
const TAKE_OCTETS: usize = 4 << 20;

#[cfg(test)]
mod tests;
