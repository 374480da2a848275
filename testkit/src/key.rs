//! Keys whose secrets follow from a seed, so that every run makes the same octets.

use aws_lc_rs::agreement::{PrivateKey, X25519};
use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

use crate::packet::{Format, Tag, packet, put_integer};

/// What a key is for, which decides its algorithm and version (RFC 9580 sections 5.5 and 9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// EdDSA with Ed25519 (22) in a version 4 key, as GnuPG makes.
    EdDsaLegacy,
    /// ECDH with Curve25519 (18) in a version 4 key, as GnuPG makes.
    EcdhLegacy,
    /// Ed25519 (27) in a version 6 key.
    Ed25519,
    /// X25519 (25) in a version 6 key.
    X25519,
}

/// A key pair with its creation time, in seconds since 1970.
#[derive(Debug)]
pub struct Key {
    algorithm: Algorithm,
    created: u32,
    secret: [u8; 32],
    public: [u8; 32],
    signer: Option<Ed25519KeyPair>,
}

impl Key {
    /// The key that follows from `seed` and `label`, created within 10^7 seconds after [`EPOCH`].
    pub fn derive(seed: u64, label: &str, algorithm: Algorithm) -> Self {
        let secret = secret(&[b"primary", &seed.to_be_bytes(), label.as_bytes()]);
        let spread = secret[..4]
            .iter()
            .fold(0, |number, octet| number << 8 | u32::from(*octet))
            % 10_000_000;
        Self::from_secret(secret, EPOCH + spread, algorithm)
    }

    /// The subkey of this key that follows from `label`, as old as this key.
    pub fn subkey(&self, label: &str, algorithm: Algorithm) -> Self {
        Self::from_secret(
            secret(&[b"subkey", &self.secret, label.as_bytes()]),
            self.created,
            algorithm,
        )
    }

    /// A version 4 primary key as GnuPG makes.
    pub fn primary(seed: u64, label: &str) -> Self {
        Self::derive(seed, label, Algorithm::EdDsaLegacy)
    }

    /// The same key with another creation time, thus another fingerprint.
    pub fn created_at(self, created: u32) -> Self {
        Self { created, ..self }
    }

    /// Creation time in seconds since 1970.
    pub fn created(&self) -> u32 {
        self.created
    }

    /// 4 or 6.
    pub fn version(&self) -> u8 {
        match self.algorithm {
            Algorithm::EdDsaLegacy | Algorithm::EcdhLegacy => 4,
            Algorithm::Ed25519 | Algorithm::X25519 => 6,
        }
    }

    /// 20 octets for version 4, 32 for version 6 (RFC 9580 section 5.5.4).
    pub fn fingerprint(&self) -> Vec<u8> {
        let algorithm = if self.version() == 4 {
            &SHA1_FOR_LEGACY_USE_ONLY
        } else {
            &SHA256
        };
        digest::digest(algorithm, &self.hashed()).as_ref().to_vec()
    }

    /// The eight octets that old clients know the key by.
    pub fn key_id(&self) -> [u8; 8] {
        let fingerprint = self.fingerprint();
        let start = if self.version() == 4 { 12 } else { 0 };
        let mut id = [0; 8];
        id.copy_from_slice(&fingerprint[start..start + 8]);
        id
    }

    /// Public key packet with the header that suits the version.
    pub fn public_packet(&self, tag: Tag) -> Vec<u8> {
        packet(tag, self.format(), &self.public_body())
    }

    /// Unencrypted secret key packet (RFC 9580 section 5.5.3).
    pub fn secret_packet(&self, tag: Tag) -> Vec<u8> {
        let mut body = self.public_body();
        body.push(0);
        let start = body.len();
        match self.algorithm {
            Algorithm::EdDsaLegacy => put_integer(&mut body, &self.secret),
            Algorithm::EcdhLegacy => put_integer(&mut body, &reversed(&self.secret)),
            Algorithm::Ed25519 | Algorithm::X25519 => body.extend_from_slice(&self.secret),
        }
        if self.version() == 4 {
            let sum = body[start..]
                .iter()
                .fold(0_u16, |sum, octet| sum.wrapping_add(u16::from(*octet)));
            body.extend_from_slice(&sum.to_be_bytes());
        }
        packet(tag, self.format(), &body)
    }

    pub(crate) fn format(&self) -> Format {
        if self.version() == 4 {
            Format::Legacy
        } else {
            Format::OpenPgp
        }
    }

    pub(crate) fn algorithm_id(&self) -> u8 {
        match self.algorithm {
            Algorithm::EdDsaLegacy => 22,
            Algorithm::EcdhLegacy => 18,
            Algorithm::Ed25519 => 27,
            Algorithm::X25519 => 25,
        }
    }

    /// Ed25519 signature of `message`.
    ///
    /// # Panics
    /// For a key that only encrypts.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signer = self.signer.as_ref().expect("a test signs only with a signing key");
        let mut signature = [0; 64];
        signature.copy_from_slice(signer.sign(message).as_ref());
        signature
    }

    /// The key as it enters fingerprints and signatures: prefix, length, body.
    pub(crate) fn hashed(&self) -> Vec<u8> {
        let body = self.public_body();
        let mut out = Vec::with_capacity(body.len() + 5);
        if self.version() == 4 {
            out.push(0x99);
            out.extend_from_slice(&(body.len() as u16).to_be_bytes());
        } else {
            out.push(0x9B);
            out.extend_from_slice(&(body.len() as u32).to_be_bytes());
        }
        out.extend_from_slice(&body);
        out
    }

    pub(crate) fn from_secret(mut secret: [u8; 32], created: u32, algorithm: Algorithm) -> Self {
        let mut public = [0; 32];
        let signer = match algorithm {
            Algorithm::EdDsaLegacy | Algorithm::Ed25519 => {
                let pair = Ed25519KeyPair::from_seed_unchecked(&secret).expect("any 32 octets are a seed");
                public.copy_from_slice(pair.public_key().as_ref());
                Some(pair)
            }
            Algorithm::EcdhLegacy | Algorithm::X25519 => {
                // GnuPG wants the stored scalar clamped (RFC 7748 section 5).
                secret[0] &= 248;
                secret[31] = secret[31] & 127 | 64;
                let private = PrivateKey::from_private_key(&X25519, &secret).expect("any 32 octets are a scalar");
                public.copy_from_slice(private.compute_public_key().expect("a scalar has a point").as_ref());
                None
            }
        };
        Self {
            algorithm,
            created,
            secret,
            public,
            signer,
        }
    }

    fn public_body(&self) -> Vec<u8> {
        let mut body = vec![self.version()];
        body.extend_from_slice(&self.created.to_be_bytes());
        body.push(self.algorithm_id());
        match self.algorithm {
            Algorithm::EdDsaLegacy => {
                body.extend_from_slice(ED25519_OID);
                put_integer(&mut body, &native_point(&self.public));
            }
            Algorithm::EcdhLegacy => {
                body.extend_from_slice(CURVE25519_OID);
                put_integer(&mut body, &native_point(&self.public));
                body.extend_from_slice(KDF_SHA256_AES128);
            }
            Algorithm::Ed25519 | Algorithm::X25519 => {
                body.extend_from_slice(&32_u32.to_be_bytes());
                body.extend_from_slice(&self.public);
            }
        }
        body
    }
}

/// 2021-01-01 00:00:00 UTC: no generated key is older.
pub const EPOCH: u32 = 1_609_459_200;

/// Length and octets of 1.3.6.1.4.1.11591.15.1 (RFC 9580 section 9.2).
const ED25519_OID: &[u8] = &[9, 0x2B, 0x06, 0x01, 0x04, 0x01, 0xDA, 0x47, 0x0F, 0x01];
/// Length and octets of 1.3.6.1.4.1.3029.1.5.1 (RFC 9580 section 9.2).
const CURVE25519_OID: &[u8] = &[10, 0x2B, 0x06, 0x01, 0x04, 0x01, 0x97, 0x55, 0x01, 0x05, 0x01];
/// Length, reserved octet, SHA2-256, AES-128 (RFC 9580 section 5.5.5.6).
const KDF_SHA256_AES128: &[u8] = &[3, 1, 8, 7];

fn secret(parts: &[&[u8]]) -> [u8; 32] {
    let mut secret = [0; 32];
    secret.copy_from_slice(digest::digest(&SHA256, &parts.concat()).as_ref());
    secret
}

fn native_point(public: &[u8; 32]) -> [u8; 33] {
    let mut point = [0x40; 33];
    point[1..].copy_from_slice(public);
    point
}

fn reversed(octets: &[u8; 32]) -> [u8; 32] {
    let mut out = *octets;
    out.reverse();
    out
}
