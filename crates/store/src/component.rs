//! Rows about the parts of a record, for people and programs that read the database: the store writes them and never looks
//! into them.

use crate::StoreError;

/// One part of a record. What its fields mean is the caller's business.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Component {
    /// Tells it from the other parts of its record.
    pub place: u32,
    /// What sort of part.
    pub kind: u8,
    /// Version of its format.
    pub version: Option<u8>,
    /// Octets that identify it.
    pub fingerprint: Option<Vec<u8>>,
    /// Words that it consists of, without U+0000.
    pub text: Option<String>,
    /// A number for its algorithm.
    pub algorithm: Option<u8>,
    /// The size of its key.
    pub bits: Option<u32>,
    /// Since when it is, in Unix seconds.
    pub created: Option<u64>,
    /// Until when it is, in Unix seconds; none for ever.
    pub expires: Option<u64>,
    /// Since when it is not any more, in Unix seconds; none if it was never taken back.
    pub revoked: Option<u64>,
}

impl Component {
    /// The most octets of text and fingerprint together.
    pub const OCTETS_MAX: usize = 1900;

    /// What the list beside a record keeps of it, the names last.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let numbers = [
            Some(u64::from(self.place)),
            Some(self.kind.into()),
            self.version.map(u64::from),
            self.algorithm.map(u64::from),
            self.bits.map(u64::from),
            self.created,
            self.expires,
            self.revoked,
            self.fingerprint.as_ref().map(|octets| octets.len() as u64),
        ];
        let mut out = Vec::with_capacity(64);
        for number in numbers {
            // Zero for none, else one more.
            let mut rest = number.map_or(0, |number| number.saturating_add(1));
            while rest >= 0x80 {
                out.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            out.push(rest as u8);
        }
        // What stands between texts in that list, so that names are texts of their own there.
        out.extend([u8::from(self.text.is_some()), 0xFF]);
        out.extend(self.fingerprint.iter().flatten());
        out.extend(self.text.iter().flat_map(|text| text.bytes()));
        out
    }

    /// Reads what [`Component::encode`] wrote.
    pub(crate) fn decode(octets: &[u8]) -> Option<Self> {
        let mut rest = octets;
        let mut number = || -> Option<Option<u64>> {
            let mut value = 0u64;
            for shift in (0..64).step_by(7) {
                let (first, after) = rest.split_first()?;
                rest = after;
                value |= u64::from(first & 0x7f) << shift;
                if *first < 0x80 {
                    return Some(value.checked_sub(1));
                }
            }
            None
        };
        let (place, kind) = (number()??, number()??);
        let (version, algorithm, bits) = (number()?, number()?, number()?);
        let (created, expires, revoked) = (number()?, number()?, number()?);
        let length = number()?;
        let (is_text, names) = rest.split_first()?;
        let (0xFF, names) = names.split_first().map(|(first, names)| (*first, names))? else {
            return None;
        };
        let (fingerprint, text) = names.split_at_checked(usize::try_from(length.unwrap_or(0)).ok()?)?;
        let small = |number: Option<u64>| number.map(|number| u8::try_from(number).ok());
        Some(Self {
            place: place.try_into().ok()?,
            kind: kind.try_into().ok()?,
            version: small(version).map_or(Some(None), |known| known.map(Some))?,
            algorithm: small(algorithm).map_or(Some(None), |known| known.map(Some))?,
            bits: bits.map(u32::try_from).transpose().ok()?,
            created,
            expires,
            revoked,
            fingerprint: length.map(|_| fingerprint.to_vec()),
            text: (*is_text == 1)
                .then(|| String::from_utf8(text.to_vec()))
                .transpose()
                .ok()?,
        })
    }

    /// Refuses what no table takes.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let lengths = [
            self.text.as_ref().map(String::len),
            self.fingerprint.as_ref().map(Vec::len),
        ];
        match lengths.into_iter().flatten().sum() {
            0..=Self::OCTETS_MAX if self.text.as_ref().is_some_and(|text| text.contains('\0')) => {
                Err(StoreError::Invalid("a part of a record holds U+0000".into()))
            }
            0..=Self::OCTETS_MAX => Ok(()),
            _ => Err(StoreError::Invalid("a part of a record is too long".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let full = Component {
            place: 300,
            kind: 2,
            version: Some(0),
            fingerprint: Some(vec![0xFF; 20]),
            text: Some("Älice".to_owned()),
            algorithm: Some(255),
            bits: Some(u32::MAX),
            created: Some(0),
            expires: Some(1 << 40),
            revoked: Some(127),
        };
        for component in [full.clone(), Component::default()] {
            let octets = component.encode();
            assert_eq!(Component::decode(&octets), Some(component));
        }
        let octets = full.encode();
        for end in 0..octets.len() - "Älice".len() {
            assert_eq!(Component::decode(&octets[..end]), None, "cut at {end}");
        }
    }
}
