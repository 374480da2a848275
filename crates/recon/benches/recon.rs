//! Figures for the section on reconciliation in `docs/performance.md`: `cargo bench -p keyrink-recon`.
//!
//! Times are those the thread spent on a processor where the system tells them (Linux), so a busy
//! machine blurs the figures less. `-- quick` leaves out the trees of 6.5 million elements.
#![allow(
    unexpected_cfgs,
    reason = "the derive macro of ark-ff asks for a feature of its own crate"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ark_ff::{Fp192, Fp320, MontBackend, MontConfig, PrimeField};
use keyrink_recon::dataset::Dataset;
use keyrink_recon::element::{Element, Prefix};
use keyrink_recon::random::Random;
use keyrink_recon::session::{Action, Budget, End, Outcome, Session, Solver, Walker};
use keyrink_recon::solve::solve;
use keyrink_recon::tree::{Nodes, Tree};
use keyrink_recon::wire::FrameReader;

#[derive(MontConfig)]
#[modulus = "530512889551602322505127520352579437339"]
#[generator = "2"]
struct Prime129;

#[derive(MontConfig)]
#[modulus = "216185297163486321441268008669495343734773616758964905110803019718542051082279"]
#[generator = "2"]
struct Prime257;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let (v1, v2) = (Arc::new(Dataset::v1("v1")), Arc::new(Dataset::v2("v2")));
    if let [_, tree, generation, count] = arguments.as_slice()
        && tree == "tree"
    {
        let count = count.parse().expect("a number of elements");
        return if generation == "v1" {
            trees(&v1, count)
        } else {
            trees(&v2, count)
        };
    }
    let quick = arguments.iter().any(|argument| argument == "quick");
    println!("one product (ns): in a chain, and six independent ones at a time");
    for _ in 0..3 {
        products(&v1);
        oracle::<Fp192<MontBackend<Prime129, 3>>>("129 bits, ark-ff");
        products(&v2);
        oracle::<Fp320<MontBackend<Prime257, 5>>>("257 bits, ark-ff");
    }
    solving(&v1);
    solving(&v2);
    sessions(&v1);
    sessions(&v2);
    sessions_with_smaller_lists(&v1);
    for (generation, count) in [
        ("v1", 1_000_000),
        ("v2", 1_000_000),
        ("v1", 6_500_000),
        ("v2", 6_500_000),
    ] {
        if count < 2_000_000 || !quick {
            tree_in_new_process(generation, count);
        }
    }
}

/// Memory can be told apart only in a process that has not used any before.
fn tree_in_new_process(generation: &str, count: usize) {
    let bench = std::env::current_exe().expect("this program has a path");
    let arguments = ["tree", generation, &count.to_string()];
    let status = std::process::Command::new(bench).args(arguments).status();
    assert!(status.is_ok_and(|status| status.success()));
}

/// The time this thread has had on a processor; the time of day elsewhere.
fn spent(start: Instant) -> Duration {
    let ticks = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = ticks.and_then(|ticks| ticks.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| start.elapsed(), Duration::from_nanos)
}

/// Runs something and gives its result and its time in nanoseconds.
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let before = spent(start);
    let result = black_box(work());
    (result, (spent(start) - before).as_nanos() as f64)
}

/// Resident memory in bytes, where the system tells it.
fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    pages
        .and_then(|pages| pages.split(' ').nth(1)?.parse::<f64>().ok())
        .map_or(f64::NAN, |pages| pages * 4096.0)
}

const PRODUCTS: usize = 6_000_000;

fn products<const L: usize>(dataset: &Dataset<L>) {
    let field = dataset.field();
    let factor = field.power(field.small(black_box(7)), &[12_345]);
    let (_, chain) = timed(|| (0..PRODUCTS).fold(factor, |product, _| field.multiply(product, factor)));
    let (_, six) = timed(|| {
        let mut products = [factor; 6];
        for _ in 0..PRODUCTS / 6 {
            products = products.map(|product| field.multiply(product, factor));
        }
        products
    });
    show_products(&format!("{} bits, here", field.bits()), chain, six);
}

fn oracle<F: PrimeField>(name: &str) {
    let factor = F::from(black_box(7u64)).pow([12_345u64]);
    let (_, chain) = timed(|| (0..PRODUCTS).fold(factor, |product, _| product * factor));
    let (_, six) = timed(|| {
        let mut products = [factor; 6];
        for _ in 0..PRODUCTS / 6 {
            products = products.map(|product| product * factor);
        }
        products
    });
    show_products(name, chain, six);
}

fn show_products(name: &str, chain: f64, six: f64) {
    println!(
        "  {name:<18} {:6.1} {:6.1}",
        chain / PRODUCTS as f64,
        six / PRODUCTS as f64
    );
}

fn random_elements<const L: usize>(dataset: &Dataset<L>, random: &mut Random, count: usize) -> Vec<Element<L>> {
    let mut bytes = vec![0; dataset.element_length()];
    let mut elements = Vec::with_capacity(count);
    while elements.len() < count {
        bytes
            .chunks_mut(8)
            .for_each(|chunk| chunk.copy_from_slice(&random.next_u64().to_le_bytes()));
        elements.extend(dataset.element_from_bytes(&bytes).ok());
    }
    elements.sort_unstable();
    elements
}

fn build<const L: usize>(dataset: &Arc<Dataset<L>>, elements: &[Element<L>]) -> Tree<L> {
    Tree::build(dataset.clone(), elements.iter().copied()).expect("random elements are sorted and distinct")
}

fn trees<const L: usize>(dataset: &Arc<Dataset<L>>, count: usize) {
    let elements = random_elements(dataset, &mut Random::new(1), count);
    let before = resident();
    let (mut tree, time) = timed(|| build(dataset, &elements));
    let memory = resident() - before;
    println!(
        "{}: tree of {count}: built in {:.3} s, {:.3} us and {:.1} bytes an element",
        dataset.name,
        time / 1e9,
        time / 1e3 / count as f64,
        memory / count as f64
    );
    let extra = random_elements(dataset, &mut Random::new(2), 20_000);
    let (_, inserts) = timed(|| extra.iter().filter(|element| tree.insert(**element).is_ok()).count());
    let (_, removals) = timed(|| extra.iter().filter(|element| tree.remove(element).is_ok()).count());
    let epoch = tree.clone();
    let (_, copying) = timed(|| extra.iter().filter(|element| tree.insert(**element).is_ok()).count());
    let each = |time: f64| time / 1e3 / extra.len() as f64;
    println!(
        "  insert {:.2} us, remove {:.2} us, insert while a session holds the epoch {:.2} us",
        each(inserts),
        each(removals),
        each(copying)
    );
    drop(epoch);
}

fn solving<const L: usize>(dataset: &Arc<Dataset<L>>) {
    const ROUNDS: usize = 2_000;
    println!("{}: solving a node (us)", dataset.name);
    let mut random = Random::new(3);
    let all = random_elements(dataset, &mut random, 240);
    for (remote, local) in [(1, 0), (1, 1), (2, 1), (2, 2), (4, 0), (3, 2), (5, 0), (3, 3), (20, 20)] {
        let (both, own) = all.split_at(200);
        let summary = |own: &[Element<L>]| dataset.summarise(both.iter().chain(own));
        let (a, b) = (summary(&own[..remote]), summary(&own[remote..remote + local]));
        let (solved, time) = timed(|| {
            (0..ROUNDS)
                .filter(|_| solve(dataset, &a, &b, &mut random).is_ok())
                .count()
        });
        let result = if solved == ROUNDS {
            "solved"
        } else {
            "not solvable, as it should be"
        };
        println!("  {remote} + {local}: {:8.1}  {result}", time / 1e3 / ROUNDS as f64);
    }
}

/// A session, its cost for both sides in nanoseconds.
fn reconcile<const L: usize>(dataset: &Arc<Dataset<L>>, a: &Tree<L>, b: &Tree<L>) -> ([Outcome<L>; 2], [f64; 2]) {
    let (roots, budget, now) = (vec![Prefix::ROOT], Budget::default(), Duration::ZERO);
    let frames = || FrameReader::new(0);
    let mut walker = Walker::new(dataset.clone(), a, roots.clone(), budget, 1, frames(), now);
    let mut solver = Solver::new(dataset.clone(), b, roots, budget, 2, frames(), now);
    let mut cost = [0.0; 2];
    let (mut walked, mut solved) = (None, None);
    let mut to_walker = Vec::new();
    while walked.is_none() || solved.is_none() {
        let (said, time) = timed(|| step(&mut walker, &mut walked, &to_walker));
        cost[0] += time;
        let (said, time) = timed(|| step(&mut solver, &mut solved, &said));
        cost[1] += time;
        to_walker = said;
    }
    (
        [walked, solved].map(|outcome| outcome.expect("the loop ends with both")),
        cost,
    )
}

/// Feeds a session and takes what it says.
fn step<S: Session>(session: &mut S, end: &mut Option<S::Outcome>, heard: &[u8]) -> Vec<u8> {
    session.receive(Duration::ZERO, heard);
    let mut said = Vec::new();
    while end.is_none() {
        match session.poll(Duration::ZERO) {
            Action::Send(bytes) => said.extend(bytes),
            Action::Wait(_) => break,
            Action::Finish(outcome) => *end = Some(outcome),
        }
    }
    said
}

/// The same sessions when the walker sends samples of all but the smallest nodes.
fn sessions_with_smaller_lists<const L: usize>(dataset: &Dataset<L>) {
    let mut dataset = dataset.clone();
    dataset.name += ", lists of at most 6 elements";
    dataset.thresholds.full_request_max = 6;
    sessions(&Arc::new(dataset));
}

fn sessions<const L: usize>(dataset: &Arc<Dataset<L>>) {
    const COUNT: usize = 1_000_000;
    println!(
        "{}: sessions of two sets of {COUNT}; the lower bound is {} bytes a difference",
        dataset.name,
        dataset.element_length()
    );
    println!("  apart   walker ms  solver ms  requests  round trips     sent  received  bytes a difference");
    let both = random_elements(dataset, &mut Random::new(4), COUNT);
    let common = build(dataset, &both);
    let own = random_elements(dataset, &mut Random::new(5), 20_000);
    for apart in [0, 10, 1_000, 20_000] {
        // Every other element to each side, so that both are spread evenly.
        let (mut a, mut b) = (common.clone(), common.clone());
        let step = own.len() / apart.max(1);
        for (index, element) in own.iter().step_by(step.max(1)).take(apart).enumerate() {
            let side = if index % 2 == 0 { &mut a } else { &mut b };
            side.insert(*element).expect("random elements are distinct");
        }
        let ([walked, solved], [walker, solver]) = reconcile(dataset, &a, &b);
        assert_eq!((&walked.end, &solved.end), (&End::Complete, &End::Complete));
        assert_eq!(walked.missing.len() + solved.missing.len(), apart);
        assert_eq!(a.count(&Prefix::ROOT), Ok(COUNT as u64 + apart.div_ceil(2) as u64));
        let tally = walked.tally;
        println!(
            "  {apart:>6} {:>10.1} {:>10.1} {:>9} {:>12} {:>8} {:>9} {:>12.1}",
            walker / 1e6,
            solver / 1e6,
            tally.requests,
            tally.flushes,
            tally.sent,
            tally.received,
            (tally.sent + tally.received) as f64 / apart.max(1) as f64
        );
    }
}
