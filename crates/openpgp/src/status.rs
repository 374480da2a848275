//! Validity: when components come into being, expire and are revoked, from their valid self-signatures.
//!
//! Times are facts of the certificate; whether something *has* expired is for the reader's clock to say.

use crate::cert::{Attached, Cert, Component};
use crate::facts::Fact;
use crate::packet::signature::{Signature, after, kind};
use crate::packet::tag;

/// What self-signatures say about a component.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Keys: when they were made. User ids: the first certification by the owner. Seconds since 1970.
    pub created: u32,
    /// Seconds since 1970; `None` for never.
    pub expires: Option<u32>,
    /// Taken back by the owner.
    pub revoked: Option<Revocation>,
    /// The owner's main user id.
    pub main: bool,
}

/// How a revocation reaches into the past (RFC 9580 §5.2.3.31).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// From the given time on: superseded, retired, no longer valid.
    Soft(u32),
    /// For all time: compromised, or no reason given.
    Hard,
}

impl Status {
    /// Status of every component, in the order of [`Cert::components`].
    pub fn of(cert: &Cert) -> Vec<Self> {
        let mut all: Vec<Self> = cert
            .components()
            .iter()
            .map(|component| component_status(cert, component))
            .collect();
        all[0].expires = key_expiry(cert, &all);
        all
    }

    /// Has it expired at `now` (seconds since 1970)?
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| u64::from(expires) <= now)
    }
}

fn component_status(cert: &Cert, component: &Component) -> Status {
    match component.tag {
        tag::PUBLIC_KEY => Status {
            created: cert.key().created,
            revoked: revocation(component, kind::KEY_REVOCATION, 0),
            ..Status::default()
        },
        tag::PUBLIC_SUBKEY => {
            let created = component.key().map_or(0, |key| key.created);
            let binding = newest(component, |of| of == kind::SUBKEY_BINDING);
            let span = binding.and_then(|binding| Signature::read(&binding.body)?.claims.key_expires_after);
            let revoked = revocation(component, kind::SUBKEY_REVOCATION, 0);
            Status {
                created,
                expires: after(created, span),
                revoked,
                main: false,
            }
        }
        _ => {
            let first = valid(component, is_certification)
                .map(|signature| signature.facts.created)
                .min();
            let newest = newest(component, is_certification);
            Status {
                created: first.unwrap_or_default(),
                expires: newest
                    .map(|newest| newest.facts.expires)
                    .filter(|expires| *expires != 0),
                // A user id may be certified again after it was revoked.
                revoked: revocation(
                    component,
                    kind::CERTIFICATION_REVOCATION,
                    newest.map_or(0, |newest| newest.facts.created),
                ),
                main: newest
                    .and_then(|newest| Signature::read(&newest.body))
                    .is_some_and(|newest| newest.claims.primary_user_id),
            }
        }
    }
}

/// The owner's word on when the primary key expires: the newest direct-key signature's if it has one, else that of
/// the newest certification of the main user id (RFC 9580 §5.2.3.10).
fn key_expiry(cert: &Cert, all: &[Status]) -> Option<u32> {
    let key = cert.key();
    if key.version <= 3 {
        const DAY: u32 = 86_400;
        return after(key.created, Some(u32::from(key.validity_days).saturating_mul(DAY)));
    }
    let span = |signature: &Attached| Signature::read(&signature.body).and_then(|read| read.claims.key_expires_after);
    let direct = newest(cert.primary(), |of| of == kind::DIRECT_KEY).and_then(span);
    let main = || {
        let user_ids = cert
            .components()
            .iter()
            .zip(all)
            .filter(|(component, _)| component.tag == tag::USER_ID);
        let standing = user_ids.filter(|(_, status)| status.revoked.is_none());
        let certified =
            standing.filter_map(|(component, status)| Some((status.main, newest(component, is_certification)?)));
        certified
            .max_by_key(|(main, newest)| (*main, newest.facts.created))
            .and_then(|(_, newest)| span(newest))
    };
    after(key.created, direct.or_else(main))
}

/// The strongest valid revocation made at `since` or later; a hard one counts whenever it was made.
fn revocation(component: &Component, of: u8, since: u32) -> Option<Revocation> {
    let mut soft = None;
    for signature in valid(component, |kind| kind == of) {
        if signature.facts.has(Fact::Hard) && component.tag != tag::USER_ID {
            return Some(Revocation::Hard);
        }
        let created = signature.facts.created;
        if created >= since {
            soft = Some(soft.map_or(created, |soft: u32| soft.min(created)));
        }
    }
    soft.map(Revocation::Soft)
}

fn newest(component: &Component, of: impl Fn(u8) -> bool) -> Option<&Attached> {
    valid(component, of).max_by_key(|signature| signature.facts.created)
}

fn valid(component: &Component, of: impl Fn(u8) -> bool) -> impl Iterator<Item = &Attached> {
    component.signatures.iter().filter(move |signature| {
        let facts = &signature.facts;
        facts.binds() && of(facts.kind)
    })
}

fn is_certification(of: u8) -> bool {
    (kind::CERTIFICATION..=kind::CERTIFICATION_LAST).contains(&of)
}
