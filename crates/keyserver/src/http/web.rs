//! What the handlers for reading share, and their routes.

use super::room::Room;
use super::routes::Routes;
use super::stats::Proof;
use super::{assets, lookup, stats};
use crate::config::Config;
use crate::lifecycle::Rules;
use axum::routing::get;
use keyrink_store::Store;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Mutex;

/// Shared by the handlers for reading.
pub struct Web {
    /// Where the certificates are.
    pub store: Arc<dyn Store>,
    /// What the operator decided about them.
    pub rules: Rules,
    /// The name under which clients reach this server.
    pub hostname: String,
    /// How to reach the operator.
    pub contact: Option<String>,
    /// Room for answers that are not small.
    pub answers: Arc<Room>,
    /// The most certificates in one answer.
    pub results_max: usize,
    /// Octets of the certificates in one answer, unless it is a single one.
    pub results_octets_max: usize,
    /// Whether single words of user ids are found.
    pub words: bool,
    /// Whether the store works.
    pub proof: Mutex<Proof>,
    /// When it was last counted how many certificates are blocked and how many rules erase, and these.
    pub kept_back: std::sync::Mutex<Option<(Instant, (u64, u64))>>,
    /// The clock: seconds since 1970.
    pub now: fn() -> u64,
}

impl Web {
    /// Reading as configured.
    pub fn new(config: &Config, store: Arc<dyn Store>, answers: Arc<Room>) -> Self {
        Self {
            store,
            rules: Rules::default(),
            answers,
            hostname: config.http.hostname.clone(),
            contact: config.http.contact.clone(),
            results_max: config.search.results.get() as usize,
            results_octets_max: RESULTS_OCTETS_MAX,
            words: config.search.words,
            proof: Mutex::default(),
            kept_back: std::sync::Mutex::default(),
            now: || {
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |passed| passed.as_secs())
            },
        }
    }
}

/// The routes for reading: pages, lookups, statistics and health.
pub fn routes(web: Arc<Web>) -> Routes {
    Routes::new()
        .route("/", get(stats::start))
        .route("/pks/lookup", get(lookup::lookup))
        .route("/pks/stats", get(stats::stats))
        .route("/pks/health", get(async || "OK\n"))
        .route("/readyz", get(stats::ready))
        .with_state(web)
        .merge(assets::routes())
}

/// Several times the largest certificate.
const RESULTS_OCTETS_MAX: usize = 32 << 20;
