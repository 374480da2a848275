//! Making rows agree with their records again, after something else than this program changed them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::connection::Connection;
use super::fault::Fault;
use super::lane::Lane;
use super::read::{self, key, number};
use super::rows::{add_holders, change_terms, delete_components, held, remove_holders};
use super::sql;
use super::table::Parts;
use super::write::{Key, lock, seal};
use crate::batch::{Kept, now};
use crate::{Component, Derived, Realm, RecordId};

/// Makes rows agree with their records; how many were wrong.
pub(super) fn mend(
    connection: &mut Connection,
    lane: Lane,
    token: i64,
    realm: Realm,
    rows: &[(RecordId, Derived)],
) -> Result<u64, Fault> {
    connection.execute(sql::BEGIN, &[])?;
    let mut stored = HashMap::new();
    lock(connection, realm, &rows.iter().map(|(id, _)| id).collect(), &mut stored)?;
    let (mut terms, mut elements) = <([Vec<_>; 2], [Vec<_>; 2])>::default();
    let mut parts = BTreeSet::new();
    for (id, row) in rows {
        let kept = stored.get(&(realm, id.clone()));
        match row {
            Derived::Term(term) => {
                let right = kept.is_some_and(|kept| kept.terms.contains(term));
                terms[usize::from(right)].push((key(term), number(realm.0), id.as_bytes()));
            }
            Derived::Element(element) => {
                let right = kept.is_some_and(|kept| kept.elements.contains(element));
                elements[usize::from(right)].push(held(realm, id, element));
            }
            Derived::Component(_) => drop(parts.insert(id)),
        }
    }
    let [not_terms, terms] = terms;
    let [not_elements, elements] = elements;
    let mut changes = Vec::new();
    let wrong = mend_components(connection, realm, &parts, &stored)?
        + change_terms(connection, not_terms, terms)?
        + add_holders(connection, elements, &mut changes)?
        + remove_holders(connection, not_elements, &mut changes)?;
    seal(connection, lane, token, &changes, &BTreeMap::new(), now())?;
    Ok(wrong)
}

/// Counts the records of a realm anew; whether the count was wrong.
pub(super) fn recount(connection: &mut Connection, lane: Lane, token: i64, realm: Realm) -> Result<bool, Fault> {
    connection.execute(sql::BEGIN, &[])?;
    let more = read::uncounted(connection, realm)?;
    seal(connection, lane, token, &[], &BTreeMap::from([(realm, more)]), now())?;
    Ok(more != 0)
}

/// Makes the components of these records what they should be; how many were not.
fn mend_components(
    connection: &mut Connection,
    realm: Realm,
    ids: &BTreeSet<&RecordId>,
    stored: &HashMap<Key, Kept>,
) -> Result<u64, Fault> {
    if ids.is_empty() {
        return Ok(0);
    }
    let octets: Vec<&[u8]> = ids.iter().map(|id| id.as_bytes()).collect();
    let found = read::components_of(connection, realm, &octets)?;
    let right = |id: &RecordId| {
        stored
            .get(&(realm, id.clone()))
            .map_or(&[][..], |kept| &kept.components[..])
    };
    let wrong = found.iter().filter(|(id, found)| !right(id).contains(found));
    let gone: Vec<_> = wrong
        .map(|(id, found)| (id.as_bytes(), number(realm.0), found.place.cast_signed()))
        .collect();
    let mut missing = Parts::default();
    for id in ids {
        let there = |component: &Component| found.iter().any(|(of, found)| of == *id && found == component);
        let lacking = right(id).iter().filter(|component| !there(component));
        lacking.for_each(|component| missing.push(realm, id, component));
    }
    Ok(delete_components(connection, gone)? + missing.insert(connection)?)
}
