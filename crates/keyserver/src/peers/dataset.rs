//! What can be reconciled, and how peers say that they mean it.
//!
//! A dataset is a value here: its place in the store, its arithmetic, and the filters that peers announce for it. The
//! code around it never asks which one it has. [`Set`] hides the size of its numbers, so that sets over different
//! fields stand side by side.

use super::Node;
use super::tree::Tree;
use crate::formats::{self, Policy};
use crate::ingest::Receipt;
use keyrink_recon::dataset as recon;
use keyrink_recon::session::{End, FilterSet, Filters, Omission, Outcome, Session, Tally, TreeOffer};
use keyrink_recon::tree::Unavailable;
use keyrink_recon::wire::FrameReader;
use keyrink_store::{Dataset, Store, StoreError, Vector};
use std::sync::Arc;
use std::time::Duration;

/// A dataset that peers reconcile.
#[derive(Debug)]
pub(crate) struct Kind {
    /// What people call it.
    pub(crate) name: &'static str,
    /// Its elements in the store.
    pub(crate) dataset: Dataset,
    /// The name of its tree: realm, slash, generation. In a realm one dataset alone has a tree of a later generation than
    /// the first; those that share [`FIRST_TREE`] are told apart by filters.
    pub(crate) tree: &'static str,
    /// The filters that stand for it, each set separated by commas; the first is announced to strangers.
    pub(super) filters: &'static [&'static str],
    /// Its peers answer one request at a time and close connections while they are busy.
    pub(crate) unhurried: bool,
    /// How long something is not asked for the first time that it was of no use. The second generation has no digest that
    /// becomes another one with each signature, so what was of no use stays so.
    pub(crate) refused_first: Duration,
    /// Where its peers answer questions for what has an element.
    pub(crate) path: &'static str,
    /// What becomes of their answers.
    pub(crate) receive: Receive,
}

/// Stores what a peer sent of a dataset, whatever the objects of its realm are. Blocks.
pub(crate) type Receive = fn(&Node, Dataset, &[Vec<u8>]) -> Result<Receipt, StoreError>;

/// What SKS 1.1.6 stores.
pub(crate) static SKS: Kind = Kind {
    name: formats::SKS.name,
    dataset: formats::SKS.dataset,
    tree: FIRST_TREE,
    filters: &["yminsky.dedup,yminsky.merge", "yminsky.dedup", ""],
    unhurried: true,
    refused_first: QUARTER,
    path: HASHQUERY,
    receive: receive_certificates,
};

/// What Hockeypuck 2.4 stores. Its filters name the rules by which it does.
pub(crate) static HOCKEYPUCK: Kind = Kind {
    name: formats::HOCKEYPUCK.name,
    dataset: formats::HOCKEYPUCK.dataset,
    tree: FIRST_TREE,
    filters: &[
        "drop:UAT,drop:hardRevokedCruft,drop:implausible,drop:invalidSelfSig,drop:oldSlhdsaSelfSig,\
        drop:structuralMartian,drop:unbound,drop:unparseable,schema:application/pgp-keys,\
        versions:3+4+6+rfc9980,yminsky.dedup,yminsky.merge",
    ],
    unhurried: false,
    refused_first: QUARTER,
    path: HASHQUERY,
    receive: receive_certificates,
};

/// The self-signatures of all certificates.
pub(crate) static SECOND: Kind = Kind {
    name: formats::SECOND.name,
    dataset: formats::SECOND.dataset,
    tree: formats::SECOND.name,
    filters: &[],
    unhurried: false,
    refused_first: DAY,
    path: HASHQUERY,
    receive: receive_certificates,
};

const HASHQUERY: &str = "/pks/hashquery";

fn receive_certificates(node: &Node, dataset: Dataset, certificates: &[Vec<u8>]) -> Result<Receipt, StoreError> {
    node.ingest.receive(dataset, certificates)
}

const QUARTER: Duration = Duration::from_secs(15 * 60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Every dataset, the one for strangers first.
static KINDS: [&Kind; 3] = [&SKS, &HOCKEYPUCK, &SECOND];

/// The name of the tree of the first generation.
pub(crate) const FIRST_TREE: &str = "openpgp/1";
/// The realm of OpenPGP.
pub(crate) const REALM: &str = "openpgp";

impl Kind {
    /// Is it one for which peers have filters, and elements of 16 octets?
    pub(crate) fn is_first(&self) -> bool {
        self.tree == FIRST_TREE
    }

    /// Of what kind of key infrastructure it is.
    pub(crate) fn realm(&self) -> &'static str {
        self.tree.split('/').next().unwrap_or(self.tree)
    }

    /// What has this element: of the second generation, the octets by which an element names its certificate.
    pub(crate) fn subject<'a>(&self, element: &'a [u8]) -> &'a [u8] {
        match self.is_first() {
            true => element,
            false => element.last_chunk::<16>().map_or(element, |subject| subject),
        }
    }

    /// A set of these in the store.
    pub(crate) fn set(&'static self, store: &Arc<dyn Store>) -> Arc<dyn Set> {
        match self.is_first() {
            true => Arc::new(Tree::new(self, recon::Dataset::v1(self.name), Arc::clone(store))),
            false => Arc::new(Tree::new(self, recon::Dataset::v2(self.name), Arc::clone(store))),
        }
    }
}

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
    /// What is not asked for, or refused when it is asked for.
    pub(crate) manners: Manners,
    /// For random choices.
    pub(crate) seed: u64,
    /// The time of the connection.
    pub(crate) now: Duration,
}

/// Parts of a tree, named by their first bits, that a session treats in a way of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manners {
    /// The peer refused these lately.
    pub(crate) shunned: Vec<String>,
    /// The peer does not get these, and is not asked for them.
    pub(crate) refused: Vec<String>,
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
    /// Parts that the peer refused: their first bits, its code and its text.
    pub(crate) refused: Vec<(String, u8, String)>,
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
            refused: outcome
                .refused
                .into_iter()
                .map(|(prefix, code, text)| (prefix.to_string(), code, text))
                .collect(),
            tally: outcome.tally,
        }
    }
}

/// The sets of this node.
pub(crate) fn sets(store: &Arc<dyn Store>, policy: Policy) -> Vec<Arc<dyn Set>> {
    Kinds::of(policy).0.into_iter().map(|kind| kind.set(store)).collect()
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

    /// Those of `kinds` that this policy has, and those of other realms.
    pub(crate) fn complete(kinds: impl Iterator<Item = &'static Kind>, policy: Policy) -> Self {
        let known = Self::of(policy);
        let is_known = |kind: &Kind| known.by_name(kind.name).is_some() || kind.realm() != REALM;
        Self(kinds.filter(|kind| is_known(kind)).collect())
    }

    /// Realms, OpenPGP first.
    pub(crate) fn realms(&self) -> Vec<&'static str> {
        let mut realms = vec![REALM];
        for kind in &self.0 {
            if !realms.contains(&kind.realm()) {
                realms.push(kind.realm());
            }
        }
        realms
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
        let only = only.filter(|only| only.is_first());
        let first = self.0.iter().copied().find(|kind| kind.is_first());
        let meant = only.or_else(|| self.by_filters(filters?)).or(first).unwrap_or(KINDS[0]);
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

    /// The trees on offer, the best first; `only` is the one dataset that is meant. What is omitted is so from all trees
    /// but the first.
    pub(crate) fn offers(&self, only: Option<&'static Kind>, omission: &Omission) -> Vec<TreeOffer> {
        let mut offers: Vec<TreeOffer> = Vec::new();
        for kind in self.0.iter().rev() {
            let wanted = only.is_none_or(|only| std::ptr::eq(only, *kind));
            if wanted && offers.iter().all(|offer| offer.name != kind.tree) {
                offers.push(TreeOffer {
                    name: kind.tree.to_owned(),
                    omission: if kind.is_first() {
                        Omission::default()
                    } else {
                        omission.clone()
                    },
                });
            }
        }
        offers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a Hockeypuck said when another one called it.
    const REAL: &[u8] =
        include_bytes!("../../../recon/tests/vectors/recon-v1/captures/04-hockeypuck-hockeypuck.acceptor.bin");

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
        assert!(kinds.by_filters("yminsky.merge").is_none() && kinds.by_name("openpgp/3").is_none());
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
    fn what_is_kept_is_offered_and_the_second_generation_first() {
        let names = |kinds: &Kinds, only| -> Vec<String> {
            let offers = kinds.offers(only, &"11".parse().unwrap());
            offers
                .into_iter()
                .map(|offer| format!("{}-{}", offer.name, offer.omission))
                .collect()
        };
        let all = Kinds::all();
        assert_eq!(names(&all, None), ["openpgp/2-11", "openpgp/1-"]);
        assert_eq!(names(&all, all.by_name("sks")), ["openpgp/1-"]);
        assert_eq!(names(&all, all.by_name("openpgp/2")), ["openpgp/2-11"]);
        assert_eq!(names(&Kinds(vec![&HOCKEYPUCK]), None), ["openpgp/1-"]);
        let alone = Kinds(vec![&SECOND]);
        assert_eq!(names(&alone, None), ["openpgp/2-11"]);
        assert!(alone.announcement(None, false, None).known.is_empty());
    }

    #[test]
    fn filters_of_a_dataset_that_is_not_kept_mean_nothing() {
        let filters = HOCKEYPUCK.filters[0];
        assert_eq!(filters.split(',').count(), 12);
        let mut announced = Vec::new();
        for text in ["filters", filters] {
            announced.extend((text.len() as u32).to_be_bytes());
            announced.extend(text.as_bytes());
        }
        let heard = |recorded: &[u8]| recorded.windows(announced.len()).any(|octets| octets == announced);
        assert!(heard(REAL), "a real Hockeypuck announces others");
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
