//! The one write path: octets in, certificates read, verified, merged and stored, a report out.
//!
//! Everything costly (reading, verification, the form in which a new certificate is stored) happens before the
//! store is asked, on the caller's thread; inside the transaction there is only merging.

mod decide;

use crate::acquaint::Acquaintance;
use crate::config::Config;
use crate::formats::{self, OPENPGP, Policy};
use crate::lifecycle::{Action, Decide, Rules};
use crate::peers::refused::{REPLACED, refuse_for_long};
use decide::Deciding;
use keyrink_openpgp::armor::{self, ArmorError};
use keyrink_openpgp::cert::{Cert, Component};
use keyrink_openpgp::explain::Explanation;
use keyrink_openpgp::merge::merge;
use keyrink_openpgp::packet::key::Fingerprint;
use keyrink_openpgp::packet::signature::Signature;
use keyrink_openpgp::policy::Limits;
use keyrink_openpgp::project::is_served;
use keyrink_openpgp::read::{Incoming, Keyring};
use keyrink_openpgp::serving::Serving;
use keyrink_openpgp::stored::{Entries, Entry};
use keyrink_openpgp::terms::Term;
use keyrink_openpgp::verify;
use keyrink_openpgp::veto::Veto;
use keyrink_store::{Applied, Dataset, Decision, Element, Record, RecordId, Store, StoreError, Stored};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use thiserror::Error;

/// The write path into one store.
#[derive(Clone)]
pub struct Ingest {
    /// Where certificates go.
    pub store: Arc<dyn Store>,
    /// What is kept of them.
    pub limits: Limits,
    /// What is derived from them.
    pub policy: Policy,
    /// What the operator decided about them.
    pub rules: Arc<Rules>,
}

/// A certificate made ready for the store.
#[derive(Debug)]
pub struct Prepared {
    /// Verified and within the limits.
    pub cert: Cert,
    id: RecordId,
    record: Record,
    dropped: Vec<Dropped>,
    /// What peers know it by as it came, before the limits took anything away, if it came from one.
    came: Vec<Element>,
    /// The certificate as it was stored before, if it was worth looking for.
    known: Option<Cert>,
    /// What the rules kept from users as the record was made.
    veto: Veto,
    /// What verifying it cost.
    work: u64,
    /// Whether the last decision was that it is too large.
    too_large: AtomicBool,
    /// Whether the last decision was to store what was stored already, with something more known about it.
    no_news: AtomicBool,
    /// What the rules forbid, by the last decision.
    ban: Mutex<Option<Action>>,
}

/// What came from a peer.
#[derive(Debug, Default)]
pub struct Receipt {
    /// Certificates that could be read.
    pub certificates: u64,
    /// Those of them that brought nothing new.
    pub needless: u64,
    /// The elements of each in the dataset, as they were before they met what is stored and the limits of this node.
    pub elements: Vec<BTreeSet<Vec<u8>>>,
    /// Those of them that the operator does not want, whoever offers them.
    pub forbidden: BTreeSet<Vec<u8>>,
}

impl Receipt {
    /// Adds what came later.
    pub fn add(&mut self, other: Self) {
        self.certificates += other.certificates;
        self.needless += other.needless;
        self.elements.extend(other.elements);
        self.forbidden.extend(other.forbidden);
    }

    /// Is this an element of one that came?
    pub fn holds(&self, element: &[u8]) -> bool {
        self.elements.iter().any(|elements| elements.contains(element))
    }

    /// How many have none of these elements, which were lacking when they were asked for: the way they went was the
    /// wrong one, whatever else they brought.
    pub fn wrong_way(&self, lacking: &[Vec<u8>]) -> u64 {
        let is_wrong = |elements: &&BTreeSet<Vec<u8>>| !lacking.iter().any(|element| elements.contains(element));
        self.elements.iter().filter(is_wrong).count() as u64
    }
}

/// What happened to a submission.
#[derive(Debug, Default)]
pub struct Report {
    /// Each certificate that was read.
    pub certs: Vec<CertReport>,
    /// What became no certificate, in words.
    pub refused: Vec<String>,
    /// What verifying it cost, in the units of [`verify::verify`].
    pub work: u64,
}

/// What happened to a certificate.
#[derive(Debug)]
pub struct CertReport {
    /// Identifies it, with its version.
    pub fingerprint: Fingerprint,
    /// What was done.
    pub outcome: Outcome,
    /// What users will not see of it.
    pub dropped: Vec<Dropped>,
}

/// What was done with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is new here.
    Inserted,
    /// It told something new.
    Updated,
    /// Everything in it was known.
    Unchanged,
    /// Nothing in it proves that somebody holds the key: kept for peers at most, shown to nobody.
    Invalid,
    /// What its owner signed is more than this server keeps of one certificate: nothing of it was stored.
    TooLarge,
    /// The operator of this server does not want it: nothing of it was stored.
    Forbidden,
}

/// A part of a submission that users will not see.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Dropped {
    /// Which part.
    pub part: String,
    /// Why.
    pub reason: String,
}

/// Why a submission was not taken.
#[derive(Debug, Error)]
pub enum IngestError {
    /// There was nothing.
    #[error("the submission is empty: send an OpenPGP key")]
    Empty,
    /// Armored text that can't be decoded.
    #[error("{0}")]
    Armor(#[from] ArmorError),
    /// Somebody is about to publish a secret.
    #[error(
        "THIS IS A SECRET KEY. Nothing was stored. Whoever has it can sign and read in your name: if it went over \
         an untrusted line, revoke it now. Export the public key instead (gpg --armor --export)"
    )]
    SecretKey,
    /// No usable certificate.
    #[error("no OpenPGP certificate was found: {0}")]
    NoCertificate(String),
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Ingest {
    /// The write path as configured.
    pub fn new(config: &Config, store: Arc<dyn Store>) -> Self {
        Self {
            store,
            limits: Self::limits(config),
            policy: Policy::new(config),
            rules: Arc::default(),
        }
    }

    /// The limits as configured.
    pub(crate) fn limits(config: &Config) -> Limits {
        let limits = &config.limits;
        Limits {
            packet_octets: limits.packet_octets.get(),
            signature_octets: limits.signature_octets.get(),
            user_id_octets: limits.user_id_octets.get(),
            certificate_octets: limits.certificate_octets.get(),
            packets: limits.packets.get(),
            extra_octets: limits.extra_octets.min(limits.certificate_octets.get()),
        }
    }

    /// Takes a submission: armored or binary, any number of certificates, bare revocations.
    pub fn submit(&self, octets: &[u8]) -> Result<Report, IngestError> {
        self.take(self.read(octets)?)
    }

    /// The same if it takes some milliseconds at most; otherwise nothing is done.
    pub fn submit_if_brief(&self, octets: &[u8]) -> Result<Option<Report>, IngestError> {
        let keyring = self.read(octets)?;
        let certs = keyring.certs.iter().map(|incoming| &incoming.cert);
        let is_brief = keyring.bare_signatures.len() <= BRIEF_BARE_SIGNATURES_MAX && verify::is_brief(certs);
        is_brief.then(|| self.take(keyring)).transpose()
    }

    fn read(&self, octets: &[u8]) -> Result<Keyring, IngestError> {
        if octets.trim_ascii().is_empty() {
            return Err(IngestError::Empty);
        }
        let decoded;
        let octets = if armor::is_armored(octets) {
            // Also if it is damaged: who is told of bad armor repairs it and sends it again.
            if armor::announces_secret(octets) {
                return Err(IngestError::SecretKey);
            }
            decoded = armor::decode(octets)?;
            &decoded
        } else {
            octets
        };
        let keyring = Keyring::read(octets, &self.limits);
        match keyring.holds_secret() {
            true => Err(IngestError::SecretKey),
            false => Ok(keyring),
        }
    }

    fn take(&self, keyring: Keyring) -> Result<Report, IngestError> {
        let mut refused: Vec<String> = keyring.refused.iter().map(ToString::to_string).collect();
        refused.extend((keyring.refused_more > 0).then(|| format!("{} more like that", keyring.refused_more)));
        let mut prepared = self.prepare_some(keyring.certs, SUBMISSION_WORK_MAX, &mut refused)?;
        for signature in &keyring.bare_signatures {
            match self.place(signature)? {
                Some(cert) => prepared.extend(self.prepare(vec![Incoming {
                    cert,
                    dropped: Vec::new(),
                }])?),
                None => refused.push("a signature on its own fits no key that is stored here".to_owned()),
            }
        }
        if prepared.is_empty() {
            let reason = refused.first().map_or("the input holds no packets", String::as_str);
            return Err(IngestError::NoCertificate(reason.to_owned()));
        }
        let mut report = Report {
            refused,
            work: keyring.bare_signatures.len() as u64 * BARE_WORK,
            ..Report::default()
        };
        // In steps, so that others get in between.
        let mut rest = prepared.into_iter().peekable();
        while rest.peek().is_some() {
            let prepared = Arc::new(rest.by_ref().take(COMMIT_CERTIFICATES_MAX).collect::<Vec<_>>());
            let outcomes = self.commit(&prepared, Vec::new())?;
            report.work += prepared.iter().map(Prepared::cost).sum::<u64>();
            report
                .certs
                .extend(prepared.iter().zip(outcomes).map(|(prepared, outcome)| CertReport {
                    fingerprint: prepared.cert.key().fingerprint(),
                    outcome,
                    dropped: prepared.dropped(&self.policy.serving()),
                }));
        }
        Ok(report)
    }

    /// Takes certificates from a peer, each as one run of packets. What can't be read, or is no certificate, or comes
    /// behind several, is passed over: the peer learns nothing from us, and the next session shows what is still different.
    pub fn receive(&self, dataset: Dataset, octets: &[Vec<u8>]) -> Result<Receipt, StoreError> {
        let (mut incoming, mut refused) = (Vec::new(), Vec::new());
        for octets in octets {
            let keyring = Keyring::read_some(octets, &self.limits, RUN_CERTIFICATES_MAX);
            refused.extend(keyring.refused);
            incoming.extend(keyring.certs);
        }
        if let Some(first) = refused.first() {
            let count = refused.len();
            tracing::info!(
                "a peer sent what is no certificate, {count} of {}: {first}",
                octets.len()
            );
        }
        let prepared = incoming.into_iter().map(|incoming| self.prepare_one(incoming, true));
        let prepared = Arc::new(prepared.collect::<Result<Vec<_>, _>>()?);
        let outcomes = self.commit(&prepared, Vec::new())?;
        let needless = outcomes
            .iter()
            .filter(|outcome| **outcome == Outcome::Unchanged)
            .count();
        let mut receipt = Receipt {
            certificates: prepared.len() as u64,
            needless: needless as u64,
            ..Receipt::default()
        };
        for prepared in prepared.iter() {
            let elements = prepared.came.iter().filter(|element| element.dataset == dataset);
            let elements: BTreeSet<_> = elements.map(|element| element.bytes.clone()).collect();
            if prepared.ban().is_some() {
                receipt.forbidden.extend(elements.iter().cloned());
            }
            receipt.elements.push(elements);
        }
        Ok(receipt)
    }

    /// Stores certificates in place of what is stored under their ids; what is not stored stays so. Peers go on to offer what
    /// was stored before: that is left alone, whoever offers it. No outcome: nothing is stored under the id.
    pub fn replace(&self, incoming: Vec<Incoming>) -> Result<Vec<(Fingerprint, Option<Outcome>)>, StoreError> {
        let prepared = Arc::new(self.prepare(incoming)?);
        let ids: Vec<RecordId> = prepared.iter().map(|prepared| prepared.id.clone()).collect();
        // What each position held as it was decided about, by the last decision.
        let replaced: Arc<Mutex<BTreeMap<usize, Vec<Element>>>> = Arc::default();
        let decide: Arc<Decide> = {
            let (prepared, limits, policy) = (Arc::clone(&prepared), self.limits.clone(), self.policy);
            let replaced = Arc::clone(&replaced);
            Arc::new(move |rules, at, old| {
                let (limits, new) = (&limits, &prepared[at]);
                let was = old.map(|old| match Cert::decode(&old.data) {
                    Ok(cert) => policy.elements(&cert, &Veto::Nothing),
                    Err(_) => Vec::new(),
                });
                let mut replaced = replaced.lock().unwrap_or_else(PoisonError::into_inner);
                match was {
                    Some(was) => replaced.insert(at, was),
                    None => replaced.remove(&at),
                };
                let deciding = Deciding { rules, limits, policy };
                new.set_ban(rules.judge(&new.cert).ban());
                match new.ban().is_some() || old.is_none() {
                    true => Decision::Keep,
                    false => deciding.put(new, &new.cert),
                }
            })
        };
        let applied = self.rules.update(&*self.store, &ids, &decide, &[])?;
        let current = prepared.iter().flat_map(|new| &new.record.elements);
        let current: BTreeSet<&Element> = current.collect();
        let replaced = std::mem::take(&mut *replaced.lock().unwrap_or_else(PoisonError::into_inner));
        let mut outcomes = Vec::new();
        for (at, (new, applied)) in prepared.iter().zip(applied).enumerate() {
            let outcome = replaced.contains_key(&at).then(|| new.outcome(applied));
            let gone = replaced.get(&at).into_iter().flatten();
            for element in gone.filter(|element| applied == Applied::Updated && !current.contains(element)) {
                let element_alone = std::slice::from_ref(&element.bytes);
                refuse_for_long(&*self.store, REPLACED, element.dataset, element_alone)?;
            }
            outcomes.push((new.cert.key().fingerprint(), outcome));
        }
        Ok(outcomes)
    }

    /// Verifies certificates and makes their stored form, reusing verdicts of the copies in the store.
    pub fn prepare(&self, incoming: Vec<Incoming>) -> Result<Vec<Prepared>, StoreError> {
        incoming
            .into_iter()
            .map(|incoming| self.prepare_one(incoming, false))
            .collect()
    }

    /// The same until that has cost so much; who sends more at once is told.
    fn prepare_some(
        &self,
        incoming: Vec<Incoming>,
        work_max: u64,
        refused: &mut Vec<String>,
    ) -> Result<Vec<Prepared>, StoreError> {
        let (mut prepared, mut work, count) = (Vec::new(), 0, incoming.len());
        for incoming in incoming {
            if work > work_max || prepared.len() >= SUBMISSION_CERTIFICATES_MAX {
                let left = count - prepared.len();
                refused.push(format!("{left} of {count} certificates, which {TOO_MUCH_WORK}"));
                break;
            }
            let next = self.prepare_one(incoming, false)?;
            work += next.cost();
            prepared.push(next);
        }
        Ok(prepared)
    }

    /// Merges certificates into the store in one transaction, together with `notes`.
    pub fn commit(
        &self,
        prepared: &Arc<Vec<Prepared>>,
        notes: Vec<(String, Option<Vec<u8>>)>,
    ) -> Result<Vec<Outcome>, StoreError> {
        let ids: Vec<RecordId> = prepared.iter().map(|prepared| prepared.id.clone()).collect();
        let decide: Arc<Decide> = {
            let (prepared, limits, policy) = (Arc::clone(prepared), self.limits.clone(), self.policy);
            Arc::new(move |rules, at, old| {
                Deciding {
                    rules,
                    limits: &limits,
                    policy,
                }
                .decide(&prepared[at], old)
            })
        };
        let applied = self.rules.update(&*self.store, &ids, &decide, &notes)?;
        Ok(prepared
            .iter()
            .zip(applied)
            .map(|(prepared, applied)| prepared.outcome(applied))
            .collect())
    }

    fn prepare_one(&self, incoming: Incoming, is_from_peer: bool) -> Result<Prepared, StoreError> {
        let Incoming { mut cert, dropped } = incoming;
        let id = formats::record_id(&cert);
        let signatures: usize = cert
            .components()
            .iter()
            .map(|component| component.signatures.len())
            .sum();
        let mut known = None;
        if signatures > FEW_SIGNATURES {
            known = self.known(&id)?;
        }
        let work = verify::verify(&mut cert, known.as_ref());
        if signatures <= FEW_SIGNATURES && !cert.is_presentable() {
            known = self.known(&id)?;
        }
        let came = is_from_peer.then(|| self.policy.elements(&cert, &Veto::Nothing));
        let trimmed = self.limits.trim(&mut cert);
        Acquaintance::with(&*self.store, &cert, known.as_ref(), self.policy)?.note(&mut cert);
        let mut dropped: Vec<Dropped> = dropped
            .iter()
            .take(DROPPED_MAX)
            .map(|packet| Dropped {
                part: format!("packet of type {} with {} octets", packet.tag, packet.octets),
                reason: packet.reason.to_string(),
            })
            .collect();
        if trimmed > 0 {
            dropped.push(Dropped {
                part: format!("the {trimmed} least valuable packets"),
                reason: "the certificate is larger than this server keeps".to_owned(),
            });
        }
        let veto = self.rules.known(&*self.store)?.judge(&cert).veto();
        let record = self.policy.record(&cert, &veto);
        Ok(Prepared {
            cert,
            id,
            record,
            dropped,
            came: came.unwrap_or_default(),
            known,
            veto,
            work,
            too_large: AtomicBool::new(false),
            no_news: AtomicBool::new(false),
            ban: Mutex::default(),
        })
    }

    /// The stored copy; what can't be read any more counts as none.
    fn known(&self, id: &RecordId) -> Result<Option<Cert>, StoreError> {
        let stored = self.store.get(OPENPGP, std::slice::from_ref(id))?;
        Ok(stored
            .into_iter()
            .flatten()
            .find_map(|stored| Cert::decode(&stored.data).ok()))
    }

    /// A copy of the stored certificate that a bare signature belongs to, with nothing but what the signature needs;
    /// none if it is forged.
    fn place(&self, signature: &[u8]) -> Result<Option<Cert>, StoreError> {
        let Some(read) = Signature::read(signature) else {
            return Ok(None);
        };
        let fingerprints = read
            .issuer_fingerprints
            .iter()
            .map(|octets| Term::Fingerprint(octets.to_vec()));
        let terms = fingerprints.chain(read.issuers.iter().map(|id| Term::KeyId(id.0)));
        for term in terms.take(BARE_ISSUERS_MAX) {
            if let Some(alone) = self.place_among(&formats::beginning(&term), signature)? {
                return Ok(Some(alone));
            }
        }
        Ok(None)
    }

    /// The same among the certificates found by a term. Anybody can make old keys that have any key id, so these come
    /// last, and there is an end to how many are read.
    fn place_among(&self, term: &keyrink_store::Term, signature: &[u8]) -> Result<Option<Cert>, StoreError> {
        let (mut old_keys, mut after) = (Vec::new(), None);
        for _ in 0..BARE_PAGES_MAX {
            let page = self.store.find(OPENPGP, term, after.as_ref(), BARE_PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some(last.id.clone());
            for stored in page {
                if !is_old_key(&stored) {
                    let alone = place_on(&stored, signature);
                    if alone.is_some() {
                        return Ok(alone);
                    }
                } else if old_keys.len() < BARE_OLD_KEYS_MAX {
                    old_keys.push(stored);
                }
            }
        }
        Ok(old_keys.iter().find_map(|stored| place_on(stored, signature)))
    }
}

/// The part of a stored certificate that a valid bare signature belongs to.
fn place_on(stored: &Stored, signature: &[u8]) -> Option<Cert> {
    let mut cert = Cert::decode(&stored.data).ok()?;
    let mut alone = verify::place(&mut cert, signature).then(|| only(&cert, signature))??;
    verify::verify(&mut alone, None);
    let mut signatures = alone.components().iter().flat_map(|component| &component.signatures);
    let served = signatures.any(|signature| is_served(&signature.facts));
    served.then_some(alone)
}

/// Is it a key of version 2 or 3, of which whoever makes it chooses the key id?
fn is_old_key(stored: &Stored) -> bool {
    let first = Entries::new(&stored.data).ok().and_then(|mut entries| entries.next());
    match first {
        Some(Ok(Entry::Component(primary))) => matches!(primary.body.first(), Some(2 | 3)),
        _ => false,
    }
}

/// The reason for [`Outcome::Forbidden`].
pub const FORBIDDEN: &str = "the operator of this server has blocked or erased this certificate";

/// The reason for [`Outcome::TooLarge`].
pub const TOO_LARGE: &str = "what its owner signed is more than this server keeps of one certificate";

/// Why the end of a submission was left out.
const TOO_MUCH_WORK: &str = "take too long together with those before them: submit them on their own";
/// What verifying the certificates of one submission may cost before the last of them is looked at: about as much as the
/// dearest certificate, some seconds, and more than [`crate::config::Http::body_octets`] of any real ones.
const SUBMISSION_WORK_MAX: u64 = 1 << 32;
/// Certificates of one submission, and how many of them are committed at once.
const SUBMISSION_CERTIFICATES_MAX: usize = 2_000;
const COMMIT_CERTIFICATES_MAX: usize = 500;
/// What storing a certificate and looking for the place of a bare signature cost, in the units of [`verify::verify`].
const CERTIFICATE_WORK: u64 = 1 << 17;
const BARE_WORK: u64 = 1 << 22;
/// Bare signatures whose places are found in some milliseconds.
const BRIEF_BARE_SIGNATURES_MAX: usize = 2;
/// So many signatures are verified in less time than it takes to look for a stored copy with their verdicts.
const FEW_SIGNATURES: usize = 4;
/// Issuers that a bare signature is looked up by.
const BARE_ISSUERS_MAX: usize = 4;
/// Certificates read at once for each of them, how often, and how many keys of version 2 and 3 are tried.
const BARE_PAGE: usize = 8;
const BARE_PAGES_MAX: usize = 8;
const BARE_OLD_KEYS_MAX: usize = 4;
/// Certificates in what a peer sends as one: nobody sends more than one, and a thousand octets could hold a hundred.
const RUN_CERTIFICATES_MAX: usize = 16;
/// Dropped parts listed for each certificate.
const DROPPED_MAX: usize = 100;

impl Prepared {
    /// What it costs to take it.
    fn cost(&self) -> u64 {
        self.work + CERTIFICATE_WORK
    }

    fn outcome(&self, applied: Applied) -> Outcome {
        match applied {
            _ if self.ban() == Some(Action::Erase) => Outcome::Forbidden,
            _ if self.ban() == Some(Action::Block) && !self.cert.is_taken_back() => Outcome::Forbidden,
            _ if !self.was_shown() && !self.cert.is_presentable() => Outcome::Invalid,
            _ if self.too_large.load(Ordering::Relaxed) => Outcome::TooLarge,
            Applied::Inserted => Outcome::Inserted,
            Applied::Updated if self.no_news.load(Ordering::Relaxed) => Outcome::Unchanged,
            Applied::Updated => Outcome::Updated,
            Applied::Unchanged | Applied::Deleted => Outcome::Unchanged,
        }
    }

    fn set_ban(&self, ban: Option<Action>) {
        *self.ban.lock().unwrap_or_else(PoisonError::into_inner) = ban;
    }

    fn ban(&self) -> Option<Action> {
        *self.ban.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stored certificate was already fit to be shown.
    fn was_shown(&self) -> bool {
        self.known.as_ref().is_some_and(Cert::is_presentable)
    }

    /// What users will not see of it, packets left out on reading first. What a copy lacks may be stored already: whether a
    /// part is shown is a matter of the whole certificate.
    fn dropped(&self, serving: &Serving) -> Vec<Dropped> {
        let whole = self.known.clone().and_then(|known| merge(known, self.cert.clone()));
        let of = |cert| Explanation::of(cert, serving).under(self.veto.clone());
        let whole = whole.as_ref().map(of);
        let explanation = of(&self.cert);
        let hidden = explanation.hidden();
        let hidden = hidden.filter(|hidden| whole.as_ref().is_none_or(|whole| whole.hides(hidden)));
        let hidden = hidden.map(|hidden| Dropped {
            part: hidden.part(),
            reason: hidden.reason().0.to_owned(),
        });
        self.dropped.iter().cloned().chain(hidden).take(DROPPED_MAX).collect()
    }
}

/// The primary key, and the component that has this signature, with this signature alone.
fn only(cert: &Cert, signature: &[u8]) -> Option<Cert> {
    let mut components = vec![Component::new(cert.primary().tag, &cert.primary().body)];
    let holder = cert.components().iter().enumerate().find_map(|(at, component)| {
        let attached = component
            .signatures
            .iter()
            .find(|attached| *attached.body == *signature)?;
        Some((at, component, attached.clone()))
    });
    let (at, component, attached) = holder?;
    if at > 0 {
        components.push(Component::new(component.tag, &component.body));
    }
    components.last_mut()?.signatures.push(attached);
    Cert::new(components).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyrink_store::memory::MemoryStore;

    #[test]
    fn one_submission_holds_so_many_certificates_and_no_more() {
        let ingest = Ingest::new(&Config::default(), Arc::new(MemoryStore::new()));
        // Key packets of ten octets.
        let keys = (0..2_100_u32).map(|time| {
            let [a, b, c, d] = time.to_be_bytes();
            [0xC6, 8, 4, a, b, c, d, 99, 7, 7]
        });
        let report = ingest.submit(&keys.collect::<Vec<_>>().concat()).unwrap();
        assert_eq!(report.certs.len(), SUBMISSION_CERTIFICATES_MAX);
        assert!(
            report.refused[0].starts_with("100 of 2100 certificates"),
            "{:?}",
            report.refused
        );
        assert!(report.work >= 2_000 * CERTIFICATE_WORK, "who sends much pays for it");
    }

    #[test]
    fn what_takes_long_is_not_taken_in_passing() {
        let ingest = Ingest::new(&Config::default(), Arc::new(MemoryStore::new()));
        let certificate = keyrink_testkit::Certificate::v4(1, "work").user_id("A").to_bytes();
        assert!(ingest.submit_if_brief(&certificate).unwrap().is_some());
        // A key of DSA, which says so in the octet behind its time, and signatures that claim to be its own.
        let mut key = vec![0xC6, 8, 4, 0, 0, 0, 1, 17, 7, 7];
        (0..20_u8).for_each(|nth| key.extend([0xC2, 6, 4, 0x1F, 17, 8, nth, nth]));
        assert!(ingest.submit_if_brief(&key).unwrap().is_none());
        assert_eq!(ingest.submit(&key).unwrap().certs.len(), 1);
    }

    #[test]
    fn one_submission_takes_so_much_work_and_no_more() {
        let ingest = Ingest::new(&Config::default(), Arc::new(MemoryStore::new()));
        let certs = (0..5).map(|n| keyrink_testkit::Certificate::v4(n, "work").user_id("A").to_bytes());
        let octets = certs.collect::<Vec<_>>().concat();
        let prepared = |work_max| {
            let (keyring, mut refused) = (Keyring::read(&octets, &ingest.limits), Vec::new());
            let prepared = ingest.prepare_some(keyring.certs, work_max, &mut refused).unwrap();
            (prepared.len(), refused)
        };
        assert_eq!(prepared(SUBMISSION_WORK_MAX), (5, vec![]));
        let (count, refused) = prepared(0);
        assert_eq!((count, refused.len()), (1, 1), "the first is always looked at");
        assert!(refused[0].starts_with("4 of 5 certificates"), "{refused:?}");
    }
}
