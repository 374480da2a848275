//! Verification: finds the facts about every signature of a certificate.
//!
//! Runs when a certificate is written, never when it is read. Signatures that claim to be the owner's are verified;
//! those of others can't be (their keys are elsewhere), so they are only checked for plausibility: whether the two
//! clear octets of the digest fit the place where they stand. Wrong clear octets reject everything but version 4
//! self-signatures without public-key work; those are verified all the same, since clients do so.
//!
//! Whoever makes a certificate decides how much there is to verify, so the `Work` on one is bounded. What is left over
//! is stored with the fact [`Fact::Unverified`]: peers get it, users don't. When the certificate comes again, the
//! verdicts in the store cost nothing, and the bound is spent on what was left over.

mod belief;
pub mod detached;
mod hashing;
mod old_key;

use crate::cert::{Attached, Cert, Component};
use crate::crypto::digest::Digest;
use crate::crypto::{Check, KeyUnusable, Verifier};
use crate::facts::{Fact, Facts};
use crate::hockeypuck::signature::Unread;
use crate::hockeypuck::{self, normal};
use crate::packet::key::{Fingerprint, Key, KeyId};
use crate::packet::signature::{Signature, kind};
use crate::packet::tag;
use belief::NeedsConsent;
use hashing::{Begun, Place};

/// Finds the facts about all signatures of `cert`. Those that `known`, an older copy, has in the same place are
/// taken over. Gives what that cost, in units of which a processor does some million in a millisecond; there is an end
/// to what one certificate costs, at four thousand million.
pub fn verify(cert: &mut Cert, known: Option<&Cert>) -> u64 {
    let Some(primary) = cert.components.first().map(|primary| primary.body.clone()) else {
        return 0;
    };
    let Ok(key) = Key::read(&primary) else { return 0 };
    let mut owner = Owner::new(&key);
    let (mut claims, primary) = (Vec::new(), Component::new(tag::PUBLIC_KEY, &primary));
    let mut home = Place::new(&primary);
    for (at, component) in cert.components.iter_mut().enumerate() {
        let known = known.and_then(|cert| find(cert, component));
        look(&mut owner, &mut home, component, known, |claim| {
            claims.push(Claim { at, ..claim });
        });
    }
    // The sort is stable: on every node the same signatures are left over.
    claims.sort_by_key(|claim| !claim.matches);
    for claim in claims {
        let component = &cert.components[claim.at];
        let facts = owner.check(component, &claim);
        cert.components[claim.at].signatures[claim.nth].facts = facts;
    }
    for component in &mut cert.components {
        let witnessed = component.is_bound();
        for attached in &mut component.signatures {
            attached.facts.note(Fact::Witnessed, witnessed);
        }
    }
    let cost = owner.work.cost();
    normal::judge(cert);
    cost
}

/// Whether verifying all of these takes some milliseconds at most, whatever the signatures are.
pub fn is_brief<'a>(certs: impl Iterator<Item = &'a Cert> + Clone) -> bool {
    let components = certs.flat_map(Cert::components);
    let signatures: usize = components.clone().map(|component| component.signatures.len()).sum();
    let takes_little = |key: Key<'_>| match key.algorithm {
        // RSA; elliptic curves; what only encrypts; and the rest, of which one takes as long as many of the others.
        1..=3 => key.bits() <= 4096,
        18 | 22 | 25 | 27 => true,
        19 => key.bits() <= 384 || signatures <= FEW_SIGNATURES,
        16 | 26 => true,
        _ => key.bits() <= 3072 && signatures <= FEW_SIGNATURES,
    };
    signatures <= BRIEF_SIGNATURES_MAX && components.filter_map(Component::key).all(takes_little)
}

/// Where in `cert` a signature that came alone belongs: the component over which its clear octets fit and which its
/// type fits. Places it there and says whether it did.
pub fn place(cert: &mut Cert, signature: &[u8]) -> bool {
    let Some(read) = Signature::read(signature) else {
        return false;
    };
    let key = cert.key();
    let (mut begun, mut work) = (Begun::new(&key), Work::default());
    let mut fits = |component: &Component| {
        let fitting = fits_place(component.tag, read.kind);
        let digest = fitting.then(|| Place::new(component).digest(&read, &mut begun, &mut work));
        matches!(digest, Some(Ok(Some(digest))) if digest.as_bytes()[..2] == read.digest_prefix)
    };
    let Some(at) = cert.components.iter().position(&mut fits) else {
        return false;
    };
    let list = &mut cert.components[at].signatures;
    if let Err(free) = list.binary_search_by(|attached| (*attached.body).cmp(signature)) {
        list.insert(free, Attached::new(signature));
    }
    true
}

/// What one certificate may cost, counted and not timed, so that every node stops at the same place.
///
/// Several times more than any certificate of today's networks needs. Spending all of it takes some seconds.
struct Work {
    /// Octets yet to be hashed.
    octets: u64,
    /// Public-key work yet to be done, as [`Verifier::work`] measures it.
    public_key: u64,
}

/// The [`Work`] is done; the signature at hand remains unverified.
#[derive(Debug)]
struct Spent;

/// Signatures that are verified in some milliseconds, and those of costly keys that are.
const BRIEF_SIGNATURES_MAX: usize = 64;
const FEW_SIGNATURES: usize = 8;
/// Octets hashed for one certificate.
const HASHED_OCTETS_MAX: u64 = 512 << 20;
/// Public-key work for one certificate: 30 000 signatures of RSA-4096, 65 000 of Ed25519, 4 000 of DSA with 2048 bits.
const PUBLIC_KEY_WORK_MAX: u64 = 1 << 31;
/// Salted signatures tried on one user attribute: of the owner's as many, and of others'. Each hashes all of it anew, and users
/// see none of them.
const ATTRIBUTE_SIGNATURES_MAX: usize = 256;

impl Default for Work {
    fn default() -> Self {
        Self {
            octets: HASHED_OCTETS_MAX,
            public_key: PUBLIC_KEY_WORK_MAX,
        }
    }
}

impl Work {
    fn hash(&mut self, octets: usize) -> Result<(), Spent> {
        self.octets = self.octets.checked_sub(octets as u64).ok_or(Spent)?;
        Ok(())
    }

    /// What has been done. A hashed octet counts as four units, so that all of both kinds is about the same.
    fn cost(&self) -> u64 {
        (HASHED_OCTETS_MAX - self.octets) * 4 + (PUBLIC_KEY_WORK_MAX - self.public_key)
    }

    fn open(&mut self, verifier: &Verifier) -> Result<(), Spent> {
        self.public_key = self.public_key.checked_sub(verifier.work()).ok_or(Spent)?;
        Ok(())
    }
}

/// A signature that must be verified because it says that it is the owner's, or nothing else is possible.
struct Claim {
    /// Places of the component and of the signature on it.
    at: usize,
    nth: usize,
    digest: Digest,
    /// Its clear octets fit.
    matches: bool,
    /// It is about the primary key and stands on something else.
    stray: bool,
    /// If it is valid, Hockeypuck believes it too, perhaps only with the subkey's consent.
    normal: Option<NeedsConsent>,
}

/// What verifying a [`Claim`] found.
struct Verdict {
    /// What the primary key says.
    check: Check,
    /// What the subkey says, if it was asked.
    consent: Option<Check>,
}

/// The primary key, made ready for verification when it is first needed.
struct Owner<'a> {
    key: &'a Key<'a>,
    fingerprint: Fingerprint,
    key_id: KeyId,
    verifier: Option<Result<Verifier, KeyUnusable>>,
    begun: Begun<'a>,
    work: Work,
}

impl<'a> Owner<'a> {
    fn new(key: &'a Key<'a>) -> Self {
        Self {
            fingerprint: key.fingerprint(),
            key_id: key.key_id(),
            key,
            verifier: None,
            begun: Begun::new(key),
            work: Work::default(),
        }
    }

    fn is_issuer_of(&self, signature: &Signature<'_>) -> bool {
        signature.issuers.contains(&self.key_id) || signature.issuer_fingerprints.contains(&self.fingerprint.as_bytes())
    }

    /// Facts of a signature that takes public-key work.
    fn check(&mut self, component: &Component, claim: &Claim) -> Facts {
        let attached = &component.signatures[claim.nth];
        let mut facts = attached.facts;
        let Some(signature) = Signature::read(&attached.body) else {
            return facts;
        };
        let Ok(Verdict { check, consent }) = self.verdict(component, &signature, claim) else {
            facts.note(Fact::Unverified, true);
            return facts;
        };
        let about = component.key().filter(|_| !claim.stray);
        let enumerable = check == Check::Valid
            && claim.matches
            && about.is_none_or(|key| key.canonical)
            && self.is_enumerable(&signature);
        facts.note(Fact::Enumerable, enumerable);
        if claim.stray {
            return facts;
        }
        let binds = signature.kind == kind::SUBKEY_BINDING;
        let believed = claim
            .normal
            .is_some_and(|needs| check == Check::Valid && (!needs.0 || consent == Some(Check::Valid)));
        facts.note(Fact::Own, check == Check::Valid);
        facts.note(Fact::Valid, check == Check::Valid);
        facts.note(Fact::Unverifiable, check == Check::Unsupported);
        facts.note(Fact::BackSignatureMissing, binds && consent == Some(Check::Invalid));
        facts.note(Fact::NormalOwn, believed);
        facts
    }

    /// Is a valid signature with fitting clear octets an element? What it stands on fits it already. It is one under a primary
    /// key packet that is all covered by the fingerprint: others would be certificates with the same elements.
    fn is_enumerable(&self, signature: &Signature<'_>) -> bool {
        let versions: &[u8] = match self.key.version {
            2..=4 => &[3, 4],
            5 => &[5],
            _ => &[6],
        };
        let verifier = self.verifier.as_ref().and_then(|verifier| verifier.as_ref().ok());
        self.key.canonical
            && versions.contains(&signature.version)
            && signature.may_be_of(&self.key_id, self.fingerprint.as_bytes())
            && verifier.is_some_and(|verifier| verifier.is_canonical(signature.value))
    }

    fn verdict(&mut self, component: &Component, signature: &Signature<'_>, claim: &Claim) -> Result<Verdict, Spent> {
        if !claim.matches && signature.version != 4 {
            return Ok(Verdict {
                check: Check::Invalid,
                consent: None,
            });
        }
        let key = self.key;
        let verifier = self
            .verifier
            .get_or_insert_with(|| Verifier::new(key.algorithm, key.material));
        let check = match verifier {
            Ok(verifier) => {
                self.work.open(verifier)?;
                verifier.verify(
                    signature.algorithm,
                    signature.hash,
                    claim.digest.as_bytes(),
                    signature.value,
                )
            }
            Err(KeyUnusable::Unsupported) => Check::Unsupported,
            Err(KeyUnusable::Malformed) => Check::Invalid,
        };
        let asked = match claim.normal {
            Some(NeedsConsent(true)) => true,
            _ => signature.kind == kind::SUBKEY_BINDING && needs_back_signature(signature),
        };
        let consent = if check == Check::Valid && asked {
            Some(self.back_signature(component, signature)?)
        } else {
            None
        };
        Ok(Verdict { check, consent })
    }

    /// What the subkey says. Of a version 6 signature the clear octets must fit.
    fn back_signature(&mut self, component: &Component, binding: &Signature<'_>) -> Result<Check, Spent> {
        let embedded = binding.embedded.and_then(Signature::read);
        let Some((signature, subkey)) = embedded.zip(component.key()) else {
            return Ok(Check::Invalid);
        };
        if signature.kind != kind::PRIMARY_BINDING {
            return Ok(Check::Invalid);
        }
        let digest = Place::new(component).digest(&signature, &mut self.begun, &mut self.work)?;
        let verifier = Verifier::new(subkey.algorithm, subkey.material).ok();
        let Some((digest, verifier)) = digest.zip(verifier) else {
            return Ok(Check::Invalid);
        };
        if signature.version == 6 && digest.as_bytes()[..2] != signature.digest_prefix {
            return Ok(Check::Invalid);
        }
        self.work.open(&verifier)?;
        Ok(verifier.verify(signature.algorithm, signature.hash, digest.as_bytes(), signature.value))
    }
}

fn find<'a>(cert: &'a Cert, component: &Component) -> Option<&'a Component> {
    let at = cert
        .components
        .binary_search_by(|other| other.sort_key().cmp(&component.sort_key()))
        .ok()?;
    Some(&cert.components[at])
}

/// The verdict in an older copy.
fn verdict_in(known: &Component, body: &[u8]) -> Option<Facts> {
    let at = known
        .signatures
        .binary_search_by(|other| (*other.body).cmp(body))
        .ok()?;
    let facts = known.signatures[at].facts;
    (!facts.has(Fact::Unverified)).then_some(facts)
}

/// Finds what can be found without public-key work, and hands over what needs it. `home` is the primary key, on which some
/// signatures count that stand on something else.
fn look(
    owner: &mut Owner<'_>,
    home: &mut Place<'_>,
    component: &mut Component,
    known: Option<&Component>,
    mut claim: impl FnMut(Claim),
) {
    let mut signatures = std::mem::take(&mut component.signatures);
    let mut place = Place::new(component);
    let mut room = if component.tag == tag::USER_ATTRIBUTE {
        [ATTRIBUTE_SIGNATURES_MAX; 2]
    } else {
        [usize::MAX; 2]
    };
    for (nth, attached) in signatures.iter_mut().enumerate() {
        if let Some(facts) = known.and_then(|known| verdict_in(known, &attached.body)) {
            attached.facts = facts;
            continue;
        }
        attached.facts = Facts::default();
        let read = hockeypuck::signature::read(&attached.body);
        attached.facts.note(Fact::Deadly, read == Err(Unread::Deadly));
        let Some(signature) = Signature::read(&attached.body) else {
            continue;
        };
        attached.facts = claims_of(&signature, component.tag, attached.facts);
        let own = owner.is_issuer_of(&signature);
        attached.facts.note(Fact::Own, own);
        // Whatever the digest of a signature that does not belong here, nobody will see it.
        if !attached.facts.has(Fact::Fitting) {
            match stray(owner, home, &signature) {
                Ok(stray) => stray.into_iter().for_each(|stray| claim(Claim { nth, ..stray })),
                Err(Spent) => attached.facts.note(Fact::Unverified, true),
            }
            continue;
        }
        let room = &mut room[usize::from(own)];
        let takes = usize::from(signature.is_salted());
        let digest = match room.checked_sub(takes) {
            Some(left) => {
                *room = left;
                place.digest(&signature, &mut owner.begun, &mut owner.work)
            }
            None => Err(Spent),
        };
        let belief = owner.belief(component, &signature, read.ok());
        let (Ok(digest), Ok(belief)) = (digest, belief) else {
            attached.facts.note(Fact::Unverified, true);
            continue;
        };
        let matches = digest.is_some_and(|digest| digest.as_bytes()[..2] == signature.digest_prefix);
        attached.facts.note(Fact::DigestMatches, matches);
        attached.facts.note(Fact::Unverifiable, digest.is_none());
        let normal = belief.note(&mut attached.facts, matches);
        let anonymous = signature.issuers.is_empty() && signature.issuer_fingerprints.is_empty();
        if let Some(digest) = digest.filter(|_| own || anonymous && matches) {
            claim(Claim {
                at: 0,
                nth,
                digest,
                matches,
                stray: false,
                normal,
            });
        }
    }
    component.signatures = signatures;
}

/// A signature of a type that is about the primary key counts wherever it stands, if it is the owner's.
fn stray(owner: &mut Owner<'_>, home: &mut Place<'_>, signature: &Signature<'_>) -> Result<Option<Claim>, Spent> {
    let is_about_key = fits_place(tag::PUBLIC_KEY, signature.kind);
    if !is_about_key || !signature.may_be_of(&owner.key_id, owner.fingerprint.as_bytes()) {
        return Ok(None);
    }
    let digest = home.digest(signature, &mut owner.begun, &mut owner.work)?;
    let digest = digest.filter(|digest| digest.as_bytes()[..2] == signature.digest_prefix);
    Ok(digest.map(|digest| Claim {
        at: 0,
        nth: 0,
        digest,
        matches: true,
        stray: true,
        normal: None,
    }))
}

/// What the packet says of itself, with what is known of it already.
fn claims_of(signature: &Signature<'_>, component: u8, mut facts: Facts) -> Facts {
    facts.kind = signature.kind;
    facts.created = signature.claims.created.unwrap_or_default();
    facts.expires = signature.expires().unwrap_or_default();
    facts.issuer = signature.issuer().unwrap_or_default();
    facts.note(Fact::Readable, true);
    facts.note(Fact::Local, signature.claims.local);
    facts.note(Fact::Fitting, fits_place(component, signature.kind));
    facts.note(Fact::Hard, is_revocation(signature.kind) && signature.revokes_hard());
    facts
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

pub(crate) fn is_revocation(signature: u8) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::merge;
    use crate::serving::Serving;

    const KEY: [u8; 8] = [4, 0, 0, 0, 1, 99, 7, 7];
    const MEBIBYTE: usize = 1 << 20;

    /// Signatures of nobody that differ in their values.
    fn version_4(n: u16) -> Attached {
        let [high, low] = n.to_be_bytes();
        Attached::new(&[4, 0x10, 22, 14, 0, 0, 0, 0, high, low, 0, 0, 0, 0])
    }

    fn version_6(n: u16) -> Attached {
        let head = [6, 0x10, 27, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16];
        Attached::new(&[&head[..], &[0; 14], &n.to_be_bytes()].concat())
    }

    fn cert(tag: u8, signatures: Vec<Attached>) -> Cert {
        let mut component = Component::new(tag, &vec![7; MEBIBYTE]);
        component.signatures = signatures;
        Cert::new(vec![Component::new(tag::PUBLIC_KEY, &KEY), component]).unwrap()
    }

    fn unverified(cert: &Cert) -> usize {
        let all = cert.components().iter().flat_map(|component| &component.signatures);
        all.filter(|signature| signature.facts.has(Fact::Unverified)).count()
    }

    #[test]
    fn what_signatures_share_is_hashed_once() {
        let key = Key::read(&KEY).unwrap();
        let mut owner = Owner::new(&key);
        let mut cert = cert(tag::USER_ID, (0..1000).map(version_4).collect());
        let primary = cert.primary().clone();
        let home = &mut Place::new(&primary);
        look(&mut owner, home, &mut cert.components[1], None, |_| {});
        assert_eq!(unverified(&cert), 0);
        let hashed = HASHED_OCTETS_MAX - owner.work.octets;
        assert!(hashed < MEBIBYTE as u64 + 10_000, "{hashed} octets hashed");
    }

    #[test]
    fn what_is_left_over_is_verified_when_it_comes_again() {
        let possible = HASHED_OCTETS_MAX as usize / (MEBIBYTE + KEY.len());
        let sent = cert(tag::USER_ID, (0..possible as u16 + 100).map(version_6).collect());
        let (mut first, mut second) = (sent.clone(), sent.clone());
        verify(&mut first, None);
        assert_eq!(unverified(&first), 100);
        let mut out = Vec::new();
        first.write(crate::project::Projection::Served, &mut out);
        assert!(out.is_empty());
        assert_eq!(
            unverified(&Cert::decode(&first.encode(&Serving::default())).unwrap()),
            100
        );
        verify(&mut second, Some(&first));
        assert_eq!(unverified(&second), 0);
        assert_eq!(merge(first.clone(), second.clone()), Some(second.clone()));
        assert_eq!(merge(second.clone(), first), Some(second));
    }

    #[test]
    fn of_a_user_attribute_some_signatures_that_share_nothing_are_tried() {
        let count = ATTRIBUTE_SIGNATURES_MAX as u16 + 10;
        for (signature, left_over) in [(version_4 as fn(u16) -> Attached, 0), (version_6, 10)] {
            let mut cert = cert(tag::USER_ATTRIBUTE, (0..count).map(signature).collect());
            verify(&mut cert, None);
            assert_eq!(unverified(&cert), left_over);
        }
    }
}
