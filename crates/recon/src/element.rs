//! Numbers on the wire, members of a set, and the prefixes that name parts of it.
//!
//! An element is an integer whose little-endian bytes double as its *path*: the bit string of those
//! bytes, first byte first, highest bit of each byte first. A [`Prefix`] is the beginning of a
//! path and stands for all elements that share it; it grows two bits a step.
//!
//! Both are kept as words of eight path bytes, first byte highest. So comparing words compares
//! paths, and swapping the bytes of each word gives the limbs of the integer, lowest first.

use std::fmt;

/// Bits of the path per step down the tree; so a node has four children.
pub const BITQUANTUM: usize = 2;

/// Children of a node: `2^BITQUANTUM`.
pub const CHILDREN: usize = 1 << BITQUANTUM;

/// A number as a message carries it: nothing is known of it but its length.
///
/// The order is that of paths. It becomes an [`Element`] or a sample only through
/// [`Dataset`](crate::dataset::Dataset).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value<const L: usize>([u64; L]);

impl<const L: usize> Value<L> {
    /// The number with these little-endian bytes; missing high bytes are zero. None if there are
    /// more than `8·L` bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= 8 * L).then(|| Self::read(bytes))
    }

    /// The same for at most `8·L` bytes; what is behind them is ignored.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let mut words = [0; L];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
            let mut padded = [0; 8];
            padded[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_be_bytes(padded);
        }
        Self(words)
    }

    /// Appends the first `length` little-endian bytes.
    pub fn write(&self, length: usize, out: &mut Vec<u8>) {
        let bytes = self.0.map(u64::to_be_bytes);
        out.extend_from_slice(&bytes.as_flattened()[..length]);
    }

    /// The number with these limbs, lowest first.
    pub fn from_limbs(limbs: [u64; L]) -> Self {
        Self(limbs.map(u64::swap_bytes))
    }

    /// The number as limbs, lowest first.
    pub fn limbs(&self) -> [u64; L] {
        self.0.map(u64::swap_bytes)
    }

    /// The path as words, first bit highest.
    pub(crate) fn words(&self) -> [u64; L] {
        self.0
    }

    pub(crate) fn from_words(words: [u64; L]) -> Self {
        Self(words)
    }
}

impl<const L: usize> fmt::Debug for Value<L> {
    /// The bytes in the order of the wire, trailing zeros included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|word| write!(f, "{word:016x}"))
    }
}

/// A member of a set: small enough for its dataset and none of the sample points.
///
/// Made by [`Dataset::element`](crate::dataset::Dataset::element). The order is that of paths,
/// which is also the order of the bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element<const L: usize>(Value<L>);

impl<const L: usize> Element<L> {
    pub(crate) fn unchecked(value: Value<L>) -> Self {
        Self(value)
    }

    /// The number as a message carries it.
    pub fn value(&self) -> Value<L> {
        self.0
    }

    /// The child of the node at this depth (in steps) that holds the element.
    #[inline]
    pub fn step(&self, depth: usize) -> usize {
        let bit = depth * BITQUANTUM;
        (self.0.0[bit / 64] >> (62 - bit % 64)) as usize & (CHILDREN - 1)
    }
}

impl<const L: usize> fmt::Debug for Element<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The beginning of a path: the name of a node, and of all elements below it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix<const L: usize> {
    /// The bits, first bit highest; zero behind the last one.
    words: [u64; L],
    length: u16,
}

impl<const L: usize> Prefix<L> {
    /// The empty prefix: the root, everything.
    pub const ROOT: Self = Self {
        words: [0; L],
        length: 0,
    };

    /// The prefix of `length` bits, packed from the highest bit of the first byte on.
    ///
    /// None if the number of bytes is not `length / 8` rounded up, a bit behind the last one is
    /// set, the length is not a multiple of [`BITQUANTUM`], or it does not fit `L` words.
    pub fn from_bits(length: usize, bytes: &[u8]) -> Option<Self> {
        if !length.is_multiple_of(BITQUANTUM) || length > 64 * L || bytes.len() != length.div_ceil(8) {
            return None;
        }
        let prefix = Self {
            words: Value::from_bytes(bytes)?.0,
            length: length as u16,
        };
        let clean = prefix
            .words
            .iter()
            .zip(prefix.mask())
            .all(|(word, mask)| word & !mask == 0);
        clean.then_some(prefix)
    }

    /// The number of bits.
    pub fn length(&self) -> usize {
        usize::from(self.length)
    }

    /// The first `length` bits of the path of an element; at most `64·L`.
    pub fn of(element: &Element<L>, length: usize) -> Self {
        let mut prefix = Self {
            words: element.0.0,
            length: length as u16,
        };
        let mask = prefix.mask();
        prefix.words.iter_mut().zip(mask).for_each(|(word, mask)| *word &= mask);
        prefix
    }

    /// The bits, packed as [`Prefix::from_bits`] reads them.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        Value(self.words).write(self.length().div_ceil(8), &mut bytes);
        bytes
    }

    /// The four extensions by one step, in the order 00, 01, 10, 11; none if the words are full.
    pub fn children(&self) -> Option<[Self; CHILDREN]> {
        let bit = self.length();
        if bit + BITQUANTUM > 64 * L {
            return None;
        }
        Some(std::array::from_fn(|step| {
            let mut child = *self;
            child.words[bit / 64] |= (step as u64) << (62 - bit % 64);
            child.length += BITQUANTUM as u16;
            child
        }))
    }

    /// Whether the element lies below this prefix.
    #[inline]
    pub fn contains(&self, element: &Element<L>) -> bool {
        self.matches(&element.0.0)
    }

    /// Whether this is `other` or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.length >= other.length && other.matches(&self.words)
    }

    /// The lowest number below this prefix, in path order.
    pub fn first(&self) -> Value<L> {
        Value(self.words)
    }

    /// The highest number below this prefix, in path order. Its high bytes, too, are all ones, so
    /// it may exceed every element.
    pub fn last(&self) -> Value<L> {
        let mask = self.mask();
        Value(std::array::from_fn(|i| self.words[i] | !mask[i]))
    }

    /// The child of the node at this depth (in steps) on the way to this prefix.
    pub fn step(&self, depth: usize) -> usize {
        Element(Value(self.words)).step(depth)
    }

    #[inline]
    fn matches(&self, words: &[u64; L]) -> bool {
        let mask = self.mask();
        (0..L).all(|i| (words[i] ^ self.words[i]) & mask[i] == 0)
    }

    /// Ones where the prefix has bits.
    #[inline]
    fn mask(&self) -> [u64; L] {
        std::array::from_fn(|i| match self.length().saturating_sub(64 * i) {
            0 => 0,
            bits @ 1..64 => !(u64::MAX >> bits),
            _ => u64::MAX,
        })
    }
}

impl<const L: usize> fmt::Display for Prefix<L> {
    /// The bits as zeros and ones.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..self.length()).try_for_each(|bit| write!(f, "{}", self.words[bit / 64] >> (63 - bit % 64) & 1))
    }
}

impl<const L: usize> fmt::Debug for Prefix<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl<const L: usize> std::str::FromStr for Prefix<L> {
    type Err = NotAPrefix;

    /// Reads zeros and ones.
    fn from_str(text: &str) -> Result<Self, NotAPrefix> {
        let mut bytes = vec![0; text.len().div_ceil(8)];
        for (bit, symbol) in text.bytes().enumerate() {
            match symbol {
                b'0' => {}
                b'1' => bytes[bit / 8] |= 0x80 >> (bit % 8),
                _ => return Err(NotAPrefix),
            }
        }
        Self::from_bits(text.len(), &bytes).ok_or(NotAPrefix)
    }
}

/// A text that is not an even number of zeros and ones, or too many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a prefix: an even number of zeros and ones is needed")]
pub struct NotAPrefix;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_reads_back_and_holds_its_range() {
        let prefix: Prefix<3> = "011011".parse().unwrap();
        assert_eq!(prefix.bytes(), [0x6c]);
        assert_eq!(Prefix::from_bits(6, &[0x6c]), Some(prefix));
        assert_eq!(Prefix::<3>::from_bits(6, &[0x6e]), None, "bits behind the last one");
        assert_eq!(Prefix::<3>::from_bits(6, &[0x6c, 0]), None, "a byte too many");
        assert_eq!(Prefix::<3>::from_bits(5, &[0x68]), None, "half a step");
        let element = Element(Value::from_bytes(&[0x6e; 16]).unwrap());
        assert!(prefix.contains(&element));
        assert!(prefix.first() <= element.value() && element.value() <= prefix.last());
        let child = prefix.children().unwrap()[element.step(3)];
        assert!(child.contains(&element) && child.is_within(&prefix) && !prefix.is_within(&child));
        assert_eq!(child.to_string(), "01101110");
    }

    #[test]
    fn words_are_full_at_their_last_bit() {
        let mut prefix = Prefix::<1>::ROOT;
        while let Some(children) = prefix.children() {
            prefix = children[2];
        }
        assert_eq!(prefix.to_string(), "10".repeat(32));
        assert_eq!(prefix.first(), prefix.last());
    }
}
