//! Verdicts: what the verifier found about one signature in its place.
//!
//! A verdict is facts, not judgement: projections and policies read it without any cryptography, today's and later
//! ones. It is stored with the signature.

use crate::packet::key::KeyId;

/// Which facts are known by this build. Noted in every record as it is written; the verdicts of an older one count as
/// [`Fact::Unverified`].
pub const VERIFIER_VERSION: u8 = 4;

/// What is known about a signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    bits: u32,
    /// Signature type (RFC 9580 §5.2.1), 0 if unreadable.
    pub kind: u8,
    /// Seconds since 1970, 0 if unknown.
    pub created: u32,
    /// Seconds since 1970, 0 for never.
    pub expires: u32,
    /// Who claims to have made it; zero if it does not say.
    pub issuer: KeyId,
}

/// One fact. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Fact {
    /// The packet's fields make sense.
    Readable = 1,
    /// Its type fits its place.
    Fitting = 1 << 1,
    /// The packet names the primary key as its issuer, or names nobody and is the primary key's.
    Own = 1 << 2,
    /// The two clear octets equal the digest over its place.
    DigestMatches = 1 << 3,
    /// Cryptographically made by the primary key over its place.
    Valid = 1 << 4,
    /// Nobody can tell: its algorithm or hash is not known here.
    Unverifiable = 1 << 5,
    /// It arrived in some copy in which its component had a valid self-signature.
    Witnessed = 1 << 6,
    /// Marked as not for publication.
    Local = 1 << 7,
    /// It binds a subkey for signing without the subkey's own consent.
    BackSignatureMissing = 1 << 8,
    /// A revocation that also holds for the past.
    Hard = 1 << 9,
    /// Not looked at: its certificate takes more work than one may. Ends when some copy comes with a verdict.
    Unverified = 1 << 10,
    /// Hockeypuck believes it to be the owner's, and of a type that belongs there.
    NormalOwn = 1 << 11,
    /// Hockeypuck believes it to be somebody else's, and of a type that belongs there.
    NormalOther = 1 << 12,
    /// Hockeypuck can't bear it: no copy that holds it has a normal form.
    Deadly = 1 << 13,
    /// A valid self-signature in the one encoding that it can have, that names its issuer or nobody where nobody else can
    /// change it: it is an element of the second generation. A direct or revocation signature of the primary key is one
    /// wherever it stands.
    Enumerable = 1 << 14,
    /// By the clock of some node that wrote it, it was not made in the future.
    Timely = 1 << 15,
    /// Some node that wrote it had a key of the issuer that it names.
    IssuerKnown = 1 << 16,
}

impl Facts {
    /// Is this fact known?
    pub fn has(&self, fact: Fact) -> bool {
        self.bits & fact as u32 != 0
    }

    /// Adds a fact if `holds`.
    pub fn note(&mut self, fact: Fact, holds: bool) {
        if holds {
            self.bits |= fact as u32;
        }
    }

    /// A valid signature of the certificate's owner, in a place where it belongs.
    pub fn own_valid(&self) -> bool {
        self.has(Fact::Valid) && self.has(Fact::Fitting)
    }

    /// The owner made it, so it is not for others to leave out.
    pub fn by_owner(&self) -> bool {
        self.own_valid() || self.has(Fact::Enumerable)
    }

    /// A valid self-signature that attaches or revokes its component (for a subkey: with consent where it is needed).
    pub fn binds(&self) -> bool {
        self.own_valid() && !self.has(Fact::BackSignatureMissing)
    }

    /// Somebody else's, in a place where it belongs, and over this very place as far as its clear octets tell.
    pub fn plausible(&self) -> bool {
        !self.has(Fact::Own) && self.has(Fact::Fitting) && self.has(Fact::DigestMatches)
    }

    /// Does Hockeypuck keep it, given that it keeps what it stands on?
    pub fn is_normal(&self) -> bool {
        self.has(Fact::NormalOwn) || self.has(Fact::NormalOther)
    }

    /// The stored form of the facts.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Takes back what [`Facts::bits`] gave.
    pub fn from_bits(bits: u32) -> Self {
        Self {
            bits,
            ..Self::default()
        }
    }

    /// Facts of the same packet in the same place that arrived in two copies.
    pub fn join(&self, other: &Self) -> Self {
        let unverified = Fact::Unverified as u32;
        Self {
            bits: (self.bits | other.bits) & !unverified | self.bits & other.bits & unverified,
            ..*self
        }
    }
}
