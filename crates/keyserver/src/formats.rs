//! Kinds of keys and what the store keeps of them: the one place that knows both.

use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::terms::{self, Term};
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
    let sks = cert.sks_digest().map(|digest| Element {
        dataset: SKS,
        bytes: digest.to_vec(),
    });
    sks.into_iter().collect()
}

/// What a certificate is found by. A term too long for the store can't be searched for.
pub fn store_terms(cert: &Cert, words: bool) -> Vec<keyrink_store::Term> {
    let terms = terms::terms(cert, words);
    let terms = terms.iter().map(store_term);
    terms
        .filter(|term| (1..=keyrink_store::Term::OCTETS_MAX).contains(&term.text.len()))
        .collect()
}

/// A term as the store knows it. The numbers are stored.
pub fn store_term(term: &Term) -> keyrink_store::Term {
    let (kind, text) = match term {
        Term::Fingerprint(octets) => (1, octets.clone()),
        Term::KeyId(octets) => (2, octets.to_vec()),
        Term::Email(text) => (3, text.clone().into_bytes()),
        Term::UserId(text) => (4, text.clone().into_bytes()),
        Term::Word(text) => (5, text.clone().into_bytes()),
    };
    keyrink_store::Term { kind, text }
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
