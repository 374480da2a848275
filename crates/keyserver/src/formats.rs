//! Kinds of keys and what the store keeps of them: the one place that knows both.

use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::project::Projection;
use keyrink_openpgp::terms::{self, Entry, Term};
use keyrink_store::{Dataset, Element, Realm, Record, RecordId};

/// The realm of OpenPGP certificates.
pub const OPENPGP: Realm = Realm(1);

/// The dataset of SKS 1.1.6 and its kin; its elements are MD5 digests.
pub const SKS: Dataset = Dataset(1);

/// All datasets.
pub const DATASETS: &[Dataset] = &[SKS];

/// Version of what [`record`] derives from a certificate's packets and verdicts.
pub const POLICY_VERSION: u32 = 1;

/// Under which id a certificate is stored.
pub fn record_id(cert: &Cert) -> RecordId {
    RecordId::new(&cert.id()).expect("an OpenPGP id has 16 to 40 octets")
}

/// What the store keeps of a verified certificate.
pub fn record(cert: &Cert, words: bool) -> Record {
    Record {
        data: cert.encode(),
        policy: POLICY_VERSION,
        terms: store_terms(cert, words),
        elements: elements(cert),
    }
}

/// The elements that stand for a certificate in the reconciled sets.
pub fn elements(cert: &Cert) -> Vec<Element> {
    let sks = cert.digest(Projection::Sks).map(|digest| Element {
        dataset: SKS,
        bytes: digest.to_vec(),
    });
    sks.into_iter().collect()
}

/// What a certificate is found by. A user id too long for the store is found by its address only, a word not at all.
pub fn store_terms(cert: &Cert, words: bool) -> Vec<keyrink_store::Term> {
    let mut terms = Vec::new();
    for entry in terms::entries(cert, words) {
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
    terms
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
/// Ends a text: no UTF-8 holds it.
const END: u8 = 0xff;
/// Octets of the fingerprint of a version 2 or 3 key.
const OLD_FINGERPRINT_OCTETS: usize = 16;

/// A stored term as people can read it.
pub fn term_text(term: &keyrink_store::Term) -> String {
    let parts = term.text.split(|octet| *octet == END).filter(|part| !part.is_empty());
    let parts: Vec<_> = parts.map(String::from_utf8_lossy).collect();
    let text = parts.join(", ");
    match term.kind {
        KEY => format!("key {}", hexadecimal(&term.text)),
        OLD_KEY => format!("fingerprint {}", hexadecimal(&term.text)),
        USER_ID => format!("user id {}", text.escape_debug()),
        WORD => format!("word {}", text.escape_debug()),
        other => format!("term {other} {}", text.escape_debug()),
    }
}

/// Octets in lower-case hexadecimal.
pub fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// What people call a dataset.
pub fn dataset_name(dataset: Dataset) -> &'static str {
    match dataset {
        SKS => "sks",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
