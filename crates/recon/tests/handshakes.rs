//! The exchange of configurations: who gets on with whom, about what.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::link::{drain, run};
use common::offers::{HOCKEYPUCK, SKS, settings};
use common::{hex, second};
use keyrink_recon::session::{Action, Agreement, Failure, Fault, Handshake, Late, Refusal, Session, Settings};
use keyrink_recon::wire::{Config, FrameReader, Verdict, WireError};

const BOTH: [&str; 2] = ["openpgp/2", "openpgp/1"];

/// Lets two of our nodes meet: what the accepting and the calling one make of it.
fn meet(accepting: Settings, calling: Settings) -> (Result<Agreement, Failure>, Result<Agreement, Failure>) {
    let mut accepting = Handshake::accept(accepting, Duration::ZERO);
    let mut calling = Handshake::call(calling, Duration::ZERO);
    let ((accepted, _), (called, _)) = run(&mut accepting, &mut calling);
    (accepted, called)
}

fn agreed(pair: (Result<Agreement, Failure>, Result<Agreement, Failure>)) -> (String, String) {
    let (accepted, called) = (pair.0.unwrap(), pair.1.unwrap());
    assert_eq!((&accepted.tree, &accepted.dataset), (&called.tree, &called.dataset));
    assert_eq!(accepted.omission, called.omission);
    (accepted.tree, accepted.dataset)
}

fn reason(failure: Result<Agreement, Failure>) -> Refusal {
    match failure {
        Err(Failure::Refused { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

/// A configuration as a first-generation peer writes it, with changes.
fn first_generation(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    config.put("version", "1.1.6");
    config.put_number("http port", 11371);
    config.put_number("bitquantum", 2);
    config.put_number("mbar", 5);
    config.put("filters", SKS);
    change(&mut config);
    config
}

fn set(config: &mut Config, key: &str, value: &[u8]) {
    config.pairs.retain(|pair| pair.0 != key.as_bytes());
    config.pairs.push((key.into(), value.into()));
}

/// What an accepting node makes of a configuration and "passed", and what it says.
fn accept(settings: Settings, config: &Config) -> (Result<Agreement, Failure>, Config, Option<Verdict>) {
    let mut bytes = Vec::new();
    config.encode(&mut bytes);
    Verdict::Passed.encode(&mut bytes);
    hear(Handshake::accept(settings, Duration::ZERO), &bytes)
}

/// The same for a calling node.
fn call(settings: Settings, config: &Config) -> (Result<Agreement, Failure>, Config, Option<Verdict>) {
    let mut bytes = Vec::new();
    config.encode(&mut bytes);
    Verdict::Passed.encode(&mut bytes);
    hear(Handshake::call(settings, Duration::ZERO), &bytes)
}

fn hear(mut handshake: Handshake, bytes: &[u8]) -> (Result<Agreement, Failure>, Config, Option<Verdict>) {
    handshake.receive(Duration::ZERO, bytes);
    let (said, end) = drain(&mut handshake, Duration::ZERO);
    let mut reader = FrameReader::new(1 << 16);
    reader.feed(&said);
    let config = Config::decode(reader.next_frame().unwrap().unwrap().payload).unwrap();
    (end.unwrap(), config, reader.next_verdict().unwrap())
}

#[test]
fn our_nodes_find_the_best_common_tree() {
    let v2_only = || settings(&["openpgp/2"], SKS);
    let v1_only = || settings(&["openpgp/1"], SKS);
    let both = || settings(&BOTH, SKS);
    let v2 = ("openpgp/2".to_owned(), "openpgp/2".to_owned());
    let v1 = ("openpgp/1".to_owned(), "sks".to_owned());
    assert_eq!(agreed(meet(both(), both())), v2);
    assert_eq!(agreed(meet(both(), v2_only())), v2);
    assert_eq!(agreed(meet(v2_only(), both())), v2);
    assert_eq!(agreed(meet(v1_only(), both())), v1);
    assert_eq!(agreed(meet(both(), v1_only())), v1);
    let (accepted, called) = meet(v2_only(), v1_only());
    assert_eq!(reason(accepted), Refusal::NoCommonTree);
    assert_eq!(reason(called), Refusal::NoCommonTree);
}

#[test]
fn omissions_are_united() {
    let accepting = settings(&["openpgp/2:01 0011", "openpgp/1"], SKS);
    let calling = settings(&["openpgp/2:1111", "openpgp/1"], SKS);
    let (accepted, called) = meet(accepting, calling);
    assert_eq!(called.unwrap().omission.to_string(), "0011 01 1111");
    assert_eq!(accepted.unwrap().omission.roots::<5>().len(), 7);
}

#[test]
fn our_configurations_are_those_of_the_vectors() {
    let vectors = &second()["wire"];
    let (acceptor, initiator) = (hex(&vectors["config_acceptor"]), hex(&vectors["config_initiator"]));
    let accepting = || settings(&["openpgp/2:01 0011", "openpgp/1"], SKS);
    let calling = || settings(&["openpgp/2:1111", "openpgp/1"], SKS);

    let mut handshake = Handshake::accept(accepting(), Duration::ZERO);
    let (said, _) = drain(&mut handshake, Duration::ZERO);
    assert_eq!(said, acceptor);
    let mut handshake = Handshake::call(calling(), Duration::ZERO);
    assert_eq!(
        drain(&mut handshake, Duration::ZERO).0,
        [0u8; 0],
        "the calling side listens first"
    );
    handshake.receive(Duration::ZERO, &acceptor);
    let (said, _) = drain(&mut handshake, Duration::ZERO);
    assert_eq!(said, [initiator, hex(&vectors["config_status_passed"])].concat());
}

#[test]
fn first_generation_peers_get_on_with_whoever_serves_their_dataset() {
    for (filters, dataset) in [
        (SKS, "sks"),
        ("", "sks"),
        ("yminsky.dedup", "sks"),
        (HOCKEYPUCK, "hockeypuck"),
    ] {
        let theirs = first_generation(|config| set(config, "filters", filters.as_bytes()));
        // Calling, their string is repeated to them as it is.
        let (result, said, verdict) = call(settings(&BOTH, SKS), &theirs);
        assert_eq!(result.unwrap().dataset, dataset);
        assert_eq!(said.value("filters"), Some(filters.as_bytes()));
        assert_eq!(
            (said.value("tree"), said.value("trees")),
            (None, Some(&b"openpgp/2 openpgp/1"[..]))
        );
        assert_eq!(verdict, Some(Verdict::Passed));
        // Accepting, what was announced decides.
        let (result, ..) = accept(settings(&BOTH, SKS), &theirs);
        assert_eq!(result.is_ok(), dataset == "sks", "{filters}");
        if let Err(failure) = result {
            assert_eq!(
                failure.peer().unwrap().filters.as_deref(),
                Some(filters),
                "worth keeping"
            );
        }
        let (result, ..) = accept(settings(&BOTH, HOCKEYPUCK), &theirs);
        assert_eq!(result.is_ok(), dataset == "hockeypuck", "{filters}");
    }
    let shuffled = first_generation(|config| set(config, "filters", b"yminsky.merge,,yminsky.dedup,yminsky.merge"));
    assert!(accept(settings(&BOTH, SKS), &shuffled).0.is_ok(), "filters are a set");

    let unknown = first_generation(|config| set(config, "filters", b"yminsky.dedup,new"));
    let (result, said, verdict) = call(settings(&BOTH, SKS), &unknown);
    let expected = Refusal::Filters {
        missing: String::new(),
        extra: "new".into(),
    };
    assert_eq!(reason(result), expected);
    assert_eq!(verdict, Some(Verdict::Failed(expected.to_string())));
    assert_eq!(said.value("filters"), Some(SKS.as_bytes()));
}

#[test]
fn filters_that_an_operator_maps_are_accepted() {
    let mut ours = settings(&["openpgp/1"], "house.rules");
    ours.filters.mirror = false;
    ours.filters.dataset = "house".into();
    let theirs = first_generation(|config| set(config, "filters", b"house.rules"));
    assert_eq!(accept(ours.clone(), &theirs).0.unwrap().dataset, "house");
    let (result, said, _) = call(ours.clone(), &theirs);
    assert_eq!(
        (result.unwrap().dataset.as_str(), said.value("filters")),
        ("house", Some(&b"house.rules"[..]))
    );
    let others = first_generation(|_| {});
    let expected = Refusal::Dataset {
        ours: "house".into(),
        theirs: "sks".into(),
    };
    assert_eq!(reason(accept(ours, &others).0), expected);
}

#[test]
fn versions_are_three_integers_of_the_first_generation() {
    let judge = |version: &str| {
        accept(
            settings(&BOTH, SKS),
            &first_generation(|c| set(c, "version", version.as_bytes())),
        )
        .0
    };
    for good in ["1.1.6", "1.1.3", "0.1.5", "1.10.0", "01.1.6"] {
        assert!(judge(good).is_ok(), "{good}");
    }
    for bad in ["0.1.4", "1.1", "1.1.6+", "1.1.6.3", "", "1.1.-6", "1.1.99999999999"] {
        assert_eq!(reason(judge(bad)), Refusal::Version(Some(bad.into())), "{bad}");
    }
    assert_eq!(reason(judge("2.0.0")), Refusal::Dialect);
    let mut mapped = settings(&BOTH, SKS);
    mapped.dialect = Some("openpgp/2".into());
    let dialect = first_generation(|config| set(config, "version", b"2.0.0"));
    assert_eq!(accept(mapped.clone(), &dialect).0.unwrap().tree, "openpgp/2");
    assert_eq!(call(mapped, &dialect).0.unwrap().tree, "openpgp/2");
    assert_eq!(reason(call(settings(&BOTH, SKS), &dialect).0), Refusal::Dialect);
}

#[test]
fn a_node_without_the_first_tree_says_so() {
    let ours = settings(&["openpgp/2"], SKS);
    let (result, said, verdict) = accept(ours.clone(), &first_generation(|_| {}));
    assert_eq!(said.value("version"), Some(&b"2.0.0"[..]));
    assert_eq!(reason(result), Refusal::OnlyOffered("openpgp/2".into()));
    assert_eq!(verdict, Some(Verdict::Failed("only openpgp/2 offered".into())));
    let (result, said, verdict) = call(ours, &first_generation(|_| {}));
    assert_eq!(reason(result), Refusal::NoCommonTree);
    assert_eq!(
        (said.value("tree"), verdict),
        (None, Some(Verdict::Failed("no common tree".into())))
    );
}

#[test]
fn what_a_configuration_must_not_say() {
    let judge = |change: &dyn Fn(&mut Config)| accept(settings(&BOTH, SKS), &first_generation(change)).0;
    let refused = |change: &dyn Fn(&mut Config)| reason(judge(change));
    assert_eq!(
        refused(&|c| c.pairs.retain(|pair| pair.0 != b"http port")),
        Refusal::Port(None)
    );
    assert_eq!(refused(&|c| c.put_number("http port", 0)), Refusal::Port(Some(0)));
    assert_eq!(
        refused(&|c| c.put_number("http port", 65_536)),
        Refusal::Port(Some(65_536))
    );
    assert_eq!(
        refused(&|c| set(c, "http port", b"\0\0\0\x2c\x6b")),
        Refusal::Port(None),
        "five bytes"
    );
    assert_eq!(
        refused(&|c| c.put_number("bitquantum", 3)),
        Refusal::Bitquantum(Some(3))
    );
    assert_eq!(refused(&|c| c.put_number("mbar", 6)), Refusal::Mbar(Some(6)));
    assert!(judge(&|c| c.put("filters", SKS)).is_ok(), "the last of several counts");
    assert!(judge(&|c| c.put("unheard of", "x")).is_ok());

    let twice = |key: &'static str| {
        move |c: &mut Config| {
            c.put(key, "openpgp/2");
            c.put(key, "openpgp/2");
        }
    };
    for key in ["tree", "trees", "omit openpgp/2"] {
        assert_eq!(refused(&twice(key)), Refusal::RepeatedKey(key.into()));
    }
    let second = |c: &mut Config| {
        c.put("trees", "openpgp/2");
        c.put("tree", "openpgp/2");
    };
    assert!(
        judge(&|c| {
            second(c);
            c.put_number("mbar", 6);
            set(c, "filters", b"any");
        })
        .is_ok()
    );
    assert_eq!(
        refused(&|c| {
            second(c);
            c.put("omit openpgp/2", "0");
        }),
        Refusal::Omission("openpgp/2".into())
    );
    assert_eq!(
        refused(&|c| {
            c.put("trees", "ssh/1");
            c.put("tree", "ssh/1");
        }),
        Refusal::NoCommonTree
    );
    assert_eq!(
        refused(&|c| c.put("trees", "openpgp/2")),
        Refusal::NoCommonTree,
        "trees without tree"
    );
}

#[test]
fn a_busy_node_says_so() {
    let mut busy = settings(&BOTH, SKS);
    busy.busy = Some("sync not available, rebuilding".into());
    let (result, _, verdict) = accept(busy, &first_generation(|_| {}));
    assert!(matches!(reason(result), Refusal::Busy(_)));
    assert_eq!(verdict, Some(Verdict::Failed("sync not available, rebuilding".into())));
}

#[test]
fn the_first_tree_of_the_realm_is_chosen() {
    let mut ours = settings(&["ssh/1", "openpgp/2", "openpgp/1"], SKS);
    let theirs = first_generation(|config| config.put("trees", "x509/1 openpgp/1 openpgp/2 ssh/1"));
    assert_eq!(
        call(ours.clone(), &theirs).0.unwrap().tree,
        "openpgp/1",
        "the acceptor's order counts"
    );
    ours.realm = "ssh".into();
    assert_eq!(call(ours, &theirs).0.unwrap().tree, "ssh/1");
}

#[test]
fn faults_and_delays_end_the_exchange() {
    let accepting = || Handshake::accept(settings(&BOTH, SKS), Duration::ZERO);
    let fate = |bytes: &[u8]| {
        let mut handshake = accepting();
        handshake.receive(Duration::ZERO, bytes);
        drain(&mut handshake, Duration::ZERO).1.map(|end| end.unwrap_err())
    };
    let wire = |error| Some(Failure::Fault(Fault::Wire(error)));
    assert_eq!(fate(&[0, 0, 0, 1, 5]), Some(Failure::Fault(Fault::NoConfiguration(5))));
    assert_eq!(fate(&[0, 0, 0, 0]), wire(WireError::EmptyFrame));
    assert_eq!(
        fate(&[0, 1, 0, 1]),
        wire(WireError::FrameTooLong {
            announced: 65_537,
            limit: 65_536
        })
    );
    assert_eq!(fate(&[0, 0, 0, 5, 10, 0, 0, 0, 65]), wire(WireError::ConfigPairs(65)));
    assert_eq!(
        fate(&[0, 0, 0, 9, 10, 0, 0, 0, 1, 0, 0, 16, 1]),
        wire(WireError::ConfigValue(4097))
    );
    assert_eq!(fate(&[0, 0, 0, 5, 10, 0, 0, 0, 1]), wire(WireError::Truncated));
    assert_eq!(
        fate(&[0, 0, 0, 6, 10, 0, 0, 0, 0, 0]),
        wire(WireError::TrailingBytes(1))
    );
    let mut neither = Vec::new();
    first_generation(|_| {}).encode(&mut neither);
    neither.extend(b"\0\0\0\x06maybe!");
    assert_eq!(fate(&neither), wire(WireError::UnknownVerdict));

    let mut slow = accepting();
    let (_, end) = drain(&mut slow, Duration::ZERO);
    assert!(end.is_none());
    let Action::Wait(deadline) = slow.poll(Duration::from_secs(59)) else {
        panic!()
    };
    assert_eq!(deadline, Duration::from_secs(60));
    let Action::Finish(Err(failure)) = slow.poll(Duration::from_secs(60)) else {
        panic!()
    };
    assert_eq!(failure, Failure::Late(Late::Configuration));

    let mut gone = accepting();
    gone.closed(Duration::ZERO);
    assert_eq!(
        drain(&mut gone, Duration::ZERO).1.unwrap().unwrap_err(),
        Failure::Disconnected
    );
}
