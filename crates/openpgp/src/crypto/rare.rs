//! Ed448 and SLH-DSA: rare and slow, so they are optional and need not be fast.

use fips205::traits::{SerDes, Verifier};
use fips205::{slh_dsa_shake_128f, slh_dsa_shake_128s, slh_dsa_shake_256s};

use super::KeyUnusable;

pub(super) enum Key {
    Ed448(Box<cx448::VerifyingKey>),
    SlhDsa128s(slh_dsa_shake_128s::PublicKey),
    SlhDsa128f(slh_dsa_shake_128f::PublicKey),
    SlhDsa256s(slh_dsa_shake_256s::PublicKey),
}

impl Key {
    pub(super) fn ed448(octets: &[u8]) -> Result<Self, KeyUnusable> {
        let octets = octets.try_into().map_err(malformed)?;
        let key = cx448::VerifyingKey::from_bytes(octets).map_err(malformed)?;
        Ok(Self::Ed448(Box::new(key)))
    }

    pub(super) fn slh_dsa_128s(octets: &[u8]) -> Result<Self, KeyUnusable> {
        read(octets).map(Self::SlhDsa128s)
    }

    pub(super) fn slh_dsa_128f(octets: &[u8]) -> Result<Self, KeyUnusable> {
        read(octets).map(Self::SlhDsa128f)
    }

    pub(super) fn slh_dsa_256s(octets: &[u8]) -> Result<Self, KeyUnusable> {
        read(octets).map(Self::SlhDsa256s)
    }

    /// Pure signatures with an empty context; a signature of the wrong length is not valid.
    pub(super) fn verify(&self, digest: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed448(key) => {
                cx448::Signature::try_from(signature).is_ok_and(|signature| key.verify_raw(&signature, digest).is_ok())
            }
            Self::SlhDsa128s(key) => signature
                .try_into()
                .is_ok_and(|signature| key.verify(digest, signature, &[])),
            Self::SlhDsa128f(key) => signature
                .try_into()
                .is_ok_and(|signature| key.verify(digest, signature, &[])),
            Self::SlhDsa256s(key) => signature
                .try_into()
                .is_ok_and(|signature| key.verify(digest, signature, &[])),
        }
    }
}

fn read<const N: usize, K: SerDes<ByteArray = [u8; N]>>(octets: &[u8]) -> Result<K, KeyUnusable> {
    K::try_from_bytes(octets.try_into().map_err(malformed)?).map_err(malformed)
}

fn malformed<E>(_: E) -> KeyUnusable {
    KeyUnusable::Malformed
}
