//! A tree over a store against the tree in memory, while the store changes.

use super::*;
use crate::peers::dataset::SKS;
use keyrink_recon::random::Random;
use keyrink_recon::tree::{Nodes, Tree as Model};
use keyrink_store::memory::MemoryStore;
use keyrink_store::{Batch, Decision, Realm, Record, RecordId};

fn elements(seed: u64, count: usize) -> Vec<Vec<u8>> {
    let mut random = Random::new(seed);
    let mut bytes = || [random.next_u64().to_be_bytes(), random.next_u64().to_be_bytes()].concat();
    (0..count).map(|_| bytes()).collect()
}

/// Stores a record for each element, or removes it.
fn change(store: &dyn Store, elements: &[Vec<u8>], add: bool) {
    for chunk in elements.chunks(500) {
        let all = chunk.to_vec();
        let ids = all.iter().map(|bytes| RecordId::new(bytes).unwrap()).collect();
        let decide = move |at: usize, _: Option<&keyrink_store::Stored>| match add {
            false => Decision::Delete,
            true => Decision::Put(Record {
                data: Vec::new(),
                policy: 1,
                terms: Vec::new(),
                elements: vec![keyrink_store::Element {
                    dataset: SKS.dataset,
                    bytes: all[at].clone(),
                }],
                components: Vec::new(),
            }),
        };
        let batch = Batch {
            realm: Realm(1),
            ids,
            decide: Box::new(decide),
            notes: Vec::new(),
            premise: None,
        };
        store.update(batch).unwrap();
    }
}

fn tree(store: &Arc<dyn Store>) -> Tree<3> {
    Tree::new(&SKS, Dataset::v1("sks"), Arc::clone(store))
}

fn model(elements: &[Vec<u8>]) -> Model<3> {
    let dataset = Arc::new(Dataset::v1("sks"));
    let mut all: Vec<_> = elements
        .iter()
        .map(|bytes| dataset.element_from_bytes(bytes).unwrap())
        .collect();
    all.sort_unstable();
    Model::build(dataset, all).unwrap()
}

/// Asks both the same.
fn assert_equal(epoch: &Epoch<3>, model: &Model<3>, depth: usize) {
    let mut waiting = vec![Prefix::ROOT];
    while let Some(prefix) = waiting.pop() {
        assert_eq!(epoch.count(&prefix), model.count(&prefix), "{prefix}");
        assert_eq!(epoch.summary(&prefix), model.summary(&prefix), "{prefix}");
        let all = model.elements(&prefix, None, 70).unwrap();
        assert_eq!(epoch.elements(&prefix, None, 70).unwrap(), all);
        let after = all.get(30);
        assert_eq!(epoch.elements(&prefix, after, 50), model.elements(&prefix, after, 50));
        if prefix.length() < depth {
            waiting.extend(prefix.children().unwrap());
        }
    }
}

#[test]
fn it_answers_as_a_tree_in_memory() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let all = elements(1, 3000);
    change(&*store, &all, true);
    assert_equal(&tree(&store).epoch().unwrap(), &model(&all), 14);
}

#[test]
fn it_follows_the_store_and_epochs_stay() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let tree = tree(&store);
    let (first, second) = (elements(1, 700), elements(2, 900));
    let empty = tree.epoch().unwrap();
    change(&*store, &first, true);
    let one = tree.epoch().unwrap();
    change(&*store, &second, true);
    change(&*store, &first[..600], false);
    let last = tree.epoch().unwrap();
    change(&*store, &second, false);
    change(&*store, &first[..300], true);
    // Each epoch reads its ranges only now.
    assert_equal(&empty, &model(&[]), 4);
    assert_equal(&one, &model(&first), 8);
    assert_equal(&last, &model(&[&first[600..], &second[..]].concat()), 8);
    drop((empty, one, last));
    let log = tree.0.log();
    assert_eq!((log.epochs, log.length, log.lost), (0, 0, 0));
}

#[test]
fn it_goes_on_from_a_checkpoint() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let all = elements(1, 12_000);
    change(&*store, &all[..11_000], true);
    let first = tree(&store);
    first.refresh().unwrap();
    first.save().unwrap();
    change(&*store, &all[11_000..], true);
    change(&*store, &all[..500], false);
    let saved = checkpoint::load(&*store, SKS.name, &Dataset::<3>::v1("sks"))
        .unwrap()
        .unwrap();
    assert_eq!(saved.0.summary.count, 11_000);
    assert_equal(&tree(&store).epoch().unwrap(), &model(&all[500..]), 6);
    // Without the change rows that lead on from there it is worth nothing.
    store.maintain(u64::MAX).unwrap();
    change(&*store, &all[..1], true);
    assert_eq!(tree(&store).epoch().unwrap().count(&Prefix::ROOT), Ok(11_501));
}

#[test]
fn a_wrong_checkpoint_is_found_out_and_thrown_away() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let all = elements(1, 11_000);
    change(&*store, &all, true);
    let first = tree(&store);
    first.refresh().unwrap();
    {
        let mut state = first.0.state();
        let root = &mut state.as_mut().unwrap().root;
        let wrong = Change::of(&Dataset::v1("sks"), &first.0.element(&[9; 16]).unwrap(), true).unwrap();
        root.apply(&Dataset::v1("sks"), &first.0.element(&[9; 16]).unwrap(), &wrong);
    }
    first.save().unwrap();
    let second = tree(&store);
    let nine = Prefix::of(&first.0.element(&[9; 16]).unwrap(), 40);
    assert!(second.epoch().unwrap().count(&nine).is_err());
    assert_equal(&second.epoch().unwrap(), &model(&all), 4);
    assert_eq!(store.note("tree sks").unwrap(), None);
}

#[test]
fn a_session_that_missed_too_much_ends() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let all = elements(1, 1000);
    change(&*store, &all, true);
    let tree = tree(&store);
    let epoch = tree.epoch().unwrap();
    tree.0.log().forget();
    let error = epoch.elements(&Prefix::ROOT, None, 9).unwrap_err();
    assert!(error.0.contains("changed too much"), "{error}");
    assert_equal(&tree.epoch().unwrap(), &model(&all), 2);
}

#[test]
fn the_next_octets_in_order() {
    assert_eq!(successor(&[1, 0xFF]), Some(vec![2, 0]));
    assert_eq!(successor(&[0xFF, 0xFF]), None);
}

#[test]
fn a_check_compares_sums_and_rows() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let all = elements(1, 11_000);
    change(&*store, &all, true);
    let tree = tree(&store);
    let checked = |tree: &Tree<3>| (tree.check().unwrap().saved, tree.check().unwrap().wrong);
    assert_eq!(checked(&tree), (Saved::Nothing, vec![]));
    tree.refresh().unwrap();
    tree.save().unwrap();
    change(&*store, &all[..100], false);
    assert_eq!(checked(&tree), (Saved::Sums { elements: 11_000 }, vec![]));
    tree.refresh().unwrap();
    assert_eq!(tree.total().unwrap(), tree.check().unwrap().total);
    let nine = tree.0.element(&[9; 16]).unwrap();
    let wrong = Change::of(&Dataset::v1("sks"), &nine, true).unwrap();
    let mut state = tree.0.state();
    state.as_mut().unwrap().root.apply(&Dataset::v1("sks"), &nine, &wrong);
    let state = state.clone().unwrap();
    checkpoint::save(&*store, SKS.name, &Dataset::v1("sks"), &state).unwrap();
    let found = tree.check().unwrap().wrong;
    assert!(
        found.len() >= 3 && found[0].contains("are of 10901 elements, the rows hold 10900"),
        "{found:?}"
    );
}
