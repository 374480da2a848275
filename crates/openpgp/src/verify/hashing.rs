//! What signatures are made over, hashed without doing anything twice, and bounded (RFC 9580 §5.2.4).
//!
//! Every signature on a component covers the primary key, then the component, then some octets of its own. The part
//! that it shares with others is hashed once for each hash algorithm and then cloned. Only version 6 signatures begin
//! with a salt and share nothing.

use super::{Spent, Work};
use crate::cert::Component;
use crate::crypto::digest::{Digest, Hasher};
use crate::packet::key::Key;
use crate::packet::signature::Signature;
use crate::packet::tag;
use std::collections::BTreeMap;

/// The primary key that all signatures of a certificate cover first.
pub(super) struct Begun<'a> {
    primary: &'a Key<'a>,
    hashers: BTreeMap<u8, Option<Hasher>>,
}

/// A component under its primary key: the place where signatures stand.
pub(super) struct Place<'a> {
    component: &'a Component,
    /// By hash algorithm, and whether the signature is of version 4 or later.
    hashers: BTreeMap<(u8, bool), Option<Hasher>>,
}

impl<'a> Begun<'a> {
    pub(super) fn new(primary: &'a Key<'a>) -> Self {
        Self {
            primary,
            hashers: BTreeMap::new(),
        }
    }

    fn hasher(&mut self, hash: u8, work: &mut Work) -> Result<Option<Hasher>, Spent> {
        if let Some(hasher) = self.hashers.get(&hash) {
            return Ok(hasher.clone());
        }
        let hasher = Hasher::new(hash);
        let hasher = hasher.map(|hasher| feed_key(hasher, self.primary, work)).transpose()?;
        Ok(self.hashers.entry(hash).or_insert(hasher.flatten()).clone())
    }
}

impl<'a> Place<'a> {
    pub(super) fn new(component: &'a Component) -> Self {
        Self {
            component,
            hashers: BTreeMap::new(),
        }
    }

    /// The digest of a signature in this place; `None` if the hash or the key can't be hashed.
    pub(super) fn digest(
        &mut self,
        signature: &Signature<'_>,
        primary: &mut Begun<'_>,
        work: &mut Work,
    ) -> Result<Option<Digest>, Spent> {
        let hasher = if signature.is_salted() {
            self.salted(signature, primary.primary, work)?
        } else {
            self.shared(signature, primary, work)?
        };
        let Some(hasher) = hasher else { return Ok(None) };
        work.hash(signature.hashed.len())?;
        Ok(Some(finish(hasher, signature)))
    }

    fn shared(
        &mut self,
        signature: &Signature<'_>,
        primary: &mut Begun<'_>,
        work: &mut Work,
    ) -> Result<Option<Hasher>, Spent> {
        let form = (signature.hash, signature.version >= 4);
        if let Some(hasher) = self.hashers.get(&form) {
            return Ok(hasher.clone());
        }
        let hasher = primary.hasher(signature.hash, work)?;
        let hasher = hasher.map(|hasher| self.feed(hasher, signature, work)).transpose()?;
        Ok(self.hashers.entry(form).or_insert(hasher.flatten()).clone())
    }

    fn salted(&self, signature: &Signature<'_>, primary: &Key<'_>, work: &mut Work) -> Result<Option<Hasher>, Spent> {
        let Some(mut hasher) = Hasher::new(signature.hash) else {
            return Ok(None);
        };
        if salt_octets(signature.hash) != Some(signature.salt.len()) {
            return Ok(None);
        }
        hasher.update(signature.salt);
        match feed_key(hasher, primary, work)? {
            Some(hasher) => self.feed(hasher, signature, work),
            None => Ok(None),
        }
    }

    fn feed(&self, mut hasher: Hasher, signature: &Signature<'_>, work: &mut Work) -> Result<Option<Hasher>, Spent> {
        let body = &self.component.body;
        match self.component.tag {
            tag::PUBLIC_KEY => return Ok(Some(hasher)),
            tag::PUBLIC_SUBKEY => {
                let key = self.component.key();
                return key.map_or(Ok(None), |key| feed_key(hasher, &key, work));
            }
            tag if signature.version >= 4 => {
                let mark = if tag == tag::USER_ID { 0xB4 } else { 0xD1 };
                let Ok(length) = u32::try_from(body.len()) else {
                    return Ok(None);
                };
                hasher.update(&[mark]);
                hasher.update(&length.to_be_bytes());
            }
            _ => {}
        }
        work.hash(body.len())?;
        hasher.update(body);
        Ok(Some(hasher))
    }
}

fn feed_key(mut hasher: Hasher, key: &Key<'_>, work: &mut Work) -> Result<Option<Hasher>, Spent> {
    let Some((head, head_octets, core)) = key.framed() else {
        return Ok(None);
    };
    work.hash(core.len())?;
    hasher.update(&head[..head_octets]);
    hasher.update(core);
    Ok(Some(hasher))
}

/// The digest, given what comes before the signature's own octets.
pub(super) fn finish(mut hasher: Hasher, signature: &Signature<'_>) -> Digest {
    hasher.update(signature.hashed);
    let length = signature.hashed.len() as u64;
    match signature.version {
        4 | 6 => {
            hasher.update(&[signature.version, 0xFF]);
            hasher.update(&(length as u32).to_be_bytes());
        }
        5 => {
            hasher.update(&[5, 0xFF]);
            hasher.update(&length.to_be_bytes());
        }
        _ => {}
    }
    hasher.finish()
}

/// Octets of salt that a version 6 signature has (RFC 9580 §9.5).
pub(super) fn salt_octets(hash: u8) -> Option<usize> {
    match hash {
        8 | 11 | 12 => Some(16),
        9 => Some(24),
        10 | 14 => Some(32),
        _ => None,
    }
}
