//! What of a certificate stands in its normal form, now that all of it is known.

use crate::cert::{Attached, Cert, Component};
use crate::facts::Fact;
use crate::hockeypuck::normal;
use crate::packet::signature::kind;
use crate::packet::tag;
use std::cmp::Reverse;

/// What depends on the certificate as a whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    /// The owner took the key back for all time: no user ids, and no signatures of others.
    hard: bool,
    /// Signatures are so long that of the owner's only the newest stays on each component.
    newest: bool,
}

impl View {
    /// How the normal form looks at this certificate; `None` if it has none.
    pub(crate) fn of(cert: &Cert) -> Option<Self> {
        let primary = cert.primary();
        let revoked = primary.signatures.iter().any(|attached| {
            let facts = &attached.facts;
            attached.normal > 0
                && facts.has(Fact::NormalOwn)
                && facts.has(Fact::Hard)
                && facts.kind == kind::KEY_REVOCATION
        });
        (primary.normal > 0).then(|| Self {
            hard: revoked,
            newest: SLH_DSA.contains(&cert.key().algorithm),
        })
    }

    /// How often a component stands there.
    pub(crate) fn components(self, component: &Component) -> u32 {
        match component.tag {
            tag::PUBLIC_KEY => 1,
            tag::USER_ID if self.hard => 0,
            _ if normal::is_bound(component) => component.normal,
            _ => 0,
        }
    }

    /// How often a signature stands on a component that stands there.
    pub(crate) fn signatures(self, component: &Component, attached: &Attached) -> u32 {
        let own = attached.facts.has(Fact::NormalOwn);
        match () {
            () if attached.normal == 0 || (self.hard && !own) => 0,
            () if self.newest && own && !is_revocation(attached.facts.kind) => {
                u32::from(newest(component).is_some_and(|newest| newest.body == attached.body))
            }
            () => attached.normal,
        }
    }
}

/// The owner's newest certification or binding of a component.
fn newest(component: &Component) -> Option<&Attached> {
    let binds = |attached: &&Attached| {
        attached.normal > 0 && attached.facts.has(Fact::NormalOwn) && !is_revocation(attached.facts.kind)
    };
    let all = component.signatures.iter().filter(binds);
    all.max_by_key(|attached| (attached.facts.created, Reverse(&attached.body)))
}

fn is_revocation(of: u8) -> bool {
    matches!(
        of,
        kind::KEY_REVOCATION | kind::SUBKEY_REVOCATION | kind::CERTIFICATION_REVOCATION
    )
}

/// Algorithms with signatures of 8 to 30 KiB.
const SLH_DSA: std::ops::RangeInclusive<u8> = 32..=34;
