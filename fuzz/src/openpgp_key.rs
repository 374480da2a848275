//! Key packets: the core of a key is a key of its own, with the same identity.

use keyrink_openpgp::crypto::Verifier;
use keyrink_openpgp::packet::key::Key;

/// Takes the body of a key packet.
pub fn run(input: &[u8]) {
    let Ok(key) = Key::read(input) else { return };
    assert!(!key.canonical || *key.core == *input);
    let core = Key::read(&key.core).expect("the core of a key is a key");
    assert!(core.canonical || key.version >= 5, "{core:?}");
    assert_eq!((core.fingerprint(), core.key_id()), (key.fingerprint(), key.key_id()));
    assert_eq!(
        (core.version, core.algorithm, core.created),
        (key.version, key.algorithm, key.created)
    );
    assert_eq!(core.material, key.material);
    let _ = key.framed();
    let _ = key.bits();
    // Making ready for verification reads the material.
    let _ = Verifier::new(key.algorithm, key.material);
}

#[cfg(test)]
mod tests {
    #[test]
    fn keys_survive_anything() {
        crate::mutation::run(&crate::certificates::bodies(&[5, 6, 7, 14]), super::run);
    }
}
