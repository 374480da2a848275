//! The stored form of a certificate: every packet with its verdict, and what answers need, so that reading takes no
//! cryptography and looks into no signature.
//!
//! Layout (integers without a width are LEB128):
//!
//! ```text
//! record     = format (1 octet, now 1) verifier (1 octet) entry*
//! entry      = component | signature            signatures follow their component
//! component  = tag (6, 13, 14 or 17) seen copies status [key] body
//! status     = flags (1: expires, 2: soft revocation, 4: hard revocation, 8: main user id)
//!              created [expires] [time of soft revocation]
//! key        = version (1) algorithm (1) bits fingerprint-length (1) fingerprint       tags 6 and 14 only
//! signature  = 2 seen copies facts (2, little-endian) type (1) created expires issuer (8) body
//! body       = length octets
//! ```
//!
//! `seen` has a bit for each [`Projection`] that shows the packet. Components stand in the order in which people
//! read them: what is not revoked first, of that the main user id, then by age; signatures: the owner's first, then
//! by age.

use crate::cert::{Attached, COPIES_MAX, Cert, Component};
use crate::facts::{Fact, Facts, VERIFIER_VERSION};
use crate::packet::key::{Fingerprint, KeyId};
use crate::packet::{self, tag};
use crate::project::Projection;
use crate::status::{Revocation, Status};
use thiserror::Error;

/// The octets are not a stored certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("stored certificate is damaged")]
pub struct Damaged;

/// A component as stored.
#[derive(Clone, Debug)]
pub struct ComponentEntry<'a> {
    /// Packet type.
    pub tag: u8,
    /// Packet body.
    pub body: &'a [u8],
    /// How often it occurred.
    pub copies: u32,
    /// Validity.
    pub status: Status,
    /// For keys.
    pub key: Option<KeyEntry>,
    seen: u8,
}

/// What answers say about a key.
#[derive(Clone, Copy, Debug)]
pub struct KeyEntry {
    /// Public-key algorithm.
    pub algorithm: u8,
    /// Size, 0 where it makes no sense.
    pub bits: u32,
    /// Fingerprint, which knows the key's version.
    pub fingerprint: Fingerprint,
}

/// A signature as stored.
#[derive(Clone, Debug)]
pub struct SignatureEntry<'a> {
    /// Packet body.
    pub body: &'a [u8],
    /// How often it occurred in its place.
    pub copies: u32,
    /// The verdict.
    pub facts: Facts,
    seen: u8,
}

/// One stored packet.
#[derive(Clone, Debug)]
pub enum Entry<'a> {
    /// Something signatures attach to; the first entry is the primary key.
    Component(ComponentEntry<'a>),
    /// A signature on the component before it.
    Signature(SignatureEntry<'a>),
}

impl Entry<'_> {
    /// Does this projection show it?
    pub fn is_seen(&self, projection: Projection) -> bool {
        let seen = match self {
            Self::Component(component) => component.seen,
            Self::Signature(signature) => signature.seen,
        };
        seen & projection as u8 != 0
    }
}

/// Reads stored packets one after another. Ends after the first [`Damaged`].
pub struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    /// Starts at the primary key.
    pub fn new(record: &'a [u8]) -> Result<Self, Damaged> {
        match record {
            [FORMAT, _verifier, rest @ ..] => Ok(Self { rest }),
            _ => Err(Damaged),
        }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let mut input = Input(self.rest);
        let entry = input.entry();
        self.rest = if entry.is_some() { input.0 } else { &[] };
        Some(entry.ok_or(Damaged))
    }
}

/// Appends the packets that `projection` shows of a stored certificate, with headers.
pub fn write_projection(record: &[u8], projection: Projection, out: &mut Vec<u8>) -> Result<(), Damaged> {
    let mut place = (tag::PUBLIC_KEY, 1);
    out.reserve(record.len());
    for entry in Entries::new(record)? {
        let entry = entry?;
        if let Entry::Component(component) = &entry {
            place = (component.tag, component.copies);
        }
        if !entry.is_seen(projection) {
            continue;
        }
        match &entry {
            Entry::Component(component) => packet::write(out, component.tag, component.body),
            Entry::Signature(signature) => {
                let copies = projection.repeats(place, signature.copies);
                (0..copies).for_each(|_| packet::write(out, tag::SIGNATURE, signature.body));
            }
        }
    }
    Ok(())
}

impl Cert {
    /// The stored form of a verified certificate.
    pub fn encode(&self) -> Vec<u8> {
        let octets = |component: &Component| {
            let signatures = component.signatures.iter().map(|signature| signature.body.len() + 32);
            component.body.len() + 64 + signatures.sum::<usize>()
        };
        let mut out = Vec::with_capacity(self.components.iter().map(octets).sum());
        out.extend_from_slice(&[FORMAT, VERIFIER_VERSION]);
        let all = Status::of(self);
        let seen = Seen::of(self);
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

    /// Reads the stored form.
    pub fn decode(record: &[u8]) -> Result<Self, Damaged> {
        let mut components: Vec<Component> = Vec::new();
        for entry in Entries::new(record)? {
            match entry? {
                Entry::Component(ComponentEntry { tag, body, copies, .. }) => {
                    components.push(Component {
                        copies,
                        ..Component::new(tag, body)
                    });
                }
                Entry::Signature(SignatureEntry {
                    body, copies, facts, ..
                }) => {
                    let component = components.last_mut().ok_or(Damaged)?;
                    component.signatures.push(Attached {
                        body: body.into(),
                        copies,
                        facts,
                    });
                }
            }
        }
        Self::new(components).map_err(|_| Damaged)
    }
}

/// Version of the layout.
const FORMAT: u8 = 1;
const EXPIRES: u8 = 1;
const SOFT: u8 = 2;
const HARD: u8 = 4;
const MAIN: u8 = 8;

/// For every packet the projections that show it.
struct Seen {
    components: Vec<u8>,
    signatures: Vec<Vec<u8>>,
}

impl Seen {
    fn of(cert: &Cert) -> Self {
        let mut seen = Self {
            components: vec![0; cert.components.len()],
            signatures: cert
                .components
                .iter()
                .map(|component| vec![0; component.signatures.len()])
                .collect(),
        };
        for projection in [Projection::Served, Projection::Sks] {
            let shown = cert.shown(projection);
            for (at, signatures) in shown {
                seen.components[at] |= projection as u8;
                for nth in signatures {
                    seen.signatures[at][nth] |= projection as u8;
                }
            }
        }
        seen
    }
}

fn write_component(out: &mut Vec<u8>, component: &Component, status: &Status, seen: u8) {
    out.extend_from_slice(&[component.tag, seen]);
    write_number(out, component.copies);
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
    out.extend_from_slice(&[tag::SIGNATURE, seen]);
    write_number(out, signature.copies);
    out.extend_from_slice(&facts.bits().to_le_bytes());
    out.push(facts.kind);
    write_number(out, facts.created);
    write_number(out, facts.expires);
    out.extend_from_slice(&facts.issuer.0);
    write_body(out, &signature.body);
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

/// Octets not yet read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn entry(&mut self) -> Option<Entry<'a>> {
        let [tag, seen] = self.array()?;
        let copies = self.number().filter(|copies| *copies <= COPIES_MAX)?;
        if tag == tag::SIGNATURE {
            return self.signature(seen, copies).map(Entry::Signature);
        }
        let status = self.status()?;
        let key = if matches!(tag, tag::PUBLIC_KEY | tag::PUBLIC_SUBKEY) {
            Some(self.key()?)
        } else {
            None
        };
        Some(Entry::Component(ComponentEntry {
            tag,
            body: self.body()?,
            copies,
            status,
            key,
            seen,
        }))
    }

    fn status(&mut self) -> Option<Status> {
        let [flags] = self.array()?;
        let created = self.number()?;
        let expires = if flags & EXPIRES != 0 {
            Some(self.number()?)
        } else {
            None
        };
        let revoked = match flags & (SOFT | HARD) {
            0 => None,
            SOFT => Some(Revocation::Soft(self.number()?)),
            _ => Some(Revocation::Hard),
        };
        Some(Status {
            created,
            expires,
            revoked,
            main: flags & MAIN != 0,
        })
    }

    fn key(&mut self) -> Option<KeyEntry> {
        let [version, algorithm] = self.array()?;
        let bits = self.number()?;
        let [length] = self.array()?;
        let fingerprint = Fingerprint::new(version, self.take(usize::from(length))?);
        Some(KeyEntry {
            algorithm,
            bits,
            fingerprint,
        })
    }

    fn signature(&mut self, seen: u8, copies: u32) -> Option<SignatureEntry<'a>> {
        let mut facts = Facts::from_bits(u16::from_le_bytes(self.array()?));
        [facts.kind] = self.array()?;
        (facts.created, facts.expires) = (self.number()?, self.number()?);
        facts.issuer = KeyId(self.array()?);
        Some(SignatureEntry {
            body: self.body()?,
            copies,
            facts,
            seen,
        })
    }

    fn body(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length as usize)
    }

    fn number(&mut self) -> Option<u32> {
        let mut number = 0u32;
        for shift in (0..32).step_by(7) {
            let [octet] = self.array()?;
            number |= u32::from(octet & 0x7F).checked_shl(shift)?;
            if octet < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}
