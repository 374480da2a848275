//! Signature packets and their subpackets (RFC 9580 §5.2, RFC 4880 §5.2.2 for version 3).

use super::key::KeyId;

/// Signature types (RFC 9580 §5.2.1).
pub mod kind {
    /// Generic certification of a user id; the last of the four is `CERTIFICATION + 3`.
    pub const CERTIFICATION: u8 = 0x10;
    /// Positive certification, the last of the four.
    pub const CERTIFICATION_LAST: u8 = 0x13;
    /// The owner's approval of third-party certifications.
    pub const APPROVAL: u8 = 0x16;
    /// Binds a subkey.
    pub const SUBKEY_BINDING: u8 = 0x18;
    /// Made by a subkey over its primary key.
    pub const PRIMARY_BINDING: u8 = 0x19;
    /// Directly on a key.
    pub const DIRECT_KEY: u8 = 0x1F;
    /// Revokes a primary key.
    pub const KEY_REVOCATION: u8 = 0x20;
    /// Revokes a subkey.
    pub const SUBKEY_REVOCATION: u8 = 0x28;
    /// Revokes a certification.
    pub const CERTIFICATION_REVOCATION: u8 = 0x30;
}

/// A signature packet's body, taken apart.
#[derive(Clone, Debug, Default)]
pub struct Signature<'a> {
    /// 2 to 6; 2 and 3 share a layout.
    pub version: u8,
    /// Signature type.
    pub kind: u8,
    /// Public-key algorithm.
    pub algorithm: u8,
    /// Hash algorithm.
    pub hash: u8,
    /// First two octets of the digest, to find a wrong one without public-key work.
    pub digest_prefix: [u8; 2],
    /// Version 6: hashed before everything else.
    pub salt: &'a [u8],
    /// The algorithm's fields and whatever follows them.
    pub value: &'a [u8],
    /// The octets of the packet that are hashed: version to the end of the hashed area, or type and time in version 3.
    pub hashed: &'a [u8],
    /// Key ids that the packet names as its issuer, in either area.
    pub issuers: Vec<KeyId>,
    /// Fingerprints that the packet names as its issuer, in either area.
    pub issuer_fingerprints: Vec<&'a [u8]>,
    /// How many of the key ids and of the fingerprints are in the hashed area; they come first.
    hashed_issuers: (usize, usize),
    /// What the hashed area says.
    pub claims: Claims<'a>,
    /// The first embedded signature, in either area.
    pub embedded: Option<&'a [u8]>,
}

/// Statements of the hashed area. Repeated subpackets: the last one holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claims<'a> {
    /// Seconds since 1970.
    pub created: Option<u32>,
    /// Seconds from its creation until the signature expires; 0 or none: never.
    pub expires_after: Option<u32>,
    /// Seconds from the key's creation until the key expires; 0 or none: never.
    pub key_expires_after: Option<u32>,
    /// It is the signer's wish that nobody else sees this signature.
    pub local: bool,
    /// Marks the user id as the main one.
    pub primary_user_id: bool,
    /// What the key may be used for.
    pub key_flags: &'a [u8],
    /// Why something is revoked (RFC 9580 §5.2.3.31).
    pub revocation_reason: Option<u8>,
    /// Digests of the certifications that the owner approves (draft-dkg-openpgp-1pa3pc), one after the other.
    pub approved: &'a [u8],
}

impl<'a> Signature<'a> {
    /// Reads the body of a signature packet; `None` if it is of an unknown version or its fields don't fit.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        match *body.first()? {
            2 | 3 => Self::read_v3(body),
            4 | 5 => Self::read_v4(body),
            6 => Self::read_v6(body),
            _ => None,
        }
    }

    /// The issuer in a form that fits an index line: a key id it names, or the one its fingerprint implies.
    pub fn issuer(&self) -> Option<KeyId> {
        self.issuers.first().copied().or_else(|| {
            let fingerprint = self.issuer_fingerprints.first()?;
            let id = if fingerprint.len() == 32 {
                fingerprint.first_chunk()
            } else {
                fingerprint.last_chunk()
            };
            id.map(|id| KeyId(*id))
        })
    }

    /// Whether it names this key or nobody. Where the hashed area names an issuer, the unhashed area, which anybody can
    /// change, is not heard; a kind of name that occurs must name this key at least once.
    pub fn may_be_of(&self, id: &KeyId, fingerprint: &[u8]) -> bool {
        let (ids, fingerprints) = match self.hashed_issuers {
            (0, 0) => (&self.issuers[..], &self.issuer_fingerprints[..]),
            (ids, fingerprints) => (&self.issuers[..ids], &self.issuer_fingerprints[..fingerprints]),
        };
        (ids.is_empty() || ids.contains(id)) && (fingerprints.is_empty() || fingerprints.contains(&fingerprint))
    }

    /// Whether a salt stands in front of all that it covers.
    pub fn is_salted(&self) -> bool {
        self.version == 6
    }

    /// The packet's body as its owner signed it: without the unhashed area, of which the length becomes zero. Version 3
    /// has no such area.
    pub fn without_unhashed<'b>(&self, body: &'b [u8]) -> (&'b [u8], &'static [u8], &'b [u8]) {
        let width = match self.version {
            4 | 5 => 2,
            6 => 4,
            _ => return (body, &[], &[]),
        };
        let salt = if self.version == 6 { 1 + self.salt.len() } else { 0 };
        let tail = self.digest_prefix.len() + salt + self.value.len();
        (&body[..self.hashed.len()], &[0; 4][..width], &body[body.len() - tail..])
    }

    /// A revocation that also holds for the past: no reason, an unspecified one, or a compromise (RFC 9580 §5.2.3.31).
    pub fn revokes_hard(&self) -> bool {
        matches!(self.claims.revocation_reason, None | Some(0 | 2))
    }

    /// When it expires, in seconds since 1970; `None` for never.
    pub fn expires(&self) -> Option<u32> {
        after(self.claims.created?, self.claims.expires_after)
    }

    fn read_v3(body: &'a [u8]) -> Option<Self> {
        let (fields, value) = body.split_at_checked(19)?;
        if fields[1] != 5 {
            return None;
        }
        Some(Self {
            version: fields[0],
            kind: fields[2],
            algorithm: fields[15],
            hash: fields[16],
            digest_prefix: [fields[17], fields[18]],
            value,
            hashed: &fields[2..7],
            issuers: vec![KeyId(*fields[7..].first_chunk()?)],
            claims: Claims {
                created: Some(u32::from_be_bytes(*fields[3..].first_chunk()?)),
                ..Claims::default()
            },
            ..Self::default()
        })
    }

    fn read_v4(body: &'a [u8]) -> Option<Self> {
        let (hashed_area, rest) = area::<2>(body.get(4..)?)?;
        let (unhashed_area, rest) = area::<2>(rest)?;
        let (digest_prefix, value) = rest.split_first_chunk::<2>()?;
        Self {
            digest_prefix: *digest_prefix,
            value,
            hashed: &body[..6 + hashed_area.len()],
            ..Self::head(body)?
        }
        .with_areas(hashed_area, unhashed_area)
    }

    fn read_v6(body: &'a [u8]) -> Option<Self> {
        let (hashed_area, rest) = area::<4>(body.get(4..)?)?;
        let (unhashed_area, rest) = area::<4>(rest)?;
        let (digest_prefix, rest) = rest.split_first_chunk::<2>()?;
        let (salt_length, rest) = rest.split_first()?;
        let (salt, value) = rest.split_at_checked(usize::from(*salt_length))?;
        let hashed = &body[..8 + hashed_area.len()];
        Self {
            digest_prefix: *digest_prefix,
            salt,
            value,
            hashed,
            ..Self::head(body)?
        }
        .with_areas(hashed_area, unhashed_area)
    }

    fn head(body: &[u8]) -> Option<Self> {
        let [version, kind, algorithm, hash] = *body.first_chunk::<4>()?;
        Some(Self {
            version,
            kind,
            algorithm,
            hash,
            ..Self::default()
        })
    }

    /// Takes in both areas. A hashed area whose subpackets don't add up makes the signature unreadable; what follows
    /// such a place in the unhashed area is ignored, since anybody may have put it there.
    fn with_areas(mut self, hashed: &'a [u8], unhashed: &'a [u8]) -> Option<Self> {
        for subpacket in subpackets(hashed) {
            let (subpacket, body) = subpacket?;
            self.take_hashed(subpacket, body);
            self.take_hint(subpacket, body);
        }
        self.hashed_issuers = (self.issuers.len(), self.issuer_fingerprints.len());
        for (subpacket, body) in subpackets(unhashed).map_while(|subpacket| subpacket) {
            self.take_hint(subpacket, body);
        }
        Some(self)
    }

    fn take_hashed(&mut self, subpacket: u8, body: &'a [u8]) {
        let seconds = body.try_into().map(u32::from_be_bytes).ok();
        let claims = &mut self.claims;
        match subpacket {
            2 => claims.created = seconds.or(claims.created),
            3 => claims.expires_after = seconds.or(claims.expires_after),
            4 => claims.local = body == [0],
            9 => claims.key_expires_after = seconds.or(claims.key_expires_after),
            25 => claims.primary_user_id = body.first().is_some_and(|flag| *flag != 0),
            27 => claims.key_flags = body,
            29 => claims.revocation_reason = body.first().copied(),
            37 => claims.approved = body,
            _ => {}
        }
    }

    /// Subpackets that only help to find something that is then checked, so that they count in the unhashed area too.
    fn take_hint(&mut self, subpacket: u8, body: &'a [u8]) {
        match subpacket {
            16 => self.issuers.extend(body.try_into().map(KeyId)),
            33 if matches!(body.len(), 21 | 33) => self.issuer_fingerprints.push(&body[1..]),
            32 if self.embedded.is_none() => self.embedded = Some(body),
            _ => {}
        }
    }
}

/// `start` plus a span in which 0 means never.
pub(crate) fn after(start: u32, span: Option<u32>) -> Option<u32> {
    span.filter(|span| *span != 0).map(|span| start.saturating_add(span))
}

/// A counted area of `N` length octets, and the rest.
fn area<const N: usize>(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = input.split_first_chunk::<N>()?;
    let length = length
        .iter()
        .fold(0usize, |length, octet| length << 8 | usize::from(*octet));
    rest.split_at_checked(length)
}

/// Types (without the critical bit) and bodies of the subpackets of an area; one `None` where they don't add up.
fn subpackets(mut area: &[u8]) -> impl Iterator<Item = Option<(u8, &[u8])>> {
    std::iter::from_fn(move || {
        if area.is_empty() {
            return None;
        }
        let found = subpacket(area);
        area = found.map_or(&[], |(_, _, rest)| rest);
        Some(found.map(|(subpacket, body, _)| (subpacket, body)))
    })
}

fn subpacket(area: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (length, rest) = match *area {
        [first @ 0..=191, ref rest @ ..] => (usize::from(first), rest),
        [first @ 192..=254, second, ref rest @ ..] => {
            ((usize::from(first) - 192) * 256 + usize::from(second) + 192, rest)
        }
        [255, a, b, c, d, ref rest @ ..] => (u32::from_be_bytes([a, b, c, d]) as usize, rest),
        _ => return None,
    };
    let (subpacket, rest) = rest.split_at_checked(length)?;
    let (kind, body) = subpacket.split_first()?;
    Some((kind & 0x7F, body, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4(hashed: &[u8], unhashed: &[u8]) -> Vec<u8> {
        let mut body = vec![4, 0x13, 22, 8, 0, hashed.len() as u8];
        body.extend_from_slice(hashed);
        body.extend_from_slice(&[0, unhashed.len() as u8]);
        body.extend_from_slice(unhashed);
        body.extend_from_slice(&[0xAB, 0xCD, 1, 2, 3]);
        body
    }

    #[test]
    fn hashed_statements_count_and_unhashed_ones_only_hint() {
        let body = v4(
            &[5, 0x82, 0, 0, 0, 9],
            &[5, 3, 0, 0, 0, 1, 9, 16, 1, 2, 3, 4, 5, 6, 7, 8],
        );
        let signature = Signature::read(&body).unwrap();
        assert_eq!(signature.claims.created, Some(9));
        assert_eq!(signature.expires(), None);
        assert_eq!(signature.issuer(), Some(KeyId([1, 2, 3, 4, 5, 6, 7, 8])));
        assert_eq!(
            (signature.digest_prefix, signature.value),
            ([0xAB, 0xCD], &[1, 2, 3][..])
        );
        assert_eq!(signature.hashed, &body[..12]);
    }

    #[test]
    fn a_broken_hashed_area_is_unreadable_and_a_broken_unhashed_one_is_not() {
        assert!(Signature::read(&v4(&[9, 2, 0], &[])).is_none());
        assert!(Signature::read(&v4(&[5, 2, 0, 0, 0, 9], &[9, 2, 0])).is_some());
    }

    proptest! {
        #[test]
        fn garbage_is_read_or_refused(version in 0u8..8, mut body in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(first) = body.first_mut() {
                *first = version;
            }
            if let Some(signature) = Signature::read(&body) {
                prop_assert!(signature.issuer().is_some() || signature.issuers.is_empty());
            }
        }
    }
}
