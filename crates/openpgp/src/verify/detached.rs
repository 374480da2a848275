//! Signatures over a text of its own, apart from any certificate (RFC 9580 §5.2.1.1 and §5.2.1.2).

use super::hashing::{finish, salt_octets};
use crate::cert::{Cert, Component};
use crate::crypto::digest::{Hasher, sha256};
use crate::crypto::{Check, Verifier};
use crate::packet::key::{Fingerprint, Key};
use crate::packet::signature::{Signature, kind};
use crate::packet::tag;
use crate::status::Status;
use thiserror::Error;

/// Who signed a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Fingerprint of the primary key.
    pub signer: Fingerprint,
    /// When, as the signature says, in seconds since 1970.
    pub created: u64,
    /// Stands for the text and all that the signature says about it; the same for all signatures that say the same, also if
    /// somebody changed what a signature does not protect.
    pub statement: [u8; 32],
}

/// Why a signature proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DetachedError {
    /// It is none, or one over something else than a text.
    #[error("the signature is not a detached signature over a text")]
    Unreadable,
    /// None of the certificates made it.
    #[error("the signature was made by a key that may not sign this")]
    Stranger,
    /// Its key has expired or was revoked, or it has expired itself.
    #[error("the signature, or the key that made it, has expired or was revoked")]
    Over,
    /// Its hash algorithm is broken.
    #[error("the signature uses a broken hash algorithm: sign with SHA-256 or better")]
    Weak,
    /// It is not over this text.
    #[error("the signature does not fit the text: it was changed on the way, or the signature is over another one")]
    Wrong,
}

/// Finds out which of `signers`, verified certificates, signed `text`. `signature` is the body of a signature packet, `now`
/// in seconds since 1970.
pub fn verify_detached(signers: &[Cert], text: &[u8], signature: &[u8], now: u64) -> Result<Signed, DetachedError> {
    let read = Signature::read(signature).ok_or(DetachedError::Unreadable)?;
    let created = read.claims.created.ok_or(DetachedError::Unreadable)?;
    let text = match read.kind {
        BINARY => text.to_vec(),
        TEXT => canonical(text),
        _ => return Err(DetachedError::Unreadable),
    };
    if matches!(read.hash, MD5 | SHA1 | RIPEMD) {
        return Err(DetachedError::Weak);
    }
    let mut found = DetachedError::Stranger;
    for cert in signers {
        for (component, status) in cert.components().iter().zip(Status::of(cert)) {
            let Some(key) = component.key().filter(|key| may_sign(component) && made(key, &read)) else {
                continue;
            };
            let primary = Status::of(cert)[0];
            let over = |status: &Status| status.revoked.is_some() || status.is_expired(now);
            found = match fits(&key, &text, &read) {
                false => DetachedError::Wrong,
                true if over(&primary) || over(&status) => DetachedError::Over,
                true if read.expires().is_some_and(|end| u64::from(end) <= now) => DetachedError::Over,
                true => {
                    return Ok(Signed {
                        signer: cert.key().fingerprint(),
                        created: u64::from(created),
                        statement: sha256(&[&(read.hashed.len() as u64).to_be_bytes(), read.hashed, &text]),
                    });
                }
            };
        }
    }
    Err(found)
}

/// The primary key, or a subkey that its owner bound for signing and that agreed.
fn may_sign(component: &Component) -> bool {
    if component.tag == tag::PUBLIC_KEY {
        return true;
    }
    let bindings = component.signatures.iter();
    let bindings = bindings.filter(|attached| attached.facts.binds() && attached.facts.kind == kind::SUBKEY_BINDING);
    let newest = bindings.max_by_key(|attached| attached.facts.created);
    let newest = newest.and_then(|attached| Signature::read(&attached.body));
    newest.is_some_and(|read| read.claims.key_flags.first().is_some_and(|flags| flags & SIGN != 0))
}

fn made(key: &Key<'_>, signature: &Signature<'_>) -> bool {
    let fingerprint = key.fingerprint();
    signature.issuers.contains(&key.key_id()) || signature.issuer_fingerprints.contains(&fingerprint.as_bytes())
}

fn fits(key: &Key<'_>, text: &[u8], signature: &Signature<'_>) -> bool {
    let Some(mut hasher) = Hasher::new(signature.hash) else {
        return false;
    };
    if signature.version == 6 {
        if salt_octets(signature.hash) != Some(signature.salt.len()) {
            return false;
        }
        hasher.update(signature.salt);
    }
    hasher.update(text);
    let digest = finish(hasher, signature);
    let Ok(verifier) = Verifier::new(key.algorithm, key.material) else {
        return false;
    };
    digest.as_bytes()[..2] == signature.digest_prefix
        && verifier.verify(signature.algorithm, signature.hash, digest.as_bytes(), signature.value) == Check::Valid
}

/// Lines end with CR LF, whatever they ended with before.
fn canonical(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 32);
    let mut before = 0;
    for &octet in text {
        if octet == b'\n' && before != b'\r' {
            out.push(b'\r');
        }
        out.push(octet);
        before = octet;
    }
    out
}

/// Types of signatures over a text: its octets as they are, or its lines.
const BINARY: u8 = 0;
const TEXT: u8 = 1;
/// Hash algorithms that are no proof of anything any more.
const MD5: u8 = 1;
const SHA1: u8 = 2;
const RIPEMD: u8 = 3;
/// In the key flags: the key may sign texts.
const SIGN: u8 = 2;
