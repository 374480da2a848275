//! Whole sessions of the second generation, byte by byte.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;

use common::link::{messages, reconcile, run, solver, walker};
use common::{elements, hex, list, second, text, tree};
use keyrink_recon::dataset::Dataset;
use keyrink_recon::element::{Element, Prefix};
use keyrink_recon::session::{End, Omission};
use keyrink_recon::wire::Message;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

fn v2() -> Arc<Dataset<5>> {
    Arc::new(Dataset::v2("openpgp/2"))
}

fn prefixes(json: &Json) -> Vec<Prefix<5>> {
    list(json).iter().map(|prefix| text(prefix).parse().unwrap()).collect()
}

fn omission(json: &Json) -> Omission {
    let branches: Vec<_> = list(json).iter().map(text).collect();
    branches.join(" ").parse().unwrap()
}

#[test]
fn session_roots() {
    let vectors = second();
    for vector in list(&vectors["omission"]) {
        assert_eq!(omission(&vector["omit"]).roots::<5>(), prefixes(&vector["roots"]));
    }
    let both = "01 0011".parse::<Omission>().unwrap().union(&"1111".parse().unwrap());
    assert_eq!(both.roots::<5>(), prefixes(&vectors["wire"]["session_roots"]));
}

/// Compares a frame with one that is written out, or given as length and digest.
fn assert_frame(frame: &[u8], expected: &Json, what: &str) {
    if expected.is_string() {
        assert_eq!(frame, hex(expected), "{what}");
        return;
    }
    assert_eq!(frame.len() as u64, expected["length"].as_u64().unwrap(), "{what}");
    assert_eq!(Sha256::digest(frame).to_vec(), hex(&expected["sha256"]), "{what}");
}

/// Runs a session and compares every message with the recorded exchange.
fn assert_session(vector: &Json, requester: &[Element<5>], answerer: &[Element<5>]) -> (usize, usize) {
    let dataset = v2();
    let roots = prefixes(&vector["roots"]);
    let mut walker = walker(&dataset, tree(&dataset, requester), roots.clone());
    let mut solver = solver(&dataset, tree(&dataset, answerer), roots);
    let ((walked, asked), (solved, replied)) = run(&mut walker, &mut solver);
    assert_eq!((&walked.end, &solved.end), (&End::Complete, &End::Complete));

    let asked = messages(&dataset, &asked);
    let of_kind = |wanted: fn(&Message<5>) -> bool| asked.iter().filter(move |message| wanted(&message.0));
    let mut requests = of_kind(|message| matches!(message, Message::Poly(..) | Message::Full(..)));
    let mut follow_ups = of_kind(|message| matches!(message, Message::Elements(_)));
    let replies = messages(&dataset, &replied);
    let mut replies = replies.iter();
    for step in list(&vector["exchange"]) {
        let what = text(&step["prefix"]);
        assert_frame(&requests.next().unwrap().1, &step["request"], what);
        assert_frame(&replies.next().unwrap().1, &step["reply"], what);
        if let Some(expected) = step.get("follow_up") {
            assert_frame(&follow_ups.next().unwrap().1, expected, what);
        }
    }
    assert_eq!((requests.count(), follow_ups.count(), replies.count()), (0, 0, 0));
    for (name, found) in [
        ("requester_needs", &walked.missing),
        ("answerer_needs", &solved.missing),
    ] {
        if let Some(expected) = vector.get(name) {
            assert_eq!(*found, elements(&dataset, expected), "{name}");
        }
    }
    (walked.missing.len(), solved.missing.len())
}

#[test]
fn recorded_sessions_with_and_without_omission() {
    let dataset = v2();
    let vectors = second();
    let session = &vectors["session"];
    // Order matters for the second one, which takes the first sixty as they stand.
    let parse = |json: &Json| dataset.element_from_bytes(&hex(json)).unwrap();
    let all: Vec<_> = list(&session["requester"]).iter().map(parse).collect();
    let answerer = elements(&dataset, &session["answerer"]);
    assert_session(session, &all, &answerer);
    assert_session(&vectors["session_lopsided"], &all, &all[..60]);
}

/// The made-up hashes of the vectors.
fn made_up(dataset: &Dataset<5>, label: &str, count: usize) -> Vec<Element<5>> {
    let made = (0..count).map(|i| {
        let mut hash: [u8; 32] = Sha256::digest(format!("recon-v2/{label}/{i}")).into();
        let version = [4, 4, 4, 4, 4, 4, 6, 3][usize::from(hash[31] % 8)];
        let context = [2, 2, 2, 1, 1, 0][usize::from(hash[30] % 6)];
        hash[0] = (version & 3) << 6 | context << 4 | hash[0] & 15;
        dataset.element_from_bytes(&hash).unwrap()
    });
    made.collect()
}

#[test]
fn recorded_sessions_of_very_unequal_sets() {
    let vectors = second();
    let many = made_up(&v2(), "big", 20_001);
    assert_session(&vectors["session_over_20000_full"], &[], &many);
    assert_session(&vectors["session_over_20000_poly"], &many, &many[..3]);
}

#[test]
fn without_roots_there_is_nothing_to_ask() {
    let dataset = v2();
    let set = tree(&dataset, &made_up(&dataset, "big", 100));
    let (walked, solved) = reconcile(&dataset, &set, &tree(&dataset, &[]), Vec::new());
    assert_eq!((walked.end, solved.end), (End::Complete, End::Complete));
    assert_eq!((walked.tally.requests, walked.tally.sent), (0, 5));
}

#[test]
fn refused_branches_are_left_out() {
    let dataset = v2();
    let (ours, theirs) = (made_up(&dataset, "big", 3_000), made_up(&dataset, "other", 3_000));
    let refused: Prefix<5> = "0010".parse().unwrap();
    let mut walker = walker(&dataset, tree(&dataset, &ours), vec![Prefix::ROOT]);
    let mut solver =
        solver(&dataset, tree(&dataset, &theirs), vec![Prefix::ROOT]).refuse(vec![(refused, 3, "policy".to_owned())]);
    let ((walked, _), (solved, _)) = run(&mut walker, &mut solver);
    assert_eq!((&walked.end, &solved.end), (&End::Complete, &End::Complete));
    assert_eq!(walked.refused, [(refused, 3, "policy".to_owned())]);
    let mut wanted: Vec<_> = theirs
        .into_iter()
        .filter(|element| !refused.contains(element))
        .collect();
    wanted.sort();
    assert_eq!(walked.missing, wanted);
}

#[test]
fn a_request_outside_the_agreed_roots_is_refused() {
    let dataset = v2();
    let set = tree(&dataset, &made_up(&dataset, "big", 3_000));
    let mut walker = walker(
        &dataset,
        tree(&dataset, &[]),
        vec!["00".parse().unwrap(), "10".parse().unwrap()],
    );
    let mut solver = solver(&dataset, &set, vec!["00".parse().unwrap()]);
    let ((walked, _), _) = run(&mut walker, &mut solver);
    assert_eq!(walked.end, End::Complete);
    assert_eq!(walked.refused.len(), 1);
    assert_eq!(
        (walked.refused[0].0.to_string(), walked.refused[0].1),
        ("10".to_owned(), 1)
    );
    assert!(!walked.missing.is_empty());
}

#[test]
fn neither_side_learns_by_what_is_above_of_what_it_left_out() {
    let dataset = v2();
    let (ours, theirs) = (made_up(&dataset, "big", 30), made_up(&dataset, "other", 30));
    let left_out: Prefix<5> = "00".parse().unwrap();
    let wanted = |elements: &[Element<5>]| {
        let mut wanted: Vec<_> = elements
            .iter()
            .filter(|element| !left_out.contains(element))
            .copied()
            .collect();
        wanted.sort();
        wanted
    };
    let sides = || {
        let [ours, theirs] = [&ours, &theirs].map(|elements| tree(&dataset, elements));
        (
            walker(&dataset, ours, vec![Prefix::ROOT]),
            solver(&dataset, theirs, vec![Prefix::ROOT]),
        )
    };
    let (mut asking, solver) = sides();
    let mut refusing = solver.refuse(vec![(left_out, 3, "policy".to_owned())]);
    let (walker, mut answering) = sides();
    let mut shunning = walker.shun(vec![left_out]);
    for ((walked, _), (solved, _)) in [run(&mut asking, &mut refusing), run(&mut shunning, &mut answering)] {
        assert_eq!((&walked.end, &solved.end), (&End::Complete, &End::Complete));
        assert_eq!((walked.missing, solved.missing), (wanted(&theirs), wanted(&ours)));
    }
}
