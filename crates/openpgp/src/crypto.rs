//! Digests and signature checks on raw octets: the only place that names crypto libraries.
//!
//! Nothing here knows packets, certificates or policy. A key arrives as the *material* of a public-key packet, a
//! signature as its *value*, and both are read as tolerantly as peers read them: octets after the last field are
//! ignored, integers may carry leading zeros. Everything checked is public, so nothing needs to run in constant
//! time, and nothing here can sign, decrypt or make a key.
//!
//! | module | what it does | with |
//! |---|---|---|
//! | [`digest`] | every hash of OpenPGP, streaming; fingerprints | AWS-LC; `sha1-checked` for fingerprints |
//! | `rsa`, `dsa` | modular arithmetic and our own padding comparison, so that any size and hash works | AWS-LC |
//! | `ecdsa` | NIST curves, secp256k1, Brainpool | AWS-LC |
//! | `fixed` | keys and signatures of a fixed number of octets: EdDSA, ML-DSA, SLH-DSA, alone and combined | `ed25519-dalek`, AWS-LC |
//! | `rare` | Ed448 and SLH-DSA, behind the feature `rare-algorithms` | `cx448`, `fips205` |
//! | `aws_lc` | all `unsafe`: owned wrappers around the C functions that AWS-LC's safe crate lacks | `aws-lc-sys` |

#[allow(unsafe_code)]
mod aws_lc;
pub mod digest;
mod dsa;
mod ecdsa;
mod fields;
mod fixed;
#[cfg_attr(not(feature = "rare-algorithms"), path = "crypto/rare_absent.rs")]
mod rare;
mod rsa;

use fields::Fields;

/// A public key ready to check signatures. Reading it costs up to 20 µs, so make it once for all signatures of a
/// certificate.
pub struct Verifier {
    algorithm: u8,
    key: Key,
}

impl Verifier {
    /// Reads a key of the public-key algorithm id `algorithm` (RFC 9580 §9.1, RFC 9980 for ids 30 to 34).
    ///
    /// `material` is the body of the key packet after the algorithm octet (after the four-octet count of version 5
    /// and 6 keys); octets after the last field are ignored.
    pub fn new(algorithm: u8, material: &[u8]) -> Result<Self, KeyUnusable> {
        let mut fields = Fields::new(material);
        let key = match algorithm {
            1 | 3 => Key::Rsa(rsa::Key::read(&mut fields)?),
            17 => Key::Dsa(dsa::Key::read(&mut fields)?),
            19 => Key::Ecdsa(ecdsa::Key::read(&mut fields)?),
            22 => Key::EddsaLegacy(fixed::Key::read_legacy(&mut fields)?),
            27..=34 => Key::Fixed(fixed::read_parts(algorithm, &mut fields)?),
            _ => return Err(KeyUnusable::Unsupported),
        };
        Ok(Self { algorithm, key })
    }

    /// Checks a signature over `digest`, which is the full digest made with the hash algorithm id `hash_id`.
    ///
    /// `value` is the body of the signature packet from the first integer on (after the hash check octets, and after
    /// the salt of version 6 signatures); octets after its last field are ignored. A signature whose algorithm
    /// differs from the key's is invalid, RSA ids 1 and 3 included. Takes less than about 20 ms for any input.
    pub fn verify(&self, sig_algorithm: u8, hash_id: u8, digest: &[u8], value: &[u8]) -> Check {
        if sig_algorithm != self.algorithm {
            return Check::Invalid;
        }
        let mut value = Fields::new(value);
        match &self.key {
            Key::Rsa(key) => key.verify(hash_id, digest, &mut value),
            Key::Dsa(key) => key.verify(digest, &mut value),
            Key::Ecdsa(key) => key.verify(digest, &mut value),
            Key::EddsaLegacy(key) => key.verify_legacy(digest, &mut value),
            Key::Fixed(parts) => parts.iter().all(|part| part.verify(digest, &mut value)).into(),
        }
    }

    /// Whether a valid `value` is the one encoding of its numbers: bit counts without leading zeros, nothing behind the
    /// last field, no number that was made larger by a multiple of its modulus or order. Anybody could add other encodings.
    pub fn is_canonical(&self, value: &[u8]) -> bool {
        let mut value = Fields::new(value);
        let fits = match &self.key {
            Key::Rsa(key) => key.is_canonical(&mut value),
            // Both numbers are below the order, or the signature is not valid.
            Key::Dsa(_) | Key::Ecdsa(_) => value.exact_integer().is_some() && value.exact_integer().is_some(),
            Key::EddsaLegacy(key) => key.is_canonical_legacy(&mut value),
            Key::Fixed(parts) => parts.iter().all(|part| part.is_canonical(&mut value)),
        };
        fits && value.is_empty()
    }

    /// What checking one signature costs, in steps of 1 to 4 ns: a number that depends on the key only.
    pub fn work(&self) -> u64 {
        match &self.key {
            Key::Rsa(key) => key.work(),
            Key::Dsa(key) => key.work(),
            Key::Ecdsa(_) => ECDSA_WORK,
            Key::EddsaLegacy(key) => key.work(),
            Key::Fixed(parts) => parts.iter().map(fixed::Key::work).sum(),
        }
    }
}

/// The slowest curve counts for all.
const ECDSA_WORK: u64 = 1 << 18;

/// What checking a signature found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The key made this signature over this digest.
    Valid,
    /// It did not, or the value cannot be read.
    Invalid,
    /// This program cannot tell: an unknown hash algorithm.
    Unsupported,
}

impl From<bool> for Check {
    fn from(valid: bool) -> Self {
        if valid { Self::Valid } else { Self::Invalid }
    }
}

/// Why no [`Verifier`] can be made of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyUnusable {
    /// The algorithm cannot sign or is unknown, its curve is unknown, or its numbers are too small or so large that
    /// checking one signature would take too long.
    #[error("this algorithm, curve or size of key is not supported")]
    Unsupported,
    /// The material is cut off or cannot be a key of its algorithm, such as an even modulus or a point off the curve.
    #[error("the key material is malformed")]
    Malformed,
}

enum Key {
    Rsa(rsa::Key),
    Dsa(dsa::Key),
    Ecdsa(ecdsa::Key),
    /// Ed25519 or Ed448 with its signature dressed up as integers.
    EddsaLegacy(fixed::Key),
    /// Every part must verify. More than one in the post-quantum combinations.
    Fixed(Vec<fixed::Key>),
}

/// Whether an exponentiation stays under about 10 ms: squaring is quadratic in the modulus and done once for each bit
/// of the exponent. RSA-4096 may have an exponent of 2048 bits, RSA-16384 one of 128.
fn affordable(modulus_bits: u32, exponent_bits: u32) -> bool {
    u64::from(modulus_bits).pow(2) * u64::from(exponent_bits) <= 1 << 35
}

/// The same as [`Verifier::work`].
fn power_work(modulus_bits: u32, exponent_bits: u32) -> u64 {
    (u64::from(modulus_bits).pow(2) * u64::from(exponent_bits)) >> 12
}

const MODULUS_BITS_MAX: u32 = 16_384;
