//! Messages and bytes.
//!
//! Every message is a *frame*: a length of four bytes, big-endian as all lengths and counts are,
//! then a type byte and a payload. Only the [`Verdict`] that ends the exchange of configurations
//! stands outside a frame. Numbers of the set, in contrast, are little-endian.
//!
//! Decoding comes in two layers. A [`FrameReader`] collects bytes until a frame is whole and
//! refuses one that announces too much *before* waiting for it. Its payload is then taken apart by
//! [`Message::decode`] or [`Config::decode`], which allocate nothing that the payload does not fill.

mod config;
mod message;

pub use config::{CONFIG_MAX, CONFIG_PAIRS_MAX, CONFIG_VALUE_MAX, Config, Verdict};
pub use message::{Kind, Message};

/// Bytes of a length or a count.
const INT: usize = 4;

/// The longest text that is read: the reason in an error, a refusal or a verdict.
pub const TEXT_MAX: usize = 64 << 10;

/// What is wrong with bytes of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A frame without even a type byte.
    #[error("a frame of no bytes")]
    EmptyFrame,
    /// A frame longer than the dataset allows; for sets it means that they are too far apart.
    #[error("a frame of {announced} bytes where {limit} are allowed")]
    FrameTooLong {
        /// The length the peer announced.
        announced: usize,
        /// The longest one allowed.
        limit: usize,
    },
    /// A type byte that stands for no message of this protocol generation.
    #[error("unknown message type {0}")]
    UnknownType(u8),
    /// The payload ends inside a field, or a count announces more than there is.
    #[error("a message ends too early")]
    Truncated,
    /// The payload goes on behind the last field.
    #[error("{0} bytes behind a message")]
    TrailingBytes(usize),
    /// A prefix of odd length, or longer than an element allows.
    #[error("a prefix of {0} bits")]
    PrefixLength(usize),
    /// A prefix whose number of bytes does not fit its number of bits, or with bits set behind its end.
    #[error("a malformed prefix")]
    PrefixPadding,
    /// Another number of samples than the dataset has points.
    #[error("{0} samples")]
    SampleCount(usize),
    /// A sample not below the modulus.
    #[error("a sample is not below the modulus")]
    LargeSample,
    /// A sample that is zero, as if a sample point were in the set.
    #[error("a sample is zero")]
    ZeroSample,
    /// A number of elements that is negative as a signed number.
    #[error("a size of {0}")]
    Size(u32),
    /// A text longer than [`TEXT_MAX`].
    #[error("a text of {0} bytes")]
    TextTooLong(usize),
    /// The configuration has too many pairs.
    #[error("{0} pairs in a configuration")]
    ConfigPairs(usize),
    /// A key or value of the configuration is too long.
    #[error("a configuration value of {0} bytes")]
    ConfigValue(usize),
    /// Neither "passed" nor "failed".
    #[error("a verdict that is neither passed nor failed")]
    UnknownVerdict,
}

/// Cuts a stream of bytes into frames.
#[derive(Debug)]
pub struct FrameReader {
    buffer: Vec<u8>,
    /// Bytes at the front of the buffer that were already handed out.
    taken: usize,
    frame_max: usize,
}

/// A frame: the type byte and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The type byte.
    pub kind: u8,
    /// The rest.
    pub payload: &'a [u8],
}

impl FrameReader {
    /// A reader that refuses frames of more than `frame_max` bytes, the length field not counted.
    pub fn new(frame_max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            taken: 0,
            frame_max,
        }
    }

    /// The same stream with another limit from here on.
    pub fn with_limit(self, frame_max: usize) -> Self {
        Self { frame_max, ..self }
    }

    /// Adds bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        // Growing by doubling, but never beyond the frame that is being waited for.
        let announced = self.announced().map_or(0, |length| INT + length.min(self.frame_max));
        let growth = self.buffer.len().min(announced.saturating_sub(self.buffer.len()));
        self.buffer.reserve_exact(growth.max(bytes.len()));
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, if it is whole.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, WireError> {
        let Some(length) = self.announced() else {
            return Ok(None);
        };
        match length {
            0 => return Err(WireError::EmptyFrame),
            _ if length > self.frame_max => {
                return Err(WireError::FrameTooLong {
                    announced: length,
                    limit: self.frame_max,
                });
            }
            _ => {}
        }
        let start = self.taken + INT;
        let Some(frame) = self.buffer.get(start..start + length) else {
            return Ok(None);
        };
        self.taken = start + length;
        Ok(Some(Frame {
            kind: frame[0],
            payload: &frame[1..],
        }))
    }

    /// The next verdict, if it is whole.
    pub fn next_verdict(&mut self) -> Result<Option<Verdict>, WireError> {
        let mut fields = Fields(&self.buffer[self.taken..]);
        match Verdict::read(&mut fields) {
            Ok(verdict) => {
                self.taken = self.buffer.len() - fields.0.len();
                Ok(Some(verdict))
            }
            Err(WireError::Truncated) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The announced length of the next frame.
    fn announced(&self) -> Option<usize> {
        Fields(&self.buffer[self.taken..])
            .int()
            .ok()
            .map(|length| length as usize)
    }
}

/// Reads fields from the front of a payload.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn int(&mut self) -> Result<u32, WireError> {
        let bytes = self.bytes(INT)?;
        Ok(bytes.iter().fold(0, |int, &byte| int << 8 | u32::from(byte)))
    }

    /// Bytes behind their length, which must not exceed `limit`.
    fn string(&mut self, limit: usize, error: fn(usize) -> WireError) -> Result<&'a [u8], WireError> {
        let length = self.int()? as usize;
        if length > limit {
            return Err(error(length));
        }
        self.bytes(length)
    }

    fn text(&mut self) -> Result<String, WireError> {
        let bytes = self.string(TEXT_MAX, WireError::TextTooLong)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn end(&self) -> Result<(), WireError> {
        match self.0.len() {
            0 => Ok(()),
            rest => Err(WireError::TrailingBytes(rest)),
        }
    }
}

fn put_int(out: &mut Vec<u8>, int: usize) {
    // Every caller writes a count or length of something held in memory and bounded far below.
    out.extend_from_slice(&(int as u32).to_be_bytes());
}

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    put_int(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends a frame whose payload a function writes.
fn put_frame(out: &mut Vec<u8>, kind: u8, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    put_int(out, 0);
    out.push(kind);
    payload(out);
    let length = (out.len() - start - INT) as u32;
    out[start..start + INT].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_however_the_bytes_arrive() {
        let mut stream = Vec::new();
        put_frame(&mut stream, 7, |out| put_string(out, b"x"));
        put_frame(&mut stream, 6, |_| {});
        for size in 1..stream.len() {
            let mut reader = FrameReader::new(100);
            let mut kinds = Vec::new();
            for chunk in stream.chunks(size) {
                reader.feed(chunk);
                while let Some(frame) = reader.next_frame().unwrap() {
                    kinds.push((frame.kind, frame.payload.len()));
                }
            }
            assert_eq!(kinds, [(7, 5), (6, 0)]);
        }
    }

    #[test]
    fn a_frame_is_refused_by_its_length_alone() {
        let mut reader = FrameReader::new(100);
        reader.feed(&[0, 0, 0, 101]);
        assert_eq!(
            reader.next_frame(),
            Err(WireError::FrameTooLong {
                announced: 101,
                limit: 100
            })
        );
        let mut reader = FrameReader::new(100);
        reader.feed(&[0, 0, 0, 0]);
        assert_eq!(reader.next_frame(), Err(WireError::EmptyFrame));
    }

    #[test]
    fn waiting_for_a_long_frame_takes_no_more_than_the_frame() {
        let mut reader = FrameReader::new(1 << 20);
        reader.feed(&(1u32 << 20).to_be_bytes());
        assert!(reader.buffer.capacity() < 1000);
        for _ in 0..(1 << 20) / 1024 {
            reader.feed(&[1; 1024]);
            assert!(reader.buffer.capacity() <= (1 << 20) + 2048);
        }
        assert_eq!(reader.next_frame().unwrap().unwrap().payload.len(), (1 << 20) - 1);
    }

    #[test]
    fn a_verdict_needs_its_reason() {
        let mut bytes = Vec::new();
        Verdict::Failed("no".into()).encode(&mut bytes);
        let mut reader = FrameReader::new(100);
        reader.feed(&bytes[..bytes.len() - 1]);
        assert_eq!(reader.next_verdict(), Ok(None));
        reader.feed(&bytes[bytes.len() - 1..]);
        assert_eq!(reader.next_verdict(), Ok(Some(Verdict::Failed("no".into()))));
        let mut reader = FrameReader::new(100);
        reader.feed(b"\0\0\0\x06pissed");
        assert_eq!(reader.next_verdict(), Err(WireError::UnknownVerdict));
    }
}
