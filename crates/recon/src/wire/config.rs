//! The configuration both sides send first, and the verdict that follows it.

use super::{Fields, WireError, put_frame, put_int, put_string};

/// Bytes of the longest configuration that is read.
pub const CONFIG_MAX: usize = 64 << 10;

/// The most pairs in a configuration.
pub const CONFIG_PAIRS_MAX: usize = 64;

/// Bytes of the longest key or value.
pub const CONFIG_VALUE_MAX: usize = 4 << 10;

/// Pairs of key and value, in the order of the message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The pairs; a key may come twice.
    pub pairs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a side says about the other's configuration. It stands outside of frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The session goes on.
    Passed,
    /// It does not; the text says why.
    Failed(String),
}

impl Config {
    /// The type byte of the message.
    pub const KIND: u8 = 10;

    /// Reads the payload of a configuration message.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut fields = Fields(payload);
        let count = fields.int()? as usize;
        if count > CONFIG_PAIRS_MAX {
            return Err(WireError::ConfigPairs(count));
        }
        let mut pairs = Vec::new();
        for _ in 0..count {
            let key = fields.string(CONFIG_VALUE_MAX, WireError::ConfigValue)?;
            let value = fields.string(CONFIG_VALUE_MAX, WireError::ConfigValue)?;
            pairs.push((key.to_vec(), value.to_vec()));
        }
        fields.end()?;
        Ok(Self { pairs })
    }

    /// Appends the message as a frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_frame(out, Self::KIND, |out| {
            put_int(out, self.pairs.len());
            for (key, value) in &self.pairs {
                put_string(out, key);
                put_string(out, value);
            }
        });
    }

    /// Adds a pair of texts.
    pub fn put(&mut self, key: &str, value: &str) {
        self.pairs.push((key.into(), value.into()));
    }

    /// Adds a number of four bytes.
    pub fn put_number(&mut self, key: &str, number: u32) {
        self.pairs.push((key.into(), number.to_be_bytes().to_vec()));
    }

    /// The value of a key; the last one, as peers have it, if it is repeated.
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        self.values(key).last()
    }

    /// All values of a key.
    pub fn values(&self, key: &str) -> impl Iterator<Item = &[u8]> {
        self.pairs
            .iter()
            .filter(move |pair| pair.0 == key.as_bytes())
            .map(|pair| pair.1.as_slice())
    }

    /// The number of exactly four bytes that a key has.
    pub fn number(&self, key: &str) -> Option<u32> {
        self.value(key)?.try_into().ok().map(u32::from_be_bytes)
    }
}

impl Verdict {
    /// Appends the verdict.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Passed => put_string(out, b"passed"),
            Self::Failed(reason) => {
                put_string(out, b"failed");
                put_string(out, reason.as_bytes());
            }
        }
    }

    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Self, WireError> {
        match fields.string(b"passed".len(), |_| WireError::UnknownVerdict)? {
            b"passed" => Ok(Self::Passed),
            b"failed" => Ok(Self::Failed(fields.text()?)),
            _ => Err(WireError::UnknownVerdict),
        }
    }
}
