//! Verification: finds the facts about every signature of a certificate.
//!
//! Runs when a certificate is written, never when it is read. Signatures that claim to be the owner's are verified;
//! those of others can't be (their keys are elsewhere), so they are only checked for plausibility: whether the two
//! clear octets of the digest fit the place where they stand. Wrong clear octets reject everything but version 4
//! self-signatures without public-key work; those are verified all the same, since clients do so.

use crate::cert::{Attached, Cert, Component};
use crate::crypto::digest::{Digest, Hasher};
use crate::crypto::{Check, KeyUnusable, Verifier};
use crate::facts::{Fact, Facts};
use crate::packet::key::{Fingerprint, Key, KeyId};
use crate::packet::signature::{Signature, kind};
use crate::packet::tag;

/// Finds the facts about all signatures of `cert`. Those that `known`, an older copy, has in the same place are
/// taken over.
pub fn verify(cert: &mut Cert, known: Option<&Cert>) {
    let Cert { components } = cert;
    let Some((primary, rest)) = components.split_first_mut() else {
        return;
    };
    let body = primary.body.clone();
    let Ok(key) = Key::read(&body) else { return };
    let mut owner = Owner {
        fingerprint: key.fingerprint(),
        key_id: key.key_id(),
        key: &key,
        verifier: None,
    };
    for component in std::iter::once(primary).chain(rest) {
        let known = known.and_then(|cert| find(cert, component));
        verify_component(&mut owner, component, known);
    }
}

/// Where in `cert` a signature that came alone belongs: the component over which its clear octets fit and which its
/// type fits. Places it there and says whether it did.
pub fn place(cert: &mut Cert, signature: &[u8]) -> bool {
    let Some(read) = Signature::read(signature) else {
        return false;
    };
    let key = cert.key();
    let fits = |component: &Component| {
        fits_place(component.tag, read.kind)
            && digest(&read, &key, component).is_some_and(|digest| digest.as_bytes()[..2] == read.digest_prefix)
    };
    let Some(at) = cert.components.iter().position(fits) else {
        return false;
    };
    let list = &mut cert.components[at].signatures;
    if let Err(free) = list.binary_search_by(|attached| (*attached.body).cmp(signature)) {
        list.insert(free, Attached::new(signature));
    }
    true
}

/// The primary key, made ready for verification when it is first needed.
struct Owner<'a> {
    key: &'a Key<'a>,
    fingerprint: Fingerprint,
    key_id: KeyId,
    verifier: Option<Result<Verifier, KeyUnusable>>,
}

impl Owner<'_> {
    fn verifier(&mut self) -> Result<&Verifier, KeyUnusable> {
        let key = self.key;
        let verifier = self
            .verifier
            .get_or_insert_with(|| Verifier::new(key.algorithm, key.material));
        verifier.as_ref().map_err(|unusable| *unusable)
    }

    fn is_issuer_of(&self, signature: &Signature<'_>) -> bool {
        signature.issuers.contains(&self.key_id) || signature.issuer_fingerprints.contains(&self.fingerprint.as_bytes())
    }
}

fn verify_component(owner: &mut Owner<'_>, component: &mut Component, known: Option<&Component>) {
    let mut signatures = std::mem::take(&mut component.signatures);
    for attached in &mut signatures {
        attached.facts = known
            .and_then(|known| {
                known
                    .signatures
                    .binary_search_by(|other| other.body.cmp(&attached.body))
                    .ok()
                    .map(|at| (known, at))
            })
            .map(|(known, at)| known.signatures[at].facts)
            .unwrap_or_else(|| facts(owner, component, &attached.body));
    }
    let witnessed = signatures.iter().any(|attached| attached.facts.binds());
    for attached in &mut signatures {
        attached.facts.note(Fact::Witnessed, witnessed);
    }
    component.signatures = signatures;
}

fn find<'a>(cert: &'a Cert, component: &Component) -> Option<&'a Component> {
    let at = cert
        .components
        .binary_search_by(|other| other.sort_key().cmp(&component.sort_key()))
        .ok()?;
    Some(&cert.components[at])
}

fn facts(owner: &mut Owner<'_>, component: &Component, body: &[u8]) -> Facts {
    let mut facts = Facts::default();
    let Some(signature) = Signature::read(body) else {
        return facts;
    };
    facts.kind = signature.kind;
    facts.created = signature.claims.created.unwrap_or_default();
    facts.expires = signature.expires().unwrap_or_default();
    facts.issuer = signature.issuer().unwrap_or_default();
    facts.note(Fact::Readable, true);
    facts.note(Fact::Local, signature.claims.local);
    let fitting = fits_place(component.tag, signature.kind);
    facts.note(Fact::Fitting, fitting);
    facts.note(Fact::Hard, is_revocation(signature.kind) && signature.revokes_hard());

    let digest = digest(&signature, owner.key, component);
    let matches = digest
        .as_ref()
        .is_some_and(|digest| digest.as_bytes()[..2] == signature.digest_prefix);
    facts.note(Fact::DigestMatches, matches);
    let unsigned = signature.issuers.is_empty() && signature.issuer_fingerprints.is_empty();
    let claims = owner.is_issuer_of(&signature);
    if fitting && (claims || unsigned && matches) {
        let check = check_own(owner, &signature, digest.as_ref(), matches);
        facts.note(Fact::Own, claims || check == Check::Valid);
        facts.note(Fact::Valid, check == Check::Valid);
        facts.note(Fact::Unverifiable, check == Check::Unsupported);
        let missing = signature.kind == kind::SUBKEY_BINDING
            && check == Check::Valid
            && needs_back_signature(&signature)
            && !has_back_signature(owner.key, component, &signature);
        facts.note(Fact::BackSignatureMissing, missing);
    } else {
        facts.note(Fact::Own, claims);
        facts.note(Fact::Unverifiable, digest.is_none());
    }
    facts
}

fn check_own(owner: &mut Owner<'_>, signature: &Signature<'_>, digest: Option<&Digest>, matches: bool) -> Check {
    let Some(digest) = digest else {
        return Check::Unsupported;
    };
    if !matches && signature.version != 4 {
        return Check::Invalid;
    }
    match owner.verifier() {
        Ok(verifier) => verifier.verify(signature.algorithm, signature.hash, digest.as_bytes(), signature.value),
        Err(KeyUnusable::Unsupported) => Check::Unsupported,
        Err(KeyUnusable::Malformed) => Check::Invalid,
    }
}

/// Does this type of signature belong on this type of packet?
fn fits_place(tag: u8, signature: u8) -> bool {
    match tag {
        tag::PUBLIC_KEY => matches!(signature, kind::DIRECT_KEY | kind::KEY_REVOCATION),
        tag::PUBLIC_SUBKEY => matches!(signature, kind::SUBKEY_BINDING | kind::SUBKEY_REVOCATION),
        _ => matches!(
            signature,
            kind::CERTIFICATION..=kind::CERTIFICATION_LAST | kind::APPROVAL | kind::CERTIFICATION_REVOCATION
        ),
    }
}

fn is_revocation(signature: u8) -> bool {
    matches!(
        signature,
        kind::KEY_REVOCATION | kind::SUBKEY_REVOCATION | kind::CERTIFICATION_REVOCATION
    )
}

/// A subkey that is to sign must agree, or anybody could claim its signatures (RFC 9580 §5.2.1.8).
fn needs_back_signature(binding: &Signature<'_>) -> bool {
    const MAY_SIGN: u8 = 2;
    binding
        .claims
        .key_flags
        .first()
        .is_some_and(|flags| flags & MAY_SIGN != 0)
}

fn has_back_signature(primary: &Key<'_>, component: &Component, binding: &Signature<'_>) -> bool {
    let check = || {
        let signature = Signature::read(binding.embedded?)?;
        let subkey = component.key()?;
        let digest = digest(&signature, primary, component)?;
        let verifier = Verifier::new(subkey.algorithm, subkey.material).ok()?;
        let check = verifier.verify(signature.algorithm, signature.hash, digest.as_bytes(), signature.value);
        Some(signature.kind == kind::PRIMARY_BINDING && check != Check::Invalid)
    };
    check().unwrap_or(false)
}

/// The digest of a signature in its place (RFC 9580 §5.2.4); `None` if the hash or the key can't be hashed.
fn digest(signature: &Signature<'_>, primary: &Key<'_>, component: &Component) -> Option<Digest> {
    let mut hasher = Hasher::new(signature.hash)?;
    if signature.version == 6 && signature.salt.len() != salt_octets(signature.hash)? {
        return None;
    }
    hasher.update(signature.salt);
    feed_key(&mut hasher, primary)?;
    match component.tag {
        tag::PUBLIC_KEY => {}
        tag::PUBLIC_SUBKEY => feed_key(&mut hasher, &component.key()?)?,
        tag => {
            if signature.version >= 4 {
                let mark = if tag == tag::USER_ID { 0xB4 } else { 0xD1 };
                hasher.update(&[mark]);
                hasher.update(&u32::try_from(component.body.len()).ok()?.to_be_bytes());
            }
            hasher.update(&component.body);
        }
    }
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
    Some(hasher.finish())
}

fn feed_key(hasher: &mut Hasher, key: &Key<'_>) -> Option<()> {
    let (head, head_octets, core) = key.framed()?;
    hasher.update(&head[..head_octets]);
    hasher.update(core);
    Some(())
}

/// Octets of salt that a version 6 signature has (RFC 9580 §9.5).
fn salt_octets(hash: u8) -> Option<usize> {
    match hash {
        8 | 11 | 12 => Some(16),
        9 => Some(24),
        10 | 14 => Some(32),
        _ => None,
    }
}
