//! Seeded mutation of a corpus, for running a target without a fuzzing engine.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// How long a target is run, in seconds, unless `FUZZ_SECONDS` says otherwise.
const SECONDS: u64 = 2;

/// Bytes of the longest mutated input.
const INPUT_MAX: usize = 1 << 16;

/// A stream of random numbers (Vigna's SplitMix64).
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number below a limit that is not zero.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % limit as u64) as usize
    }
}

/// Runs a target on mutations of a corpus for a while. On a panic the input is printed as hex.
pub fn run(corpus: &[Vec<u8>], target: fn(&[u8])) {
    let seconds = std::env::var("FUZZ_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok());
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS));
    let mut numbers = Numbers::new(1);
    let attempt = |input: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("failing input: {hex}");
            resume_unwind(panic);
        }
    };
    corpus.iter().for_each(|input| attempt(input));
    while Instant::now() < until {
        for _ in 0..16 {
            attempt(&mutate(corpus, &mut numbers));
        }
    }
}

/// An input made from one or two of a corpus by a few changes.
fn mutate(corpus: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut input = corpus[numbers.below(corpus.len())].clone();
    for _ in 0..=numbers.below(6) {
        change(&mut input, corpus, numbers);
    }
    input.truncate(INPUT_MAX);
    input
}

fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], numbers: &mut Numbers) {
    let at = numbers.below(input.len() + 1);
    match numbers.below(7) {
        0 => input.truncate(at),
        1 => input.insert(at, numbers.below(256) as u8),
        2 if at < input.len() => {
            input.remove(at);
        }
        3 if at < input.len() => input[at] ^= 1 << numbers.below(8),
        4 if at < input.len() => input[at] = [0, 1, 2, 0x7f, 0x80, 0xff][numbers.below(6)],
        // Lengths and counts are four bytes.
        5 if at + 4 <= input.len() => {
            let number = [0, 1, 6, 0xff, 0xffff, u32::MAX / 33, u32::MAX][numbers.below(7)];
            input[at..at + 4].copy_from_slice(&number.to_be_bytes());
        }
        _ => {
            let other = &corpus[numbers.below(corpus.len())];
            let (from, to) = (numbers.below(other.len() + 1), numbers.below(other.len() + 1));
            let piece = &other[from.min(to)..from.max(to)];
            input.splice(at..at, piece.iter().copied());
        }
    }
}
