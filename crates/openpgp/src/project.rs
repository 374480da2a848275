//! Projections: which packets of a stored certificate one kind of reader gets to see.
//!
//! A projection is a pure function of packets and verdicts: no clock, no configuration, no cryptography.

use crate::cert::{Attached, Cert, Component};
use crate::digest::{SksDigest, sks_digest};
use crate::facts::{Fact, Facts};
use crate::hockeypuck::trust;
use crate::hockeypuck::view::View;
use crate::packet::signature::kind;
use crate::packet::{self, tag};

/// One way to look at a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Projection {
    /// What users get: verified self-signatures, plausible signatures of others as far as [`Serving`] goes, nothing else.
    /// Of a key that can't be verified here nothing: anybody could put names and subkeys on it.
    /// Of a key that its owner took back for all time no user ids: who still has it needs the revocation and no more
    /// (HIP 005).
    ///
    /// [`Serving`]: crate::serving::Serving
    Served = 1,
    /// What SKS 1.1.6 stores, nothing verified: the largest part of the certificate that its grammar accepts.
    Sks = 1 << 1,
    /// What Hockeypuck 2.4 stores, its [normal form](crate::cert::Component::normal).
    Hockeypuck = 1 << 2,
    /// All that is kept: what nodes give each other that reconcile single signatures.
    All = 1 << 3,
}

impl Projection {
    /// How often a signature that is seen and occurred `copies` times is shown on a component, of which its tag and how
    /// often it occurred are given. SKS folds duplicates on the primary key, and on whatever occurred twice itself.
    pub(crate) fn repeats(self, component: (u8, u32), copies: u32) -> u32 {
        match (self, component) {
            (Self::Sks, (tag::PUBLIC_KEY, _) | (_, 2..)) => 1,
            (Self::Sks, _) => copies,
            _ => 1,
        }
    }
}

/// A projection pointed at a certificate that it shows.
#[derive(Clone, Copy)]
struct Lens {
    projection: Projection,
    /// Of the primary key.
    version: u8,
    /// The owner took the key back for all time, as far as users are concerned.
    hard: bool,
    /// Hockeypuck's, if it has one.
    view: Option<View>,
}

impl Lens {
    /// Nothing if it shows nothing of this certificate.
    fn on(cert: &Cert, projection: Projection) -> Option<Self> {
        let (key, view) = (cert.key(), View::of(cert));
        let seen = match projection {
            Projection::Served => key.canonical && cert.is_presentable(),
            Projection::Sks => key.version <= 4,
            Projection::All => true,
            Projection::Hockeypuck => view.is_some(),
        };
        seen.then_some(Self {
            projection,
            version: key.version,
            hard: is_taken_back(cert),
            view,
        })
    }

    /// How often a component is shown.
    fn components(self, component: &Component) -> u32 {
        let shown = match (self.projection, component.tag) {
            (Projection::Hockeypuck, _) => return self.view.map_or(0, |view| view.components(component)),
            (_, tag::PUBLIC_KEY) | (Projection::All, _) => true,
            (Projection::Served, tag::USER_ID) => {
                !self.hard && is_served_bound(component) && component.body.len() <= USER_ID_OCTETS_MAX
            }
            (Projection::Served, tag::PUBLIC_SUBKEY) => {
                // RFC 9580, section 10.1: nobody else makes anything of a subkey of the other kind.
                let goes_with = |version| (version > 5) == (self.version > 5);
                let key = component.key().filter(|subkey| subkey.canonical);
                let digested = |version| goes_with(version) && is_digested(self.version, version);
                is_served_bound(component) && key.is_some_and(|subkey| digested(subkey.version))
            }
            (Projection::Served, _) => false,
            (Projection::Sks, tag::PUBLIC_SUBKEY) => {
                self.version == 4 && component.key().is_some_and(|subkey| subkey.version <= 4)
            }
            (Projection::Sks, _) => true,
        };
        u32::from(shown)
    }

    /// How often a signature appears on a component that is shown.
    fn signatures(self, component: &Component, signature: &Attached) -> u32 {
        match self.projection {
            Projection::Hockeypuck => self.view.map_or(0, |view| view.signatures(component, signature)),
            Projection::Served if !is_shown(self.version, signature) => 0,
            projection => projection.repeats((component.tag, component.copies), signature.copies),
        }
    }
}

impl Cert {
    /// The components that `projection` shows. Empty if it shows nothing of this certificate.
    pub fn project(&self, projection: Projection) -> impl Iterator<Item = &Component> {
        self.shown(projection).map(|(at, _)| &self.components[at])
    }

    /// Places of the components that `projection` shows, each with the places of its signatures that it shows.
    pub(crate) fn shown(&self, projection: Projection) -> impl Iterator<Item = (usize, impl Iterator<Item = usize>)> {
        self.counted(projection)
            .map(|(at, _, signatures)| (at, signatures.map(|(nth, _)| nth)))
    }

    /// The same with how often each is shown.
    fn counted(
        &self,
        projection: Projection,
    ) -> impl Iterator<Item = (usize, u32, impl Iterator<Item = (usize, u32)>)> {
        let lens = Lens::on(self, projection);
        let components = self.components.iter().enumerate();
        let counted = components.filter_map(move |(at, component)| {
            let lens = lens?;
            let copies = lens.components(component);
            let signatures = component.signatures.iter().enumerate();
            let signatures = signatures.map(move |(nth, signature)| (nth, lens.signatures(component, signature)));
            Some((at, copies, signatures.filter(|(_, copies)| *copies > 0)))
        });
        counted.filter(|(_, copies, _)| *copies > 0)
    }

    /// Types and bodies of the packets that `projection` shows, in the order in which they are sent; of
    /// [`Projection::All`] each once.
    pub fn packets(&self, projection: Projection) -> Vec<(u8, &[u8])> {
        let mut packets = Vec::new();
        for (at, copies, signatures) in self.counted(projection) {
            let component = &self.components[at];
            let mut signatures: Vec<_> = signatures
                .map(|(nth, copies)| (&component.signatures[nth], copies))
                .collect();
            for _ in 1..copies {
                packets.push((component.tag, &*component.body));
                packets.extend(take_binding(&mut signatures).map(|attached| (tag::SIGNATURE, &*attached.body)));
            }
            packets.push((component.tag, &*component.body));
            for (attached, copies) in signatures {
                packets.extend((0..copies).map(|_| (tag::SIGNATURE, &*attached.body)));
                if projection == Projection::Hockeypuck {
                    packets.extend(attached.trust.iter().map(|trust| (tag::TRUST, &**trust)));
                }
            }
        }
        packets
    }

    /// The packets that `projection` shows, with headers, ready to be sent. Nothing if it shows nothing.
    pub fn write(&self, projection: Projection, out: &mut Vec<u8>) {
        if projection == Projection::All {
            return self.write_all(out);
        }
        let packets = self.packets(projection);
        packets.iter().for_each(|(tag, body)| packet::write(out, *tag, body));
    }

    /// All that is kept, duplicates included: reading it gives this certificate again, but for what Hockeypuck made of
    /// each of several copies.
    pub fn write_all(&self, out: &mut Vec<u8>) {
        for component in &self.components {
            let all = component.signatures.iter();
            let mut signatures: Vec<_> = all.map(|attached| (attached, attached.copies)).collect();
            let mut bare = component.copies;
            for _ in 1..component.normal.min(component.copies) {
                if let Some(binding) = take_binding(&mut signatures) {
                    packet::write(out, component.tag, &component.body);
                    packet::write(out, tag::SIGNATURE, &binding.body);
                    bare -= 1;
                }
            }
            packet::write(out, component.tag, &component.body);
            for (attached, copies) in signatures {
                (0..copies).for_each(|_| packet::write(out, tag::SIGNATURE, &attached.body));
                attached
                    .trust
                    .iter()
                    .for_each(|trust| packet::write(out, tag::TRUST, trust));
            }
            (1..bare).for_each(|_| packet::write(out, component.tag, &component.body));
        }
    }

    /// The digest by which peers that see certificates through `projection` know this one; `None` if they would hold
    /// nothing of it.
    pub fn digest(&self, projection: Projection) -> Option<SksDigest> {
        let packets = self.packets(projection);
        let digested = packets.iter().filter_map(|(tag, body)| match *tag {
            tag::TRUST => trust::digested(body).map(|body| (tag::TRUST, body)),
            tag => Some((tag, *body)),
        });
        (!packets.is_empty()).then(|| sks_digest(digested))
    }

    /// Does any self-signature say that somebody holds the key? Without one there is nothing to show to users.
    pub fn is_presentable(&self) -> bool {
        self.components.iter().any(is_served_bound)
    }
}

/// The longest user id that users get. GnuPG takes none that is longer, and few that are have anything to do with names.
pub(crate) const USER_ID_OCTETS_MAX: usize = 2048;

/// Takes one of the signatures by which the owner binds a component, of those with a number left: whoever reads a component
/// that stands there several times wants each bound by a signature of its own.
fn take_binding<'a>(signatures: &mut [(&'a Attached, u32)]) -> Option<&'a Attached> {
    let binds = |(attached, left): &&mut (&Attached, u32)| *left > 0 && attached.facts.has(Fact::NormalOwn);
    let (attached, left) = signatures.iter_mut().find(binds)?;
    *left -= 1;
    Some(*attached)
}

/// Did the owner revoke the key for all time?
pub(crate) fn is_taken_back(cert: &Cert) -> bool {
    let mut signatures = cert.primary().signatures.iter();
    signatures.any(|signature| takes_back(&signature.facts))
}

/// Is it a revocation of the primary key for all time, by its owner?
pub(crate) fn takes_back(facts: &Facts) -> bool {
    facts.binds() && facts.has(Fact::Hard) && facts.kind == kind::KEY_REVOCATION && !facts.has(Fact::Local)
}

/// Do users of a certificate of this version get the signature, if there is room for it?
pub(crate) fn is_shown(version: u8, signature: &Attached) -> bool {
    let digested = signature.body.first().is_some_and(|part| is_digested(version, *part));
    digested && is_served(&signature.facts)
}

/// Do programs that know keys of this version digest a part of that one? GnuPG 2.2 refuses a whole certificate because of one
/// signature of version 5 or 6.
fn is_digested(version: u8, part: u8) -> bool {
    part <= version.max(4)
}

/// Is a signature sound enough for users?
pub fn is_served(facts: &Facts) -> bool {
    let others = facts.plausible() && facts.kind != kind::SUBKEY_BINDING;
    (facts.binds() || others) && !facts.has(Fact::Local)
}

pub(crate) fn is_served_bound(component: &Component) -> bool {
    let mut signatures = component.signatures.iter();
    signatures.any(|signature| signature.facts.binds() && !signature.facts.has(Fact::Local))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component that its owner bound.
    fn bound(tag: u8, body: &[u8]) -> Component {
        let mut component = Component::new(tag, body);
        let mut binding = Attached::new(&[4, kind::SUBKEY_BINDING]);
        binding.facts = Facts::from_bits(Fact::Own as u32 | Fact::Valid as u32 | Fact::Fitting as u32);
        component.signatures.push(binding);
        component
    }

    #[test]
    fn users_get_no_files() {
        for (octets, served) in [(USER_ID_OCTETS_MAX, 1), (USER_ID_OCTETS_MAX + 1, 0)] {
            let user_id = bound(tag::USER_ID, &vec![b'a'; octets]);
            let cert = Cert::new(vec![bound(tag::PUBLIC_KEY, &[4, 0, 0, 0, 1, 22, 9, 1, 2, 3]), user_id]).unwrap();
            let user_ids = |projection| cert.project(projection).filter(|part| part.tag == tag::USER_ID);
            assert_eq!(
                [Projection::Served, Projection::Sks].map(|projection| user_ids(projection).count()),
                [served, 1],
                "{octets}"
            );
        }
    }

    #[test]
    fn users_get_no_part_whose_version_does_not_go_with_the_key() {
        let key = |version: u8| match version {
            4 => [&[4, 0, 0, 0, 1, 22][..], &[9, 1, 2, 3]].concat(),
            _ => [&[6, 0, 0, 0, 1, 25, 0, 0, 0, 32][..], &[7; 32]].concat(),
        };
        let certified = |version: u8| {
            let mut user_id = bound(tag::USER_ID, b"A");
            let mut certification = Attached::new(&[version, kind::CERTIFICATION]);
            certification.facts = Facts::from_bits(Fact::Fitting as u32 | Fact::DigestMatches as u32);
            user_id.signatures.push(certification);
            let cert = Cert::new(vec![bound(tag::PUBLIC_KEY, &key(4)), user_id]).unwrap();
            let packets = cert.packets(Projection::Served);
            packets
                .iter()
                .filter(|(tag, body)| (*tag, body[0]) == (tag::SIGNATURE, version))
                .count()
        };
        assert_eq!([3, 5, 6].map(certified), [1, 0, 0]);
        for (primary, subkey, served) in [(4, 4, 1), (4, 6, 0), (6, 6, 1), (6, 4, 0)] {
            let components = vec![
                bound(tag::PUBLIC_KEY, &key(primary)),
                bound(tag::PUBLIC_SUBKEY, &key(subkey)),
            ];
            let cert = Cert::new(components).unwrap();
            let subkeys = cert
                .project(Projection::Served)
                .filter(|part| part.tag == tag::PUBLIC_SUBKEY);
            let canonical = cert.components()[1].key().is_some_and(|key| key.canonical);
            assert_eq!((subkeys.count(), canonical), (served, true), "{subkey} on {primary}");
        }
    }
}
