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
    /// The note was about another policy.
    replaces: bool,
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
    /// How many those are.
    #[serde(default)]
    looked: u64,
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
        let replaces = noted.as_ref().is_some_and(|state| state.policy != policy.number());
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
            replaces,
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

    /// Certificates that are yet to follow the policy: none if all do, and are only looked at again.
    pub(crate) fn left(&self) -> Result<u64, StoreError> {
        match self.is_done() || self.state.complete == self.state.policy {
            true => Ok(0),
            false => Ok(self.store.count(OPENPGP)?.saturating_sub(self.state.looked)),
        }
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
        let page = page(self.store, after)?;
        match page.last() {
            Some(last) => {
                self.state.after = Some(hexadecimal(last.id.as_bytes()));
                self.state.looked += page.len() as u64;
            }
            None => {
                self.state = State {
                    done: true,
                    at: now(),
                    ..State::new(self.policy, self.state.policy)
                }
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
            looked: 0,
            done: false,
            at: 0,
        }
    }

    /// Was it done so long ago that other issuers may be known by now?
    fn is_stale(&self) -> bool {
        self.done && now() > self.at.saturating_add(STALE_AFTER_SECS)
    }
}

/// The next records: in most stores many, but never much more than so many octets, which stay in memory several times.
fn page(store: &dyn Store, mut after: Option<RecordId>) -> Result<Vec<Stored>, StoreError> {
    let snapshot = store.snapshot()?;
    let (mut page, mut octets) = (Vec::new(), 0);
    while page.len() < STEP_RECORDS && octets < STEP_OCTETS {
        let part = snapshot.records(OPENPGP, after.as_ref(), READ_RECORDS)?;
        let Some(last) = part.last() else { break };
        after = Some(last.id.clone());
        octets += part.iter().map(|stored| stored.data.len()).sum::<usize>();
        page.extend(part);
    }
    Ok(page)
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
    let (mut wait, mut replaced) = (Duration::ZERO, 0);
    while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(wait) {
        let begun = Deriving::begin(store, complete.policy);
        replaced += u32::from(begun.as_ref().is_ok_and(|deriving| deriving.replaces));
        if replaced == QUARREL {
            tracing::warn!(
                "another server of this database has another configuration: both derive everything by turns"
            );
        }
        if let Err(error) = begun.and_then(|deriving| derive(deriving, complete, stopped)) {
            tracing::error!(%error, "records can't be derived anew");
        }
        wait = LOOK_EVERY;
    }
}

/// Works as long as it rests, so that requests have the store for themselves half of the time.
fn derive(mut deriving: Deriving<'_>, complete: &Complete, stopped: &mpsc::Receiver<()>) -> Result<(), StoreError> {
    deriving.announce()?;
    let store = deriving.store;
    lifecycle::finish_pending(store, &deriving.rules, complete.policy)?;
    complete.number.store(deriving.complete().number(), Ordering::Relaxed);
    let (left, count) = (metrics::gauge!(LEFT), deriving.left()?);
    if count > 0 {
        tracing::info!("what is derived from {count} certificates is yet to follow the policy of now");
    }
    while !deriving.is_done() {
        let start = Instant::now();
        left.set(deriving.left()? as f64);
        deriving.step(false)?;
        if stopped.recv_timeout(start.elapsed()) != Err(mpsc::RecvTimeoutError::Timeout) {
            return Ok(());
        }
    }
    if count > 0 {
        tracing::info!("all certificates follow the policy");
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
/// Records of one transaction, and octets of these; so many of them are read at once.
const STEP_RECORDS: usize = 200;
const STEP_OCTETS: usize = 1 << 20;
const READ_RECORDS: usize = 20;
/// Once when it starts, and once while servers with another configuration give way to others, a server finds that another
/// policy was announced. Once more, and nobody gives way.
const QUARREL: u32 = 3;
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
    use keyrink_openpgp::project::Projection;
    use keyrink_openpgp::stored::write_projection;
    use keyrink_store::memory::MemoryStore;
    use keyrink_testkit::{Certificate, Key};

    fn policy(datasets: &[&str]) -> (Config, Policy) {
        let mut config = Config::default();
        config.peers.datasets = datasets.iter().map(|name| (*name).to_owned()).collect();
        let policy = Policy::new(&config);
        (config, policy)
    }

    fn elements(store: &dyn Store) -> [usize; 2] {
        [&SKS, &HOCKEYPUCK].map(|family| store.range(family.dataset, &[], &[0xFF; 16], 9999).unwrap().0.len())
    }

    fn served(store: &dyn Store) -> usize {
        let page = store.snapshot().unwrap().records(OPENPGP, None, 9999).unwrap();
        let octets = page.iter().map(|stored| {
            let mut octets = Vec::new();
            write_projection(&stored.data, Projection::Served, &mut octets).unwrap();
            octets.len()
        });
        octets.sum()
    }

    /// So many certificates, each with a certification by somebody else.
    fn certified(count: u32, config: &Config) -> Arc<dyn Store> {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let friend = Key::primary(7, "friend");
        let certs = (0..count).map(|n| {
            let cert = Certificate::v4(n.into(), "derive").user_id("A");
            cert.certified_by(&friend).to_bytes()
        });
        let ingest = Ingest::new(config, Arc::clone(&store));
        Deriving::begin(&*store, ingest.policy).unwrap().announce().unwrap();
        ingest.submit(&certs.collect::<Vec<_>>().concat()).unwrap();
        store
    }

    #[test]
    fn what_users_get_follows_a_new_policy_and_says_how_much_is_left() {
        let mut config = Config::default();
        let store = certified(450, &config);
        let before = served(&*store);
        let deriving = Deriving::begin(&*store, Policy::new(&config)).unwrap();
        assert_eq!((deriving.is_done(), deriving.left().unwrap()), (true, 0));

        config.limits.approved_only = true;
        let policy = Policy::new(&config);
        let mut deriving = Deriving::begin(&*store, policy).unwrap();
        assert_eq!(deriving.left().unwrap(), 450);
        deriving.step(false).unwrap();
        assert_eq!(deriving.left().unwrap(), 250);
        let mut resumed = Deriving::begin(&*store, policy).unwrap();
        assert_eq!(resumed.left().unwrap(), 250);
        while !resumed.is_done() {
            resumed.step(false).unwrap();
        }
        assert_eq!(resumed.left().unwrap(), 0);
        assert!(served(&*store) < before * 3 / 4, "nobody approved of anything");

        resumed.look_again().unwrap();
        let again = Deriving::begin(&*store, policy).unwrap();
        assert_eq!((again.is_done(), again.left().unwrap()), (false, 0), "only looked at");
    }

    #[test]
    fn a_server_derives_by_itself_and_stops_at_once() {
        let config = Config::default();
        let store = certified(250, &config);
        let policy = Policy::new(&Config {
            limits: crate::config::Limits {
                approved_only: true,
                ..config.limits
            },
            ..config
        });
        let deriver = Deriver::start(Arc::clone(&store), Complete::of(&*store, policy)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !Deriving::begin(&*store, policy).unwrap().is_done() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        let stopping = Instant::now();
        drop(deriver);
        assert!(stopping.elapsed() < LOOK_EVERY / 2);
        let page = store.snapshot().unwrap().records(OPENPGP, None, 9999).unwrap();
        assert!(page.iter().all(|stored| stored.policy == policy.number()));
    }

    /// Long records are looked at few at a time.
    #[test]
    fn a_step_holds_few_octets() {
        let mut config = Config::default();
        config.limits.user_id_octets = std::num::NonZeroU64::MAX;
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let long = "x".repeat(100 << 10);
        let certs = (0..60).map(|n| Certificate::v4(n, "long").user_id(&long).to_bytes());
        let ingest = Ingest::new(&config, Arc::clone(&store));
        certs.for_each(|cert| drop(ingest.submit(&cert).unwrap()));
        assert_eq!(page(&*store, None).unwrap().len(), READ_RECORDS);
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
        let certs = (0..450).map(|n| Certificate::v4(n, "derive").user_id("A").to_bytes());
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
