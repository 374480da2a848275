//! Digests that real SKS and Hockeypuck give: for 447 constructed submissions, and for every certificate of Debian's keyrings.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::merge::merge;
use keyrink_openpgp::policy::Limits;
use keyrink_openpgp::project::Projection;
use keyrink_openpgp::read::Keyring;
use keyrink_openpgp::serving::Serving;
use keyrink_openpgp::stored::write_projection;
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
            let stored = merged.encode(&Serving::default());
            assert_eq!(
                Cert::decode(&stored).expect("copies of one key, and what was written, are read"),
                merged,
                "the stored form reads back"
            );
            self.0.insert(id, merged);
        }
    }

    /// What each family of peers calls these certificates.
    fn digests(&self, projection: Projection) -> BTreeSet<String> {
        let digests = self.0.values().filter_map(|cert| cert.digest(projection));
        digests.map(|digest| hexadecimal(&digest)).collect()
    }
}

fn vectors() -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(testdata().join("vectors.json")).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    document["vectors"].as_array().unwrap().clone()
}

/// What a peer held in the end.
fn recorded(vector: &serde_json::Value, peer: &str) -> BTreeSet<String> {
    let stored = vector[peer]["stored"].as_array().unwrap().iter();
    stored.map(|cert| cert["digest"].as_str().unwrap().to_owned()).collect()
}

fn submitted(vector: &serde_json::Value) -> Certs {
    let mut certs = Certs::default();
    for file in vector["submit"].as_array().unwrap() {
        certs.submit(&std::fs::read(testdata().join(file.as_str().unwrap())).unwrap());
    }
    certs
}

#[test]
fn every_vector_has_the_digest_of_sks() {
    let (mut compared, mut wrong) = (0, Vec::new());
    for vector in vectors() {
        let expected = recorded(&vector, "sks");
        // What SKS refuses is projected to what it would have stored; a live SKS is the judge of that.
        if !expected.is_empty() {
            compared += 1;
            if submitted(&vector).digests(Projection::Sks) != expected {
                wrong.push(format!("{} ({})", vector["id"], vector["why"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {compared}: {wrong:#?}", wrong.len());
    assert_eq!(compared, 384);
}

/// Where Keyrink's view of a certificate is not what the vector records, and why.
const DECIDED: [(&str, &str); 18] = [
    ("framing/garbage-after", WHOLE_INPUT),
    ("framing/truncated-header", WHOLE_INPUT),
    ("framing/truncated-last", WHOLE_INPUT),
    ("framing/signature-first", WHOLE_INPUT),
    (
        "framing/secret-subkey-inside",
        "nothing that holds a secret key is taken",
    ),
    ("merge/bare-direct-signature.12", ALONE),
    ("merge/bare-hard-revocation.12", ALONE),
    ("merge/bare-revocation.12", ALONE),
    ("merge/bare-revocation-twice.123", ALONE),
    ("merge/bare-revocation-after-full.12", ALONE),
    (
        "merge/same-again-with-dup.12",
        "an equal copy changes nothing: merging is idempotent",
    ),
    (
        "merge/trust-in-one.21",
        "which copy came first is not known to everybody: the one with more counts",
    ),
    ("merge/primary-as-subkey.12", FROZEN),
    ("merge/primary-as-subkey.21", FROZEN),
    ("merge/trailing-primary.12", VARIANTS),
    ("merge/trailing-primary.21", VARIANTS),
    ("merge/trailing-subkey.12", VARIANTS),
    ("merge/trailing-subkey.21", VARIANTS),
];
const WHOLE_INPUT: &str = "what was read before an error stays read";
const ALONE: &str = "the write path finds the place of a signature that comes alone, not the reader";
const FROZEN: &str = "a copy that Hockeypuck cannot merge is merged: else whoever comes first decides for ever";
const VARIANTS: &str = "packets that differ but share a fingerprint are kept apart, whichever came first";

#[test]
fn every_vector_has_the_digest_of_hockeypuck() {
    let mut wrong = Vec::new();
    for vector in vectors() {
        let id = vector["id"].as_str().unwrap();
        let differs = submitted(&vector).digests(Projection::Hockeypuck) != recorded(&vector, "hockeypuck");
        if differs != DECIDED.iter().any(|(decided, _)| *decided == id) {
            wrong.push(format!("{id} ({})", vector["why"]));
        }
    }
    assert!(wrong.is_empty(), "{}: {wrong:#?}", wrong.len());
}

#[test]
fn what_hockeypuck_keeps_is_kept_when_it_comes_again() {
    for vector in vectors() {
        for cert in submitted(&vector).0.values() {
            let (mut sent, mut again) = (Vec::new(), Certs::default());
            cert.write(Projection::Hockeypuck, &mut sent);
            again.submit(&sent);
            let digest = cert.digest(Projection::Hockeypuck).map(|digest| hexadecimal(&digest));
            assert_eq!(
                again.digests(Projection::Hockeypuck),
                digest.into_iter().collect(),
                "{}",
                vector["id"]
            );
        }
    }
}

#[test]
fn what_an_older_verifier_stored_is_read_and_found_anew() {
    let old = std::fs::read(testdata().join("../stored/format-1-certificate.bin")).unwrap();
    let vectors = vectors();
    let vector = vectors
        .iter()
        .find(|vector| vector["id"] == "subkey/sign-back-hashed")
        .unwrap();
    let new = submitted(vector).0.into_values().next().unwrap();
    assert_eq!(Cert::decode(&old).unwrap(), new);
    let (mut shown, mut expected) = (Vec::new(), Vec::new());
    write_projection(&old, Projection::Served, &mut shown).unwrap();
    write_projection(&new.encode(&Serving::default()), Projection::Served, &mut expected).unwrap();
    assert_eq!(shown, expected);
}

#[test]
fn debian_keyrings_have_the_digests_of_both() {
    let mut certs = Certs::default();
    for name in ["keyring", "maintainers", "nonupload", "role-keys"] {
        let path = format!("/usr/share/keyrings/debian-{name}.gpg");
        let octets = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}: install debian-keyring"));
        certs.submit(&octets);
    }
    let table = std::fs::read_to_string(testdata().join("debian-keyring.tsv")).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().skip(1).map(|line| line.split('\t').collect()).collect();
    for (projection, column) in [(Projection::Sks, 1), (Projection::Hockeypuck, 3)] {
        let expected = rows.iter().map(|row| (row[0].to_owned(), row[column].to_owned()));
        let found = certs.0.iter().map(|(id, cert)| {
            let digest = cert.digest(projection);
            (
                hexadecimal(id),
                digest.map_or_else(|| "-".to_owned(), |digest| hexadecimal(&digest)),
            )
        });
        let (found, expected): (BTreeMap<_, _>, BTreeMap<_, _>) = (found.collect(), expected.collect());
        let differing = found.iter().filter(|(id, digest)| expected.get(*id) != Some(*digest));
        assert!(found == expected, "{:?}", differing.collect::<Vec<_>>());
    }
    assert_eq!(certs.0.len(), 1178);
    let shown = certs.0.values().filter(|cert| cert.is_presentable()).count();
    assert_eq!(shown, 1178, "each has a valid self-signature");
}
