//! Digests that real SKS gives: for 447 constructed submissions, and for every certificate of Debian's keyrings.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::merge::merge;
use keyrink_openpgp::policy::Limits;
use keyrink_openpgp::read::Keyring;
use keyrink_openpgp::verify::verify;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

fn testdata() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/datasets")
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// A store of nothing but certificates.
#[derive(Default)]
struct Certs(BTreeMap<Vec<u8>, Cert>);

impl Certs {
    fn submit(&mut self, octets: &[u8]) {
        for incoming in Keyring::read(octets, &Limits::default()).certs {
            let mut cert = incoming.cert;
            let id = cert.id();
            let known = self.0.remove(&id);
            verify(&mut cert, known.as_ref());
            let merged = match known {
                Some(known) => merge(known, cert).expect("copies of one key, and what was written, are read"),
                None => cert,
            };
            let stored = merged.encode();
            assert_eq!(
                Cert::decode(&stored).expect("copies of one key, and what was written, are read"),
                merged,
                "the stored form reads back"
            );
            self.0.insert(id, merged);
        }
    }

    fn sks_digests(&self) -> BTreeSet<String> {
        self.0
            .values()
            .filter_map(Cert::sks_digest)
            .map(|digest| hexadecimal(&digest))
            .collect()
    }
}

#[test]
fn every_vector_has_the_digest_of_sks() {
    let text = std::fs::read_to_string(testdata().join("vectors.json")).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let (mut compared, mut wrong) = (0, Vec::new());
    for vector in document["vectors"].as_array().unwrap() {
        let mut certs = Certs::default();
        for file in vector["submit"].as_array().unwrap() {
            certs.submit(&std::fs::read(testdata().join(file.as_str().unwrap())).unwrap());
        }
        let stored = vector["sks"]["stored"].as_array().unwrap();
        let expected: BTreeSet<String> = stored
            .iter()
            .map(|cert| cert["digest"].as_str().unwrap().to_owned())
            .collect();
        // What SKS refuses is projected to what it would have stored; a live SKS is the judge of that.
        if !expected.is_empty() {
            compared += 1;
            if certs.sks_digests() != expected {
                wrong.push(format!("{} ({})", vector["id"], vector["why"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {compared}: {wrong:#?}", wrong.len());
    assert_eq!(compared, 384);
}

#[test]
fn debian_keyrings_have_the_digests_of_sks() {
    let mut certs = Certs::default();
    for name in ["keyring", "maintainers", "nonupload", "role-keys"] {
        let path = format!("/usr/share/keyrings/debian-{name}.gpg");
        let octets = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}: install debian-keyring"));
        certs.submit(&octets);
    }
    let table = std::fs::read_to_string(testdata().join("debian-keyring.tsv")).unwrap();
    let expected: BTreeMap<String, String> = table
        .lines()
        .skip(1)
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .map(|columns| (columns[0].to_owned(), columns[1].to_owned()))
        .collect();
    let found: BTreeMap<String, String> = certs
        .0
        .iter()
        .map(|(id, cert)| (hexadecimal(id), hexadecimal(&cert.sks_digest().unwrap())))
        .collect();
    assert_eq!(found.len(), 1178);
    assert!(
        found == expected,
        "{:?}",
        found
            .iter()
            .filter(|(id, digest)| expected.get(*id) != Some(*digest))
            .collect::<Vec<_>>()
    );
    let shown = certs.0.values().filter(|cert| cert.is_presentable()).count();
    assert_eq!(shown, 1178, "each has a valid self-signature");
}
