//! Deriving anew: terms, elements and stored form follow the [`Policy`], also of records that an earlier one made.
//!
//! The verdicts are stored, so this takes no cryptography (but for records whose verifier knew less). A note in the store
//! says for which policy it is done and how far, so it goes on where it was interrupted, and nothing is read if there
//! is nothing to do. A server does it in the background, slowly; `keyrink rebuild` does it at once.
//!
//! Which of too many signatures users get depends on whose keys are known, and a key may come after what it signed. So a
//! server goes through all records once a week, and looks at those again that hold more than users get.

use crate::acquaint::{Acquaintance, may_be_crowded};
use crate::formats::{OPENPGP, Policy, hexadecimal, octets};
use crate::lifecycle::{self, Decide, Rules};
use keyrink_store::{Decision, Record, RecordId, Store, StoreError, Stored};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Work on the records that another policy made.
pub(crate) struct Deriving<'a> {
    store: &'a dyn Store,
    policy: Policy,
    state: State,
    rules: Rules,
}

/// What the note says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// The policy that it is about.
    policy: u32,
    /// The policy whose datasets hold all records already.
    complete: u32,
    /// Records up to this id, in hexadecimal, are done.
    after: Option<String>,
    /// All are.
    done: bool,
    /// When they were, in seconds since 1970.
    #[serde(default)]
    at: u64,
}

impl<'a> Deriving<'a> {
    /// Finds out what there is to do. Another policy than last time begins anew.
    pub(crate) fn begin(store: &'a dyn Store, policy: Policy) -> Result<Self, StoreError> {
        let noted = store.note(NOTE)?;
        let noted: Option<State> = noted.and_then(|octets| serde_json::from_slice(&octets).ok());
        let state = match noted {
            Some(state) if state.policy == policy.number() && !state.is_stale() => state,
            Some(state) => State::new(policy, state.complete),
            None if store.count(OPENPGP)? == 0 => State {
                done: true,
                at: now(),
                ..State::new(policy, policy.number())
            },
            None => State::new(policy, Policy::FIRST),
        };
        Ok(Self {
            store,
            policy,
            state,
            rules: Rules::default(),
        })
    }

    /// Tells everybody by which policy is written from now on.
    pub(crate) fn announce(&self) -> Result<(), StoreError> {
        let (key, value) = self.note();
        if self.store.note(&key)? == value {
            return Ok(());
        }
        crate::peers::partner::save_note(self.store, key, value)
    }

    /// Has it looked at soon which issuers are known, because many came.
    pub(crate) fn look_again(&mut self) -> Result<(), StoreError> {
        self.state.at = 0;
        self.announce()
    }

    /// Does it all again, whatever was done.
    pub(crate) fn restart(&mut self) -> Result<(), StoreError> {
        self.state = State::new(self.policy, self.state.complete);
        self.announce()
    }

    /// Nothing is left to do.
    pub(crate) fn is_done(&self) -> bool {
        self.state.done
    }

    /// What every record is derived by: its datasets can be reconciled.
    pub(crate) fn complete(&self) -> Policy {
        let complete = if self.state.done {
            self.state.policy
        } else {
            self.state.complete
        };
        self.policy.common(self.policy.of_record(complete))
    }

    /// Derives some records anew, those that this policy made already only if `all`. Gives how many it has looked at.
    pub(crate) fn step(&mut self, all: bool) -> Result<usize, StoreError> {
        let after = self.state.after.as_deref().and_then(record_id);
        let page = self.store.snapshot()?.records(OPENPGP, after.as_ref(), STEP_RECORDS)?;
        match page.last() {
            Some(last) => self.state.after = Some(hexadecimal(last.id.as_bytes())),
            None => {
                self.state.done = true;
                self.state.at = now();
                self.state.complete = self.state.policy;
                self.state.after = None;
            }
        }
        let (policy, looked) = (self.policy, page.len());
        let acquaintance = Acquaintance::with_stored(self.store, &page, policy)?;
        let other = page
            .into_iter()
            .filter(|stored| all || stored.policy != policy.number() || may_be_crowded(stored, policy));
        let ids: Vec<RecordId> = other.map(|stored| stored.id).collect();
        let decide: Arc<Decide> = Arc::new(move |rules, _, stored| {
            let decision = lifecycle::derive(rules, stored, policy, Some(&acquaintance));
            match (stored, &decision) {
                (Some(stored), Decision::Put(new)) if !all && is_same(stored, new) => Decision::Keep,
                _ => decision,
            }
        });
        self.rules.update(self.store, &ids, &decide, &[self.note()])?;
        Ok(looked)
    }

    fn note(&self) -> (String, Option<Vec<u8>>) {
        (NOTE.to_owned(), serde_json::to_vec(&self.state).ok())
    }
}

impl State {
    fn new(policy: Policy, complete: u32) -> Self {
        Self {
            policy: policy.number(),
            complete,
            after: None,
            done: false,
            at: 0,
        }
    }

    /// Was it done so long ago that other issuers may be known by now?
    fn is_stale(&self) -> bool {
        self.done && now() > self.at.saturating_add(STALE_AFTER_SECS)
    }
}

/// Derives anew in the background, until it is dropped.
pub(crate) struct Deriver {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What every record is derived by at present.
#[derive(Clone)]
pub(crate) struct Complete {
    policy: Policy,
    number: Arc<AtomicU32>,
}

impl Complete {
    /// As the store says; nothing while it is away.
    pub(crate) fn of(store: &dyn Store, policy: Policy) -> Self {
        let deriving = Deriving::begin(store, policy);
        let number = deriving.map_or(0, |deriving| deriving.complete().number());
        Self {
            policy,
            number: Arc::new(AtomicU32::new(number)),
        }
    }

    /// The part of the policy that holds for all records.
    pub(crate) fn policy(&self) -> Policy {
        self.policy.of_record(self.number.load(Ordering::Relaxed))
    }
}

impl Deriver {
    /// Starts. Looks now and then whether somebody else has written by another policy.
    pub(crate) fn start(store: Arc<dyn Store>, complete: Complete) -> std::io::Result<Self> {
        metrics::gauge!(LEFT).set(0.0);
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("keyrink-derive".into())
            .spawn(move || keep(&*store, &complete, &stopped))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Deriver {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already and must not become another one here.
            let _ = thread.join();
        }
    }
}

fn keep(store: &dyn Store, complete: &Complete, stopped: &mpsc::Receiver<()>) {
    let mut wait = Duration::ZERO;
    while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(wait) {
        if let Err(error) = derive(store, complete, stopped) {
            tracing::error!(%error, "records can't be derived anew");
        }
        wait = LOOK_EVERY;
    }
}

/// Works as long as it rests, so that requests have the store for themselves half of the time.
fn derive(store: &dyn Store, complete: &Complete, stopped: &mpsc::Receiver<()>) -> Result<(), StoreError> {
    let mut deriving = Deriving::begin(store, complete.policy)?;
    deriving.announce()?;
    lifecycle::finish_pending(store, &deriving.rules, complete.policy)?;
    complete.number.store(deriving.complete().number(), Ordering::Relaxed);
    let left = metrics::gauge!(LEFT);
    let count = store.count(OPENPGP)?;
    let mut looked = 0;
    let anew = !deriving.is_done() && deriving.complete() != deriving.policy;
    if anew {
        tracing::info!("what is derived from {count} certificates follows a new policy");
    }
    while !deriving.is_done() {
        let start = Instant::now();
        looked += deriving.step(false)? as u64;
        if anew {
            left.set(count.saturating_sub(looked) as f64);
        }
        if stopped.recv_timeout(start.elapsed()) != Err(mpsc::RecvTimeoutError::Timeout) {
            return Ok(());
        }
    }
    if anew {
        tracing::info!("done: {looked} certificates");
    }
    left.set(0.0);
    complete.number.store(deriving.complete().number(), Ordering::Relaxed);
    Ok(())
}

fn is_same(stored: &Stored, new: &Record) -> bool {
    (stored.policy, &stored.data) == (new.policy, &new.data)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

fn record_id(text: &str) -> Option<RecordId> {
    RecordId::new(&octets(text)?)
}

/// The metric that tells how many are left.
const LEFT: &str = "keyrink_underived_certificates";
const NOTE: &str = "derived";
const STEP_RECORDS: usize = 200;
/// How often it is looked whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long it is taken for granted whose keys are known, in seconds.
const STALE_AFTER_SECS: u64 = 7 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::formats::{HOCKEYPUCK, SKS};
    use crate::ingest::Ingest;
    use keyrink_store::memory::MemoryStore;

    fn policy(datasets: &[&str]) -> (Config, Policy) {
        let mut config = Config::default();
        config.peers.datasets = datasets.iter().map(|name| (*name).to_owned()).collect();
        let policy = Policy::new(&config);
        (config, policy)
    }

    fn elements(store: &dyn Store) -> [usize; 2] {
        [&SKS, &HOCKEYPUCK].map(|family| store.range(family.dataset, &[], &[0xFF; 16], 9999).unwrap().0.len())
    }

    fn families(policy: Policy) -> Vec<&'static str> {
        policy.families().map(|family| family.name).collect()
    }

    #[test]
    fn a_dataset_that_is_added_is_complete_when_every_record_is_in_it() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let (config, sks) = policy(&["sks"]);
        assert!(Deriving::begin(&*store, sks).unwrap().is_done(), "there is nothing");
        let ingest = Ingest::new(&config, Arc::clone(&store));
        let certs = (0..450).map(|n| keyrink_testkit::Certificate::v4(n, "derive").user_id("A").to_bytes());
        ingest.submit(&certs.collect::<Vec<_>>().concat()).unwrap();
        assert_eq!(elements(&*store), [450, 0]);

        let (_, both) = policy(&["sks", "hockeypuck"]);
        let mut deriving = Deriving::begin(&*store, both).unwrap();
        assert_eq!(deriving.step(false).unwrap(), STEP_RECORDS);
        assert_eq!(families(deriving.complete()), ["sks"]);
        assert_eq!(elements(&*store), [450, STEP_RECORDS]);
        let mut resumed = Deriving::begin(&*store, both).unwrap();
        while !resumed.is_done() {
            resumed.step(false).unwrap();
        }
        assert_eq!(families(resumed.complete()), ["sks", "hockeypuck"]);
        assert_eq!(elements(&*store), [450, 450]);

        let (_, other) = policy(&["hockeypuck"]);
        let mut deriving = Deriving::begin(&*store, other).unwrap();
        assert_eq!(families(deriving.complete()), ["hockeypuck"]);
        while !deriving.is_done() {
            deriving.step(false).unwrap();
        }
        assert_eq!(elements(&*store), [0, 450]);
    }
}
