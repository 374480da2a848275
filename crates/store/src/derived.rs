//! The terms, elements and components of one record in few octets, kept beside its data.
//!
//! An update must know which rows the old version had, and the store can't derive them again. Most of the texts occur
//! in the record anyway (a key id ends a fingerprint, an address is part of a user id), so a text that is found in
//! the id, in an earlier text or in the first 64 KiB of the data is written as a place instead, part by part. Layout:
//!
//! ```text
//! count of terms, then each:     kind (1 octet), text
//! count of elements, then each:  dataset (1 octet), text
//! components to the end, each:   text
//! text:                          count of parts, then each part
//! part:                          2·length, octets   or   2·length + 1, offset
//! ```
//!
//! Numbers are LEB128. An offset counts through the id, the parts written as octets so far, and the data. An octet FF,
//! which no UTF-8 holds and which therefore often stands between texts, ends a part.

use memchr::memmem;

use crate::batch::Kept;
use crate::{Component, Dataset, Element, RecordId, StoreError, Term};

/// The octets that texts may refer to.
struct Window<'a> {
    /// The id and the texts written out so far.
    head: Vec<u8>,
    data: &'a [u8],
    /// Octets that may still be looked through.
    patience: usize,
}

/// What a record has rows for.
pub(crate) type Lists = (Vec<Term>, Vec<Element>, Vec<Component>);

/// Writes what `kept` has rows for.
pub(crate) fn encode(kept: &Kept) -> Vec<u8> {
    let Kept {
        stored,
        terms,
        elements,
        components,
    } = kept;
    let mut window = Window::new(&stored.id, &stored.data);
    let mut out = Vec::with_capacity(128);
    number(&mut out, terms.len());
    for term in terms {
        out.push(term.kind);
        window.write(&mut out, &term.text);
    }
    number(&mut out, elements.len());
    for element in elements {
        out.push(element.dataset.0);
        window.write(&mut out, &element.bytes);
    }
    for component in components {
        window.write(&mut out, &component.encode());
    }
    out
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(id: &RecordId, data: &[u8], derived: &[u8]) -> Result<Lists, StoreError> {
    let damaged = || {
        StoreError::Damaged(format!(
            "the list of terms and elements of the record {id:?} can't be read"
        ))
    };
    let mut window = Window::new(id, data);
    let mut rest = derived;
    let lists = (|| {
        let mut terms = Vec::new();
        for _ in 0..read_number(&mut rest)? {
            terms.push(Term {
                kind: read_octets(&mut rest, 1)?[0],
                text: window.read(&mut rest)?,
            });
        }
        let mut elements = Vec::new();
        for _ in 0..read_number(&mut rest)? {
            let dataset = Dataset(read_octets(&mut rest, 1)?[0]);
            elements.push(Element {
                dataset,
                bytes: window.read(&mut rest)?,
            });
        }
        let mut components = Vec::new();
        while !rest.is_empty() {
            components.push(Component::decode(&window.read(&mut rest)?)?);
        }
        Some((terms, elements, components))
    })();
    lists.ok_or_else(damaged)
}

impl<'a> Window<'a> {
    fn new(id: &RecordId, data: &'a [u8]) -> Self {
        Self {
            head: id.as_bytes().to_vec(),
            data: &data[..data.len().min(WINDOW_OCTETS_MAX)],
            patience: PATIENCE_OCTETS,
        }
    }

    fn write(&mut self, out: &mut Vec<u8>, text: &[u8]) {
        number(out, 1 + text.iter().filter(|octet| **octet == BETWEEN).count());
        for part in text.split(|octet| *octet == BETWEEN) {
            self.write_part(out, part);
        }
    }

    fn write_part(&mut self, out: &mut Vec<u8>, text: &[u8]) {
        let place = (text.len() >= TEXT_OCTETS_MIN).then(|| self.place(text)).flatten();
        number(out, text.len() << 1 | usize::from(place.is_some()));
        match place {
            Some(offset) => number(out, offset),
            None => {
                out.extend_from_slice(text);
                self.head.extend_from_slice(text);
            }
        }
    }

    fn place(&mut self, text: &[u8]) -> Option<usize> {
        let head = &self.head[..self.head.len().min(WINDOW_OCTETS_MAX)];
        self.patience = self.patience.checked_sub(head.len() + self.data.len())?;
        let finder = memmem::Finder::new(text);
        finder
            .find(head)
            .or_else(|| Some(self.head.len() + finder.find(self.data)?))
    }

    fn read(&mut self, rest: &mut &[u8]) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        for part in 0..read_number(rest)? {
            if part > 0 {
                text.push(BETWEEN);
            }
            text.extend(self.read_part(rest)?);
            if text.len() > Term::OCTETS_MAX {
                return None;
            }
        }
        Some(text)
    }

    fn read_part(&mut self, rest: &mut &[u8]) -> Option<Vec<u8>> {
        let head = read_number(rest)?;
        let length = head >> 1;
        if length > Term::OCTETS_MAX {
            return None;
        }
        if head & 1 == 0 {
            let text = read_octets(rest, length)?;
            self.head.extend_from_slice(text);
            return Some(text.to_vec());
        }
        let offset = read_number(rest)?;
        let (source, start) = match offset.checked_sub(self.head.len()) {
            Some(start) => (self.data, start),
            None => (&self.head[..], offset),
        };
        source.get(start..start.checked_add(length)?).map(<[u8]>::to_vec)
    }
}

/// Ends a part of a text.
const BETWEEN: u8 = 0xff;
/// Shorter texts cost as much as their place.
const TEXT_OCTETS_MIN: usize = 4;
/// How far into the texts and into the data a text is looked for: names come early, and a search must stay cheap.
const WINDOW_OCTETS_MAX: usize = 1 << 16;
/// Octets that are looked through for one record, some milliseconds' worth: a record may have tens of thousands of texts, and this
/// happens while others wait to write.
const PATIENCE_OCTETS: usize = 32 << 20;

pub(crate) fn number(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn read_number(rest: &mut &[u8]) -> Option<usize> {
    let mut value = 0usize;
    for shift in (0..32).step_by(7) {
        let octet = read_octets(rest, 1)?[0];
        value |= usize::from(octet & 0x7f) << shift;
        if octet < 0x80 {
            return Some(value);
        }
    }
    None
}

pub(crate) fn read_octets<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (octets, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> RecordId {
        RecordId::new(&[7; 20]).unwrap()
    }

    fn lists() -> Lists {
        let texts: [&[u8]; 7] = [
            b"",
            b"alice@example.org\xFFAlice <alice@example.org>\xFF",
            b"abc",
            &[7; 20],
            &[7; 8],
            b"alice@example.org",
            b"never seen in the data",
        ];
        let terms = texts
            .iter()
            .zip(0..)
            .map(|(text, kind)| Term {
                kind,
                text: text.to_vec(),
            })
            .collect();
        let elements = vec![Element {
            dataset: Dataset(1),
            bytes: vec![9; 16],
        }];
        let component = Component {
            fingerprint: Some(vec![7; 20]),
            ..Component::default()
        };
        (terms, elements, vec![component])
    }

    fn written(data: &[u8], (terms, elements, components): &Lists) -> Vec<u8> {
        encode(&Kept {
            stored: crate::Stored {
                id: id(),
                data: data.to_vec(),
                policy: 1,
                created: 0,
                modified: 0,
            },
            terms: terms.clone(),
            elements: elements.clone(),
            components: components.clone(),
        })
    }

    #[test]
    fn what_is_written_is_read_back() {
        let lists = lists();
        let data = b"some octets, Alice <alice@example.org>, more octets";
        let derived = written(data, &lists);
        let (places, literal) = (4, 2 + 1 + 22);
        assert_eq!(
            derived.len(),
            1 + 3 + (2 + 2 + 2 + 1) + (3 + 3) + 3 * places + literal + 1 + (3 + 16) + (1 + 1 + 10 + 2)
        );
        assert_eq!(decode(&id(), data, &derived).unwrap(), lists);
        let none = Lists::default();
        assert_eq!(decode(&id(), b"", &written(b"", &none)).unwrap(), none);
    }

    /// More than is looked through: the rest is written out, and everything is read back.
    #[test]
    fn lists_of_any_length_are_read_back() {
        let term = |n: u32| Term {
            kind: 3,
            text: [&n.to_be_bytes()[..], &[b'x'; 500], &[0xFF], &n.to_be_bytes()].concat(),
        };
        let terms: Vec<Term> = (0..2_000).map(term).collect();
        let data = [b'y'; 1 << 16];
        let lists = (terms, vec![], vec![]);
        let derived = written(&data, &lists);
        assert_eq!(decode(&id(), &data, &derived).unwrap(), lists);
        let last = [2 * 4, 0, 0, 0x07, 0xCF, 0];
        assert!(
            derived.ends_with(&last),
            "the last text repeats what nobody looks for any more"
        );
    }

    #[test]
    fn a_list_cut_short_or_changed_never_panics() {
        let lists = lists();
        let derived = written(b"alice@example.org", &lists);
        // Components go up to the end, so that a list of terms and elements alone is whole as well.
        let whole = written(b"alice@example.org", &(lists.0, lists.1, vec![])).len();
        for end in (0..derived.len()).filter(|end| *end != whole) {
            assert!(
                decode(&id(), b"alice@example.org", &derived[..end]).is_err(),
                "cut at {end}"
            );
        }
        for at in 0..derived.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = derived.clone();
                changed[at] = value;
                let _ = decode(&id(), b"alice@example.org", &changed);
            }
        }
    }
}
