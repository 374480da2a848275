//! Framing: a stream of octets cut into packets, whatever they hold (RFC 9580 §4.2).
//!
//! The framer knows headers and lengths and nothing else. Every header form is read: old and new, all length
//! forms, partial and indeterminate. The octets of a body are never changed; a header is only a way to say where a
//! body ends, so packets are always written with the shortest new-format header.

pub mod key;
pub mod signature;

use std::borrow::Cow;
use thiserror::Error;

/// Packet types that matter to a certificate (RFC 9580 §5).
pub mod tag {
    /// Signature.
    pub const SIGNATURE: u8 = 2;
    /// Secret primary key.
    pub const SECRET_KEY: u8 = 5;
    /// Public primary key.
    pub const PUBLIC_KEY: u8 = 6;
    /// Secret subkey.
    pub const SECRET_SUBKEY: u8 = 7;
    /// Compressed data.
    pub const COMPRESSED: u8 = 8;
    /// Marker.
    pub const MARKER: u8 = 10;
    /// Trust: local to the program that wrote it.
    pub const TRUST: u8 = 12;
    /// User ID.
    pub const USER_ID: u8 = 13;
    /// Public subkey.
    pub const PUBLIC_SUBKEY: u8 = 14;
    /// User attribute: in practice a photograph.
    pub const USER_ATTRIBUTE: u8 = 17;
    /// Padding.
    pub const PADDING: u8 = 21;
}

/// One packet where it stands in its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Packet type, 0 to 63.
    pub tag: u8,
    /// Header and body as they stand in the input.
    pub span: &'a [u8],
    /// The body; put together from its parts if it came in partial lengths.
    pub body: Cow<'a, [u8]>,
}

/// Why the octets at some place are not a whole packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The first octet has bit 7 clear: no packet starts here.
    #[error("no packet starts with octet {0:#04x}")]
    NoPacket(u8),
    /// The packet goes on beyond the input: it needs at least this many octets from its start.
    #[error("packet is cut off")]
    Truncated {
        /// Octets the packet is known to have, header included.
        needed: usize,
    },
}

/// Reads the packet at the start of `input`, which must not be empty.
///
/// A caller that reads a stream fetches more octets on [`FrameError::Truncated`] and calls again; what it holds is
/// bounded by its own limit on `needed`. A body of indeterminate length takes all of `input`.
pub fn frame(input: &[u8]) -> Result<Frame<'_>, FrameError> {
    let first = *input.first().ok_or(FrameError::Truncated { needed: 1 })?;
    match first {
        0x00..=0x7F => Err(FrameError::NoPacket(first)),
        0x80..=0xBF => old_frame(input, first),
        0xC0..=0xFF => new_frame(input, tag_of(first)),
    }
}

/// The type of a packet that starts with this octet.
pub(crate) fn tag_of(first: u8) -> u8 {
    match first {
        0xC0..=0xFF => first & 0x3F,
        _ => (first >> 2) & 0x0F,
    }
}

/// Appends a packet to `out` with the shortest new-format header.
pub fn write(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.reserve(body.len() + HEADER_OCTETS_MAX);
    out.push(0xC0 | (tag & 0x3F));
    write_length(out, body.len());
    out.extend_from_slice(body);
}

/// Reads packets one after another from octets in memory.
pub struct Frames<'a> {
    input: &'a [u8],
    offset: usize,
}

impl<'a> Frames<'a> {
    /// Starts at the first octet.
    pub fn new(input: &'a [u8]) -> Self {
        Self { input, offset: 0 }
    }

    /// Where the next packet starts.
    pub fn offset(&self) -> usize {
        self.offset
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, FrameError>;

    /// The next packet. After an error the iterator ends: nothing tells where the next packet would start.
    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.input[self.offset..];
        if rest.is_empty() {
            return None;
        }
        let result = frame(rest);
        match &result {
            Ok(frame) => self.offset += frame.span.len(),
            Err(_) => self.input = &self.input[..self.offset],
        }
        Some(result)
    }
}

/// Longest header this module writes.
const HEADER_OCTETS_MAX: usize = 6;

fn old_frame(input: &[u8], first: u8) -> Result<Frame<'_>, FrameError> {
    let tag = tag_of(first);
    let (header, length) = match first & 3 {
        0 => (2, usize::from(octets::<1>(input, 1)?[0])),
        1 => (3, usize::from(u16::from_be_bytes(octets(input, 1)?))),
        2 => (5, u32::from_be_bytes(octets(input, 1)?) as usize),
        _ => (1, input.len() - 1),
    };
    whole(input, tag, header, length)
}

fn new_frame(input: &[u8], tag: u8) -> Result<Frame<'_>, FrameError> {
    let mut at = 1;
    let mut joined: Option<Vec<u8>> = None;
    loop {
        let (octets_of_length, length, partial) = new_length(input, at)?;
        let start = at + octets_of_length;
        if !partial && joined.is_none() {
            return whole(input, tag, start, length);
        }
        let chunk = slice(input, start, length)?;
        at = start + length;
        let body = joined.get_or_insert_default();
        body.extend_from_slice(chunk);
        if !partial {
            let body = joined.unwrap_or_default().into();
            return Ok(Frame {
                tag,
                span: &input[..at],
                body,
            });
        }
    }
}

/// A new-format length at `at`: octets it takes, its value, and whether another part follows.
fn new_length(input: &[u8], at: usize) -> Result<(usize, usize, bool), FrameError> {
    let [first] = octets(input, at)?;
    Ok(match first {
        0..=191 => (1, usize::from(first), false),
        192..=223 => {
            let [_, second] = octets(input, at)?;
            (2, (usize::from(first) - 192) * 256 + usize::from(second) + 192, false)
        }
        224..=254 => (1, 1 << (first & 0x1F), true),
        255 => (5, u32::from_be_bytes(octets(input, at + 1)?) as usize, false),
    })
}

fn whole(input: &[u8], tag: u8, header: usize, length: usize) -> Result<Frame<'_>, FrameError> {
    let body = slice(input, header, length)?;
    Ok(Frame {
        tag,
        span: &input[..header + length],
        body: Cow::Borrowed(body),
    })
}

fn slice(input: &[u8], start: usize, length: usize) -> Result<&[u8], FrameError> {
    let needed = start.saturating_add(length);
    input.get(start..needed).ok_or(FrameError::Truncated { needed })
}

fn octets<const N: usize>(input: &[u8], at: usize) -> Result<[u8; N], FrameError> {
    let needed = at + N;
    let found = input.get(at..needed).ok_or(FrameError::Truncated { needed })?;
    Ok(found.try_into().expect("the slice has N octets"))
}

fn write_length(out: &mut Vec<u8>, length: usize) {
    match length {
        0..=191 => out.push(length as u8),
        192..=8383 => {
            let rest = length - 192;
            out.push((rest >> 8) as u8 + 192);
            out.push(rest as u8);
        }
        _ => {
            out.push(255);
            out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn only(input: &[u8]) -> Frame<'_> {
        let found = frame(input).unwrap();
        assert_eq!(found.span, input);
        found
    }

    #[test]
    fn every_header_form_gives_the_same_packet() {
        let forms: [&[u8]; 8] = [
            &[0xB4, 3, 1, 2, 3],
            &[0xB5, 0, 3, 1, 2, 3],
            &[0xB6, 0, 0, 0, 3, 1, 2, 3],
            &[0xB7, 1, 2, 3],
            &[0xCD, 3, 1, 2, 3],
            &[0xCD, 255, 0, 0, 0, 3, 1, 2, 3],
            &[0xCD, 0xE0, 1, 0xE0, 2, 1, 3],
            &[0xCD, 0xE1, 1, 2, 255, 0, 0, 0, 1, 3],
        ];
        for form in forms {
            let found = only(form);
            assert_eq!((found.tag, &*found.body), (13, &[1, 2, 3][..]), "{form:02x?}");
        }
    }

    #[test]
    fn a_giant_length_costs_nothing() {
        assert_eq!(
            frame(&[0xC2, 255, 255, 255, 255, 255, 1]),
            Err(FrameError::Truncated {
                needed: 6 + 0xFFFF_FFFF
            })
        );
        assert_eq!(
            frame(&[0xC2, 0xFE, 1]),
            Err(FrameError::Truncated { needed: 2 + (1 << 30) })
        );
        assert_eq!(frame(&[0x41]), Err(FrameError::NoPacket(0x41)));
    }

    #[test]
    fn lengths_are_written_shortest() {
        for (length, header) in [(0, 2), (191, 2), (192, 3), (8383, 3), (8384, 6), (70_000, 6)] {
            let body = vec![7; length];
            let mut out = Vec::new();
            write(&mut out, 2, &body);
            assert_eq!(out.len(), header + length);
            assert_eq!(only(&out).body, body);
        }
    }

    proptest! {
        #[test]
        fn frames_cover_their_input(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = Frames::new(&input);
            let mut covered = Vec::new();
            for found in frames.by_ref().map_while(Result::ok) {
                covered.extend_from_slice(found.span);
            }
            prop_assert_eq!(&input[..frames.offset()], &covered[..]);
        }

        #[test]
        fn written_packets_read_back(tag in 0u8..64, body in proptest::collection::vec(any::<u8>(), 0..20_000)) {
            let mut out = Vec::new();
            write(&mut out, tag, &body);
            let found = only(&out);
            prop_assert_eq!((found.tag, &*found.body), (tag, &body[..]));
        }
    }
}
