//! Trust packets as Hockeypuck writes them behind signatures, to tell its peers more about them (HIP 013).
//!
//! Two octets, the name of an application, a context, and subpackets like those of signatures. Those of the application
//! `SKS` are part of the digest, up to the end of their first subpacket; `sks` and `hkp` are not.

use super::signature::{is_notation, read, subpacket};

/// Does it read the body of a trust packet?
pub(crate) fn is_read(body: &[u8]) -> bool {
    let notations_min = match body.get(2..5) {
        Some(LOUD) => 2,
        Some(b"sks" | b"hkp") => 1,
        _ => return false,
    };
    let Some(mut area) = body.get(HEAD_OCTETS..) else {
        return false;
    };
    let mut notations = 0;
    while !area.is_empty() {
        let Some((&[head, ref body @ ..], rest)) = subpacket(area).filter(|(found, _)| found.len() > 1) else {
            return false;
        };
        area = rest;
        let sound = match head & 0x7F {
            NOTATION => is_notation(body),
            EMBEDDED => read(body).is_ok(),
            _ => head & 0x80 == 0,
        };
        notations += u32::from(head & 0x7F == NOTATION);
        if !sound {
            return false;
        }
    }
    notations >= notations_min
}

/// The part of a trust packet that the digest covers, if it covers any.
pub(crate) fn digested(body: &[u8]) -> Option<&[u8]> {
    let (_, rest) = subpacket(body.get(HEAD_OCTETS..)?)?;
    (body.get(2..5)? == LOUD).then(|| &body[..body.len() - rest.len()])
}

/// The application whose packets are heard by all peers.
const LOUD: &[u8] = b"SKS";
/// Octets before the first subpacket.
const HEAD_OCTETS: usize = 6;
const NOTATION: u8 = 20;
const EMBEDDED: u8 = 32;
