//! Fetching from a partner that delivers nothing: how often it is asked, and what follows.

use super::*;
use crate::config::{self, Config};
use keyrink_openpgp::project::Projection;
use keyrink_store::memory::MemoryStore;
use keyrink_testkit::Certificate;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Mutex;
use tokio::time::Instant;

const NOTHING: &[u8] = b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\n\0\0\0\0\r\n";

/// A node, and a partner of it that answers requests with these octets in turn and tells when it was asked.
fn partner(
    answers: Vec<Vec<u8>>,
    pause: impl Into<Option<f64>>,
) -> (Arc<Node>, Arc<Partner>, Arc<Mutex<Vec<Instant>>>) {
    let http = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = config::Partner {
        recon: "127.0.0.1:1".to_owned(),
        http: Some(format!("http://{}", http.local_addr().unwrap())),
        pause_seconds: pause.into(),
        ..config::Partner::default()
    };
    let asked = Arc::new(Mutex::new(Vec::new()));
    let times = Arc::clone(&asked);
    std::thread::spawn(move || {
        for (mut stream, answer) in http.incoming().flatten().zip(answers.iter().cycle()) {
            times.lock().unwrap().push(Instant::now());
            let _ = stream.read(&mut [0; 8192]);
            let _ = stream.write_all(answer);
        }
    });
    let store = Arc::new(MemoryStore::new());
    let partner = Arc::new(Partner::new(&config, &*store).unwrap());
    (Arc::new(Node::new(&Config::default(), store)), partner, asked)
}

fn sks() -> &'static Kind {
    &super::super::dataset::SKS
}

fn second() -> &'static Kind {
    &super::super::dataset::SECOND
}

/// An answer without certificates that says this of the elements asked for.
fn told(states: &[DigestState]) -> Vec<u8> {
    let count = (states.len() as u32).to_be_bytes().to_vec();
    let states = states.iter().map(|state| *state as u8).collect();
    [b"HTTP/1.0 200 OK\r\n\r\n\0\0\0\0\r\n".to_vec(), count, states].concat()
}

/// An answer with these certificates that says this of the elements asked for.
fn delivered(certificates: &[Vec<u8>], states: &[DigestState]) -> Vec<u8> {
    let number = |count: usize| (count as u32).to_be_bytes().to_vec();
    let mut answer = [b"HTTP/1.0 200 OK\r\n\r\n".to_vec(), number(certificates.len())].concat();
    for certificate in certificates {
        answer.extend(number(certificate.len()));
        answer.extend(certificate);
    }
    answer.extend(b"\r\n");
    answer.extend(number(states.len()));
    answer.extend(states.iter().map(|state| *state as u8));
    answer
}

/// The elements of a certificate in the second generation, whatever the limits of a node are.
fn elements(certificate: &[u8]) -> BTreeSet<Vec<u8>> {
    let unlimited = keyrink_openpgp::policy::Limits {
        user_id_octets: 1 << 20,
        ..Default::default()
    };
    let mut cert = keyrink_openpgp::read::Keyring::read(certificate, &unlimited)
        .certs
        .remove(0)
        .cert;
    keyrink_openpgp::verify::verify(&mut cert, None);
    cert.annotated_hashes().iter().map(|hash| hash.to_vec()).collect()
}

/// For how many seconds one element of the second generation is refused after these answers; 0 if it is not.
async fn refused_for(answers: Vec<Vec<u8>>) -> u64 {
    let (node, partner, _) = partner(answers, 0.01);
    let elements = vec![vec![1; 32]];
    partner.queue.add(second(), elements.clone(), true);
    let _ = tokio::time::timeout(Duration::from_secs(4), drain(&node, &partner)).await;
    let refusals = node.store.refusals(partner.name(), second().dataset, &elements);
    let refusal = refusals.unwrap().pop();
    assert_eq!(partner.queue.len(), usize::from(refusal.is_none()));
    refusal.map_or(0, |refusal| refusal.until - super::super::partner::now())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_follow_one_another_do_not_hurry_requests() {
    let (node, partner, asked) = partner(vec![NOTHING.to_vec()], None);
    for element in 1..3 {
        partner.queue.add(sks(), vec![vec![element; 16]], true);
        drain(&node, &partner).await;
    }
    let asked = asked.lock().unwrap();
    // Each is asked for twice, and the partner did not say that it knows trees.
    assert_eq!(asked.len(), 4);
    let distances = asked.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(distances.min() > Some(Duration::from_millis(1900)), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetching_in_vain_is_a_failure_that_sessions_do_not_mend() {
    let refusal = b"HTTP/1.0 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_vec();
    let (node, partner, _) = partner(vec![refusal], 0.01);
    partner
        .queue
        .add(sks(), (0..100).map(|element| vec![element; 16]).collect(), true);
    drain(&node, &partner).await;
    assert_eq!(partner.queue.len(), 0);
    partner.note(|report| report.failures = 0);
    assert_eq!(partner.report().setbacks(), 1);
}

/// One digest that makes a peer fall silent must not keep all others from being asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_a_partner_hang_up_is_refused() {
    let (node, partner, _) = partner(vec![Vec::new()], 0.01);
    partner.queue.add(sks(), vec![vec![1; 16], vec![2; 16]], true);
    drain(&node, &partner).await;
    assert_eq!(partner.report().refused, 2);
    assert_eq!(partner.queue.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partner_that_is_busy_is_asked_again_when_it_says() {
    let certificate = Certificate::v4(1, "a").user_id("A").to_bytes();
    let length = |octets: &[u8]| (octets.len() as u32).to_be_bytes();
    let delivery = [
        b"HTTP/1.0 200 OK\r\n\r\n\0\0\0\x01".to_vec(),
        length(&certificate).to_vec(),
        certificate.clone(),
    ];
    let busy =
        |status: &str, header: &str| format!("HTTP/1.0 {status}\r\n{header}Content-Length: 0\r\n\r\n").into_bytes();
    let answers = vec![
        busy("429 Too Many Requests", "Retry-After: 2\r\n"),
        busy("503 Service Unavailable", "Retry-After: 0\r\n"),
        delivery.concat(),
    ];
    let (node, partner, asked) = partner(answers, 0.01);
    let cert = keyrink_openpgp::read::Keyring::read(&certificate, &node.ingest.limits)
        .certs
        .remove(0);
    let digest = cert.cert.digest(Projection::Sks).unwrap().to_vec();
    partner.queue.add(sks(), vec![digest.clone()], true);
    drain(&node, &partner).await;
    let asked = asked.lock().unwrap();
    let distances: Vec<_> = asked.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    assert!(matches!(distances[..], [2.0..3.5, 1.0..2.5]), "{distances:?}");
    assert_eq!(
        node.store.lacking(sks().dataset, &[digest]).unwrap(),
        Vec::<Vec<u8>>::new()
    );
    assert_eq!((partner.report().refused, partner.report().fetch_failures), (0, 0));
}

/// Each update is a question for one element, and a partner that restarts must not be without it for a day.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_fails_says_little_about_what_was_asked_for() {
    let refusal = b"HTTP/1.0 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n".to_vec();
    let cut_off = b"HTTP/1.0 200 OK\r\n\r\n\0\0\0\x01\0\0".to_vec();
    for answer in [refusal, cut_off, Vec::new(), told(&[DigestState::LeftOut])] {
        assert!(matches!(refused_for(vec![answer]).await, 50..=60));
    }
    assert!(matches!(
        refused_for(vec![told(&[DigestState::Unknown])]).await,
        890..=900
    ));
    assert!(matches!(
        refused_for(vec![told(&[DigestState::Withheld])]).await,
        86_390..=86_400
    ));
}

/// The reader leaves it out before anything is known of it, so nothing but the word of the partner says that it came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_limits_leave_out_is_fetched_once() {
    let certificate = Certificate::v4(1, "a").user_id("A");
    let long = certificate.user_id("x".repeat(17 << 10)).to_bytes();
    let short = Certificate::v4(1, "a").user_id("A").to_bytes();
    let wanted: Vec<_> = elements(&long).difference(&elements(&short)).cloned().collect();
    assert_eq!(wanted.len(), 1);
    let (node, partner, asked) = partner(vec![delivered(&[long], &[DigestState::Included])], 0.01);
    node.ingest.receive(second().dataset, &[short]).unwrap();
    partner.queue.add(second(), wanted.clone(), true);
    drain(&node, &partner).await;
    assert_eq!(asked.lock().unwrap().len(), 1);
    let refusals = node.store.refusals(partner.name(), second().dataset, &wanted).unwrap();
    let seconds = refusals[0].until - super::super::partner::now();
    assert!(matches!(seconds, 86_390..=86_400), "{seconds}");
}

/// It brought something, a signature by somebody else, but nothing that it was fetched for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_went_the_wrong_way_is_counted_whatever_it_brought() {
    let signer = Certificate::v4(2, "signer");
    let [older, other] = [1, 3].map(|seed| Certificate::v4(seed, "a").user_id("A"));
    let wanted = Vec::from_iter(elements(&other.to_bytes()));
    let here = older.to_bytes();
    let certified = older.certified_by(signer.primary()).to_bytes();
    let answer = delivered(&[certified, other.to_bytes()], &[DigestState::Included]);
    let (node, partner, _) = partner(vec![answer], 0.01);
    node.ingest.receive(second().dataset, &[here]).unwrap();
    partner.queue.add(second(), wanted, true);
    drain(&node, &partner).await;
    let report = partner.report();
    assert_eq!((report.fetched, report.wrong_way, report.needless), (2, 1, 0));
}

/// Two certificates can share the octets by which elements name them; who gives one of them only for the hash asked for is
/// asked for the other by its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_shares_a_subject_is_asked_for_by_its_own_hash() {
    let certificate = Certificate::v4(1, "a").user_id("A").to_bytes();
    let own = Vec::from_iter(elements(&certificate)).remove(0);
    let mut other = own.clone();
    other[1..16].fill(0xFF);
    let answers = vec![
        delivered(&[certificate], &[DigestState::Included]),
        told(&[DigestState::Unknown]),
    ];
    let (node, partner, asked) = partner(answers, 0.01);
    partner.queue.add(second(), vec![own.clone(), other.clone()], true);
    drain(&node, &partner).await;
    assert_eq!(asked.lock().unwrap().len(), 2);
    assert_eq!(
        node.store.lacking(second().dataset, &[own]).unwrap(),
        Vec::<Vec<u8>>::new()
    );
    let refusals = node.store.refusals(partner.name(), second().dataset, &[other]).unwrap();
    assert_eq!((refusals.len(), partner.report().wrong_way), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partner_that_has_no_time_for_an_element_is_asked_later() {
    assert_eq!(refused_for(vec![told(&[DigestState::Busy])]).await, 0);
}

#[test]
fn what_was_told_is_told_of_an_element_and_not_of_all_with_its_subject() {
    let elements = [1, 2, 3].map(|octet| [[octet; 16], [7; 16]].concat());
    let states = states(second(), &elements[..2], &[DigestState::Included, DigestState::LeftOut]);
    assert_eq!(states.get(&elements[0][..]), Some(&DigestState::Included));
    assert_eq!(states.get(&elements[1][..]), Some(&DigestState::LeftOut));
    assert_eq!(states.get(&elements[2][16..]), Some(&DigestState::Included));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_generation_is_done_when_what_it_found_was_fetched() {
    let first_due = async |answer: Vec<u8>, is_whole| {
        let (node, partner, _) = partner(vec![answer], 0.01);
        partner.queue.add(sks(), vec![vec![1; 16]], is_whole);
        partner.settle_first(node.first_every);
        assert_eq!(partner.report().first_due, 0, "it still waits");
        drain(&node, &partner).await;
        partner.report().first_due
    };
    let tomorrow = super::super::partner::now() + 86_000;
    assert!(first_due(NOTHING.to_vec(), true).await > tomorrow);
    assert_eq!(first_due(NOTHING.to_vec(), false).await, 0);
}
