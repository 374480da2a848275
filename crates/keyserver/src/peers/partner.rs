//! A partner: who it is, what was learnt about it, and what it owes us.

use super::bucket::Bucket;
use super::dataset::{self, Kind, Kinds, Manners};
use super::lease::Lease;
use super::recovery::Queue;
use super::status::{self, Doing, RefusedPart, Report, Trouble};
use crate::client::hashquery::Source;
use crate::config::{self, HostPort};
use keyrink_recon::session::{Omission, PeerConfig, Settings};
use keyrink_store::{Batch, Store, StoreError};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, Semaphore, watch};

/// A configured keyserver to reconcile with.
pub(crate) struct Partner {
    /// As configured.
    pub(crate) config: config::Partner,
    recon: HostPort,
    state: Mutex<State>,
    /// What it has and this node lacks.
    pub(crate) queue: Queue,
    /// The right to call it.
    pub(crate) lease: Lease,
    /// Says that a call should be made soon.
    pub(crate) wake: Notify,
    /// Whether it is no partner any more.
    pub(crate) removed: watch::Sender<bool>,
    /// One session that it called for.
    pub(crate) accepting: Arc<Semaphore>,
    /// One session that this node called for.
    pub(crate) calling: Arc<Semaphore>,
}

struct State {
    report: Report,
    /// As it was last saved.
    saved: Vec<u8>,
    /// As they were last found.
    addresses: Vec<IpAddr>,
    /// Sessions that it may call for.
    calls: Bucket,
    /// Warnings that it may cause.
    warnings: Bucket,
}

/// How long a name may take to resolve.
const RESOLVE_WITHIN: Duration = Duration::from_secs(10);
/// How long a partner whose set is too far from ours is left alone.
const BARRED: Duration = Duration::from_secs(3600);
/// Sessions that it may call for at once, after it did not for a while.
const CALLS_AT_ONCE: u32 = 30;
/// Warnings about it in the log: so many at once, and then one in so long.
const WARNINGS_AT_ONCE: u32 = 10;
const WARNING_EACH: Duration = Duration::from_secs(60);
/// How long the exchange of configurations may take.
const PATIENCE: Duration = Duration::from_secs(60);

impl Partner {
    /// A partner with what the store remembers about it. `None` if its address makes no sense, which the
    /// configuration has excluded.
    pub(crate) fn new(config: &config::Partner, store: &dyn Store) -> Option<Self> {
        let name = config.label().to_owned();
        let remembered = store.note(&note(&name)).ok().flatten();
        let report = remembered.and_then(|octets| serde_json::from_slice(&octets).ok());
        let mut report: Report = report.unwrap_or_default();
        report.begin(&name, &config.recon);
        let recon: HostPort = config.recon.parse().ok()?;
        Some(Self {
            config: config.clone(),
            state: Mutex::new(State {
                report,
                saved: Vec::new(),
                // Only names take time to resolve.
                addresses: recon
                    .host
                    .parse()
                    .into_iter()
                    .map(|ip: IpAddr| ip.to_canonical())
                    .collect(),
                calls: Bucket::full(CALLS_AT_ONCE),
                warnings: Bucket::full(WARNINGS_AT_ONCE),
            }),
            recon,
            queue: Queue::default(),
            lease: Lease::new(&name, store),
            wake: Notify::new(),
            removed: watch::Sender::new(false),
            accepting: Arc::new(Semaphore::new(1)),
            calling: Arc::new(Semaphore::new(1)),
        })
    }

    /// What people call it.
    pub(crate) fn name(&self) -> &str {
        self.config.label()
    }

    /// Its host and port.
    pub(crate) fn recon(&self) -> &HostPort {
        &self.recon
    }

    /// What is known about it now.
    pub(crate) fn report(&self) -> Report {
        let mut report = self.state().report.clone();
        report.queue = self.queue.len() as u64;
        report
    }

    /// Changes what is known about it.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.state().report);
    }

    /// Says what happens from now on. Who waits with something to fetch from it is fetching, whatever came between.
    pub(crate) fn enter(&self, doing: Doing) {
        let doing = match doing {
            Doing::Waiting if self.queue.len() > 0 => Doing::Fetching,
            doing => doing,
        };
        tracing::debug!(partner = self.name(), "now {}", doing.word());
        self.note(|report| report.state = doing.word().to_owned());
    }

    /// Notes what went wrong, and logs it unless it is the same as last time or the last times were too many.
    pub(crate) fn complain(&self, trouble: Trouble, error: &str) {
        super::figures::count_trouble(self.name(), trouble);
        let error = status::plain(error);
        let mut state = self.state();
        let known = state
            .report
            .last_error
            .as_ref()
            .is_some_and(|(_, known)| *known == error);
        let loud = !known && state.warnings.take(WARNING_EACH);
        state.report.last_error = Some((now(), error.clone()));
        drop(state);
        match loud {
            true => tracing::warn!(partner = self.name(), "{error}"),
            false => tracing::debug!(partner = self.name(), "{error}"),
        }
    }

    /// Whether a session that it calls for is not one too many; `each` is how often there may be one in the long run.
    pub(crate) fn may_call(&self, each: Duration) -> bool {
        self.state().calls.take(each)
    }

    /// Goes on with what the server that called before has noted, now that this one does. Blocks.
    pub(crate) fn recall(&self, store: &dyn Store) {
        let noted = store.note(&note(self.name())).ok().flatten();
        let noted = noted.and_then(|octets| serde_json::from_slice::<Report>(&octets).ok());
        if let Some(mut report) = noted.filter(|_| self.state().saved.is_empty()) {
            report.begin(self.name(), &self.config.recon);
            self.note(|known| *known = report);
        }
    }

    /// Writes what is known into the store, for `keyrink peers` and the next start. Of several servers that share the store the
    /// one that calls does so. Blocks.
    pub(crate) fn save_if_changed(&self, store: &dyn Store) -> Result<(), StoreError> {
        if self.lease.token().is_none() {
            return Ok(());
        }
        let octets = serde_json::to_vec(&self.report()).map_err(|error| StoreError::Invalid(error.to_string()))?;
        if self.state().saved == octets {
            return Ok(());
        }
        save_note(store, note(self.name()), Some(octets.clone()))?;
        self.state().saved = octets;
        Ok(())
    }

    /// The port of its plain HTTP, as configured or as it announced it.
    pub(crate) fn http_port(&self) -> Option<u16> {
        let configured = self.config.http.as_ref().and_then(|url| Source::parse(url)?.port());
        configured.or_else(|| self.state().report.http_port)
    }

    /// What to say to it when a session about a realm begins, of which so much is left out.
    pub(crate) fn settings(&self, http_port: u16, kinds: &Kinds, realm: &str, omission: &Omission) -> Settings {
        let only = kinds.by_name(&self.config.dataset);
        let report = self.report();
        // What it announced last is what it wants to hear; without a meaning it is of no use.
        let learnt = report.filters.filter(|filters| {
            kinds
                .by_filters(filters)
                .is_some_and(|kind| only.is_none_or(|only| std::ptr::eq(kind, only)))
        });
        let filters = self.config.filters.clone().or(learnt);
        Settings {
            http_port,
            version: self.config.version.clone(),
            trees: kinds.offers(only, omission),
            first_tree: dataset::FIRST_TREE.to_owned(),
            realm: realm.to_owned(),
            wanted: None,
            filters: kinds.announcement(filters.as_deref(), self.config.filters.is_some(), only),
            dialect: None,
            busy: self.barred(),
            patience: PATIENCE,
        }
    }

    /// Remembers what it said about itself; true if its filters are new and mean something here.
    pub(crate) fn learn(&self, peer: &PeerConfig, kinds: &Kinds) -> bool {
        let mut state = self.state();
        let report = &mut state.report;
        report.http_port = peer
            .http_port
            .and_then(|port| u16::try_from(port).ok())
            .or(report.http_port);
        report.software = describe(peer);
        report.trees = peer
            .trees
            .iter()
            .flatten()
            .take(TREES_MAX)
            .map(|tree| status::plain(tree))
            .collect();
        let new = report.filters != peer.filters;
        report.filters.clone_from(&peer.filters);
        drop(state);
        let filters = peer.filters.as_deref().filter(|_| new);
        let means_something = filters.is_some_and(|filters| kinds.by_filters(filters).is_some());
        if let Some(kind) = filters.and_then(|filters| Kinds::all().by_filters(filters))
            && !means_something
        {
            let (partner, name) = (self.name(), kind.name);
            tracing::warn!(
                partner,
                "it reconciles {name}, which is not kept: see `datasets` of [peers]"
            );
        }
        means_something
    }

    /// Where to fetch from, and how fast; `None` as long as its port is not known.
    pub(crate) fn source(&self, kind: &'static Kind) -> Option<(Source, Duration)> {
        let report = self.report();
        let source = match &self.config.http {
            Some(url) => Source::parse(url)?,
            None => Source::new(&self.recon.host, report.http_port?),
        };
        let usual = if kind.unhurried && report.trees.is_empty() {
            PAUSE_UNHURRIED
        } else {
            PAUSE
        };
        let pause = self
            .config
            .pause_seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .map(|pause| pause.min(PAUSE_MAX));
        Some((source, pause.unwrap_or(usual)))
    }

    /// Do both reconcile the second generation, as far as is known?
    pub(crate) fn is_second(&self, kinds: &Kinds) -> bool {
        let only = kinds.by_name(&self.config.dataset);
        let ours = kinds.offers(only, &Omission::default());
        let second = dataset::SECOND.tree;
        ours.iter().any(|offer| offer.name == second) && self.state().report.trees.iter().any(|tree| tree == second)
    }

    /// Should this call be about the first generation, although both know the second? Once in so long, and sooner again if
    /// nothing came of it.
    pub(crate) fn is_first_due(&self, kinds: &Kinds, every: Option<Duration>) -> bool {
        let report = self.report();
        let offers_first = report.trees.iter().any(|tree| tree == dataset::FIRST_TREE);
        let only = kinds.by_name(&self.config.dataset);
        let is_common = report.filters.is_none_or(|filters| {
            kinds
                .by_filters(&filters)
                .is_some_and(|kind| only.is_none_or(|only| std::ptr::eq(kind, only)))
        });
        if every.is_none()
            || !offers_first
            || !is_common
            || !self.is_second(kinds)
            || self.state().report.first_due > now()
        {
            return false;
        }
        self.note(|report| report.first_due = now() + FIRST_AGAIN.as_secs());
        true
    }

    /// The next session of the first generation is due after its whole time, if all that the last one found was fetched.
    pub(crate) fn settle_first(&self, every: Option<Duration>) {
        if let Some(every) = every.filter(|_| self.queue.take_first_done()) {
            self.note(|report| report.first_due = now() + every.as_secs());
        }
    }

    /// What is not asked of it, or not answered.
    pub(crate) fn manners(&self, refused: &[String]) -> Manners {
        let report = self.report();
        let lately = report.refused_parts.iter().filter(|part| part.until > now());
        Manners {
            shunned: lately.map(|part| part.prefix.clone()).collect(),
            refused: refused.to_vec(),
        }
    }

    /// Remembers which parts it refused; what is new is worth a line. A refusal because of the moment is not remembered.
    pub(crate) fn note_refused(&self, refused: Vec<(String, u8, String)>) {
        let mut state = self.state();
        let parts = &mut state.report.refused_parts;
        parts.retain(|part| part.until > now());
        for (prefix, code, text) in refused {
            if code == TOO_EXPENSIVE_NOW {
                continue;
            }
            let (name, text) = (self.name(), status::plain(&text));
            let known = parts.len();
            parts.retain(|part| part.prefix != prefix);
            if parts.len() >= REFUSED_PARTS_MAX {
                continue;
            }
            if parts.len() == known {
                tracing::info!(
                    partner = name,
                    "it does not reconcile the part {prefix}: {text} (code {code})"
                );
            }
            let until = now() + REFUSED_FOR.as_secs();
            parts.push(RefusedPart {
                prefix,
                code,
                text,
                until,
            });
        }
    }

    /// Does this address belong to it, as far as is known?
    pub(crate) fn is_at(&self, caller: IpAddr) -> bool {
        self.state().addresses.contains(&caller)
    }

    /// Looks up its addresses; false if its name does not resolve. It has not moved for that.
    pub(crate) async fn look_up(&self) -> bool {
        !self.resolve().await.is_empty()
    }

    /// Its addresses, by which it is known from now on; none if its name does not resolve.
    pub(crate) async fn resolve(&self) -> Vec<IpAddr> {
        let addresses = self.ask_for_addresses().await;
        if !addresses.is_empty() {
            self.state().addresses.clone_from(&addresses);
        }
        addresses
    }

    async fn ask_for_addresses(&self) -> Vec<IpAddr> {
        let looking = tokio::net::lookup_host((self.recon.host.as_str(), self.recon.port));
        match tokio::time::timeout(RESOLVE_WITHIN, looking).await {
            Ok(Ok(found)) => found.map(|address| address.ip().to_canonical()).collect(),
            Ok(Err(error)) => {
                tracing::warn!(partner = self.name(), "{} does not resolve: {error}", self.recon.host);
                Vec::new()
            }
            Err(_elapsed) => Vec::new(),
        }
    }

    /// Leaves it alone for an hour, for a reason that it is told too, or until this node has a set of another size than
    /// now.
    pub(crate) fn bar(&self, reason: &str, elements: u64) {
        self.note(|report| {
            report.barred = Some((now() + BARRED.as_secs(), reason.to_owned()));
            report.barred_at = elements;
        });
    }

    /// Lets it in again if what this node has of a dataset is a matter of another size since, as after a load.
    pub(crate) fn reconsider(&self, kind: &Kind, elements: u64) {
        let report = self.report();
        let then = report.barred_at;
        let other = elements.abs_diff(then) > then / 4;
        if report.barred.is_some() && report.dataset.as_deref() == Some(kind.name) && other {
            tracing::info!(
                partner = self.name(),
                "no longer left alone: here are {elements} elements, not {then}"
            );
            self.unbar();
            self.wake.notify_one();
        }
    }

    /// Lets it in again.
    pub(crate) fn unbar(&self) {
        self.note(|report| report.barred = None);
    }

    /// Why it is left alone now, if it is.
    pub(crate) fn barred(&self) -> Option<String> {
        let barred = self.state().report.barred.clone();
        barred.filter(|(until, _)| *until > now()).map(|(_, reason)| reason)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between requests to peers that answer one at a time.
const PAUSE_UNHURRIED: Duration = Duration::from_secs(2);
/// Whatever is configured.
const PAUSE_MAX: Duration = Duration::from_secs(config::PAUSE_SECONDS_MAX as u64);
/// Between requests to others.
const PAUSE: Duration = Duration::from_millis(50);

/// Trees of a partner that are remembered.
const TREES_MAX: usize = 16;
/// When the first generation is tried again with a partner with which it came to nothing.
const FIRST_AGAIN: Duration = Duration::from_secs(3600);
/// How long a partner is not asked for what it refused.
const REFUSED_FOR: Duration = Duration::from_secs(24 * 3600);
/// Parts that it refused and that are remembered.
const REFUSED_PARTS_MAX: usize = 256;
/// The code of a refusal that is about this session only.
const TOO_EXPENSIVE_NOW: u8 = 2;

/// The names of all partners of a server, for `keyrink peers`.
pub(crate) const NAMES_NOTE: &str = "peers";

/// Under which key a partner's report is kept.
pub(crate) fn note(name: &str) -> String {
    format!("peer {name}")
}

/// Writes one note.
pub(crate) fn save_note(store: &dyn Store, key: String, value: Option<Vec<u8>>) -> Result<(), StoreError> {
    let batch = Batch {
        realm: crate::formats::OPENPGP,
        ids: Vec::new(),
        decide: Box::new(|_, _| keyrink_store::Decision::Keep),
        notes: vec![(key, value)],
        premise: None,
    };
    store.update(batch).map(drop)
}

/// Unix seconds.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs())
}

/// What a peer says about itself, in one line.
pub(crate) fn describe(peer: &PeerConfig) -> String {
    let text = |text: &Option<String>| text.as_deref().unwrap_or("none").to_owned();
    let trees = peer
        .trees
        .as_ref()
        .map_or(String::new(), |trees| format!(", trees {}", trees.join(" ")));
    let line = format!(
        "version {}, filters \"{}\"{trees}",
        text(&peer.version),
        text(&peer.filters)
    );
    status::plain(&line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyrink_store::memory::MemoryStore;

    fn at(recon: &str, pause: f64) -> Partner {
        let config = config::Partner {
            recon: recon.to_owned(),
            http: Some("http://127.0.0.1:2".to_owned()),
            pause_seconds: Some(pause),
            ..config::Partner::default()
        };
        Partner::new(&config, &MemoryStore::new()).unwrap()
    }

    #[tokio::test]
    async fn addresses_that_were_good_stay() {
        let here = IpAddr::from([127, 0, 0, 1]);
        assert!(at("127.0.0.1:1", 0.0).is_at(here), "without looking up");
        let partner = at("nowhere.invalid:1", 0.0);
        partner.state().addresses = vec![here];
        assert!(!partner.look_up().await);
        assert!(partner.is_at(here) && !partner.is_at(IpAddr::from([127, 0, 0, 2])));
    }

    #[test]
    fn a_bar_falls_when_the_set_is_of_another_size() {
        let (partner, sks) = (at("127.0.0.1:1", 0.0), &dataset::SKS);
        for (then, same, other) in [(1000, 1250, 1251), (1000, 750, 749), (0, 0, 1)] {
            partner.note(|report| report.dataset = Some("sks".to_owned()));
            partner.bar("too far", then);
            partner.reconsider(sks, same);
            assert!(partner.barred().is_some());
            partner.reconsider(sks, other);
            assert!(partner.barred().is_none());
        }
    }

    #[test]
    fn the_first_generation_is_due_if_both_mean_the_same_by_it() {
        let mut config = config::Config::default();
        config.peers.datasets = ["sks", "openpgp/2"].map(str::to_owned).to_vec();
        let kinds = Kinds::of(crate::formats::Policy::new(&config));
        for (kind, due) in [(&dataset::HOCKEYPUCK, false), (&dataset::SKS, true)] {
            let partner = at("127.0.0.1:1", 0.0);
            partner.note(|report| {
                report.trees = [dataset::SECOND.tree, dataset::FIRST_TREE].map(str::to_owned).to_vec();
                report.filters = Some(kind.filters[0].to_owned());
            });
            assert_eq!(partner.is_first_due(&kinds, Some(REFUSED_FOR)), due);
        }
    }

    #[test]
    fn pauses_have_an_end() {
        let partner = at("127.0.0.1:1", 1e19);
        let (_, pause) = partner.source(&dataset::SKS).unwrap();
        assert_eq!(pause, PAUSE_MAX);
    }
}
