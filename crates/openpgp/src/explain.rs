//! Why packets are not shown to users, in words, for whoever submitted them.

use crate::cert::{Attached, Cert, Component};
use crate::facts::Fact;
use crate::packet::tag;
use crate::project::{self, Projection};
use std::collections::BTreeSet;

/// Knows which packets of a verified certificate users don't get to see.
pub struct Explanation<'a> {
    cert: &'a Cert,
    /// Places of the components that users see.
    shown: BTreeSet<usize>,
}

/// A packet that users don't get to see. Nothing is put in words before it is asked for: there may be very many.
#[derive(Clone, Copy, Debug)]
pub struct Hidden<'a> {
    component: &'a Component,
    /// None if it is the component itself.
    signature: Option<&'a Attached>,
}

impl<'a> Explanation<'a> {
    /// Explains a verified certificate.
    pub fn of(cert: &'a Cert) -> Self {
        let shown = cert.shown(Projection::Served).map(|(at, _)| at).collect();
        Self { cert, shown }
    }

    /// All that is kept from users. The signatures of a hidden component are hidden with it and not listed.
    pub fn hidden(&self) -> impl Iterator<Item = Hidden<'a>> {
        let components = self.cert.components().iter().enumerate();
        components.flat_map(|(at, component)| {
            let shown = self.shown.contains(&at);
            let alone = (!shown).then_some(Hidden {
                component,
                signature: None,
            });
            let signatures = component.signatures.iter().filter(move |_| shown);
            let signatures = signatures.filter(|signature| !project::is_served(&signature.facts));
            let signatures = signatures.map(move |signature| Hidden {
                component,
                signature: Some(signature),
            });
            alone.into_iter().chain(signatures)
        })
    }

    /// Is this packet, which may be of another copy, hidden here in the same way?
    pub fn hides(&self, hidden: &Hidden<'_>) -> bool {
        let key = hidden.component.sort_key();
        let found = self
            .cert
            .components()
            .binary_search_by(|other| other.sort_key().cmp(&key));
        let Ok(at) = found else { return false };
        let shown = self.shown.contains(&at);
        let signatures = &self.cert.components()[at].signatures;
        match hidden.signature {
            None => !shown,
            Some(signature) => {
                let nth = signatures.binary_search_by(|other| other.body.cmp(&signature.body));
                shown && nth.is_ok_and(|nth| !project::is_served(&signatures[nth].facts))
            }
        }
    }
}

impl Hidden<'_> {
    /// Which packet, in words.
    pub fn part(&self) -> String {
        let component = name(self.component);
        match self.signature {
            None => component,
            Some(signature) => {
                let (kind, issuer) = (signature.facts.kind, signature.facts.issuer);
                format!("signature {kind:02X} by {issuer} on {component}")
            }
        }
    }

    /// Why not, in words.
    pub fn reason(&self) -> &'static str {
        self.signature
            .map_or_else(|| component_reason(self.component), signature_reason)
    }
}

/// Longest part of a user id that is put into an explanation.
const USER_ID_OCTETS_MAX: usize = 200;

fn name(component: &Component) -> String {
    let key = || {
        component
            .key()
            .map_or_else(|| "that is unreadable".to_owned(), |key| key.fingerprint().to_string())
    };
    match component.tag {
        tag::PUBLIC_KEY => format!("primary key {}", key()),
        tag::PUBLIC_SUBKEY => format!("subkey {}", key()),
        tag::USER_ID => format!("user id \"{}\"", beginning(&component.body)),
        _ => format!("user attribute of {} octets", component.body.len()),
    }
}

/// A user id, or the beginning of a long one.
fn beginning(user_id: &[u8]) -> String {
    match user_id.get(..USER_ID_OCTETS_MAX) {
        Some(start) if start.len() < user_id.len() => format!("{}…", String::from_utf8_lossy(start)),
        _ => String::from_utf8_lossy(user_id).into_owned(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_user_ids_are_shortened_and_what_another_copy_shows_is_told() {
        let component = |body: &[u8]| {
            let mut component = Component::new(tag::USER_ID, body);
            component.signatures.push(Attached::new(&[1]));
            component
        };
        let key = || Component::new(tag::PUBLIC_KEY, &[4, 0, 0, 0, 1, 99, 7, 7]);
        let junk = Cert::new(vec![key(), component(&[b'x'; 5000])]).unwrap();
        let explanation = Explanation::of(&junk);
        let hidden: Vec<_> = explanation.hidden().collect();
        assert_eq!(hidden.len(), 2);
        assert!(hidden[1].part().len() < USER_ID_OCTETS_MAX + 20);
        assert!(hidden[1].part().ends_with("x…\""));
        let mut bound = component(&[b'x'; 5000]);
        let valid = Fact::Valid as u16 | Fact::Fitting as u16;
        bound.signatures[0].facts = crate::facts::Facts::from_bits(valid);
        let sound = Cert::new(vec![key(), bound]).unwrap();
        assert!(hidden.iter().all(|hidden| explanation.hides(hidden)));
        assert!(!hidden.iter().any(|hidden| Explanation::of(&sound).hides(hidden)));
    }
}
