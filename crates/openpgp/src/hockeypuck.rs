//! Hockeypuck's eyes: what Hockeypuck 2.4 reads, believes and keeps of a certificate.
//!
//! Hockeypuck takes every packet apart, drops what it cannot read, verifies self-signatures, tests others for
//! plausibility, and stores the rest: the *normal form*, over which it computes the digest that its peers reconcile.
//! To name that digest, Keyrink judges each copy of a certificate in the same way as it is verified:
//!
//! * [`key`] and [`signature`] say which packets can be read, [`rules`] which signatures may stand where;
//! * the verifier notes for each signature whether it is believed, as the owner's ([`Fact::NormalOwn`]) or as somebody
//!   else's ([`Fact::NormalOther`]);
//! * [`normal`] counts how often each packet stands in the normal form of the copy.
//!
//! The counts are stored and merged with the packets. What depends on the certificate as a whole, the effect of a
//! revocation above all, is left to the [`view`] of the [projection](crate::project), which needs no cryptography.
//!
//! [`Fact::NormalOwn`]: crate::facts::Fact::NormalOwn
//! [`Fact::NormalOther`]: crate::facts::Fact::NormalOther

pub(crate) mod key;
pub(crate) mod normal;
pub(crate) mod rules;
pub(crate) mod signature;
pub(crate) mod trust;
pub(crate) mod view;

use crate::packet::tag;

/// Octets of all packets of one copy; a longer one is not taken.
pub(crate) const COPY_OCTETS_MAX: u64 = 1 << 20;

/// Is a packet so long that it is passed over as if it were not there?
pub(crate) fn passes_over(tag: u8, octets: usize) -> bool {
    octets > if tag == tag::SIGNATURE { 65_536 } else { 8_192 }
}
