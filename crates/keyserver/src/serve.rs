//! `keyrink serve`: runtime, log, sockets and signals, from start to orderly end.

use crate::admin::progress::Progress;
use crate::config::{self, Config, ConfigError};
use crate::derive::Deriver;
use crate::follow::Follower;
use crate::formats::Policy;
use crate::http::add::{self, Submissions};
use crate::http::answer::Answers;
use crate::http::body::BodyLimits;
use crate::http::hashquery::{self, HashQueries};
use crate::http::orders;
use crate::http::room::Room;
use crate::http::routes::Routes;
use crate::http::server::{Server, StartError};
use crate::http::throttle::Throttle;
use crate::http::web::{self, Web};
use crate::ingest::Ingest;
use crate::lifecycle::Orders;
use crate::logging::{self, LogError};
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::signals;
use crate::{admin, cli};
use axum::routing::get;
use keyrink_store::sqlite::Durability;
use keyrink_store::{Store, StoreError};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Sockets or TLS.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The metrics.
    #[error("cannot count: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Threads or signals.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// `keyrink serve`: until INT or TERM.
pub fn run(arguments: &cli::Serve) -> Result<(), ServeError> {
    let config = &arguments.configuration()?;
    logging::start(&config.log)?;
    let metrics = Metrics::install()?;
    let store: Arc<dyn Store> = admin::open_store(config, Durability::Full)?;
    let _follower = Follower::start(Arc::clone(&store))?;
    load_beside(config, &store, &arguments.load)?;
    let routes = hkp(config, &store);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(serving_threads(config.http.threads))
        .thread_name("keyrink-http")
        .thread_stack_size(STACK_OCTETS)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()?;
    let routes = about(routes, config, &metrics);
    let served = runtime.block_on(serve(arguments, config, &store, routes, metrics));
    // Whoever waits for a partner's answer is not worth waiting for.
    runtime.shutdown_timeout(SHUTDOWN_WITHIN);
    let peers = served?;
    peers.release();
    // Not left to the end of the last one that uses the store: that may be a thread that still waits for a partner.
    Ok(store.leave()?)
}

async fn serve(
    arguments: &cli::Serve,
    config: &Config,
    store: &Arc<dyn Store>,
    routes: Routes,
    metrics: Metrics,
) -> Result<Arc<Peers>, ServeError> {
    let server = Server::bind(&config.http)?;
    for address in server.addresses() {
        tracing::info!(%address, "listening");
    }
    let certificate = server.certificate();
    let peers = Arc::new(Peers::start(config, Arc::clone(store))?);
    let _deriver = Deriver::start(Arc::clone(store), peers.complete())?;
    // The thread of the signals outlives everything and must not hold the store.
    let (arguments, runtime, known) = (arguments.clone(), Handle::current(), Arc::downgrade(&peers));
    let stop = signals::obey(move || {
        // Signals have a thread of their own; partners have their tasks here.
        let _entered = runtime.enter();
        if let Some(peers) = known.upgrade() {
            reload_partners(&arguments, &peers);
        }
        match certificate.as_ref().map(|certificate| certificate.reload()) {
            Some(Ok(())) => tracing::info!("the TLS certificate was read again"),
            Some(Err(error)) => tracing::error!(%error, "the old TLS certificate stays in use"),
            None => {}
        }
    })?;
    tokio::spawn(metrics.keep_small());
    tokio::spawn(signals::watchdog());
    signals::ready();
    server.run(Answers::new(routes, config), stop).await;
    Ok(peers)
}

/// Reads the configuration again for the sake of its partners.
fn reload_partners(arguments: &cli::Serve, peers: &Peers) {
    match arguments.configuration() {
        Ok(config) => {
            peers.reload(&config.partners);
            tracing::info!(partners = config.partners.len(), "the partners were read again");
        }
        Err(error) => tracing::error!(%error, "the old partners stay in use"),
    }
}

/// The routes of HKP.
fn hkp(config: &Config, store: &Arc<dyn Store>) -> Routes {
    let body_time = Duration::from_secs(config.http.body_seconds.get().into());
    let limits = BodyLimits {
        octets: config.http.body_octets.get(),
        time: body_time,
    };
    let ingest = Ingest::new(config, Arc::clone(store));
    let orders = Arc::new(Orders::new(config, ingest.clone(), crate::peers::partner::now));
    let submissions = Submissions::new(ingest, limits, config.http.submissions_octets.get());
    let submissions = Arc::new(submissions);
    let answers = Arc::new(Room::new(config.http.answers_octets.get(), 0));
    let queries = HashQueries {
        store: Arc::clone(store),
        policy: Policy::new(config),
        limits: BodyLimits {
            octets: hashquery::QUESTION_OCTETS_MAX,
            time: body_time,
        },
        throttle: Throttle::new(config.peers.requests_per_second.get()),
        room: Arc::clone(&answers),
        answer_octets: HASHQUERY_ANSWER_OCTETS,
    };
    let web = Web::new(config, Arc::clone(store), answers);
    let submitting = add::routes(Arc::clone(&submissions)).merge(hashquery::routes(Arc::new(queries)));
    let submitting = submitting.merge(orders::routes(orders, submissions));
    web::routes(Arc::new(web)).merge(submitting)
}

/// Loads keyrings while the server runs.
fn load_beside(config: &Config, store: &Arc<dyn Store>, paths: &[PathBuf]) -> io::Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    let (config, store, paths) = (config.clone(), Arc::clone(store), paths.to_vec());
    let load = move || match admin::load::load(&config, store, &paths, false, &Progress::for_terminal) {
        Ok(report) => report
            .to_string()
            .lines()
            .for_each(|line| tracing::info!("load: {line}")),
        Err(error) => tracing::error!(%error, "load"),
    };
    std::thread::Builder::new()
        .name("keyrink-load".into())
        .spawn(load)
        .map(drop)
}

/// Adds the routes that tell about the server itself.
fn about(routes: Routes, config: &Config, metrics: &Metrics) -> Routes {
    let routes = routes.route("/healthz", get(async || "ok\n"));
    if !config.http.metrics {
        return routes;
    }
    let metrics = metrics.clone();
    routes.route(
        "/metrics",
        get(async move || ([("content-type", "text/plain; version=0.0.4")], metrics.render())),
    )
}

/// How many threads serve requests. Short reads of the store run on these threads, because handing them to others
/// costs more than they do; with several threads for each core, one that waits for a disk holds up no other.
fn serving_threads(setting: u32) -> usize {
    match setting {
        0 => THREADS_PER_CORE * config::threads(0),
        threads => config::threads(threads),
    }
}

const THREADS_PER_CORE: usize = 4;

/// Threads for long work: submissions of more than a few KiB, searches of words, answers that are not small, hashqueries.
const BLOCKING_THREADS_MAX: usize = 64;
/// The longest answer to one hashquery: far more than the 100 certificates that peers ask for at once usually have.
const HASHQUERY_ANSWER_OCTETS: usize = 64 << 20;
/// How long work for partners may go on after the last request is answered.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(2);
/// Stack of a thread: handlers keep what is large on the heap.
const STACK_OCTETS: usize = 1 << 20;
