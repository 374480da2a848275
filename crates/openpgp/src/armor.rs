//! ASCII armor (RFC 9580 §6): read as tolerantly as mail programs and web forms require, written fast.

use crate::packet::{FrameError, Frames};
use base64_simd::{AsOut, STANDARD};
use crc_fast::CrcParams;
use std::sync::LazyLock;
use thiserror::Error;

/// Why armored text could not be read. Lines count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ArmorError {
    /// No block begins anywhere.
    #[error("no armored OpenPGP block was found")]
    NoBlock,
    /// Text inside a block that can't be decoded.
    #[error("line {0} of the armored text is not base64")]
    NotBase64(u64),
    /// A line that no armor has.
    #[error("line {0} of the armored text is longer than {LINE_OCTETS_MAX} octets")]
    LineTooLong(u64),
    /// The last block has no end.
    #[error("the armored block is cut off: its last line is missing")]
    CutOff,
}

/// Longest line that is read.
pub const LINE_OCTETS_MAX: usize = 64 << 10;

/// Decodes all blocks of a text, one after another. Text around them, missing checksums and any line ends are
/// accepted, and checksums are not compared, as RFC 9580 §6.1 asks.
pub fn decode(text: &[u8]) -> Result<Vec<u8>, ArmorError> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut decoder = Decoder::default();
    decoder.push(text, &mut out)?;
    decoder.finish(&mut out)?;
    Ok(out)
}

/// Decodes armored text that comes in pieces.
#[derive(Default)]
pub struct Decoder {
    /// An unfinished line.
    line: Vec<u8>,
    lines: u64,
    blocks: u64,
    state: State,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Outside,
    Headers,
    Data,
    /// Behind the padding or checksum.
    Tail,
}

impl Decoder {
    /// Takes the next piece of text and appends what it decodes to.
    pub fn push(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<(), ArmorError> {
        for piece in text.split_inclusive(|octet| matches!(octet, b'\n' | b'\r')) {
            if self.line.len() + piece.len() > LINE_OCTETS_MAX {
                match self.state {
                    // What stands around blocks is of no interest, however long.
                    State::Outside => self.line.clear(),
                    _ => return Err(ArmorError::LineTooLong(self.lines + 1)),
                }
            }
            self.line.extend_from_slice(&piece[..piece.len().min(LINE_OCTETS_MAX)]);
            if piece.ends_with(b"\n") || piece.ends_with(b"\r") {
                self.end_line(out)?;
            }
        }
        Ok(())
    }

    /// Ends the text.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), ArmorError> {
        self.end_line(out)?;
        match self.state {
            State::Outside if self.blocks == 0 => Err(ArmorError::NoBlock),
            State::Outside => Ok(()),
            _ => Err(ArmorError::CutOff),
        }
    }

    fn end_line(&mut self, out: &mut Vec<u8>) -> Result<(), ArmorError> {
        let line = std::mem::take(&mut self.line);
        self.lines += u64::from(line.ends_with(b"\n"));
        let result = self.take_line(without_mark(line.trim_ascii()), out);
        self.line = line;
        self.line.clear();
        result
    }

    fn take_line(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), ArmorError> {
        if line.starts_with(BEGIN) {
            self.blocks += 1;
            self.state = State::Headers;
            return Ok(());
        }
        if line.starts_with(b"-----END PGP ") {
            self.state = State::Outside;
            return Ok(());
        }
        match self.state {
            State::Outside | State::Tail => Ok(()),
            // Many a form has swallowed the empty line behind the headers.
            State::Headers if line.contains(&b':') => Ok(()),
            State::Headers if line.is_empty() => {
                self.state = State::Data;
                Ok(())
            }
            State::Headers | State::Data => {
                self.state = State::Data;
                self.take_data(line, out)
            }
        }
    }

    fn take_data(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), ArmorError> {
        if line.starts_with(b"=") {
            self.state = State::Tail;
            return Ok(());
        }
        if line.ends_with(b"=") {
            self.state = State::Tail;
        }
        // On its own the library would ask for exactly as much as each line needs.
        out.reserve(line.len());
        let decoded = STANDARD.decode_append(line, out);
        decoded.map_err(|_| ArmorError::NotBase64(self.lines))
    }
}

/// Does this look like armor rather than packets? The beginning of the input is enough.
///
/// Text may start with an octet that could be a packet's: a byte order mark, or a letter outside of ASCII. It is armor
/// all the same if a block begins further on and the packets that the octets before it would be don't reach beyond.
pub fn is_armored(input: &[u8]) -> bool {
    let is_text = |octets: &[u8]| octets.first().is_some_and(|first| first & 0x80 == 0);
    if is_text(input) {
        return true;
    }
    let start = &input[..input.len().min(PREFACE_OCTETS_MAX)];
    let Some(block) = lines(start).find_map(|(at, line)| line.starts_with(BEGIN).then_some(at)) else {
        return false;
    };
    let mut frames = Frames::new(input);
    while frames.offset() <= block {
        match frames.next() {
            Some(Ok(_)) => {}
            other => return matches!(other, Some(Err(FrameError::NoPacket(_)))),
        }
    }
    is_text(&input[frames.offset()..])
}

/// Does any block say that it holds a secret key? It need not be readable.
pub fn announces_secret(text: &[u8]) -> bool {
    let announces = |line: &[u8]| SECRET_BLOCKS.iter().any(|block| line.starts_with(block));
    lines(text).any(|(_, line)| announces(line))
}

/// Lines, without the byte order mark before them, and where they start.
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    text.split_inclusive(|octet| matches!(octet, b'\n' | b'\r'))
        .map(move |line| {
            at += line.len();
            (at - line.len(), without_mark(line.trim_ascii_start()))
        })
}

fn without_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line)
}

const BYTE_ORDER_MARK: &[u8] = "\u{FEFF}".as_bytes();
const BEGIN: &[u8] = b"-----BEGIN PGP ";
const SECRET_BLOCKS: [&[u8]; 2] = [b"-----BEGIN PGP PRIVATE KEY", b"-----BEGIN PGP SECRET KEY"];
/// So much text before the first block is looked through if it does not start as text does.
const PREFACE_OCTETS_MAX: usize = 64 << 10;

/// Appends `octets` to `out` as one armored block with a checksum (some readers insist on it) and a final line feed.
pub fn encode(label: &str, octets: &[u8], out: &mut Vec<u8>) {
    out.reserve(octets.len() / LINE_OCTETS * (LINE_CHARACTERS + 1) + 2 * LINE_CHARACTERS + 2 * label.len() + 64);
    out.extend_from_slice(format!("-----BEGIN PGP {label}-----\n\n").as_bytes());
    push_base64(octets, out);
    out.push(b'=');
    push_base64(&checksum(octets), out);
    out.extend_from_slice(format!("-----END PGP {label}-----\n").as_bytes());
}

/// CRC-24 (RFC 9580 §6.1.1), computed as a CRC of 32 bits whose generator is that of CRC-24 times x^8.
fn checksum(octets: &[u8]) -> [u8; 3] {
    static CRC_24: LazyLock<CrcParams> =
        LazyLock::new(|| CrcParams::new("CRC-24/OPENPGP", 32, 0x864C_FB00, 0xB704_CE00, false, 0, 0x21CF_0200));
    let [.., a, b, c, _] = crc_fast::checksum_with_params(*CRC_24, octets).to_be_bytes();
    [a, b, c]
}

/// Label of a block of certificates.
pub const PUBLIC_KEY_BLOCK: &str = "PUBLIC KEY BLOCK";
const LINE_OCTETS: usize = 48;
const LINE_CHARACTERS: usize = 64;

/// So many lines are encoded at once, while they are in the nearest cache.
const LINES: usize = 64;

/// Appends lines of base64, each ended by LF.
fn push_base64(octets: &[u8], out: &mut Vec<u8>) {
    let characters = octets.len().div_ceil(3) * 4;
    let start = out.len();
    out.resize(start + characters + characters.div_ceil(LINE_CHARACTERS), b'\n');
    let mut text = [0; LINES * LINE_CHARACTERS];
    let blocks = octets.chunks(LINES * LINE_OCTETS);
    for (block, places) in blocks.zip(out[start..].chunks_mut(LINES * (LINE_CHARACTERS + 1))) {
        let text = STANDARD.encode(block, text[..].as_out());
        for (line, place) in text.chunks(LINE_CHARACTERS).zip(places.chunks_mut(LINE_CHARACTERS + 1)) {
            place[..line.len()].copy_from_slice(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_around_several_blocks_and_line_ends_do_not_matter() {
        let mut block = Vec::new();
        encode(PUBLIC_KEY_BLOCK, b"some packets", &mut block);
        let block = String::from_utf8(block).unwrap();
        let text = format!("Hello\n{}\nbetween\n{block}bye", block.replace('\n', "\r\n"));
        assert_eq!(decode(text.as_bytes()).unwrap(), b"some packetssome packets");
        let without_checksum: String = block
            .lines()
            .filter(|line| !line.starts_with('='))
            .map(|l| format!("{l}\r"))
            .collect();
        assert_eq!(decode(without_checksum.as_bytes()).unwrap(), b"some packets");
        let without_empty_line = block.replacen("\n\n", "\nVersion: 1: a\n", 1);
        assert_eq!(decode(without_empty_line.as_bytes()).unwrap(), b"some packets");
    }

    #[test]
    fn checksums_are_those_of_crc_24() {
        assert_eq!(checksum(b""), [0xB7, 0x04, 0xCE]);
        assert_eq!(checksum(b"123456789"), [0x21, 0xCF, 0x02]);
        let octets: Vec<u8> = (0..2000u32)
            .map(|i| (i.wrapping_mul(0x9E37_79B9) >> 24) as u8)
            .collect();
        for length in 0..octets.len() {
            let bit_by_bit = octets[..length].iter().fold(0xB704CE, |crc, octet| {
                let shift = |crc: u32, _| crc << 1 ^ if crc & 0x80_0000 != 0 { 0x186_4CFB } else { 0 };
                (0..8).fold(crc ^ u32::from(*octet) << 16, shift)
            });
            assert_eq!(checksum(&octets[..length]), bit_by_bit.to_be_bytes()[1..], "{length}");
        }
    }

    #[test]
    fn errors_name_their_line() {
        let text = "x\n-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\nA*AA\n-----END PGP PUBLIC KEY BLOCK-----\n";
        assert_eq!(decode(text.as_bytes()), Err(ArmorError::NotBase64(5)));
        assert_eq!(decode(b"nothing"), Err(ArmorError::NoBlock));
        assert_eq!(
            decode(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n"),
            Err(ArmorError::CutOff)
        );
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(octets in proptest::collection::vec(any::<u8>(), 0..7000), cut in 0usize..9000) {
            let mut text = Vec::new();
            encode(PUBLIC_KEY_BLOCK, &octets, &mut text);
            prop_assert_eq!(decode(&text).unwrap(), &octets[..]);
            prop_assert!(text.split(|octet| *octet == b'\n').all(|line| line.len() <= LINE_CHARACTERS));
            let (first, second) = text.split_at(cut.min(text.len()));
            let (mut decoder, mut out) = (Decoder::default(), Vec::new());
            decoder.push(first, &mut out).unwrap();
            decoder.push(second, &mut out).unwrap();
            decoder.finish(&mut out).unwrap();
            prop_assert_eq!(out, octets);
        }

        #[test]
        fn garbage_never_panics(text in "(-----BEGIN PGP X-----\n)?[A-Za-z=:\r\n -]{0,200}") {
            let _ = decode(text.as_bytes());
        }
    }
}
