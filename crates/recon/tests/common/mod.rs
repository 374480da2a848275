//! What the tests share: reading vectors, and making elements.
#![allow(dead_code, reason = "each test uses a part")]

pub(crate) mod link;
pub(crate) mod offers;

use std::path::PathBuf;
use std::sync::Arc;

use keyrink_recon::dataset::{Dataset, Parameters, Summary};
use keyrink_recon::element::{Element, Value};
use keyrink_recon::random::Random;
use keyrink_recon::tree::Tree;
use serde_json::Value as Json;

/// A file of the folder of vectors.
pub(crate) fn file(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn json(name: &str) -> Json {
    serde_json::from_slice(&file(name)).unwrap()
}

/// The vectors of the second generation.
pub(crate) fn second() -> Json {
    json("../../../../testdata/recon-v2/vectors.json")
}

pub(crate) fn hex(json: &Json) -> Vec<u8> {
    let text = json.as_str().unwrap();
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

pub(crate) fn list(json: &Json) -> &Vec<Json> {
    json.as_array().unwrap()
}

pub(crate) fn text(json: &Json) -> &str {
    json.as_str().unwrap()
}

pub(crate) fn values<const L: usize>(json: &Json) -> Vec<Value<L>> {
    list(json)
        .iter()
        .map(|value| Value::from_bytes(&hex(value)).unwrap())
        .collect()
}

pub(crate) fn elements<const L: usize>(dataset: &Dataset<L>, json: &Json) -> Vec<Element<L>> {
    let mut elements: Vec<_> = values(json)
        .into_iter()
        .map(|value| dataset.element(value).unwrap())
        .collect();
    elements.sort();
    elements
}

pub(crate) fn summary<const L: usize>(dataset: &Dataset<L>, size: &Json, samples: &Json) -> Summary<L> {
    let mut summary = dataset.empty();
    summary.count = size.as_u64().unwrap();
    for (sample, value) in summary.samples.iter_mut().zip(values(samples)) {
        *sample = dataset.sample(value).unwrap();
    }
    summary
}

/// Random elements, different with overwhelming probability.
pub(crate) fn random_elements<const L: usize>(
    dataset: &Dataset<L>,
    random: &mut Random,
    count: usize,
) -> Vec<Element<L>> {
    let mut bytes = vec![0; dataset.element_length()];
    (0..count)
        .map(|_| {
            for chunk in bytes.chunks_mut(8) {
                chunk.copy_from_slice(&random.next_u64().to_le_bytes()[..chunk.len()]);
            }
            dataset.element_from_bytes(&bytes).unwrap()
        })
        .collect()
}

pub(crate) fn tree<const L: usize>(dataset: &Arc<Dataset<L>>, elements: &[Element<L>]) -> Tree<L> {
    let mut sorted = elements.to_vec();
    sorted.sort();
    sorted.dedup();
    Tree::build(dataset.clone(), sorted).unwrap()
}

/// The elements of concatenated 16-byte digests.
pub(crate) fn digests(dataset: &Dataset<3>, bytes: &[u8]) -> Vec<Element<3>> {
    bytes
        .chunks_exact(16)
        .map(|digest| dataset.element_from_bytes(digest).unwrap())
        .collect()
}

/// The parameters of the first generation, to change one of them.
pub(crate) fn v1_parameters() -> Parameters<3> {
    let v1 = Dataset::v1("");
    Parameters {
        modulus: v1.field().modulus(),
        element_length: v1.element_length(),
        value_length: v1.value_length(),
        prefix_bits_max: v1.prefix_bits_max(),
        points: [0, -1, 1, -2, 2, -3],
        thresholds: v1.thresholds,
        conduct: v1.conduct,
    }
}
