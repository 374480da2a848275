//! Signature checks against certificates and signatures made by other implementations.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, reason = "what tests share is compiled into each")]

#[path = "support/walker.rs"]
mod walker;

use std::path::PathBuf;

use keyrink_openpgp::crypto::digest::{self, Hasher};
use keyrink_openpgp::crypto::{Check, KeyUnusable, Verifier};
use proptest::prelude::*;
use walker::Signature;

/// For each certificate what its signatures are found to be, in order: `v` valid, `-` invalid (among them those of
/// third parties), or why the key is of no use: `u` unsupported, `m` malformed.
const EXPECTED: &[(&str, &str)] = &[
    ("primary/dsa-1024", "v-v"),
    ("primary/dsa-2048", "v"),
    ("primary/dsa-q-165", "v"),
    ("primary/dsa-sig-padded", "v"),
    ("primary/ecdsa-bp256", "v-v"),
    ("primary/ecdsa-bp384", "v-v"),
    ("primary/ecdsa-bp512", "v-v"),
    ("primary/ecdsa-brainpool-off-curve", "m"),
    ("primary/ecdsa-ed25519-oid", "u"),
    ("primary/ecdsa-k256", "v-v"),
    ("primary/ecdsa-off-curve", "m"),
    ("primary/ecdsa-p256", "v-v"),
    ("primary/ecdsa-p384", "v-v"),
    ("primary/ecdsa-p521", "v-v"),
    ("primary/ecdsa-sig-padded", "v"),
    ("primary/ed25519-27", "v-v"),
    ("primary/eddsa-p256-oid", "u"),
    ("primary/eddsa-prefix-04", "m"),
    ("primary/eddsa-sig-padded", "v-"),
    ("primary/elgamal-20-primary", "u"),
    ("primary/elgamal-primary", "u"),
    ("primary/rsa-1023", "v-v"),
    ("primary/rsa-1024", "v-v"),
    ("primary/rsa-2048", "v-v"),
    ("primary/rsa-512", "v-v"),
    ("primary/rsa-algo-1-sig-3", "v-"),
    ("primary/rsa-algo-2", "u"),
    ("primary/rsa-algo-3-sig-1", "-"),
    ("primary/rsa-algo-3", "v-v"),
    ("primary/rsa-e-1", "m"),
    ("primary/rsa-e-24-bit", "v-v"),
    ("primary/rsa-e-3", "v-v"),
    ("primary/rsa-e-32-bit", "v-v"),
    ("primary/rsa-e-even", "m"),
    ("primary/rsa-e-huge", "v-v"),
    ("primary/rsa-e-padded", "v"),
    ("primary/rsa-n-bitcount", "vv"),
    ("primary/rsa-n-padded", "vv"),
    ("primary/rsa-sig-padded", "v-"),
    ("primary/rsa-sig-short", "v"),
    ("primary/truncated-material", "m"),
    ("primary/unknown-algo", "u"),
    ("primary/unknown-curve", "u"),
    ("primary/v2-rfc", "v-"),
    ("primary/v3-rfc", "v-"),
    ("primary/v4-mldsa65", "v"),
    ("primary/v6-cv25519-legacy-subkey", "vv"),
    ("primary/v6-mldsa65", "v"),
    ("primary/v6-rsa-v3-sig", "vv"),
    ("primary/v6-sha384-sha3", "vvvvv"),
    ("selfsig/direct-bad", "-v"),
    ("selfsig/uid-bad-signature", "v--"),
    ("selfsig/v3-md5-on-v4-uid", "v"),
    ("selfsig/v3-on-v4-uid", "v"),
    ("selfsig/v3-ripemd-on-v4-uid", "vv"),
    ("subkey/bad-binding", "v-"),
    ("subkey/bound", "vv"),
    ("revocation/hard-alone", "v"),
    ("revocation/v3-on-v4", "vv-v-v-"),
];

#[cfg(feature = "rare-algorithms")]
const EXPECTED_RARE: &[(&str, &str)] = &[
    ("primary/ed448-28", "v-v"),
    ("primary/ed448-legacy", "v-v"),
    // Made with the internal function of FIPS 205, without the octets that stand for an empty context.
    ("primary/slhdsa-newest-first", "--"),
];
#[cfg(not(feature = "rare-algorithms"))]
const EXPECTED_RARE: &[(&str, &str)] = &[
    ("primary/ed448-28", "uuu"),
    ("primary/ed448-legacy", "uuu"),
    ("primary/slhdsa-newest-first", "uu"),
];

#[test]
fn certificates_are_judged_as_expected() {
    for (name, expected) in EXPECTED.iter().chain(EXPECTED_RARE) {
        assert_eq!(findings(name), *expected, "{name}");
    }
}

#[test]
fn a_compressed_point_verifies_if_it_is_the_right_one() {
    let mut signature = certificate("primary/ecdsa-compressed").remove(0);
    assert_eq!(finding(&signature), '-');
    let form = &mut signature.key_material[11];
    assert_eq!(*form, 2);
    *form = 3;
    assert_eq!(finding(&signature), 'v');
}

#[test]
fn known_answers() {
    for (hash_id, hash) in RSA_HASHES {
        assert_eq!(
            finding(&known_answer(1, *hash_id, "1-rsa-2048", &format!("1-rsa-2048.{hash}"))),
            'v',
            "{hash}"
        );
        let other_hash = if *hash_id == 8 { 12 } else { 8 };
        let confused = known_answer(1, other_hash, "1-rsa-2048", &format!("1-rsa-2048.{hash}"));
        assert_eq!(finding(&confused), '-', "{hash}");
    }
    assert_eq!(finding(&known_answer(1, 8, "1-rsa-4096", "1-rsa-4096.sha256")), 'v');
    let rare = if cfg!(feature = "rare-algorithms") { 'v' } else { 'u' };
    for (algorithm, name) in [
        (31, "31-ml-dsa-87-ed448"),
        (32, "32-slh-dsa-shake-128s"),
        (33, "33-slh-dsa-shake-128f"),
        (34, "34-slh-dsa-shake-256s"),
    ] {
        assert_eq!(finding(&known_answer(algorithm, 8, name, name)), rare, "{name}");
    }
}

#[test]
fn colliding_messages_get_different_fingerprints() {
    let messages = [read("collisions/sha-mbles-1.bin"), read("collisions/sha-mbles-2.bin")];
    let plain = messages.each_ref().map(|message| {
        let mut hasher = Hasher::new(2).unwrap();
        hasher.update(message);
        hasher.finish().as_bytes().to_vec()
    });
    assert_eq!(plain[0], plain[1]);
    let checked = messages.each_ref().map(|message| digest::sha1(&[message]));
    assert_ne!(checked[0], checked[1]);
    assert!(!checked.iter().any(|digest| digest[..] == plain[0]));
}

#[test]
fn tails_are_ignored_and_missing_octets_are_not() {
    for mut signature in good_signatures() {
        let (material, value) = (signature.key_material.clone(), signature.value.clone());
        signature.key_material.extend([0xaa; 9]);
        signature.value.extend([0xaa; 9]);
        assert_eq!(finding(&signature), 'v');
        signature.value = value;
        let shown = material.len().min(100);
        for length in (0..shown).chain([material.len() - 1]) {
            signature.key_material.truncate(0);
            signature.key_material.extend(&material[..length]);
            assert_ne!(
                finding(&signature),
                'v',
                "algorithm {} with {length} octets",
                signature.algorithm
            );
        }
    }
}

#[test]
fn a_changed_digest_or_value_is_invalid() {
    for mut signature in good_signatures() {
        let middle = signature.value.len() / 2 + 4;
        signature.value[middle] ^= 1;
        assert_eq!(finding(&signature), '-', "algorithm {}", signature.algorithm);
        signature.value[middle] ^= 1;
        signature.digest[3] ^= 1;
        assert_eq!(finding(&signature), '-', "algorithm {}", signature.algorithm);
        signature.digest[3] ^= 1;
        signature.value.clear();
        assert_eq!(finding(&signature), '-', "algorithm {}", signature.algorithm);
    }
}

#[test]
fn keys_that_would_take_too_long_are_unsupported() {
    let rsa = |modulus_bits, exponent_bits| unusable(1, &[integer(modulus_bits), integer(exponent_bits)].concat());
    assert_eq!(rsa(16_384, 128), None);
    assert_eq!(rsa(16_384, 129), Some(KeyUnusable::Unsupported));
    assert_eq!(rsa(16_385, 17), Some(KeyUnusable::Unsupported));
    assert_eq!(rsa(65_535, 65_535), Some(KeyUnusable::Unsupported));
    assert_eq!(rsa(4_096, 2_048), None);
    assert_eq!(rsa(4_096, 2_049), Some(KeyUnusable::Unsupported));
    assert_eq!(rsa(512, 17), None);
    assert_eq!(rsa(511, 17), Some(KeyUnusable::Unsupported));
    let dsa = |modulus_bits, order_bits| {
        unusable(
            17,
            &[integer(modulus_bits), integer(order_bits), integer(9), integer(10)].concat(),
        )
    };
    assert_eq!(dsa(3_072, 256), None);
    assert_eq!(dsa(8_192, 256), None);
    assert_eq!(dsa(8_192, 257), Some(KeyUnusable::Unsupported));
    assert_eq!(dsa(1_024, 512), None);
    assert_eq!(dsa(1_024, 513), Some(KeyUnusable::Unsupported));
    assert_eq!(dsa(256, 300), Some(KeyUnusable::Malformed));
}

proptest! {
    #[test]
    fn garbage_never_panics(
        algorithm in 0_u8..40,
        hash_id in 0_u8..16,
        curve in 0_usize..CURVES.len() + 1,
        material in proptest::collection::vec(any::<u8>(), 0..300),
        digest in proptest::collection::vec(any::<u8>(), 0..80),
        value in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let material = [CURVES.get(curve).copied().unwrap_or_default(), &material].concat();
        if let Ok(verifier) = Verifier::new(algorithm, &material) {
            prop_assert_ne!(verifier.verify(algorithm, hash_id, &digest, &value), Check::Valid);
        }
    }

    #[test]
    fn damaged_keys_and_signatures_never_panic(
        which in any::<prop::sample::Index>(),
        damages in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..4),
        kept in 0_usize..6_000,
    ) {
        let mut all = good_signatures();
        let signature = which.get_mut(&mut all);
        for (place, octet, in_key) in damages {
            let octets = if in_key { &mut signature.key_material } else { &mut signature.value };
            let place = place.index(octets.len());
            octets[place] = octet;
        }
        signature.value.truncate(kept);
        finding(signature);
    }
}

/// A good signature of each kind of key.
fn good_signatures() -> Vec<Signature> {
    let names = [
        "dsa-1024",
        "dsa-q-165",
        "ecdsa-p256",
        "ecdsa-bp512",
        "ecdsa-k256",
        "ed25519-27",
        "rsa-1023",
    ];
    let more = ["rsa-2048", "v6-mldsa65", "v4-mldsa65", "v6-eddsa-legacy"];
    let rare = if cfg!(feature = "rare-algorithms") {
        &["ed448-28", "ed448-legacy"][..]
    } else {
        &[]
    };
    let certificates = names.iter().chain(&more).chain(rare);
    certificates
        .map(|name| certificate(&format!("primary/{name}")).remove(0))
        .collect()
}

/// Curve identifiers with their length, so that random points reach the curve arithmetic.
const CURVES: &[&[u8]] = &[
    b"\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x01\x07\x02",
    b"\x09\x2b\x24\x03\x03\x02\x08\x01\x01\x0d\x02\x03\x03",
    b"\x09\x2b\x06\x01\x04\x01\xda\x47\x0f\x01\x01\x07\x40",
    b"\x03\x2b\x65\x71\x01\xcf\x40",
];

const RSA_HASHES: &[(u8, &str)] = &[
    (2, "sha1"),
    (8, "sha256"),
    (9, "sha384"),
    (10, "sha512"),
    (11, "sha224"),
    (12, "sha3-256"),
    (14, "sha3-512"),
];

fn findings(name: &str) -> String {
    certificate(name).iter().map(finding).collect()
}

fn finding(signature: &Signature) -> char {
    match signature.verifier().map(|verifier| signature.check(&verifier)) {
        Ok(Check::Valid) => 'v',
        Ok(Check::Invalid) => '-',
        Ok(Check::Unsupported) => '?',
        Err(KeyUnusable::Unsupported) => 'u',
        Err(KeyUnusable::Malformed) => 'm',
    }
}

fn unusable(algorithm: u8, material: &[u8]) -> Option<KeyUnusable> {
    Verifier::new(algorithm, material).err()
}

/// An odd integer of that many bits as OpenPGP writes it.
fn integer(bits: u16) -> Vec<u8> {
    let mut octets = vec![0xa5; usize::from(bits).div_ceil(8)];
    octets[0] = (octets[0] | 0x80) >> (7 - (bits - 1) % 8);
    [&bits.to_be_bytes()[..], &octets].concat()
}

fn certificate(name: &str) -> Vec<Signature> {
    walker::signatures(&read(&format!("datasets/{name}.pgp")))
}

fn known_answer(algorithm: u8, hash_id: u8, key: &str, signature: &str) -> Signature {
    let mut hasher = Hasher::new(hash_id).expect("a known hash");
    hasher.update(b"digest");
    Signature {
        algorithm,
        hash_id,
        digest: hasher.finish().as_bytes().to_vec(),
        value: read(&format!("signatures/{signature}.sig")),
        key_algorithm: algorithm,
        key_material: read(&format!("signatures/{key}.key")),
    }
}

fn read(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata")
        .join(name);
    std::fs::read(path).expect("the file of test data")
}
