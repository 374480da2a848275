//! Building a tree from the leaves up, out of elements in path order.
//!
//! Elements below one prefix are neighbours in that order. So one element more than a leaf holds,
//! read ahead, decides whether the node at hand is a leaf: it is not if the last of them still has
//! its prefix. Then the children are built one after the other from the same stream.

use std::sync::Arc;

use super::memory::{Inner, Leaf, Node, width};
use crate::dataset::{Dataset, Summary};
use crate::element::{Element, Prefix};

/// A stream that is not in path order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// An element comes twice.
    #[error("element number {0} equals the one before it")]
    Duplicate(u64),
    /// An element is lower than the one before it.
    #[error("element number {0} is out of order")]
    OutOfOrder(u64),
}

/// The tree of a whole stream, and what it sums up to.
pub(super) fn build<const L: usize>(
    dataset: &Dataset<L>,
    elements: impl Iterator<Item = Element<L>>,
) -> Result<(Node<L>, Summary<L>), BuildError> {
    Builder {
        dataset,
        elements,
        ahead: Vec::new(),
        used: 0,
        read: 0,
    }
    .node(&Prefix::ROOT)
}

/// The inner node at this depth (in steps) of elements that all share its prefix: too many for a
/// leaf, in order, each once.
pub(super) fn split<const L: usize>(dataset: &Dataset<L>, elements: &[Element<L>], depth: usize) -> Node<L> {
    let leaf = || Node::Leaf(Leaf::pack(width(dataset), elements));
    if depth >= 4 * dataset.element_length() {
        return leaf();
    }
    let mut rest = elements;
    let children = std::array::from_fn(|step| {
        let (child, others) = rest.split_at(rest.partition_point(|element| element.step(depth) <= step));
        rest = others;
        match child.len() > dataset.thresholds.leaf_max {
            true => split(dataset, child, depth + 1),
            false => Node::Leaf(Leaf::pack(width(dataset), child)),
        }
    });
    Node::Inner(Arc::new(Inner {
        summary: dataset.summarise(elements),
        children,
    }))
}

struct Builder<'a, const L: usize, I> {
    dataset: &'a Dataset<L>,
    elements: I,
    /// Elements read from the stream, the last one included even if it is in a leaf already.
    ahead: Vec<Element<L>>,
    /// How many of them are in a leaf.
    used: usize,
    /// Elements read in all.
    read: u64,
}

impl<const L: usize, I: Iterator<Item = Element<L>>> Builder<'_, L, I> {
    /// Builds the node of this prefix; the elements ahead start with its first one, if it has any.
    fn node(&mut self, prefix: &Prefix<L>) -> Result<(Node<L>, Summary<L>), BuildError> {
        let leaf_max = self.dataset.thresholds.leaf_max;
        self.read_ahead(leaf_max + 1)?;
        let too_many = self.ahead[self.used..]
            .get(leaf_max)
            .is_some_and(|last| prefix.contains(last));
        let children = prefix.children().filter(|_| too_many);
        let Some(prefixes) = children else {
            return Ok(self.leaf(prefix));
        };
        let mut summary = self.dataset.empty();
        let mut children = Vec::with_capacity(prefixes.len());
        for prefix in &prefixes {
            let (child, part) = self.node(prefix)?;
            summary.count += part.count;
            if part.count > 0 {
                self.dataset.scale(&mut summary.samples, &part.samples);
            }
            children.push(child);
        }
        let children = children.try_into().expect("as many children as prefixes");
        Ok((Node::Inner(Arc::new(Inner { summary, children })), summary))
    }

    fn leaf(&mut self, prefix: &Prefix<L>) -> (Node<L>, Summary<L>) {
        let ahead = &self.ahead[self.used..];
        let elements = &ahead[..ahead.partition_point(|element| prefix.contains(element))];
        self.used += elements.len();
        (
            Node::Leaf(Leaf::pack(width(self.dataset), elements)),
            self.dataset.summarise(elements),
        )
    }

    /// Makes sure that so many elements are ahead, or all that are left.
    fn read_ahead(&mut self, wanted: usize) -> Result<(), BuildError> {
        if self.ahead.len() - self.used >= wanted {
            return Ok(());
        }
        // Reading some more at a time makes moving what is left to the front a rare thing.
        self.ahead.drain(..self.used.saturating_sub(1));
        self.used = self.used.min(1);
        while self.ahead.len() < 8 * wanted {
            let Some(element) = self.elements.next() else { break };
            match self.ahead.last().map(|last| last.cmp(&element)) {
                Some(std::cmp::Ordering::Equal) => return Err(BuildError::Duplicate(self.read)),
                Some(std::cmp::Ordering::Greater) => return Err(BuildError::OutOfOrder(self.read)),
                Some(std::cmp::Ordering::Less) | None => {}
            }
            self.ahead.push(element);
            self.read += 1;
        }
        Ok(())
    }
}
