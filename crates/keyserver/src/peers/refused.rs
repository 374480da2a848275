//! Elements that a partner offers in vain: they are left alone for a while, each time for twice as long.
//!
//! They are no part of any tree: a tree must never claim what this node can't serve.

use super::partner::now;
use keyrink_store::{Dataset, Refusal, Store, StoreError};
use std::time::Duration;

/// Those of `elements` that `source` may be asked for now, in order.
pub(super) fn wanted(
    store: &dyn Store,
    source: &str,
    dataset: Dataset,
    mut elements: Vec<Vec<u8>>,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let now = now();
    let mut refused: Vec<_> = [source, &everybody(store)?, REPLACED]
        .into_iter()
        .map(|source| store.refusals(source, dataset, &elements))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .filter(|refusal| refusal.until > now)
        .map(|refusal| refusal.element)
        .collect();
    refused.sort_unstable();
    elements.retain(|element| refused.binary_search(element).is_err());
    elements.sort_unstable();
    Ok(elements)
}

/// Leaves these elements alone: for a time, or twice as long as last time. How many there are now.
///
/// A partner may offer more than can be remembered, and most of it may be what the policy here does not want. Then the
/// refusals that end first are forgotten.
pub(super) fn refuse(
    store: &dyn Store,
    source: &str,
    dataset: Dataset,
    first: Duration,
    elements: &[Vec<u8>],
) -> Result<u64, StoreError> {
    refuse_within(store, source, dataset, first, elements, REFUSED_MAX)
}

/// Leaves alone for long, whoever offers them, what stands for certificates that the operator has blocked, erased or
/// replaced: `source` is that of [`everybody`], or [`REPLACED`].
pub(crate) fn refuse_for_long(
    store: &dyn Store,
    source: &str,
    dataset: Dataset,
    elements: &[Vec<u8>],
) -> Result<(), StoreError> {
    if elements.is_empty() {
        return Ok(());
    }
    let month = Duration::from_secs(LONGEST_SECS);
    refuse_within(store, source, dataset, month, elements, FORBIDDEN_MAX).map(drop)
}

/// The source of what is left alone for the sake of rules, whoever offers it; no partner has such a name. It is another one
/// after every rule that is taken back: whoever asked for this before the rules were asked cannot refuse what they allow now.
pub(crate) fn everybody(store: &dyn Store) -> Result<String, StoreError> {
    let since = store.note(TAKEN_BACK)?.unwrap_or_default();
    Ok(format!("*{}", crate::formats::hexadecimal(&since)))
}

/// The note that forgets all that is left alone for the sake of rules, to be written with a change that makes this version.
pub(crate) fn forget_everybody(version: u64) -> (String, Option<Vec<u8>>) {
    (TAKEN_BACK.to_owned(), Some(version.to_be_bytes().to_vec()))
}

fn refuse_within(
    store: &dyn Store,
    source: &str,
    dataset: Dataset,
    first: Duration,
    elements: &[Vec<u8>],
    most: u64,
) -> Result<u64, StoreError> {
    let known = store.refusals(source, dataset, elements)?;
    let refusals = elements.iter().map(|element| {
        let times = known
            .iter()
            .find(|refusal| refusal.element == *element)
            .map_or(0, |refusal| refusal.times);
        Refusal {
            element: element.clone(),
            times: times + 1,
            until: now() + pause(first, times),
        }
    });
    store.refuse(source, dataset, refusals.collect())?;
    let count = store.refusal_count(source)?;
    if count <= most {
        return Ok(count);
    }
    // Some more than necessary, so that it need not be done again at once.
    let left = most - most / 10;
    store.trim_refusals(source, left)?;
    Ok(left)
}

/// Seconds to wait after so many pauses.
fn pause(first: Duration, times: u32) -> u64 {
    first.as_secs().saturating_mul(1 << times.min(32)).min(LONGEST_SECS)
}

/// The source of what the operator put something else in the place of; no partner has this name.
pub(crate) const REPLACED: &str = "=";
/// The version of the rules when one was taken back last.
const TAKEN_BACK: &str = "rules taken back";
/// Refusals that are remembered for one partner: as many elements as one session finds.
const REFUSED_MAX: u64 = 250_000;
/// Those for the sake of rules: a domain may have many keys, and what is forgotten is fetched anew with every session.
const FORBIDDEN_MAX: u64 = 2_000_000;
const LONGEST_SECS: u64 = 30 * 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;
    use keyrink_store::memory::MemoryStore;

    const FIRST: Duration = Duration::from_secs(900);

    #[test]
    fn pauses_double_up_to_a_month() {
        assert_eq!([0, 1, 2].map(|times| pause(FIRST, times)), [900, 1800, 3600]);
        assert_eq!([12, 200].map(|times| pause(FIRST, times)), [LONGEST_SECS; 2]);
    }

    #[test]
    fn what_is_refused_is_not_wanted_from_that_partner() {
        let store = MemoryStore::new();
        let (set, all) = (Dataset(1), vec![vec![2; 16], vec![1; 16]]);
        assert_eq!(refuse(&store, "a", set, FIRST, &all[..1]).unwrap(), 1);
        assert_eq!(wanted(&store, "a", set, all.clone()).unwrap(), [vec![1; 16]]);
        assert_eq!(
            wanted(&store, "b", set, all.clone()).unwrap(),
            [vec![1; 16], vec![2; 16]]
        );
        refuse(&store, "a", set, FIRST, &all[..1]).unwrap();
        assert_eq!(store.refusals("a", set, &all).unwrap()[0].times, 2);
    }

    #[test]
    fn what_was_judged_by_a_rule_of_before_is_not_refused() {
        let store = MemoryStore::new();
        let (set, all) = (Dataset(1), vec![vec![1; 16], vec![2; 16]]);
        let before = everybody(&store).unwrap();
        refuse_for_long(&store, &before, set, &all[..1]).unwrap();
        refuse_for_long(&store, REPLACED, set, &all[1..]).unwrap();
        assert_eq!(wanted(&store, "a", set, all.clone()).unwrap(), Vec::<Vec<u8>>::new());
        let (name, version) = forget_everybody(7);
        store.swap_note(&name, None, &version.unwrap()).unwrap();
        // Somebody is late.
        refuse_for_long(&store, &before, set, &all[..1]).unwrap();
        assert_eq!(wanted(&store, "a", set, all.clone()).unwrap(), all[..1]);
    }

    #[test]
    fn what_was_refused_first_makes_room() {
        let store = MemoryStore::new();
        let (set, old) = (Dataset(1), vec![vec![0; 16]]);
        refuse(&store, "a", set, FIRST, &old).unwrap();
        let many: Vec<_> = (1..=20).map(|octet| vec![octet; 16]).collect();
        refuse(&store, "a", set, FIRST, &many).unwrap();
        // Longer than the others.
        refuse(&store, "a", set, FIRST, &many[..1]).unwrap();
        assert_eq!(refuse_within(&store, "a", set, FIRST, &[vec![99; 16]], 20).unwrap(), 18);
        assert_eq!(store.refusal_count("a").unwrap(), 18);
        assert_eq!(store.refusals("a", set, &many[..1]).unwrap().len(), 1);
        assert_eq!(wanted(&store, "a", set, old.clone()).unwrap(), old);
    }
}
