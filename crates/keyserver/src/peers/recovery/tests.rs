//! Fetching from a partner that delivers nothing: how often it is asked, and what follows.

use super::*;
use crate::config::{self, Config};
use keyrink_store::memory::MemoryStore;
use std::io::{Read, Write};
use std::net::TcpListener;

const NOTHING: &[u8] = b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\n\0\0\0\0\r\n";

/// A node, and a partner of it that answers every request with these octets and tells when it was asked.
fn partner(
    answer: &'static [u8],
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
        for mut stream in http.incoming().flatten() {
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
    super::super::dataset::by_name("sks").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_follow_one_another_do_not_hurry_requests() {
    let (node, partner, asked) = partner(NOTHING, None);
    for element in 1..3 {
        partner.queue.add(sks(), vec![vec![element; 16]]);
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
    let (node, partner, _) = partner(b"HTTP/1.0 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", 0.01);
    partner
        .queue
        .add(sks(), (0..100).map(|element| vec![element; 16]).collect());
    drain(&node, &partner).await;
    assert_eq!(partner.queue.len(), 0);
    partner.note(|report| report.failures = 0);
    assert_eq!(partner.report().setbacks(), 1);
}
