//! Walker and solver with someone between them who changes what they say.
//!
//! Unlike random bytes this reaches deep into a session: most messages are genuine, a few are
//! altered, repeated, swallowed or replaced by others of their kind.

use std::sync::Arc;
use std::time::Duration;

use keyrink_recon::dataset::Dataset;
use keyrink_recon::element::Prefix;
use keyrink_recon::session::{Action, Budget, Outcome, Session, Solver, Walker};
use keyrink_recon::wire::FrameReader;

use crate::mutation::Numbers;
use crate::recon_session::tree;

/// The first byte chooses the generation, eight more the sizes of the sets and the changes.
pub fn run(input: &[u8]) {
    let Some((&choice, rest)) = input.split_first() else {
        return;
    };
    let seed = rest.iter().take(8).fold(0, |seed, &byte| seed << 8 | u64::from(byte));
    match choice & 1 {
        0 => talk(&Arc::new(Dataset::v1("v1")), seed),
        _ => talk(&Arc::new(Dataset::v2("v2")), seed),
    }
}

fn talk<const L: usize>(dataset: &Arc<Dataset<L>>, seed: u64) {
    let mut numbers = Numbers::new(seed);
    let sets = [0; 2].map(|_| tree(dataset, numbers.below(400)));
    let [walkers, solvers] = sets;
    let budget = Budget {
        requests: 300,
        elements: 1_000,
        bytes: 1 << 20,
        ..Budget::default()
    };
    let roots = vec![Prefix::ROOT];
    let frames = || FrameReader::new(0);
    let mut walker = Walker::new(
        dataset.clone(),
        walkers,
        roots.clone(),
        budget,
        1,
        frames(),
        Duration::ZERO,
    );
    let mut solver = Solver::new(dataset.clone(), solvers, roots, budget, 2, frames(), Duration::ZERO);
    let (mut walked, mut solved) = (None, None);
    let mut now = Duration::ZERO;
    for _ in 0..2_000 {
        pass(&mut walker, &mut solver, &mut walked, now, &mut numbers);
        pass(&mut solver, &mut walker, &mut solved, now, &mut numbers);
        if let (Some(walked), Some(solved)) = (&walked, &solved) {
            check(walked, &budget);
            check(solved, &budget);
            return;
        }
        now += Duration::from_secs(1);
    }
    panic!(
        "neither ends nor gives up: {:?} {:?}",
        walked.map(|o| o.end),
        solved.map(|o| o.end)
    );
}

fn check<const L: usize>(outcome: &Outcome<L>, budget: &Budget) {
    assert!(outcome.tally.requests <= budget.requests);
    assert!(outcome.tally.received <= budget.bytes + (1 << 20));
}

/// Passes on what one end says, changed.
fn pass<A: Session, B: Session>(
    from: &mut A,
    to: &mut B,
    end: &mut Option<A::Outcome>,
    now: Duration,
    numbers: &mut Numbers,
) {
    while end.is_none() {
        match from.poll(now) {
            Action::Send(bytes) => to.receive(now, &distort(bytes, numbers)),
            Action::Wait(_) => return,
            Action::Finish(outcome) => {
                *end = Some(outcome);
                to.closed(now);
            }
        }
    }
}

/// Changes something in a stream of whole frames, if at all.
fn distort(bytes: Vec<u8>, numbers: &mut Numbers) -> Vec<u8> {
    if numbers.below(4) > 0 {
        return bytes;
    }
    let mut frames = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some((length, _)) = rest.split_first_chunk::<4>() {
        let (frame, behind) = rest.split_at((4 + u32::from_be_bytes(*length) as usize).min(rest.len()));
        frames.push(frame.to_vec());
        rest = behind;
    }
    let count = frames.len();
    let chosen = numbers.below(count);
    let length = frames[chosen].len();
    match numbers.below(6) {
        0 => frames.insert(numbers.below(count), frames[chosen].clone()),
        1 => drop(frames.remove(chosen)),
        2 => frames.swap(chosen, numbers.below(count)),
        3 => frames[chosen] = vec![0, 0, 0, 1, numbers.below(12) as u8],
        4 => frames[chosen][4] = numbers.below(12) as u8,
        _ => frames[chosen][4 + numbers.below(length - 4)] ^= 1 << numbers.below(8),
    }
    frames.concat()
}

#[cfg(test)]
mod tests {
    #[test]
    fn dialogues_end_whatever_happens_on_the_way() {
        let corpus: Vec<Vec<u8>> = (0..64u8).map(|i| vec![i, i, 1, 2, 3, 4, 5, 6, 7]).collect();
        crate::mutation::run(&corpus, super::run);
    }
}
