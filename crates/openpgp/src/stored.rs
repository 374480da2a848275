//! The stored form of a certificate: every packet with its verdict, and what answers need, so that reading takes no
//! cryptography and looks into no signature.
//!
//! Layout (integers without a width are LEB128):
//!
//! ```text
//! record     = format (1 octet, now 2) verifier (1 octet) entry*
//! entry      = component | signature            signatures follow their component
//! component  = tag (6, 13, 14 or 17) seen copies normal status [key] body
//! status     = flags (1: expires, 2: soft revocation, 4: hard revocation, 8: main user id)
//!              created [expires] [time of soft revocation]
//! key        = version (1) algorithm (1) bits fingerprint-length (1) fingerprint       tags 6 and 14 only
//! signature  = 2 seen copies normal facts type (1) created expires issuer (8) body [trust]
//! trust      = count body*                      only if the highest bit of `seen` is set
//! body       = length octets
//! ```
//!
//! `seen` has a bit for each [`Projection`] that shows the packet; `normal` and `trust` are those of [`Attached`]. Format 1
//! has neither, and facts in 2 octets, little-endian; its verdicts are found anew when a certificate is taken apart. Components stand in the order in which people
//! read them: what is not revoked first, of that the main user id, then by age; signatures: the owner's first, then
//! by age.

mod write;

use crate::cert::{Attached, COPIES_MAX, Cert, Component};
use crate::facts::{Facts, VERIFIER_VERSION};
use crate::packet::key::{Fingerprint, KeyId};
use crate::packet::{self, tag};
use crate::project::Projection;
use crate::status::{Revocation, Status};
use crate::verify::verify;
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
    /// How often it stands in Hockeypuck's normal form.
    pub normal: u32,
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
    /// How often it stands there in Hockeypuck's normal form.
    pub normal: u32,
    /// The verdict.
    pub facts: Facts,
    seen: u8,
    trust: Vec<&'a [u8]>,
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
        projection == Projection::All || seen & projection as u8 != 0
    }
}

/// Reads stored packets one after another. Ends after the first [`Damaged`].
pub struct Entries<'a> {
    rest: &'a [u8],
    format: u8,
}

impl<'a> Entries<'a> {
    /// Starts at the primary key.
    pub fn new(record: &'a [u8]) -> Result<Self, Damaged> {
        match record {
            [format @ (FORMAT_1 | FORMAT), _verifier, rest @ ..] => Ok(Self { rest, format: *format }),
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
        let mut input = Input {
            rest: self.rest,
            format: self.format,
        };
        let entry = input.entry();
        self.rest = if entry.is_some() { input.rest } else { &[] };
        Some(entry.ok_or(Damaged))
    }
}

/// Appends the packets that `projection` shows of a stored certificate, with headers.
pub fn write_projection(record: &[u8], projection: Projection, out: &mut Vec<u8>) -> Result<(), Damaged> {
    if matches!(projection, Projection::Hockeypuck | Projection::All) {
        Cert::decode(record)?.write(projection, out);
        return Ok(());
    }
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

/// Do two stored certificates hold the same packets, whatever was found out about them?
pub fn have_same_packets(one: &[u8], other: &[u8]) -> bool {
    let (Ok(mut one), Ok(other)) = (Entries::new(one), Entries::new(other)) else {
        return false;
    };
    let same = other.into_iter().all(|other| match (one.next(), other) {
        (Some(Ok(Entry::Component(one))), Ok(Entry::Component(other))) => {
            (one.tag, one.body, one.copies, one.normal) == (other.tag, other.body, other.copies, other.normal)
        }
        (Some(Ok(Entry::Signature(one))), Ok(Entry::Signature(other))) => {
            (one.body, one.copies, one.normal, one.trust) == (other.body, other.copies, other.normal, other.trust)
        }
        _ => false,
    });
    same && one.next().is_none()
}

impl Cert {
    /// Reads the stored form. What an older verifier found is found anew.
    pub fn decode(record: &[u8]) -> Result<Self, Damaged> {
        let mut components: Vec<Component> = Vec::new();
        for entry in Entries::new(record)? {
            match entry? {
                Entry::Component(ComponentEntry {
                    tag,
                    body,
                    copies,
                    normal,
                    ..
                }) => {
                    components.push(Component {
                        copies,
                        normal,
                        ..Component::new(tag, body)
                    });
                }
                Entry::Signature(SignatureEntry {
                    body,
                    copies,
                    normal,
                    facts,
                    trust,
                    ..
                }) => {
                    let component = components.last_mut().ok_or(Damaged)?;
                    component.signatures.push(Attached {
                        body: body.into(),
                        copies,
                        normal,
                        trust: trust.into_iter().map(Into::into).collect(),
                        facts,
                    });
                }
            }
        }
        let mut cert = Self::new(components).map_err(|_| Damaged)?;
        if record.get(1).is_some_and(|verifier| *verifier < VERIFIER_VERSION) {
            verify(&mut cert, None);
        }
        Ok(cert)
    }
}

/// Version of the layout.
const FORMAT: u8 = 2;
/// The one before.
const FORMAT_1: u8 = 1;
/// In `seen` of a signature: trust packets follow.
const TRUSTED: u8 = 1 << 7;
const EXPIRES: u8 = 1;
const SOFT: u8 = 2;
const HARD: u8 = 4;
const MAIN: u8 = 8;

/// Octets not yet read.
struct Input<'a> {
    rest: &'a [u8],
    format: u8,
}

impl<'a> Input<'a> {
    fn entry(&mut self) -> Option<Entry<'a>> {
        let [tag, seen] = self.array()?;
        let copies = self.copies()?;
        let normal = if self.format == FORMAT_1 {
            copies
        } else {
            self.copies()?
        };
        if tag == tag::SIGNATURE {
            return self.signature(seen, copies, normal).map(Entry::Signature);
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
            normal,
            status,
            key,
            seen,
        }))
    }

    fn copies(&mut self) -> Option<u32> {
        self.number().filter(|copies| *copies <= COPIES_MAX)
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

    fn signature(&mut self, seen: u8, copies: u32, normal: u32) -> Option<SignatureEntry<'a>> {
        let mut facts = Facts::from_bits(match self.format {
            FORMAT_1 => u16::from_le_bytes(self.array()?).into(),
            _ => self.number()?,
        });
        [facts.kind] = self.array()?;
        (facts.created, facts.expires) = (self.number()?, self.number()?);
        facts.issuer = KeyId(self.array()?);
        let body = self.body()?;
        let mut trust = Vec::new();
        if self.format != FORMAT_1 && seen & TRUSTED != 0 {
            for _ in 0..self.number()? {
                trust.push(self.body()?);
            }
        }
        Some(SignatureEntry {
            body,
            copies,
            normal,
            facts,
            seen,
            trust,
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
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}
