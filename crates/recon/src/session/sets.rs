//! Comparing lists of a peer with our own set.

use super::{End, Fault};
use crate::dataset::Dataset;
use crate::element::{BITQUANTUM, Element, Prefix, Value};
use crate::random::Random;
use crate::tree::{Nodes, Unavailable};

/// Turns a list of a peer into distinct elements below a prefix, in path order, and counts what
/// was dropped on the way, if the dataset drops and does not fault.
pub(super) fn admit<const L: usize>(
    dataset: &Dataset<L>,
    prefix: &Prefix<L>,
    values: Vec<Value<L>>,
) -> Result<(Vec<Element<L>>, u64), End> {
    let received = values.len();
    let mut fault = None;
    let fit = |value| match dataset.element(value) {
        Ok(element) if prefix.contains(&element) => Some(element),
        Ok(_) => {
            fault.get_or_insert(Fault::OutsidePrefix);
            None
        }
        Err(unfit) => {
            fault.get_or_insert(Fault::Unfit(unfit));
            None
        }
    };
    let mut elements: Vec<_> = values.into_iter().filter_map(fit).collect();
    elements.sort_unstable();
    let distinct = elements.len();
    elements.dedup();
    if elements.len() < distinct {
        fault.get_or_insert(Fault::Repeated);
    }
    match fault {
        Some(fault) if !dataset.conduct.drops_unfit_elements => Err(fault.into()),
        _ => {
            let dropped = (received - elements.len()) as u64;
            Ok((elements, dropped))
        }
    }
}

/// Which of the elements below a prefix, in path order, we do not have.
pub(super) fn unknown<const L: usize>(
    dataset: &Dataset<L>,
    nodes: &impl Nodes<L>,
    prefix: &Prefix<L>,
    elements: Vec<Element<L>>,
) -> Result<Vec<Element<L>>, Unavailable> {
    let count = nodes.count(prefix)?;
    // One look at a range is cheaper than many at single elements, unless the range is much larger.
    if count <= 8 * elements.len() as u64 && count <= dataset.thresholds.elements_max as u64 {
        let ours = nodes.elements(prefix, None, dataset.thresholds.elements_max)?;
        return Ok(elements
            .into_iter()
            .filter(|element| ours.binary_search(element).is_err())
            .collect());
    }
    let mut unknown = Vec::new();
    for element in elements {
        if !holds(dataset, nodes, &element)? {
            unknown.push(element);
        }
    }
    Ok(unknown)
}

/// Whether we have this element.
pub(super) fn holds<const L: usize>(
    dataset: &Dataset<L>,
    nodes: &impl Nodes<L>,
    element: &Element<L>,
) -> Result<bool, Unavailable> {
    let length = (8 * dataset.element_length()).next_multiple_of(BITQUANTUM);
    Ok(nodes.count(&Prefix::of(element, length))? > 0)
}

/// What we have below a prefix and the peer, which has `theirs` (in path order), lacks; at most
/// [`elements_max`](crate::dataset::Thresholds::elements_max) of it. Where there is more it is a
/// run from a random starting point, so that the next session brings others.
pub(super) fn lacking<const L: usize>(
    dataset: &Dataset<L>,
    nodes: &impl Nodes<L>,
    prefix: &Prefix<L>,
    theirs: &[Element<L>],
    random: &mut Random,
) -> Result<Vec<Element<L>>, Unavailable> {
    let limit = dataset.thresholds.elements_max;
    let start = match nodes.count(prefix)? > limit as u64 {
        true => Some(somewhere(prefix, random)),
        false => None,
    };
    let mut lacking = Vec::new();
    let (mut after, mut wrapped) = (start, start.is_none());
    loop {
        let chunk = nodes.elements(prefix, after.as_ref(), limit)?;
        for element in &chunk {
            if lacking.len() == limit || wrapped && start.is_some_and(|start| *element > start) {
                return Ok(lacking);
            }
            if theirs.binary_search(element).is_err() {
                lacking.push(*element);
            }
        }
        match chunk.last() {
            Some(last) if chunk.len() == limit => after = Some(*last),
            _ if wrapped => return Ok(lacking),
            _ => (after, wrapped) = (None, true),
        }
    }
}

/// The elements as messages carry them: in ascending order of the numbers.
pub(super) fn numeric<const L: usize>(elements: &[Element<L>]) -> Vec<Value<L>> {
    let mut values: Vec<_> = elements.iter().map(Element::value).collect();
    values.sort_by_cached_key(|value| {
        let mut limbs = value.limbs();
        limbs.reverse();
        limbs
    });
    values
}

/// A random place below a prefix. It is compared with elements and need not be one.
fn somewhere<const L: usize>(prefix: &Prefix<L>, random: &mut Random) -> Element<L> {
    let (first, last) = (prefix.first().words(), prefix.last().words());
    let words = std::array::from_fn(|i| first[i] | (random.next_u64() & (first[i] ^ last[i])));
    Element::unchecked(Value::from_words(words))
}
