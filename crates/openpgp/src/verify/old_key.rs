//! Version 2 and 3 keys as Hockeypuck hashes them: the length in front of a key is two less than it should be, and its
//! first octet is 3. So no real signature by or on such a key is valid there, and some are that are valid nowhere else.

use super::{Owner, Spent};
use crate::cert::Component;
use crate::crypto::digest::{Digest, Hasher};
use crate::crypto::{Check, Verifier};
use crate::facts::Fact;
use crate::hockeypuck::rules;
use crate::hockeypuck::signature::Read;
use crate::packet::key::{Key, integer};
use crate::packet::signature::Signature;
use crate::packet::tag;

/// The fact, if any, that a signature on the certificate of an old key comes to.
pub(super) fn judge(
    owner: &mut Owner<'_>,
    component: &Component,
    signature: &Signature<'_>,
    read: &Read<'_>,
) -> Result<Option<Fact>, Spent> {
    let own = rules::is_own(read, &owner.key_id, &owner.fingerprint);
    if !rules::may_stand(read, owner.key, component, own) {
        return Ok(None);
    }
    owner.work.hash(component.body.len() + owner.key.core.len())?;
    let Some(digest) = digest(owner.key, component, signature) else {
        return Ok(None);
    };
    if digest.as_bytes()[..2] != signature.digest_prefix {
        return Ok(None);
    }
    if !own {
        return Ok(Some(Fact::NormalOther));
    }
    let Ok(verifier) = Verifier::new(owner.key.algorithm, owner.key.material) else {
        return Ok(None);
    };
    owner.work.open(&verifier)?;
    let check = verifier.verify(signature.algorithm, signature.hash, digest.as_bytes(), signature.value);
    // A value that is shorter than the modulus is not padded.
    let length = |octets| integer(octets).map(|(found, _)| found.len());
    let whole = length(signature.value) == length(owner.key.material);
    Ok((check == Check::Valid && whole).then_some(Fact::NormalOwn))
}

fn digest(primary: &Key<'_>, component: &Component, signature: &Signature<'_>) -> Option<Digest> {
    let mut hasher = Hasher::new(signature.hash)?;
    feed(&mut hasher, primary);
    match component.tag {
        tag::PUBLIC_SUBKEY => feed(&mut hasher, &component.key()?),
        tag::USER_ID => hasher.update(&component.body),
        _ => {}
    }
    hasher.update(signature.hashed);
    Some(hasher.finish())
}

fn feed(hasher: &mut Hasher, key: &Key<'_>) {
    let length = (key.core.len() as u16).wrapping_sub(2).to_be_bytes();
    hasher.update(&[0x99, length[0], length[1], 3]);
    hasher.update(&key.core[1..]);
}
