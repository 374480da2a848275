//! Stands in for `rare` without the feature `rare-algorithms`: no such key can be made.

use super::KeyUnusable;

pub(super) enum Key {}

impl Key {
    pub(super) fn ed448(_: &[u8]) -> Result<Self, KeyUnusable> {
        Err(KeyUnusable::Unsupported)
    }

    pub(super) fn slh_dsa_128s(_: &[u8]) -> Result<Self, KeyUnusable> {
        Err(KeyUnusable::Unsupported)
    }

    pub(super) fn slh_dsa_128f(_: &[u8]) -> Result<Self, KeyUnusable> {
        Err(KeyUnusable::Unsupported)
    }

    pub(super) fn slh_dsa_256s(_: &[u8]) -> Result<Self, KeyUnusable> {
        Err(KeyUnusable::Unsupported)
    }

    pub(super) fn verify(&self, _: &[u8], _: &[u8]) -> bool {
        match *self {}
    }
}
