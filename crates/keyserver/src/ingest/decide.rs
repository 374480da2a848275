//! What becomes of a copy of a certificate, given what is stored and the rules of that moment.

use super::Prepared;
use crate::formats::Policy;
use crate::lifecycle::{Action, RuleSet};
use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::merge::merge;
use keyrink_openpgp::policy::Limits;
use keyrink_openpgp::stored::have_same_packets;
use keyrink_store::{Decision, Record, Stored};
use std::sync::atomic::Ordering;

/// What decides about certificates inside a transaction.
pub(super) struct Deciding<'a> {
    pub(super) rules: &'a RuleSet,
    pub(super) limits: &'a Limits,
    pub(super) policy: Policy,
}

impl Deciding<'_> {
    pub(super) fn decide(&self, new: &Prepared, old: Option<&Stored>) -> Decision {
        let judgement = self.rules.judge(&new.cert);
        new.set_ban(judgement.ban());
        new.no_news.store(false, Ordering::Relaxed);
        if judgement.erases() {
            return Decision::Keep;
        }
        // What can't be read any more is left for `check` to report; it must not be replaced by less.
        let is_same = |old: &Stored| (&new.record.data, new.record.policy) == (&old.data, old.policy);
        match old {
            Some(old) if is_same(old) && judgement.veto() == new.veto => Decision::Keep,
            Some(old) => match Cert::decode(&old.data) {
                Ok(cert) => self.merge(new, judgement.blocks(), old, cert),
                Err(_) => Decision::Keep,
            },
            None if judgement.blocks() => match self.admitted(&new.cert) {
                cert if cert.is_taken_back() => self.put(new, &cert),
                _ => Decision::Keep,
            },
            None if judgement.veto() == new.veto => self.put_if_it_fits(new, &new.cert, || new.record.clone()),
            None => self.put(new, &new.cert),
        }
    }

    /// Unites a copy with the stored one. Of a blocked certificate, and for one, no more is taken than a revocation for all
    /// time, and the user id that blocks it.
    fn merge(&self, new: &Prepared, blocked: bool, old: &Stored, cert: Cert) -> Decision {
        let was_blocked = self.rules.judge(&cert).blocks();
        let more = match blocked || was_blocked {
            true => self.admitted(&new.cert),
            false => new.cert.clone(),
        };
        if was_blocked {
            new.set_ban(Some(Action::Block));
            if !more.is_taken_back() {
                return Decision::Keep;
            }
        }
        let Some(mut merged) = merge(cert, more) else {
            return Decision::Keep;
        };
        self.limits.trim(&mut merged);
        let decision = self.put(new, &merged);
        if let Decision::Put(record) = &decision
            && have_same_packets(&record.data, &old.data)
        {
            new.no_news.store(true, Ordering::Relaxed);
            if (&record.data, record.policy) == (&old.data, old.policy) {
                return Decision::Keep;
            }
        }
        decision
    }

    fn admitted(&self, cert: &Cert) -> Cert {
        cert.without_all_but(|user_id| self.rules.selects(user_id))
    }

    pub(super) fn put(&self, new: &Prepared, cert: &Cert) -> Decision {
        let judgement = self.rules.judge(cert);
        if judgement.erases() {
            return Decision::Delete;
        }
        self.put_if_it_fits(new, cert, || self.policy.record(cert, &judgement.veto()))
    }

    fn put_if_it_fits(&self, new: &Prepared, cert: &Cert, record: impl Fn() -> Record) -> Decision {
        let record = record();
        let takes = self.limits.bears(cert) && record.data.len() <= Record::OCTETS_MAX;
        new.too_large.store(!takes, Ordering::Relaxed);
        if !takes {
            tracing::warn!(fingerprint = %cert.key().fingerprint(), "the owner's signatures exceed the limits: not stored");
            return Decision::Keep;
        }
        Decision::Put(record)
    }
}
