//! What it takes for Hockeypuck to believe a signature, beyond what the verifier finds anyway.

use super::{Owner, Spent, old_key};
use crate::cert::Component;
use crate::facts::{Fact, Facts};
use crate::hockeypuck::signature::Read;
use crate::hockeypuck::{key, rules};
use crate::packet::signature::Signature;
use crate::packet::tag;

/// What Hockeypuck believes of a signature that it can read.
pub(super) enum Belief {
    /// Nothing.
    No,
    /// This, whatever else is found.
    Fact(Fact),
    /// That it is somebody else's, if its clear octets fit.
    Plausible,
    /// That it is the owner's, if it is valid.
    Valid(NeedsConsent),
}

impl Belief {
    /// Notes what is known already and gives what remains to be verified.
    pub(super) fn note(self, facts: &mut Facts, matches: bool) -> Option<NeedsConsent> {
        match self {
            Self::No => {}
            Self::Fact(fact) => facts.note(fact, true),
            Self::Plausible => facts.note(Fact::NormalOther, matches),
            Self::Valid(needs) => return Some(needs),
        }
        None
    }
}

/// Whether a subkey has to agree.
#[derive(Clone, Copy)]
pub(super) struct NeedsConsent(pub(super) bool);

impl Owner<'_> {
    /// What it takes for Hockeypuck to believe a signature on `component`, of which it has `read` something or nothing.
    pub(super) fn belief(
        &mut self,
        component: &Component,
        signature: &Signature<'_>,
        read: Option<Read<'_>>,
    ) -> Result<Belief, Spent> {
        let Some(read) = read else { return Ok(Belief::No) };
        if self.key.version <= 3 {
            let fact = old_key::judge(self, component, signature, &read)?;
            return Ok(fact.map_or(Belief::No, Belief::Fact));
        }
        let own = rules::is_own(&read, &self.key_id, &self.fingerprint);
        if !rules::may_stand(&read, self.key, component, own) {
            return Ok(Belief::No);
        }
        Ok(match own {
            true if !key::is_usable(self.key) => Belief::No,
            true => Belief::Valid(NeedsConsent(component.tag == tag::PUBLIC_SUBKEY && read.may_sign)),
            false => Belief::Plausible,
        })
    }
}
