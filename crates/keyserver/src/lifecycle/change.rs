//! Making rules and taking them back, and making what is stored follow them.
//!
//! First the rules change, in one transaction with a note of what is yet to follow; from then on nobody writes by the old
//! ones. Then every record that a changed rule selects is derived anew. A server goes on with that if the program that
//! began it ends too early.

use super::rules::{Rules, read};
use super::search::{Hits, candidates};
use super::{Action, DECISIONS, Entry, Kind, Rule, RuleSet, Selector, id};
use crate::acquaint::Acquaintance;
use crate::formats::{Policy, hexadecimal};
use crate::http::time::Instant;
use crate::peers::refused;
use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::crypto::digest::sha256;
use keyrink_store::{Batch, Decision, Record, RecordId, Store, StoreError, Stored};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use thiserror::Error;

/// A decision of the operator.
#[derive(Clone, Debug)]
pub struct Change {
    /// What is done with the certificates from now on; none: whatever was decided about them is taken back.
    pub action: Option<Action>,
    /// Which certificates.
    pub selectors: Vec<Selector>,
    /// Only those that are stored now: no address is kept.
    pub once: bool,
    /// Why.
    pub reason: String,
    /// Who decided.
    pub by: String,
    /// When.
    pub time: Instant,
    /// The SHA-256 of the signed order that this carries out.
    pub order: Option<[u8; 32]>,
}

/// Why a change was not made.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is nothing to take back.
    #[error("there is no rule about {0}: `keyrink admin list` shows all")]
    NoRule(Selector),
    /// The order was carried out before.
    #[error("this order was carried out before: sign a new one")]
    Replayed,
    /// It would hide more than it names.
    #[error("`--once` keeps no address, so it cannot be told later which user ids are hidden: leave it out")]
    OnceHides,
}

impl Change {
    /// Makes the change; the number of stored certificates that it was about.
    pub fn make(&self, store: &dyn Store, rules: &Rules, policy: Policy) -> Result<u64, ChangeError> {
        match self.action {
            Some(Action::HideUid) if self.once => Err(ChangeError::OnceHides),
            Some(action) => self.put(store, rules, policy, action),
            None => self.take_back(store, rules, policy),
        }
    }

    fn put(&self, store: &dyn Store, rules: &Rules, policy: Policy, action: Action) -> Result<u64, ChangeError> {
        let (mut selected, mut made) = (BTreeSet::new(), BTreeSet::new());
        for selector in &self.selectors {
            let hits = Hits::of(store, selector)?;
            // Of a copy that comes without the address nothing else would tell that it was erased.
            if selector.is_open() && (self.once || action == Action::Erase) {
                made.extend(hits.fingerprints.iter().cloned().map(Selector::Fingerprint));
            }
            if !(selector.is_open() && self.once) {
                made.insert(selector.clone());
            }
            selected.extend(hits.fingerprints);
        }
        let made: Vec<Selector> = made.into_iter().collect();
        let decision = (made.len() > 1).then(|| self.number());
        let mut entries = self.entries(selected.len() as u64);
        for part in made.chunks(RULES_AT_ONCE) {
            let part: Vec<Rule> = part
                .iter()
                .map(|selector| self.rule(action, selector, &decision))
                .collect();
            put_rules(store, rules, policy, &part, std::mem::take(&mut entries), self.order)?;
        }
        Ok(selected.len() as u64)
    }

    fn rule(&self, action: Action, selector: &Selector, decision: &Option<String>) -> Rule {
        Rule {
            action,
            selector: selector.clone(),
            reason: self.reason.clone(),
            by: self.by.clone(),
            time: self.time,
            decision: decision.clone(),
        }
    }

    fn take_back(&self, store: &dyn Store, rules: &Rules, policy: Policy) -> Result<u64, ChangeError> {
        let known = RuleSet::read(&*store.snapshot()?)?;
        let gone = self.taken_back(&known)?;
        let mut entries = self.entries(gone.len() as u64);
        for part in gone.chunks(RULES_AT_ONCE) {
            let written = Writing {
                selectors: part.iter().map(|rule| rule.selector.clone()).collect(),
                rows: part
                    .iter()
                    .map(|rule| Ok((rule_id(rule)?, None)))
                    .collect::<Result<_, StoreError>>()?,
                entries: std::mem::take(&mut entries),
                order: self.order,
                allows: true,
            };
            let followed = written.write(store, rules)?;
            follow(store, rules, policy, &followed)?;
        }
        Ok(gone.len() as u64)
    }

    /// The rules that this takes back: all about what it names, with all that came of the same decisions. A decision about an
    /// address or a domain that it does not name holds on: of that, only what is about the named goes.
    fn taken_back<'a>(&self, known: &'a RuleSet) -> Result<Vec<&'a Rule>, ChangeError> {
        let names = |rule: &Rule| self.selectors.contains(&rule.selector);
        if let Some(unknown) = self.selectors.iter().find(|selector| known.about(selector).is_empty()) {
            return Err(ChangeError::NoRule(unknown.clone()));
        }
        let named = self.selectors.iter().flat_map(|selector| known.about(selector));
        let mut decisions: BTreeSet<&str> = named.filter_map(|rule| rule.decision.as_deref()).collect();
        for other in known.iter().filter(|rule| rule.selector.is_open() && !names(rule)) {
            other.decision.as_deref().map(|decision| decisions.remove(decision));
        }
        let together = |rule: &Rule| rule.decision.as_deref().is_some_and(|of| decisions.contains(of));
        Ok(known.iter().filter(|rule| names(rule) || together(rule)).collect())
    }

    fn entries(&self, certificates: u64) -> Vec<Entry> {
        let entry = |selector: &Selector| Entry {
            time: self.time,
            by: self.by.clone(),
            action: self.action.map_or("unblock", Action::name).to_owned(),
            selector: (!(self.once && selector.is_open())).then(|| selector.clone()),
            reason: self.reason.clone(),
            certificates,
        };
        self.selectors.iter().map(entry).collect()
    }

    /// Tells this decision from others.
    fn number(&self) -> String {
        let all = format!("{:?} {:?}", self, std::time::SystemTime::now());
        hexadecimal(&sha256(&[all.as_bytes()])[..8])
    }
}

/// Makes rules and lets what is stored follow them.
pub(super) fn put_rules(
    store: &dyn Store,
    rules: &Rules,
    policy: Policy,
    made: &[Rule],
    entries: Vec<Entry>,
    order: Option<[u8; 32]>,
) -> Result<(), ChangeError> {
    let rows = made.iter().map(|rule| Ok((rule_id(rule)?, Some(json(rule)?))));
    let written = Writing {
        selectors: made.iter().map(|rule| rule.selector.clone()).collect(),
        rows: rows.collect::<Result<_, StoreError>>()?,
        entries,
        order,
        allows: false,
    };
    let followed = written.write(store, rules)?;
    Ok(follow(store, rules, policy, &followed)?)
}

/// Makes rules that some list holds, and notes who brought it; how many there were.
pub fn import(
    store: &dyn Store,
    rules: &Rules,
    policy: Policy,
    list: &[Rule],
    entry: Entry,
) -> Result<u64, ChangeError> {
    let mut entries = vec![entry];
    for part in list.chunks(RULES_AT_ONCE) {
        put_rules(store, rules, policy, part, std::mem::take(&mut entries), None)?;
    }
    Ok(list.len() as u64)
}

/// All that was noted about decisions, in the order of time.
pub fn entries(store: &dyn Store, visit: &mut dyn FnMut(Entry)) -> Result<(), StoreError> {
    let snapshot = store.snapshot()?;
    let mut after = Some(Kind::Entry.start());
    loop {
        let page = snapshot.records(DECISIONS, after.as_ref(), RULES_AT_ONCE)?;
        for stored in page.iter().take_while(|stored| Kind::Entry.holds(&stored.id)) {
            visit(read(stored)?);
        }
        match page.last() {
            Some(last) if Kind::Entry.holds(&last.id) => after = Some(last.id.clone()),
            _ => return Ok(()),
        }
    }
}

/// Goes on with what some program began to let follow the rules, and did not end.
pub fn finish_pending(store: &dyn Store, rules: &Rules, policy: Policy) -> Result<(), StoreError> {
    let pending = pending(store)?;
    if pending.is_empty() {
        return Ok(());
    }
    tracing::info!("what is stored follows {} changed rules", pending.len());
    follow(store, rules, policy, &pending)
}

/// What select the rules that changed last, and that what is stored may not follow yet.
pub(crate) fn unfollowed(store: &dyn Store) -> Result<RuleSet, StoreError> {
    let rules = pending(store)?.into_keys().map(|selector| Rule {
        action: Action::Block,
        selector,
        reason: String::new(),
        by: String::new(),
        time: Instant(0),
        decision: None,
    });
    Ok(RuleSet::of(rules))
}

/// Decides about a record that the rules, or what is derived from it, may have changed for.
pub(crate) fn derive(
    rules: &RuleSet,
    stored: Option<&Stored>,
    policy: Policy,
    acquaintance: Option<&Acquaintance>,
) -> Decision {
    let Some(mut cert) = stored.and_then(|stored| Cert::decode(&stored.data).ok()) else {
        return Decision::Keep;
    };
    if let Some(acquaintance) = acquaintance {
        acquaintance.note(&mut cert);
    }
    let judgement = rules.judge(&cert);
    match judgement.erases() {
        true => Decision::Delete,
        false => Decision::Put(policy.record(&cert, &judgement.veto())),
    }
}

/// Lets every record that one of these selects follow the rules.
fn follow(store: &dyn Store, rules: &Rules, policy: Policy, pending: &Pending) -> Result<(), StoreError> {
    let selectors: Vec<Selector> = pending.keys().cloned().collect();
    candidates(store, &selectors, &mut |ids| {
        let decide: Arc<super::rules::Decide> = Arc::new(move |rules, _, stored| derive(rules, stored, policy, None));
        rules.update(store, ids, &decide, &[]).map(drop)
    })?;
    forget_pending(store, pending)
}

/// Rows of rules to be written, with what goes with them.
struct Writing {
    /// Yet to be followed.
    selectors: Vec<Selector>,
    rows: Vec<(RecordId, Option<Vec<u8>>)>,
    /// They come with the first part of a decision only, and so does its order.
    entries: Vec<Entry>,
    order: Option<[u8; 32]>,
    /// Something may be wanted that was not: what is refused for the sake of the rules of before is forgotten.
    allows: bool,
}

impl Writing {
    /// What is yet to follow.
    fn write(self, store: &dyn Store, rules: &Rules) -> Result<Pending, ChangeError> {
        let mut rows = self.rows;
        for (at, entry) in self.entries.iter().enumerate() {
            rows.push((entry_id(entry, at)?, Some(json(entry)?)));
        }
        let order = self.order.filter(|_| !self.entries.is_empty());
        rows.extend(order.iter().map(|order| (Kind::Spent.id(order), Some(Vec::new()))));
        let (rows, selectors, allows) = (Arc::new(rows), self.selectors, self.allows);
        let version = AtomicU64::new(0);
        let forgotten = refused::everybody(store)?;
        rules.change(store, |rules| {
            if let Some(order) = order
                && is_spent(store, order)?
            {
                return Err(ChangeError::Replayed);
            }
            version.store(rules.next_version(), Ordering::Relaxed);
            let mut waiting = pending(store)?;
            waiting.extend(
                selectors
                    .iter()
                    .map(|selector| (selector.clone(), rules.next_version())),
            );
            let mut notes = vec![(PENDING.to_owned(), Some(json(&waiting)?))];
            notes.extend(allows.then(|| refused::forget_everybody(rules.next_version())));
            let rows = Arc::clone(&rows);
            Ok(Batch {
                realm: DECISIONS,
                ids: rows.iter().map(|(id, _)| id.clone()).collect(),
                decide: Box::new(move |at, _| row(rows[at].1.clone())),
                notes,
                premise: None,
            })
        })?;
        if allows {
            store.trim_refusals(&forgotten, 0)?;
        }
        if order.is_some() {
            forget_spent(store)?;
        }
        let version = version.into_inner();
        Ok(selectors.into_iter().map(|selector| (selector, version)).collect())
    }
}

/// Was this order carried out?
pub(super) fn is_spent(store: &dyn Store, order: [u8; 32]) -> Result<bool, StoreError> {
    let found = store.get(DECISIONS, &[Kind::Spent.id(&order)])?;
    Ok(found.iter().any(Option::is_some))
}

/// Forgets orders that would not be accepted any more.
fn forget_spent(store: &dyn Store) -> Result<(), StoreError> {
    let page = store
        .snapshot()?
        .records(DECISIONS, Some(&Kind::Spent.start()), RULES_AT_ONCE)?;
    let before = crate::peers::partner::now().saturating_sub(SPENT_SECS);
    let old = page
        .into_iter()
        .filter(|stored| Kind::Spent.holds(&stored.id) && stored.created < before);
    let ids: Vec<RecordId> = old.map(|stored| stored.id).collect();
    if ids.is_empty() {
        return Ok(());
    }
    store.update(Batch {
        realm: DECISIONS,
        ids,
        decide: Box::new(|_, _| Decision::Delete),
        notes: Vec::new(),
        premise: None,
    })?;
    Ok(())
}

fn row(data: Option<Vec<u8>>) -> Decision {
    data.map_or(Decision::Delete, |data| {
        Decision::Put(Record {
            data,
            policy: 0,
            terms: Vec::new(),
            elements: Vec::new(),
            components: Vec::new(),
        })
    })
}

fn rule_id(rule: &Rule) -> Result<RecordId, StoreError> {
    Ok(Kind::Rule.id(&json(&rule.key())?))
}

/// In the order in which they are made, also within a second.
fn entry_id(entry: &Entry, at: usize) -> Result<RecordId, StoreError> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let time = now.map_or(0, |now| now.as_nanos() as u64).saturating_add(at as u64);
    let tail = sha256(&[&json(entry)?]);
    Ok(id(&[&[Kind::Entry as u8][..], &time.to_be_bytes(), &tail[..8]].concat()))
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Invalid(error.to_string()))
}

/// Selectors of rules that what is stored does not follow yet, with the version of the rules that changed last for each.
type Pending = BTreeMap<Selector, u64>;

fn pending(store: &dyn Store) -> Result<Pending, StoreError> {
    let note = store.note(PENDING)?;
    Ok(note
        .and_then(|note| serde_json::from_slice(&note).ok())
        .unwrap_or_default())
}

/// Forgets what was followed, unless there was another change of it meanwhile.
fn forget_pending(store: &dyn Store, done: &Pending) -> Result<(), StoreError> {
    loop {
        let Some(note) = store.note(PENDING)? else {
            return Ok(());
        };
        let mut left: Pending = serde_json::from_slice(&note).unwrap_or_default();
        let count = left.len();
        left.retain(|selector, version| done.get(selector) != Some(&*version));
        if left.len() == count || store.swap_note(PENDING, Some(&note), &json(&left)?)? {
            return Ok(());
        }
    }
}

/// Holds [`Pending`].
const PENDING: &str = "rules pending";
/// How long an order is remembered: until its signature is too old, even if it was made by a clock that is ahead.
const SPENT_SECS: u64 = 4 * super::WINDOW_SECS;
const RULES_AT_ONCE: usize = 500;
