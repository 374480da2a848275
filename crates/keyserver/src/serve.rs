//! `keyrink serve`: runtime, log, sockets and signals, from start to orderly end.

use crate::config::{Config, threads};
use crate::http::answer::Answers;
use crate::http::server::{Server, StartError};
use crate::logging::{self, LogError};
use crate::metrics::Metrics;
use crate::signals::{self, Request, Signals};
use axum::Router;
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

/// Serves `router` and the pages about the server itself until INT or TERM.
pub fn run(config: &Config, router: Router) -> Result<(), ServeError> {
    logging::start(&config.log)?;
    let metrics = Metrics::install()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads(config.http.threads))
        .thread_name("keyrink-http")
        .thread_stack_size(STACK_OCTETS)
        .enable_all()
        .build()?;
    runtime.block_on(serve(config, router.merge(about(config, &metrics)), metrics))
}

async fn serve(config: &Config, router: Router, metrics: Metrics) -> Result<(), ServeError> {
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
    server.run(Answers::new(router, config), stop).await;
    Ok(())
}

/// Routes that tell about the server itself.
fn about(config: &Config, metrics: &Metrics) -> Router {
    let router = Router::new().route("/healthz", get(async || "ok\n"));
    if !config.http.metrics {
        return router;
    }
    let metrics = metrics.clone();
    router.route(
        "/metrics",
        get(async move || ([("content-type", "text/plain; version=0.0.4")], metrics.render())),
    )
}

/// Stack of a thread: handlers keep what is large on the heap.
const STACK_OCTETS: usize = 1 << 20;
