//! The rows that are derived from records, compared with what the records say.
//!
//! Rows are compared as multisets: both sides are summed up as hashes while they stream by, so the memory used does
//! not grow with the store. Only if sums differ are rows compared one by one, to name those that are wrong.

use super::{AdminError, for_each_record};
use crate::formats::{self, FAMILIES, OPENPGP, Policy};
use crate::lifecycle::RuleSet;
use keyrink_openpgp::cert::Cert;
use keyrink_store::{Component, Dataset, Derived, Element, RecordId, Snapshot, StoreError, Stored, Term};
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
    let [mut terms, mut elements, mut components] = <[Sum; 3]>::default();
    for_each_record(snapshot, |stored| {
        if let Some(cert) = read(stored) {
            let (policy, veto, id) = (policy.of_record(stored.policy), rules.judge(&cert).veto(), &stored.id);
            let all = policy.terms(&cert, &veto);
            all.iter().for_each(|term| terms.add(&(term, id)));
            let all = policy.elements(&cert, &veto);
            all.iter().for_each(|element| elements.add(&(element, id)));
            let all = policy.components(&cert, &veto);
            all.iter().for_each(|part| components.add(&(part, id)));
        }
        Ok(())
    })?;
    let mut rows = Rows::default();
    let derive = |cert: &Cert, number| policy.of_record(number).terms(cert, &rules.judge(cert).veto());
    let table = Table {
        must: terms,
        derive: &derive,
        has: &has_term,
        each: &for_each_term,
        row: Derived::Term,
    };
    table.compare(snapshot, &mut |_| rows.terms += 1, wrong)?;
    let derive = |cert: &Cert, number| policy.of_record(number).elements(cert, &rules.judge(cert).veto());
    let table = Table {
        must: elements,
        derive: &derive,
        has: &has_element,
        each: &for_each_element,
        row: Derived::Element,
    };
    let mut count = |element: &Element| *rows.elements.entry(element.dataset).or_default() += 1;
    table.compare(snapshot, &mut count, wrong)?;
    let derive = |cert: &Cert, number| policy.of_record(number).components(cert, &rules.judge(cert).veto());
    let table = Table {
        must: components,
        derive: &derive,
        has: &has_component,
        each: &for_each_component,
        row: Derived::Component,
    };
    table.compare(snapshot, &mut |_| {}, wrong)?;
    Ok(rows)
}

type Visit<'a> = dyn FnMut(Wrong) -> Result<(), AdminError> + 'a;
type Row<T> = (T, RecordId);
type Has<T> = dyn Fn(&dyn Snapshot, &T, &RecordId) -> Result<bool, StoreError>;
type EachRow<T> =
    dyn Fn(&dyn Snapshot, &mut dyn FnMut(&T, &RecordId) -> Result<(), AdminError>) -> Result<(), AdminError>;

/// One kind of rows.
struct Table<'a, T> {
    /// What the records say.
    must: Sum,
    derive: &'a dyn Fn(&Cert, u32) -> Vec<T>,
    has: &'a Has<T>,
    each: &'a EachRow<T>,
    row: fn(T) -> Derived,
}

impl<T: Hash + PartialEq + Clone> Table<'_, T> {
    /// Compares the rows that are there with those that must be; `count` is told of each that is.
    fn compare(
        &self,
        snapshot: &dyn Snapshot,
        count: &mut dyn FnMut(&T),
        wrong: &mut Visit<'_>,
    ) -> Result<(), AdminError> {
        let mut found = Sum::default();
        (self.each)(snapshot, &mut |item, id| {
            count(item);
            found.add(&(item, id));
            Ok(())
        })?;
        match found == self.must {
            true => Ok(()),
            false => self.name(snapshot, wrong),
        }
    }

    /// Names the rows that are missing or too many.
    fn name(&self, snapshot: &dyn Snapshot, wrong: &mut Visit<'_>) -> Result<(), AdminError> {
        for_each_record(snapshot, |stored| {
            let cert = Cert::decode(&stored.data).ok();
            for item in cert.iter().flat_map(|cert| (self.derive)(cert, stored.policy)) {
                if !(self.has)(snapshot, &item, &stored.id)? {
                    wrong(Wrong {
                        id: stored.id.clone(),
                        row: (self.row)(item),
                        missing: true,
                    })?;
                }
            }
            Ok(())
        })?;
        (self.each)(snapshot, &mut |item, id| {
            let record = snapshot.records(OPENPGP, before(id).as_ref(), 1)?;
            let record = record.first().filter(|record| record.id == *id);
            let cert = record.and_then(|record| Some((Cert::decode(&record.data).ok()?, record.policy)));
            match cert.is_some_and(|(cert, policy)| (self.derive)(&cert, policy).contains(item)) {
                true => Ok(()),
                false => wrong(Wrong {
                    id: id.clone(),
                    row: (self.row)(item.clone()),
                    missing: false,
                }),
            }
        })
    }
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

fn has_component(snapshot: &dyn Snapshot, part: &Component, id: &RecordId) -> Result<bool, StoreError> {
    let before = match part.place.checked_sub(1) {
        Some(place) => Some((id.clone(), place)),
        None => before(id).map(|before| (before, PLACE_MAX)),
    };
    let page = snapshot.components(OPENPGP, before.as_ref(), 1)?;
    Ok(page.first().is_some_and(|(of, found)| found == part && of == id))
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

fn for_each_component(
    snapshot: &dyn Snapshot,
    visit: &mut dyn FnMut(&Component, &RecordId) -> Result<(), AdminError>,
) -> Result<(), AdminError> {
    let pages = |after: Option<&(RecordId, Component)>| {
        let after = after.map(|(id, part)| (id.clone(), part.place));
        snapshot.components(OPENPGP, after.as_ref(), PAGE)
    };
    for_each_row(&pages, |(id, part)| visit(part, id))
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
            Derived::Component(part) => write!(f, "component {}", part.place)?,
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
/// The greatest place that a table can hold.
const PLACE_MAX: u32 = i32::MAX as u32;
