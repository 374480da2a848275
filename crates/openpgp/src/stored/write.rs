//! Writing the stored form.

use super::{EXPIRES, FORMAT, HARD, MAIN, SOFT, TRUSTED};
use crate::cert::{Attached, Cert, Component};
use crate::facts::{Fact, VERIFIER_VERSION};
use crate::packet::tag;
use crate::project::Projection;
use crate::serving::Serving;
use crate::status::{Revocation, Status};
use crate::veto::Veto;

impl Cert {
    /// The stored form of a verified certificate of which users get so much.
    pub fn encode(&self, serving: &Serving) -> Vec<u8> {
        self.encode_under(serving, &Veto::Nothing)
    }

    /// The same for a server whose operator keeps something from users.
    pub fn encode_under(&self, serving: &Serving, veto: &Veto) -> Vec<u8> {
        let octets = |component: &Component| {
            let signatures = component.signatures.iter().map(|signature| signature.body.len() + 32);
            component.body.len() + 64 + signatures.sum::<usize>()
        };
        let mut out = Vec::with_capacity(self.components.iter().map(octets).sum());
        out.extend_from_slice(&[FORMAT, VERIFIER_VERSION]);
        let all = Status::of(self);
        let mut seen = Seen::of(self, serving);
        seen.forbid(self, veto);
        let mut order: Vec<usize> = (0..self.components.len()).collect();
        order.sort_by_key(|&at| {
            let ((group, body), status) = (self.components[at].sort_key(), &all[at]);
            (group, status.revoked.is_some(), !status.main, status.created, body)
        });
        for at in order {
            let component = &self.components[at];
            write_component(&mut out, component, &all[at], seen.components[at]);
            let mut signatures: Vec<_> = component.signatures.iter().zip(&seen.signatures[at]).collect();
            signatures.sort_by_key(|(signature, _)| (!signature.facts.has(Fact::Own), signature.facts.created));
            for (signature, seen) in signatures {
                write_signature(&mut out, signature, *seen);
            }
        }
        out
    }
}

/// For every packet the projections that show it.
struct Seen {
    components: Vec<u8>,
    signatures: Vec<Vec<u8>>,
}

impl Seen {
    fn of(cert: &Cert, serving: &Serving) -> Self {
        let mut seen = Self {
            components: vec![0; cert.components.len()],
            signatures: cert
                .components
                .iter()
                .map(|component| vec![0; component.signatures.len()])
                .collect(),
        };
        for projection in [Projection::Served, Projection::Sks, Projection::Hockeypuck] {
            let shown = cert.shown(projection);
            for (at, signatures) in shown {
                seen.components[at] |= projection as u8;
                for nth in signatures {
                    seen.signatures[at][nth] |= projection as u8;
                }
            }
        }
        for (at, nth) in serving.withheld(cert) {
            seen.signatures[at][nth] &= !(Projection::Served as u8);
        }
        seen
    }

    fn forbid(&mut self, cert: &Cert, veto: &Veto) {
        if *veto == Veto::Nothing {
            return;
        }
        for (at, component) in cert.components.iter().enumerate() {
            let leaves = veto.leaves(component);
            if !leaves {
                self.components[at] &= !(Projection::Served as u8);
            }
            for (seen, signature) in self.signatures[at].iter_mut().zip(&component.signatures) {
                if !leaves || !veto.leaves_signature(&signature.facts) {
                    *seen &= !(Projection::Served as u8);
                }
            }
        }
    }
}

fn write_component(out: &mut Vec<u8>, component: &Component, status: &Status, seen: u8) {
    out.extend_from_slice(&[component.tag, seen]);
    write_number(out, component.copies);
    write_number(out, component.normal);
    let revocation = match status.revoked {
        None => 0,
        Some(Revocation::Soft(_)) => SOFT,
        Some(Revocation::Hard) => HARD,
    };
    let expires = status.expires.map_or(0, |_| EXPIRES);
    out.push(revocation | expires | if status.main { MAIN } else { 0 });
    write_number(out, status.created);
    status.expires.iter().for_each(|expires| write_number(out, *expires));
    if let Some(Revocation::Soft(time)) = status.revoked {
        write_number(out, time);
    }
    if matches!(component.tag, tag::PUBLIC_KEY | tag::PUBLIC_SUBKEY) {
        write_key(out, component);
    }
    write_body(out, &component.body);
}

fn write_key(out: &mut Vec<u8>, component: &Component) {
    let Some(key) = component.key() else {
        return out.extend_from_slice(&[0, 0, 0, 0]);
    };
    out.extend_from_slice(&[key.version, key.algorithm]);
    write_number(out, key.bits());
    let fingerprint = key.fingerprint();
    let fingerprint = fingerprint.as_bytes();
    out.push(fingerprint.len() as u8);
    out.extend_from_slice(fingerprint);
}

fn write_signature(out: &mut Vec<u8>, signature: &Attached, seen: u8) {
    let facts = &signature.facts;
    let trusted = if signature.trust.is_empty() { 0 } else { TRUSTED };
    out.extend_from_slice(&[tag::SIGNATURE, seen | trusted]);
    write_number(out, signature.copies);
    write_number(out, signature.normal);
    write_number(out, facts.bits());
    out.push(facts.kind);
    write_number(out, facts.created);
    write_number(out, facts.expires);
    out.extend_from_slice(&facts.issuer.0);
    write_body(out, &signature.body);
    if trusted != 0 {
        write_number(out, u32::try_from(signature.trust.len()).unwrap_or(u32::MAX));
        signature.trust.iter().for_each(|packet| write_body(out, packet));
    }
}

fn write_body(out: &mut Vec<u8>, body: &[u8]) {
    write_number(out, u32::try_from(body.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(body);
}

fn write_number(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
