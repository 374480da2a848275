//! Sessions of the second generation between two nodes: several realms, and what either of both does not want.

use super::dataset::{Kind, SECOND};
use super::partner::Partner;
use super::*;
use crate::ingest::Receipt;
use keyrink_recon::random::Random;
use keyrink_store::memory::MemoryStore;
use keyrink_store::{Batch, Dataset, Decision, Element, Realm, Record, RecordId, StoreError};
use std::io::{Read, Write};

const fn kind(name: &'static str, dataset: u8) -> Kind {
    Kind {
        name,
        dataset: Dataset(dataset),
        tree: name,
        filters: &[],
        unhurried: false,
        refused_first: Duration::from_secs(1),
        path: "/x-toy",
        receive: receive_toys,
    }
}

/// A toy is one statement: its element.
fn receive_toys(node: &Node, dataset: Dataset, toys: &[Vec<u8>]) -> Result<Receipt, StoreError> {
    put(
        &*node.store,
        node.ingest.policy,
        toys.iter().map(|toy| (dataset, toy.clone())),
    );
    Ok(Receipt {
        certificates: toys.len() as u64,
        elements: toys.iter().map(|toy| BTreeSet::from([toy.clone()])).collect(),
        ..Receipt::default()
    })
}

/// Writes a record for each element.
fn put(store: &dyn Store, policy: Policy, elements: impl Iterator<Item = (Dataset, Vec<u8>)>) {
    let record = |(dataset, bytes): (Dataset, Vec<u8>)| {
        let id = RecordId::new(&bytes).unwrap();
        let record = Record {
            data: Vec::new(),
            policy: policy.number(),
            terms: Vec::new(),
            elements: vec![Element { dataset, bytes }],
            components: Vec::new(),
        };
        (id, record)
    };
    let (ids, records): (_, Vec<_>) = elements.map(record).unzip();
    let batch = Batch {
        realm: Realm(9),
        ids,
        decide: Box::new(move |at, _| Decision::Put(records[at].clone())),
        notes: Vec::new(),
        premise: None,
    };
    store.update(batch).unwrap();
}

/// Answers questions for toys as long as the test runs.
fn toys_at(node: &Arc<Node>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, store) = (listener.local_addr().unwrap(), Arc::clone(&node.store));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (head, body) = request(&mut stream);
            assert!(head.starts_with("POST /x-toy "), "{head}");
            let asked = crate::http::hashquery::read_question(&body).unwrap();
            let lacking = store.lacking(TOY.dataset, &asked).unwrap();
            let mut answer = (asked.len() - lacking.len()).to_be_bytes()[4..].to_vec();
            for toy in asked.iter().filter(|toy| !lacking.contains(toy)) {
                answer.extend([&(toy.len() as u32).to_be_bytes()[..], toy].concat());
            }
            let whole = [b"HTTP/1.0 200 OK\r\n\r\n", &answer[..], b"\r\n"].concat();
            stream.write_all(&whole).unwrap();
        }
    });
    address
}

/// Head and body of a request.
fn request(stream: &mut std::net::TcpStream) -> (String, Vec<u8>) {
    let (mut octets, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).unwrap();
        octets.extend_from_slice(&buffer[..count]);
        let Some(at) = octets.windows(4).position(|end| end == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&octets[..at]).to_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap();
        let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
        if octets.len() >= at + 4 + length {
            return (
                String::from_utf8_lossy(&octets[..at]).into_owned(),
                octets[at + 4..].to_vec(),
            );
        }
    }
}

static TOY: Kind = kind("x-toy/1", 200);
static OTHER: Kind = kind("x-other/1", 201);

/// Elements that begin with these bits, and some numbers.
fn elements(begin: u8, seed: u64, count: usize) -> Vec<Vec<u8>> {
    let mut random = Random::new(seed);
    let mut element = || {
        (0..4)
            .flat_map(|_| random.next_u64().to_be_bytes())
            .collect::<Vec<u8>>()
    };
    let begun = |mut element: Vec<u8>| {
        element[0] = begin | element[0] & 0x3F;
        element
    };
    (0..count).map(|_| begun(element())).collect()
}

/// A node that has these elements, and sets of kinds besides its own.
fn node(change: impl FnOnce(&mut Config), more: &[&'static Kind], has: &[(&Kind, Vec<Vec<u8>>)]) -> Arc<Node> {
    let mut config = Config::default();
    change(&mut config);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let elements = has
        .iter()
        .flat_map(|(kind, elements)| elements.iter().map(|bytes| (kind.dataset, bytes.clone())));
    put(&*store, Policy::new(&config), elements);
    let mut node = Node::new(&config, Arc::clone(&store));
    node.sets.extend(more.iter().map(|kind| kind.set(&store)));
    Arc::new(node)
}

/// Lets `caller` call `called`, so often; what each knows of the other then.
async fn meet(caller: &Arc<Node>, called: &Arc<Node>, calls: usize) -> [Arc<Partner>; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let partner = |recon: String, node: &Node, other: &Arc<Node>| {
        let config = config::Partner {
            recon,
            http: Some(format!("http://{}", toys_at(other))),
            ..config::Partner::default()
        };
        Arc::new(Partner::new(&config, &*node.store).unwrap())
    };
    let there = partner(listener.local_addr().unwrap().to_string(), caller, called);
    let here = partner("127.0.0.1:1".to_owned(), called, caller);
    *called.partners.write().unwrap() = vec![Arc::clone(&here)];
    let listening = tokio::spawn(listener::listen(Arc::clone(called), listener));
    for _ in 0..calls {
        assert!(gossip::call(caller, &there).await, "{:?}", there.report().last_error);
        // The accepting side concludes a moment later.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    listening.abort();
    [there, here]
}

fn only_second(config: &mut Config) {
    config.peers.datasets = vec!["openpgp/2".to_owned()];
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_realm_that_both_have_is_reconciled() {
    let same = elements(0, 1, 300);
    let toys = |seed| [elements(0x40, seed, 7), elements(0x80, 2, 500)].concat();
    let caller = node(
        only_second,
        &[&TOY, &OTHER],
        &[(&SECOND, same.clone()), (&TOY, toys(3))],
    );
    let called = node(only_second, &[&TOY], &[(&SECOND, same), (&TOY, toys(4))]);
    let [there, here] = meet(&caller, &called, 1).await;
    for report in [there.report(), here.report()] {
        assert_eq!(report.sessions, 2, "{:?}", report.last_error);
        assert_eq!(report.dataset.as_deref(), Some(TOY.name));
        assert_eq!(report.differences, 7);
    }
    assert_eq!(here.report().trees, ["x-other/1", "x-toy/1", "openpgp/2"]);
    recovery::drain(&caller, &there).await;
    recovery::drain(&called, &here).await;
    let [one, other] = [&caller, &called].map(|node| {
        let range = node.store.range(TOY.dataset, &[], &[0xFF; 32], usize::MAX);
        range.unwrap().0
    });
    assert_eq!(one.len(), 7 + 7 + 500);
    assert_eq!(one, other);
    let stranger = node(only_second, &[], &[]);
    let [there, _] = meet(&caller, &stranger, 1).await;
    assert_eq!(
        (there.report().sessions, there.report().dataset.as_deref()),
        (1, Some("openpgp/2"))
    );
}

/// Configurations are octets of a session too: of one that finds nothing they are most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_octet_of_a_session_is_counted() {
    let same = elements(0, 1, 300);
    let [caller, called] = [0, 1].map(|_| node(only_second, &[], &[(&SECOND, same.clone())]));
    let [there, here] = meet(&caller, &called, 1).await.map(|partner| partner.report());
    assert_eq!([there.sent, there.received], [here.received, here.sent]);
    // Six samples and a bit string go one way; configurations and verdicts go both.
    assert!(
        there.sent > 100 && here.sent > 6 * 33 + 100,
        "{} {}",
        there.sent,
        here.sent
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_either_omits_is_not_compared() {
    let [v4, v6] = [elements(0, 1, 40), elements(0x80, 2, 70)];
    let caller = node(only_second, &[], &[(&SECOND, [v4, v6].concat())]);
    let omits = |config: &mut Config| {
        only_second(config);
        config.peers.omit = vec!["v6".to_owned()];
    };
    let called = node(omits, &[], &[]);
    let [there, here] = meet(&caller, &called, 1).await;
    assert_eq!(here.report().differences, 40);
    assert_eq!([there.report().omitted, here.report().omitted], ["10", "10"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_is_remembered_and_not_asked_for_again() {
    let [v4, v6] = [elements(0, 1, 40), elements(0x80, 2, 70)];
    let refuses = |config: &mut Config| {
        only_second(config);
        config.peers.refuse = vec!["10".to_owned()];
    };
    let caller = node(refuses, &[], &[(&SECOND, [v4, v6].concat())]);
    let omits = |config: &mut Config| {
        only_second(config);
        config.peers.omit = vec!["v3".to_owned()];
    };
    let called = node(omits, &[], &[]);
    let [_, here] = meet(&caller, &called, 1).await;
    let report = here.report();
    assert_eq!(report.differences, 40);
    let parts: Vec<_> = report
        .refused_parts
        .iter()
        .map(|part| (part.prefix.as_str(), part.code))
        .collect();
    assert_eq!(parts, [("10", 3)]);
    assert_eq!(called.manners(&here).shunned, ["10"]);
    let [_, here] = meet(&caller, &called, 2).await;
    assert_eq!((here.report().sessions, here.report().refused_parts.len()), (2, 1));
}

/// Nothing is omitted here, so that the first request is about everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_is_not_told_by_what_is_above() {
    let [v4, v6] = [elements(0, 1, 40), elements(0x80, 2, 3)];
    let refuses = |config: &mut Config| {
        only_second(config);
        config.peers.refuse = vec!["10".to_owned()];
    };
    let caller = node(refuses, &[], &[(&SECOND, [v4, v6].concat())]);
    let called = node(only_second, &[], &[(&SECOND, elements(0x80, 3, 2))]);
    let [there, here] = meet(&caller, &called, 1).await;
    assert_eq!([there.report().differences, here.report().differences], [0, 40]);
    assert_eq!(called.manners(&here).shunned, ["10"]);
    let [_, here] = meet(&called, &caller, 1).await;
    assert_eq!(here.report().differences, 0, "nor is it asked for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_generation_has_its_turn() {
    let both = |config: &mut Config| config.peers.first_generation_hours = 24;
    let (caller, called) = (node(both, &[], &[]), node(both, &[], &[]));
    let [there, _] = meet(&caller, &called, 1).await;
    let dataset = |partner: &Partner| partner.report().dataset.unwrap_or_default();
    assert_eq!(dataset(&there), "openpgp/2", "nobody knows yet what the other has");
    let [there, here] = meet(&caller, &called, 2).await;
    assert_eq!([dataset(&there), dataset(&here)], ["sks", "sks"]);
    let [there, _] = meet(&caller, &called, 3).await;
    assert_eq!(dataset(&there), "openpgp/2");
    assert!(there.report().first_due > partner::now() + 80_000);
}
