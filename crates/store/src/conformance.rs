//! One suite for every engine: what the contract of [`Store`] promises, checked from outside.
//!
//! An engine's tests call [`run`] with a function that gives a fresh, empty store for each check. The records are of a toy
//! realm (lines of words), which shows that a store needs to know nothing about the bytes it keeps.

mod reads;
pub(crate) mod toy;
pub(crate) mod updates;

use crate::Store;

/// Runs every check; `fresh` gives an empty store for the check of that number. Panics at the first broken promise.
pub(crate) fn run<S: Store>(fresh: impl Fn(usize) -> S) {
    for (number, (name, check)) in updates::CHECKS.iter().chain(reads::CHECKS).enumerate() {
        println!("conformance: {name}");
        check(&fresh(number));
    }
}

/// A name and what it checks on an empty store.
type Check = (&'static str, fn(&dyn Store));
