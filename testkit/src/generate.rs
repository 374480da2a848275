//! Small certificates by the thousand: a pure function of a seed and an index, made on all cores.

use std::io::{self, Write};
use std::num::NonZero;
use std::ops::Range;
use std::thread;

use aws_lc_rs::digest::{self, SHA256};

use crate::certificate::Certificate;
use crate::key::{Algorithm, Key};
use crate::signature::{Kind, Signature};

/// Certificate number `index` of `seed`: version 4, about 700 octets, Ed25519 and Curve25519, one user id
/// `Name N <userN@example.org>` and one encryption subkey, each with one valid self-signature.
///
/// The signatures hold what current programs write: preferences, a keyserver, a policy, a proof of identity, salts.
pub fn certificate(seed: u64, index: u64) -> Certificate {
    let primary = Key::primary(seed, &index.to_string());
    let subkey = primary.subkey("encrypt", Algorithm::EcdhLegacy);
    let certification = Signature::new(Kind::PositiveCertification)
        .key_flags(0x03)
        .hashed(11, &[9, 8, 7, 2])
        .hashed(21, &[10, 9, 8])
        .hashed(22, &[2, 3, 1])
        .hashed(23, &[0x80])
        .hashed(24, b"hkps://keys.example.org")
        .hashed(26, format!("https://example.org/policy/{index}").as_bytes())
        .hashed(30, &[1])
        .hashed(
            20,
            &notation(
                TEXT,
                "proof@ariadne.id",
                format!("https://social.example.org/@user{index}").as_bytes(),
            ),
        );
    let binding = Signature::new(Kind::SubkeyBinding).key_flags(0x0C);
    Certificate::new(primary)
        .user_id_with(user_id(index), certification.hashed(20, &salt(seed, index, "user id")))
        .subkey_with(subkey, binding.hashed(20, &salt(seed, index, "subkey")))
}

/// The user id of certificate number `index`.
pub fn user_id(index: u64) -> String {
    format!("Name {index} <{}>", address(index))
}

/// The mail address of certificate number `index`.
pub fn address(index: u64) -> String {
    format!("user{index}@example.org")
}

/// Writes the public packets of certificates `indices` of `seed` one after another, in order.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl Write, seed: u64, indices: Range<u64>) -> io::Result<()> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let mut start = indices.start;
    while start < indices.end {
        let end = indices.end.min(start + threads * PER_THREAD);
        let share = (end - start).div_ceil(threads).max(1);
        let parts = thread::scope(|scope| {
            let ranges = (start..end)
                .step_by(share as usize)
                .map(|first| first..end.min(first + share));
            let workers: Vec<_> = ranges.map(|range| scope.spawn(move || bytes(seed, range))).collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_default())
                .collect::<Vec<_>>()
        });
        for part in parts {
            out.write_all(&part)?;
        }
        start = end;
    }
    Ok(())
}

/// Certificates that one thread makes before the results are written: 6 MB.
const PER_THREAD: u64 = 8192;

/// Notation flags: the value is text.
const TEXT: [u8; 4] = [0x80, 0, 0, 0];

fn bytes(seed: u64, indices: Range<u64>) -> Vec<u8> {
    let mut out = Vec::with_capacity((indices.end - indices.start) as usize * 768);
    for index in indices {
        out.extend_from_slice(&certificate(seed, index).to_bytes());
    }
    out
}

/// 32 octets that nobody can guess, as Sequoia writes.
fn salt(seed: u64, index: u64, place: &str) -> Vec<u8> {
    let salt = digest::digest(&SHA256, format!("salt {seed} {index} {place}").as_bytes());
    notation([0; 4], "salt@notations.sequoia-pgp.org", salt.as_ref())
}

/// The body of a notation subpacket (RFC 9580 section 5.2.3.24).
fn notation(flags: [u8; 4], name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = flags.to_vec();
    out.extend_from_slice(&(name.len() as u16).to_be_bytes());
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(value);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parallel_output_is_in_order() {
        let mut written = Vec::new();
        write(&mut written, 7, 3..20).unwrap();
        let expected: Vec<u8> = (3..20).flat_map(|index| certificate(7, index).to_bytes()).collect();
        assert!(written == expected);
    }

    #[test]
    fn size_is_near_700_octets() {
        let size = certificate(1, 49_999).to_bytes().len();
        assert!((660..=740).contains(&size), "{size}");
    }
}
