//! Kinds of keys and what the store keeps of them: the one place that knows both.

use crate::config::Config;
use keyrink_openpgp::cert::{self, Cert};
use keyrink_openpgp::packet::tag;
use keyrink_openpgp::project::Projection;
use keyrink_openpgp::serving::Serving;
use keyrink_openpgp::status::{Revocation, Status};
use keyrink_openpgp::terms::{self, Entry, Term};
use keyrink_openpgp::veto::Veto;
use keyrink_store::{Component, Dataset, Element, Realm, Record, RecordId};

/// The realm of OpenPGP certificates.
pub const OPENPGP: Realm = Realm(1);

/// What one family of peers reconciles: what it believes a certificate to be, under the digest of that; or all of it, under
/// the annotated hash of each of its self-signatures.
#[derive(Debug)]
pub struct Family {
    /// What people call its dataset.
    pub name: &'static str,
    /// Where its elements are.
    pub dataset: Dataset,
    /// What its peers believe a certificate to be.
    pub projection: Projection,
}

/// SKS 1.1.6 and its kin.
pub static SKS: Family = Family {
    name: "sks",
    dataset: Dataset(1),
    projection: Projection::Sks,
};

/// Hockeypuck 2.4.
pub static HOCKEYPUCK: Family = Family {
    name: "hockeypuck",
    dataset: Dataset(2),
    projection: Projection::Hockeypuck,
};

/// This program and its kin: the second generation.
pub static SECOND: Family = Family {
    name: "openpgp/2",
    dataset: Dataset(3),
    projection: Projection::All,
};

/// Every family, the one that strangers are taken for first.
pub static FAMILIES: [&Family; 3] = [&SKS, &HOCKEYPUCK, &SECOND];

impl Family {
    /// What stands for a certificate in its dataset.
    pub fn elements(&self, cert: &Cert) -> Vec<Vec<u8>> {
        match self.projection {
            Projection::All => cert.annotated_hashes().iter().map(|hash| hash.to_vec()).collect(),
            projection => cert.digest(projection).iter().map(|digest| digest.to_vec()).collect(),
        }
    }

    /// Octets of each element.
    pub fn element_octets(&self) -> usize {
        match self.projection {
            Projection::All => 32,
            _ => 16,
        }
    }
}

/// The family with this name.
pub fn family(name: &str) -> Option<&'static Family> {
    FAMILIES.into_iter().find(|family| family.name == name)
}

/// What is derived from a certificate's packets and verdicts: a value, so that what is derived from another one can be told
/// apart and derived anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Whether words of user ids can be searched for.
    words: bool,
    /// Whether there are rows about the parts of certificates. The embedded store has none: nobody sends it queries, and
    /// its submissions, which wait for the processor, would pay for them.
    components: bool,
    /// A bit for each family whose dataset is kept.
    families: u8,
    /// What users get of others' signatures.
    serving: Serving,
}

/// Version of the code that derives.
const POLICY_VERSION: u32 = 4;
/// A record keeps the octets of others' signatures in such steps, as many as an octet counts; the last one stands for no
/// bound.
const OTHERS_STEP: u64 = 8 << 10;
const OTHERS_STEPS_MAX: u64 = 0xFF;

/// What a record can say of this bound: policies with the same number give users the same.
fn in_steps(others_octets: u64) -> u64 {
    match others_octets.div_ceil(OTHERS_STEP) {
        OTHERS_STEPS_MAX.. => u64::MAX,
        steps => steps * OTHERS_STEP,
    }
}

impl Policy {
    /// The number of every policy of the first version.
    pub const FIRST: u32 = 1;

    /// As configured.
    pub fn new(config: &Config) -> Self {
        let kept = FAMILIES.into_iter().enumerate();
        let kept = kept.filter(|(_, family)| config.peers.datasets.iter().any(|name| name == family.name));
        Self {
            words: config.search.words,
            components: config.store.database.is_some(),
            families: kept.map(|(nth, _)| 1 << nth).sum(),
            serving: Serving {
                others_octets: in_steps(config.limits.others_octets),
                approved_only: config.limits.approved_only,
            },
        }
    }

    /// The same in one number, as a record keeps it.
    pub fn number(self) -> u32 {
        let steps = self.serving.others_octets.div_ceil(OTHERS_STEP).min(OTHERS_STEPS_MAX) as u32;
        let flags =
            u32::from(self.words) | u32::from(self.serving.approved_only) << 1 | u32::from(self.components) << 2;
        POLICY_VERSION | flags << 8 | u32::from(self.families) << 16 | steps << 24
    }

    /// What terms and elements were derived for a record that keeps this number. The first version kept no more than that in it: its other
    /// settings are taken to be these.
    pub fn of_record(self, number: u32) -> Self {
        match number & 0xFF {
            Self::FIRST => Self {
                families: 1,
                components: false,
                ..self
            },
            _ => Self {
                words: number & 1 << 8 != 0,
                components: number & 1 << 10 != 0,
                families: (number >> 16) as u8,
                serving: self.serving,
            },
        }
    }

    /// What users get of others' signatures.
    pub fn serving(self) -> Serving {
        self.serving
    }

    /// The terms and elements that both derive.
    pub fn common(self, other: Self) -> Self {
        Self {
            words: self.words && other.words,
            components: self.components && other.components,
            families: self.families & other.families,
            serving: self.serving,
        }
    }

    /// The families whose datasets are kept.
    pub fn families(self) -> impl Iterator<Item = &'static Family> {
        let all = FAMILIES.into_iter().enumerate();
        all.filter(move |(nth, _)| self.families & 1 << nth != 0)
            .map(|(_, family)| family)
    }

    /// What the store keeps of a verified certificate.
    pub fn record(self, cert: &Cert, veto: &Veto) -> Record {
        Record {
            data: cert.encode_under(&self.serving, veto),
            policy: self.number(),
            terms: self.terms(cert, veto),
            elements: self.elements(cert, veto),
            components: self.components(cert, veto),
        }
    }

    /// The parts of a certificate that users are shown, for queries.
    pub fn components(self, cert: &Cert, veto: &Veto) -> Vec<Component> {
        if !self.components || *veto == Veto::Certificate {
            return Vec::new();
        }
        let mut shown = cert.project(Projection::Served).peekable();
        let parts = cert.components().iter().zip(Status::of(cert)).zip(0..);
        let parts = parts.filter_map(|((part, status), place)| {
            shown.next_if(|next| std::ptr::eq(*next, part))?;
            component(place, part, status).filter(|_| veto.leaves(part))
        });
        parts.collect()
    }

    /// The elements that stand for a certificate in the reconciled sets. One that users get nothing of is in none.
    pub fn elements(self, cert: &Cert, veto: &Veto) -> Vec<Element> {
        if *veto == Veto::Certificate {
            return Vec::new();
        }
        let elements = |family: &'static Family| {
            let dataset = family.dataset;
            family
                .elements(cert)
                .into_iter()
                .map(move |bytes| Element { dataset, bytes })
        };
        self.families().flat_map(elements).collect()
    }

    /// What a certificate is found by. A user id too long for the store is found by its address only, a word not at all.
    /// What users do not see, operators find by terms of other kinds.
    pub fn terms(self, cert: &Cert, veto: &Veto) -> Vec<keyrink_store::Term> {
        let mut terms = Vec::new();
        for entry in terms::entries(cert, self.words, veto) {
            match entry {
                Entry::Key { id, fingerprint } => {
                    terms.push(key(id, &fingerprint));
                    if fingerprint.len() == OLD_FINGERPRINT_OCTETS {
                        terms.push(beginning(&Term::Fingerprint(fingerprint)));
                    }
                }
                Entry::UserId { email, text } => {
                    let whole = user_id(email.as_deref(), Some(&text));
                    terms.extend(if whole.text.len() <= keyrink_store::Term::OCTETS_MAX {
                        Some(whole)
                    } else {
                        email.map(|email| user_id(Some(&email), None))
                    });
                }
                Entry::Word(word) => terms.push(beginning(&Term::Word(word))),
            }
        }
        terms.retain(|term| term.text.len() <= keyrink_store::Term::OCTETS_MAX);
        terms.sort();
        let unseen = unseen(cert, &terms);
        terms.extend(unseen);
        terms.extend((*veto == Veto::Certificate).then(blocked));
        terms.sort();
        terms.dedup();
        terms
    }
}

/// Terms for operators: those addresses of the owner's user ids that none of `seen`, which are sorted, finds. Whatever rules
/// judge by can so be found, why ever users do not see it.
fn unseen(cert: &Cert, seen: &[keyrink_store::Term]) -> Vec<keyrink_store::Term> {
    let unseen = cert.own_user_ids().filter_map(|user_id| {
        let text = String::from_utf8_lossy(&user_id.body).to_lowercase();
        let email = terms::email(&text)?;
        // The end is enough to tell the domain; no rule names an address of such a length.
        let start = email.ceil_char_boundary(email.len().saturating_sub(UNSEEN_OCTETS_MAX));
        let term = self::user_id(Some(&email[start..]), None);
        let found = seen.get(seen.partition_point(|other| *other < term));
        let is_seen = found.is_some_and(|found| found.kind == term.kind && found.text.starts_with(&term.text));
        (!is_seen).then(|| kept_back(&term))
    });
    unseen.collect()
}

/// Octets of an address that operators find it by.
const UNSEEN_OCTETS_MAX: usize = keyrink_store::Term::OCTETS_MAX - 1;

/// The term that finds all certificates that are kept from users as a whole.
pub fn blocked() -> keyrink_store::Term {
    keyrink_store::Term {
        kind: BLOCKED | KEPT_BACK,
        text: Vec::new(),
    }
}

/// The term that finds for operators what `term` would find if it were not kept from users.
pub fn kept_back(term: &keyrink_store::Term) -> keyrink_store::Term {
    keyrink_store::Term {
        kind: term.kind | KEPT_BACK,
        text: term.text.clone(),
    }
}

/// What comes before all terms of user ids, seen and unseen.
pub fn user_id_terms() -> [keyrink_store::Term; 2] {
    [USER_ID, USER_ID | KEPT_BACK].map(|kind| keyrink_store::Term { kind, text: Vec::new() })
}

/// The address by which such a term finds.
pub fn email_of(term: &keyrink_store::Term) -> Option<&str> {
    let email = term.text.split(|octet| *octet == END).next()?;
    std::str::from_utf8(email).ok().filter(|email| !email.is_empty())
}
/// The row about a part of a certificate.
fn component(place: u32, part: &cert::Component, status: Status) -> Option<Component> {
    let kind = match part.tag {
        tag::PUBLIC_KEY => PRIMARY_KEY,
        tag::PUBLIC_SUBKEY => SUBKEY,
        tag::USER_ID => NAME,
        _ => return None,
    };
    let key = part.key();
    let text = (kind == NAME).then(|| {
        let mut text = String::from_utf8_lossy(&part.body).replace('\0', "\u{fffd}");
        text.truncate(text.floor_char_boundary(Component::OCTETS_MAX));
        text
    });
    Some(Component {
        place,
        kind,
        text,
        version: key.as_ref().map(|key| key.version),
        fingerprint: key.as_ref().map(|key| key.fingerprint().as_bytes().to_vec()),
        algorithm: key.as_ref().map(|key| key.algorithm),
        bits: key.as_ref().map(|key| key.bits()),
        created: Some(status.created.into()),
        expires: status.expires.map(u64::from),
        revoked: status.revoked.map(|revoked| match revoked {
            Revocation::Soft(since) => since.into(),
            Revocation::Hard => 0,
        }),
    })
}

/// Kinds of parts, as they are stored.
const PRIMARY_KEY: u8 = 1;
const SUBKEY: u8 = 2;
const NAME: u8 = 3;

/// Under which id a certificate is stored.
pub fn record_id(cert: &Cert) -> RecordId {
    RecordId::new(&cert.id()).expect("an OpenPGP id has 16 to 40 octets")
}

/// What the terms begin with that `term` finds.
///
/// A key is found under its key id, then the number of octets of its fingerprint and those of them that the key id has
/// not. Before version 4 a fingerprint does not tell the key id, so it is an entry of its own. A user id is found under its
/// address, then its text; what no UTF-8 holds ends each, so that no text is the beginning of another.
pub fn beginning(term: &Term) -> keyrink_store::Term {
    match term {
        Term::Fingerprint(octets) => match key_id(octets) {
            Some(id) => key(id, octets),
            None => keyrink_store::Term {
                kind: OLD_KEY,
                text: octets.clone(),
            },
        },
        Term::KeyId(id) => keyrink_store::Term {
            kind: KEY,
            text: id.to_vec(),
        },
        Term::Email(email) => user_id(Some(email), None),
        Term::UserId(text) => user_id(terms::email(text), Some(text)),
        Term::Word(word) => keyrink_store::Term {
            kind: WORD,
            text: ended(&[word]),
        },
    }
}

fn key(id: [u8; 8], fingerprint: &[u8]) -> keyrink_store::Term {
    let rest = match fingerprint.len() {
        20 => &fingerprint[..12],
        32 => &fingerprint[8..],
        _ => fingerprint,
    };
    let octets = [&id[..], &[fingerprint.len() as u8], rest].concat();
    keyrink_store::Term {
        kind: KEY,
        text: octets,
    }
}

/// The key id that a fingerprint tells (RFC 9580, section 5.5.4).
fn key_id(fingerprint: &[u8]) -> Option<[u8; 8]> {
    match fingerprint.len() {
        20 => fingerprint.last_chunk().copied(),
        32 => fingerprint.first_chunk().copied(),
        _ => None,
    }
}

fn user_id(email: Option<&str>, text: Option<&str>) -> keyrink_store::Term {
    let mut parts = vec![email.unwrap_or_default()];
    parts.extend(text);
    keyrink_store::Term {
        kind: USER_ID,
        text: ended(&parts),
    }
}

fn ended(parts: &[&str]) -> Vec<u8> {
    parts
        .iter()
        .flat_map(|part| [part.as_bytes(), &[END]])
        .flatten()
        .copied()
        .collect()
}

/// Kinds of terms, as they are stored.
const KEY: u8 = 1;
const OLD_KEY: u8 = 2;
const USER_ID: u8 = 3;
const WORD: u8 = 4;
const BLOCKED: u8 = 5;
/// Added to a kind: only operators look for it.
const KEPT_BACK: u8 = 0x80;
/// Ends a text: no UTF-8 holds it.
const END: u8 = 0xff;
/// Octets of the fingerprint of a version 2 or 3 key.
const OLD_FINGERPRINT_OCTETS: usize = 16;

/// A stored term as people can read it.
pub fn term_text(term: &keyrink_store::Term) -> String {
    let parts = term.text.split(|octet| *octet == END).filter(|part| !part.is_empty());
    let parts: Vec<_> = parts.map(String::from_utf8_lossy).collect();
    let text = parts.join(", ");
    let unseen = if term.kind & KEPT_BACK == 0 { "" } else { "unseen " };
    match term.kind & !KEPT_BACK {
        KEY => format!("key {}", hexadecimal(&term.text)),
        OLD_KEY => format!("fingerprint {}", hexadecimal(&term.text)),
        USER_ID => format!("{unseen}user id {}", text.escape_debug()),
        BLOCKED => "mark of blocked certificates".to_owned(),
        WORD => format!("word {}", text.escape_debug()),
        other => format!("term {other} {}", text.escape_debug()),
    }
}

/// Octets in lower-case hexadecimal.
pub fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The octets that hexadecimal digits stand for, if that is all there is.
pub fn octets(digits: &str) -> Option<Vec<u8>> {
    let is_plain = digits.len().is_multiple_of(2) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let octet = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    is_plain.then(|| (0..digits.len()).step_by(2).map(octet).collect())?
}

/// What people call a dataset.
pub fn dataset_name(dataset: Dataset) -> &'static str {
    let family = FAMILIES.into_iter().find(|family| family.dataset == dataset);
    family.map_or("unknown", |family| family.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(others_octets: u64) -> Policy {
        let mut config = Config::default();
        config.limits.others_octets = others_octets;
        Policy::new(&config)
    }

    proptest! {
        #[test]
        fn policies_of_one_number_are_one(near in 0u64..300, a in 0u64..3, b in 0u64..3) {
            let [a, b] = [a, b].map(|more| policy((near * OTHERS_STEP + more).saturating_sub(1)));
            prop_assert_eq!(a.number() == b.number(), a == b);
        }
    }

    #[test]
    fn the_room_for_others_grows_in_steps() {
        let octets = |wanted| policy(wanted).serving().others_octets;
        assert_eq!([0, 1, 60_000, 65_536].map(octets), [0, 8192, 65_536, 65_536]);
        assert_eq!(
            [2_080_768, 2_080_769, 3_000_000].map(octets),
            [2_080_768, u64::MAX, u64::MAX]
        );
    }

    #[test]
    fn what_is_looked_for_begins_what_is_stored() {
        let fingerprints: [&[u8]; 3] = [&[3; 16], &[4; 20], &[6; 32]];
        let stored = fingerprints.map(|fingerprint| key(key_id(fingerprint).unwrap_or([9; 8]), fingerprint));
        for (fingerprint, stored) in fingerprints.iter().zip(&stored).skip(1) {
            let id = key_id(fingerprint).unwrap();
            assert_eq!(beginning(&Term::Fingerprint(fingerprint.to_vec())), *stored);
            assert!(stored.text.starts_with(&beginning(&Term::KeyId(id)).text));
        }
        assert_eq!(beginning(&Term::Fingerprint(vec![3; 16])).kind, OLD_KEY);
        assert!(stored[0].text.starts_with(&beginning(&Term::KeyId([9; 8])).text));

        let whole = user_id(Some("a@b"), Some("al <a@b>"));
        assert_eq!(beginning(&Term::UserId("al <a@b>".into())), whole);
        assert!(whole.text.starts_with(&beginning(&Term::Email("a@b".into())).text));
        for other in [
            beginning(&Term::Email("a@".into())),
            beginning(&Term::Email("a".into())),
            beginning(&Term::UserId("al".into())),
            beginning(&Term::UserId("al <a@b>x".into())),
        ] {
            assert!(!whole.text.starts_with(&other.text), "{other:?}");
        }
        assert_eq!(term_text(&whole), "user id a@b, al <a@b>");
    }
}
