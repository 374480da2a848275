//! Finding what rules select among what is stored.

use super::rule::Address;
use super::{Action, Rule, RuleSet, Selector, id};
use crate::formats::{self, OPENPGP};
use crate::http::time::Instant;
use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::terms::Term;
use keyrink_store::{Bounds, RecordId, Store, StoreError};
use std::collections::BTreeSet;

/// What a selector selects of what is stored.
#[derive(Debug, Default)]
pub struct Hits {
    /// Fingerprints of the primary keys.
    pub fingerprints: BTreeSet<Vec<u8>>,
    /// The primary key of which it names a subkey, if that is all it names.
    pub primary_instead: Option<Vec<u8>>,
}

impl Hits {
    /// Looks for what a selector selects.
    pub fn of(store: &dyn Store, selector: &Selector) -> Result<Self, StoreError> {
        let rule = Rule {
            action: Action::Block,
            selector: selector.clone(),
            reason: String::new(),
            by: String::new(),
            time: Instant(0),
            decision: None,
        };
        let (rules, mut hits) = (RuleSet::of([rule]), Self::default());
        candidates(store, std::slice::from_ref(selector), &mut |ids| {
            for stored in store.get(OPENPGP, ids)?.into_iter().flatten() {
                let Ok(cert) = Cert::decode(&stored.data) else { continue };
                let fingerprint = cert.key().fingerprint().as_bytes().to_vec();
                match rules.judge(&cert).blocks() {
                    true => drop(hits.fingerprints.insert(fingerprint)),
                    false => hits.primary_instead = Some(fingerprint),
                }
            }
            Ok(())
        })?;
        if selector.is_open() || !hits.fingerprints.is_empty() {
            hits.primary_instead = None;
        }
        Ok(hits)
    }
}

/// Visits the ids of all records that `selectors` may select, some at a time.
pub(super) fn candidates(
    store: &dyn Store,
    selectors: &[Selector],
    visit: &mut dyn FnMut(&[RecordId]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    for selector in selectors {
        let term = match selector {
            Selector::Fingerprint(octets) => Term::Fingerprint(octets.clone()),
            Selector::KeyId(key_id) => Term::KeyId(*key_id),
            Selector::Email(email) => Term::Email(email.clone()),
            Selector::Domain(_) => continue,
        };
        let term = formats::beginning(&term);
        for term in [formats::kept_back(&term), term] {
            found_by(store, &term, visit)?;
        }
    }
    let domains: BTreeSet<&str> = selectors
        .iter()
        .filter_map(|selector| match selector {
            Selector::Domain(domain) => Some(domain.as_str()),
            _ => None,
        })
        .collect();
    if domains.is_empty() {
        return Ok(());
    }
    in_domains(store, &domains, visit)
}

fn found_by(
    store: &dyn Store,
    term: &keyrink_store::Term,
    visit: &mut dyn FnMut(&[RecordId]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let bounds = Bounds {
        records: 0,
        octets: 0,
        listed: IDS_AT_ONCE,
    };
    let mut after = None;
    loop {
        let found = store.search(OPENPGP, term, after.as_ref(), bounds)?;
        let ids: Vec<RecordId> = found.rest.into_iter().map(|listed| listed.id).collect();
        let Some(last) = ids.last() else { return Ok(()) };
        after = Some(last.clone());
        visit(&ids)?;
    }
}

/// Reads all addresses: there is no index of domains, since it would cost every certificate a row, and is needed for this
/// alone.
fn in_domains(
    store: &dyn Store,
    domains: &BTreeSet<&str>,
    visit: &mut dyn FnMut(&[RecordId]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let snapshot = store.snapshot()?;
    let mut ids = Vec::new();
    for start in formats::user_id_terms() {
        let kind = start.kind;
        let mut after = Some((start, id(&[0])));
        loop {
            let page = snapshot.terms(OPENPGP, after.as_ref(), TERMS_AT_ONCE)?;
            let of_kind = page.iter().take_while(|(term, _)| term.kind == kind);
            for (term, holder) in of_kind {
                let address = formats::email_of(term).and_then(|email| Address::of(email.as_bytes()));
                if address.is_some_and(|address| address.domains().any(|domain| domains.contains(domain))) {
                    ids.push(holder.clone());
                }
                if ids.len() >= IDS_AT_ONCE {
                    visit(&std::mem::take(&mut ids))?;
                }
            }
            match page.into_iter().next_back() {
                Some(last) if last.0.kind == kind => after = Some(last),
                _ => break,
            }
        }
    }
    if ids.is_empty() { Ok(()) } else { visit(&ids) }
}

const IDS_AT_ONCE: usize = 200;
const TERMS_AT_ONCE: usize = 5000;
