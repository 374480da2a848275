//! Reading the fields of key material and signature values.

use super::KeyUnusable;

/// The octets not read yet.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn octets(&mut self, count: usize) -> Result<&'a [u8], CutOff> {
        let (octets, rest) = self.0.split_at_checked(count).ok_or(CutOff)?;
        self.0 = rest;
        Ok(octets)
    }

    /// The octets of an integer, big-endian, as many as its bit count asks for: leading zeros stay (RFC 9580 §3.2).
    pub(super) fn integer(&mut self) -> Result<&'a [u8], CutOff> {
        let count = self.octets(2)?;
        let bits = u16::from_be_bytes([count[0], count[1]]);
        self.octets(usize::from(bits).div_ceil(8))
    }

    /// An integer whose bit count is exact.
    pub(super) fn exact_integer(&mut self) -> Option<&'a [u8]> {
        let bits = self
            .0
            .first_chunk::<2>()
            .map(|bits| u32::from(u16::from_be_bytes(*bits)))?;
        let octets = self.integer().ok()?;
        let first = octets.first()?;
        (octets.len() as u32 * 8 - first.leading_zeros() == bits).then_some(octets)
    }

    /// A curve's object identifier without its length octet (RFC 9580 §9.2).
    pub(super) fn object_identifier(&mut self) -> Result<&'a [u8], CutOff> {
        let length = self.octets(1)?[0];
        self.octets(usize::from(length))
    }
}

/// A field reaches over the end.
#[derive(Debug)]
pub(super) struct CutOff;

impl From<CutOff> for KeyUnusable {
    fn from(CutOff: CutOff) -> Self {
        Self::Malformed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_keep_their_octets_and_must_fit() {
        let mut fields = Fields::new(&[0, 9, 0, 1, 0, 0, 0, 17, 1, 2]);
        assert_eq!(fields.integer().unwrap(), [0, 1]);
        assert!(fields.integer().unwrap().is_empty());
        assert!(fields.integer().is_err());
        assert!(Fields::new(&[5]).integer().is_err());
        assert_eq!(Fields::new(&[0, 9, 1, 0]).exact_integer(), Some(&[1, 0][..]));
        for loose in [&[0, 10, 1, 0][..], &[0, 16, 0, 1], &[0, 9, 3, 0], &[0, 0], &[0]] {
            assert_eq!(Fields::new(loose).exact_integer(), None, "{loose:?}");
        }
        assert!(Fields::new(&[3, 1, 2]).object_identifier().is_err());
    }
}
