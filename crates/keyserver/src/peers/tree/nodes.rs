//! The upper part of a prefix tree: count and samples of every node, down to those with few elements.
//!
//! A node is cheap to clone and is copied when written, so an old state of the tree costs what differs from the new.

use keyrink_recon::dataset::{Dataset, SAMPLES, Summary};
use keyrink_recon::element::{BITQUANTUM, CHILDREN, Element, Prefix};
use keyrink_recon::field::Residue;
use std::collections::VecDeque;
use std::sync::Arc;

/// A node with more elements than this has children. Smaller ones are read from the store when they are needed.
pub(super) const LEAF_MAX: u64 = 256;
/// A node that has become as small as this loses its children.
const JOIN_MAX: u64 = LEAF_MAX / 2;

/// A node; without children it is a leaf, whose elements are in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::peers) struct Node<const L: usize> {
    pub(in crate::peers) summary: Summary<L>,
    pub(in crate::peers) children: Option<Arc<[Node<L>; CHILDREN]>>,
}

impl<const L: usize> Node<L> {
    /// A leaf.
    pub(in crate::peers) fn leaf(summary: Summary<L>) -> Self {
        Self {
            summary,
            children: None,
        }
    }

    /// The stored node that holds everything below a prefix, and its own prefix: that of the node or of a leaf above.
    pub(super) fn locate(&self, prefix: &Prefix<L>) -> (&Self, Prefix<L>) {
        let (mut node, mut at) = (self, Prefix::ROOT);
        for depth in 0..prefix.length() / BITQUANTUM {
            let (Some(children), Some(prefixes)) = (&node.children, at.children()) else {
                break;
            };
            let step = prefix.step(depth);
            (node, at) = (&children[step], prefixes[step]);
        }
        (node, at)
    }

    /// The leaves at and below a prefix in order, or the leaf above it; only those that reach behind `after`.
    pub(super) fn leaves(&self, prefix: &Prefix<L>, after: Option<&Element<L>>) -> Vec<(Prefix<L>, Summary<L>)> {
        let (node, at) = self.locate(prefix);
        let (mut found, mut waiting) = (Vec::new(), vec![(node, at)]);
        while let Some((node, at)) = waiting.pop() {
            if node.summary.count == 0 || after.is_some_and(|after| at.last() <= after.value()) {
                continue;
            }
            match (&node.children, at.children()) {
                (Some(children), Some(prefixes)) => waiting.extend(children.iter().zip(prefixes).rev()),
                _ => found.push((at, node.summary)),
            }
        }
        found
    }

    /// Works an element in that came, or, with the inverses of its samples, one that went. Gives the prefix of a leaf
    /// that has become too large.
    pub(super) fn apply(
        &mut self,
        dataset: &Dataset<L>,
        element: &Element<L>,
        change: &Change<L>,
    ) -> Option<Prefix<L>> {
        let (mut node, mut depth) = (self, 0);
        loop {
            // Of two lanes one may be read before what it follows from in the other, so below zero is a way to pass by.
            node.summary.count = match change.added {
                true => node.summary.count.wrapping_add(1),
                false => node.summary.count.wrapping_sub(1),
            };
            dataset.scale(&mut node.summary.samples, &change.factors);
            if node.summary.count <= JOIN_MAX {
                node.children = None;
            }
            match &mut node.children {
                None => {
                    let large = node.summary.count > LEAF_MAX;
                    return large.then(|| Prefix::of(element, depth * BITQUANTUM));
                }
                Some(children) => {
                    node = &mut Arc::make_mut(children)[element.step(depth)];
                    depth += 1;
                }
            }
        }
    }

    /// Puts a subtree into the place of the leaf with this prefix; nothing happens if there is no such leaf any more.
    pub(super) fn graft(&mut self, prefix: &Prefix<L>, subtree: Self) {
        let mut node = self;
        for depth in 0..prefix.length() / BITQUANTUM {
            let Some(children) = &mut node.children else { return };
            node = &mut Arc::make_mut(children)[prefix.step(depth)];
        }
        if node.children.is_none() {
            *node = subtree;
        }
    }
}

/// What an element that comes or goes does to the nodes above it.
pub(super) struct Change<const L: usize> {
    pub(super) added: bool,
    factors: [Residue<L>; SAMPLES],
}

impl<const L: usize> Change<L> {
    /// `None` for an element that no tree of this dataset holds.
    pub(super) fn of(dataset: &Dataset<L>, element: &Element<L>, added: bool) -> Option<Self> {
        let part = dataset.summarise([element]);
        let factors = if added { part.samples } else { dataset.inverse(&part)? };
        Some(Self { added, factors })
    }
}

/// A stream of elements in path order, each once, with as many read ahead as are needed.
pub(super) struct Ordered<'a, const L: usize, E> {
    ahead: VecDeque<Element<L>>,
    /// The next elements; none at the end.
    more: Box<dyn FnMut() -> Result<Vec<Element<L>>, E> + 'a>,
    ended: bool,
}

impl<'a, const L: usize, E> Ordered<'a, L, E> {
    pub(super) fn new(more: impl FnMut() -> Result<Vec<Element<L>>, E> + 'a) -> Self {
        Self {
            ahead: VecDeque::new(),
            more: Box::new(more),
            ended: false,
        }
    }

    /// Builds the node of this prefix from the elements that come next.
    pub(super) fn build(&mut self, dataset: &Dataset<L>, prefix: &Prefix<L>) -> Result<Node<L>, E> {
        let leaf_max = LEAF_MAX as usize;
        while self.ahead.len() <= leaf_max && !self.ended {
            let more = (self.more)()?;
            self.ended = more.is_empty();
            self.ahead.extend(more);
        }
        let large = self.ahead.get(leaf_max).is_some_and(|element| prefix.contains(element));
        let Some(prefixes) = prefix.children().filter(|_| large) else {
            let here = self.ahead.iter().take_while(|element| prefix.contains(element)).count();
            let elements: Vec<_> = self.ahead.drain(..here).collect();
            return Ok(Node::leaf(dataset.summarise(&elements)));
        };
        let mut summary = dataset.empty();
        let mut children = Vec::with_capacity(CHILDREN);
        for prefix in &prefixes {
            let child = self.build(dataset, prefix)?;
            dataset.add(&mut summary, &child.summary);
            children.push(child);
        }
        let children = <[Node<L>; CHILDREN]>::try_from(children).ok().map(Arc::new);
        Ok(Node { summary, children })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    type Tree = Node<3>;

    fn elements(dataset: &Dataset<3>, seed: u64, count: u64) -> Vec<Element<3>> {
        let mut random = keyrink_recon::random::Random::new(seed);
        let mut all: Vec<_> = (0..count)
            .filter_map(|_| {
                let bytes = [random.next_u64().to_be_bytes(), random.next_u64().to_be_bytes()].concat();
                dataset.element_from_bytes(&bytes).ok()
            })
            .collect();
        all.sort_unstable();
        all
    }

    fn build(dataset: &Dataset<3>, elements: &[Element<3>]) -> Tree {
        let mut pages = elements.chunks(100);
        let mut ordered = Ordered::<3, Infallible>::new(|| Ok(pages.next().unwrap_or_default().to_vec()));
        ordered.build(dataset, &Prefix::ROOT).unwrap()
    }

    fn assert_sums_up(dataset: &Dataset<3>, node: &Tree, prefix: Prefix<3>, all: &[Element<3>]) {
        let below: Vec<_> = all.iter().filter(|element| prefix.contains(element)).collect();
        assert_eq!(node.summary, dataset.summarise(below), "{prefix}");
        if let (Some(children), Some(prefixes)) = (&node.children, prefix.children()) {
            children
                .iter()
                .zip(prefixes)
                .for_each(|(child, prefix)| assert_sums_up(dataset, child, prefix, all));
        }
    }

    #[test]
    fn a_tree_sums_up_what_it_was_built_from() {
        let dataset = Dataset::v1("test");
        for count in [0, 1, LEAF_MAX, LEAF_MAX + 1, 5000] {
            let all = elements(&dataset, 1, count);
            let tree = build(&dataset, &all);
            assert_sums_up(&dataset, &tree, Prefix::ROOT, &all);
            assert_eq!(tree.children.is_some(), count > LEAF_MAX);
            let leaves = tree.leaves(&Prefix::ROOT, None);
            assert_eq!(leaves.iter().map(|(_, summary)| summary.count).sum::<u64>(), count);
            assert!(leaves.iter().all(|(_, summary)| summary.count <= LEAF_MAX));
        }
    }

    #[test]
    fn changes_come_to_the_same_as_building_anew() {
        let dataset = Dataset::v1("test");
        let (old, new) = (elements(&dataset, 1, 3000), elements(&dataset, 2, 300));
        let mut tree = build(&dataset, &old);
        let before = tree.clone();
        for element in &new {
            let _ = tree.apply(&dataset, element, &Change::of(&dataset, element, true).unwrap());
        }
        for element in &old[300..] {
            let _ = tree.apply(&dataset, element, &Change::of(&dataset, element, false).unwrap());
        }
        let mut left = [&old[..300], &new].concat();
        left.sort_unstable();
        assert_sums_up(&dataset, &tree, Prefix::ROOT, &left);
        assert_sums_up(&dataset, &before, Prefix::ROOT, &old);
    }

    #[test]
    fn leaves_that_grow_are_named_and_split() {
        let dataset = Dataset::v1("test");
        let all = elements(&dataset, 3, LEAF_MAX + 50);
        let mut tree = Tree::leaf(dataset.empty());
        let mut named = 0;
        for element in &all {
            let grown = tree.apply(&dataset, element, &Change::of(&dataset, element, true).unwrap());
            named += u64::from(grown == Some(Prefix::ROOT));
        }
        assert_eq!(named, 50);
        tree.graft(&Prefix::ROOT, build(&dataset, &all));
        assert!(tree.children.is_some());
        assert_sums_up(&dataset, &tree, Prefix::ROOT, &all);
        let (leaf, at) = tree.locate(&Prefix::of(&all[0], 128));
        assert!(leaf.children.is_none() && at.contains(&all[0]) && at.length() == 2);
        assert!(
            tree.leaves(&Prefix::ROOT, all.last()).is_empty() || all.last().unwrap().value() < Prefix::<3>::ROOT.last()
        );
    }
}
