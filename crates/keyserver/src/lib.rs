//! The program `keyrink`, as a library so that its tests reach every part.
//!
//! [`cli`] reads the command line and [`config`] the file and environment behind it; [`serve`] runs the web server of
//! [`http`] and reconciles by way of [`peers`]; [`admin`] holds the subcommands that work on the store, [`client`] those that ask other keyservers.

mod acquaint;
pub mod admin;
pub mod cli;
pub mod client;
pub mod config;
#[doc(hidden)]
pub mod decoders;
mod derive;
mod follow;
pub mod formats;
pub mod http;
pub mod ingest;
pub mod lifecycle;
pub mod logging;
pub mod metrics;
pub mod network;
pub mod peers;
pub mod serve;
pub mod signals;
