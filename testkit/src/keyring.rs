//! Just enough reading of keyrings to ask for what they hold.

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY};

use crate::armor::hex;
use crate::packet::Tag;

/// One certificate of a keyring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its packets.
    pub octets: Vec<u8>,
    /// The bodies of its packets, in order.
    pub bodies: Vec<(u8, Vec<u8>)>,
}

impl Entry {
    /// The version 4 fingerprint of its primary key in upper-case digits.
    pub fn fingerprint(&self) -> String {
        let body = self.bodies.first().map_or(&[][..], |(_, body)| body);
        let length = (body.len() as u16).to_be_bytes();
        hex(digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, &[&[0x99][..], &length, body].concat()).as_ref())
    }

    /// The mail address of the first user id that has one between angle brackets.
    pub fn address(&self) -> Option<String> {
        let ids = self.bodies.iter().filter(|(tag, _)| *tag == Tag::UserId as u8);
        ids.filter_map(|(_, text)| {
            let text = std::str::from_utf8(text).ok()?;
            let address = text.split_once('<')?.1.split_once('>')?.0;
            (address.contains('@') && address.is_ascii() && !address.contains(' ')).then(|| address.to_owned())
        })
        .next()
    }
}

/// The certificates of a binary keyring; ends quietly where it is damaged.
pub fn entries(keyring: &[u8]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut rest = keyring;
    while let Some((tag, header, length)) = header(rest) {
        let Some(body) = rest.get(header..header + length) else {
            break;
        };
        if tag == Tag::PublicKey as u8 {
            entries.push(Entry {
                octets: Vec::new(),
                bodies: Vec::new(),
            });
        }
        if let Some(entry) = entries.last_mut() {
            entry.octets.extend_from_slice(&rest[..header + length]);
            entry.bodies.push((tag, body.to_vec()));
        }
        rest = &rest[header + length..];
    }
    entries
}

/// Tag, octets of the header, octets of the body; none for forms that no keyring holds.
fn header(octets: &[u8]) -> Option<(u8, usize, usize)> {
    let first = *octets.first()?;
    let number = |range: std::ops::Range<usize>| {
        let digits = octets.get(range)?;
        Some(
            digits
                .iter()
                .fold(0_usize, |number, octet| number << 8 | usize::from(*octet)),
        )
    };
    if first & 0xC0 == 0xC0 {
        let (header, length) = match number(1..2)? {
            length @ 0..192 => (2, length),
            high @ 192..224 => (3, ((high - 192) << 8) + number(2..3)? + 192),
            255 => (6, number(2..6)?),
            _ => return None,
        };
        Some((first & 0x3F, header, length))
    } else {
        let header = match first & 0x83 {
            0x80 => 2,
            0x81 => 3,
            0x82 => 5,
            _ => return None,
        };
        Some((first >> 2 & 0x0F, header, number(1..header)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Certificate, generate};

    #[test]
    fn reads_what_the_generator_writes() {
        let six = Certificate::v6(1, "six").user_id("x".repeat(300));
        let small = generate::certificate(1, 5);
        let keyring = [small.to_bytes(), six.to_bytes()].concat();
        let entries = entries(&keyring);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].octets, small.to_bytes());
        assert_eq!(entries[0].fingerprint(), small.fingerprint());
        assert_eq!(entries[0].address().as_deref(), Some("user5@example.org"));
        assert_eq!(entries[1].octets, six.to_bytes());
        assert_eq!(entries[1].address(), None);
    }
}
