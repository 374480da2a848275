//! What must hold for all numbers, sets and changes.
#![allow(
    unexpected_cfgs,
    reason = "the derive macro of ark-ff asks for a feature of its own crate"
)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use ark_ff::{BigInteger, Fp192, Fp320, MontBackend, MontConfig, PrimeField};
use common::link::reconcile;
use common::{random_elements, tree};
use keyrink_recon::dataset::{Dataset, MBAR};
use keyrink_recon::element::{Element, Prefix};
use keyrink_recon::field::{Field, Residue};
use keyrink_recon::random::Random;
use keyrink_recon::session::{End, Omission};
use keyrink_recon::solve::solve;
use keyrink_recon::tree::{BuildError, ChangeError, Nodes, Tree};
use proptest::prelude::*;

#[derive(MontConfig)]
#[modulus = "530512889551602322505127520352579437339"]
#[generator = "2"]
struct Prime129;

#[derive(MontConfig)]
#[modulus = "216185297163486321441268008669495343734773616758964905110803019718542051082279"]
#[generator = "2"]
struct Prime257;

type Oracle129 = Fp192<MontBackend<Prime129, 3>>;
type Oracle257 = Fp320<MontBackend<Prime257, 5>>;

/// Compares every operation on two numbers with the oracle.
fn compare<F: PrimeField, const L: usize>(field: &Field<L>, a: [u64; L], b: [u64; L]) {
    let reduce = |limbs: [u64; L]| {
        let bytes: Vec<u8> = limbs.iter().flat_map(|limb| limb.to_le_bytes()).collect();
        F::from_le_bytes_mod_order(&bytes)
    };
    let limbs = |number: F| -> [u64; L] { number.into_bigint().as_ref().try_into().unwrap() };
    let ours = |number: F| field.residue(limbs(number)).unwrap();
    let (x, y) = (reduce(a), reduce(b));
    let (r, s) = (ours(x), ours(y));
    assert_eq!(field.limbs(r), limbs(x));
    assert_eq!(field.add(r, s), ours(x + y));
    assert_eq!(field.subtract(r, s), ours(x - y));
    assert_eq!(field.multiply(r, s), ours(x * y));
    assert_eq!(field.negate(r), ours(-x));
    assert_eq!(field.power(r, &b), ours(x.pow(b)));
    assert_eq!(field.inverse(r), x.inverse().map(ours));
    assert_eq!(r.is_zero(), x == F::ZERO);
    let mut all = [r, s, field.add(r, s), field.one()];
    let inverses: Option<Vec<_>> = all.iter().map(|&number| field.inverse(number)).collect();
    let before = all;
    assert_eq!(field.invert_all(&mut all), inverses.is_some());
    assert_eq!(all.to_vec(), inverses.unwrap_or(before.to_vec()));
    assert_eq!(field.residue(field.modulus()), None);
    assert_eq!(F::MODULUS.num_bits() as usize, field.bits());
}

/// Limbs that are often at an edge.
fn limbs<const L: usize>() -> impl Strategy<Value = [u64; L]> {
    let limb = prop_oneof![any::<u64>(), Just(0), Just(1), Just(u64::MAX)];
    prop::collection::vec(limb, L).prop_map(|limbs| limbs.try_into().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn field_agrees_with_the_oracle_at_129_bits(a in limbs::<3>(), b in limbs::<3>()) {
        compare::<Oracle129, 3>(Dataset::v1("").field(), a, b);
    }

    #[test]
    fn field_agrees_with_the_oracle_at_257_bits(a in limbs::<5>(), b in limbs::<5>()) {
        compare::<Oracle257, 5>(Dataset::v2("").field(), a, b);
    }

    #[test]
    fn field_works_for_any_odd_modulus(modulus in 3u64..=u64::MAX >> 1, a: u64, b: u64) {
        let modulus = modulus | 1;
        let field = Field::new([modulus]).unwrap();
        let (a, b) = (a % modulus, b % modulus);
        let (r, s) = (field.residue([a]).unwrap(), field.residue([b]).unwrap());
        let product = (u128::from(a) * u128::from(b) % u128::from(modulus)) as u64;
        prop_assert_eq!(field.limbs(field.multiply(r, s)), [product]);
        prop_assert_eq!(field.limbs(field.add(r, s)), [((u128::from(a) + u128::from(b)) % u128::from(modulus)) as u64]);
        let divisor = |mut x: u64, mut y: u64| { while y > 0 { (x, y) = (y, x % y); } x };
        match field.inverse(r) {
            Some(inverse) => prop_assert_eq!(field.multiply(inverse, r), field.one()),
            None => prop_assert_ne!(divisor(a, modulus), 1),
        }
    }
}

fn sorted<const L: usize>(elements: &[Element<L>]) -> Vec<Element<L>> {
    let mut elements = elements.to_vec();
    elements.sort();
    elements
}

/// Whether a difference is found, for these numbers of elements on one side, the other and both.
fn solves<const L: usize>(dataset: &Dataset<L>, seed: u64, remote: usize, local: usize, common: usize) {
    let mut random = Random::new(seed);
    let all = random_elements(dataset, &mut random, remote + local + common);
    let (remote_only, rest) = all.split_at(remote);
    let (local_only, both) = rest.split_at(local);
    let summary = |own: &[Element<L>]| dataset.summarise(own.iter().chain(both));
    let solution = solve(dataset, &summary(remote_only), &summary(local_only), &mut random);
    if remote + local > MBAR {
        assert!(solution.is_err());
        return;
    }
    let solution = solution.unwrap();
    assert_eq!(sorted(&solution.remote_only), sorted(remote_only));
    assert_eq!(sorted(&solution.local_only), sorted(local_only));
}

/// Changes to a set: which element, and whether to insert or to remove it.
fn changes() -> impl Strategy<Value = Vec<(u16, bool)>> {
    // Numbers that differ in their low byte only fall below one long prefix.
    let number = prop_oneof![0u16..300, any::<u16>()];
    prop::collection::vec((number, any::<bool>()), 0..800)
}

fn numbered<const L: usize>(dataset: &Dataset<L>, number: u16) -> Element<L> {
    let mut bytes = [0x55; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    dataset.element_from_bytes(&bytes[..dataset.element_length()]).unwrap()
}

/// Applies changes to tree and model, and compares.
fn follows_the_model<const L: usize>(dataset: Dataset<L>, changes: &[(u16, bool)]) {
    let dataset = Arc::new(dataset);
    let (mut changed, mut model) = (Tree::new(dataset.clone()), BTreeSet::new());
    let mut epoch = (changed.clone(), model.clone());
    for (index, &(number, insert)) in changes.iter().enumerate() {
        let element = numbered(&dataset, number);
        let before = changed.summary(&Prefix::ROOT).unwrap();
        let (result, expected) = match insert {
            true => (
                changed.insert(element),
                model.insert(element).then_some(()).ok_or(ChangeError::Duplicate),
            ),
            false => (
                changed.remove(&element),
                model.remove(&element).then_some(()).ok_or(ChangeError::Missing),
            ),
        };
        assert_eq!(result, expected);
        if result.is_err() {
            assert_eq!(changed.summary(&Prefix::ROOT).unwrap(), before);
        }
        if index == changes.len() / 2 {
            epoch = (changed.clone(), model.clone());
        }
    }
    assert_same(&changed, &model);
    assert_same(&epoch.0, &epoch.1);
}

fn assert_same<const L: usize>(tree: &Tree<L>, model: &BTreeSet<Element<L>>) {
    let built = Tree::build(tree.dataset().clone(), model.iter().copied()).unwrap();
    assert!(tree.iter().eq(model.iter().copied()));
    assert_eq!(tree.len(), model.len() as u64);
    let mut prefixes: Vec<_> = built
        .leaves()
        .into_iter()
        .chain(tree.leaves())
        .map(|leaf| leaf.0)
        .collect();
    let above: Vec<_> = prefixes
        .iter()
        .filter_map(|prefix| prefix.children())
        .flatten()
        .collect();
    prefixes.extend(above);
    prefixes.push(Prefix::ROOT);
    for prefix in prefixes {
        let inside: Vec<_> = model
            .iter()
            .filter(|element| prefix.contains(element))
            .copied()
            .collect();
        let summary = tree.dataset().summarise(&inside);
        assert_eq!(tree.summary(&prefix).unwrap(), summary, "{prefix}");
        assert_eq!(built.summary(&prefix).unwrap(), summary, "{prefix}");
        assert_eq!(tree.count(&prefix).unwrap(), summary.count);
        let middle = inside.get(inside.len() / 2);
        assert_eq!(tree.elements(&prefix, None, 7).unwrap(), inside[..inside.len().min(7)]);
        let behind: Vec<_> = inside
            .iter()
            .filter(|&element| Some(element) > middle)
            .copied()
            .collect();
        assert_eq!(tree.elements(&prefix, middle, usize::MAX).unwrap(), behind);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn differences_are_found_up_to_the_bound(seed: u64, remote in 0usize..8, local in 0usize..8, common in 0usize..60) {
        solves(&Dataset::v1(""), seed, remote, local, common);
        solves(&Dataset::v2(""), seed, remote, local, common);
    }

    #[test]
    fn a_changed_tree_equals_one_built_from_the_set(changes in changes()) {
        follows_the_model(Dataset::v1(""), &changes);
        follows_the_model(Dataset::v2(""), &changes);
    }
}

#[test]
fn a_tree_refuses_what_does_not_fit() {
    let dataset = Arc::new(Dataset::v1(""));
    let [low, high] = [numbered(&dataset, 1), numbered(&dataset, 2)];
    let build = |elements: [Element<3>; 3]| Tree::build(dataset.clone(), elements).unwrap_err();
    assert_eq!(build([low, high, high]), BuildError::Duplicate(2));
    assert_eq!(build([low, high, low]), BuildError::OutOfOrder(2));

    // The same number is an element of one dataset and a sample point of another.
    let mut parameters = common::v1_parameters();
    parameters.points[5] = 300;
    let other = Dataset::new("other points", parameters).unwrap();
    let point = dataset.element_from_bytes(&300u16.to_le_bytes()).unwrap();
    let mut tree = Tree::new(Arc::new(other));
    assert_eq!(tree.insert(point), Err(ChangeError::SamplePoint));
    assert_eq!(tree.remove(&point), Err(ChangeError::SamplePoint));
    assert!(tree.is_empty());
}

/// Reconciles two random sets and compares what each side finds with the truth.
fn exact<const L: usize>(dataset: &Arc<Dataset<L>>, seed: u64, common: usize, apart: usize, omission: &str) {
    let mut random = Random::new(seed);
    let all = random_elements(dataset, &mut random, common + apart);
    let share = if apart == 0 {
        0
    } else {
        random.next_u64() as usize % (apart + 1)
    };
    let (walkers_own, rest) = all.split_at(share);
    let (solvers_own, both) = rest.split_at(apart - share);
    let walkers = tree(dataset, &[walkers_own, both].concat());
    let solvers = tree(dataset, &[solvers_own, both].concat());
    let roots = omission.parse::<Omission>().unwrap().roots();
    let (walked, solved) = reconcile(dataset, &walkers, &solvers, roots.clone());
    let expected = |own: &[Element<L>]| {
        let compared = |element: &&Element<L>| roots.iter().any(|root: &Prefix<L>| root.contains(element));
        sorted(&own.iter().filter(compared).copied().collect::<Vec<_>>())
    };
    let what = format!("seed {seed}: {common} common, {apart} apart, without [{omission}]");
    assert_eq!((&walked.end, &solved.end), (&End::Complete, &End::Complete), "{what}");
    assert!(
        walked.missing == expected(solvers_own) && solved.missing == expected(walkers_own),
        "{what}"
    );
}

#[test]
fn sessions_find_exactly_the_difference() {
    let (v1, v2) = (Arc::new(Dataset::v1("")), Arc::new(Dataset::v2("")));
    let mut random = Random::new(2026);
    for seed in 0..60 {
        // Sizes spread evenly over the orders of magnitude; now and then over all of them.
        let (common_max, apart_max) = if seed % 10 == 9 {
            (200_000, 20_000)
        } else {
            (4_096, 1_024)
        };
        let mut size = |max: usize| {
            let bits = random.next_u64() % u64::from(max.ilog2() + 2);
            random.next_u64() as usize % (1 << bits).min(max + 1)
        };
        let (common, apart) = (size(common_max), size(apart_max));
        exact(&v1, seed, common, apart, "");
        exact(
            &v2,
            seed,
            common,
            apart,
            ["", "01", "01 0011 10", "00 01 10 11"][seed as usize % 4],
        );
    }
}

#[test]
fn sessions_find_exactly_the_difference_of_large_sets() {
    let (v1, v2) = (Arc::new(Dataset::v1("")), Arc::new(Dataset::v2("")));
    for (seed, common, apart) in [
        (1, 200_000, 20_000),
        (2, 200_000, 1),
        (3, 0, 20_000),
        (4, 30_000, 3_000),
    ] {
        exact(&v1, seed, common, apart, "");
        exact(&v2, seed, common, apart, ["", "11 0000"][seed as usize % 2]);
    }
}

#[test]
fn residues_of_the_extremes() {
    let field = Dataset::v2("").field().clone();
    let top = field.negate(field.one());
    assert_eq!(field.multiply(top, top), field.one());
    assert_eq!(field.add(top, field.one()), Residue::ZERO);
}
