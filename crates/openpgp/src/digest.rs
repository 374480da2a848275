//! The digests by which peers know a certificate: one over all of its packets, or one for each self-signature.

use crate::cert::{Cert, Component};
use crate::crypto::digest;
use crate::facts::Fact;
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
        let mut hashes = Vec::new();
        let mut subject = None;
        for component in &self.components {
            for signature in component
                .signatures
                .iter()
                .filter(|signature| signature.facts.has(Fact::Enumerable))
            {
                let subject = subject.get_or_insert_with(|| self.key().fingerprint());
                let octets = subject.as_bytes().last_chunk::<16>();
                let octets = octets.expect("a fingerprint has 16 octets or more");
                hashes.extend(annotated_hash(component, &signature.body, octets));
            }
        }
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }
}

fn annotated_hash(component: &Component, body: &[u8], subject: &[u8; 16]) -> Option<AnnotatedHash> {
    let signature = Signature::read(body)?;
    let (head, none, tail) = signature.without_unhashed(body);
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
