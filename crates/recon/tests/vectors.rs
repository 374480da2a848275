//! The published vectors of both generations, without sessions.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;

use common::{elements, hex, json, list, second, summary, text, tree, values};
use keyrink_recon::dataset::Dataset;
use keyrink_recon::element::{Element, Prefix, Value};
use keyrink_recon::poly::Poly;
use keyrink_recon::random::Random;
use keyrink_recon::solve::{Unsolved, interpolate, solve};
use keyrink_recon::tree::{Nodes, Tree};
use keyrink_recon::wire::{Config, FrameReader, Message, Verdict};
use md5::{Digest, Md5};
use serde_json::Value as Json;

/// A decimal number of any length.
fn decimal<const L: usize>(text: &str) -> Value<L> {
    let mut limbs = [0u64; L];
    for digit in text.bytes() {
        let mut carry = u128::from(digit - b'0');
        for limb in &mut limbs {
            carry += u128::from(*limb) * 10;
            *limb = carry as u64;
            carry >>= 64;
        }
    }
    Value::from_limbs(limbs)
}

#[test]
fn v1_elements() {
    let dataset = Dataset::v1("sks");
    let vectors = json("recon-v1/elements.json");
    assert_eq!(
        decimal(text(&vectors["prime_dec"])),
        Value::from_limbs(dataset.field().modulus())
    );
    assert_eq!(vectors["element_len"], dataset.value_length());
    for vector in list(&vectors["elements"]) {
        let element = dataset.element_from_bytes(&hex(&vector["digest"]));
        let number: Value<3> = decimal(text(&vector["element_dec"]));
        if ["1", "2", "0"].contains(&text(&vector["element_dec"])) {
            assert!(element.is_err());
            continue;
        }
        let element = element.unwrap();
        assert_eq!(element.value(), number);
        let mut wire = Vec::new();
        element.value().write(dataset.value_length(), &mut wire);
        assert_eq!(wire, hex(&vector["wire"]));
        assert_eq!(dataset.element_bytes(&element), hex(&vector["hashquery_bytes"]));
        let prefix: Prefix<3> = text(&vector["path_first_16_bits"]).parse().unwrap();
        assert!(prefix.contains(&element));
    }
}

#[test]
fn v2_elements() {
    let dataset = Dataset::v2("openpgp/2");
    let (vectors, mut count) = (second(), 0);
    let certificates = ["certificates", "rules"].map(|name| list(&vectors[name]));
    let signatures = certificates
        .into_iter()
        .flatten()
        .flat_map(|vector| list(&vector["signatures"]));
    for vector in signatures.filter(|vector| vector["enumerable"] == true) {
        let element = dataset.element_from_bytes(&hex(&vector["annotated_hash"])).unwrap();
        assert_eq!(element.value(), decimal(text(&vector["element_decimal"])));
        let mut wire = Vec::new();
        element.value().write(dataset.value_length(), &mut wire);
        assert_eq!(wire, hex(&vector["element_wire"]));
        assert_eq!(dataset.element_bytes(&element), hex(&vector["annotated_hash"]));
        let prefix: Prefix<5> = text(&vector["path_first_16_bits"]).parse().unwrap();
        assert!(prefix.contains(&element));
        count += 1;
    }
    assert_eq!(count, 51);
}

#[test]
fn sample_points() {
    let (v1, v2) = (Dataset::v1("sks"), Dataset::v2("openpgp/2"));
    let vectors = json("recon-v1/points.json");
    let points: Vec<_> = v1.points().iter().map(|&point| v1.value(point)).collect();
    assert_eq!(points, values(&vectors["wire"]));
    let vectors = second();
    let points: Vec<_> = v2.points().iter().map(|&point| v2.value(point)).collect();
    assert_eq!(points, values(&vectors["field"]["sample_points_wire"]));
    assert_eq!(
        decimal(text(&vectors["field"]["prime_decimal"])),
        Value::from_limbs(v2.field().modulus())
    );
}

#[test]
fn v1_samples() {
    let dataset = Dataset::v1("sks");
    for vector in list(&json("recon-v1/svalues.json")) {
        let elements = elements(&dataset, &vector["elements"]);
        let expected = summary(&dataset, &vector["size"], &vector["svalues_wire"]);
        assert_eq!(dataset.summarise(&elements), expected);
    }
}

/// The element of the MD5 of a decimal number.
fn counted(dataset: &Dataset<3>, number: u64) -> Element<3> {
    dataset.element_from_bytes(&Md5::digest(number.to_string())).unwrap()
}

fn shape(tree: &Tree<3>) -> Vec<(String, usize)> {
    let name = |prefix: Prefix<3>| {
        if prefix == Prefix::ROOT {
            "(root)".to_owned()
        } else {
            prefix.to_string()
        }
    };
    tree.leaves()
        .into_iter()
        .filter(|leaf| leaf.1 > 0)
        .map(|(prefix, count)| (name(prefix), count))
        .collect()
}

fn expected_shape(vector: &Json) -> Vec<(String, usize)> {
    let leaves = vector["leaves"].as_object().unwrap();
    let mut leaves: Vec<_> = leaves
        .iter()
        .map(|(name, count)| (name.clone(), count.as_u64().unwrap() as usize))
        .collect();
    leaves.retain(|leaf| leaf.1 > 0);
    leaves.sort();
    leaves
}

#[test]
fn v1_tree_shapes() {
    for vector in list(&json("recon-v1/tree-shapes.json")) {
        let hockeypuck = vector["style"] == "hockeypuck";
        let mut dataset = Dataset::v1("shape");
        // Hockeypuck tests before it adds, so its leaves hold one element more.
        dataset.thresholds.leaf_max = if hockeypuck { 51 } else { 50 };
        let mut tree = Tree::new(Arc::new(dataset.clone()));
        if let Some(leaf_after) = vector.get("root_is_leaf_after_delete") {
            (0..60).for_each(|i| tree.insert(counted(&dataset, i)).unwrap());
            for (i, leaf) in list(leaf_after).iter().enumerate() {
                tree.remove(&counted(&dataset, i as u64)).unwrap();
                assert_eq!(tree.leaves().len() == 1, leaf.as_bool().unwrap(), "after {i}");
            }
            continue;
        }
        let count = vector["n"].as_u64().unwrap();
        if vector.get("order").is_some() {
            (0..count).for_each(|i| tree.insert(counted(&dataset, i)).unwrap());
        } else if hockeypuck {
            for i in 0..count {
                let mut digest = [0xa5; 16];
                digest[..3].copy_from_slice(&[0, 0, i as u8]);
                tree.insert(dataset.element_from_bytes(&digest).unwrap()).unwrap();
            }
        } else {
            // SKS splits one level at a time; here a leaf never stays too large.
            continue;
        }
        assert_eq!(shape(&tree), expected_shape(vector), "{} {count}", vector["style"]);
        if let Some(expected) = vector.get("leaf_elements_of_first_leaf") {
            let first = tree.leaves()[0].0;
            assert_eq!(tree.elements(&first, None, 99).unwrap(), elements(&dataset, expected));
        }
    }
}

fn sorted<const L: usize>(mut elements: Vec<Element<L>>) -> Vec<Element<L>> {
    elements.sort();
    elements
}

#[test]
fn v1_interpolation() {
    let dataset = Dataset::v1("sks");
    for vector in list(&json("recon-v1/interpolation.json")) {
        let name = text(&vector["name"]);
        let remote = summary(&dataset, &vector["remote_size"], &vector["remote_svalues"]);
        let local = match vector.get("local_svalues") {
            Some(samples) => summary(&dataset, &vector["local_size"], samples),
            None => dataset.empty(),
        };
        let solution = solve(&dataset, &remote, &local, &mut Random::new(1));
        if vector["result"] == "solved" {
            let solution = solution.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(
                sorted(solution.remote_only),
                elements(&dataset, &vector["remote_only"]),
                "{name}"
            );
            assert_eq!(
                sorted(solution.local_only),
                elements(&dataset, &vector["local_only"]),
                "{name}"
            );
            let (numerator, denominator) = interpolate(&dataset, &remote, &local).unwrap();
            let coefficients = |json: &Json| -> Vec<Value<3>> { list(json).iter().map(|c| decimal(text(c))).collect() };
            let plain = |poly: &Poly<3>| -> Vec<_> { poly.coefficients().iter().map(|&c| dataset.value(c)).collect() };
            assert_eq!(
                plain(&numerator),
                coefficients(&vector["numerator_low_to_high_dec"]),
                "{name}"
            );
            assert_eq!(
                plain(&denominator),
                coefficients(&vector["denominator_low_to_high_dec"]),
                "{name}"
            );
        } else {
            let expected = match text(&vector["why"]) {
                "size" => Unsolved::Sizes,
                "check point" => Unsolved::NoFit,
                _ => Unsolved::NotSplit,
            };
            assert_eq!(solution, Err(expected), "{name}");
        }
    }
}

#[test]
fn v2_interpolation() {
    let dataset = Dataset::v2("openpgp/2");
    for vector in list(&second()["interpolation"]["cases"]) {
        let remote = summary(&dataset, &vector["size_a"], &vector["svalues_a"]);
        let local = summary(&dataset, &vector["size_b"], &vector["svalues_b"]);
        let solution = solve(&dataset, &remote, &local, &mut Random::new(2));
        if vector["result"] != "solved" {
            assert!(solution.is_err());
            continue;
        }
        let solution = solution.unwrap();
        assert_eq!(
            sorted(solution.remote_only),
            elements(&dataset, &vector["elements_only_a"])
        );
        assert_eq!(
            sorted(solution.local_only),
            elements(&dataset, &vector["elements_only_b"])
        );
        let (numerator, denominator) = interpolate(&dataset, &remote, &local).unwrap();
        let plain = |poly: &Poly<5>| -> Vec<_> { poly.coefficients().iter().map(|&c| dataset.value(c)).collect() };
        assert_eq!(plain(&numerator), values(&vector["numerator_coefficients_low_first"]));
        assert_eq!(
            plain(&denominator),
            values(&vector["denominator_coefficients_low_first"])
        );
    }
}

#[test]
fn v2_trees() {
    let dataset = Arc::new(Dataset::v2("openpgp/2"));
    let vectors = second();
    let small = &vectors["small_tree"];
    let expected = summary(&dataset, &small["size"], &small["svalues"]);
    assert_eq!(
        dataset.summarise(&elements(&dataset, &small["annotated_hashes"])),
        expected
    );

    let tree = tree(&dataset, &elements(&dataset, &vectors["tree"]["annotated_hashes"]));
    let nodes = list(&vectors["tree"]["nodes"]);
    for node in nodes {
        let prefix: Prefix<5> = text(&node["prefix"]).parse().unwrap();
        let expected = summary(&dataset, &node["size"], &node["svalues"]);
        assert_eq!(tree.summary(&prefix).unwrap(), expected, "{prefix}");
        assert_eq!(tree.count(&prefix).unwrap(), expected.count);
    }
    let leaves: Vec<_> = tree.leaves().into_iter().map(|leaf| leaf.0.to_string()).collect();
    let mut expected: Vec<_> = nodes
        .iter()
        .filter(|node| node["leaf"] == true)
        .map(|node| text(&node["prefix"]).to_owned())
        .collect();
    expected.sort();
    assert_eq!(leaves, expected);
}

/// Decodes a frame, encodes it again and gives the message.
fn round_trip<const L: usize>(dataset: &Dataset<L>, bytes: &[u8]) -> Message<L> {
    let mut reader = FrameReader::new(1 << 20);
    reader.feed(bytes);
    let message = Message::decode(dataset, reader.next_frame().unwrap().unwrap()).unwrap();
    assert_eq!(reader.next_frame(), Ok(None));
    if message != Message::Config {
        let mut again = Vec::new();
        message.encode(dataset, &mut again);
        assert_eq!(again, bytes);
    }
    message
}

fn config(bytes: &[u8]) -> Config {
    let mut reader = FrameReader::new(1 << 20);
    reader.feed(bytes);
    let frame = reader.next_frame().unwrap().unwrap();
    assert_eq!(frame.kind, Config::KIND);
    let config = Config::decode(frame.payload).unwrap();
    let mut again = Vec::new();
    config.encode(&mut again);
    assert_eq!(again, bytes);
    config
}

#[test]
fn v1_messages() {
    let dataset = Dataset::v1("sks");
    for vector in list(&json("recon-v1/messages.json")) {
        let (name, bytes) = (text(&vector["name"]), hex(&vector["frame"]));
        if name.starts_with("verdict") {
            let mut reader = FrameReader::new(1 << 20);
            reader.feed(&bytes);
            let verdict = reader.next_verdict().unwrap().unwrap();
            assert_eq!(verdict == Verdict::Passed, name.contains("passed"));
            let mut again = Vec::new();
            verdict.encode(&mut again);
            assert_eq!(again, bytes);
            continue;
        }
        let message = round_trip(&dataset, &bytes);
        let kind = format!("{:?}", message.kind());
        let expected = match name.split([' ', ',']).next().unwrap() {
            "ReconRqstPoly" => "Poly",
            "ReconRqstFull" => "Full",
            "DbRqst" | "DbRepl" => "Historic",
            other => other,
        };
        assert_eq!(kind, expected, "{name}");
        if kind == "Config" {
            let config = config(&bytes);
            assert_eq!(config.number("http port"), Some(11371));
            assert_eq!(config.value("version"), Some(&b"1.1.6"[..]));
        }
    }
}

#[test]
fn v2_messages() {
    let dataset = Dataset::v2("openpgp/2");
    let vectors = &second()["wire"];
    let prefix: Prefix<5> = "0010".parse().unwrap();
    let hashes = elements(&dataset, &vectors["inputs"]);
    let message = |name: &str| round_trip(&dataset, &hex(&vectors[name]));

    assert_eq!(
        message("recon_rqst_poly"),
        Message::Poly(prefix, dataset.summarise(&hashes))
    );
    let Message::Full(of, listed) = message("recon_rqst_full") else {
        panic!()
    };
    assert_eq!(of.length(), 6);
    let mut listed: Vec<_> = listed
        .into_iter()
        .map(|value| dataset.element(value).unwrap())
        .collect();
    listed.sort();
    assert_eq!(listed, hashes);
    assert!(matches!(message("elements"), Message::Elements(list) if list.len() == 3));
    assert!(matches!(message("full_elements"), Message::FullElements(list) if list.len() == 3));
    assert_eq!(message("sync_fail"), Message::SyncFail);
    assert_eq!(message("done"), Message::Done);
    assert_eq!(message("flush"), Message::Flush);
    assert_eq!(message("error"), Message::Error("malformed message".into()));
    assert_eq!(
        message("refused"),
        Message::Refused("10".parse().unwrap(), 1, "no interest".into())
    );
    for (name, expected) in [("config_status_passed", "passed"), ("config_status_failed", "failed")] {
        let bytes = hex(&vectors[name]);
        let mut reader = FrameReader::new(1 << 20);
        reader.feed(&bytes);
        let verdict = reader.next_verdict().unwrap().unwrap();
        assert_eq!(verdict == Verdict::Passed, expected == "passed", "{name}");
        let mut again = Vec::new();
        verdict.encode(&mut again);
        assert_eq!(again, bytes);
    }
    assert_eq!(
        config(&hex(&vectors["config_initiator"])).value("tree"),
        Some(&b"openpgp/2"[..])
    );
    assert_eq!(
        config(&hex(&vectors["config_acceptor"])).value("omit openpgp/2"),
        Some(&b"01 0011"[..])
    );
}
