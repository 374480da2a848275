//! The tree in memory, elements included.
//!
//! Nodes are shared and copied when written: [`Tree::clone`] costs one counter and gives a session
//! an *epoch* that no later change touches, while the writer copies at most the nodes on one path
//! for each change, and nothing at all when no session is looking.
//!
//! Leaves hold their elements packed and in order and no samples: those of fifty elements are
//! computed faster than their memory is worth. An inner node holds count and samples.

use std::iter;
use std::sync::Arc;

use super::{BuildError, Nodes, Unavailable, build};
use crate::dataset::{Dataset, SAMPLES, Summary};
use crate::element::{BITQUANTUM, CHILDREN, Element, Prefix, Value};
use crate::field::Residue;

/// A set of elements with the samples of its parts. Cloning it is cheap and makes an epoch.
#[derive(Clone, Debug)]
pub struct Tree<const L: usize> {
    dataset: Arc<Dataset<L>>,
    count: u64,
    root: Node<L>,
}

/// A change that does not fit the set, which then stays as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The element to insert is already there.
    #[error("the element is already in the set")]
    Duplicate,
    /// The element to remove is not there.
    #[error("the element is not in the set")]
    Missing,
    /// The element is a sample point of this tree's dataset, so it was made by another one.
    #[error("the element is a sample point of the dataset")]
    SamplePoint,
}

#[derive(Clone, Debug)]
pub(super) enum Node<const L: usize> {
    Leaf(Leaf),
    Inner(Arc<Inner<L>>),
}

/// The elements of a leaf in path order, each as the words that hold its bytes.
#[derive(Clone, Debug)]
pub(super) struct Leaf(Arc<[u64]>);

#[derive(Clone, Debug)]
pub(super) struct Inner<const L: usize> {
    pub(super) summary: Summary<L>,
    pub(super) children: [Node<L>; CHILDREN],
}

impl<const L: usize> Tree<L> {
    /// The empty set.
    pub fn new(dataset: Arc<Dataset<L>>) -> Self {
        let root = Node::Leaf(Leaf(Arc::from([])));
        Self {
            dataset,
            count: 0,
            root,
        }
    }

    /// Builds the tree of elements that come in path order, from the leaves up: about one product
    /// for each element and sample point. Only a few leaves' worth of elements is held back.
    pub fn build(dataset: Arc<Dataset<L>>, elements: impl IntoIterator<Item = Element<L>>) -> Result<Self, BuildError> {
        let (root, summary) = build::build(&dataset, elements.into_iter())?;
        Ok(Self {
            dataset,
            count: summary.count,
            root,
        })
    }

    /// The dataset this set belongs to.
    pub fn dataset(&self) -> &Arc<Dataset<L>> {
        &self.dataset
    }

    /// The number of elements.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether the element is in the set.
    pub fn contains(&self, element: &Element<L>) -> bool {
        let (mut node, mut depth) = (&self.root, 0);
        while let Node::Inner(inner) = node {
            node = &inner.children[element.step(depth)];
            depth += 1;
        }
        matches!(node, Node::Leaf(leaf) if leaf.position(self.width(), element).is_ok())
    }

    /// All elements in path order.
    pub fn iter(&self) -> impl Iterator<Item = Element<L>> + '_ {
        let mut waiting = vec![&self.root];
        iter::from_fn(move || {
            loop {
                match waiting.pop()? {
                    Node::Leaf(leaf) => return Some(leaf.iter(self.width())),
                    Node::Inner(inner) => waiting.extend(inner.children.iter().rev()),
                }
            }
        })
        .flatten()
    }

    /// The leaves in path order with their number of elements: the shape, for inspection.
    pub fn leaves(&self) -> Vec<(Prefix<L>, usize)> {
        let mut leaves = Vec::new();
        let mut waiting = vec![(Prefix::ROOT, &self.root)];
        while let Some((prefix, node)) = waiting.pop() {
            match (node, prefix.children()) {
                (Node::Inner(inner), Some(prefixes)) => waiting.extend(prefixes.into_iter().zip(&inner.children).rev()),
                (Node::Leaf(leaf), _) => leaves.push((prefix, leaf.0.len() / self.width())),
                (Node::Inner(_), None) => {}
            }
        }
        leaves
    }

    /// Adds an element.
    pub fn insert(&mut self, element: Element<L>) -> Result<(), ChangeError> {
        let factors = self.factors(&element)?;
        if self.contains(&element) {
            return Err(ChangeError::Duplicate);
        }
        insert(&self.dataset, &mut self.root, 0, &element, &factors);
        self.count += 1;
        Ok(())
    }

    /// Takes an element away.
    pub fn remove(&mut self, element: &Element<L>) -> Result<(), ChangeError> {
        let mut factors = self.factors(element)?;
        if !self.contains(element) {
            return Err(ChangeError::Missing);
        }
        // A factor without inverse is zero when the modulus is prime, and those are excluded.
        if !self.dataset.field().invert_all(&mut factors) {
            return Err(ChangeError::SamplePoint);
        }
        remove(&self.dataset, &mut self.root, 0, element, &factors);
        self.count -= 1;
        Ok(())
    }

    fn factors(&self, element: &Element<L>) -> Result<[Residue<L>; SAMPLES], ChangeError> {
        let factors = self.dataset.factors(element);
        match factors.iter().any(|factor| factor.is_zero()) {
            true => Err(ChangeError::SamplePoint),
            false => Ok(factors),
        }
    }

    /// The stored node that holds everything below the prefix: the node itself, or a leaf above it.
    fn locate(&self, prefix: &Prefix<L>) -> &Node<L> {
        let mut node = &self.root;
        for depth in 0..prefix.length() / BITQUANTUM {
            match node {
                Node::Leaf(_) => break,
                Node::Inner(inner) => node = &inner.children[prefix.step(depth)],
            }
        }
        node
    }

    fn width(&self) -> usize {
        width(&self.dataset)
    }
}

impl<const L: usize> Nodes<L> for Tree<L> {
    fn count(&self, prefix: &Prefix<L>) -> Result<u64, Unavailable> {
        Ok(match self.locate(prefix) {
            Node::Leaf(leaf) => leaf.below(self.width(), prefix).count() as u64,
            Node::Inner(inner) => inner.summary.count,
        })
    }

    fn summary(&self, prefix: &Prefix<L>) -> Result<Summary<L>, Unavailable> {
        Ok(match self.locate(prefix) {
            Node::Leaf(leaf) => {
                let elements: Vec<_> = leaf.below(self.width(), prefix).collect();
                self.dataset.summarise(&elements)
            }
            Node::Inner(inner) => inner.summary,
        })
    }

    fn elements(
        &self,
        prefix: &Prefix<L>,
        after: Option<&Element<L>>,
        limit: usize,
    ) -> Result<Vec<Element<L>>, Unavailable> {
        let mut found = Vec::new();
        // A bound below the prefix is no bound, and outside of it the tree has no path for it.
        let after = after.filter(|after| after.value() >= prefix.first());
        let depth = prefix.length() / BITQUANTUM;
        let wanted = |element: &Element<L>| prefix.contains(element) && after.is_none_or(|after| element > after);
        collect(self.locate(prefix), depth, after, &mut |leaf| {
            found.extend(leaf.iter(self.width()).filter(wanted).take(limit - found.len()));
            found.len() < limit
        });
        Ok(found)
    }
}

impl Leaf {
    pub(super) fn pack<const L: usize>(width: usize, elements: &[Element<L>]) -> Self {
        let mut words = Vec::with_capacity(width * elements.len());
        elements
            .iter()
            .for_each(|element| words.extend_from_slice(&element.value().words()[..width]));
        Self(Arc::from(words))
    }

    fn iter<const L: usize>(&self, width: usize) -> impl Iterator<Item = Element<L>> + '_ {
        self.0.chunks_exact(width).map(unpack)
    }

    fn below<const L: usize>(&self, width: usize, prefix: &Prefix<L>) -> impl Iterator<Item = Element<L>> {
        self.iter(width).filter(move |element| prefix.contains(element))
    }

    /// Where the element is, or where it belongs.
    fn position<const L: usize>(&self, width: usize, element: &Element<L>) -> Result<usize, usize> {
        let wanted = element.value().words();
        let (mut low, mut high) = (0, self.0.len() / width);
        while low < high {
            let middle = (low + high) / 2;
            match self.0[middle * width..][..width].cmp(&wanted[..width]) {
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }
}

impl<const L: usize> Node<L> {
    fn leaf(dataset: &Dataset<L>, elements: &[Element<L>]) -> Self {
        Self::Leaf(Leaf::pack(width(dataset), elements))
    }
}

/// Words that hold the bytes of an element.
pub(super) fn width<const L: usize>(dataset: &Dataset<L>) -> usize {
    dataset.element_length().div_ceil(8)
}

fn unpack<const L: usize>(packed: &[u64]) -> Element<L> {
    let mut words = [0; L];
    words[..packed.len()].copy_from_slice(packed);
    Element::unchecked(Value::from_words(words))
}

/// Inserts an element that is not there.
fn insert<const L: usize>(
    dataset: &Dataset<L>,
    node: &mut Node<L>,
    depth: usize,
    element: &Element<L>,
    factors: &[Residue<L>; SAMPLES],
) {
    match node {
        Node::Inner(inner) => {
            let inner = Arc::make_mut(inner);
            inner.summary.count += 1;
            dataset.scale(&mut inner.summary.samples, factors);
            insert(
                dataset,
                &mut inner.children[element.step(depth)],
                depth + 1,
                element,
                factors,
            );
        }
        Node::Leaf(leaf) => {
            let mut elements: Vec<_> = leaf.iter(width(dataset)).collect();
            let at = elements.partition_point(|other| other < element);
            elements.insert(at, *element);
            *node = match elements.len() > dataset.thresholds.leaf_max {
                true => build::split(dataset, &elements, depth),
                false => Node::leaf(dataset, &elements),
            };
        }
    }
}

/// Removes an element that is there, given the inverses of its factors.
fn remove<const L: usize>(
    dataset: &Dataset<L>,
    node: &mut Node<L>,
    depth: usize,
    element: &Element<L>,
    inverses: &[Residue<L>; SAMPLES],
) {
    let joins = match node {
        Node::Leaf(_) => true,
        Node::Inner(inner) => inner.summary.count <= dataset.thresholds.leaf_join as u64 + 1,
    };
    match node {
        Node::Inner(inner) if !joins => {
            let inner = Arc::make_mut(inner);
            inner.summary.count -= 1;
            dataset.scale(&mut inner.summary.samples, inverses);
            remove(
                dataset,
                &mut inner.children[element.step(depth)],
                depth + 1,
                element,
                inverses,
            );
        }
        _ => {
            let mut elements = Vec::new();
            collect(node, depth, None, &mut |leaf| {
                elements.extend(leaf.iter(width(dataset)).filter(|other| other != element));
                true
            });
            *node = Node::leaf(dataset, &elements);
        }
    }
}

/// Visits the leaves of a node in path order, leaving out those wholly before `after`, until the
/// visitor has enough. The recursion is as deep as the tree.
fn collect<const L: usize>(
    node: &Node<L>,
    depth: usize,
    after: Option<&Element<L>>,
    visit: &mut impl FnMut(&Leaf) -> bool,
) -> bool {
    match node {
        Node::Leaf(leaf) => visit(leaf),
        Node::Inner(inner) => {
            let first = after.map_or(0, |after| after.step(depth));
            inner.children[first..].iter().enumerate().all(|(index, child)| {
                // Only the first child can hold elements on both sides of the bound.
                collect(child, depth + 1, after.filter(|_| index == 0), visit)
            })
        }
    }
}
