//! What the handlers for reading share, and their routes.

use super::{assets, lookup, stats};
use axum::Router;
use axum::routing::get;
use keyrink_store::Store;
use std::sync::Arc;

/// Shared by the handlers for reading.
pub struct Web {
    /// Where the certificates are.
    pub store: Arc<dyn Store>,
    /// What the operator decided.
    pub settings: Settings,
    /// The clock: seconds since 1970.
    pub now: fn() -> u64,
}

/// What the operator decided about answers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name under which clients reach this server.
    pub hostname: String,
    /// How to reach the operator.
    pub contact: Option<String>,
    /// The most certificates in one answer.
    pub results_max: usize,
    /// Once an answer holds certificates of so many octets, it takes no further one.
    pub results_octets_max: usize,
    /// Whether single words of user ids are found.
    pub words: bool,
}

/// The routes for reading: pages, lookups, statistics and health.
pub fn router(web: Arc<Web>) -> Router {
    Router::new()
        .route("/", get(stats::start))
        .route("/pks/lookup", get(lookup::lookup))
        .route("/pks/stats", get(stats::stats))
        .route("/pks/health", get(async || "OK\n"))
        .route("/readyz", get(stats::ready))
        .with_state(web)
        .merge(assets::router())
}
