//! Whether two configurations suit each other, and what follows from them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Omission;
use crate::dataset::MBAR;
use crate::element::BITQUANTUM;
use crate::wire::Config;

/// The version that every peer of the first generation accepts.
const VERSION_FIRST: &str = "1.1.6";

/// The version of a node without a first-generation tree, which such peers refuse.
const VERSION_SECOND: &str = "2.0.0";

/// The oldest version of the first generation that is understood.
const VERSION_MIN: [u32; 3] = [0, 1, 5];

const KEY_VERSION: &str = "version";
const KEY_PORT: &str = "http port";
const KEY_BITQUANTUM: &str = "bitquantum";
const KEY_MBAR: &str = "mbar";
const KEY_FILTERS: &str = "filters";
const KEY_TREES: &str = "trees";
const KEY_TREE: &str = "tree";
const KEY_OMIT: &str = "omit ";

/// What this node offers one particular peer.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the peer fetches what it lacks.
    pub http_port: u16,
    /// The version to announce in place of the usual one.
    pub version: Option<String>,
    /// The trees on offer, best first.
    pub trees: Vec<TreeOffer>,
    /// The tree that is meant where none is named: that of the first generation.
    pub first_tree: String,
    /// The realm this session is about when calling: the part of a tree's name before the slash.
    pub realm: String,
    /// The tree to choose when calling, if the peer has it, whatever either of both prefers.
    pub wanted: Option<String>,
    /// The datasets of the first generation.
    pub filters: Filters,
    /// The tree to use with a peer that announces the second generation without naming trees.
    pub dialect: Option<String>,
    /// Why there can be no session now, whatever the peer says.
    pub busy: Option<String>,
    /// How long the exchange may take.
    pub patience: Duration,
}

/// A tree on offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeOffer {
    /// Its name: realm, slash, generation.
    pub name: String,
    /// The branches of it this node leaves out.
    pub omission: Omission,
}

/// What filters mean here and what to announce.
#[derive(Clone, Debug)]
pub struct Filters {
    /// The filters to announce, separated by commas.
    pub announced: String,
    /// The dataset they stand for.
    pub dataset: String,
    /// Whether to repeat a peer's own filters to it when calling, if they stand for a dataset.
    pub mirror: bool,
    /// The sets that stand for datasets this node serves.
    pub known: Vec<FilterSet>,
}

/// A set of filters and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterSet {
    /// The filters, separated by commas.
    pub filters: String,
    /// The dataset.
    pub dataset: String,
}

/// What a peer said about itself. Nothing in here is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its version.
    pub version: Option<String>,
    /// The port of its HTTP server.
    pub http_port: Option<u32>,
    /// Its filters as it wrote them.
    pub filters: Option<String>,
    /// The trees it offers; none if it does not know of trees.
    pub trees: Option<Vec<String>>,
    /// The tree it chose, when it called.
    pub tree: Option<String>,
    /// The branches it leaves out, by tree.
    pub omissions: Vec<(String, String)>,
    /// Bits per step of its tree.
    pub bitquantum: Option<u32>,
    /// Samples it interpolates with.
    pub mbar: Option<u32>,
    /// A key that must not be repeated and was.
    pub repeated: Option<String>,
}

/// Why we refuse a peer; the text is what it is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum Refusal {
    #[error("{0}")]
    Busy(String),
    #[error("repeated key {0}")]
    RepeatedKey(String),
    #[error("http port must be 1 to 65535, got {}", number(.0))]
    Port(Option<u32>),
    #[error("version must be three integers, at least 0.1.5, got {}", text(.0))]
    Version(Option<String>),
    #[error("unknown v2 dialect")]
    Dialect,
    #[error("bitquantum is {BITQUANTUM} here, got {}", number(.0))]
    Bitquantum(Option<u32>),
    #[error("mbar is {MBAR} here, got {}", number(.0))]
    Mbar(Option<u32>),
    #[error("filters do not match; missing: [ {missing} ], too many: [ {extra} ]")]
    Filters { missing: String, extra: String },
    #[error("filters stand for {theirs} there and for {ours} here")]
    Dataset { ours: String, theirs: String },
    #[error("no common tree")]
    NoCommonTree,
    #[error("only {0} offered")]
    OnlyOffered(String),
    #[error("malformed omission of {0}")]
    Omission(String),
}

/// What an acceptable pair of configurations comes to.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) tree: String,
    pub(super) dataset: String,
    pub(super) omission: Omission,
}

impl PeerConfig {
    pub(super) fn read(config: &Config) -> Self {
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let value = |key| config.value(key).map(lossy);
        let omissions: Vec<_> = config
            .pairs
            .iter()
            .filter_map(|(key, value)| Some((lossy(key.strip_prefix(KEY_OMIT.as_bytes())?), lossy(value))))
            .collect();
        let omit_keys = omissions.iter().map(|(tree, _)| format!("{KEY_OMIT}{tree}"));
        let repeated = [KEY_TREES.to_owned(), KEY_TREE.to_owned()]
            .into_iter()
            .chain(omit_keys)
            .find(|key| config.values(key).nth(1).is_some());
        Self {
            version: value(KEY_VERSION),
            http_port: config.number(KEY_PORT),
            filters: value(KEY_FILTERS),
            trees: value(KEY_TREES).map(|trees| trees.split_whitespace().map(str::to_owned).collect()),
            tree: value(KEY_TREE),
            omissions,
            bitquantum: config.number(KEY_BITQUANTUM),
            mbar: config.number(KEY_MBAR),
            repeated,
        }
    }

    /// The version as three numbers.
    fn version_numbers(&self) -> Option<[u32; 3]> {
        let parts: Vec<_> = self
            .version
            .as_ref()?
            .split('.')
            .map(plain_integer)
            .collect::<Option<_>>()?;
        parts.try_into().ok()
    }

    /// Whether it announces the second generation in a way nobody has specified.
    fn is_dialect(&self) -> bool {
        self.trees.is_none() && self.version_numbers().is_some_and(|version| version[0] >= 2)
    }
}

impl Settings {
    /// What the accepting side says: it has not heard the peer yet.
    pub(super) fn config_accepting(&self) -> Config {
        let mut config = self.config(&self.filters.announced);
        for offer in &self.trees {
            put_omission(&mut config, offer);
        }
        config
    }

    /// What the accepting side makes of a caller.
    pub(super) fn judge_caller(&self, peer: &PeerConfig) -> Result<Terms, Refusal> {
        self.judge_always(peer)?;
        let tree = match &peer.tree {
            Some(tree) => tree,
            None if peer.is_dialect() => self.dialect.as_ref().ok_or(Refusal::Dialect)?,
            None => {
                let offered = self.offer(&self.first_tree).is_some();
                match &peer.trees {
                    Some(trees) if !offered || !trees.contains(&self.first_tree) => return Err(Refusal::NoCommonTree),
                    None if !offered => return Err(Refusal::OnlyOffered(self.tree_names())),
                    _ => {}
                }
                &self.first_tree
            }
        };
        self.terms(peer, tree, &self.filters.announced, &self.filters.dataset)
    }

    /// What the calling side says to an acceptor it has heard, and makes of it.
    pub(super) fn answer_acceptor(&self, peer: &PeerConfig) -> (Config, Result<Terms, Refusal>) {
        let mirrored = peer.filters.as_ref().filter(|_| self.filters.mirror);
        let mirrored = mirrored.and_then(|filters| Some((filters, self.filters.dataset_of(filters)?)));
        let (announced, dataset) = mirrored.unwrap_or((&self.filters.announced, &self.filters.dataset));

        let mut config = self.config(announced);
        let chosen = self.choose(peer);
        // A peer that names no trees gets no keys it has not heard of, but for the offer itself.
        if let (Ok(offer), Some(_)) = (&chosen, &peer.trees) {
            config.put(KEY_TREE, &offer.name);
            put_omission(&mut config, offer);
        }
        let judged = self
            .judge_always(peer)
            .and(chosen)
            .and_then(|offer| self.terms(peer, &offer.name, announced, dataset));
        (config, judged)
    }

    /// The first tree the acceptor offers that suits this session.
    fn choose(&self, peer: &PeerConfig) -> Result<&TreeOffer, Refusal> {
        if peer.is_dialect() {
            let dialect = self.dialect.as_ref().ok_or(Refusal::Dialect)?;
            return self.offer(dialect).ok_or(Refusal::NoCommonTree);
        }
        let first = std::slice::from_ref(&self.first_tree);
        let theirs = peer.trees.as_deref().unwrap_or(first);
        let of_realm = |tree: &&String| tree.split('/').next() == Some(self.realm.as_str());
        let wanted = self.wanted.iter().filter(|wanted| theirs.contains(wanted));
        wanted
            .chain(theirs.iter().filter(of_realm))
            .find_map(|tree| self.offer(tree))
            .ok_or(Refusal::NoCommonTree)
    }

    fn judge_always(&self, peer: &PeerConfig) -> Result<(), Refusal> {
        if let Some(busy) = &self.busy {
            return Err(Refusal::Busy(busy.clone()));
        }
        if let Some(key) = &peer.repeated {
            return Err(Refusal::RepeatedKey(key.clone()));
        }
        match peer.http_port {
            Some(1..=0xffff) => Ok(()),
            port => Err(Refusal::Port(port)),
        }
    }

    /// The terms of a session on a tree, given the filters we announce in it.
    fn terms(&self, peer: &PeerConfig, tree: &str, announced: &str, dataset: &str) -> Result<Terms, Refusal> {
        let offer = self.offer(tree).ok_or(Refusal::NoCommonTree)?;
        let mut omission = offer.omission.clone();
        if let Some((_, branches)) = peer.omissions.iter().find(|(name, _)| name == tree) {
            let theirs = branches.parse().map_err(|_| Refusal::Omission(tree.to_owned()))?;
            omission = omission.union(&theirs);
        }
        if tree != self.first_tree {
            return Ok(Terms {
                tree: tree.to_owned(),
                dataset: tree.to_owned(),
                omission,
            });
        }
        self.judge_first_generation(peer, announced, dataset)?;
        Ok(Terms {
            tree: tree.to_owned(),
            dataset: dataset.to_owned(),
            omission: Omission::default(),
        })
    }

    fn judge_first_generation(&self, peer: &PeerConfig, announced: &str, dataset: &str) -> Result<(), Refusal> {
        match peer.version_numbers() {
            Some(version) if version >= VERSION_MIN => {}
            _ => return Err(Refusal::Version(peer.version.clone())),
        }
        if peer.bitquantum != Some(BITQUANTUM as u32) {
            return Err(Refusal::Bitquantum(peer.bitquantum));
        }
        if peer.mbar != Some(MBAR as u32) {
            return Err(Refusal::Mbar(peer.mbar));
        }
        let theirs = peer.filters.as_deref().unwrap_or_default();
        if filter_set(theirs) == filter_set(announced) {
            return Ok(());
        }
        match self.filters.dataset_of(theirs) {
            Some(same) if same == dataset => Ok(()),
            Some(other) => Err(Refusal::Dataset {
                ours: dataset.to_owned(),
                theirs: other.to_owned(),
            }),
            None => Err(self.filters.mismatch(theirs)),
        }
    }

    fn config(&self, filters: &str) -> Config {
        let usual = if self.offer(&self.first_tree).is_some() {
            VERSION_FIRST
        } else {
            VERSION_SECOND
        };
        let mut config = Config::default();
        config.put(KEY_VERSION, self.version.as_deref().unwrap_or(usual));
        config.put_number(KEY_PORT, u32::from(self.http_port));
        config.put_number(KEY_BITQUANTUM, BITQUANTUM as u32);
        config.put_number(KEY_MBAR, MBAR as u32);
        config.put(KEY_FILTERS, filters);
        config.put(KEY_TREES, &self.tree_names());
        config
    }

    fn offer(&self, tree: &str) -> Option<&TreeOffer> {
        self.trees.iter().find(|offer| offer.name == tree)
    }

    fn tree_names(&self) -> String {
        let names: Vec<_> = self.trees.iter().map(|offer| offer.name.as_str()).collect();
        names.join(" ")
    }
}

impl Filters {
    /// The dataset that a string of filters stands for.
    fn dataset_of(&self, filters: &str) -> Option<&String> {
        let wanted = filter_set(filters);
        let known = self.known.iter().map(|set| (&set.filters, &set.dataset));
        let mut all = known.chain([(&self.announced, &self.dataset)]);
        all.find(|(filters, _)| filter_set(filters) == wanted)
            .map(|(_, dataset)| dataset)
    }

    /// What separates unknown filters from the nearest ones that are known.
    fn mismatch(&self, filters: &str) -> Refusal {
        let theirs = filter_set(filters);
        let known = self
            .known
            .iter()
            .map(|set| set.filters.as_str())
            .chain([self.announced.as_str()]);
        let nearest = known
            .map(filter_set)
            .min_by_key(|set| set.symmetric_difference(&theirs).count());
        let nearest = nearest.unwrap_or_default();
        let join = |set: Vec<&str>| set.join(" ");
        Refusal::Filters {
            missing: join(nearest.difference(&theirs).copied().collect()),
            extra: join(theirs.difference(&nearest).copied().collect()),
        }
    }
}

fn put_omission(config: &mut Config, offer: &TreeOffer) {
    if !offer.omission.is_empty() {
        config.put(&format!("{KEY_OMIT}{}", offer.name), &offer.omission.to_string());
    }
}

/// Filters as a set: order, repetitions and empty strings do not count.
fn filter_set(filters: &str) -> BTreeSet<&str> {
    filters.split(',').filter(|filter| !filter.is_empty()).collect()
}

/// A number of decimal digits and nothing else.
fn plain_integer(text: &str) -> Option<u32> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

fn number(value: &Option<u32>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or("none")
}
