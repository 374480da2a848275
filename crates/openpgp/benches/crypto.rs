//! How long digests and signature checks take: `cargo bench -p keyrink-openpgp --bench crypto`.
//!
//! Prints the fastest of many short runs, which a busy machine disturbs least.

#[path = "../tests/support/walker.rs"]
mod walker;

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use keyrink_openpgp::crypto::digest::{self, Hasher};
use keyrink_openpgp::crypto::{Check, Verifier};

fn main() {
    println!("{:44} {:>12} {:>12}", "one core", "µs", "per second");
    rsa_4096();
    for name in CERTIFICATES {
        certificate(name);
    }
    dearest();
    for octets in [60, 540, 32_000] {
        hashes(&vec![0x5a; octets]);
    }
}

fn rsa_4096() {
    let (key, value) = (
        read("signatures/1-rsa-4096.key"),
        read("signatures/1-rsa-4096.sha256.sig"),
    );
    let digest = digest::sha256(&[b"digest"]);
    let verifier = Verifier::new(1, &key).expect("a good key");
    report("rsa-4096 check", || {
        assert_eq!(verifier.verify(1, 8, &digest, &value), Check::Valid)
    });
    report("rsa-4096 read", || drop(black_box(Verifier::new(1, &key))));
}

/// The first signature of a certificate.
fn certificate(name: &str) {
    let signature = walker::signatures(&read(&format!("datasets/primary/{name}.pgp"))).remove(0);
    let Ok(verifier) = signature.verifier() else {
        return;
    };
    report(&format!("{name} check"), || {
        assert_eq!(signature.check(&verifier), Check::Valid)
    });
    report(&format!("{name} read"), || drop(black_box(signature.verifier())));
}

/// Keys at the limits of what is checked at all, with numbers that mean nothing.
fn dearest() {
    for (name, algorithm, bits) in [
        ("rsa-16384, e of 128 bits", 1, &[16_384, 128][..]),
        ("rsa-4096, e of 2048 bits", 1, &[4_096, 2_048]),
        ("dsa-16384, q of 64 bits", 17, &[16_384, 64, 16_000, 16_000]),
        ("dsa-5700, q of 512 bits", 17, &[5_700, 512, 5_000, 5_000]),
    ] {
        let material: Vec<u8> = bits.iter().flat_map(|bits| integer(*bits)).collect();
        let verifier = Verifier::new(algorithm, &material).expect("within the limits");
        let value = [integer(60), integer(2)].concat();
        report(name, || {
            black_box(verifier.verify(algorithm, 8, &[7; 32], &value));
        });
    }
}

fn integer(bits: u16) -> Vec<u8> {
    let mut octets = vec![0xa5; usize::from(bits).div_ceil(8)];
    octets[0] = (octets[0] | 0x80) >> (7 - (bits - 1) % 8);
    [&bits.to_be_bytes()[..], &octets].concat()
}

fn hashes(octets: &[u8]) {
    let length = octets.len();
    report(&format!("md5 of {length}"), || {
        black_box(digest::md5(&[octets]));
    });
    report(&format!("sha1 with collision detection of {length}"), || {
        black_box(digest::sha1(&[octets]));
    });
    for (hash_id, name) in [(2, "sha1"), (8, "sha256"), (10, "sha512")] {
        let started = Hasher::new(hash_id).expect("a known hash");
        report(&format!("{name} of {length}, from a clone"), || {
            let mut hasher = started.clone();
            hasher.update(octets);
            black_box(hasher.finish());
        });
    }
}

fn report(name: &str, mut operation: impl FnMut()) {
    let mut slice = |operations: u32| {
        let started = Instant::now();
        for _ in 0..operations {
            operation();
        }
        started.elapsed() / operations
    };
    let mut fastest = slice(1).min(slice(1));
    let operations = SLICE.as_nanos().div_ceil(fastest.as_nanos().max(1)) as u32;
    let started = Instant::now();
    for run in 0.. {
        if run >= SLICES_MIN && started.elapsed() > REPORT_TIME {
            break;
        }
        fastest = fastest.min(slice(operations));
    }
    let seconds = fastest.as_secs_f64();
    println!("{name:44} {:12.3} {:12.0}", 1e6 * seconds, 1.0 / seconds);
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../testdata")
            .join(name),
    )
    .expect("test data")
}

const SLICE: Duration = Duration::from_micros(300);
const SLICES_MIN: u32 = 30;
const REPORT_TIME: Duration = Duration::from_millis(400);

const CERTIFICATES: &[&str] = &[
    "rsa-1024",
    "rsa-2048",
    "dsa-1024",
    "dsa-2048",
    "ecdsa-p256",
    "ecdsa-p384",
    "ecdsa-p521",
    "ecdsa-k256",
    "ecdsa-bp256",
    "ecdsa-bp384",
    "ecdsa-bp512",
    "v6-eddsa-legacy",
    "ed25519-27",
    "ed448-28",
    "v6-mldsa65",
];
