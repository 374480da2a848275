//! RSA with PKCS #1 v1.5 padding, of any size from 512 to 16 384 bits and with any hash algorithm.
//!
//! The public operation is ours to compare: AWS-LC's combined check refuses odd sizes, and MD5 and RIPEMD-160 with
//! which old certificates are full.

use super::aws_lc::{Integer, Modulus};
use super::fields::Fields;
use super::{Check, KeyUnusable, MODULUS_BITS_MAX, affordable, power_work};

pub(super) struct Key {
    modulus: Modulus,
    exponent: Integer,
}

impl Key {
    pub(super) fn read(fields: &mut Fields) -> Result<Self, KeyUnusable> {
        let modulus = Integer::from_octets(fields.integer()?);
        let exponent = Integer::from_octets(fields.integer()?);
        if !exponent.is_odd() || exponent.bits() < 2 {
            return Err(KeyUnusable::Malformed);
        }
        let in_range = (MODULUS_BITS_MIN..=MODULUS_BITS_MAX).contains(&modulus.bits());
        if !in_range || !affordable(modulus.bits(), exponent.bits()) {
            return Err(KeyUnusable::Unsupported);
        }
        let modulus = Modulus::new(modulus).ok_or(KeyUnusable::Malformed)?;
        Ok(Self { modulus, exponent })
    }

    pub(super) fn work(&self) -> u64 {
        power_work(self.modulus.value().bits(), self.exponent.bits())
    }

    /// A value shorter than the modulus counts as padded with zeros, a longer one is invalid even if only zeros make
    /// it longer: so all peers see it.
    pub(super) fn verify(&self, hash_id: u8, digest: &[u8], value: &mut Fields) -> Check {
        let Some(prefix) = digest_info_prefix(hash_id) else {
            return Check::Unsupported;
        };
        let Ok(signature) = value.integer() else {
            return Check::Invalid;
        };
        let octets = self.modulus.value().bits().div_ceil(8) as usize;
        let Some(expected) = encoded_message(octets, prefix, digest) else {
            return Check::Invalid;
        };
        let in_range = signature.len() <= octets;
        let opened = in_range
            .then(|| self.modulus.power(&Integer::from_octets(signature), &self.exponent))
            .flatten();
        (opened == Some(Integer::from_octets(&expected))).into()
    }
}

impl Key {
    pub(super) fn is_canonical(&self, value: &mut Fields) -> bool {
        let number = value.exact_integer().map(Integer::from_octets);
        number.is_some_and(|number| number.is_residue_of(self.modulus.value()))
    }
}

/// `00 01 FF … FF 00`, then the digest with its algorithm (RFC 8017 §9.2), if that fits.
fn encoded_message(octets: usize, prefix: &[u8], digest: &[u8]) -> Option<Vec<u8>> {
    let filling = octets.checked_sub(3 + prefix.len() + digest.len())?;
    if filling < FILLING_MIN {
        return None;
    }
    let mut message = Vec::with_capacity(octets);
    message.extend([0, 1]);
    message.resize(2 + filling, 0xff);
    message.push(0);
    message.extend(prefix);
    message.extend(digest);
    Some(message)
}

/// The DER octets in front of a digest of the given hash algorithm id (RFC 9580 §5.2.3.1).
fn digest_info_prefix(hash_id: u8) -> Option<&'static [u8]> {
    Some(match hash_id {
        1 => b"\x30\x20\x30\x0c\x06\x08\x2a\x86\x48\x86\xf7\x0d\x02\x05\x05\x00\x04\x10",
        2 => b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14",
        3 => b"\x30\x21\x30\x09\x06\x05\x2b\x24\x03\x02\x01\x05\x00\x04\x14",
        8 => b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
        9 => b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30",
        10 => b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40",
        11 => b"\x30\x2d\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x04\x05\x00\x04\x1c",
        12 => b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x08\x05\x00\x04\x20",
        14 => b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x0a\x05\x00\x04\x40",
        _ => return None,
    })
}

const MODULUS_BITS_MIN: u32 = 512;

/// PKCS #1 asks for at least eight octets of filling.
const FILLING_MIN: usize = 8;
