//! The digests by which peers know a certificate: one over all of its packets, or one for each self-signature.

use crate::cert::{Attached, Cert, Component};
use crate::crypto::digest;
use crate::facts::Fact;
use crate::packet::key::Fingerprint;
use crate::packet::signature::{Signature, kind};
use crate::packet::tag;

/// 16 octets that stand for a certificate in v1 datasets; in reconciliation they become an element.
pub type SksDigest = [u8; 16];

/// MD5 over type, length (four octets each, big-endian) and body of every packet, in order of type and body.
/// A packet given twice counts twice.
pub fn sks_digest<'a>(packets: impl IntoIterator<Item = (u8, &'a [u8])>) -> SksDigest {
    let mut packets: Vec<_> = packets.into_iter().collect();
    packets.sort_unstable();
    let mut heads = Vec::with_capacity(packets.len());
    heads.extend(packets.iter().map(|(tag, body)| {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
        [0, 0, 0, *tag, length[0], length[1], length[2], length[3]]
    }));
    let parts: Vec<&[u8]> = heads
        .iter()
        .zip(&packets)
        .flat_map(|(head, (_, body))| [&head[..], body])
        .collect();
    digest::md5(&parts)
}

/// 32 octets that stand for one self-signature of one certificate in the second generation of reconciliation.
pub type AnnotatedHash = [u8; 32];

impl Cert {
    /// The annotated hashes of its enumerable signatures, sorted and each once.
    ///
    /// In bits: the version of the signature (2), what it is about (2), 124 bits of an MD5 over its body without the unhashed
    /// area, and the last 128 bits of the primary key's fingerprint.
    pub fn annotated_hashes(&self) -> Vec<AnnotatedHash> {
        let mut subject = None;
        let all = self.components.iter().flat_map(|component| {
            let signatures = component.signatures.iter();
            signatures.map(move |signature| (component, signature))
        });
        let enumerable = all.filter(|(_, signature)| signature.facts.has(Fact::Enumerable));
        let hashes = enumerable.filter_map(|(component, signature)| {
            let subject = subject.get_or_insert_with(|| self.key().fingerprint());
            annotated_hash(component, signature, subject)
        });
        let mut hashes: Vec<_> = hashes.collect();
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }
}

/// The annotated hash of a signature on a component of the certificate with this fingerprint, if it is enumerable.
pub(crate) fn annotated_hash(
    component: &Component,
    attached: &Attached,
    subject: &Fingerprint,
) -> Option<AnnotatedHash> {
    let signature = Signature::read(&attached.body).filter(|_| attached.facts.has(Fact::Enumerable))?;
    let subject = subject.as_bytes().last_chunk::<16>()?;
    let (head, none, tail) = signature.without_unhashed(&attached.body);
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(&digest::md5(&[head, none, tail]));
    hash[0] = signature.version << 6 | context(component.tag, signature.kind) << 4 | hash[0] & 0x0F;
    hash[16..].copy_from_slice(subject);
    Some(hash)
}

/// What an enumerable signature of this type is about.
fn context(component: u8, kind: u8) -> u8 {
    match component {
        _ if matches!(kind, kind::DIRECT_KEY | kind::KEY_REVOCATION) => 0,
        tag::PUBLIC_KEY => 0,
        tag::PUBLIC_SUBKEY => 1,
        tag::USER_ID => 2,
        _ => 3,
    }
}
