//! The rows that are derived from records, compared with what the records say.
//!
//! Rows are compared as multisets: both sides are summed up as hashes while they stream by, so the memory used does
//! not grow with the store. Only if sums differ are rows compared one by one, to name those that are wrong.

use super::{AdminError, for_each_record};
use crate::formats::{self, FAMILIES, OPENPGP, Policy};
use crate::lifecycle::RuleSet;
use keyrink_openpgp::cert::Cert;
use keyrink_store::{Dataset, Derived, Element, RecordId, Snapshot, StoreError, Stored, Term};
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A row that contradicts its record.
pub(super) struct Wrong {
    /// Of the record.
    pub(super) id: RecordId,
    /// The row.
    pub(super) row: Derived,
    /// It should be there and is not, or the other way round.
    missing: bool,
}

/// How many rows there are.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) terms: u64,
    pub(super) elements: BTreeMap<Dataset, u64>,
}

/// Compares all rows of a view with what its records say, each by the policy that it was derived by. `read` is asked for the certificate of each record, `wrong` is told
/// of each row that differs.
pub(super) fn compare(
    snapshot: &dyn Snapshot,
    policy: Policy,
    rules: &RuleSet,
    read: &mut dyn FnMut(&Stored) -> Option<Cert>,
    wrong: &mut Visit<'_>,
) -> Result<Rows, AdminError> {
    let (mut terms, mut elements) = (Sum::default(), Sum::default());
    for_each_record(snapshot, |stored| {
        if let Some(cert) = read(stored) {
            let (policy, veto) = (policy.of_record(stored.policy), rules.judge(&cert).veto());
            let all = policy.terms(&cert, &veto);
            all.iter().for_each(|term| terms.add(&(term, &stored.id)));
            let all = policy.elements(&cert, &veto);
            all.iter().for_each(|element| elements.add(&(element, &stored.id)));
        }
        Ok(())
    })?;
    let mut rows = Rows::default();
    let mut found = Sum::default();
    for_each_term(snapshot, &mut |term, id| {
        rows.terms += 1;
        found.add(&(term, id));
        Ok(())
    })?;
    if found != terms {
        let derive = |cert: &Cert, number| policy.of_record(number).terms(cert, &rules.judge(cert).veto());
        name(snapshot, &derive, &has_term, &for_each_term, Derived::Term, wrong)?;
    }
    let mut found = Sum::default();
    for_each_element(snapshot, &mut |element, id| {
        *rows.elements.entry(element.dataset).or_default() += 1;
        found.add(&(element, id));
        Ok(())
    })?;
    if found != elements {
        let derive = |cert: &Cert, number| policy.of_record(number).elements(cert, &rules.judge(cert).veto());
        name(
            snapshot,
            &derive,
            &has_element,
            &for_each_element,
            Derived::Element,
            wrong,
        )?;
    }
    Ok(rows)
}

type Visit<'a> = dyn FnMut(Wrong) -> Result<(), AdminError> + 'a;
type Row<T> = (T, RecordId);
type Has<T> = dyn Fn(&dyn Snapshot, &T, &RecordId) -> Result<bool, StoreError>;
type EachRow<T> =
    dyn Fn(&dyn Snapshot, &mut dyn FnMut(&T, &RecordId) -> Result<(), AdminError>) -> Result<(), AdminError>;

/// Names the rows of one table that are missing or too many.
fn name<T: PartialEq + Clone>(
    snapshot: &dyn Snapshot,
    derive: &dyn Fn(&Cert, u32) -> Vec<T>,
    has: &Has<T>,
    each: &EachRow<T>,
    row: fn(T) -> Derived,
    wrong: &mut Visit<'_>,
) -> Result<(), AdminError> {
    for_each_record(snapshot, |stored| {
        let cert = Cert::decode(&stored.data).ok();
        for item in cert.iter().flat_map(|cert| derive(cert, stored.policy)) {
            if !has(snapshot, &item, &stored.id)? {
                wrong(Wrong {
                    id: stored.id.clone(),
                    row: row(item),
                    missing: true,
                })?;
            }
        }
        Ok(())
    })?;
    each(snapshot, &mut |item, id| {
        let record = snapshot.records(OPENPGP, before(id).as_ref(), 1)?;
        let record = record.first().filter(|record| record.id == *id);
        let cert = record.and_then(|record| Some((Cert::decode(&record.data).ok()?, record.policy)));
        match cert.is_some_and(|(cert, policy)| derive(&cert, policy).contains(item)) {
            true => Ok(()),
            false => wrong(Wrong {
                id: id.clone(),
                row: row(item.clone()),
                missing: false,
            }),
        }
    })
}

fn has_term(snapshot: &dyn Snapshot, term: &Term, id: &RecordId) -> Result<bool, StoreError> {
    let before = before(id).map(|before| (term.clone(), before));
    let page = snapshot.terms(OPENPGP, before.as_ref(), 1)?;
    Ok(page
        .first()
        .is_some_and(|(found, holder)| found == term && holder == id))
}

fn has_element(snapshot: &dyn Snapshot, element: &Element, id: &RecordId) -> Result<bool, StoreError> {
    let before = before(id).map(|before| (element.bytes.clone(), before));
    let page = snapshot.elements(element.dataset, before.as_ref(), 1)?;
    let found = page.first();
    Ok(found.is_some_and(|(bytes, holder)| *bytes == element.bytes && holder == id))
}

fn for_each_term(
    snapshot: &dyn Snapshot,
    visit: &mut dyn FnMut(&Term, &RecordId) -> Result<(), AdminError>,
) -> Result<(), AdminError> {
    let pages = |after: Option<&Row<Term>>| snapshot.terms(OPENPGP, after, PAGE);
    for_each_row(&pages, |(term, id)| visit(term, id))
}

fn for_each_element(
    snapshot: &dyn Snapshot,
    visit: &mut dyn FnMut(&Element, &RecordId) -> Result<(), AdminError>,
) -> Result<(), AdminError> {
    for dataset in FAMILIES.map(|family| family.dataset) {
        let pages = |after: Option<&Row<Vec<u8>>>| snapshot.elements(dataset, after, PAGE);
        for_each_row(&pages, |(bytes, id)| {
            let bytes = bytes.clone();
            visit(&Element { dataset, bytes }, id)
        })?;
    }
    Ok(())
}

/// Reads a page of rows after the one given.
type Pages<'a, T> = dyn Fn(Option<&T>) -> Result<Vec<T>, StoreError> + 'a;

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

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", formats::hexadecimal(self.id.as_bytes()))?;
        match &self.row {
            Derived::Term(term) => f.write_str(&formats::term_text(term))?,
            Derived::Element(element) => write!(f, "element {}", formats::hexadecimal(&element.bytes))?,
        }
        f.write_str(if self.missing { " is missing" } else { " is too much" })
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

const PAGE: usize = 5000;
