//! The web server, in the order a request passes: [`server`] (sockets, TLS, limits), [`request_line`] (repair),
//! [`answer`] (who asks, as `proxies` tell, and how often, as [`throttle`] allows; headers, time limit, metrics around every answer; `hyper_refusals` for those that hyper gives), [`routes`],
//! then the handlers, which take their parameters from [`query`], their bodies from [`body`] into [`room`] that is bounded, and ask the store through
//! [`handoff`].

pub mod add;
pub mod answer;
mod assets;
pub mod body;
mod certificate;
pub mod handoff;
pub mod hashquery;
mod hits;
mod hyper_refusals;
mod index;
pub mod lookup;
mod meter;
pub mod orders;
mod pages;
pub(crate) mod proxies;
pub mod query;
mod reply;
pub mod request_line;
pub mod room;
pub mod routes;
pub(crate) mod search;
pub mod server;
pub mod stats;
pub mod throttle;
pub mod time;
pub mod tls;
pub mod web;
