//! Which key packets Hockeypuck reads.
//!
//! Stricter than [`Key::read`], which finds an identity in nearly anything: the algorithm must be known in this version
//! of key, all its fields must be there, and some are looked into. Octets behind the last field don't matter.

use crate::crypto::Verifier;
use crate::packet::key::{Key, integer, octet_string};

/// Does it read the body of a key packet?
pub(crate) fn is_read(body: &[u8]) -> bool {
    Key::read(body).is_ok_and(|key| has_fields(&key).is_some_and(|sound| sound))
}

/// Can a key with this algorithm make signatures?
pub(crate) fn can_sign(algorithm: u8) -> bool {
    matches!(algorithm, 1 | 3 | 17 | 19 | 22 | 27 | 28 | 30..=34)
}

/// Does it try to verify with this key? An order of a DSA key that does not fill its octets rules that out.
pub(crate) fn is_usable(key: &Key<'_>) -> bool {
    const DSA: u8 = 17;
    let order = || {
        let (_, rest) = integer(key.material)?;
        let (order, _) = integer(rest)?;
        order.iter().find(|octet| **octet != 0).copied()
    };
    can_sign(key.algorithm) && (key.algorithm != DSA || order().is_some_and(|first| first >= 0x80))
}

/// Are the fields of its algorithm there (else `None`) and sound?
fn has_fields(key: &Key<'_>) -> Option<bool> {
    let material = key.material;
    Some(match (key.version, key.algorithm) {
        (2..=4 | 6, 1..=3) => {
            let (_, rest) = integer(material)?;
            integer(rest)?.0.len() <= EXPONENT_OCTETS_MAX
        }
        (4 | 6, 16) => has_integers(material, 3),
        (4 | 6, 17) => has_integers(material, 4),
        (4 | 6, 18) => is_ecdh(key.version, material)?,
        (4 | 6, 19) => is_ecdsa(material)?,
        (4, 22) => is_eddsa(material)?,
        (4 | 6, 25 | 27) => material.len() >= 32,
        (4 | 6, 26) => material.len() >= 56,
        (4 | 6, 28) => material.len() >= 57,
        (4 | 6, 35) => is_ml_kem(material.get(32..32 + 1_184)?),
        (6, 36) => is_ml_kem(material.get(56..56 + 1_568)?),
        (6, 30) => material.len() >= 32 + 1_952,
        (6, 31) => material.len() >= 57 + 2_592,
        (6, 32 | 33) => material.len() >= 32,
        (6, 34) => material.len() >= 64,
        _ => false,
    })
}

fn has_integers(material: &[u8], count: usize) -> bool {
    let read = (0..count).try_fold(material, |rest, _| integer(rest).map(|(_, rest)| rest));
    read.is_some()
}

/// The point is only measured, and only on the curves of RFC 7748; how the session key is wrapped must be known.
fn is_ecdh(version: u8, material: &[u8]) -> Option<bool> {
    let (curve, rest) = octet_string(material)?;
    let (point, rest) = integer(rest)?;
    let (wrapping, _) = octet_string(rest)?;
    let fits = match curve {
        CURVE25519 => version != 6 && point.len() == 33,
        X448 => point.len() == 57,
        _ => is_weierstrass(curve),
    };
    let known = matches!(wrapping, [1, 8..=10 | 11 | 12 | 14, 2 | 3 | 7..=9, ..]);
    Some(fits && known)
}

fn is_ecdsa(material: &[u8]) -> Option<bool> {
    const UNCOMPRESSED: u8 = 4;
    let (curve, rest) = octet_string(material)?;
    let (point, _) = integer(rest)?;
    let whole = is_weierstrass(curve) && point.first() == Some(&UNCOMPRESSED);
    Some(whole && Verifier::new(19, material).is_ok())
}

fn is_eddsa(material: &[u8]) -> Option<bool> {
    const NATIVE: u8 = 0x40;
    let (curve, rest) = octet_string(material)?;
    let (point, _) = integer(rest)?;
    let octets = match curve {
        ED25519 => 33,
        ED448 => 58,
        _ => return Some(false),
    };
    Some(point.len() == octets && point.first() == Some(&NATIVE))
}

fn is_weierstrass(curve: &[u8]) -> bool {
    matches!(
        curve,
        [0x2A, 0x86, 0x48, 0xCE, 0x3D, 3, 1, 7]
            | [0x2B, 0x81, 4, 0, 0x22 | 0x23 | 0x0A]
            | [0x2B, 0x24, 3, 3, 2, 8, 1, 1, 7 | 11 | 13]
    )
}

/// All coefficients are below the modulus (FIPS 203 §7.2); a seed of 32 octets follows them.
fn is_ml_kem(key: &[u8]) -> bool {
    const MODULUS: u16 = 3_329;
    let (coefficients, _seed) = key.split_at(key.len() - 32);
    let pairs = coefficients.chunks_exact(3).map(|octets| {
        let [a, b, c] = [octets[0], octets[1], octets[2]].map(u16::from);
        [a | (b & 15) << 8, b >> 4 | c << 4]
    });
    pairs.flatten().all(|coefficient| coefficient < MODULUS)
}

/// Octets of an RSA exponent as written.
const EXPONENT_OCTETS_MAX: usize = 3;

const CURVE25519: &[u8] = &[0x2B, 6, 1, 4, 1, 0x97, 0x55, 1, 5, 1];
const ED25519: &[u8] = &[0x2B, 6, 1, 4, 1, 0xDA, 0x47, 0x0F, 1];
const ED448: &[u8] = &[0x2B, 0x65, 0x71];
const X448: &[u8] = &[0x2B, 0x65, 0x6F];
