//! The digest by which SKS v1 peers know a certificate: MD5 over its packets, sorted.

use crate::crypto::digest;

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
