//! `keyrink check`: recomputes what is derived from every certificate and compares it with what is stored.

use super::derived::compare;
use super::progress::Progress;
use super::{AdminError, open_to_read};
use crate::cli;
use crate::formats::{self, FAMILIES, Family, OPENPGP, Policy};
use crate::lifecycle::{self, RuleSet};
use crate::peers::dataset::{Saved, Total};
use keyrink_openpgp::cert::Cert;
use keyrink_store::{Dataset, Store, Stored};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// `keyrink check`
pub fn run(arguments: &cli::Check) -> Result<(), AdminError> {
    let config = arguments.source.configuration()?;
    let store = open_to_read(&config)?;
    let policy = Policy::new(&config);
    let mut report = check(&*store, policy, &Progress::for_terminal)?;
    for tree in crate::peers::dataset::sets(&store, policy) {
        let (name, checked) = (tree.kind().name, tree.check()?);
        report.difference_count += checked.wrong.len() as u64;
        report.differences.extend(checked.wrong);
        report.sums.push((name, checked.total.sum));
        eprintln!("tree {name}: {}", remark(&checked.total, checked.saved));
    }
    print!("{report}");
    if report.is_clean() {
        Ok(())
    } else {
        Err(AdminError::Differences(report.difference_count))
    }
}

/// What this store's tree is and what it was compared with.
fn remark(total: &Total, saved: Saved) -> String {
    let Total { elements, sum, seen } = total;
    let saved = match saved {
        Saved::Nothing => "no sums are saved".to_owned(),
        Saved::TooOld => "the saved sums are too old to be used".to_owned(),
        Saved::Sums { elements } => format!("compared with the saved sums of {elements} and what changed since"),
    };
    let at: Vec<_> = seen
        .iter()
        .map(|(writer, n)| format!("{n} of writer {writer}"))
        .collect();
    format!("{elements} elements, sum {sum}, at change {}; {saved}", at.join(", "))
}

/// What a check found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Certificates.
    pub records: u64,
    /// Rows of the term table.
    pub terms: u64,
    /// Each dataset that is kept, or that has elements.
    pub datasets: Vec<DatasetReport>,
    /// Certificates that are stored and blocked.
    pub blocked: u64,
    /// How many rules there are of each action.
    pub rules: Vec<(&'static str, u64)>,
    /// Certificates that another policy derived from than is configured now.
    pub outdated: u64,
    /// Certificates that a rule is about which has just changed, and which are not looked at for that.
    pub unfollowed: u64,
    /// For each dataset a part of its tree's sums, which servers show as `keyrink_tree_sum`.
    pub sums: Vec<(&'static str, u64)>,
    /// Differences, in words; the first of them.
    pub differences: Vec<String>,
    /// How many there are.
    pub difference_count: u64,
}

/// One dataset.
#[derive(Debug, PartialEq, Eq)]
pub struct DatasetReport {
    /// Its name.
    pub name: &'static str,
    /// Rows of the element table.
    pub elements: u64,
    /// XOR of all digests.
    pub xor: [u8; 16],
}

/// Compares everything in one consistent view.
pub fn check(store: &dyn Store, policy: Policy, progress: &dyn Fn(u64) -> Progress) -> Result<CheckReport, AdminError> {
    let before = lifecycle::unfollowed(store)?;
    let snapshot = store.snapshot()?;
    // A rule that changed in between is in one of both.
    let changing = [before, lifecycle::unfollowed(store)?];
    let unfollowed = RefCell::new(BTreeSet::new());
    let counted = snapshot.count(OPENPGP)?;
    let rules = RuleSet::read(&*snapshot)?;
    let progress = progress(counted);
    let report = RefCell::new(CheckReport::begin());
    let rows = compare(
        &*snapshot,
        policy,
        &rules,
        &mut |stored| {
            let mut report = report.borrow_mut();
            report.records += 1;
            progress.at(report.records, report.records);
            if changing.iter().any(|rules| is_about(rules, stored)) {
                unfollowed.borrow_mut().insert(stored.id.clone());
                return None;
            }
            report.certificate(stored, policy, &rules)
        },
        &mut |wrong| {
            if !unfollowed.borrow().contains(&wrong.id) {
                report.borrow_mut().differ(|| wrong.to_string());
            }
            Ok(())
        },
    )?;
    progress.finish();
    let mut report = report.into_inner();
    report.unfollowed = unfollowed.into_inner().len() as u64;
    report.rules = rules
        .counts()
        .into_iter()
        .map(|(action, count)| (action.name(), count))
        .collect();
    let found = report.records;
    if counted != found {
        report.differ(|| format!("the writers count {counted} certificates, {found} are there"));
    }
    report.terms = rows.terms;
    report.count(&rows.elements, policy);
    Ok(report)
}

fn is_about(rules: &RuleSet, stored: &Stored) -> bool {
    let judges = |cert: Cert| !rules.judge(&cert).rules.is_empty();
    !rules.is_empty() && Cert::decode(&stored.data).is_ok_and(judges)
}

/// Differences named one by one.
const DIFFERENCES_MAX: usize = 100;

impl CheckReport {
    fn begin() -> Self {
        let dataset = |family: &Family| DatasetReport {
            name: family.name,
            elements: 0,
            xor: [0; 16],
        };
        Self {
            datasets: FAMILIES.map(dataset).into(),
            ..Self::default()
        }
    }

    /// Takes the numbers of rows; datasets without any that are not kept need no mention.
    fn count(&mut self, rows: &BTreeMap<Dataset, u64>, policy: Policy) {
        for (report, family) in self.datasets.iter_mut().zip(FAMILIES) {
            report.elements = rows.get(&family.dataset).copied().unwrap_or_default();
        }
        let kept = |name| policy.families().any(|family| family.name == name);
        self.datasets
            .retain(|dataset| dataset.elements > 0 || kept(dataset.name));
    }

    fn differ(&mut self, difference: impl FnOnce() -> String) {
        self.difference_count += 1;
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(difference());
        }
    }

    /// The certificate of a record, if it is readable, stands under its own id and is stored as it would be now.
    fn certificate(&mut self, stored: &Stored, policy: Policy, rules: &RuleSet) -> Option<Cert> {
        let id = || formats::hexadecimal(stored.id.as_bytes());
        let Ok(cert) = Cert::decode(&stored.data) else {
            self.differ(|| format!("{}: the record cannot be read", id()));
            return None;
        };
        if cert.id() != stored.id.as_bytes() {
            self.differ(|| format!("{}: the record holds another certificate", id()));
        }
        let judgement = rules.judge(&cert);
        if judgement.erases() {
            self.differ(|| format!("{}: a rule says that it is erased, and it is stored", id()));
        }
        self.blocked += u64::from(judgement.blocks());
        let veto = judgement.veto();
        self.outdated += u64::from(stored.policy != policy.number());
        if stored.policy == policy.number() && cert.encode_under(&policy.serving(), &veto) != stored.data {
            self.differ(|| format!("{}: what is derived from its packets differs from what is stored", id()));
        }
        for element in policy.of_record(stored.policy).elements(&cert, &veto) {
            let datasets = self.datasets.iter_mut().zip(FAMILIES);
            let of = datasets.filter(|(_, family)| family.dataset == element.dataset);
            let xor = of.flat_map(|(dataset, _)| dataset.xor.iter_mut().zip(&element.bytes));
            xor.for_each(|(xor, octet)| *xor ^= octet);
        }
        Some(cert)
    }

    /// No difference was found.
    pub fn is_clean(&self) -> bool {
        self.difference_count == 0
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![
            ("certificates".to_owned(), self.records.to_string()),
            ("terms".to_owned(), self.terms.to_string()),
        ];
        if self.blocked > 0 {
            lines.push(("blocked".to_owned(), self.blocked.to_string()));
        }
        let rules = self.rules.iter().filter(|(_, count)| *count > 0);
        lines.extend(rules.map(|(action, count)| (format!("rules: {action}"), count.to_string())));
        for dataset in &self.datasets {
            let name = dataset.name;
            lines.push((format!("{name} elements"), dataset.elements.to_string()));
            lines.push((format!("{name} xor"), formats::hexadecimal(&dataset.xor)));
        }
        for (name, sum) in &self.sums {
            lines.push((format!("{name} sum"), sum.to_string()));
        }
        if self.outdated > 0 {
            let what_to_do = "derived by another policy: a running server does it anew, `keyrink rebuild` at once";
            lines.push(("outdated".to_owned(), format!("{} ({what_to_do})", self.outdated)));
        }
        if self.unfollowed > 0 {
            let what_to_do = "a rule about them has changed: a running server lets them follow it";
            lines.push(("unfollowed".to_owned(), format!("{} ({what_to_do})", self.unfollowed)));
        }
        lines.push(("differences".to_owned(), self.difference_count.to_string()));
        let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, value) in lines {
            writeln!(f, "{name:width$}  {value}")?;
        }
        self.differences
            .iter()
            .try_for_each(|difference| writeln!(f, "  {difference}"))
    }
}
