//! Keys and signatures of a fixed number of octets: EdDSA, ML-DSA and SLH-DSA, alone or one after the other.

use aws_lc_rs::signature::{ML_DSA_65, ML_DSA_87, ParsedPublicKey, VerificationAlgorithm};
use ed25519_dalek::{Signature, Verifier, VerifyingKey};

use super::fields::Fields;
use super::{Check, KeyUnusable, rare};

pub(super) struct Key {
    signature_octets: usize,
    scheme: Scheme,
}

enum Scheme {
    Ed25519(Box<VerifyingKey>),
    AwsLc(ParsedPublicKey),
    Rare(rare::Key),
}

/// Reads the keys that make up a key of the given public-key algorithm id: the post-quantum combinations have two,
/// whose keys and signatures follow each other and must all be good.
pub(super) fn read_parts(algorithm: u8, fields: &mut Fields) -> Result<Vec<Key>, KeyUnusable> {
    let readers: &[Reader] = match algorithm {
        27 => &[Key::read_ed25519],
        28 => &[Key::read_ed448],
        30 => &[Key::read_ed25519, Key::read_ml_dsa_65],
        31 => &[Key::read_ed448, Key::read_ml_dsa_87],
        32 => &[|fields| Key::rare(7_856, rare::Key::slh_dsa_128s(fields.octets(32)?))],
        33 => &[|fields| Key::rare(17_088, rare::Key::slh_dsa_128f(fields.octets(32)?))],
        34 => &[|fields| Key::rare(29_792, rare::Key::slh_dsa_256s(fields.octets(64)?))],
        _ => return Err(KeyUnusable::Unsupported),
    };
    readers.iter().map(|read| read(fields)).collect()
}

type Reader = fn(&mut Fields) -> Result<Key, KeyUnusable>;

impl Key {
    /// Reads a key of algorithm 22: a curve, then `40` and the key as an integer (RFC 9580 §5.5.5.5).
    pub(super) fn read_legacy(fields: &mut Fields) -> Result<Self, KeyUnusable> {
        let read: Reader = match fields.object_identifier()? {
            b"\x2b\x06\x01\x04\x01\xda\x47\x0f\x01" => Self::read_ed25519,
            b"\x2b\x65\x71" => Self::read_ed448,
            _ => return Err(KeyUnusable::Unsupported),
        };
        let [LEGACY_PREFIX, point @ ..] = fields.integer()? else {
            return Err(KeyUnusable::Malformed);
        };
        let mut point = Fields::new(point);
        let key = read(&mut point)?;
        if point.is_empty() {
            Ok(key)
        } else {
            Err(KeyUnusable::Malformed)
        }
    }

    pub(super) fn work(&self) -> u64 {
        match self.scheme {
            Scheme::Ed25519(_) => 1 << 15,
            Scheme::AwsLc(_) => 1 << 17,
            Scheme::Rare(_) => 1 << 19,
        }
    }

    /// Checks the next signature of this kind in `value`.
    pub(super) fn verify(&self, digest: &[u8], value: &mut Fields) -> bool {
        let Ok(signature) = value.octets(self.signature_octets) else {
            return false;
        };
        match &self.scheme {
            // The check of RFC 8032 without the cofactor and with a canonical second half, as AWS-LC and OpenSSL do it.
            Scheme::Ed25519(key) => {
                Signature::from_slice(signature).is_ok_and(|signature| key.verify(digest, &signature).is_ok())
            }
            Scheme::AwsLc(key) => key.verify_sig(digest, signature).is_ok(),
            Scheme::Rare(key) => key.verify(digest, signature),
        }
    }

    /// Checks a signature of algorithm 22.
    pub(super) fn verify_legacy(&self, digest: &[u8], value: &mut Fields) -> Check {
        self.legacy_signature(value)
            .is_some_and(|signature| self.verify(digest, &mut Fields::new(&signature)))
            .into()
    }

    /// Of a valid signature: whether the next of this kind in `value` has the one second half that it can have. The check of
    /// Ed25519 ensures that, and the other schemes have none.
    pub(super) fn is_canonical(&self, value: &mut Fields) -> bool {
        let Ok(signature) = value.octets(self.signature_octets) else {
            return false;
        };
        self.signature_octets != ED448_SIGNATURE_OCTETS || is_below_ed448_order(&signature[57..])
    }

    /// The same of algorithm 22.
    pub(super) fn is_canonical_legacy(&self, value: &mut Fields) -> bool {
        match value.exact_integer() {
            Some([LEGACY_PREFIX, signature @ ..]) if self.signature_octets == ED448_SIGNATURE_OCTETS => {
                self.is_canonical(&mut Fields::new(signature))
            }
            Some(_) => value.exact_integer().is_some(),
            None => false,
        }
    }

    /// Ed25519: the halves are integers of at most 32 octets each. Ed448: all of it behind `40` in the first integer.
    fn legacy_signature(&self, value: &mut Fields) -> Option<Vec<u8>> {
        let first = value.integer().ok()?;
        if self.signature_octets == ED448_SIGNATURE_OCTETS {
            let signature = first.strip_prefix(&[LEGACY_PREFIX])?;
            return (signature.len() == ED448_SIGNATURE_OCTETS).then(|| signature.to_vec());
        }
        let second = value.integer().ok()?;
        Some([padded(first)?, padded(second)?].concat())
    }

    fn read_ed25519(fields: &mut Fields) -> Result<Self, KeyUnusable> {
        let key: &[u8; 32] = fields.octets(32)?.try_into().map_err(|_| KeyUnusable::Malformed)?;
        let key = VerifyingKey::from_bytes(key).map_err(|_| KeyUnusable::Malformed)?;
        Ok(Self {
            signature_octets: Signature::BYTE_SIZE,
            scheme: Scheme::Ed25519(Box::new(key)),
        })
    }

    fn read_ed448(fields: &mut Fields) -> Result<Self, KeyUnusable> {
        Self::rare(ED448_SIGNATURE_OCTETS, rare::Key::ed448(fields.octets(57)?))
    }

    fn read_ml_dsa_65(fields: &mut Fields) -> Result<Self, KeyUnusable> {
        Self::aws_lc(3_309, &ML_DSA_65, fields.octets(1_952)?)
    }

    fn read_ml_dsa_87(fields: &mut Fields) -> Result<Self, KeyUnusable> {
        Self::aws_lc(4_627, &ML_DSA_87, fields.octets(2_592)?)
    }

    fn aws_lc(
        signature_octets: usize,
        algorithm: &'static dyn VerificationAlgorithm,
        key: &[u8],
    ) -> Result<Self, KeyUnusable> {
        let scheme = ParsedPublicKey::new(algorithm, key)
            .map(Scheme::AwsLc)
            .map_err(|_| KeyUnusable::Malformed)?;
        Ok(Self {
            signature_octets,
            scheme,
        })
    }

    fn rare(signature_octets: usize, key: Result<rare::Key, KeyUnusable>) -> Result<Self, KeyUnusable> {
        key.map(|key| Self {
            signature_octets,
            scheme: Scheme::Rare(key),
        })
    }
}

/// Half an Ed25519 signature: an integer drops its leading zeros.
fn padded(integer: &[u8]) -> Option<[u8; 32]> {
    let mut half = [0; 32];
    half.get_mut(32_usize.checked_sub(integer.len())?..)?
        .copy_from_slice(integer);
    Some(half)
}

/// Is this number, little-endian, below the order of Ed448's group (RFC 8032 §5.2)?
fn is_below_ed448_order(octets: &[u8]) -> bool {
    octets.iter().rev().lt(&ED448_ORDER)
}

/// Big-endian, with the octet that is zero in every second half of a signature.
const ED448_ORDER: [u8; 57] = [
    0, 0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7c, 0xca, 0x23, 0xe9, 0xc4, 0x4e, 0xdb, 0x49, 0xae,
    0xd6, 0x36, 0x90, 0x21, 0x6c, 0xc2, 0x72, 0x8d, 0xc5, 0x8f, 0x55, 0x23, 0x78, 0xc2, 0x92, 0xab, 0x58, 0x44, 0xf3,
];

/// Marks a point in its native encoding (RFC 9580 §11.2.2).
const LEGACY_PREFIX: u8 = 0x40;
const ED448_SIGNATURE_OCTETS: usize = 114;
