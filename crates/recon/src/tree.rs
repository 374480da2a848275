//! The prefix tree: count and samples of every part of a set that a prefix can name.
//!
//! Reconciliation asks one kind of question: *how many elements have this prefix, and what is the
//! product of `point - element` over them?* The product over a node is the product over its
//! children, so a tree of prefixes answers it, and an insert or a removal touches only the nodes on
//! one path: it multiplies them by the element's factors or their inverses.
//!
//! The shape of a tree is nobody's business but its owner's. A session sees it only through
//! [`Nodes`], which answers for *any* prefix, whether a node is stored for it or not.

mod build;
mod memory;

pub use build::BuildError;
pub use memory::{ChangeError, Tree};

use crate::dataset::Summary;
use crate::element::{Element, Prefix};

/// What a session needs from a set: three questions about one unchanging state of it.
pub trait Nodes<const L: usize> {
    /// The number of elements below the prefix.
    fn count(&self, prefix: &Prefix<L>) -> Result<u64, Unavailable>;

    /// Number and samples of the elements below the prefix.
    fn summary(&self, prefix: &Prefix<L>) -> Result<Summary<L>, Unavailable>;

    /// The elements below the prefix in path order, at most `limit` of them, and only those behind
    /// `after` if that is given.
    fn elements(
        &self,
        prefix: &Prefix<L>,
        after: Option<&Element<L>>,
        limit: usize,
    ) -> Result<Vec<Element<L>>, Unavailable>;
}

/// The set cannot be read now; the text says why. The session ends, the peer is not to blame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the set cannot be read: {0}")]
pub struct Unavailable(pub String);

impl<const L: usize, N: Nodes<L> + ?Sized> Nodes<L> for &N {
    fn count(&self, prefix: &Prefix<L>) -> Result<u64, Unavailable> {
        (**self).count(prefix)
    }

    fn summary(&self, prefix: &Prefix<L>) -> Result<Summary<L>, Unavailable> {
        (**self).summary(prefix)
    }

    fn elements(
        &self,
        prefix: &Prefix<L>,
        after: Option<&Element<L>>,
        limit: usize,
    ) -> Result<Vec<Element<L>>, Unavailable> {
        (**self).elements(prefix, after, limit)
    }
}
