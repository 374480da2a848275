//! Merging: the union of two copies of a certificate.
//!
//! Associative, commutative and idempotent, so that every node ends with the same certificate whatever came first.
//! Components that occur in one copy stay as they are. For one that occurs in both, equal copies (duplicates counted)
//! stay; otherwise the union is taken and each packet counts once. That is what peers do that fold duplicates only
//! where they merge, and it keeps the laws: per component, the union is an absorbing element.

use crate::cert::{Cert, Component};
use std::cmp::Ordering;

/// The union of two copies with the same primary key packet; `None` if the packets differ.
pub fn merge(a: Cert, b: Cert) -> Option<Cert> {
    if a.primary().body != b.primary().body {
        return None;
    }
    let components = join(
        a.components,
        b.components,
        |a, b| a.sort_key().cmp(&b.sort_key()),
        merge_component,
    );
    Some(Cert { components })
}

fn merge_component(mut a: Component, b: Component) -> Component {
    if same_copies(&a, &b) {
        for (mine, theirs) in a.signatures.iter_mut().zip(&b.signatures) {
            mine.facts = mine.facts.join(&theirs.facts);
        }
        return a;
    }
    a.copies = 1;
    a.signatures = join(
        a.signatures,
        b.signatures,
        |a, b| a.body.cmp(&b.body),
        |mut a, b| {
            a.facts = a.facts.join(&b.facts);
            a
        },
    );
    a.signatures.iter_mut().for_each(|signature| signature.copies = 1);
    a
}

fn same_copies(a: &Component, b: &Component) -> bool {
    a.copies == b.copies
        && a.signatures.len() == b.signatures.len()
        && a.signatures
            .iter()
            .zip(&b.signatures)
            .all(|(a, b)| a.copies == b.copies && a.body == b.body)
}

/// Joins two sorted lists without duplicates into one.
fn join<T>(a: Vec<T>, b: Vec<T>, order: impl Fn(&T, &T) -> Ordering, both: impl Fn(T, T) -> T) -> Vec<T> {
    let mut joined = Vec::with_capacity(a.len().max(b.len()));
    let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
    loop {
        let order = match (a.peek(), b.peek()) {
            (Some(first), Some(second)) => order(first, second),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return joined,
        };
        joined.extend(match order {
            Ordering::Less => a.next(),
            Ordering::Greater => b.next(),
            Ordering::Equal => a.next().zip(b.next()).map(|(first, second)| both(first, second)),
        });
    }
}
