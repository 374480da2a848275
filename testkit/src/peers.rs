//! Real programs of others, started on loopback in a throw-away folder and gone when dropped.
//!
//! Every fixture waits until its program is ready, and names the Debian package when the program is missing.

mod chromium;
mod gpg;
mod keyrink;
mod postgres;
mod process;
mod sks;
mod sq;

pub use chromium::{Chromium, Script};
pub use gpg::Gpg;
pub use keyrink::{Keyrink, KeyrinkOptions, store_arguments};
pub use postgres::Postgres;
pub(crate) use process::ended_cpu_seconds;
pub use process::{free_port, run};
pub use sks::{Sks, SksOptions};
pub use sq::Sq;
