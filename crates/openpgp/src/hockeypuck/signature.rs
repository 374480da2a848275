//! Which signature packets Hockeypuck reads, and what it takes from them.
//!
//! Stricter than [`Signature::read`](crate::packet::signature::Signature::read): algorithms and hashes must be on its
//! lists, both areas must add up, hashed subpackets must have the form of their type, and whoever made it must be named.

use crate::packet::key::{KeyId, integer};
use crate::packet::signature::kind;

/// What it takes from a signature beyond what everybody takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Read<'a> {
    /// 3 (also for version 2), 4 or 6.
    pub(crate) version: u8,
    /// Signature type.
    pub(crate) kind: u8,
    /// The issuer's key id: the last one named, by itself or by a fingerprint.
    pub(crate) issuer: Option<KeyId>,
    /// The issuer's fingerprint: the last one named.
    pub(crate) issuer_fingerprint: Option<&'a [u8]>,
    /// Binds (or revokes) a key that may sign.
    pub(crate) may_sign: bool,
    /// Has a creation time in its hashed area.
    created: bool,
    /// Has a signature within.
    embeds: bool,
}

/// Why a signature is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It is passed over.
    Dropped,
    /// Hockeypuck cannot bear it: whatever holds it is refused.
    Deadly,
}

/// Reads the body of a signature packet.
pub(crate) fn read(body: &[u8]) -> Result<Read<'_>, Unread> {
    let read = read_within(body, NESTING_MAX)?;
    read.issuer.map(|_| read).ok_or(Unread::Dropped)
}

fn read_within(body: &[u8], nesting: u8) -> Result<Read<'_>, Unread> {
    match body.first() {
        Some(2 | 3) => read_v3(body).ok_or(Unread::Dropped),
        Some(version @ (4 | 6)) => read_v4(*version, body, nesting),
        _ => Err(Unread::Dropped),
    }
}

fn read_v3(body: &[u8]) -> Option<Read<'_>> {
    let (fields, value) = body.split_at_checked(19)?;
    let known = fields[1] == 5 && matches!(fields[15], 1 | 3 | 17) && (fields[16] == MD5 || is_hash(fields[16]));
    (known && has_value(fields[15], value)).then_some(Read {
        version: 3,
        kind: fields[2],
        issuer: Some(KeyId(*fields[7..].first_chunk()?)),
        created: true,
        ..Read::default()
    })
}

fn read_v4(version: u8, body: &[u8], nesting: u8) -> Result<Read<'_>, Unread> {
    let parts = Parts::of(version, body).ok_or(Unread::Dropped)?;
    let mut read = Read {
        version,
        kind: body[1],
        ..Read::default()
    };
    read.take_area(parts.hashed, true, nesting)?;
    read.take_area(parts.unhashed, false, nesting)?;
    let (algorithm, hash) = (body[2], body[3]);
    let (hash_is_known, value) = match version {
        4 => (is_hash(hash), Some(parts.value)),
        _ => (is_hash(hash) && hash != SHA1, unsalted(hash, parts.value)),
    };
    let complete = read.created && hash_is_known && value.is_some_and(|value| has_value(algorithm, value));
    complete.then_some(read).ok_or(Unread::Dropped)
}

/// The areas of a signature of version 4 or 6, and what comes behind the two clear octets.
struct Parts<'a> {
    hashed: &'a [u8],
    unhashed: &'a [u8],
    value: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(version: u8, body: &'a [u8]) -> Option<Self> {
        let width = if version == 4 { 2 } else { 4 };
        let (hashed, rest) = area(width, body.get(4..)?)?;
        let (unhashed, rest) = area(width, rest)?;
        Some(Self {
            hashed,
            unhashed,
            value: rest.get(2..)?,
        })
    }
}

impl<'a> Read<'a> {
    fn take_area(&mut self, mut area: &'a [u8], hashed: bool, nesting: u8) -> Result<(), Unread> {
        while !area.is_empty() {
            let (subpacket, rest) = subpacket(area).ok_or(Unread::Dropped)?;
            area = rest;
            let (head, body) = subpacket.split_first().ok_or(Unread::Dropped)?;
            let taken = match (hashed, head & 0x7F) {
                (_, ISSUER) if self.version == 6 => !hashed,
                (_, ISSUER) => self.take_issuer(body).is_some(),
                (_, ISSUER_FINGERPRINT) => self.take_fingerprint(body).is_some(),
                (_, EMBEDDED) => self.take_embedded(body, nesting)?,
                (true, EXPORTABLE) if body.is_empty() => return Err(Unread::Deadly),
                (true, kind) => self.take_hashed(kind, head & 0x80 != 0, body),
                (false, _) => true,
            };
            if !taken {
                return Err(Unread::Dropped);
            }
        }
        Ok(())
    }

    fn take_issuer(&mut self, body: &[u8]) -> Option<()> {
        self.issuer = Some(KeyId(body.try_into().ok()?));
        Some(())
    }

    fn take_fingerprint(&mut self, body: &'a [u8]) -> Option<()> {
        let (version, fingerprint) = body.split_first()?;
        let id = match (version, fingerprint.len()) {
            (0..=4, 20) => fingerprint.last_chunk()?,
            (5.., 32) => fingerprint.first_chunk()?,
            _ => return None,
        };
        self.issuer = Some(KeyId(*id));
        self.issuer_fingerprint = Some(fingerprint);
        Some(())
    }

    /// One signature may be within, by which a subkey agrees; nobody need be named in it.
    fn take_embedded(&mut self, body: &[u8], nesting: u8) -> Result<bool, Unread> {
        let Some(nesting) = nesting.checked_sub(1).filter(|_| !self.embeds) else {
            return Ok(false);
        };
        self.embeds = true;
        let embedded = read_within(body, nesting)?;
        Ok(embedded.version != 3 && embedded.kind == kind::PRIMARY_BINDING)
    }

    /// A statement of the hashed area; false if it is malformed, or unknown and critical.
    fn take_hashed(&mut self, kind: u8, critical: bool, body: &[u8]) -> bool {
        const MAY_SIGN: u8 = 2;
        match kind {
            2 => {
                self.created |= body.len() == 4;
                body.len() == 4
            }
            3 | 9 => body.len() == 4,
            EXPORTABLE => body[0] != 0,
            5 => body.len() == 2,
            6 => body.last() == Some(&0),
            11 | 21..=24 | 26 | 28 | 30 => true,
            20 => is_notation(body),
            25 => body.len() == 1,
            27 => {
                if let Some(flags) = body.first() {
                    self.may_sign = flags & MAY_SIGN != 0;
                }
                true
            }
            29 => !body.is_empty(),
            35 => matches!((body.first(), body.len()), (Some(0..=4), 21) | (Some(5..), 33)),
            39 => body.len().is_multiple_of(2),
            _ => !critical,
        }
    }
}

/// Name and value have the lengths that are said in front (RFC 9580 §5.2.3.24).
pub(super) fn is_notation(body: &[u8]) -> bool {
    let Some((head, rest)) = body.split_first_chunk::<8>() else {
        return false;
    };
    let [.., a, b, c, d] = head.map(usize::from);
    rest.len() == (a << 8 | b) + (c << 8 | d)
}

/// A subpacket without its length, and what follows it (RFC 9580 §5.2.3.7).
pub(super) fn subpacket(area: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match *area {
        [first @ 0..=191, ref rest @ ..] => (usize::from(first), rest),
        [first @ 192..=254, second, ref rest @ ..] => {
            ((usize::from(first) - 192) * 256 + usize::from(second) + 192, rest)
        }
        [255, a, b, c, d, ref rest @ ..] => (u32::from_be_bytes([a, b, c, d]) as usize, rest),
        _ => return None,
    };
    rest.split_at_checked(length).filter(|_| length > 0)
}

fn area(width: usize, input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = input.split_at_checked(width)?;
    let length = length
        .iter()
        .fold(0usize, |length, octet| length << 8 | usize::from(*octet));
    rest.split_at_checked(length)
}

/// The value of a version 6 signature, behind a salt of the length that its hash asks for (RFC 9580 §9.5).
fn unsalted(hash: u8, input: &[u8]) -> Option<&[u8]> {
    let wanted = match hash {
        8 | 11 | 12 => 16,
        9 => 24,
        _ => 32,
    };
    let (length, rest) = input.split_first()?;
    rest.get(wanted..).filter(|_| usize::from(*length) == wanted)
}

/// Is all there that a signature of this algorithm consists of? More may follow.
fn has_value(algorithm: u8, value: &[u8]) -> bool {
    let octets = match algorithm {
        1 | 3 => return integer(value).is_some(),
        17 | 19 | 22 => return integer(value).and_then(|(_, rest)| integer(rest)).is_some(),
        27 => 64,
        28 => 114,
        30 => 64 + 3_309,
        31 => 114 + 4_627,
        32 => 7_856,
        33 => 17_088,
        34 => 29_792,
        _ => return false,
    };
    value.len() >= octets
}

fn is_hash(hash: u8) -> bool {
    matches!(hash, SHA1 | 8..=12 | 14)
}

const MD5: u8 = 1;
const SHA1: u8 = 2;

const EXPORTABLE: u8 = 4;
const ISSUER: u8 = 16;
const EMBEDDED: u8 = 32;
const ISSUER_FINGERPRINT: u8 = 33;

/// Signatures within signatures that are followed. More has no use.
const NESTING_MAX: u8 = 8;
