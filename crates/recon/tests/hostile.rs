//! Peers that break the protocol, lie, or never stop.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::link::{drain, frames, messages, reconcile, solver, walker};
use common::{random_elements, tree};
use keyrink_recon::dataset::{Dataset, Summary, Unfit};
use keyrink_recon::element::{Element, Prefix, Value};
use keyrink_recon::poly::Poly;
use keyrink_recon::random::Random;
use keyrink_recon::session::{Action, Budget, End, Fault, Late, Limit, Outcome, Session, Solver, Walker};
use keyrink_recon::tree::{Nodes, Tree, Unavailable};
use keyrink_recon::wire::{Kind, Message, WireError};

const ROOT: &str = "";

fn v1() -> Arc<Dataset<3>> {
    Arc::new(Dataset::v1("sks"))
}

fn v2() -> Arc<Dataset<5>> {
    Arc::new(Dataset::v2("openpgp/2"))
}

fn prefix<const L: usize>(bits: &str) -> Prefix<L> {
    bits.parse().unwrap()
}

/// A set of our own.
fn ours<const L: usize>(dataset: &Arc<Dataset<L>>, count: usize) -> Tree<L> {
    tree(dataset, &random_elements(dataset, &mut Random::new(7), count))
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32 + 1;
    [&length.to_be_bytes()[..], &[kind], payload].concat()
}

fn encode<const L: usize>(dataset: &Dataset<L>, messages: &[Message<L>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    messages.iter().for_each(|message| message.encode(dataset, &mut bytes));
    bytes
}

/// What a solver makes of these bytes: its end, if it ends, and what it said.
fn solver_hears<const L: usize>(dataset: &Arc<Dataset<L>>, bytes: &[u8]) -> (Option<Outcome<L>>, Vec<Message<L>>) {
    let mut solver = solver(dataset, ours(dataset, 500), vec![Prefix::ROOT]);
    solver.receive(Duration::ZERO, bytes);
    let (said, end) = drain(&mut solver, Duration::ZERO);
    (
        end,
        messages(dataset, &said).into_iter().map(|message| message.0).collect(),
    )
}

/// What a walker that has asked about the root makes of these bytes.
fn walker_hears<const L: usize>(
    dataset: &Arc<Dataset<L>>,
    own: usize,
    bytes: &[u8],
) -> (Option<Outcome<L>>, Vec<Message<L>>) {
    let mut walker = walker(dataset, ours(dataset, own), vec![prefix(ROOT)]);
    drain(&mut walker, Duration::ZERO);
    walker.receive(Duration::ZERO, bytes);
    let (said, end) = drain(&mut walker, Duration::ZERO);
    (
        end,
        messages(dataset, &said).into_iter().map(|message| message.0).collect(),
    )
}

/// Asserts that bytes are a fault for the solvers of both generations, told only by the second.
fn assert_solver_fault(bytes: impl Fn(usize) -> Vec<u8>, fault: Fault) {
    let (end, said) = solver_hears(&v1(), &bytes(17));
    assert_eq!(end.unwrap().end, End::Fault(fault));
    assert_eq!(said, []);
    let (end, said) = solver_hears(&v2(), &bytes(33));
    assert_eq!(end.unwrap().end, End::Fault(fault));
    assert_eq!(said, [Message::Error(fault.to_string())]);
}

#[test]
fn malformed_messages() {
    let wire = |error| Fault::Wire(error);
    let good = |length: usize| {
        let mut sample = [0; 33];
        sample[0] = 9;
        [sample; 6].map(|sample| sample[..length].to_vec())
    };
    let poly = |prefix: &[u8], size: u32, count: u32, samples: &[Vec<u8>]| {
        frame(
            0,
            &[prefix, &size.to_be_bytes(), &count.to_be_bytes(), &samples.concat()].concat(),
        )
    };
    let root = [0; 8];
    for count in [0u32, 5, 7] {
        let bytes = |length: usize| poly(&root, 60, count, &vec![good(length)[0].clone(); count as usize]);
        assert_solver_fault(bytes, wire(WireError::SampleCount(count as usize)));
    }
    assert_solver_fault(|n| poly(&root, 60, 1 << 30, &good(n)), wire(WireError::Truncated));
    assert_solver_fault(|n| poly(&root, 1 << 31, 6, &good(n)), wire(WireError::Size(1 << 31)));
    let zero = |n: usize| {
        let mut samples = good(n);
        samples[3][0] = 0;
        poly(&root, 60, 6, &samples)
    };
    assert_solver_fault(zero, wire(WireError::ZeroSample));
    let large = |n: usize| {
        let mut samples = good(n);
        samples[0] = vec![0xff; n];
        poly(&root, 60, 6, &samples)
    };
    assert_solver_fault(large, wire(WireError::LargeSample));
    for (bits, bytes, error) in [
        (3u32, &[0x20][..], WireError::PrefixLength(3)),
        (1000, &[0; 125], WireError::PrefixLength(1000)),
        (u32::MAX - 1, &[], WireError::PrefixLength(u32::MAX as usize - 1)),
        (4, &[0x18], WireError::PrefixPadding),
        (4, &[], WireError::PrefixPadding),
        (4, &[0x10, 0], WireError::PrefixPadding),
    ] {
        let prefix = [&bits.to_be_bytes()[..], &(bytes.len() as u32).to_be_bytes(), bytes].concat();
        assert_solver_fault(|n| poly(&prefix, 60, 6, &good(n)), wire(error));
    }
    assert_solver_fault(|_| vec![0; 4], wire(WireError::EmptyFrame));
    assert_solver_fault(|_| frame(12, &[]), wire(WireError::UnknownType(12)));
    assert_solver_fault(|_| frame(6, &[1]), wire(WireError::TrailingBytes(1)));
    assert_solver_fault(|_| frame(1, &[]), wire(WireError::Truncated));
    assert_solver_fault(|_| frame(7, &[0, 1, 0, 1]), wire(WireError::TextTooLong(65_537)));
    assert_solver_fault(
        |_| frame(7, &u32::MAX.to_be_bytes()),
        wire(WireError::TextTooLong(u32::MAX as usize)),
    );
    // A list that announces more than is there.
    assert_solver_fault(
        |_| frame(1, &[&root[..], &[0xff; 4]].concat()),
        wire(WireError::Truncated),
    );
}

#[test]
fn frames_that_announce_too_much() {
    let (end, _) = solver_hears(&v1(), &[1, 0, 0, 1]);
    let error = WireError::FrameTooLong {
        announced: (16 << 20) + 1,
        limit: 16 << 20,
    };
    assert_eq!(end.unwrap().end, End::Fault(error.into()));
    let (end, _) = solver_hears(&v1(), &[1, 0, 0, 0, 2]);
    assert!(end.is_none(), "one that is allowed is waited for");
    let (end, _) = solver_hears(&v2(), &[0, 16, 0, 1]);
    assert!(matches!(
        end.unwrap().end,
        End::Fault(Fault::Wire(WireError::FrameTooLong { .. }))
    ));
}

#[test]
fn messages_out_of_place() {
    let v2 = &v2();
    for message in [
        Message::SyncFail,
        Message::FullElements(Vec::new()),
        Message::Historic(8, "x".into()),
        Message::Refused(Prefix::ROOT, 1, String::new()),
        Message::Config,
    ] {
        let (end, _) = solver_hears(v2, &encode(v2, std::slice::from_ref(&message)));
        assert_eq!(end.unwrap().end, End::Fault(Fault::Unexpected(message.kind())));
    }
    let (end, _) = solver_hears(v2, &encode(v2, &[Message::Elements(Vec::new())]));
    assert_eq!(end.unwrap().end, End::Fault(Fault::UnaskedElements));
    let (end, _) = solver_hears(&v1(), &frame(11, &[0; 13]));
    assert_eq!(
        end.unwrap().end,
        End::Fault(Fault::Wire(WireError::UnknownType(11))),
        "not in the first generation"
    );

    for message in [
        Message::Done,
        Message::Flush,
        Message::Config,
        Message::Poly(Prefix::ROOT, v2.empty()),
    ] {
        let (end, said) = walker_hears(v2, 500, &encode(v2, std::slice::from_ref(&message)));
        let fault = Fault::WrongReply(message.kind());
        assert_eq!(end.unwrap().end, End::Fault(fault));
        assert_eq!(said, [Message::Error(fault.to_string())]);
    }
    let (end, _) = walker_hears(v2, 500, &encode(v2, &[Message::Error("no".into())]));
    assert_eq!(end.unwrap().end, End::PeerError("no".into()));
    let (end, _) = walker_hears(
        v2,
        500,
        &encode(v2, &[Message::Refused(prefix("01"), 1, String::new())]),
    );
    assert_eq!(end.unwrap().end, End::Fault(Fault::WrongRefusal));
    // All elements were sent, so all elements are no answer.
    let (end, _) = walker_hears(v2, 5, &encode(v2, &[Message::FullElements(Vec::new())]));
    assert_eq!(end.unwrap().end, End::Fault(Fault::WrongReply(Kind::FullElements)));
}

#[test]
fn replies_without_requests() {
    // Two replies to one request.
    let dataset = &v1();
    let two = encode(dataset, &[Message::SyncFail, Message::SyncFail]);
    let (end, said) = walker_hears(dataset, 500, &two);
    assert_eq!(end.unwrap().end, End::Fault(Fault::UnaskedReply(Kind::SyncFail)));
    assert_eq!(said, [Message::Done], "the first generation is told nothing");
    // A reply before the request has left.
    let mut early = walker(dataset, ours(dataset, 500), vec![prefix(ROOT)]);
    early.receive(Duration::ZERO, &encode(dataset, &[Message::SyncFail]));
    let (_, end) = drain(&mut early, Duration::ZERO);
    assert_eq!(end.unwrap().end, End::Fault(Fault::UnaskedReply(Kind::SyncFail)));
}

#[test]
fn elements_that_cannot_be() {
    fn bad<const L: usize>(dataset: &Dataset<L>) -> Vec<(Vec<Value<L>>, Fault)> {
        let value = |bytes: &[u8]| Value::from_bytes(bytes).unwrap();
        let (inside, outside) = (value(&[0x01; 16]), value(&[0xf1; 16]));
        let mut wide = vec![1; dataset.value_length()];
        wide[0] = 0;
        vec![
            (vec![inside, outside], Fault::OutsidePrefix),
            (vec![inside, inside], Fault::Repeated),
            (vec![inside, value(&[])], Fault::Unfit(Unfit::SamplePoint)),
            (vec![inside, value(&[2])], Fault::Unfit(Unfit::SamplePoint)),
            (vec![inside, value(&wide)], Fault::Unfit(Unfit::TooLarge)),
            (
                vec![inside, Value::from_limbs(dataset.field().modulus())],
                Fault::Unfit(Unfit::TooLarge),
            ),
        ]
    }
    let dataset = v2();
    for (list, fault) in bad(&dataset) {
        let message = Message::Full(prefix("00"), list.clone());
        let (end, said) = solver_hears(&dataset, &encode(&dataset, &[message]));
        assert_eq!(end.unwrap().end, End::Fault(fault));
        assert_eq!(said, [Message::Error(fault.to_string())]);
        for reply in [Message::Elements(list.clone()), Message::FullElements(list)] {
            let mut walker = walker(&dataset, ours(&dataset, 500), vec![prefix("00")]);
            drain(&mut walker, Duration::ZERO);
            walker.receive(Duration::ZERO, &encode(&dataset, &[reply]));
            assert_eq!(drain(&mut walker, Duration::ZERO).1.unwrap().end, End::Fault(fault));
        }
    }
    // The first generation has peers that do so in good faith: dropped, counted, and on it goes.
    let dataset = v1();
    for (list, _) in bad(&dataset) {
        let stream = [Message::Full(prefix("00"), list), Message::Flush, Message::Done];
        let (end, said) = solver_hears(&dataset, &encode(&dataset, &stream));
        let end = end.unwrap();
        assert_eq!((&end.end, end.tally.dropped, end.missing.len()), (&End::Complete, 1, 1));
        assert_eq!(said.len(), 1);
    }
}

/// The samples of any polynomial, as if it were that of a set.
fn invented<const L: usize>(dataset: &Dataset<L>, poly: &Poly<L>, count: u64) -> Summary<L> {
    let samples = dataset.points().map(|point| poly.evaluate(dataset.field(), point));
    Summary { count, samples }
}

fn falls_back<const L: usize>(dataset: &Arc<Dataset<L>>, summary: Summary<L>) {
    let mut solver = solver(dataset, tree(dataset, &[]), vec![Prefix::ROOT]);
    let stream = [Message::Poly(Prefix::ROOT, summary), Message::Flush, Message::Done];
    solver.receive(Duration::ZERO, &encode(dataset, &stream));
    let (said, end) = drain(&mut solver, Duration::ZERO);
    let end = end.unwrap();
    assert_eq!((end.end, end.tally.solved, end.missing.len()), (End::Complete, 0, 0));
    assert_eq!(messages(dataset, &said)[0].0, Message::FullElements(Vec::new()));
}

#[test]
fn polynomials_of_no_set_cost_a_descent_and_nothing_else() {
    fn all<const L: usize>(dataset: Arc<Dataset<L>>) {
        let field = dataset.field().clone();
        let number = |number: i64| match field.small(number.unsigned_abs()) {
            magnitude if number < 0 => field.negate(magnitude),
            magnitude => magnitude,
        };
        let poly = |numbers: &[i64]| Poly::new(numbers.iter().map(|&n| number(n)).collect());
        // Both primes are 3 modulo 4, so -1 is no square and neither is minus any square.
        falls_back(&dataset, invented(&dataset, &poly(&[100, 0, 1]), 2));
        falls_back(
            &dataset,
            invented(&dataset, &poly(&[100, 0, 1]).multiply(&field, &poly(&[-77, 1])), 3),
        );
        // Repeated factors.
        falls_back(&dataset, invented(&dataset, &poly(&[25, -10, 1]), 2));
        let cube = Poly::from_roots(&field, &[number(9); 3]);
        falls_back(&dataset, invented(&dataset, &cube, 3));
        falls_back(
            &dataset,
            invented(&dataset, &cube.multiply(&field, &poly(&[100, 0, 1])), 5),
        );
        // Irreducible of degree five, most likely, and certainly not five elements.
        falls_back(&dataset, invented(&dataset, &poly(&[12_345, 7, 0, 3, 1, 1]), 5));
        // Numbers that are no elements: above all of them.
        falls_back(
            &dataset,
            invented(&dataset, &Poly::from_roots(&field, &[number(-9)]), 1),
        );
        // Sizes that lie.
        let one = Poly::from_roots(&field, &[number(99)]);
        falls_back(&dataset, invented(&dataset, &one, 2));
        falls_back(&dataset, invented(&dataset, &one, 0));
        falls_back(&dataset, invented(&dataset, &one, 20_000));
    }
    all(v1());
    all(v2());
}

#[test]
fn solutions_that_contradict_our_set_are_none() {
    let dataset = v2();
    let own = random_elements(&dataset, &mut Random::new(3), 120);
    let inside: Vec<_> = own
        .iter()
        .filter(|element| prefix("00").contains(element))
        .copied()
        .collect();
    let outside = own.iter().find(|element| !prefix("00").contains(element)).unwrap();
    // An element of ours that we "lack", one outside the prefix, and one of ours that is not there.
    let lies: [Vec<Element<5>>; 2] = [
        inside.iter().chain([outside]).copied().collect(),
        inside.iter().chain(&inside[..1]).copied().collect(),
    ];
    for lie in lies {
        let mut solver = solver(&dataset, tree(&dataset, &own), vec![Prefix::ROOT]);
        let stream = [
            Message::Poly(prefix("00"), dataset.summarise(&lie)),
            Message::Flush,
            Message::Done,
        ];
        solver.receive(Duration::ZERO, &encode(&dataset, &stream));
        let end = drain(&mut solver, Duration::ZERO).1.unwrap();
        assert_eq!((end.tally.solved, end.missing.len()), (0, 0));
    }
}

/// A peer that answers every request with the same message; the walker's end.
fn stubborn<const L: usize>(dataset: &Arc<Dataset<L>>, own: usize, budget: Budget, reply: &Message<L>) -> Outcome<L> {
    let nodes = ours(dataset, own);
    let roots = vec![prefix(ROOT)];
    let mut walker = Walker::new(dataset.clone(), nodes, roots, budget, 1, frames(), Duration::ZERO);
    loop {
        let (said, end) = drain(&mut walker, Duration::ZERO);
        if let Some(end) = end {
            return end;
        }
        let asked = messages(dataset, &said);
        let asked = asked
            .iter()
            .filter(|m| matches!(m.0, Message::Poly(..) | Message::Full(..)))
            .count();
        walker.receive(Duration::ZERO, &encode(dataset, &vec![reply.clone(); asked]));
    }
}

#[test]
fn endless_sync_fail() {
    // In the first generation it may answer samples only.
    let end = stubborn(&v1(), 500, Budget::default(), &Message::SyncFail);
    assert_eq!(end.end, End::Fault(Fault::WrongReply(Kind::SyncFail)));
    assert!(end.tally.requests < 500);
    // In the second it could go on for ever, but for the budget.
    let end = stubborn(&v2(), 500, Budget::default(), &Message::SyncFail);
    assert_eq!((end.end, end.tally.requests), (End::Limit(Limit::Requests), 200_000));
    let budget = Budget {
        queue: 40,
        ..Budget::default()
    };
    let end = stubborn(&v2(), 2, budget, &Message::Refused(Prefix::ROOT, 2, String::new()));
    assert_eq!((end.end, end.refused.len()), (End::Complete, 1));
    let budget = Budget {
        requests: 1_000,
        ..Budget::default()
    };
    let end = stubborn(&v2(), 500, budget, &Message::SyncFail);
    assert_eq!((end.end, end.tally.requests), (End::Limit(Limit::Requests), 1_000));
    // And it has nowhere to go from a full prefix.
    let full = Prefix::<5>::from_bits(256, &[0x55; 32]).unwrap();
    let mut walker = walker(&v2(), ours(&v2(), 5), vec![full]);
    drain(&mut walker, Duration::ZERO);
    walker.receive(Duration::ZERO, &encode(&v2(), &[Message::SyncFail]));
    assert_eq!(
        drain(&mut walker, Duration::ZERO).1.unwrap().end,
        End::Fault(Fault::NoChildren)
    );
}

#[test]
fn endless_elements_and_requests() {
    let dataset = v1();
    let budget = Budget {
        elements: 1_000,
        requests: 50,
        bytes: 1 << 20,
        ..Budget::default()
    };
    let many = random_elements(&dataset, &mut Random::new(9), 1_200);
    let values: Vec<_> = many.iter().map(Element::value).collect();
    let mut walker = Walker::new(
        dataset.clone(),
        ours(&dataset, 500),
        vec![Prefix::ROOT],
        budget,
        1,
        frames(),
        Duration::ZERO,
    );
    drain(&mut walker, Duration::ZERO);
    walker.receive(Duration::ZERO, &encode(&dataset, &[Message::Elements(values.clone())]));
    let (said, end) = drain(&mut walker, Duration::ZERO);
    let end = end.unwrap();
    assert_eq!((end.end, end.missing.len()), (End::Limit(Limit::Elements), 1_000));
    assert_eq!(messages(&dataset, &said)[0].0, Message::Done);

    let solver = || {
        Solver::new(
            dataset.clone(),
            ours(&dataset, 500),
            vec![Prefix::ROOT],
            budget,
            1,
            frames(),
            Duration::ZERO,
        )
    };
    let end = |stream: &[u8]| {
        let mut solver = solver();
        solver.receive(Duration::ZERO, stream);
        drain(&mut solver, Duration::ZERO).1.unwrap().end
    };
    assert_eq!(
        end(&encode(&dataset, &[Message::Full(Prefix::ROOT, values)])),
        End::Limit(Limit::Elements)
    );
    let dropped = vec![Value::from_bytes(&[]).unwrap(); 1_001];
    assert_eq!(
        end(&encode(&dataset, &[Message::Full(Prefix::ROOT, dropped)])),
        End::Limit(Limit::Elements)
    );
    let poly = Message::Poly(Prefix::ROOT, dataset.empty());
    assert_eq!(end(&encode(&dataset, &vec![poly; 51])), End::Limit(Limit::Requests));
    assert_eq!(end(&vec![0; (1 << 20) + 1]), End::Limit(Limit::Bytes));
}

/// Seventeen bytes ask for 500 elements: what goes out is counted too.
#[test]
fn endless_answers() {
    let dataset = v1();
    let budget = Budget {
        bytes: 1 << 18,
        ..Budget::default()
    };
    let mut greedy = Solver::new(
        dataset.clone(),
        ours(&dataset, 500),
        vec![Prefix::ROOT],
        budget,
        1,
        frames(),
        Duration::ZERO,
    );
    let all = Message::Full(Prefix::ROOT, Vec::new());
    greedy.receive(Duration::ZERO, &encode(&dataset, &vec![all; 50]));
    let end = drain(&mut greedy, Duration::ZERO).1.unwrap();
    assert_eq!(end.end, End::Limit(Limit::Bytes));
    // The reply that went beyond it may still leave.
    assert!(end.tally.sent < (1 << 18) + 500 * 18);
}

#[test]
fn asking_without_reading() {
    let dataset = v2();
    let many = ours(&dataset, 15_000);
    let mut solver = solver(&dataset, &many, vec![Prefix::ROOT]);
    let all = Message::Full(Prefix::ROOT, Vec::new());
    let mut requests = vec![all; 40];
    requests.push(Message::Done);
    solver.receive(Duration::ZERO, &encode(&dataset, &requests));
    assert!(!solver.wants_input());
    let mut sent = 0;
    let outcome = loop {
        match solver.poll(Duration::ZERO) {
            Action::Send(bytes) => {
                assert!(bytes.len() < 2 << 20, "only a few replies are held at a time");
                sent += bytes.len();
            }
            Action::Wait(_) => panic!("there is more to answer"),
            Action::Finish(outcome) => break outcome,
        }
    };
    assert_eq!((outcome.end, outcome.tally.requests), (End::Complete, 40));
    assert!(sent > 38 * 15_000 * 33);
}

#[test]
fn silence_and_dribble() {
    let dataset = v1();
    let seconds = Duration::from_secs;
    // The solver hears nothing at all, then nothing after a Flush.
    let mut silent = solver(&dataset, ours(&dataset, 9), vec![Prefix::ROOT]);
    assert!(drain(&mut silent, seconds(59)).1.is_none());
    assert_eq!(drain(&mut silent, seconds(60)).1.unwrap().end, End::Late(Late::Idle));
    let mut silent = solver(&dataset, ours(&dataset, 9), vec![Prefix::ROOT]);
    silent.receive(seconds(1), &encode(&dataset, &[Message::Flush]));
    assert!(drain(&mut silent, seconds(30)).1.is_none());
    assert_eq!(drain(&mut silent, seconds(31)).1.unwrap().end, End::Late(Late::Idle));
    // The walker flushes at once.
    let mut waiting = walker(&dataset, ours(&dataset, 9), vec![Prefix::ROOT]);
    assert!(drain(&mut waiting, seconds(29)).1.is_none());
    assert_eq!(drain(&mut waiting, seconds(30)).1.unwrap().end, End::Late(Late::Idle));
    // A byte now and then does not help for ever.
    let mut dribbling = solver(&dataset, ours(&dataset, 9), vec![Prefix::ROOT]);
    for second in (0..600).step_by(20) {
        dribbling.receive(seconds(second), &[0]);
        if second == 0 {
            dribbling.receive(seconds(second), &[1, 0, 0]);
        }
        assert!(drain(&mut dribbling, seconds(second)).1.is_none());
    }
    assert_eq!(
        drain(&mut dribbling, seconds(600)).1.unwrap().end,
        End::Late(Late::Session)
    );
    let mut cut = solver(&dataset, ours(&dataset, 9), vec![Prefix::ROOT]);
    cut.closed(Duration::ZERO);
    assert_eq!(drain(&mut cut, Duration::ZERO).1.unwrap().end, End::Disconnected);
}

/// A set whose store is away.
struct Away;

impl Nodes<3> for Away {
    fn count(&self, _: &Prefix<3>) -> Result<u64, Unavailable> {
        Err(Unavailable("away".into()))
    }

    fn summary(&self, _: &Prefix<3>) -> Result<Summary<3>, Unavailable> {
        Err(Unavailable("away".into()))
    }

    fn elements(&self, _: &Prefix<3>, _: Option<&Element<3>>, _: usize) -> Result<Vec<Element<3>>, Unavailable> {
        Err(Unavailable("away".into()))
    }
}

#[test]
fn a_set_that_cannot_be_read_is_nobodys_fault() {
    let dataset = v1();
    let (walked, solved) = reconcile(&dataset, &Away, &ours(&dataset, 9), vec![Prefix::ROOT]);
    assert_eq!(walked.end, End::Unavailable(Unavailable("away".into())));
    assert_eq!(solved.end, End::Complete);
    let (walked, solved) = reconcile(&dataset, &ours(&dataset, 9), &Away, vec![Prefix::ROOT]);
    assert_eq!(solved.end, End::Unavailable(Unavailable("away".into())));
    assert_eq!(walked.end, End::Disconnected);
}

#[test]
fn a_first_generation_answer_is_cut_to_a_random_run() {
    let mut dataset = Dataset::v1("sks");
    dataset.thresholds.elements_max = 100;
    let dataset = Arc::new(dataset);
    let many = ours(&dataset, 1_000);
    let empty = tree(&dataset, &[]);
    // The empty walker sends its empty set; the solver answers with a part of its own.
    let (walked, _) = reconcile(&dataset, &empty, &many, vec![Prefix::ROOT]);
    assert_eq!((walked.end, walked.missing.len()), (End::Complete, 100));
    // What the walker already has does not count, and the whole of a circle is seen.
    let all: Vec<_> = many.iter().collect();
    let known: Vec<_> = all
        .iter()
        .enumerate()
        .filter(|(index, _)| index % 20 != 0)
        .map(|(_, element)| *element)
        .collect();
    let values = known.iter().map(Element::value).collect();
    let mut solver = solver(&dataset, &many, vec![Prefix::ROOT]);
    solver.receive(
        Duration::ZERO,
        &encode(&dataset, &[Message::Full(Prefix::ROOT, values), Message::Flush]),
    );
    let (said, _) = drain(&mut solver, Duration::ZERO);
    let Message::Elements(lacking) = &messages(&dataset, &said)[0].0 else {
        panic!()
    };
    assert_eq!(lacking.len(), 50);
    // As walker: its peer sends everything it has, and gets a part in return.
    let few = vec![all[0].value()];
    let mut walker = walker(&dataset, &many, vec![Prefix::ROOT]);
    drain(&mut walker, Duration::ZERO);
    walker.receive(Duration::ZERO, &encode(&dataset, &[Message::FullElements(few)]));
    let (said, end) = drain(&mut walker, Duration::ZERO);
    let Message::Elements(lacking) = &messages(&dataset, &said)[0].0 else {
        panic!()
    };
    assert_eq!((end.unwrap().end, lacking.len()), (End::Complete, 100));
}

#[test]
fn shunned_branches_are_not_asked_for() {
    let dataset = v2();
    let (own, other) = (tree(&dataset, &[]), ours(&dataset, 400));
    let roots: Vec<Prefix<5>> = vec![prefix("00"), prefix("01"), prefix("10")];
    let mut walker = walker(&dataset, &own, roots.clone()).shun(vec![prefix("01")]);
    let mut solver = solver(&dataset, &other, roots);
    let ((walked, _), _) = common::link::run(&mut walker, &mut solver);
    assert_eq!(walked.tally.requests, 2);
    assert!(!walked.missing.iter().any(|element| prefix::<5>("01").contains(element)));
}
