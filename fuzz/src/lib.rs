//! Fuzz targets: functions that take any bytes and must not panic, loop or eat memory.
//!
//! Each file is one target: a `run` function and a test that feeds it mutations of a small corpus
//! for a few seconds, on stable Rust and with a fixed seed. The same functions are run with
//! coverage guidance by cargo-fuzz, from the manifest in `cargo-fuzz/`:
//!
//! ```text
//! cargo +nightly fuzz run --fuzz-dir fuzz/cargo-fuzz recon_wire
//! ```

#![allow(clippy::panic, reason = "a target reports by panicking")]

#[cfg(test)]
mod certificates;
pub mod checkpoint;
pub mod client_index;
pub mod config;
pub mod forwarded;
pub mod hashquery_answer;
pub mod hockeypuck_document;
pub mod http_hashquery;
pub mod http_query;
pub mod http_request_line;
pub mod http_search;
pub mod http_submission;
pub mod load_pieces;
pub mod load_unpacked;
pub mod mutation;
pub mod openpgp_armor;
pub mod openpgp_key;
pub mod openpgp_keyring;
pub mod openpgp_packets;
pub mod openpgp_signature;
pub mod openpgp_stored;
pub mod order;
pub mod recon_dialogue;
pub mod recon_session;
pub mod recon_wire;
pub mod rules;
