//! `keyrink serve`: runtime, log, sockets and signals, from start to orderly end.

use crate::config::{self, Config};
use crate::http::answer::Answers;
use crate::http::routes::Routes;
use crate::http::server::{Server, StartError};
use crate::logging::{self, LogError};
use crate::metrics::Metrics;
use crate::signals::{self, Request, Signals};
use axum::routing::get;
use std::io;

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
    /// Threads or signals.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Serves `routes` and the pages about the server itself until INT or TERM.
pub fn run(config: &Config, routes: Routes) -> Result<(), ServeError> {
    logging::start(&config.log)?;
    let metrics = Metrics::install()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(serving_threads(config.http.threads))
        .thread_name("keyrink-http")
        .thread_stack_size(STACK_OCTETS)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()?;
    runtime.block_on(serve(config, about(routes, config, &metrics), metrics))
}

async fn serve(config: &Config, routes: Routes, metrics: Metrics) -> Result<(), ServeError> {
    let mut signals = Signals::listen()?;
    let server = Server::bind(&config.http)?;
    for address in server.addresses() {
        tracing::info!(%address, "listening");
    }
    let certificate = server.certificate();
    let stop = async move {
        while signals.next().await == Request::Reload {
            match certificate.as_ref().map(|certificate| certificate.reload()) {
                Some(Ok(())) => tracing::info!("the TLS certificate was read again"),
                Some(Err(error)) => tracing::error!(%error, "the old TLS certificate stays in use"),
                None => {}
            }
        }
        signals::stopping();
        tracing::info!("stopping");
    };
    tokio::spawn(metrics.keep_small());
    tokio::spawn(signals::watchdog());
    signals::ready();
    server.run(Answers::new(routes, config), stop).await;
    Ok(())
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

/// Threads for long work: submissions that wait for their commit, searches of words.
const BLOCKING_THREADS_MAX: usize = 64;
/// Stack of a thread: handlers keep what is large on the heap.
const STACK_OCTETS: usize = 1 << 20;
