//! How often each packet of a copy stands in its normal form, and what becomes of that when copies meet.
//!
//! Before a copy is judged, `normal` of a packet is how often Hockeypuck reads it in that place; afterwards how often it
//! keeps it there. A primary key that stands in no normal form means that there is none: the copy was too long, could
//! not be borne, or nothing of it was left.
//!
//! The effect of a hard revocation, and that of several signatures by SLH-DSA only the newest stays, is not applied
//! here: both give the same result on the union of copies.

use super::key;
use crate::cert::{Attached, Cert, Component};
use crate::facts::Fact;
use crate::packet::tag;

/// Turns what is read into what is kept, given the facts of all signatures. `repeated` lists for components that
/// occur several times which signatures each occurrence has.
pub(crate) fn judge(cert: &mut Cert) {
    let is_copy = cert.primary().normal > 0 && key::is_read(&cert.primary().body) && !is_deadly(cert);
    for component in &mut cert.components {
        let seats = std::mem::take(&mut component.seats);
        if !is_copy || !is_component(component) {
            clear(component);
        } else if seats.is_empty() {
            judge_single(component);
        } else {
            judge_repeated(component, &seats);
        }
    }
    // Nothing but signatures of others: the copy evaporates.
    if !cert.components.iter().any(is_bound) {
        cert.components.iter_mut().for_each(clear);
    }
}

/// What a merge does to the copies before it unites them: the primary key's signatures, and components that occur
/// several times with theirs, count once. Copies that are equal, or of which one has no normal form, change nothing.
pub(crate) fn meet(a: &mut Cert, b: &mut Cert) {
    let both = a.primary().normal > 0 && b.primary().normal > 0;
    if both && !is_same(a, b) {
        for component in a.components.iter_mut().chain(&mut b.components) {
            if component.tag == tag::PUBLIC_KEY || component.normal > 1 {
                fold(component);
            }
        }
    }
}

/// What the counts of a component come to that both copies have.
pub(crate) fn unite(a: &mut Component, b: &mut Component) {
    match (a.normal, b.normal) {
        (_, 0) => clear(b),
        (0, _) => clear(a),
        _ if kept(a).eq(kept(b)) => {}
        _ => {
            fold(a);
            fold(b);
        }
    }
}

/// Counts every packet at most once.
pub(crate) fn fold(component: &mut Component) {
    component.normal = component.normal.min(1);
    for signature in &mut component.signatures {
        signature.normal = signature.normal.min(1);
    }
}

fn is_deadly(cert: &Cert) -> bool {
    let mut all = cert.components.iter().flat_map(|component| &component.signatures);
    all.any(|attached| attached.facts.has(Fact::Deadly))
}

/// Is it something that signatures attach to?
fn is_component(component: &Component) -> bool {
    component.normal > 0
        && match component.tag {
            tag::PUBLIC_KEY => true,
            tag::PUBLIC_SUBKEY => key::is_read(&component.body),
            tag::USER_ID => !component.body.contains(&0),
            _ => false,
        }
}

fn judge_single(component: &mut Component) {
    for attached in &mut component.signatures {
        if !attached.facts.is_normal() {
            attached.leave_normal();
        }
    }
    if component.tag == tag::PUBLIC_KEY || is_bound(component) {
        component.normal = 1;
    } else {
        clear(component);
    }
}

/// Each occurrence is judged alone, by the signatures that follow it.
fn judge_repeated(component: &mut Component, seats: &[Vec<u32>]) {
    let mut normal = vec![0; component.signatures.len()];
    let facts = |nth: u32| &component.signatures[nth as usize].facts;
    let is_bound = |seats: &&Vec<u32>| seats.iter().any(|nth| facts(*nth).has(Fact::NormalOwn));
    let bound: Vec<_> = seats.iter().filter(is_bound).collect();
    let seated = bound.iter().flat_map(|seats| seats.iter());
    seated
        .filter(|nth| facts(**nth).is_normal())
        .for_each(|nth| normal[*nth as usize] += 1);
    component.normal = bound.len() as u32;
    for (attached, normal) in component.signatures.iter_mut().zip(normal) {
        attached.normal = normal;
        if normal == 0 {
            attached.leave_normal();
        }
    }
}

/// Does a signature of the owner that is kept stand on it?
pub(crate) fn is_bound(component: &Component) -> bool {
    let own = |attached: &Attached| attached.normal > 0 && attached.facts.has(Fact::NormalOwn);
    component.signatures.iter().any(own)
}

fn clear(component: &mut Component) {
    component.normal = 0;
    component.signatures.iter_mut().for_each(Attached::leave_normal);
}

/// The packets of a component that are kept.
fn kept(component: &Component) -> impl Iterator<Item = (&[u8], u32)> {
    let signatures = component.signatures.iter().filter(|attached| attached.normal > 0);
    let signatures = signatures.map(|attached| (&*attached.body, attached.normal));
    std::iter::once((&*component.body, component.normal)).chain(signatures)
}

fn is_same(a: &Cert, b: &Cert) -> bool {
    fn kept_components(cert: &Cert) -> impl Iterator<Item = &Component> {
        cert.components.iter().filter(|component| component.normal > 0)
    }
    let (mut left, mut right) = (kept_components(a), kept_components(b));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if a.tag == b.tag && kept(a).eq(kept(b)) => {}
            _ => return false,
        }
    }
}
