//! `keyrink check`: recomputes what is derived from every certificate and compares it with what is stored.

use super::derived::compare;
use super::progress::Progress;
use super::{AdminError, open_to_read};
use crate::cli;
use crate::formats::{self, OPENPGP, SKS};
use crate::peers::dataset::{Saved, Total};
use keyrink_openpgp::cert::Cert;
use keyrink_store::{Store, Stored};
use std::cell::RefCell;
use std::fmt;

/// `keyrink check`
pub fn run(arguments: &cli::Check) -> Result<(), AdminError> {
    let config = arguments.source.configuration()?;
    let store = open_to_read(&config)?;
    let mut report = check(&*store, config.search.words, &Progress::for_terminal)?;
    for tree in crate::peers::dataset::sets(&store) {
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
    /// Rows of the element table in dataset `sks`.
    pub sks_elements: u64,
    /// XOR of all digests in dataset `sks`.
    pub sks_xor: [u8; 16],
    /// For each dataset a part of its tree's sums, which servers show as `keyrink_tree_sum`.
    pub sums: Vec<(&'static str, u64)>,
    /// Differences, in words; the first of them.
    pub differences: Vec<String>,
    /// How many there are.
    pub difference_count: u64,
}

/// Compares everything in one consistent view.
pub fn check(store: &dyn Store, words: bool, progress: &dyn Fn(u64) -> Progress) -> Result<CheckReport, AdminError> {
    let snapshot = store.snapshot()?;
    let counted = snapshot.count(OPENPGP)?;
    let progress = progress(counted);
    let report = RefCell::new(CheckReport::default());
    let rows = compare(
        &*snapshot,
        words,
        &mut |stored| {
            let mut report = report.borrow_mut();
            report.records += 1;
            progress.at(report.records, report.records);
            report.certificate(stored)
        },
        &mut |wrong| {
            report.borrow_mut().differ(|| wrong.to_string());
            Ok(())
        },
    )?;
    progress.finish();
    let mut report = report.into_inner();
    let found = report.records;
    if counted != found {
        report.differ(|| format!("the writers count {counted} certificates, {found} are there"));
    }
    report.terms = rows.terms;
    report.sks_elements = rows.elements.get(&SKS).copied().unwrap_or(0);
    Ok(report)
}

/// Differences named one by one.
const DIFFERENCES_MAX: usize = 100;

impl CheckReport {
    fn differ(&mut self, difference: impl FnOnce() -> String) {
        self.difference_count += 1;
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(difference());
        }
    }

    /// The certificate of a record, if it is readable, stands under its own id and is stored as it would be now.
    fn certificate(&mut self, stored: &Stored) -> Option<Cert> {
        let id = || formats::hexadecimal(stored.id.as_bytes());
        let Ok(cert) = Cert::decode(&stored.data) else {
            self.differ(|| format!("{}: the record cannot be read", id()));
            return None;
        };
        if cert.id() != stored.id.as_bytes() {
            self.differ(|| format!("{}: the record holds another certificate", id()));
        }
        if stored.policy == formats::POLICY_VERSION && cert.encode() != stored.data {
            self.differ(|| format!("{}: what is derived from its packets differs from what is stored", id()));
        }
        for element in formats::elements(&cert).iter().filter(|element| element.dataset == SKS) {
            let xor = self.sks_xor.iter_mut().zip(&element.bytes);
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
        writeln!(f, "certificates  {}", self.records)?;
        writeln!(f, "terms         {}", self.terms)?;
        writeln!(f, "sks elements  {}", self.sks_elements)?;
        writeln!(f, "sks xor       {}", formats::hexadecimal(&self.sks_xor))?;
        for (name, sum) in &self.sums {
            writeln!(f, "{:<14}{sum}", format!("{name} sum"))?;
        }
        writeln!(f, "differences   {}", self.difference_count)?;
        self.differences
            .iter()
            .try_for_each(|difference| writeln!(f, "  {difference}"))
    }
}
