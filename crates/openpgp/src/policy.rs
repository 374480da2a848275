//! Policy: how much of a certificate is kept, and what is least worth keeping.

use crate::cert::{Attached, Cert, Component};
use crate::crypto;
use crate::facts::{Fact, Facts};
use crate::packet::tag;
use std::cmp::Reverse;

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
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_octets: 1 << 20,
            signature_octets: 128 << 10,
            user_id_octets: 16 << 10,
            certificate_octets: 8 << 20,
            packets: 20_000,
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
    /// Packets are taken in order of their worth, the most valuable first, and the first one that does not fit
    /// ends the list. The order depends on a packet and its verdict only, so it does not matter whether two copies
    /// are trimmed before or after they are merged. Valid self-signatures and what they bind stay in any case.
    pub fn trim(&self, cert: &mut Cert) -> usize {
        if self.fits(cert.extent()) {
            return 0;
        }
        fold_copies(cert);
        let mut items = items(cert);
        items.sort_by_key(|item| Reverse(item.rank));
        let (mut packets, mut octets) = (0, 0);
        let keep = items.iter().take_while(|item| {
            packets += 1;
            octets += item.octets;
            item.rank.0 == Worth::Own || self.fits((packets, octets))
        });
        let keep = keep.count();
        let mut gone: Vec<(usize, Option<usize>)> = items.split_off(keep).into_iter().map(|item| item.place).collect();
        let count = gone.len();
        // From the back, so that places stay true while packets go. A component outranks its signatures here only if
        // it is unbound, and then they went before it.
        gone.sort();
        for (component, signature) in gone.into_iter().rev() {
            match signature {
                Some(signature) => drop(cert.components[component].signatures.remove(signature)),
                None => drop(cert.components.remove(component)),
            }
        }
        count
    }

    fn fits(&self, (packets, octets): (u64, u64)) -> bool {
        packets <= self.packets && octets <= self.certificate_octets
    }
}

/// How much a packet is worth, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// Proves nothing to anybody.
    Junk,
    /// Somebody else's, perhaps.
    ThirdParty,
    /// A component that no self-signature binds.
    Unbound,
    /// A self-signature, perhaps.
    Unverifiable,
    /// The owner's, and what the owner's signatures bind.
    Own,
}

struct Item {
    /// Worth, then the SHA-256 of the packet: an order that nobody chooses.
    rank: (Worth, [u8; 32]),
    octets: u64,
    place: (usize, Option<usize>),
}

fn fold_copies(cert: &mut Cert) {
    for component in &mut cert.components {
        component.copies = 1;
        component
            .signatures
            .iter_mut()
            .for_each(|signature| signature.copies = 1);
    }
}

fn items(cert: &Cert) -> Vec<Item> {
    let item = |worth, body: &[u8], place| Item {
        rank: (worth, crypto::sha256(&[body])),
        octets: body.len() as u64,
        place,
    };
    let components = cert.components().iter().enumerate();
    components
        .flat_map(|(at, component)| {
            let signature = move |(nth, signature): (usize, &Attached)| {
                item(signature_worth(&signature.facts), &signature.body, (at, Some(nth)))
            };
            let own = item(component_worth(component), &component.body, (at, None));
            std::iter::once(own).chain(component.signatures.iter().enumerate().map(signature))
        })
        .collect()
}

fn signature_worth(facts: &Facts) -> Worth {
    if facts.own_valid() {
        Worth::Own
    } else if facts.own_unverifiable() {
        Worth::Unverifiable
    } else if facts.plausible() || facts.has(Fact::Unverifiable) {
        Worth::ThirdParty
    } else {
        Worth::Junk
    }
}

fn component_worth(component: &Component) -> Worth {
    let signatures = || {
        component
            .signatures
            .iter()
            .map(|signature| signature_worth(&signature.facts))
    };
    match component.tag {
        tag::PUBLIC_KEY => Worth::Own,
        _ => signatures()
            .filter(|worth| *worth > Worth::Unbound)
            .max()
            .unwrap_or(Worth::Unbound),
    }
}
