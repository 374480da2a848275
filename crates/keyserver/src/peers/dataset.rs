//! What can be reconciled, and how peers say that they mean it.
//!
//! A dataset is a value here: its place in the store, its arithmetic, and the filters that peers announce for it. The
//! code around it never asks which one it has. [`Set`] hides the size of its numbers, so that sets over different
//! fields stand side by side.

use super::tree::Tree;
use crate::formats::{self, Policy};
use keyrink_recon::session::{End, FilterSet, Filters, Omission, Outcome, Session, Tally, TreeOffer};
use keyrink_recon::tree::Unavailable;
use keyrink_recon::wire::FrameReader;
use keyrink_store::{Dataset, Store, StoreError, Vector};
use std::sync::Arc;
use std::time::Duration;

/// A dataset that peers of the first generation reconcile.
#[derive(Debug)]
pub(crate) struct Kind {
    /// What people call it.
    pub(crate) name: &'static str,
    /// Its elements in the store.
    pub(crate) dataset: Dataset,
    /// The filters that stand for it, each set separated by commas; the first is announced to strangers.
    filters: &'static [&'static str],
    /// Its peers answer one request at a time and close connections while they are busy.
    pub(crate) unhurried: bool,
}

/// What SKS 1.1.6 stores.
pub(crate) static SKS: Kind = Kind {
    name: formats::SKS.name,
    dataset: formats::SKS.dataset,
    filters: &["yminsky.dedup,yminsky.merge", "yminsky.dedup", ""],
    unhurried: true,
};

/// What Hockeypuck 2.4 stores. Its filters name the rules by which it does.
pub(crate) static HOCKEYPUCK: Kind = Kind {
    name: formats::HOCKEYPUCK.name,
    dataset: formats::HOCKEYPUCK.dataset,
    filters: &[
        "drop:UAT,drop:hardRevokedCruft,drop:implausible,drop:invalidSelfSig,drop:oldSlhdsaSelfSig,\
        drop:structuralMartian,drop:unbound,drop:unparseable,schema:application/pgp-keys,\
        versions:3+4+6+rfc9980,yminsky.dedup,yminsky.merge",
    ],
    unhurried: false,
};

/// Every dataset, the one for strangers first.
static KINDS: [&Kind; 2] = [&SKS, &HOCKEYPUCK];

/// The name of the tree of the first generation.
pub(crate) const FIRST_TREE: &str = "openpgp/1";
/// The realm of its elements.
pub(crate) const REALM: &str = "openpgp";

/// A reconciled set: one tree over one dataset of the store.
pub(crate) trait Set: Send + Sync {
    /// The dataset.
    fn kind(&self) -> &'static Kind;
    /// The number of elements, as far as the tree has read the store.
    fn count(&self) -> u64;
    /// Reads what changed in the store. Blocks.
    fn refresh(&self) -> Result<(), Unavailable>;
    /// Saves what makes the next start fast, if enough has changed since the last time. Blocks.
    fn save(&self) -> Result<(), Unavailable>;
    /// Reads everything from the elements again, and saves it. Blocks.
    fn reread(&self) -> Result<(), Unavailable>;
    /// What it comes to, as far as the tree has read the store; nothing before it was first needed.
    fn total(&self) -> Option<Total>;
    /// Compares the sums that are saved with those of the rows. Blocks.
    fn check(&self) -> Result<Checked, StoreError>;
    /// The accepting side of a session over the set as it is now. Blocks.
    fn walker(&self, start: Start) -> Result<Machine, Unavailable>;
    /// The calling side.
    fn solver(&self, start: Start) -> Result<Machine, Unavailable>;
}

/// What a set comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Total {
    /// The number of elements.
    pub(crate) elements: u64,
    /// A part of the tree's sums: the same for the same elements on every node, another for others.
    pub(crate) sum: u64,
    /// The version of the store that this is true of.
    pub(crate) seen: Vector,
}

/// What a check of a tree found.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    /// What the rows come to.
    pub(crate) total: Total,
    /// What was compared with them.
    pub(crate) saved: Saved,
    /// What differs, in words.
    pub(crate) wrong: Vec<String>,
}

/// The sums that were saved of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saved {
    /// None: servers read the rows.
    Nothing,
    /// Changes that lead from them to the present are gone: servers do not use them either.
    TooOld,
    /// Those of so many elements, and what changed since.
    Sums { elements: u64 },
}

/// What a session starts with.
pub(crate) struct Start {
    /// The stream, with what the handshake has not used.
    pub(crate) frames: FrameReader,
    /// What both sides leave out.
    pub(crate) omission: Omission,
    /// For random choices.
    pub(crate) seed: u64,
    /// The time of the connection.
    pub(crate) now: Duration,
}

/// A session, whatever the size of its numbers.
pub(crate) type Machine = Box<dyn Session<Outcome = Found> + Send>;

/// What a session found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Why it ended.
    pub(crate) end: End,
    /// Elements the peer has and this node lacks, as the store knows them.
    pub(crate) missing: Vec<Vec<u8>>,
    /// Counts.
    pub(crate) tally: Tally,
}

impl Found {
    /// The same of an outcome whose elements `bytes` turns into octets.
    pub(crate) fn of<const L: usize>(
        outcome: Outcome<L>,
        bytes: impl Fn(&keyrink_recon::element::Element<L>) -> Vec<u8>,
    ) -> Self {
        Self {
            end: outcome.end,
            missing: outcome.missing.iter().map(bytes).collect(),
            tally: outcome.tally,
        }
    }
}

/// The sets of this node.
pub(crate) fn sets(store: &Arc<dyn Store>, policy: Policy) -> Vec<Arc<dyn Set>> {
    let set = |kind: &'static Kind| -> Arc<dyn Set> {
        let dataset = keyrink_recon::dataset::Dataset::v1(kind.name);
        Arc::new(Tree::new(kind, dataset, Arc::clone(store)))
    };
    Kinds::of(policy).0.into_iter().map(set).collect()
}

/// Saves what makes the next start of a server fast, if much has changed since the last time.
pub(crate) fn save_trees(store: &Arc<dyn Store>, policy: Policy) -> Result<(), Unavailable> {
    sets(store, policy).iter().try_for_each(|set| {
        set.refresh()?;
        set.save()
    })
}

/// Throws away what is saved of the trees and has the servers that run read theirs again.
pub(crate) fn forget_trees(store: &dyn Store) -> Result<(), StoreError> {
    for name in names() {
        super::checkpoint::forget(store, name)?;
    }
    let mark = super::session::random().to_be_bytes().to_vec();
    super::partner::save_note(store, READ_AGAIN_NOTE.to_owned(), Some(mark))
}

/// A mark that is another one each time trees have to be read again.
pub(super) const READ_AGAIN_NOTE: &str = "trees";

/// The names of all datasets.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    KINDS.into_iter().map(|kind| kind.name)
}

/// The datasets that this node keeps, the one for strangers first.
#[derive(Clone, Debug)]
pub(crate) struct Kinds(Vec<&'static Kind>);

impl Kinds {
    /// Those of a policy.
    pub(crate) fn of(policy: Policy) -> Self {
        let kept = |kind: &&Kind| policy.families().any(|family| family.dataset == kind.dataset);
        Self(KINDS.into_iter().filter(kept).collect())
    }

    /// All that there are, kept or not.
    pub(crate) fn all() -> Self {
        Self(KINDS.to_vec())
    }

    /// The dataset with this name.
    pub(crate) fn by_name(&self, name: &str) -> Option<&'static Kind> {
        self.0.iter().copied().find(|kind| kind.name == name)
    }

    /// The dataset that a peer's filters stand for, if any. Order and repetitions do not count.
    pub(crate) fn by_filters(&self, filters: &str) -> Option<&'static Kind> {
        let set = |filters: &str| -> std::collections::BTreeSet<String> {
            filters
                .split(',')
                .filter(|filter| !filter.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let wanted = set(filters);
        let mut kinds = self.0.iter().copied();
        kinds.find(|kind| kind.filters.iter().any(|filters| set(filters) == wanted))
    }

    /// What to announce: `filters` if given, else what strangers are told. `only` is the one dataset that is meant.
    pub(crate) fn announcement(&self, filters: Option<&str>, overridden: bool, only: Option<&'static Kind>) -> Filters {
        let meant = only.or_else(|| self.by_filters(filters?));
        let meant = meant.or(self.0.first().copied()).unwrap_or(KINDS[0]);
        let served = self
            .0
            .iter()
            .filter(|kind| only.is_none_or(|only| std::ptr::eq(only, **kind)));
        let known = served.flat_map(|kind| {
            kind.filters.iter().map(|filters| FilterSet {
                filters: (*filters).to_owned(),
                dataset: kind.name.to_owned(),
            })
        });
        Filters {
            announced: filters.unwrap_or(meant.filters[0]).to_owned(),
            dataset: meant.name.to_owned(),
            mirror: !overridden,
            known: known.collect(),
        }
    }
}

/// The trees on offer.
pub(crate) fn offers() -> Vec<TreeOffer> {
    vec![TreeOffer {
        name: FIRST_TREE.to_owned(),
        omission: Omission::default(),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_sets() {
        let kinds = Kinds::all();
        for filters in ["", "yminsky.merge,,yminsky.dedup", "yminsky.dedup,yminsky.dedup"] {
            assert_eq!(
                kinds.by_filters(filters).map(|kind| kind.name),
                Some("sks"),
                "{filters}"
            );
        }
        assert!(kinds.by_filters("yminsky.merge").is_none() && kinds.by_name("openpgp/2").is_none());
        assert_eq!(
            kinds.announcement(None, false, None).announced,
            "yminsky.dedup,yminsky.merge"
        );
        let own = kinds.announcement(Some("drop:UAT"), true, kinds.by_name("sks"));
        assert_eq!(
            (own.announced.as_str(), own.dataset.as_str(), own.mirror),
            ("drop:UAT", "sks", false)
        );
    }

    #[test]
    fn filters_of_a_dataset_that_is_not_kept_mean_nothing() {
        let filters = HOCKEYPUCK.filters[0];
        assert_eq!(filters.split(',').count(), 12);
        assert_eq!(
            Kinds::all().by_filters(filters).map(|kind| kind.name),
            Some("hockeypuck")
        );
        assert!(Kinds(vec![&SKS]).by_filters(filters).is_none());
        assert_eq!(
            Kinds(vec![&HOCKEYPUCK]).announcement(None, false, None).announced,
            filters
        );
    }
}
