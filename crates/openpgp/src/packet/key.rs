//! Key packets: version, algorithm, key material and fingerprint (RFC 9580 §5.5, RFC 4880 §5.5.2).
//!
//! Reading is tolerant: a key of a version with a known layout always has a fingerprint, even when its algorithm is
//! unknown or its material makes no sense. Octets behind the last field of a known algorithm (the *tail*) belong to
//! the packet, but not to the *core* that fingerprints and signatures are computed over.

use crate::crypto::digest;
use std::borrow::Cow;
use std::fmt;
use thiserror::Error;

/// A key packet's body, taken apart.
#[derive(Clone, Debug)]
pub struct Key<'a> {
    /// 2 to 6.
    pub version: u8,
    /// Seconds since 1970.
    pub created: u32,
    /// Days of validity from creation in version 2 and 3, 0 for ever.
    pub validity_days: u16,
    /// Public-key algorithm (RFC 9580 §9.1).
    pub algorithm: u8,
    /// The algorithm's fields, without the tail.
    pub material: &'a [u8],
    /// The body that fingerprints and signatures cover.
    pub core: Cow<'a, [u8]>,
    /// The packet is nothing but its core, and the core is no longer than signatures can count.
    pub canonical: bool,
}

/// Why a key has no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Too short for its own fields.
    #[error("key packet is cut off")]
    Truncated,
    /// Too long for the count that its fingerprint is computed with.
    #[error("key packet is longer than a fingerprint can cover")]
    TooLong,
    /// Nobody knows how to compute its fingerprint.
    #[error("key version {0} is not known")]
    Version(u8),
    /// Version 2 and 3 keys take their identity from an RSA modulus of at least 64 bits.
    #[error("version {0} key without a usable RSA modulus")]
    NoModulus(u8),
}

impl<'a> Key<'a> {
    /// Reads the body of a public key or public subkey packet.
    pub fn read(body: &'a [u8]) -> Result<Self, KeyError> {
        let version = *body.first().ok_or(KeyError::Truncated)?;
        match version {
            2 | 3 => Self::read_v3(body, version),
            4 => Self::read_v4(body),
            5 | 6 => Self::read_v6(body, version),
            _ => Err(KeyError::Version(version)),
        }
    }

    /// Size in bits as people know it: of the RSA modulus, the prime field, or the curve; 0 if there is none.
    pub fn bits(&self) -> u32 {
        let first_integer = || {
            self.material
                .get(..2)
                .map_or(0, |n| u32::from(u16::from_be_bytes([n[0], n[1]])))
        };
        match self.algorithm {
            1 | 2 | 3 | 16 | 17 | 20 => first_integer(),
            18 | 19 | 22 => curve_bits(self.material),
            25 | 27 => 256,
            26 | 28 => 448,
            _ => 0,
        }
    }

    /// Identifies the key. Computed anew each time.
    pub fn fingerprint(&self) -> Fingerprint {
        if self.version <= 3 {
            let (n, e) = self.modulus_and_exponent();
            return Fingerprint::new(self.version, &digest::md5(&[n, e]));
        }
        let (head, octets) = self.head();
        let parts = [&head[..octets], &*self.core];
        match self.version {
            4 => Fingerprint::new(4, &digest::sha1(&parts)),
            _ => Fingerprint::new(self.version, &digest::sha256(&parts)),
        }
    }

    /// Low or high 64 bits of the fingerprint, or of the modulus, as the version has it.
    pub fn key_id(&self) -> KeyId {
        let fingerprint = self.fingerprint();
        let id = match self.version {
            2 | 3 => self.modulus_and_exponent().0.last_chunk(),
            4 => fingerprint.as_bytes().last_chunk(),
            _ => fingerprint.as_bytes().first_chunk(),
        };
        KeyId(*id.expect("fingerprints and readable moduli have 8 octets"))
    }

    /// Of a version 2 or 3 key.
    fn modulus_and_exponent(&self) -> (&[u8], &[u8]) {
        let both = integer(self.material).and_then(|(n, rest)| Some((n, integer(rest)?.0)));
        both.expect("a version 3 key without modulus and exponent is not read")
    }

    /// What every signature over this key feeds to the hash: the framed core. `None` if it is too long to be framed.
    pub fn framed(&self) -> Option<([u8; 5], usize, &[u8])> {
        let (head, octets) = self.head();
        self.is_countable().then_some((head, octets, &self.core))
    }

    /// What stands before the core in fingerprints and signatures, and how many octets of it count. Of a core that is
    /// longer than it can say it holds the low octets of the length.
    fn head(&self) -> ([u8; 5], usize) {
        let length = (self.core.len() as u32).to_be_bytes();
        match self.version {
            5 | 6 => ([0x95 + self.version, length[0], length[1], length[2], length[3]], 5),
            _ => ([0x99, length[2], length[3], 0, 0], 3),
        }
    }

    /// Versions up to 4 count their core in two octets.
    fn is_countable(&self) -> bool {
        self.version > 4 || self.core.len() <= usize::from(u16::MAX)
    }

    fn read_v3(body: &'a [u8], version: u8) -> Result<Self, KeyError> {
        let fields = body.get(..8).ok_or(KeyError::Truncated)?;
        let material = &body[8..];
        let (n, rest) = integer(material).ok_or(KeyError::NoModulus(version))?;
        let (_, tail) = integer(rest).ok_or(KeyError::NoModulus(version))?;
        n.last_chunk::<8>().ok_or(KeyError::NoModulus(version))?;
        let length = body.len() - tail.len();
        Ok(Self {
            version,
            created: be32(&fields[1..5]),
            validity_days: u16::from_be_bytes([fields[5], fields[6]]),
            algorithm: fields[7],
            material: &body[8..length],
            core: Cow::Borrowed(&body[..length]),
            canonical: tail.is_empty(),
        })
    }

    /// Whatever starts with the octet 4 has a fingerprint, so that peers which never look further can be followed.
    fn read_v4(body: &'a [u8]) -> Result<Self, KeyError> {
        let algorithm = body.get(5).copied().unwrap_or_default();
        let fields = body.len().min(6);
        let length = fields + material_length(algorithm, &body[fields..]).unwrap_or(body.len() - fields);
        let core = &body[..length];
        Ok(Self {
            version: 4,
            created: be32(&body[1..]),
            validity_days: 0,
            algorithm,
            material: &core[fields..],
            core: Cow::Borrowed(core),
            canonical: length == body.len() && u16::try_from(length).is_ok(),
        })
    }

    /// Versions 5 and 6 count their material; the count is replaced by the true one where a known algorithm tells it.
    fn read_v6(body: &'a [u8], version: u8) -> Result<Self, KeyError> {
        let fields = body.get(..10).ok_or(KeyError::Truncated)?;
        let rest = &body[10..];
        let counted = be32(&fields[6..10]) as usize;
        let length = material_length(fields[5], rest).unwrap_or(counted.min(rest.len()));
        let canonical = length == counted && length == rest.len();
        let core: Cow<'a, [u8]> = if length == counted {
            Cow::Borrowed(&body[..10 + length])
        } else {
            let count = u32::try_from(length).map_err(|_| KeyError::TooLong)?.to_be_bytes();
            Cow::Owned([&fields[..6], &count, &rest[..length]].concat())
        };
        u32::try_from(core.len()).map_err(|_| KeyError::TooLong)?;
        Ok(Self {
            version,
            created: be32(&fields[1..5]),
            validity_days: 0,
            algorithm: fields[5],
            material: &rest[..length],
            core,
            canonical,
        })
    }
}

/// A key's fingerprint: 16 octets in version 2 and 3, 20 in version 4, 32 in version 5 and 6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint {
    octets: [u8; 32],
    length: u8,
    version: u8,
}

impl Fingerprint {
    /// Takes the digest that a key of `version` has; longer digests are cut at 32 octets.
    pub fn new(version: u8, digest: &[u8]) -> Self {
        let length = digest.len().min(32);
        let mut octets = [0; 32];
        octets[..length].copy_from_slice(&digest[..length]);
        Self {
            octets,
            length: length as u8,
            version,
        }
    }

    /// Its octets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets[..usize::from(self.length)]
    }

    /// The version of the key it belongs to.
    pub fn version(&self) -> u8 {
        self.version
    }
}

impl fmt::Display for Fingerprint {
    /// Upper-case hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|octet| write!(f, "{octet:02X}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// 64 bits that name a key, not uniquely.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    /// Upper-case hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02X}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Takes a multiprecision integer off the front: its octets as written, and the rest.
pub(crate) fn integer(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (bits, rest) = input.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*bits)).div_ceil(8);
    rest.split_at_checked(length)
}

/// Octets the fields of a known algorithm take; `None` if it is unknown or the fields don't fit.
fn material_length(algorithm: u8, input: &[u8]) -> Option<usize> {
    let rest = match algorithm {
        1..=3 => integers(input, 2)?,
        16 | 20 => integers(input, 3)?,
        17 => integers(input, 4)?,
        18 => octet_string(integers(octet_string(input)?.1, 1)?)?.1,
        19 | 22 => integers(octet_string(input)?.1, 1)?,
        25 | 27 | 32 | 33 => input.get(32..)?,
        26 => input.get(56..)?,
        28 => input.get(57..)?,
        30 => input.get(32 + 1952..)?,
        31 => input.get(57 + 2592..)?,
        34 => input.get(64..)?,
        35 => input.get(32 + 1184..)?,
        36 => input.get(56 + 1568..)?,
        _ => return None,
    };
    Some(input.len() - rest.len())
}

fn integers(input: &[u8], count: usize) -> Option<&[u8]> {
    (0..count).try_fold(input, |rest, _| integer(rest).map(|(_, rest)| rest))
}

/// Takes an object identifier or a KDF field off the front: one octet of length, then the octets. 0 and 255 are reserved.
pub(crate) fn octet_string(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = input.split_first()?;
    if matches!(length, 0 | 255) {
        return None;
    }
    rest.split_at_checked(usize::from(*length))
}

fn curve_bits(material: &[u8]) -> u32 {
    let oid = material
        .split_first()
        .and_then(|(length, rest)| rest.get(..usize::from(*length)));
    match oid.unwrap_or_default() {
        [0x2A, 0x86, 0x48, 0xCE, 0x3D, 3, 1, 7] => 256,
        [0x2B, 0x81, 4, 0, 0x22] => 384,
        [0x2B, 0x81, 4, 0, 0x23] => 521,
        [0x2B, 0x81, 4, 0, 0x0A] => 256,
        [0x2B, 0x24, 3, 3, 2, 8, 1, 1, 7] => 256,
        [0x2B, 0x24, 3, 3, 2, 8, 1, 1, 11] => 384,
        [0x2B, 0x24, 3, 3, 2, 8, 1, 1, 13] => 512,
        [0x2B, 6, 1, 4, 1, 0xDA, 0x47, 0x0F, 1] => 256,
        [0x2B, 6, 1, 4, 1, 0x97, 0x55, 1, 5, 1] => 256,
        [0x2B, 0x65, 0x6F | 0x71] => 448,
        _ => 0,
    }
}

fn be32(octets: &[u8]) -> u32 {
    octets
        .first_chunk::<4>()
        .map_or(0, |octets| u32::from_be_bytes(*octets))
}
