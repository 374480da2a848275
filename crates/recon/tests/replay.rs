//! Recorded sessions of SKS 1.1.6 and Hockeypuck 2.4, replayed in both roles.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use common::link::{drain, messages};
use common::offers::{self, HOCKEYPUCK, SKS};
use common::{digests, file, tree};
use keyrink_recon::dataset::Dataset;
use keyrink_recon::element::{Element, Prefix};
use keyrink_recon::session::{Agreement, Budget, End, Failure, Handshake, Refusal, Session, Settings, Solver, Walker};
use keyrink_recon::wire::{FrameReader, Message};

/// A recorded session: who walked, and the sets of both sides.
struct Recording {
    name: &'static str,
    /// The walker sends all elements of a node that has at most so many.
    full_request_max: u64,
    /// The solver answers with all its elements if it has at most so many.
    full_reply_max: u64,
    walker: Vec<Element<3>>,
    solver: Vec<Element<3>>,
}

fn dataset(recording: &Recording) -> Arc<Dataset<3>> {
    let mut dataset = Dataset::v1("recorded");
    dataset.thresholds.full_request_max = recording.full_request_max;
    dataset.thresholds.full_reply_max = recording.full_reply_max;
    Arc::new(dataset)
}

fn hex_digest(text: &str) -> Element<3> {
    let bytes: Vec<u8> = (0..32)
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect();
    Dataset::v1("").element_from_bytes(&bytes).unwrap()
}

/// The set with the digests that Hockeypuck computes in place of those of SKS.
fn as_hockeypuck(set: &[Element<3>]) -> Vec<Element<3>> {
    let table = String::from_utf8(file("recon-v1/captures/set-hockeypuck-replacements.tsv")).unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_once('\t').unwrap());
    let replaced: HashMap<_, _> = rows.map(|(sks, other)| (hex_digest(sks), hex_digest(other))).collect();
    set.iter()
        .map(|element| *replaced.get(element).unwrap_or(element))
        .collect()
}

fn recordings() -> Vec<Recording> {
    let read = |name: &str| digests(&Dataset::v1(""), &file(&format!("recon-v1/captures/set-{name}.bin")));
    let (common, only_a, only_b) = (read("common-sks"), read("onlyA"), read("onlyB"));
    let (a, b) = ([&common[..], &only_a].concat(), [&common[..], &only_b].concat());
    let both = [&common[..], &only_a, &only_b].concat();
    // The eight elements of the small set are what its owner sent as all it had.
    let small = whole_set("03-sks-sks-fullelements");
    let walked = |name| whole_request(name);
    let sks = |name, walker, solver| Recording {
        name,
        full_request_max: 149,
        full_reply_max: 149,
        walker,
        solver,
    };
    let hockeypuck = |name, walker, solver| Recording {
        name,
        full_request_max: 51,
        full_reply_max: 50,
        walker,
        solver,
    };
    let plain = |name| {
        walked(name)
            .into_iter()
            .filter(|element| *element != second())
            .collect::<Vec<_>>()
    };
    vec![
        sks("01-sks-sks", b.clone(), a.clone()),
        sks("02-sks-sks-equal", both.clone(), both.clone()),
        sks("03-sks-sks-fullelements", a.clone(), small),
        hockeypuck("04-hockeypuck-hockeypuck", as_hockeypuck(&b), as_hockeypuck(&a)),
        Recording {
            full_reply_max: 50,
            ..sks("05-sks-drives-hockeypuck", a, as_hockeypuck(&both))
        },
        Recording {
            full_reply_max: 149,
            ..hockeypuck("06-hockeypuck-drives-sks", as_hockeypuck(&both), both)
        },
        sks("08-tiny-sks", walked("08-tiny-sks"), plain("08-tiny-sks")),
        hockeypuck(
            "09-tiny-hockeypuck",
            walked("09-tiny-hockeypuck"),
            plain("09-tiny-hockeypuck"),
        ),
    ]
}

fn stream(name: &str, side: &str) -> Vec<u8> {
    file(&format!("recon-v1/captures/{name}.{side}.bin"))
}

fn settings(filters: &str) -> Settings {
    // Both generations, as nodes come: whoever does not know of trees must meet the first all the same.
    offers::settings(&["openpgp/2", "openpgp/1"], filters)
}

/// Passes a recorded exchange of configurations and gives the stream behind it.
fn shake_hands(name: &str, side: &str) -> Agreement {
    let recorded = stream(name, side);
    let calling = side == "acceptor";
    let filters = if recorded.windows(9).any(|window| window == b"drop:UAT,") {
        HOCKEYPUCK
    } else {
        SKS
    };
    let mut handshake = match calling {
        true => Handshake::call(settings(SKS), Duration::ZERO),
        false => Handshake::accept(settings(filters), Duration::ZERO),
    };
    handshake.receive(Duration::ZERO, &recorded);
    let (_, end) = drain(&mut handshake, Duration::ZERO);
    let agreement = end
        .unwrap()
        .unwrap_or_else(|failure| panic!("{name} {side}: {failure}"));
    assert_eq!(
        (agreement.tree.as_str(), agreement.peer.version.as_deref()),
        ("openpgp/1", Some("1.1.6"))
    );
    assert_eq!(agreement.dataset, if filters == SKS { "sks" } else { "hockeypuck" });
    agreement
}

/// The messages of a recorded stream behind its exchange of configurations.
fn recorded_messages(dataset: &Dataset<3>, name: &str, side: &str) -> Vec<Message<3>> {
    let mut frames = shake_hands(name, side).frames.with_limit(16 << 20);
    let mut messages = Vec::new();
    while let Some(frame) = frames.next_frame().unwrap() {
        messages.push(Message::decode(dataset, frame).unwrap());
    }
    messages
}

fn whole_set(name: &str) -> Vec<Element<3>> {
    let dataset = Dataset::v1("");
    let replies = recorded_messages(&dataset, name, "initiator");
    let Some(Message::FullElements(values)) = replies.first() else {
        panic!()
    };
    values.iter().map(|value| dataset.element(*value).unwrap()).collect()
}

fn whole_request(name: &str) -> Vec<Element<3>> {
    let dataset = Dataset::v1("");
    let requests = recorded_messages(&dataset, name, "acceptor");
    let Some(Message::Full(Prefix::ROOT, values)) = requests.first() else {
        panic!()
    };
    values.iter().map(|value| dataset.element(*value).unwrap()).collect()
}

/// The certificate that one tiny set has and the other lacks: what was fetched afterwards.
fn second() -> Element<3> {
    hex_digest("6df30e70894fd5c691bebdde4e94e38a")
}

/// The message with its list sorted, for comparing as sets.
fn as_set(mut message: Message<3>) -> Message<3> {
    if let Message::Elements(list) | Message::FullElements(list) | Message::Full(_, list) = &mut message {
        list.sort();
    }
    message
}

fn as_sets(messages: Vec<Message<3>>) -> Vec<Message<3>> {
    messages.into_iter().map(as_set).collect()
}

fn difference(of: &[Element<3>], without: &[Element<3>]) -> Vec<Element<3>> {
    let mut rest: Vec<_> = of
        .iter()
        .filter(|element| !without.contains(element))
        .copied()
        .collect();
    rest.sort();
    rest
}

#[test]
fn our_solver_answers_as_the_real_one_did() {
    for recording in recordings() {
        let (name, dataset) = (recording.name, dataset(&recording));
        let agreement = shake_hands(name, "acceptor");
        let nodes = tree(&dataset, &recording.solver);
        let roots = vec![Prefix::ROOT];
        let mut solver = Solver::new(
            dataset.clone(),
            nodes,
            roots,
            Budget::default(),
            1,
            agreement.frames,
            Duration::ZERO,
        );
        let (sent, end) = drain(&mut solver, Duration::ZERO);
        let end = end.unwrap_or_else(|| panic!("{name} does not end"));
        assert_eq!(end.end, End::Complete, "{name}");
        let ours: Vec<_> = messages(&dataset, &sent).into_iter().map(|message| message.0).collect();
        let theirs = recorded_messages(&dataset, name, "initiator");
        assert_eq!(as_sets(ours), as_sets(theirs), "{name}");
        assert_eq!(end.missing, difference(&recording.walker, &recording.solver), "{name}");
    }
}

/// What the recorded walker asked about each prefix and what it was told, and its other elements.
type Exchange = (HashMap<Prefix<3>, (Message<3>, Message<3>)>, Vec<Message<3>>);

fn exchange(dataset: &Dataset<3>, name: &str) -> Exchange {
    let mut replies = recorded_messages(dataset, name, "initiator").into_iter();
    let (mut pairs, mut others) = (HashMap::new(), Vec::new());
    for request in recorded_messages(dataset, name, "acceptor") {
        match request {
            Message::Poly(prefix, _) | Message::Full(prefix, _) => {
                pairs.insert(prefix, (request, replies.next().unwrap()));
            }
            Message::Elements(_) => others.push(request),
            _ => {}
        }
    }
    assert_eq!(replies.next(), None);
    (pairs, others)
}

#[test]
fn our_walker_asks_as_the_real_one_did_and_understands_the_replies() {
    for recording in recordings() {
        let (name, dataset) = (recording.name, dataset(&recording));
        let (mut pairs, mut follow_ups) = exchange(&dataset, name);
        let agreement = shake_hands(name, "initiator");
        drop(agreement.frames);
        let nodes = tree(&dataset, &recording.walker);
        let frames = FrameReader::new(0);
        let budget = Budget::default();
        let mut walker = Walker::new(
            dataset.clone(),
            nodes,
            vec![Prefix::ROOT],
            budget,
            1,
            frames,
            Duration::ZERO,
        );
        let end = loop {
            let (sent, end) = drain(&mut walker, Duration::ZERO);
            let mut reply = Vec::new();
            for (message, _) in messages(&dataset, &sent) {
                match message {
                    Message::Poly(prefix, _) | Message::Full(prefix, _) => {
                        let (request, answer) = pairs.remove(&prefix).unwrap_or_else(|| panic!("{name}: {prefix}"));
                        assert_eq!(as_set(message), as_set(request), "{name}");
                        answer.encode(&dataset, &mut reply);
                    }
                    Message::Elements(_) => assert_eq!(as_set(message), as_set(follow_ups.remove(0)), "{name}"),
                    _ => {}
                }
            }
            if let Some(end) = end {
                break end;
            }
            assert!(!reply.is_empty(), "{name} waits for nothing");
            walker.receive(Duration::ZERO, &reply);
        };
        assert_eq!(end.end, End::Complete, "{name}");
        assert_eq!(end.missing, difference(&recording.solver, &recording.walker), "{name}");
        assert!(
            pairs.is_empty() && follow_ups.is_empty(),
            "{name}: not everything was asked"
        );
    }
}

#[test]
fn mismatched_filters_end_as_recorded() {
    let name = "07-config-mismatch-sks-acceptor";
    let mut accepting = Handshake::accept(settings(SKS), Duration::ZERO);
    accepting.receive(Duration::ZERO, &stream(name, "initiator"));
    let (_, end) = drain(&mut accepting, Duration::ZERO);
    let Some(Err(Failure::Refused {
        reason: Refusal::Dataset { .. },
        peer,
    })) = end
    else {
        panic!("{end:?}")
    };
    assert_eq!(
        peer.filters.as_deref(),
        Some(HOCKEYPUCK),
        "worth keeping for the next time"
    );

    // Calling, we would have repeated the filters of the acceptor to it; it still refuses here.
    let mut calling = Handshake::call(settings(HOCKEYPUCK), Duration::ZERO);
    calling.receive(Duration::ZERO, &stream(name, "acceptor"));
    let (_, end) = drain(&mut calling, Duration::ZERO);
    let Some(Err(Failure::RefusedByPeer { reason, .. })) = end else {
        panic!("{end:?}")
    };
    assert!(reason.starts_with("filters do not match."));
}
