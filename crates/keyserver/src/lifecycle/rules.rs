//! The rules that hold, what they say about a certificate, and writing that is tied to them.

use super::rule::Address;
use super::{Action, DECISIONS, Kind, Rule, Selector};
use crate::http::time::Instant;
use keyrink_openpgp::cert::{Cert, Component};
use keyrink_openpgp::veto::Veto;
use keyrink_store::{Applied, Batch, Decision, RecordId, Snapshot, Store, StoreError, Stored};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// All rules at some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSet {
    /// All about the same together, the strongest first.
    rules: BTreeMap<Selector, Vec<Rule>>,
    /// The domains that there are rules about, to be looked up by parts of an address.
    domains: BTreeSet<String>,
    /// Value of the note that changes with every rule.
    version: Vec<u8>,
}

/// What the rules say about one certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement<'a> {
    /// The rules that select it or some of its user ids.
    pub rules: BTreeSet<&'a Selector>,
    action: Option<Action>,
    hidden: BTreeSet<Box<[u8]>>,
}

/// Who decided what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub time: Instant,
    /// Who.
    pub by: String,
    /// What: the name of an [`Action`], or `unblock`, `import`, `replace`.
    pub action: String,
    /// About which certificates; not told of those whose address was not to be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Why.
    pub reason: String,
    /// Stored certificates that it changed.
    pub certificates: u64,
}

impl RuleSet {
    /// The rules of a view of the store.
    pub fn read(snapshot: &dyn Snapshot) -> Result<Self, StoreError> {
        let mut set = Self::default();
        let mut after = Some(Kind::Rule.start());
        loop {
            let page = snapshot.records(DECISIONS, after.as_ref(), PAGE)?;
            let rules = page.iter().take_while(|stored| Kind::Rule.holds(&stored.id));
            let mut count = 0;
            for stored in rules {
                let rule: Rule = read(stored)?;
                set.add(rule);
                count += 1;
            }
            match page.last() {
                Some(last) if count == page.len() => after = Some(last.id.clone()),
                _ => return Ok(set),
            }
        }
    }

    /// These rules alone, as if there were no others.
    pub fn of(rules: impl IntoIterator<Item = Rule>) -> Self {
        let mut set = Self::default();
        rules.into_iter().for_each(|rule| set.add(rule));
        set
    }

    fn add(&mut self, rule: Rule) {
        if let Selector::Domain(domain) = &rule.selector {
            self.domains.insert(domain.clone());
        }
        let others = self.rules.entry(rule.selector.clone()).or_default();
        let at = others.partition_point(|other| other.key() > rule.key());
        others.insert(at, rule);
    }

    /// All of them, in order of their selectors.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.values().flatten()
    }

    /// There are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules about just this, the strongest first.
    pub fn about(&self, selector: &Selector) -> &[Rule] {
        self.rules.get(selector).map_or(&[], Vec::as_slice)
    }

    /// The version that the next change of them makes.
    pub(super) fn next_version(&self) -> u64 {
        let number = self.version.as_slice().try_into().map_or(0, u64::from_be_bytes);
        number.wrapping_add(1)
    }

    /// How many there are of each action.
    pub fn counts(&self) -> BTreeMap<Action, u64> {
        let mut counts = BTreeMap::from([(Action::Block, 0), (Action::Erase, 0), (Action::HideUid, 0)]);
        for rule in self.iter() {
            *counts.entry(rule.action).or_default() += 1;
        }
        counts
    }

    /// What they say about a verified certificate. User ids count if the owner signed them: others can be put on any
    /// certificate by anybody.
    pub fn judge(&self, cert: &Cert) -> Judgement<'_> {
        let mut judgement = Judgement::default();
        if self.rules.is_empty() {
            return judgement;
        }
        let key = cert.key();
        let whole = [
            Selector::Fingerprint(key.fingerprint().as_bytes().to_vec()),
            Selector::KeyId(key.key_id().0),
        ];
        for rule in whole.iter().flat_map(|selector| self.about(selector)) {
            judgement.take(rule, cert.own_user_ids());
        }
        for user_id in cert.own_user_ids() {
            for rule in self.about_user_id(user_id) {
                judgement.take(rule, std::iter::once(user_id));
            }
        }
        judgement
    }

    /// The rules that select this user id. Nothing is copied but what they name.
    fn about_user_id(&self, user_id: &Component) -> Vec<&Rule> {
        let Some(address) = Address::of(&user_id.body) else {
            return Vec::new();
        };
        let domains = address.domains().filter_map(|domain| self.domains.get(domain));
        let domains = domains.map(|domain| Selector::Domain(domain.clone()));
        let email = address.email().map(|email| Selector::Email(email.to_owned()));
        let selectors = email.into_iter().chain(domains);
        selectors.flat_map(|selector| self.about(&selector)).collect()
    }

    /// Does a rule select this user id?
    pub(crate) fn selects(&self, user_id: &Component) -> bool {
        !self.about_user_id(user_id).is_empty()
    }
}

impl<'a> Judgement<'a> {
    fn take<'c>(&mut self, rule: &'a Rule, user_ids: impl Iterator<Item = &'c Component>) {
        self.rules.insert(&rule.selector);
        match rule.action {
            Action::HideUid => self.hidden.extend(user_ids.map(|user_id| user_id.body.clone())),
            action => self.action = self.action.max(Some(action)),
        }
    }

    /// What is done with the certificate as a whole.
    pub fn ban(&self) -> Option<Action> {
        self.action
    }

    /// There must be no record.
    pub fn erases(&self) -> bool {
        self.action == Some(Action::Erase)
    }

    /// There is no element, and nothing but a revocation is taken or shown.
    pub fn blocks(&self) -> bool {
        self.action == Some(Action::Block)
    }

    /// What is kept from users.
    pub fn veto(&self) -> Veto {
        match self.action {
            Some(_) => Veto::Certificate,
            None if self.hidden.is_empty() => Veto::Nothing,
            None => Veto::UserIds(self.hidden.clone()),
        }
    }
}

/// The way to write certificates.
#[derive(Debug, Default)]
pub struct Rules {
    /// As they were known to be last.
    known: Mutex<Option<Arc<RuleSet>>>,
}

/// Decides about the certificate at a position, given the rules and what is stored.
pub type Decide = dyn Fn(&RuleSet, usize, Option<&Stored>) -> Decision + Send + Sync;

impl Rules {
    /// The rules, perhaps not the newest. Good for a guess; what is written goes by those of its transaction.
    pub fn known(&self, store: &dyn Store) -> Result<Arc<RuleSet>, StoreError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        known.map_or_else(|| self.learn(store), Ok)
    }

    /// The rules as they are now; one small read if they have not changed.
    pub fn newest(&self, store: &dyn Store) -> Result<Arc<RuleSet>, StoreError> {
        let known = self.known(store)?;
        match store.note(NOTE)?.is_some_and(|version| version == known.version) {
            true => Ok(known),
            false => self.learn(store),
        }
    }

    /// Runs a batch of certificates; all decisions go by the rules that hold as it is written.
    pub fn update(
        &self,
        store: &dyn Store,
        ids: &[RecordId],
        decide: &Arc<Decide>,
        notes: &[(String, Option<Vec<u8>>)],
    ) -> Result<Vec<Applied>, StoreError> {
        self.tied::<StoreError>(store, |rules| {
            let (decide, given) = (Arc::clone(decide), Arc::clone(rules));
            Ok(Batch {
                realm: crate::formats::OPENPGP,
                ids: ids.to_vec(),
                decide: Box::new(move |at, old| decide(&given, at, old)),
                notes: notes.to_vec(),
                premise: Some((NOTE.to_owned(), rules.version.clone())),
            })
        })
    }

    /// Changes rules: runs a batch of [`DECISIONS`] and tells everybody who writes. `make` gets the rules and must not rely on
    /// others.
    pub(super) fn change<E: From<StoreError>>(
        &self,
        store: &dyn Store,
        make: impl Fn(&RuleSet) -> Result<Batch, E>,
    ) -> Result<Vec<Applied>, E> {
        let applied = self.tied::<E>(store, |rules| {
            let mut batch = make(rules)?;
            let next = rules.next_version().to_be_bytes();
            batch.notes.push((NOTE.to_owned(), Some(next.to_vec())));
            batch.premise = Some((NOTE.to_owned(), rules.version.clone()));
            Ok(batch)
        })?;
        self.learn(store)?;
        Ok(applied)
    }

    fn tied<E: From<StoreError>>(
        &self,
        store: &dyn Store,
        make: impl Fn(&Arc<RuleSet>) -> Result<Batch, E>,
    ) -> Result<Vec<Applied>, E> {
        let mut rules = self.known(store)?;
        for _ in 0..OVERTAKEN_MAX {
            match store.update(make(&rules)?) {
                Err(StoreError::Overtaken) => rules = self.learn(store)?,
                done => return Ok(done?),
            }
        }
        let reason = "the rules about certificates change all the time: try again";
        Err(StoreError::Unavailable(reason.into()).into())
    }

    /// Reads them anew. The note first: what is read may then be newer than it says, and never older.
    fn learn(&self, store: &dyn Store) -> Result<Arc<RuleSet>, StoreError> {
        let version = match store.note(NOTE)? {
            Some(version) => version,
            None => {
                let first = 0_u64.to_be_bytes().to_vec();
                store.swap_note(NOTE, None, &first)?;
                store.note(NOTE)?.unwrap_or(first)
            }
        };
        let snapshot = store.snapshot()?;
        let rules = Arc::new(RuleSet {
            version,
            ..RuleSet::read(&*snapshot)?
        });
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&rules));
        Ok(rules)
    }
}

/// Reads a record of [`DECISIONS`].
pub(super) fn read<T: for<'a> Deserialize<'a>>(stored: &Stored) -> Result<T, StoreError> {
    serde_json::from_slice(&stored.data).map_err(|error| StoreError::Damaged(format!("a rule can't be read: {error}")))
}

/// Its value is another one after every change of a rule.
const NOTE: &str = "rules";
/// Rules read at once.
const PAGE: usize = 1000;
/// How often in a row rules may change under a batch.
const OVERTAKEN_MAX: usize = 100;
