//! The messages of a session.

use super::{Fields, Frame, WireError, put_frame, put_int, put_string};
use crate::dataset::{Dataset, SAMPLES, Summary};
use crate::element::{BITQUANTUM, Prefix, Value};

/// A message between the exchange of configurations and the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<const L: usize> {
    /// "My node has so many elements and these samples." A request of the walker.
    Poly(Prefix<L>, Summary<L>),
    /// "These are all my elements under the prefix." A request of the walker.
    Full(Prefix<L>, Vec<Value<L>>),
    /// "This is what I have and you lack." A reply of the solver; or of the walker to
    /// [`FullElements`](Self::FullElements).
    Elements(Vec<Value<L>>),
    /// "I cannot tell what you lack; this is all I have there." A reply of the solver.
    FullElements(Vec<Value<L>>),
    /// "I cannot tell; ask about the children." A reply of the solver.
    SyncFail,
    /// The walker has no more requests.
    Done,
    /// The walker waits for replies.
    Flush,
    /// The peer gives up; the text says why.
    Error(String),
    /// "Not this one." A reply of the solver, in the second generation only.
    Refused(Prefix<L>, u8, String),
    /// A configuration, which has no place inside a session.
    Config,
    /// One of the two messages of old that nobody sends; both carry a text.
    Historic(u8, String),
}

/// What kind of message something is, for errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named like the messages")]
pub enum Kind {
    Poly,
    Full,
    Elements,
    FullElements,
    SyncFail,
    Done,
    Flush,
    Error,
    Refused,
    Config,
    Historic,
}

const POLY: u8 = 0;
const FULL: u8 = 1;
const ELEMENTS: u8 = 2;
const FULL_ELEMENTS: u8 = 3;
const SYNC_FAIL: u8 = 4;
const DONE: u8 = 5;
const FLUSH: u8 = 6;
const ERROR: u8 = 7;
const HISTORIC: [u8; 2] = [8, 9];
const CONFIG: u8 = super::Config::KIND;
const REFUSED: u8 = 11;

impl<const L: usize> Message<L> {
    /// Reads a frame. Prefixes and samples are valid for the dataset afterwards; whether numbers
    /// in lists are elements is left to the session.
    pub fn decode(dataset: &Dataset<L>, frame: Frame<'_>) -> Result<Self, WireError> {
        let mut fields = Fields(frame.payload);
        let message = match frame.kind {
            POLY => {
                let prefix = read_prefix(dataset, &mut fields)?;
                Self::Poly(prefix, read_summary(dataset, &mut fields)?)
            }
            FULL => Self::Full(read_prefix(dataset, &mut fields)?, read_list(dataset, &mut fields)?),
            ELEMENTS => Self::Elements(read_list(dataset, &mut fields)?),
            FULL_ELEMENTS => Self::FullElements(read_list(dataset, &mut fields)?),
            SYNC_FAIL => Self::SyncFail,
            DONE => Self::Done,
            FLUSH => Self::Flush,
            ERROR => Self::Error(fields.text()?),
            kind if HISTORIC.contains(&kind) => Self::Historic(kind, fields.text()?),
            // What it says matters to nobody here; that it came is the fault.
            CONFIG => return Ok(Self::Config),
            REFUSED if dataset.conduct.refuses => {
                let prefix = read_prefix(dataset, &mut fields)?;
                Self::Refused(prefix, fields.bytes(1)?[0], fields.text()?)
            }
            kind => return Err(WireError::UnknownType(kind)),
        };
        fields.end()?;
        Ok(message)
    }

    /// Appends the message as a frame.
    pub fn encode(&self, dataset: &Dataset<L>, out: &mut Vec<u8>) {
        match self {
            Self::Poly(prefix, summary) => put_frame(out, POLY, |out| {
                put_prefix(out, prefix);
                put_int(out, summary.count as usize);
                put_list(dataset, out, &summary.samples.map(|sample| dataset.value(sample)));
            }),
            Self::Full(prefix, elements) => put_frame(out, FULL, |out| {
                put_prefix(out, prefix);
                put_list(dataset, out, elements);
            }),
            Self::Elements(elements) => put_frame(out, ELEMENTS, |out| put_list(dataset, out, elements)),
            Self::FullElements(elements) => put_frame(out, FULL_ELEMENTS, |out| put_list(dataset, out, elements)),
            Self::SyncFail => put_frame(out, SYNC_FAIL, |_| {}),
            Self::Done => put_frame(out, DONE, |_| {}),
            Self::Flush => put_frame(out, FLUSH, |_| {}),
            Self::Error(text) => put_frame(out, ERROR, |out| put_string(out, text.as_bytes())),
            Self::Historic(kind, text) => put_frame(out, *kind, |out| put_string(out, text.as_bytes())),
            Self::Config => super::Config::default().encode(out),
            Self::Refused(prefix, code, text) => put_frame(out, REFUSED, |out| {
                put_prefix(out, prefix);
                out.push(*code);
                put_string(out, text.as_bytes());
            }),
        }
    }

    /// What kind of message this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Poly(..) => Kind::Poly,
            Self::Full(..) => Kind::Full,
            Self::Elements(_) => Kind::Elements,
            Self::FullElements(_) => Kind::FullElements,
            Self::SyncFail => Kind::SyncFail,
            Self::Done => Kind::Done,
            Self::Flush => Kind::Flush,
            Self::Error(_) => Kind::Error,
            Self::Refused(..) => Kind::Refused,
            Self::Config => Kind::Config,
            Self::Historic(..) => Kind::Historic,
        }
    }
}

fn read_prefix<const L: usize>(dataset: &Dataset<L>, fields: &mut Fields<'_>) -> Result<Prefix<L>, WireError> {
    let bits = fields.int()? as usize;
    if !bits.is_multiple_of(BITQUANTUM) || bits > dataset.prefix_bits_max() {
        return Err(WireError::PrefixLength(bits));
    }
    let bytes = fields.string(bits.div_ceil(8), |_| WireError::PrefixPadding)?;
    Prefix::from_bits(bits, bytes).ok_or(WireError::PrefixPadding)
}

fn read_summary<const L: usize>(dataset: &Dataset<L>, fields: &mut Fields<'_>) -> Result<Summary<L>, WireError> {
    let size = fields.int()?;
    if size > i32::MAX as u32 {
        return Err(WireError::Size(size));
    }
    let values = read_list(dataset, fields)?;
    let values: [Value<L>; SAMPLES] = values
        .try_into()
        .map_err(|list: Vec<_>| WireError::SampleCount(list.len()))?;
    let mut summary = Summary {
        count: u64::from(size),
        samples: [dataset.field().one(); SAMPLES],
    };
    for (sample, value) in summary.samples.iter_mut().zip(values) {
        *sample = dataset.field().residue(value.limbs()).ok_or(WireError::LargeSample)?;
        if sample.is_zero() {
            return Err(WireError::ZeroSample);
        }
    }
    Ok(summary)
}

fn read_list<const L: usize>(dataset: &Dataset<L>, fields: &mut Fields<'_>) -> Result<Vec<Value<L>>, WireError> {
    let length = dataset.value_length();
    let bytes = (fields.int()? as usize)
        .checked_mul(length)
        .ok_or(WireError::Truncated)?;
    Ok(fields.bytes(bytes)?.chunks_exact(length).map(Value::read).collect())
}

fn put_prefix<const L: usize>(out: &mut Vec<u8>, prefix: &Prefix<L>) {
    put_int(out, prefix.length());
    put_string(out, &prefix.bytes());
}

fn put_list<const L: usize>(dataset: &Dataset<L>, out: &mut Vec<u8>, values: &[Value<L>]) {
    put_int(out, values.len());
    values.iter().for_each(|value| value.write(dataset.value_length(), out));
}
