//! The hash algorithms of OpenPGP (RFC 9580 §9.5) and one-shot digests for fingerprints and elements.

use sha1_checked::Digest as _;

use super::aws_lc::{HashFunction, HashState};

/// A digest being made. Cloning it reuses what was hashed so far, such as the primary key that every self-signature
/// of a certificate covers first.
#[derive(Clone)]
pub struct Hasher(HashState);

impl Hasher {
    /// Starts a digest with an OpenPGP hash algorithm id: 1 MD5, 2 SHA-1, 3 RIPEMD-160, 8 to 11 SHA2-256, -384, -512
    /// and -224, 12 SHA3-256, 14 SHA3-512. None for any other id.
    ///
    /// SHA-1 is plain here: a signature over a colliding message is as valid for us as for our peers.
    pub fn new(hash_id: u8) -> Option<Self> {
        let function = match hash_id {
            1 => HashFunction::Md5,
            2 => HashFunction::Sha1,
            3 => HashFunction::Ripemd160,
            8 => HashFunction::Sha256,
            9 => HashFunction::Sha384,
            10 => HashFunction::Sha512,
            11 => HashFunction::Sha224,
            12 => HashFunction::Sha3_256,
            14 => HashFunction::Sha3_512,
            _ => return None,
        };
        Some(Self(HashState::new(function)))
    }

    /// Hashes more octets.
    pub fn update(&mut self, octets: &[u8]) {
        self.0.update(octets);
    }

    /// The digest of all octets hashed.
    pub fn finish(self) -> Digest {
        let mut octets = [0; DIGEST_OCTETS_MAX];
        let length = self.0.finish(&mut octets);
        Digest { octets, length }
    }
}

/// A finished digest of 16 to 64 octets.
#[derive(Clone, Copy)]
pub struct Digest {
    octets: [u8; DIGEST_OCTETS_MAX],
    length: usize,
}

impl Digest {
    /// The octets of the digest.
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets[..self.length]
    }
}

/// MD5 of the parts in order: version 3 fingerprints and the elements of SKS.
pub fn md5(parts: &[&[u8]]) -> [u8; 16] {
    digest_of(HashFunction::Md5, parts)
}

/// SHA-1 of the parts in order, for fingerprints, with collision detection.
///
/// Octets that carry the marks of a collision attack get another digest than plain SHA-1 would give them (the *safe
/// hash* of Stevens and Shumow, as Sequoia and Git use it), so two keys made to share a fingerprint do not share one
/// here. All other octets get their SHA-1.
pub fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut hasher = sha1_checked::Sha1::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// SHA2-256 of the parts in order: version 5 and 6 fingerprints.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    digest_of(HashFunction::Sha256, parts)
}

/// `N` must be the digest length of the function.
fn digest_of<const N: usize>(function: HashFunction, parts: &[&[u8]]) -> [u8; N] {
    let mut state = HashState::new(function);
    for part in parts {
        state.update(part);
    }
    let mut octets = [0; DIGEST_OCTETS_MAX];
    state.finish(&mut octets);
    std::array::from_fn(|index| octets[index])
}

/// Octets of the longest digest, SHA2-512 and SHA3-512.
pub(super) const DIGEST_OCTETS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(octets: &[u8]) -> String {
        octets.iter().map(|octet| format!("{octet:02x}")).collect()
    }

    fn digest(hash_id: u8, octets: &[u8]) -> String {
        let mut hasher = Hasher::new(hash_id).unwrap();
        hasher.update(octets);
        hex(hasher.finish().as_bytes())
    }

    #[test]
    fn known_answers_for_abc() {
        let answers = [
            (1, "900150983cd24fb0d6963f7d28e17f72"),
            (2, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (3, "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc"),
            (8, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (11, "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
            (12, "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"),
        ];
        for (hash_id, answer) in answers {
            assert_eq!(digest(hash_id, b"abc"), answer, "hash {hash_id}");
        }
        assert!(digest(9, b"abc").starts_with("cb00753f45a35e8bb5a03d699ac65007272c32ab0eded163"));
        assert!(digest(10, b"abc").starts_with("ddaf35a193617abacc417349ae20413112e6fa4e89a97ea2"));
        assert!(digest(14, b"abc").starts_with("b751850b1a57168a5693cd924b6b096e08f621827444f70d"));
        assert_eq!(hex(&md5(&[b"a", b"", b"bc"])), answers[0].1);
        assert_eq!(hex(&sha1(&[b"ab", b"c"])), answers[1].1);
        assert_eq!(hex(&sha256(&[b"abc"])), answers[3].1);
    }

    #[test]
    fn other_ids_are_unknown() {
        let known = [1, 2, 3, 8, 9, 10, 11, 12, 14];
        for hash_id in 0..=255 {
            assert_eq!(
                Hasher::new(hash_id).is_some(),
                known.contains(&hash_id),
                "hash {hash_id}"
            );
        }
    }

    #[test]
    fn a_clone_continues_on_its_own() {
        let mut prefix = Hasher::new(8).unwrap();
        prefix.update(b"ab");
        let mut one = prefix.clone();
        one.update(b"c");
        assert_eq!(hex(one.finish().as_bytes()), digest(8, b"abc"));
        assert_eq!(hex(prefix.finish().as_bytes()), digest(8, b"ab"));
    }
}
