//! One state of a tree, for as long as a session looks at it.

use super::nodes::Node;
use super::{Core, LOG_MAX, unavailable};
use keyrink_recon::dataset::Summary;
use keyrink_recon::element::{Element, Prefix};
use keyrink_recon::tree::{Nodes, Unavailable};
use keyrink_store::Vector;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A state of a tree that does not change.
pub(super) struct Epoch<const L: usize> {
    core: Arc<Core<L>>,
    root: Node<L>,
    /// The version of the store that it is the state of.
    seen: Vector,
    /// How often the log had been lost when it began.
    lost: u64,
    /// Leaves that were read: sessions ask about the same part of the set again and again.
    leaves: Mutex<HashMap<Prefix<L>, Arc<[Element<L>]>>>,
}

impl<const L: usize> Epoch<L> {
    /// Must be called while the state of the tree is locked, or changes in between would be missed.
    pub(super) fn new(core: &Arc<Core<L>>, root: Node<L>, seen: Vector) -> Self {
        let mut log = core.log();
        log.epochs += 1;
        Self {
            core: Arc::clone(core),
            root,
            seen,
            lost: log.lost,
            leaves: Mutex::default(),
        }
    }

    /// The elements of a leaf.
    fn leaf(&self, prefix: &Prefix<L>, summary: &Summary<L>) -> Result<Arc<[Element<L>]>, Unavailable> {
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = leaves.get(prefix) {
            return Ok(Arc::clone(known));
        }
        let elements: Arc<[Element<L>]> = match summary.count {
            0 => Arc::from([]),
            count => self.read(prefix, count)?.into(),
        };
        if self.core.dataset.summarise(&elements[..]) != *summary {
            // The sums are wrong, or the rows: with the next session everything is read anew.
            *self.core.state() = None;
            self.core.log().forget();
            super::checkpoint::forget(&*self.core.store, self.core.kind.name).map_err(unavailable)?;
            return Err(Unavailable(format!(
                "the tree does not sum up its elements below \"{prefix}\""
            )));
        }
        if leaves.len() >= LEAVES_MAX {
            leaves.clear();
        }
        leaves.insert(*prefix, Arc::clone(&elements));
        Ok(elements)
    }

    /// Reads the range of a leaf and takes back what changed since.
    fn read(&self, prefix: &Prefix<L>, count: u64) -> Result<Vec<Element<L>>, Unavailable> {
        let core = &self.core;
        let length = core.dataset.element_length();
        let first = core.bytes(|out| prefix.first().write(length, out));
        let last = core.bytes(|out| prefix.last().write(length, out));
        let most = usize::try_from(count).unwrap_or(usize::MAX).saturating_add(LOG_MAX);
        let range = core.store.range(core.kind.dataset, &first, &last, most);
        let (mut rows, at) = range.map_err(unavailable)?;
        if let Some(state) = core.state().as_mut()
            && at.iter().any(|(writer, n)| !state.has_seen(*writer, *n))
            && !core.follow(state, None).map_err(unavailable)?
        {
            core.log().forget();
        }
        let log = core.log();
        if log.lost != self.lost {
            return Err(Unavailable("it changed too much since the session began".to_owned()));
        }
        let since = |writer: u32, n: u64| {
            let seen = |vector: &Vector| n <= vector.get(&writer).copied().unwrap_or(0);
            !seen(&self.seen) && seen(&at)
        };
        for (bytes, entries) in log.rows.range(first..=last) {
            let entries = entries.iter().filter(|entry| since(entry.writer, entry.n));
            let net: i64 = entries.map(|entry| if entry.added { 1 } else { -1 }).sum();
            match (net, rows.binary_search(bytes)) {
                (1, Ok(place)) => drop(rows.remove(place)),
                (-1, Err(place)) => rows.insert(place, bytes.clone()),
                _ => {}
            }
        }
        let elements = rows.iter().filter_map(|row| core.element(row));
        Ok(elements.filter(|element| prefix.contains(element)).collect())
    }

    /// The elements below a prefix that lies in a leaf.
    fn within(&self, prefix: &Prefix<L>) -> Result<Within<L>, Unavailable> {
        let (node, at) = self.root.locate(prefix);
        if at == *prefix {
            return Ok(Within::Node(node.summary));
        }
        let mut elements = self.leaf(&at, &node.summary)?.to_vec();
        elements.retain(|element| prefix.contains(element));
        Ok(Within::Leaf(elements))
    }
}

/// What lies below a prefix.
enum Within<const L: usize> {
    /// A node whose sums are kept.
    Node(Summary<L>),
    /// A part of a leaf.
    Leaf(Vec<Element<L>>),
}

impl<const L: usize> Drop for Epoch<L> {
    fn drop(&mut self) {
        let mut log = self.core.log();
        log.epochs -= 1;
        if log.epochs == 0 {
            log.rows.clear();
            log.length = 0;
        }
    }
}

impl<const L: usize> Nodes<L> for Epoch<L> {
    fn count(&self, prefix: &Prefix<L>) -> Result<u64, Unavailable> {
        Ok(match self.within(prefix)? {
            Within::Node(summary) => summary.count,
            Within::Leaf(elements) => elements.len() as u64,
        })
    }

    fn summary(&self, prefix: &Prefix<L>) -> Result<Summary<L>, Unavailable> {
        Ok(match self.within(prefix)? {
            Within::Node(summary) => summary,
            Within::Leaf(elements) => self.core.dataset.summarise(&elements),
        })
    }

    fn elements(
        &self,
        prefix: &Prefix<L>,
        after: Option<&Element<L>>,
        limit: usize,
    ) -> Result<Vec<Element<L>>, Unavailable> {
        let mut found = Vec::new();
        for (at, summary) in self.root.leaves(prefix, after) {
            let leaf = self.leaf(&at, &summary)?;
            let wanted = leaf
                .iter()
                .filter(|element| prefix.contains(element) && after.is_none_or(|after| *element > after));
            found.extend(wanted.take(limit - found.len()));
            if found.len() == limit {
                break;
            }
        }
        Ok(found)
    }
}

/// Leaves that an epoch keeps, each of them some kilobytes.
const LEAVES_MAX: usize = 2048;
