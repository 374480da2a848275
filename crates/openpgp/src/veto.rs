//! What the operator of a server keeps from its users, whatever the certificate says.
//!
//! A veto takes away from the projection for users and never adds to it. It is no property of the certificate: other
//! servers go on as before, and the packets stay stored, so it can be taken back.

use crate::cert::{Cert, Component};
use crate::facts::Facts;
use crate::packet::tag;
use crate::project;
use std::collections::BTreeSet;

/// What users do not get of one certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Veto {
    /// They get all that is sound.
    #[default]
    Nothing,
    /// Not these user ids (packet bodies).
    UserIds(BTreeSet<Box<[u8]>>),
    /// Nothing but the primary key with the owner's revocation of it for all time: whoever still uses the key has to learn
    /// of that. Without such a revocation nothing at all.
    Certificate,
}

impl Veto {
    /// May users get this component, as far as the veto goes?
    pub fn leaves(&self, component: &Component) -> bool {
        match self {
            Self::Nothing => true,
            Self::UserIds(bodies) => component.tag != tag::USER_ID || !bodies.contains(&component.body),
            Self::Certificate => {
                let mut signatures = component.signatures.iter();
                component.tag == tag::PUBLIC_KEY && signatures.any(|signature| self.leaves_signature(&signature.facts))
            }
        }
    }

    /// May users get this signature on a component that they may get?
    pub(crate) fn leaves_signature(&self, facts: &Facts) -> bool {
        *self != Self::Certificate || project::takes_back(facts) && project::is_served(facts)
    }
}

impl Cert {
    /// Did the owner revoke the key for all time?
    pub fn is_taken_back(&self) -> bool {
        project::is_taken_back(self)
    }

    /// The user ids that the owner signed, shown or not, revoked or not.
    pub fn own_user_ids(&self) -> impl Iterator<Item = &Component> {
        self.components.iter().filter(|component| is_own_user_id(component))
    }

    /// The primary key with the owner's revocations for all time, and those of the owner's user ids that are `named`, with
    /// what the owner signed on them.
    pub fn without_all_but(&self, named: impl Fn(&Component) -> bool) -> Self {
        let mut components = Vec::new();
        for component in &self.components {
            let mut kept = component.clone();
            match component.tag {
                tag::PUBLIC_KEY => kept.signatures.retain(|attached| project::takes_back(&attached.facts)),
                tag::USER_ID if is_own_user_id(component) && named(component) => {
                    kept.signatures.retain(|attached| attached.facts.binds())
                }
                _ => continue,
            }
            components.push(kept);
        }
        Self { components }
    }
}

fn is_own_user_id(component: &Component) -> bool {
    component.tag == tag::USER_ID && component.is_bound()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cert::Attached;
    use crate::facts::Fact;
    use crate::packet::signature::kind;
    use crate::project::Projection;
    use crate::serving::Serving;
    use crate::stored::write_projection;

    fn signature(kind: u8, hard: bool) -> Attached {
        let mut attached = Attached::new(&[4, kind, u8::from(hard)]);
        attached.facts = Facts::from_bits(Fact::Own as u32 | Fact::Valid as u32 | Fact::Fitting as u32);
        attached.facts.note(Fact::Hard, hard);
        attached.facts.kind = kind;
        attached
    }

    fn cert(revocation: Option<bool>) -> Cert {
        let mut primary = Component::new(tag::PUBLIC_KEY, &[4, 0, 0, 0, 1, 99, 7, 7]);
        primary.signatures.push(signature(kind::DIRECT_KEY, false));
        primary
            .signatures
            .extend(revocation.map(|hard| signature(kind::KEY_REVOCATION, hard)));
        let user_ids = [b"a", b"b"].map(|body| {
            let mut user_id = Component::new(tag::USER_ID, body);
            user_id.signatures.push(signature(kind::CERTIFICATION, false));
            user_id
        });
        Cert::new([&[primary][..], &user_ids].concat()).unwrap()
    }

    fn served(cert: &Cert, veto: &Veto) -> usize {
        let mut packets = Vec::new();
        let stored = cert.encode_under(&Serving::default(), veto);
        write_projection(&stored, Projection::Served, &mut packets).unwrap();
        crate::packet::Frames::new(&packets).count()
    }

    #[test]
    fn users_get_what_the_veto_leaves() {
        let hidden = Veto::UserIds([b"a"[..].into()].into());
        assert_eq!(served(&cert(None), &Veto::Nothing), 6);
        assert_eq!(served(&cert(None), &hidden), 4);
        assert_eq!(served(&cert(None), &Veto::Certificate), 0);
        assert_eq!(served(&cert(Some(false)), &Veto::Certificate), 0);
        assert_eq!(served(&cert(Some(true)), &Veto::Certificate), 2);
    }

    #[test]
    fn what_is_left_of_a_vetoed_copy_tells_of_the_revocation() {
        let mut cert_with_grafts = cert(Some(true));
        cert_with_grafts.components.push(Component::new(tag::USER_ID, b"c"));
        let left = cert_with_grafts.without_all_but(|user_id| *user_id.body != *b"a");
        assert!(left.is_taken_back());
        let lengths: Vec<_> = left.components().iter().map(|part| part.signatures.len()).collect();
        assert_eq!(lengths, [1, 1]);
        assert!(!cert(Some(false)).without_all_but(|_| false).is_taken_back());
    }
}
