//! OpenPGP certificates as a keyserver needs them.

pub mod crypto;
