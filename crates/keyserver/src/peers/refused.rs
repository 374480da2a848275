//! Elements that a partner offers in vain: they are left alone for a while, each time for twice as long.
//!
//! They are no part of any tree: a tree must never claim what this node can't serve.

use super::partner::now;
use keyrink_store::{Dataset, Refusal, Store, StoreError};

/// Those of `elements` that `source` may be asked for now, in order.
pub(super) fn wanted(
    store: &dyn Store,
    source: &str,
    dataset: Dataset,
    mut elements: Vec<Vec<u8>>,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let now = now();
    let mut refused: Vec<_> = store
        .refusals(source, dataset, &elements)?
        .into_iter()
        .filter(|refusal| refusal.until > now)
        .map(|refusal| refusal.element)
        .collect();
    refused.sort_unstable();
    elements.retain(|element| refused.binary_search(element).is_err());
    elements.sort_unstable();
    Ok(elements)
}

/// Leaves these elements alone: for a quarter of an hour, or twice as long as last time. How many there are now.
pub(super) fn refuse(
    store: &dyn Store,
    source: &str,
    dataset: Dataset,
    elements: &[Vec<u8>],
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
            until: now() + pause(times),
        }
    });
    store.refuse(source, dataset, refusals.collect())?;
    store.refusal_count(source)
}

/// Seconds to wait after so many pauses.
fn pause(times: u32) -> u64 {
    FIRST_SECS.saturating_mul(1 << times.min(32)).min(LONGEST_SECS)
}

const FIRST_SECS: u64 = 15 * 60;
const LONGEST_SECS: u64 = 30 * 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;
    use keyrink_store::memory::MemoryStore;

    #[test]
    fn pauses_double_up_to_a_month() {
        assert_eq!((pause(0), pause(1), pause(2)), (900, 1800, 3600));
        assert_eq!((pause(12), pause(200)), (LONGEST_SECS, LONGEST_SECS));
    }

    #[test]
    fn what_is_refused_is_not_wanted_from_that_partner() {
        let store = MemoryStore::new();
        let (set, all) = (Dataset(1), vec![vec![2; 16], vec![1; 16]]);
        assert_eq!(refuse(&store, "a", set, &all[..1]).unwrap(), 1);
        assert_eq!(wanted(&store, "a", set, all.clone()).unwrap(), [vec![1; 16]]);
        assert_eq!(
            wanted(&store, "b", set, all.clone()).unwrap(),
            [vec![1; 16], vec![2; 16]]
        );
        refuse(&store, "a", set, &all[..1]).unwrap();
        assert_eq!(store.refusals("a", set, &all).unwrap()[0].times, 2);
    }
}
