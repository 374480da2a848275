//! OpenPGP certificates as a keyserver needs them.
//!
//! No I/O. In the order data flows: [`armor`] turns text into octets, [`packet`] cuts them into packets,
//! [`read`] attaches packets to components of certificates ([`cert`]), [`verify`] finds the [`facts`] about every
//! signature, [`merge`] unites copies, [`policy`] bounds them, [`project`] shows each kind of reader its part
//! ([`serving`] says how much of what others signed, [`veto`] what an operator keeps from users), of
//! which [`digest`] takes the digest that peers know, [`status`] derives expiry and revocation, [`terms`] says
//! what a certificate is found by, and [`stored`] is the form in which it is kept.
//!
//! Nothing is ever rewritten: packet bodies stay as they arrived, understood or not.

pub mod armor;
pub mod cert;
pub mod crypto;
pub mod digest;
pub mod explain;
pub mod facts;
mod hockeypuck;
pub mod merge;
pub mod packet;
pub mod policy;
pub mod project;
pub mod read;
pub mod serving;
pub mod status;
pub mod stored;
pub mod terms;
pub mod verify;
pub mod veto;
