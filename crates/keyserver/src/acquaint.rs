//! What a node notes about signatures that nobody can verify here: whether their time has come, and whether it has a key of
//! the issuer that they name.
//!
//! Both only decide which of too many signatures users get ([`Serving`]), so issuers are looked for only where there is
//! not room for all, or where there are hardly any. An issuer's key may come later than its signatures: what is derived
//! anew is looked at again ([`crate::derive`]).
//!
//! [`Serving`]: keyrink_openpgp::serving::Serving

use crate::formats::{self, OPENPGP, Policy};
use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::packet::key::KeyId;
use keyrink_openpgp::terms::Term;
use keyrink_store::{Store, StoreError, Stored};
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a node knows about signatures by others.
#[derive(Debug, Default)]
pub(crate) struct Acquaintance {
    /// Whose keys are stored here.
    issuers: BTreeSet<KeyId>,
}

impl Acquaintance {
    /// What is known about the signatures on a certificate that is about to be stored beside `known`.
    pub(crate) fn with(
        store: &dyn Store,
        cert: &Cert,
        known: Option<&Cert>,
        policy: Policy,
    ) -> Result<Self, StoreError> {
        let strangers = cert.strangers();
        let all_shown = policy.serving().has_room(std::iter::once(cert).chain(known));
        if all_shown && strangers.len() > FEW_STRANGERS {
            return Ok(Self::default());
        }
        Self::of(store, strangers)
    }

    /// What is known about the signatures on stored certificates of which not all are shown.
    pub(crate) fn with_stored(store: &dyn Store, records: &[Stored], policy: Policy) -> Result<Self, StoreError> {
        let crowded = records.iter().filter(|stored| may_be_crowded(stored, policy));
        let certs = crowded.filter_map(|stored| Cert::decode(&stored.data).ok());
        let crowded = certs.filter(|cert| !policy.serving().has_room([cert]));
        Self::of(store, crowded.flat_map(|cert| cert.strangers()).collect())
    }

    /// Notes it in a certificate.
    pub(crate) fn note(&self, cert: &mut Cert) {
        let soon = SystemTime::now() + CLOCKS_DIFFER;
        let until = soon.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        cert.acquaint(u32::try_from(until).unwrap_or(u32::MAX), &self.issuers);
    }

    fn of(store: &dyn Store, strangers: BTreeSet<KeyId>) -> Result<Self, StoreError> {
        let mut issuers = BTreeSet::new();
        for issuer in strangers {
            let term = formats::beginning(&Term::KeyId(issuer.0));
            if store.holders(OPENPGP, &term, 1)? > 0 {
                issuers.insert(issuer);
            }
        }
        Ok(Self { issuers })
    }
}

/// Can it hold more of others' signatures than are shown?
pub(crate) fn may_be_crowded(stored: &Stored, policy: Policy) -> bool {
    stored.data.len() as u64 > policy.serving().others_octets
}

/// So many issuers are looked for in any case: whoever adds a signature to a crowded certificate sends it with few others.
const FEW_STRANGERS: usize = 4;
/// By so much the clocks of signers may be ahead.
const CLOCKS_DIFFER: Duration = Duration::from_secs(86_400);
