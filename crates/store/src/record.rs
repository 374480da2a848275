//! The words of the store: realms, ids, terms, datasets and elements.

/// One kind of records: a public-key infrastructure, or what else a program keeps. Records of different realms never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Realm(pub u8);

/// Identifies a record within its realm; for OpenPGP the fingerprint. At most 64 octets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(Box<[u8]>);

impl RecordId {
    /// Takes 1 to 64 octets; `None` for anything else.
    pub fn new(octets: &[u8]) -> Option<Self> {
        (1..=Self::OCTETS_MAX)
            .contains(&octets.len())
            .then(|| Self(octets.into()))
    }

    /// Its octets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The longest id.
    pub const OCTETS_MAX: usize = 64;
}

/// Something a record can be found by: a kind chosen by the caller and up to [`Term::OCTETS_MAX`] octets.
///
/// A search finds every term that begins with what is looked for, so one row can answer several questions, the common
/// ones first. Callers who want only whole texts found end them with something that occurs nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    /// What sort of term; meaningful to the caller only.
    pub kind: u8,
    /// The term itself, in the form it is looked up by.
    pub text: Vec<u8>,
}

impl Term {
    /// The longest term.
    pub const OCTETS_MAX: usize = 2048;

    /// The first text behind all that begin with this one.
    pub(crate) fn end(&self) -> Vec<u8> {
        let mut end = self.text.clone();
        while end.pop_if(|octet| *octet == u8::MAX).is_some() {}
        match end.last_mut() {
            Some(last) => *last += 1,
            None => end = vec![u8::MAX; Self::OCTETS_MAX + 1],
        }
        end
    }
}

/// One reconciled set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dataset(pub u8);

/// What stands for a record in a dataset: up to [`Element::OCTETS_MAX`] octets, in the order of the dataset's tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    /// The set it belongs to.
    pub dataset: Dataset,
    /// Its octets.
    pub bytes: Vec<u8>,
}

impl Element {
    /// The longest element.
    pub const OCTETS_MAX: usize = 32;
}

/// A row that is there because of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Derived {
    /// What the record can be found by.
    Term(Term),
    /// What stands for it in a dataset.
    Element(Element),
    /// A part of it.
    Component(crate::Component),
}

/// A record as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub id: RecordId,
    /// Opaque bytes.
    pub data: Vec<u8>,
    /// Version of the policy that derived its terms and elements.
    pub policy: u32,
    /// First stored, Unix seconds.
    pub created: u64,
    /// Last changed, Unix seconds.
    pub modified: u64,
}

/// A record that was found and not read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its id.
    pub id: RecordId,
    /// Octets of its data.
    pub octets: usize,
}

/// What a term finds, in order of ids: records that were read, then those that were not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Those within the bounds.
    pub records: Vec<Stored>,
    /// The next ones.
    pub rest: Vec<Listed>,
}

/// How much of what a term finds is given at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The most records that are read.
    pub records: usize,
    /// The most octets of data that are read; a record that exceeds them ends the reading.
    pub octets: usize,
    /// The most records that are only listed. As many mean that there may be more.
    pub listed: usize,
}
