//! `keyrink rebuild`: makes everything anew that is derived from certificates, beside a server that runs or without one.
//!
//! First each record gives its terms and elements again, under the rules of this version and configuration. Then all rows
//! are compared with all records, and what contradicts its record is mended. Both happen in small transactions that decide
//! by the record as it is at that moment, so nobody has to stop writing. Elements that come or go are changes that the
//! trees of servers follow; in the end these trees are read anew, because a tree may have been right where the rows were
//! wrong.

use super::derived::compare;
use super::progress::Progress;
use super::{AdminError, open_store};
use crate::cli;
use crate::derive::Deriving;
use crate::formats::{OPENPGP, Policy};
use crate::lifecycle::RuleSet;
use keyrink_openpgp::cert::Cert;
use keyrink_store::sqlite::Durability;
use keyrink_store::{Derived, RecordId, Store};
use std::fmt;

/// `keyrink rebuild`
pub fn run(arguments: &cli::Rebuild) -> Result<(), AdminError> {
    let config = arguments.source.configuration()?;
    let store = open_store(&config, Durability::Full)?;
    let report = rebuild(&*store, Policy::new(&config), &Progress::for_terminal)?;
    print!("{report}");
    Ok(())
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RebuildReport {
    /// Certificates whose terms and elements were derived anew.
    pub records: u64,
    /// Records that can't be read any more; they stay as they are.
    pub unreadable: u64,
    /// Rows that contradicted their record.
    pub mended: u64,
    /// Whether the number of certificates was wrong.
    pub recounted: bool,
}

/// Makes everything anew that is derived.
pub fn rebuild(
    store: &dyn Store,
    policy: Policy,
    progress: &dyn Fn(u64) -> Progress,
) -> Result<RebuildReport, AdminError> {
    let mut report = RebuildReport::default();
    derive_anew(store, policy, &progress(store.count(OPENPGP)?), &mut report)?;
    mend(store, policy, &mut report)?;
    // First what servers go by: counting all of a large database may take longer than it allows.
    crate::peers::dataset::forget_trees(store)?;
    report.recounted = store.recount(OPENPGP)?;
    Ok(report)
}

fn derive_anew(
    store: &dyn Store,
    policy: Policy,
    progress: &Progress,
    report: &mut RebuildReport,
) -> Result<(), AdminError> {
    let mut deriving = Deriving::begin(store, policy)?;
    deriving.restart()?;
    while !deriving.is_done() {
        report.records += deriving.step(true)? as u64;
        progress.at(report.records, report.records);
    }
    progress.finish();
    Ok(())
}

fn mend(store: &dyn Store, policy: Policy, report: &mut RebuildReport) -> Result<(), AdminError> {
    let snapshot = store.snapshot()?;
    let (mut wrong, mut mended): (Vec<(RecordId, Derived)>, u64) = (Vec::new(), 0);
    compare(
        &*snapshot,
        policy,
        &RuleSet::read(&*snapshot)?,
        &mut |stored| {
            let cert = Cert::decode(&stored.data).ok();
            report.unreadable += u64::from(cert.is_none());
            cert
        },
        &mut |found| {
            wrong.push((found.id, found.row));
            if wrong.len() >= ROWS {
                mended += store.mend(OPENPGP, std::mem::take(&mut wrong))?;
            }
            Ok(())
        },
    )?;
    mended += store.mend(OPENPGP, wrong)?;
    report.mended = mended;
    report.records = report.records.saturating_sub(report.unreadable);
    Ok(())
}

impl fmt::Display for RebuildReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, mended, .. } = self;
        writeln!(
            f,
            "{records} certificates: terms and elements derived anew, {mended} rows mended"
        )?;
        if self.recounted {
            writeln!(f, "the number of certificates was wrong and is mended")?;
        }
        if self.unreadable > 0 {
            let unreadable = self.unreadable;
            writeln!(
                f,
                "{unreadable} records cannot be read and stay as they are: see `keyrink check`"
            )?;
        }
        Ok(())
    }
}

/// Rows in one transaction.
const ROWS: usize = 500;
