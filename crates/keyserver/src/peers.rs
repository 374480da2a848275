//! Reconciliation with other keyservers.
//!
//! ```text
//!  partner calls ─► listener ─┐                         ┌─► queue ─► recovery ─► hashquery of the partner
//!                             ├─► session over a tree ──┤                             │
//!  timer, change ─► gossip ───┘                         └─► report                    └─► ingest ─► store ─► tree
//! ```
//!
//! A session finds out what each side lacks; each side then fetches that over HTTP. Nothing here writes certificates
//! but by way of [`Ingest`], and a tree holds nothing that the store does not, so whatever is interrupted, the next session
//! finds what is still missing.

pub(crate) mod branches;
mod bucket;
pub(crate) mod checkpoint;
mod claims;
pub(crate) mod dataset;
mod figures;
pub(crate) mod gossip;
mod lease;
mod listener;
pub(crate) mod partner;
pub(crate) mod recovery;
pub(crate) mod refused;
pub(crate) mod session;
pub mod status;
mod tree;

use crate::client::hashquery::{Bounds, Fetcher};
use crate::config::{self, Config};
use crate::derive::Complete;
use crate::formats::Policy;
use crate::http::handoff::blocking;
use crate::ingest::Ingest;
use claims::Claims;
use dataset::{Kinds, Manners, Set};
use keyrink_recon::session::{Omission, Settings};
use keyrink_recon::tree::Unavailable;
use keyrink_store::{Store, Vector};
use partner::Partner;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// What everything here shares.
pub(crate) struct Node {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) ingest: Ingest,
    pub(crate) fetcher: Fetcher,
    /// What every record is derived by.
    complete: Complete,
    pub(crate) sets: Vec<Arc<dyn Set>>,
    pub(crate) claims: Arc<Claims>,
    /// Where partners fetch.
    pub(crate) http_port: u16,
    /// What is left out of sessions of the second generation.
    omission: Omission,
    /// What partners are refused in them.
    refused: Vec<String>,
    /// Between two sessions of the first generation with partners that know the second.
    first_every: Option<Duration>,
    /// Addresses that calls go out from.
    pub(crate) addresses: Vec<IpAddr>,
    /// Between two calls to a partner while nothing changes.
    pub(crate) gossip: Duration,
    pub(crate) calling: Semaphore,
    pub(crate) accepting: Arc<Semaphore>,
    partners: RwLock<Vec<Arc<Partner>>>,
}

/// The peers of a server that runs.
#[derive(Clone)]
pub struct Peers {
    node: Arc<Node>,
    /// Whether partners can call.
    listening: Arc<AtomicBool>,
}

impl Node {
    /// A node that calls nobody yet.
    pub(crate) fn new(config: &Config, store: Arc<dyn Store>) -> Self {
        let policy = Policy::new(config);
        let own = config.http.listen.first().map(SocketAddr::port);
        let announced = config.peers.http_port.map(std::num::NonZeroU16::get);
        let addresses = config.peers.listen.iter().map(SocketAddr::ip);
        let certificate = config
            .limits
            .certificate_octets
            .get()
            .saturating_mul(CERTIFICATE_FACTOR);
        Self {
            ingest: Ingest::new(config, Arc::clone(&store)),
            fetcher: Fetcher::new(Bounds {
                certificate,
                answer: ANSWER_OCTETS.max(certificate),
            }),
            complete: Complete::of(&*store, policy),
            sets: dataset::sets(&store, policy),
            claims: Arc::default(),
            // The configuration is read with both, so neither fails.
            omission: branches::omission(&config.peers.omit).unwrap_or_default(),
            refused: branches::refused(&config.peers.refuse).unwrap_or_default(),
            first_every: match config.peers.first_generation_hours {
                0 => None,
                hours => Some(Duration::from_secs(3600) * hours),
            },
            http_port: announced.or(own).unwrap_or(HKP_PORT),
            addresses: addresses.filter(|address| !address.is_unspecified()).collect(),
            gossip: Duration::from_secs(config.peers.gossip_seconds.get().into()),
            calling: Semaphore::new(SESSIONS_MAX),
            accepting: Arc::new(Semaphore::new(SESSIONS_MAX)),
            partners: RwLock::default(),
            store,
        }
    }

    /// The datasets that can be reconciled now.
    pub(crate) fn kinds(&self) -> Kinds {
        Kinds::complete(self.sets.iter().map(|set| set.kind()), self.complete.policy())
    }

    /// What to say to a partner when a session about a realm begins.
    pub(crate) fn settings(&self, partner: &Partner, realm: &str) -> Settings {
        partner.settings(self.http_port, &self.kinds(), realm, &self.omission)
    }

    /// What is not asked of a partner, or not answered.
    pub(crate) fn manners(&self, partner: &Partner) -> Manners {
        partner.manners(&self.refused)
    }

    /// Everybody to reconcile with.
    pub(crate) fn partners(&self) -> Vec<Arc<Partner>> {
        self.partners.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the store has seen; nothing while it is away.
    async fn vector(&self) -> Option<Vector> {
        let store = Arc::clone(&self.store);
        blocking(move || store.vector()).await.ok()
    }
}

impl Peers {
    /// Listens and starts to call. Must run inside the runtime.
    pub fn start(config: &Config, store: Arc<dyn Store>) -> io::Result<Self> {
        let mut config = config.clone();
        if config.peers.listen.is_empty() && !config.partners.is_empty() {
            config.peers.listen = vec![USUAL_ADDRESS];
        }
        let peers = Self {
            node: Arc::new(Node::new(&config, store)),
            listening: Arc::default(),
        };
        for address in &config.peers.listen {
            peers.listen(*address)?;
        }
        peers.reload(&config.partners);
        tokio::spawn(gossip::watch(Arc::clone(&peers.node)));
        tokio::spawn(keep(Arc::clone(&peers.node)));
        Ok(peers)
    }

    /// What every record is derived by, to be kept current.
    pub(crate) fn complete(&self) -> Complete {
        self.node.complete.clone()
    }

    fn listen(&self, address: SocketAddr) -> io::Result<()> {
        let listener = std::net::TcpListener::bind(address).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot listen on {address} for partners: {error}"),
            )
        })?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        tracing::info!(%address, "listening for partners");
        tokio::spawn(listener::listen(Arc::clone(&self.node), listener));
        self.listening.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Takes another list of partners. Sessions with those that stay, and with those that go, come to their end.
    /// Blocks; not for several threads at once.
    pub fn reload(&self, wanted: &[config::Partner]) {
        if !wanted.is_empty()
            && !self.listening.load(Ordering::Relaxed)
            && let Err(error) = self.listen(USUAL_ADDRESS)
        {
            tracing::error!("{error}");
        }
        // The store may make us wait, callers must not: the list is made beside the one in use.
        let (old, mut partners) = (self.node.partners(), Vec::new());
        for config in wanted {
            match old.iter().find(|partner| partner.config == *config) {
                Some(partner) => partners.push(Arc::clone(partner)),
                None => partners.extend(Partner::new(config, &*self.node.store).map(Arc::new)),
            }
        }
        *self.node.partners.write().unwrap_or_else(PoisonError::into_inner) = partners.clone();
        let in_one = |list: &[Arc<Partner>], partner| list.iter().any(|other| Arc::ptr_eq(other, partner));
        for partner in old.iter().filter(|partner| !in_one(&partners, partner)) {
            partner.removed.send_replace(true);
            if !partners.iter().any(|other| other.name() == partner.name()) {
                figures::forget(partner.name());
            }
        }
        for partner in partners.iter().filter(|partner| !in_one(&old, partner)) {
            tokio::spawn(listener::keep_addresses(Arc::clone(partner)));
            tokio::spawn(lease::keep(Arc::clone(&self.node), Arc::clone(partner)));
            tokio::spawn(gossip::call_again(Arc::clone(&self.node), Arc::clone(partner)));
            tokio::spawn(recovery::work(Arc::clone(&self.node), Arc::clone(partner)));
        }
        self.note_names(&partners);
    }

    /// Gives back the right to call partners, which others may take at once. Only when nothing calls any more. Blocks.
    pub fn release(&self) {
        for partner in self.node.partners() {
            if let Err(error) = partner.lease.release(&*self.node.store) {
                tracing::debug!(partner = partner.name(), %error, "its lease could not be given back");
            }
        }
    }

    fn note_names(&self, partners: &[Arc<Partner>]) {
        let names: Vec<&str> = partners.iter().map(|partner| partner.name()).collect();
        let names = serde_json::to_vec(&names).unwrap_or_default();
        if let Err(error) = partner::save_note(&*self.node.store, partner::NAMES_NOTE.to_owned(), Some(names)) {
            tracing::warn!(%error, "the names of the partners could not be noted");
        }
    }
}

/// Keeps trees fresh and reports saved.
async fn keep(node: Arc<Node>) {
    let keeping = Arc::new(Mutex::new(Keeping::default()));
    loop {
        let (node, keeping) = (Arc::clone(&node), Arc::clone(&keeping));
        blocking(move || keeping.lock().unwrap_or_else(PoisonError::into_inner).round(&node)).await;
        tokio::time::sleep(KEEP_EVERY).await;
    }
}

/// What is remembered from one round of keeping fresh to the next.
#[derive(Default)]
struct Keeping {
    rounds: u64,
    /// Sets that can't be read.
    away: BTreeSet<&'static str>,
    /// The mark under which the trees were read.
    mark: Option<Option<Vec<u8>>>,
}

impl Keeping {
    fn round(&mut self, node: &Node) {
        self.rounds += 1;
        let partners = node.partners();
        // Nobody to reconcile with: the trees would be kept for nothing.
        if !partners.is_empty() {
            let again = self.must_read_again(&*node.store);
            for set in &node.sets {
                let kept = self.keep(&**set, again);
                if kept.is_ok() {
                    let (kind, count) = (set.kind(), set.count());
                    partners.iter().for_each(|partner| partner.reconsider(kind, count));
                }
                tell(&mut self.away, set.kind().name, kept);
            }
        }
        for partner in partners {
            figures::show(&partner.report());
            if let Err(error) = partner.save_if_changed(&*node.store) {
                tracing::debug!(partner = partner.name(), %error, "its report could not be saved");
            }
        }
    }

    fn keep(&self, set: &dyn Set, again: bool) -> Result<(), Unavailable> {
        match again {
            true => set.reread()?,
            false => set.refresh()?,
        }
        // The first time soon after a start.
        if self.rounds % SAVE_EVERY == FIRST_SAVE {
            set.save()?;
        }
        if let Some(total) = set.total() {
            figures::show_tree(set.kind(), &total);
        }
        Ok(())
    }

    /// Whether somebody has rebuilt what the trees are read from.
    fn must_read_again(&mut self, store: &dyn Store) -> bool {
        let Ok(mark) = store.note(dataset::READ_AGAIN_NOTE) else {
            return false;
        };
        let before = self.mark.replace(mark);
        before.is_some() && before != self.mark
    }
}

/// One line when a tree can't be kept fresh and one when it can again, not one each round.
fn tell(away: &mut BTreeSet<&'static str>, name: &'static str, saved: Result<(), Unavailable>) {
    match saved {
        Err(error) if away.insert(name) => tracing::warn!("the tree {name}: {error}"),
        Ok(()) if away.remove(name) => tracing::info!("the tree {name} is kept fresh again"),
        _ => {}
    }
}

/// What both sides say when a set does not fit into messages.
pub(crate) const TOO_FAR: &str = "too far apart: load a dump first";

/// Sessions at the same time that partners called for, and as many that this node called for.
const SESSIONS_MAX: usize = 4;
/// A tree is to hold within a second what any process stored; a round takes its time too.
const KEEP_EVERY: Duration = Duration::from_millis(250);
/// Rounds of keeping fresh between two checkpoints.
const SAVE_EVERY: u64 = 1200;
const FIRST_SAVE: u64 = 40;
/// Where partners call if nothing else is configured.
const USUAL_ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 11370));
/// The usual port.
const HKP_PORT: u16 = 11371;
/// A certificate from a peer is read up to so many times the room it has, and then trimmed.
const CERTIFICATE_FACTOR: u64 = 4;
/// The longest answer of a peer that is read.
const ANSWER_OCTETS: u64 = 256 << 20;

#[cfg(test)]
mod tests;
