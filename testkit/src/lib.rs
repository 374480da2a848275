//! What tests and benchmarks need and no user gets: certificates made to measure, real programs of others on loopback,
//! and load.
//!
//! * [`Certificate`], [`Key`], [`Signature`]: any certificate, right or wrong, from a seed. Written without the code
//!   under test, and without its idea of the format.
//! * [`generate`]: small certificates by the thousand.
//! * [`peers`]: SKS, GnuPG, Sequoia and others as fixtures.
//! * [`load`], [`crash`], [`mod@bench`], [`engines`], [`reconcile`], [`shared`], [`abuse`]: Keyrink under load, killed, beside
//!   SKS, on both engines, with its peers, many of it on one database, and attacked.
//! * [`report`]: what a run of the tests must not keep to itself.
//! * [`http`]: a client that can also send what no client should.

pub mod abuse;
pub mod bench;
pub mod crash;
pub mod engines;
pub mod generate;
pub mod http;
pub mod keyring;
pub mod load;
pub mod machine;
pub mod peers;
pub mod reconcile;
pub mod report;
pub mod shared;

mod armor;
mod certificate;
mod error;
mod key;
mod packet;
mod signature;

pub use armor::{armor, dearmor, form_encode, hex};
pub use certificate::{Certificate, HOSTILE_USER_IDS};
pub use error::Error;
pub use key::{Algorithm, EPOCH, Key};
pub use packet::{Format, Tag, packet};
pub use signature::{Kind, Reason, Signature, Target};
