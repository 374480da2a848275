//! Why packets are not shown to users, in words, for whoever submitted them.

use crate::cert::{Attached, Cert, Component};
use crate::facts::Fact;
use crate::packet::tag;
use crate::project::{self, Projection};
use std::collections::BTreeMap;

/// A packet that users don't get to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// Which packet.
    pub part: String,
    /// Why not.
    pub reason: &'static str,
}

/// Packets of a verified certificate that are kept from users, at most `limit` of them. The signatures of a hidden
/// component are hidden with it and not listed.
pub fn hidden(cert: &Cert, limit: usize) -> Vec<Hidden> {
    let shown: BTreeMap<usize, Vec<usize>> = cert
        .shown(Projection::Served)
        .map(|(at, signatures)| (at, signatures.collect()))
        .collect();
    let components = cert.components().iter().enumerate();
    let hidden = components.flat_map(|(at, component)| match shown.get(&at) {
        None => vec![Hidden {
            part: name(component),
            reason: component_reason(component),
        }],
        Some(signatures) => {
            let missing = component
                .signatures
                .iter()
                .enumerate()
                .filter(|(nth, _)| !signatures.contains(nth));
            let hidden = missing.map(|(_, signature)| Hidden {
                part: format!("{} on {}", signature_name(signature), name(component)),
                reason: signature_reason(signature),
            });
            hidden.collect()
        }
    });
    hidden.take(limit).collect()
}

fn name(component: &Component) -> String {
    let key = || {
        component
            .key()
            .map_or_else(|| "that is unreadable".to_owned(), |key| key.fingerprint().to_string())
    };
    match component.tag {
        tag::PUBLIC_KEY => format!("primary key {}", key()),
        tag::PUBLIC_SUBKEY => format!("subkey {}", key()),
        tag::USER_ID => format!("user id \"{}\"", String::from_utf8_lossy(&component.body)),
        _ => format!("user attribute of {} octets", component.body.len()),
    }
}

fn signature_name(signature: &Attached) -> String {
    format!("signature {:02X} by {}", signature.facts.kind, signature.facts.issuer)
}

fn component_reason(component: &Component) -> &'static str {
    let misses_consent = || {
        component
            .signatures
            .iter()
            .any(|signature| signature.facts.has(Fact::BackSignatureMissing))
    };
    match component.tag {
        tag::PUBLIC_KEY => "no valid self-signature shows that anybody holds this key",
        tag::USER_ATTRIBUTE => "user attributes are kept for peers, but not shown",
        tag::PUBLIC_SUBKEY if misses_consent() => "it is bound for signing, but has not signed its consent",
        _ => "no valid self-signature binds it to the key",
    }
}

fn signature_reason(signature: &Attached) -> &'static str {
    let facts = &signature.facts;
    debug_assert!(!project::is_served(facts));
    match () {
        () if !facts.has(Fact::Readable) => "it cannot be read",
        () if facts.has(Fact::Local) => "it is marked as not for publication",
        () if !facts.has(Fact::Fitting) => "a signature of this type does not belong there",
        () if facts.has(Fact::Unverified) => "the certificate has more signatures than are verified at once",
        () if facts.has(Fact::BackSignatureMissing) => "it binds for signing without the subkey's consent",
        () if facts.has(Fact::Own) && facts.has(Fact::Unverifiable) => "nobody can verify its algorithm here",
        () if facts.has(Fact::Own) => "it claims to be the owner's and is not valid",
        () if facts.has(Fact::Unverifiable) => "its hash algorithm is not known",
        () => "it was made over something else",
    }
}
