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
use crate::peers::refused::EVERYBODY;
use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::crypto::digest::sha256;
use keyrink_store::{Batch, Decision, Record, RecordId, Store, StoreError, Stored};
use std::collections::BTreeSet;
use std::sync::Arc;
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
}

impl Change {
    /// Makes the change; the number of stored certificates that it was about.
    pub fn make(&self, store: &dyn Store, rules: &Rules, policy: Policy) -> Result<u64, ChangeError> {
        match self.action {
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
        let mut gone = BTreeSet::new();
        for selector in &self.selectors {
            let rule = known
                .get(selector)
                .ok_or_else(|| ChangeError::NoRule(selector.clone()))?;
            let together = known
                .iter()
                .filter(|other| other.decision.is_some() && other.decision == rule.decision);
            gone.extend(together.map(|rule| rule.selector.clone()));
            gone.insert(selector.clone());
        }
        let gone: Vec<Selector> = gone.into_iter().collect();
        let mut entries = self.entries(gone.len() as u64);
        for part in gone.chunks(RULES_AT_ONCE) {
            let rows = part.iter().map(|selector| (rule_id(selector), None)).collect();
            write(store, rules, part, rows, std::mem::take(&mut entries), self.order)?;
            follow(store, rules, policy, part)?;
        }
        store.trim_refusals(EVERYBODY, 0)?;
        Ok(gone.len() as u64)
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
    let rows = made.iter().map(|rule| Ok((rule_id(&rule.selector), Some(json(rule)?))));
    let rows = rows.collect::<Result<Vec<_>, StoreError>>()?;
    let selectors: Vec<Selector> = made.iter().map(|rule| rule.selector.clone()).collect();
    write(store, rules, &selectors, rows, entries, order)?;
    Ok(follow(store, rules, policy, &selectors)?)
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
    // Some of them may allow what others did not.
    store.trim_refusals(EVERYBODY, 0)?;
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
    follow(store, rules, policy, &pending.into_iter().collect::<Vec<_>>())
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

/// Lets every record that one of `selectors` selects follow the rules.
fn follow(store: &dyn Store, rules: &Rules, policy: Policy, selectors: &[Selector]) -> Result<(), StoreError> {
    candidates(store, selectors, &mut |ids| {
        let decide: Arc<super::rules::Decide> = Arc::new(move |rules, _, stored| derive(rules, stored, policy, None));
        rules.update(store, ids, &decide, &[]).map(drop)
    })?;
    forget_pending(store, selectors)
}

/// Writes rows of rules with what goes with them: `selectors` are yet to be followed.
fn write(
    store: &dyn Store,
    rules: &Rules,
    selectors: &[Selector],
    rows: Vec<(RecordId, Option<Vec<u8>>)>,
    entries: Vec<Entry>,
    order: Option<[u8; 32]>,
) -> Result<(), ChangeError> {
    let mut rows = rows;
    for (at, entry) in entries.iter().enumerate() {
        rows.push((entry_id(entry, at)?, Some(json(entry)?)));
    }
    // The entries come with the first part of a decision only, and so does its order.
    let spent = order
        .filter(|_| !entries.is_empty())
        .map(|order| Kind::Spent.id(&order));
    rows.extend(spent.iter().map(|id| (id.clone(), Some(Vec::new()))));
    let rows = Arc::new(rows);
    rules.change(store, |_| {
        let spent = spent
            .as_ref()
            .map(|id| store.get(DECISIONS, std::slice::from_ref(id)))
            .transpose()?;
        if spent.is_some_and(|found| found.iter().any(Option::is_some)) {
            return Err(ChangeError::Replayed);
        }
        let mut waiting = pending(store)?;
        waiting.extend(selectors.iter().cloned());
        let rows = Arc::clone(&rows);
        Ok(Batch {
            realm: DECISIONS,
            ids: rows.iter().map(|(id, _)| id.clone()).collect(),
            decide: Box::new(move |at, _| row(rows[at].1.clone())),
            notes: vec![(PENDING.to_owned(), Some(json(&waiting)?))],
            premise: None,
        })
    })?;
    if spent.is_some() {
        forget_spent(store)?;
    }
    Ok(())
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

fn rule_id(selector: &Selector) -> RecordId {
    Kind::Rule.id(selector.to_string().as_bytes())
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

/// Selectors of rules that what is stored does not follow yet.
fn pending(store: &dyn Store) -> Result<BTreeSet<Selector>, StoreError> {
    let note = store.note(PENDING)?;
    Ok(note
        .and_then(|note| serde_json::from_slice(&note).ok())
        .unwrap_or_default())
}

fn forget_pending(store: &dyn Store, done: &[Selector]) -> Result<(), StoreError> {
    loop {
        let Some(note) = store.note(PENDING)? else {
            return Ok(());
        };
        let mut left: BTreeSet<Selector> = serde_json::from_slice(&note).unwrap_or_default();
        let before = left.len();
        left.retain(|selector| !done.contains(selector));
        if left.len() == before || store.swap_note(PENDING, Some(&note), &json(&left)?)? {
            return Ok(());
        }
    }
}

/// Holds a list of selectors.
const PENDING: &str = "rules pending";
/// How long an order is remembered: until its signature is too old, even if it was made by a clock that is ahead.
const SPENT_SECS: u64 = 4 * super::WINDOW_SECS;
const RULES_AT_ONCE: usize = 500;
