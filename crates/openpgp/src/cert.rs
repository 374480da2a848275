//! A certificate: a set of packets, each attached to a component.
//!
//! A *component* is what signatures attach to: the primary key, a user id, a user attribute or a subkey. A
//! certificate is its list of components, the primary key first. Packet bodies are never changed. A packet that
//! occurred several times in the one copy that ever arrived keeps that number (*copies*), because some peers hash
//! duplicates; merging with a different copy sets it to one. What Hockeypuck keeps is counted apart (*normal*).

use crate::facts::Facts;
use crate::packet::key::{Key, KeyError};
use crate::packet::tag;

/// A certificate, in canonical order: no two components and no two signatures of a component are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cert {
    /// The primary key, then user ids, user attributes and subkeys, each group sorted by body.
    pub(crate) components: Vec<Component>,
}

/// Something signatures attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Packet type.
    pub tag: u8,
    /// The packet as it arrived, without its header.
    pub body: Box<[u8]>,
    /// How often it occurred.
    pub copies: u32,
    /// How often it stands in Hockeypuck's normal form of a copy.
    pub normal: u32,
    /// Its signatures, sorted by body.
    pub signatures: Vec<Attached>,
    /// Until the copy is judged: if it occurred several times, the places of the signatures of each occurrence, as often
    /// as they stand there.
    pub(crate) seats: Vec<Vec<u32>>,
}

/// A signature in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The packet as it arrived, without its header.
    pub body: Box<[u8]>,
    /// How often it occurred in this place.
    pub copies: u32,
    /// How often it stands in this place in Hockeypuck's normal form of a copy.
    pub normal: u32,
    /// The trust packets that stand behind it there.
    pub trust: Vec<Box<[u8]>>,
    /// What the verifier found.
    pub facts: Facts,
}

impl Cert {
    /// Puts components into canonical order and folds equal ones. The first, and no other, must be a primary key, and
    /// have an identity.
    pub fn new(components: Vec<Component>) -> Result<Self, KeyError> {
        let mut cert = Self::of_copy(components)?;
        cert.components
            .iter_mut()
            .for_each(|component| component.seats = Vec::new());
        Ok(cert)
    }

    /// The same of a copy that is yet to be judged: it remembers which signatures stood on which of equal components.
    pub(crate) fn of_copy(components: Vec<Component>) -> Result<Self, KeyError> {
        let is_primary = |component: &&Component| component.tag == tag::PUBLIC_KEY;
        let primary = components
            .first()
            .filter(is_primary)
            .filter(|_| components.iter().filter(is_primary).count() == 1)
            .ok_or(KeyError::Truncated)?;
        Key::read(&primary.body)?;
        Ok(Self {
            components: canonical(components),
        })
    }

    /// The primary key's component.
    pub fn primary(&self) -> &Component {
        &self.components[0]
    }

    /// The primary key.
    pub fn key(&self) -> Key<'_> {
        Key::read(&self.primary().body).expect("a certificate is only made of a key with an identity")
    }

    /// All components, the primary key first.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// Identifies the stored record: the fingerprint, and for a primary key packet that is not the only one that can
    /// have this fingerprint, 8 octets of its SHA-1 behind it. So one record is always one primary key packet.
    pub fn id(&self) -> Vec<u8> {
        let key = self.key();
        let mut id = key.fingerprint().as_bytes().to_vec();
        if key.version <= 3 || !key.canonical {
            id.extend_from_slice(&crate::crypto::digest::sha1(&[&self.primary().body])[..8]);
        }
        id
    }

    /// Packets, and octets of their bodies, each as often as it occurred.
    pub fn extent(&self) -> (u64, u64) {
        self.components
            .iter()
            .flat_map(Component::sizes)
            .fold((0, 0), |(packets, octets), (copies, length)| {
                (packets + u64::from(copies), octets + u64::from(copies) * length as u64)
            })
    }
}

impl Component {
    /// A component without signatures that occurred once.
    pub fn new(tag: u8, body: &[u8]) -> Self {
        Self {
            tag,
            body: body.into(),
            copies: 1,
            normal: 1,
            signatures: Vec::new(),
            seats: Vec::new(),
        }
    }

    /// Its key, if it is one that has an identity.
    pub fn key(&self) -> Option<Key<'_>> {
        matches!(self.tag, tag::PUBLIC_KEY | tag::PUBLIC_SUBKEY).then(|| Key::read(&self.body).ok())?
    }

    /// Some valid self-signature attaches it to its primary key, or revokes it.
    pub fn is_bound(&self) -> bool {
        self.signatures.iter().any(|signature| signature.facts.binds())
    }

    pub(crate) fn sort_key(&self) -> (u8, &[u8]) {
        let group = match self.tag {
            tag::PUBLIC_KEY => 0,
            tag::USER_ID => 1,
            tag::USER_ATTRIBUTE => 2,
            _ => 3,
        };
        (group, &self.body)
    }

    fn sizes(&self) -> impl Iterator<Item = (u32, usize)> {
        let signatures = self
            .signatures
            .iter()
            .map(|signature| (signature.copies, signature.body.len()));
        let trust = self.signatures.iter().flat_map(|signature| &signature.trust);
        let trust = trust.map(|packet| (1, packet.len()));
        std::iter::once((self.copies, self.body.len()))
            .chain(signatures)
            .chain(trust)
    }
}

impl Attached {
    /// A signature that occurred once and is yet to be verified.
    pub fn new(body: &[u8]) -> Self {
        Self {
            body: body.into(),
            copies: 1,
            normal: 1,
            trust: Vec::new(),
            facts: Facts::default(),
        }
    }

    /// It stands in no normal form, and so does what stands behind it.
    pub(crate) fn leave_normal(&mut self) {
        self.normal = 0;
        self.trust = Vec::new();
    }

    /// Takes in an equal packet of the same place.
    fn absorb(&mut self, later: &Self) {
        self.copies = added(self.copies, later.copies);
        self.normal = added(self.normal, later.normal);
    }
}

/// More copies of a packet are not counted.
pub(crate) const COPIES_MAX: u32 = 1 << 20;

fn added(copies: u32, more: u32) -> u32 {
    copies.saturating_add(more).min(COPIES_MAX)
}

fn canonical(mut components: Vec<Component>) -> Vec<Component> {
    components.sort_by(|a, b| a.sort_key().cmp(&b.sort_key()));
    let mut folded: Vec<Component> = Vec::with_capacity(components.len());
    let mut components = components.into_iter().peekable();
    while let Some(mut first) = components.next() {
        let mut later = Vec::new();
        while let Some(equal) = components.next_if(|equal| equal.sort_key() == first.sort_key()) {
            first.copies = added(first.copies, equal.copies);
            first.normal = added(first.normal, equal.normal);
            later.push(equal.signatures);
        }
        if later.is_empty() {
            fold(&mut first.signatures);
        } else {
            later.insert(0, std::mem::take(&mut first.signatures));
            seat(&mut first, later);
        }
        folded.push(first);
    }
    folded
}

fn fold(signatures: &mut Vec<Attached>) {
    signatures.sort_by(|a, b| a.body.cmp(&b.body));
    signatures.dedup_by(|later, first| {
        let equal = later.body == first.body;
        if equal {
            first.absorb(later);
        }
        equal
    });
}

/// Gives a component the signatures of all its occurrences, sorted and folded.
fn seat(component: &mut Component, occurrences: Vec<Vec<Attached>>) {
    let mut seats = vec![Vec::new(); occurrences.len()];
    let occurrences = occurrences.into_iter().enumerate();
    let all = occurrences.flat_map(|(nth, signatures)| signatures.into_iter().map(move |signature| (nth, signature)));
    let mut all: Vec<_> = all.collect();
    all.sort_by(|(_, a), (_, b)| a.body.cmp(&b.body));
    let mut signatures: Vec<Attached> = Vec::with_capacity(all.len());
    for (nth, signature) in all {
        let read = signature.normal as usize;
        match signatures.last_mut() {
            Some(first) if first.body == signature.body => first.absorb(&signature),
            _ => signatures.push(signature),
        }
        let place = signatures.len() as u32 - 1;
        seats[nth].extend(std::iter::repeat_n(place, read));
    }
    component.signatures = signatures;
    component.seats = seats;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_has_one_primary_key() {
        let key = [&[4, 0, 0, 0, 1, 99][..], &[7; 8]].concat();
        let one = || Component::new(tag::PUBLIC_KEY, &key);
        assert!(Cert::new(vec![one(), Component::new(tag::USER_ID, b"a")]).is_ok());
        assert!(Cert::new(vec![one(), Component::new(tag::PUBLIC_KEY, b"")]).is_err());
        assert!(Cert::new(vec![Component::new(tag::USER_ID, b"a"), one()]).is_err());
    }
}
