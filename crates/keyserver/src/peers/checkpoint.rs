//! The sums of a tree, saved so that a large one need not be read as a whole when a server starts.
//!
//! A checkpoint is a cache and no more: it belongs to a version of the store, change rows lead from there to the
//! present, and whatever does not fit is thrown away and read from the elements. Layout, numbers big-endian:
//!
//! ```text
//! format (1 octet, now 1)
//! writers (4), each: writer (4) n (8)
//! node: has children (1) count (8) samples      its four children follow, if it has them
//! ```

use super::partner::save_note;
use super::tree::{Node, State};
use keyrink_recon::dataset::{Dataset, SAMPLES, Summary};
use keyrink_recon::element::Value;
use keyrink_store::{Store, StoreError, Vector};
use std::sync::Arc;

const FORMAT: u8 = 1;
/// More children below children than any prefix has.
const DEPTH_MAX: usize = 160;

/// Saves the sums of the tree with this name.
pub(super) fn save<const L: usize>(
    store: &dyn Store,
    name: &str,
    dataset: &Dataset<L>,
    state: &State<L>,
) -> Result<(), StoreError> {
    save_note(store, note(name), Some(encode(dataset, &state.root, &state.seen)))
}

/// The sums that were saved and the version they belong to; `None` if there are none that can be read.
pub(super) fn load<const L: usize>(
    store: &dyn Store,
    name: &str,
    dataset: &Dataset<L>,
) -> Result<Option<(Node<L>, Vector)>, StoreError> {
    let saved = store.note(&note(name))?;
    Ok(saved.and_then(|octets| decode(dataset, &octets)))
}

/// Throws the checkpoint away.
pub(super) fn forget(store: &dyn Store, name: &str) -> Result<(), StoreError> {
    save_note(store, note(name), None)
}

/// A checkpoint of dataset `sks`, read and written again; `None` if it makes no sense.
pub(crate) fn rewritten(octets: &[u8]) -> Option<Vec<u8>> {
    let dataset = Dataset::v1("sks");
    let (root, seen) = decode::<3>(&dataset, octets)?;
    Some(encode(&dataset, &root, &seen))
}

fn note(name: &str) -> String {
    format!("tree {name}")
}

fn encode<const L: usize>(dataset: &Dataset<L>, root: &Node<L>, seen: &Vector) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend((seen.len() as u32).to_be_bytes());
    for (writer, n) in seen {
        out.extend(writer.to_be_bytes());
        out.extend(n.to_be_bytes());
    }
    encode_node(dataset, root, &mut out);
    out
}

fn encode_node<const L: usize>(dataset: &Dataset<L>, node: &Node<L>, out: &mut Vec<u8>) {
    out.push(u8::from(node.children.is_some()));
    out.extend(node.summary.count.to_be_bytes());
    for sample in node.summary.samples {
        dataset.value(sample).write(dataset.value_length(), out);
    }
    for child in node.children.iter().flat_map(|children| children.iter()) {
        encode_node(dataset, child, out);
    }
}

fn decode<const L: usize>(dataset: &Dataset<L>, octets: &[u8]) -> Option<(Node<L>, Vector)> {
    let mut input = octets;
    let [format] = take(&mut input)?;
    let mut seen = Vector::new();
    for _ in 0..u32::from_be_bytes(take(&mut input)?) {
        seen.insert(
            u32::from_be_bytes(take(&mut input)?),
            u64::from_be_bytes(take(&mut input)?),
        );
    }
    let root = decode_node(dataset, &mut input, DEPTH_MAX)?;
    (format == FORMAT && input.is_empty()).then_some((root, seen))
}

fn decode_node<const L: usize>(dataset: &Dataset<L>, input: &mut &[u8], depth: usize) -> Option<Node<L>> {
    let [has_children] = take(input)?;
    let count = u64::from_be_bytes(take(input)?);
    let mut samples = dataset.empty().samples;
    for sample in &mut samples[..SAMPLES] {
        let (octets, rest) = input.split_at_checked(dataset.value_length())?;
        *input = rest;
        *sample = dataset.sample(Value::from_bytes(octets)?)?;
    }
    let summary = Summary { count, samples };
    if has_children == 0 {
        return Some(Node::leaf(summary));
    }
    let depth = depth.checked_sub(1)?;
    let children: Vec<_> = (0..4)
        .map(|_| decode_node(dataset, input, depth))
        .collect::<Option<_>>()?;
    let mut counts = children.iter().map(|child| child.summary.count);
    let sum = counts.try_fold(0_u64, |sum, count| sum.checked_add(count))?;
    let children = children.try_into().ok().filter(|_| sum == count)?;
    Some(Node {
        summary,
        children: Some(Arc::new(children)),
    })
}

fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (octets, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    Some(*octets)
}
