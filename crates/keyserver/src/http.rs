//! The web server, in the order a request passes: [`server`] (sockets, TLS, limits), [`request_line`] (repair),
//! [`answer`] (headers, time limit, metrics around every answer), [`routes`], then the handlers, which take their
//! parameters from [`query`] and their bodies from [`body`].

pub mod add;
pub mod answer;
mod assets;
pub mod body;
mod certificate;
pub mod hashquery;
mod hits;
mod index;
pub mod lookup;
mod meter;
mod pages;
pub mod query;
mod reply;
pub mod request_line;
pub mod routes;
mod search;
pub mod server;
pub mod stats;
mod time;
pub mod tls;
pub mod web;

/// Runs what may wait for the store or compute for long, off the threads that serve connections.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
