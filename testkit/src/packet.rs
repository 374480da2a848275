//! A minimal writer of OpenPGP packets (RFC 9580 section 4).
//!
//! It shares no code with the reader under test, so that a misunderstanding of the format shows up as a disagreement
//! instead of cancelling out.

/// Packet types that the generator writes (RFC 9580 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Tag {
    Signature = 2,
    SecretKey = 5,
    PublicKey = 6,
    SecretSubkey = 7,
    Trust = 12,
    UserId = 13,
    PublicSubkey = 14,
    UserAttribute = 17,
}

/// The two forms of a packet header (RFC 9580 sections 4.2.1 and 4.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As GnuPG writes packets of version 4 certificates.
    Legacy,
    /// As everything of version 6 is written.
    OpenPgp,
}

/// One packet: header in the shortest form of `format` that has room for the type, then `body`.
pub fn packet(tag: Tag, format: Format, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 6);
    match format {
        // The legacy form has four bits for the type.
        Format::Legacy if (tag as u8) < 16 => legacy_header(&mut out, tag, body.len()),
        Format::Legacy | Format::OpenPgp => {
            out.push(0xC0 | tag as u8);
            put_length(&mut out, body.len());
        }
    }
    out.extend_from_slice(body);
    out
}

/// A multiprecision integer from octets, most significant first; leading zeros do not count (RFC 9580 section 3.2).
pub(crate) fn put_integer(out: &mut Vec<u8>, octets: &[u8]) {
    let start = octets.iter().position(|octet| *octet != 0).unwrap_or(octets.len());
    let digits = &octets[start..];
    let bits = digits
        .first()
        .map_or(0, |first| digits.len() * 8 - first.leading_zeros() as usize);
    out.extend_from_slice(&(bits as u16).to_be_bytes());
    out.extend_from_slice(digits);
}

/// One signature subpacket: length, type, data (RFC 9580 section 5.2.3.7).
pub(crate) fn put_subpacket(out: &mut Vec<u8>, kind: u8, data: &[u8]) {
    put_length(out, data.len() + 1);
    out.push(kind);
    out.extend_from_slice(data);
}

fn legacy_header(out: &mut Vec<u8>, tag: Tag, length: usize) {
    let tag = 0x80 | (tag as u8) << 2;
    match length {
        0..=0xFF => out.extend_from_slice(&[tag, length as u8]),
        0x100..=0xFFFF => {
            out.push(tag | 1);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(tag | 2);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    match length {
        0..192 => out.push(length as u8),
        192..8384 => {
            let rest = length - 192;
            out.extend_from_slice(&[(rest >> 8) as u8 + 192, rest as u8]);
        }
        _ => {
            out.push(0xFF);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_shortest_form() {
        assert_eq!(packet(Tag::UserId, Format::OpenPgp, &[0; 191])[..2], [0xCD, 191]);
        assert_eq!(packet(Tag::UserId, Format::OpenPgp, &[0; 192])[..3], [0xCD, 192, 0]);
        assert_eq!(
            packet(Tag::UserId, Format::OpenPgp, &[0; 8384])[..6],
            [0xCD, 255, 0, 0, 0x20, 0xC0]
        );
        assert_eq!(packet(Tag::UserId, Format::Legacy, &[0; 255])[..2], [0xB4, 255]);
        assert_eq!(packet(Tag::UserId, Format::Legacy, &[0; 256])[..3], [0xB5, 1, 0]);
    }

    #[test]
    fn integers_count_bits() {
        let mut out = Vec::new();
        put_integer(&mut out, &[0, 1, 0xFF]);
        put_integer(&mut out, &[0, 0]);
        assert_eq!(out, [0, 9, 1, 0xFF, 0, 0]);
    }
}
