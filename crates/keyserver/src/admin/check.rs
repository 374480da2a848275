//! `keyrink check`: recomputes what is derived from every certificate and compares it with what is stored.
//!
//! Rows are compared as multisets: both sides are summed up as hashes while they stream by, so the memory used does
//! not grow with the store. Only if sums differ are rows compared one by one, to name the differences.

use super::progress::Progress;
use super::{AdminError, for_each_record, open_to_read};
use crate::cli;
use crate::formats::{self, OPENPGP, SKS};
use keyrink_openpgp::cert::Cert;
use keyrink_store::{Element, RecordId, Snapshot, Store, StoreError, Stored, Term};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// `keyrink check`
pub fn run(arguments: &cli::Check) -> Result<(), AdminError> {
    let config = arguments.source.configuration()?;
    let store: Arc<dyn Store> = Arc::new(open_to_read(&config)?);
    let mut report = check(&*store, config.search.words, &Progress::for_terminal)?;
    for tree in crate::peers::dataset::sets(&store) {
        let wrong = tree.check()?;
        report.difference_count += wrong.len() as u64;
        report.differences.extend(wrong);
    }
    print!("{report}");
    if report.is_clean() {
        Ok(())
    } else {
        Err(AdminError::Differences(report.difference_count))
    }
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
    /// Differences, in words; the first of them.
    pub differences: Vec<String>,
    /// How many there are.
    pub difference_count: u64,
}

/// Compares everything in one consistent view.
pub fn check(store: &dyn Store, words: bool, progress: &dyn Fn(u64) -> Progress) -> Result<CheckReport, AdminError> {
    let snapshot = store.snapshot()?;
    let progress = progress(snapshot.count(OPENPGP)?);
    let mut checking = Checking {
        report: CheckReport::default(),
        words,
    };
    let (mut terms, mut elements) = (Sum::default(), Sum::default());
    for_each_record(&*snapshot, |stored| {
        checking.report.records += 1;
        progress.at(checking.report.records, checking.report.records);
        let Some(cert) = checking.certificate(stored) else {
            return Ok(());
        };
        formats::store_terms(&cert, words)
            .iter()
            .for_each(|term| terms.add(&(term, &stored.id)));
        for element in formats::elements(&cert) {
            elements.add(&(&element.bytes, &stored.id));
            let xor = checking.report.sks_xor.iter_mut().zip(&element.bytes);
            xor.for_each(|(xor, octet)| *xor ^= octet);
        }
        Ok(())
    })?;
    progress.finish();
    let counted = snapshot.count(OPENPGP)?;
    if counted != checking.report.records {
        let found = checking.report.records;
        checking.differ(|| format!("the writers count {counted} certificates, {found} are there"));
    }
    checking.compare(&*snapshot, terms, elements)?;
    Ok(checking.report)
}

/// Differences named one by one.
const DIFFERENCES_MAX: usize = 100;
const PAGE: usize = 5000;

struct Checking {
    report: CheckReport,
    words: bool,
}

impl Checking {
    fn differ(&mut self, difference: impl FnOnce() -> String) {
        self.report.difference_count += 1;
        if self.report.differences.len() < DIFFERENCES_MAX {
            self.report.differences.push(difference());
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
        Some(cert)
    }

    fn compare(&mut self, snapshot: &dyn Snapshot, terms: Sum, elements: Sum) -> Result<(), AdminError> {
        let mut found = Sum::default();
        for_each_row(&terms_of(snapshot), |row| {
            found.add(&row);
            Ok(())
        })?;
        self.report.terms = found.rows;
        if found != terms {
            self.name_terms(snapshot)?;
        }
        let mut found = Sum::default();
        for_each_row(&elements_of(snapshot), |row| {
            found.add(&row);
            Ok(())
        })?;
        self.report.sks_elements = found.rows;
        if found != elements {
            self.name_elements(snapshot)?;
        }
        Ok(())
    }

    /// Names terms that are missing or too many.
    fn name_terms(&mut self, snapshot: &dyn Snapshot) -> Result<(), AdminError> {
        let words = self.words;
        let derive = |cert: &Cert| formats::store_terms(cert, words);
        let seek = |term: &Term, id: &RecordId| {
            let before = before(id).map(|before| (term.clone(), before));
            let page = snapshot.terms(OPENPGP, before.as_ref(), 1)?;
            Ok(page
                .first()
                .is_some_and(|(found, holder)| found == term && holder == id))
        };
        let name = |term: &Term| {
            format!(
                "term {} {}",
                term.kind,
                String::from_utf8_lossy(&term.text).escape_debug()
            )
        };
        self.name_missing(snapshot, &derive, &seek, &name)?;
        for_each_row(&terms_of(snapshot), |(term, id)| {
            self.name_surplus(snapshot, id, &|cert| derive(cert).contains(term), &|| name(term))
        })
    }

    /// Names elements that are missing or too many.
    fn name_elements(&mut self, snapshot: &dyn Snapshot) -> Result<(), AdminError> {
        let seek = |element: &Element, id: &RecordId| {
            let before = before(id).map(|before| (element.bytes.clone(), before));
            let page = snapshot.elements(SKS, before.as_ref(), 1)?;
            Ok(page
                .first()
                .is_some_and(|(bytes, holder)| *bytes == element.bytes && holder == id))
        };
        let name = |element: &Element| format!("element {}", formats::hexadecimal(&element.bytes));
        self.name_missing(snapshot, &formats::elements, &seek, &name)?;
        for_each_row(&elements_of(snapshot), |(bytes, id)| {
            let holds = |cert: &Cert| formats::elements(cert).iter().any(|element| element.bytes == *bytes);
            let name = || format!("element {}", formats::hexadecimal(bytes));
            self.name_surplus(snapshot, id, &holds, &name)
        })
    }

    fn name_missing<T>(
        &mut self,
        snapshot: &dyn Snapshot,
        derive: &dyn Fn(&Cert) -> Vec<T>,
        seek: &dyn Fn(&T, &RecordId) -> Result<bool, AdminError>,
        name: &dyn Fn(&T) -> String,
    ) -> Result<(), AdminError> {
        for_each_record(snapshot, |stored| {
            let Ok(cert) = Cert::decode(&stored.data) else {
                return Ok(());
            };
            for row in derive(&cert) {
                if !seek(&row, &stored.id)? {
                    let id = formats::hexadecimal(stored.id.as_bytes());
                    self.differ(|| format!("{id}: {} is missing", name(&row)));
                }
            }
            Ok(())
        })
    }

    fn name_surplus(
        &mut self,
        snapshot: &dyn Snapshot,
        id: &RecordId,
        holds: &dyn Fn(&Cert) -> bool,
        name: &dyn Fn() -> String,
    ) -> Result<(), AdminError> {
        let record = snapshot.records(OPENPGP, before(id).as_ref(), 1)?;
        let record = record.first().filter(|record| record.id == *id);
        let cert = record.and_then(|record| Cert::decode(&record.data).ok());
        if !cert.is_some_and(|cert| holds(&cert)) {
            self.differ(|| format!("{}: {} is too much", formats::hexadecimal(id.as_bytes()), name()));
        }
        Ok(())
    }
}

/// Reads a page of rows after the one given.
type Pages<'a, T> = dyn Fn(Option<&T>) -> Page<T> + 'a;
type Page<T> = Result<Vec<T>, StoreError>;
type TermRow = (Term, RecordId);
type ElementRow = (Vec<u8>, RecordId);

fn terms_of(snapshot: &dyn Snapshot) -> impl Fn(Option<&TermRow>) -> Page<TermRow> {
    |after| snapshot.terms(OPENPGP, after, PAGE)
}

fn elements_of(snapshot: &dyn Snapshot) -> impl Fn(Option<&ElementRow>) -> Page<ElementRow> {
    |after| snapshot.elements(SKS, after, PAGE)
}

fn for_each_row<T>(
    pages: &Pages<'_, T>,
    mut visit: impl FnMut(&T) -> Result<(), AdminError>,
) -> Result<(), AdminError> {
    let mut after = None;
    loop {
        let page = pages(after.as_ref())?;
        page.iter().try_for_each(&mut visit)?;
        let Some(last) = page.into_iter().next_back() else {
            return Ok(());
        };
        after = Some(last);
    }
}

impl CheckReport {
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
        writeln!(f, "differences   {}", self.difference_count)?;
        self.differences
            .iter()
            .try_for_each(|difference| writeln!(f, "  {difference}"))
    }
}

/// A sum over rows that does not depend on their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    rows: u64,
    low: u64,
    high: u64,
}

impl Sum {
    fn add(&mut self, row: &impl Hash) {
        let mut hasher = DefaultHasher::new();
        row.hash(&mut hasher);
        self.low = self.low.wrapping_add(hasher.finish());
        0x5A_u8.hash(&mut hasher);
        self.high = self.high.wrapping_add(hasher.finish());
        self.rows += 1;
    }
}

/// An id that comes right before this one, to read on from it; `None` if there is none.
fn before(id: &RecordId) -> Option<RecordId> {
    let mut octets = id.as_bytes().to_vec();
    let last = octets.pop()?;
    if last > 0 {
        octets.push(last - 1);
        octets.resize(RecordId::OCTETS_MAX, 0xFF);
    }
    RecordId::new(&octets)
}
