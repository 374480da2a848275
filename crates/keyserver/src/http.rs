//! The web server, in the order a request passes: [`server`] (sockets, TLS, limits), [`request_line`] (repair),
//! [`answer`] (headers, time limit, metrics around every answer), then the router's handlers, which take their
//! parameters from [`query`] and their bodies from [`body`].

pub mod answer;
pub mod body;
mod meter;
pub mod query;
pub mod request_line;
pub mod server;
pub mod tls;
