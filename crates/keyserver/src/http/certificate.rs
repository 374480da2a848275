//! A stored certificate as answers show it: components in the order for reading, each with its signatures.
//!
//! Everything comes from the stored form; no signature is looked into.

use keyrink_openpgp::packet::tag;
use keyrink_openpgp::project::Projection;
use keyrink_openpgp::status::Status;
use keyrink_openpgp::stored::{ComponentEntry, Damaged, Entries, Entry, KeyEntry, SignatureEntry};

/// What users are shown of a certificate.
#[derive(Clone, Debug)]
pub(super) struct Certificate<'a> {
    /// The primary key.
    pub key: KeyEntry,
    /// The primary key's component.
    pub primary: Component<'a>,
    rest: Vec<Component<'a>>,
}

/// A component with those of its signatures that users are shown.
#[derive(Clone, Debug)]
pub(super) struct Component<'a> {
    /// Type, body and validity.
    pub entry: ComponentEntry<'a>,
    /// The owner's first, then by age; empty if they were not asked for.
    pub signatures: Vec<SignatureEntry<'a>>,
}

/// Can a component be used?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Taken back by its owner.
    Revoked,
    /// Its time has passed.
    Expired,
    /// Nothing speaks against it.
    Good,
}

impl<'a> Certificate<'a> {
    /// Reads a stored certificate, with its signatures or without; `None` if users are shown nothing of it.
    pub(super) fn read(record: &'a [u8], signatures: bool) -> Result<Option<Self>, Damaged> {
        let mut components: Vec<Component<'a>> = Vec::new();
        for entry in Entries::new(record)? {
            let entry = entry?;
            if !entry.is_seen(Projection::Served) {
                continue;
            }
            match entry {
                Entry::Component(entry) => components.push(Component {
                    entry,
                    signatures: Vec::new(),
                }),
                Entry::Signature(_) if !signatures => {}
                Entry::Signature(signature) => {
                    components.last_mut().ok_or(Damaged)?.signatures.push(signature);
                }
            }
        }
        if components.is_empty() {
            return Ok(None);
        }
        let primary = components.remove(0);
        let key = primary.entry.key.ok_or(Damaged)?;
        // People look at the first one: it must not be one that its owner took back.
        components.sort_by_key(|component| {
            let status = &component.entry.status;
            (status.revoked.is_some(), !status.main)
        });
        Ok(Some(Self {
            key,
            primary,
            rest: components,
        }))
    }

    /// Its user ids, the main one first and revoked ones last.
    pub(super) fn user_ids(&self) -> impl Iterator<Item = &Component<'a>> {
        self.rest.iter().filter(|component| component.entry.tag == tag::USER_ID)
    }

    /// Its subkeys, revoked ones last.
    pub(super) fn subkeys(&self) -> impl Iterator<Item = (KeyEntry, &Component<'a>)> {
        self.rest
            .iter()
            .filter_map(|component| Some((component.entry.key?, component)))
    }
}

impl Component<'_> {
    /// Can it be used at `now` (seconds since 1970)? A revocation counts whatever its time.
    pub(super) fn standing(&self, now: u64) -> Standing {
        Standing::of(&self.entry.status, now)
    }
}

impl Standing {
    fn of(status: &Status, now: u64) -> Self {
        match status.revoked {
            Some(_) => Self::Revoked,
            None if status.is_expired(now) => Self::Expired,
            None => Self::Good,
        }
    }
}

/// The version of a stored certificate's primary key, from its first octets; `None` if users are shown nothing of it.
pub(super) fn version_shown(record: &[u8]) -> Result<Option<u8>, Damaged> {
    let primary = Entries::new(record)?.next().ok_or(Damaged)??;
    match &primary {
        Entry::Component(ComponentEntry { key: Some(key), .. }) => {
            Ok(primary.is_seen(Projection::Served).then(|| key.fingerprint.version()))
        }
        _ => Err(Damaged),
    }
}

/// The name of a public-key algorithm (RFC 9580 §9.1; from 30 on draft-ietf-openpgp-pqc).
pub(super) fn algorithm_name(algorithm: u8) -> Option<&'static str> {
    Some(match algorithm {
        1..=3 => "RSA",
        16 | 20 => "Elgamal",
        17 => "DSA",
        18 => "ECDH",
        19 => "ECDSA",
        22 => "EdDSA",
        25 => "X25519",
        26 => "X448",
        27 => "Ed25519",
        28 => "Ed448",
        30 => "ML-DSA-65+Ed25519",
        31 => "ML-DSA-87+Ed448",
        32 => "SLH-DSA-SHAKE-128s",
        33 => "SLH-DSA-SHAKE-128f",
        34 => "SLH-DSA-SHAKE-256s",
        35 => "ML-KEM-768+X25519",
        36 => "ML-KEM-1024+X448",
        _ => return None,
    })
}
