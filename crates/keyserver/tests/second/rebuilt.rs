//! The elements of the second generation are a function of the records: a rebuild makes the same again, octet for octet,
//! in both engines.

use super::common::peering::{Digests, digests_of};
use super::common::{Node, debian};
use keyrink::formats::SECOND;
use keyrink_store::sqlite::SqliteStore;
use serde_json::Value;
use std::path::PathBuf;

/// One element less, and one of another dataset more.
const DAMAGES: [&str; 2] = [
    "DELETE FROM element WHERE dataset = 3
        AND bytes = (SELECT bytes FROM element WHERE dataset = 3 ORDER BY bytes LIMIT 1)",
    "UPDATE element SET dataset = 3 WHERE dataset = 1
        AND bytes = (SELECT bytes FROM element WHERE dataset = 1 ORDER BY bytes LIMIT 1)",
];

#[test]
fn a_rebuild_makes_every_element_again() {
    for node in [Node::embedded(), Node::on_postgres()] {
        let held = || digests_of(&node.data(), &SECOND);
        let vectors = vectors();
        let (certificates, expected) = (armored(&vectors), expected(&vectors));
        node.load(&[&node.file("vectors.asc", certificates.as_bytes())]);
        assert_eq!(held(), expected);
        node.load(&[&debian("role-keys")]);
        let (report, before) = (node.check(), held());
        assert!(
            before.is_superset(&expected) && report.contains("openpgp/2 sum  "),
            "{report}"
        );

        DAMAGES.iter().for_each(|damage| hurt(&node, damage));
        assert_eq!(node.run("check", &[]).code, Some(1));
        assert_ne!(held(), before);
        node.succeed("rebuild", &[]);
        assert_eq!(held(), before);
        assert_eq!(node.check(), report);
        let again = node.succeed("rebuild", &[]);
        assert!(again.ends_with(" 0 rows mended\n"), "{again}");
    }
}

fn hurt(node: &Node, damage: &str) {
    if !node.is_embedded() {
        node.ask(damage);
        return;
    }
    let file = node.data().join(SqliteStore::FILE);
    let database = rusqlite::Connection::open(file).unwrap();
    assert_eq!(database.execute(damage, []).unwrap(), 1);
}

/// The certificates of the vectors, which hold every rule of what an element is.
fn vectors() -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/recon-v2/vectors.json");
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let lists = ["certificates", "rules"].map(|list| vectors[list].as_array().unwrap().clone());
    lists.concat()
}

fn armored(vectors: &[Value]) -> String {
    let armored = |vector: &Value| {
        let base64 = vector["certificate_base64"].as_str().unwrap();
        format!("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{base64}\n-----END PGP PUBLIC KEY BLOCK-----\n")
    };
    vectors.iter().map(armored).collect()
}

fn expected(vectors: &[Value]) -> Digests {
    let hashes = vectors
        .iter()
        .flat_map(|vector| vector["annotated_hashes"].as_array().unwrap());
    let octets = |digits: &str| -> Vec<u8> {
        let octet = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (0..digits.len()).step_by(2).map(octet).collect()
    };
    hashes.map(|hash| octets(hash.as_str().unwrap())).collect()
}
