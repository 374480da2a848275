//! Policy: how much of a certificate is kept, and what is least worth keeping.

use crate::cert::{Cert, Component};
use crate::crypto::digest;
use crate::facts::{Fact, Facts};
use crate::hockeypuck::normal;
use crate::packet::tag;
use crate::project::{is_served, is_served_bound};
use crate::verify;
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Bounds on what is read and kept. The defaults hold every certificate of today's networks that is in real use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest key, subkey or attribute packet, in octets.
    pub packet_octets: u64,
    /// Longest signature packet, in octets. The longest standardised signature has about 50 000.
    pub signature_octets: u64,
    /// Longest user id, in octets.
    pub user_id_octets: u64,
    /// Octets of all packets of one certificate. Beyond it the least valuable packets go.
    pub certificate_octets: u64,
    /// Packets of one certificate. Beyond it the least valuable packets go.
    pub packets: u64,
    /// Octets of one certificate that users never see: what some peers keep, and nobody else wants. With none of them,
    /// a certificate without a valid self-signature is not kept at all. As many as all octets: no bound of its own.
    pub extra_octets: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_octets: 1 << 20,
            signature_octets: 128 << 10,
            user_id_octets: 16 << 10,
            certificate_octets: 16 << 20,
            packets: 20_000,
            extra_octets: 16 << 20,
        }
    }
}

impl Limits {
    pub(crate) fn octets_for(&self, tag: u8) -> u64 {
        match tag {
            tag::SIGNATURE => self.signature_octets,
            tag::USER_ID => self.user_id_octets,
            _ => self.packet_octets,
        }
    }

    /// Drops the least valuable packets of a verified certificate until it fits; says how many went.
    ///
    /// Signatures: within each class of sizes the most valuable stay, up to a number that depends on the limits only.
    /// How valuable one is depends on the packet and its own verdict and on nothing else, so it does not matter
    /// whether two copies are trimmed before or after they are merged (a limit on the sum of octets could not promise
    /// that). The same holds of components, which have a room of their own and go with their signatures. Valid
    /// self-signatures, and what they bind, stay in any case.
    ///
    /// Two things do depend on the moment: what others signed on a component that one copy binds and another has in
    /// vain, and how often a packet occurs that should occur once. Both are counted as one as soon as anything goes.
    pub fn trim(&self, cert: &mut Cert) -> usize {
        let extra = self.trim_extra(cert);
        let over = |cert: &Cert| self.surplus_components(cert) || self.surplus_signatures(cert);
        if !over(cert) {
            return extra;
        }
        fold_copies(cert);
        let before = cert.extent().0;
        self.trim_components(cert);
        self.trim_signatures(cert);
        extra + (before - cert.extent().0) as usize
    }

    /// Drops what users never see beyond its own bound, in the same way: so many of each class of sizes. What the owner
    /// signed, and users do not see, stays all the same.
    fn trim_extra(&self, cert: &mut Cert) -> usize {
        if self.extra_octets >= self.certificate_octets {
            return 0;
        }
        let before = cert.extent().0;
        let room = |octets: u64, largest: u64| [octets / SMALL, octets / 4 / MEDIUM, octets / 4 / largest.max(1)];
        let mut components = room(self.extra_octets / 4, self.packet_octets);
        let mut signatures = room(self.extra_octets / 2, self.signature_octets);
        if !is_full_of(cert, components, signatures) {
            return 0;
        }
        fold_copies(cert);
        let all = &cert.components;
        let hidden = (0..all.len()).filter(|&at| !is_shown_component(&all[at]));
        let kept = by_rank(hidden, |at| rank(Worth::Unproven, &all[at].body));
        let gone: BTreeSet<usize> = kept
            .into_iter()
            .filter(|&at| !take_room(&mut components, &all[at].body))
            .collect();
        let mut at = 0;
        cert.components.retain(|_| {
            at += 1;
            !gone.contains(&(at - 1))
        });
        let all = &cert.components;
        let places = all.iter().enumerate();
        let places = places.flat_map(|(at, component)| (0..component.signatures.len()).map(move |nth| (at, nth)));
        let signature = |(at, nth): (usize, usize)| &all[at].signatures[nth];
        let hidden = places.filter(|&place| is_extra(&signature(place).facts));
        let ranked = by_rank(hidden, |place| {
            rank(worth(&signature(place).facts), &signature(place).body)
        });
        let gone = ranked
            .into_iter()
            .filter(|&place| !take_room(&mut signatures, &signature(place).body));
        drop_signatures(cert, &gone.collect());
        (before - cert.extent().0) as usize
    }

    /// Even what the owner signed has an end: beyond four times the limits a certificate is not taken.
    pub fn bears(&self, cert: &Cert) -> bool {
        let (packets, octets) = cert.extent();
        self.fits((packets / 4, octets / 4)) && (self.extra_octets > 0 || cert.is_presentable())
    }

    fn fits(&self, (packets, octets): (u64, u64)) -> bool {
        packets <= self.packets && octets <= self.certificate_octets
    }

    /// How many signatures of each class of sizes there may be: together half of all octets for the small ones, in
    /// which nearly all signatures are, and an eighth for each other class.
    fn signature_room(&self) -> [u64; CLASSES] {
        let octets = self.certificate_octets;
        [
            octets / 2 / SMALL,
            octets / 8 / MEDIUM,
            octets / 8 / self.signature_octets.max(1),
        ]
        .map(|n| n.min(self.packets))
    }

    /// The same for components: a quarter of all octets.
    fn component_room(&self) -> [u64; CLASSES] {
        let octets = self.certificate_octets;
        [
            octets / 8 / SMALL,
            octets / 16 / MEDIUM,
            octets / 16 / self.packet_octets.max(1),
        ]
        .map(|n| n.min(self.packets))
    }

    fn surplus_signatures(&self, cert: &Cert) -> bool {
        let mut count = [0; CLASSES];
        let all = cert.components().iter().flat_map(|component| &component.signatures);
        all.for_each(|signature| count[class(&signature.body)] += u64::from(signature.copies));
        count
            .iter()
            .zip(self.signature_room())
            .any(|(count, room)| *count > room)
    }

    fn surplus_components(&self, cert: &Cert) -> bool {
        let mut count = [0; CLASSES];
        let all = cert.components().iter();
        all.for_each(|component| count[class(&component.body)] += u64::from(component.copies));
        count
            .iter()
            .zip(self.component_room())
            .any(|(count, room)| *count > room)
    }

    fn trim_components(&self, cert: &mut Cert) {
        let mut room = self.component_room();
        let components = &cert.components;
        // What is bound takes room by the same order, or what stays beside it would depend on when it was bound.
        let ranked = by_rank(0..components.len(), |at| rank(Worth::Unproven, &components[at].body));
        let mut gone: Vec<usize> = ranked
            .into_iter()
            .filter(|&at| !take_room(&mut room, &components[at].body) && !is_owned(&components[at]))
            .collect();
        gone.sort_unstable();
        gone.into_iter().rev().for_each(|at| drop(cert.components.remove(at)));
    }

    fn trim_signatures(&self, cert: &mut Cert) {
        let mut room = self.signature_room();
        let components = &cert.components;
        let places = components.iter().enumerate();
        let places = places.flat_map(|(at, component)| (0..component.signatures.len()).map(move |nth| (at, nth)));
        let signature = |(at, nth): (usize, usize)| &components[at].signatures[nth];
        let ranked = by_rank(places, |place| {
            rank(worth(&signature(place).facts), &signature(place).body)
        });
        let gone = ranked.into_iter().filter(|&place| {
            let fits = take_room(&mut room, &signature(place).body);
            !fits && worth(&signature(place).facts) != Worth::Own
        });
        drop_signatures(cert, &gone.collect());
    }
}

/// Drops the signatures at these places: component, and number of the signature on it.
fn drop_signatures(cert: &mut Cert, gone: &BTreeSet<(usize, usize)>) {
    for (at, component) in cert.components.iter_mut().enumerate() {
        let mut nth = 0;
        component.signatures.retain(|_| {
            nth += 1;
            !gone.contains(&(at, nth - 1))
        });
    }
}

/// Does it hold more of what users never see than there is room for?
fn is_full_of(cert: &Cert, mut components: [u64; CLASSES], mut signatures: [u64; CLASSES]) -> bool {
    let hidden = cert
        .components
        .iter()
        .filter(|component| !is_shown_component(component));
    let mut hidden = hidden.flat_map(|component| std::iter::repeat_n(&component.body, component.copies as usize));
    let all = cert.components.iter().flat_map(|component| &component.signatures);
    let mut unserved = all
        .filter(|signature| is_extra(&signature.facts))
        .flat_map(|signature| std::iter::repeat_n(&signature.body, signature.copies as usize));
    hidden.any(|body| !take_room(&mut components, body)) || unserved.any(|body| !take_room(&mut signatures, body))
}

/// Is this a signature that users never see, and not one that its owner made?
fn is_extra(facts: &Facts) -> bool {
    !is_served(facts) && worth(facts) != Worth::Own
}

/// Do users see this component, given that they see the certificate?
fn is_shown_component(component: &Component) -> bool {
    match component.tag {
        tag::PUBLIC_KEY => true,
        tag::USER_ID | tag::PUBLIC_SUBKEY => is_served_bound(component),
        _ => false,
    }
}

/// How much a signature is worth, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// Proves nothing to anybody.
    Junk,
    /// Somebody else's, by an algorithm that nobody knows here, or not looked at.
    Unproven,
    /// What somebody else takes back. As long as there is not room for all of these, nothing of their size stays that they
    /// could be about: who adds signatures to a certificate can make none of others' revocations go and leave what it revokes.
    TakenBack,
    /// The owner's, and valid.
    Own,
}

/// Octets of packets in the first two classes of sizes.
const SMALL: u64 = 1 << 10;
const MEDIUM: u64 = 16 << 10;
const CLASSES: usize = 3;

fn class(body: &[u8]) -> usize {
    [SMALL, MEDIUM]
        .iter()
        .take_while(|size| body.len() as u64 > **size)
        .count()
}

fn take_room(room: &mut [u64; CLASSES], body: &[u8]) -> bool {
    let room = &mut room[class(body)];
    let fits = *room > 0;
    *room = room.saturating_sub(1);
    fits
}

/// Worth, then the SHA-256 of the packet: an order that nobody chooses.
type Rank = (Worth, [u8; 32]);

fn rank(worth: Worth, body: &[u8]) -> Rank {
    (worth, digest::sha256(&[body]))
}

/// The most valuable first; equal packets in the order of their places.
fn by_rank<T: Copy>(places: impl Iterator<Item = T>, rank: impl Fn(T) -> Rank) -> Vec<T> {
    let mut ranked: Vec<(Rank, T)> = places.map(|place| (rank(place), place)).collect();
    ranked.sort_by_key(|(rank, _)| Reverse(*rank));
    ranked.into_iter().map(|(_, place)| place).collect()
}

fn fold_copies(cert: &mut Cert) {
    for component in &mut cert.components {
        normal::fold(component);
        component.copies = 1;
        component
            .signatures
            .iter_mut()
            .for_each(|signature| signature.copies = 1);
    }
}

fn worth(facts: &Facts) -> Worth {
    let may_be_sound = facts.plausible() || facts.has(Fact::Unverified);
    if facts.by_owner() {
        Worth::Own
    } else if may_be_sound && verify::is_revocation(facts.kind) {
        Worth::TakenBack
    } else if may_be_sound || facts.has(Fact::Unverifiable) {
        Worth::Unproven
    } else {
        Worth::Junk
    }
}

fn is_owned(component: &Component) -> bool {
    component.tag == tag::PUBLIC_KEY || component.signatures.iter().any(|signature| signature.facts.by_owner())
}
