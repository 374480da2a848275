//! Merging: the union of two copies of a certificate.
//!
//! Associative, commutative and idempotent, so that every node ends with the same certificate whatever came first.
//! Components that occur in one copy stay as they are. For one that occurs in both, equal copies (duplicates counted)
//! stay; otherwise the union is taken and each packet counts once. That is what peers do that fold duplicates only
//! where they merge, and it keeps the laws: per component, the union is an absorbing element. What stands in Hockeypuck's
//! normal form is counted apart, by rules of its own (`hockeypuck/normal.rs`).

use crate::cert::{Attached, Cert, Component};
use crate::hockeypuck::normal;
use std::cmp::Ordering;

/// The union of two copies with the same primary key packet; `None` if the packets differ.
pub fn merge(mut a: Cert, mut b: Cert) -> Option<Cert> {
    if a.primary().body != b.primary().body {
        return None;
    }
    normal::meet(&mut a, &mut b);
    let components = join(
        a.components,
        b.components,
        |a, b| a.sort_key().cmp(&b.sort_key()),
        merge_component,
    );
    Some(Cert { components })
}

fn merge_component(mut a: Component, mut b: Component) -> Component {
    let same = same_copies(&a, &b);
    normal::unite(&mut a, &mut b);
    a.normal = a.normal.max(b.normal);
    a.signatures = join(a.signatures, b.signatures, |a, b| a.body.cmp(&b.body), merge_signature);
    if !same {
        a.copies = 1;
        a.signatures.iter_mut().for_each(|signature| signature.copies = 1);
    }
    a
}

fn merge_signature(a: Attached, b: Attached) -> Attached {
    Attached {
        facts: a.facts.join(&b.facts),
        normal: a.normal.max(b.normal),
        // Which one came first is not known to everybody.
        trust: a.trust.max(b.trust),
        ..a
    }
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
