//! Cuts a stream of packets into pieces of whole certificates, so that pieces can be read in parallel.
//!
//! Holds one piece and one packet at a time. Where the stream stops being packets, it goes on at the next octets that
//! look like a primary key, and says what it skipped.

use keyrink_openpgp::packet::{self, FrameError, tag};
use std::io::{self, Read};

/// Whole certificates, one after another.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Their packets.
    pub(crate) octets: Vec<u8>,
    /// Octets of the stream up to the end of this piece.
    pub(crate) end: u64,
    /// What was left out, in words.
    pub(crate) skipped: Vec<String>,
}

/// Cuts what a reader gives.
pub(crate) struct Cutter<R> {
    reader: R,
    /// What was read and is not yet given out; whole packets up to `framed`.
    buffer: Vec<u8>,
    framed: usize,
    /// Octets behind the whole packets that are left out; they stay until it pays to move those behind them.
    gap: usize,
    /// Where the last certificate starts that begins inside `buffer[..framed]`.
    last_key: usize,
    ended: bool,
    /// Octets of the stream before `buffer`.
    offset: u64,
    skipped: Vec<String>,
    certificate_octets_max: usize,
}

impl<R: Read> Cutter<R> {
    /// Starts `offset` octets into the stream, to go on where an earlier run stopped. Of a certificate longer than
    /// `certificate_octets_max` the rest is left out.
    pub(crate) fn new(mut reader: R, offset: u64, certificate_octets_max: usize) -> io::Result<Self> {
        let passed = io::copy(&mut (&mut reader).take(offset), &mut io::sink())?;
        Ok(Self {
            reader,
            buffer: Vec::new(),
            framed: 0,
            gap: 0,
            last_key: 0,
            ended: false,
            offset: passed,
            skipped: Vec::new(),
            certificate_octets_max,
        })
    }

    /// The next piece; `None` at the end.
    pub(crate) fn next_piece(&mut self) -> io::Result<Option<Piece>> {
        loop {
            match packet::frame(window(&self.buffer[self.framed + self.gap..])) {
                Ok(frame) => {
                    let (octets, is_key) = (frame.span.len(), matches!(frame.tag, tag::PUBLIC_KEY | tag::SECRET_KEY));
                    if is_key && self.framed >= PIECE_OCTETS {
                        return Ok(Some(self.cut(self.framed)));
                    }
                    self.take_packet(octets, is_key);
                }
                Err(FrameError::Truncated { needed }) if !self.ended && needed <= self.packet_octets_max() => {
                    self.fill(needed)?;
                }
                Err(_) if self.ended && self.framed + self.gap == self.buffer.len() => {
                    let rest = self.cut(self.framed);
                    return Ok((!rest.octets.is_empty() || !rest.skipped.is_empty()).then_some(rest));
                }
                Err(error) => self.resume(error)?,
            }
        }
    }

    fn packet_octets_max(&self) -> usize {
        if has_partial_length(&self.buffer[self.framed + self.gap..]) {
            PARTIAL_OCTETS_MAX
        } else {
            PACKET_OCTETS_MAX
        }
    }

    fn take_packet(&mut self, octets: usize, is_key: bool) {
        if is_key {
            self.close_gap();
            self.last_key = self.framed;
        }
        if self.framed - self.last_key + octets > self.certificate_octets_max && !is_key {
            self.leave_out(octets);
            if !self.skipped.last().is_some_and(|last| last.starts_with(OVERSIZE)) {
                let limit = self.certificate_octets_max;
                self.skip(format!("{OVERSIZE} {limit} octets: its last packets are left out"));
            }
            return;
        }
        self.close_gap();
        self.framed += octets;
    }

    /// Passes over octets without moving those behind them.
    fn leave_out(&mut self, octets: usize) {
        self.gap += octets;
        self.offset += octets as u64;
    }

    fn close_gap(&mut self) {
        if self.gap > 0 {
            self.buffer.drain(self.framed..self.framed + self.gap);
            self.gap = 0;
        }
    }

    fn cut(&mut self, at: usize) -> Piece {
        self.close_gap();
        let rest = self.buffer.split_off(at);
        let octets = std::mem::replace(&mut self.buffer, rest);
        (self.framed, self.last_key) = (0, 0);
        self.offset += octets.len() as u64;
        Piece {
            octets,
            end: self.offset,
            skipped: std::mem::take(&mut self.skipped),
        }
    }

    /// Reads until `needed` octets stand behind those that are done, or the stream ends.
    fn fill(&mut self, needed: usize) -> io::Result<()> {
        self.close_gap();
        let missing = (self.framed + needed)
            .saturating_sub(self.buffer.len())
            .max(READ_OCTETS);
        let count = (&mut self.reader).take(missing as u64).read_to_end(&mut self.buffer)?;
        self.ended = count < missing;
        Ok(())
    }

    /// Leaves out octets up to the next that look like the start of a certificate.
    fn resume(&mut self, error: FrameError) -> io::Result<()> {
        let start = self.offset + self.framed as u64;
        let before = self.offset;
        loop {
            let rest = &self.buffer[self.framed + self.gap..];
            let found = (1..rest.len()).find(|&at| starts_certificate(&rest[at..]));
            let gone = found.unwrap_or(if self.ended {
                rest.len()
            } else {
                rest.len().saturating_sub(KEY_START_OCTETS).max(1).min(rest.len())
            });
            self.leave_out(gone);
            if found.is_some() || self.ended {
                break;
            }
            self.fill(READ_OCTETS)?;
        }
        let gone = self.offset - before;
        self.skip(format!("{gone} octets at {start} are no packets ({error})"));
        Ok(())
    }

    fn skip(&mut self, what: String) {
        match self.skipped.len() {
            0..SKIPPED_MAX => self.skipped.push(what),
            SKIPPED_MAX => self.skipped.push("and more of this".to_owned()),
            _ => {}
        }
    }
}

/// As much of the input as the packet at its start may take. Keys and what belongs to them have no partial lengths, and
/// following a long chain of them again and again would take time without end.
fn window(input: &[u8]) -> &[u8] {
    if has_partial_length(input) {
        &input[..input.len().min(PARTIAL_OCTETS_MAX)]
    } else {
        input
    }
}

fn has_partial_length(input: &[u8]) -> bool {
    matches!(input, [0xC0..=0xFF, 224..=254, ..])
}

/// Pieces grow to at least this before they are cut.
const PIECE_OCTETS: usize = 128 << 10;
const READ_OCTETS: usize = 256 << 10;
/// A packet announced longer than this is taken for garbage.
const PACKET_OCTETS_MAX: usize = 16 << 20;
/// The same for a packet in parts.
const PARTIAL_OCTETS_MAX: usize = 64 << 10;
/// Cases named of one piece.
const SKIPPED_MAX: usize = 1000;
/// Octets in which the start of a certificate can be recognised.
const KEY_START_OCTETS: usize = 16 << 10;
const OVERSIZE: &str = "a certificate has more than";

/// A whole primary key packet of a known version, followed by something that can be a packet.
fn starts_certificate(octets: &[u8]) -> bool {
    if !matches!(octets.first(), Some(0x98..=0x9A | 0xC6)) || has_partial_length(octets) {
        return false;
    }
    let Ok(frame) = packet::frame(octets) else { return false };
    let follows = octets.get(frame.span.len()).is_none_or(|next| next & 0x80 != 0);
    follows && matches!(frame.body.first(), Some(2..=6)) && frame.body.len() > 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(n: u8) -> Vec<u8> {
        let mut out = Vec::new();
        packet::write(&mut out, tag::PUBLIC_KEY, &[4, 0, 0, 0, n, 99, 1, 2, 3, 4]);
        packet::write(&mut out, tag::USER_ID, &vec![b'a'; 50_000]);
        out
    }

    fn pieces(stream: &[u8], offset: u64) -> Vec<Piece> {
        let mut cutter = Cutter::new(stream, offset, 1 << 20).unwrap();
        std::iter::from_fn(|| cutter.next_piece().unwrap()).collect()
    }

    #[test]
    fn pieces_are_whole_certificates_and_can_be_resumed() {
        let stream: Vec<u8> = (0..20).flat_map(certificate).collect();
        let pieces_found = pieces(&stream, 0);
        assert!(pieces_found.len() > 3);
        let joined: Vec<u8> = pieces_found.iter().flat_map(|piece| piece.octets.clone()).collect();
        assert_eq!(joined, stream);
        assert!(
            pieces_found
                .iter()
                .all(|piece| piece.octets.len() % certificate(0).len() == 0)
        );
        assert_eq!(pieces_found.last().unwrap().end, stream.len() as u64);
        let resumed = pieces(&stream, pieces_found[0].end);
        assert_eq!(resumed[..], pieces_found[1..]);
    }

    #[test]
    fn garbage_in_between_costs_only_itself() {
        let mut stream = certificate(1);
        stream.extend_from_slice(b"this is no packet");
        stream.extend_from_slice(&certificate(2));
        stream.extend_from_slice(&[0xC2, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1]);
        stream.extend_from_slice(&certificate(3));
        let found = pieces(&stream, 0);
        let joined: Vec<u8> = found.iter().flat_map(|piece| piece.octets.clone()).collect();
        assert_eq!(joined, [certificate(1), certificate(2), certificate(3)].concat());
        let skipped: Vec<&String> = found.iter().flat_map(|piece| &piece.skipped).collect();
        assert_eq!(skipped.len(), 2, "{skipped:?}");
        assert!(skipped[0].starts_with("17 octets at "), "{skipped:?}");
        assert_eq!(found.last().unwrap().end, stream.len() as u64);
    }

    #[test]
    fn chains_of_partial_lengths_are_not_followed_again_and_again() {
        let mut stream = vec![0x98, 0];
        (0..2_000_000).for_each(|_| stream.extend_from_slice(&[0xC6, 0xE0]));
        stream.extend_from_slice(&certificate(1));
        let found = pieces(&stream, 0);
        assert!(found.last().unwrap().octets.ends_with(&certificate(1)));
        // Every signature continues all chains before it, and hides a key in one of its parts.
        let key = [0x98, 10, 4, 0, 0, 0, 1, 99, 1, 2, 3, 4];
        let link = [&[0xC2, 0xE0, 7, 0xE4][..], &key, &[0xC2, 0xE0, 7, 0xE0]].concat();
        let found = pieces(&link.repeat(20_000), 0);
        let named: usize = found.iter().map(|piece| piece.skipped.len()).sum();
        assert!(named > 0 && named <= found.len() * (SKIPPED_MAX + 1), "{named}");
    }

    #[test]
    fn of_an_endless_certificate_the_rest_is_left_out() {
        let mut stream = certificate(1);
        (0..100).for_each(|n| packet::write(&mut stream, tag::USER_ID, &vec![n; 50_000]));
        stream.extend_from_slice(&certificate(2));
        let found = pieces(&stream, 0);
        let total: usize = found.iter().map(|piece| piece.octets.len()).sum();
        assert!(total < (1 << 20) + certificate(2).len() + 10);
        assert!(found.iter().any(|piece| !piece.skipped.is_empty()));
    }
}
