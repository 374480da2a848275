//! Projections: which packets of a stored certificate one kind of reader gets to see.
//!
//! A projection is a pure function of packets and verdicts: no clock, no configuration, no cryptography.

use crate::cert::{Attached, Cert, Component};
use crate::digest::{SksDigest, sks_digest};
use crate::facts::{Fact, Facts};
use crate::packet::key::Key;
use crate::packet::signature::kind;
use crate::packet::{self, tag};

/// One way to look at a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Projection {
    /// What users get: verified self-signatures, plausible signatures of others, nothing else.
    Served = 1,
    /// What SKS 1.1.6 stores, nothing verified: the largest part of the certificate that its grammar accepts.
    Sks = 1 << 1,
}

impl Projection {
    /// Does it show certificates with this primary key at all?
    fn sees(self, key: &Key<'_>) -> bool {
        match self {
            Self::Served => key.canonical,
            Self::Sks => key.version <= 4,
        }
    }

    /// Is this component (other than the primary key) seen?
    fn keeps(self, key: &Key<'_>, component: &Component) -> bool {
        match (self, component.tag) {
            (_, tag::PUBLIC_KEY) => true,
            (Self::Served, tag::USER_ID) => is_served_bound(component),
            (Self::Served, tag::PUBLIC_SUBKEY) => {
                is_served_bound(component) && component.key().is_some_and(|subkey| subkey.canonical)
            }
            (Self::Served, _) => false,
            (Self::Sks, tag::PUBLIC_SUBKEY) => {
                key.version == 4 && component.key().is_some_and(|subkey| subkey.version <= 4)
            }
            (Self::Sks, _) => true,
        }
    }

    /// How often a signature appears on a component that is seen.
    fn copies(self, component: &Component, signature: &Attached) -> u32 {
        match self {
            Self::Served if !is_served(&signature.facts) => 0,
            _ => self.repeats((component.tag, component.copies), signature.copies),
        }
    }

    /// How often a signature that is seen and occurred `copies` times is shown on a component, of which its tag and how
    /// often it occurred are given. SKS folds duplicates on the primary key, and on whatever occurred twice itself.
    pub(crate) fn repeats(self, component: (u8, u32), copies: u32) -> u32 {
        match (self, component) {
            (Self::Served, _) | (Self::Sks, (tag::PUBLIC_KEY, _) | (_, 2..)) => 1,
            (Self::Sks, _) => copies,
        }
    }
}

impl Cert {
    /// The components that `projection` shows, each with its signatures and how often they appear. Empty if it
    /// shows nothing of this certificate.
    pub fn project(
        &self,
        projection: Projection,
    ) -> impl Iterator<Item = (&Component, impl Iterator<Item = (&Attached, u32)>)> {
        self.shown(projection).map(move |(at, signatures)| {
            let component = &self.components[at];
            let shown = signatures.map(move |nth| {
                let signature = &component.signatures[nth];
                (signature, projection.copies(component, signature))
            });
            (component, shown)
        })
    }

    /// Places of the components that `projection` shows, each with the places of its signatures that it shows.
    pub(crate) fn shown(&self, projection: Projection) -> impl Iterator<Item = (usize, impl Iterator<Item = usize>)> {
        let key = self.key();
        let seen = projection.sees(&key) && (projection != Projection::Served || self.is_presentable());
        let components = self.components.iter().enumerate();
        let kept = components.filter(move |(_, component)| seen && projection.keeps(&key, component));
        kept.map(move |(at, component)| {
            let signatures = component.signatures.iter().enumerate();
            let shown = signatures.filter(move |(_, signature)| projection.copies(component, signature) > 0);
            (at, shown.map(|(nth, _)| nth))
        })
    }

    /// The packets that `projection` shows, with headers, ready to be sent. Nothing if it shows nothing.
    pub fn write(&self, projection: Projection, out: &mut Vec<u8>) {
        for (component, signatures) in self.project(projection) {
            packet::write(out, component.tag, &component.body);
            for (signature, copies) in signatures {
                (0..copies).for_each(|_| packet::write(out, tag::SIGNATURE, &signature.body));
            }
        }
    }

    /// All that is kept, duplicates included: reading it gives this certificate again.
    pub fn write_all(&self, out: &mut Vec<u8>) {
        for component in &self.components {
            packet::write(out, component.tag, &component.body);
            for signature in &component.signatures {
                (0..signature.copies).for_each(|_| packet::write(out, tag::SIGNATURE, &signature.body));
            }
            (1..component.copies).for_each(|_| packet::write(out, component.tag, &component.body));
        }
    }

    /// The digest that an SKS peer has for this certificate; `None` if SKS would hold nothing of it.
    pub fn sks_digest(&self) -> Option<SksDigest> {
        let mut packets = Vec::new();
        for (component, signatures) in self.project(Projection::Sks) {
            packets.push((component.tag, &*component.body));
            for (signature, copies) in signatures {
                packets.extend((0..copies).map(|_| (tag::SIGNATURE, &*signature.body)));
            }
        }
        (!packets.is_empty()).then(|| sks_digest(packets))
    }

    /// Does any self-signature say that somebody holds the key? Without one there is nothing to show to users.
    pub fn is_presentable(&self) -> bool {
        self.components.iter().any(is_served_bound)
    }
}

/// Is a signature sound enough for users?
pub fn is_served(facts: &Facts) -> bool {
    let own = facts.binds() || facts.own_unverifiable();
    let others = facts.plausible() && facts.kind != kind::SUBKEY_BINDING;
    (own || others) && !facts.has(Fact::Local)
}

pub(crate) fn is_served_bound(component: &Component) -> bool {
    component.signatures.iter().any(|signature| {
        (signature.facts.binds() || signature.facts.own_unverifiable()) && !signature.facts.has(Fact::Local)
    })
}
