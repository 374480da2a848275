//! What is measured of partners, for Prometheus.
//!
//! Events are counted when they happen; how it stands with a partner is taken from its report some times a second. Errors are
//! counted by their kind: their words come from others and can be of any number, so they are in `keyrink peers` only.

use super::dataset::{Kind, Total};
use super::session::Octets;
use super::status::{Doing, Report, Trouble};
use crate::ingest::Receipt;
use metrics::{counter, gauge};

/// Counts a call that this node makes, whatever becomes of it.
pub(super) fn count_call(partner: &str) {
    counter!("keyrink_peer_calls_total", "partner" => partner.to_owned()).increment(1);
}

/// Counts a session, whoever called.
pub(super) fn count_session(partner: &str, octets: Octets) {
    let octets = [("received", octets.received), ("sent", octets.sent)];
    for (direction, octets) in octets {
        counter!("keyrink_peer_octets_total", "partner" => partner.to_owned(), "direction" => direction)
            .increment(octets);
    }
    counter!("keyrink_peer_sessions_total", "partner" => partner.to_owned()).increment(1);
}

/// Counts certificates that came, those of them that brought nothing new, and those without what they were fetched for.
pub(super) fn count_certificates(partner: &str, kind: &Kind, receipt: &Receipt, wrong_way: u64) {
    let labels = [("partner", partner.to_owned()), ("dataset", kind.name.to_owned())];
    counter!("keyrink_peer_certificates_total", &labels).increment(receipt.certificates);
    counter!("keyrink_peer_needless_certificates_total", &labels).increment(receipt.needless);
    counter!("keyrink_peer_wrong_way_certificates_total", &labels).increment(wrong_way);
}

/// Counts something that went wrong.
pub(super) fn count_trouble(partner: &str, trouble: Trouble) {
    counter!("keyrink_peer_errors_total", "partner" => partner.to_owned(), "kind" => trouble.word()).increment(1);
}

/// Shows how it stands with a partner.
pub(super) fn show(report: &Report) {
    let name = || report.name.clone();
    for (figure, value) in NUMBERS.into_iter().zip(numbers(report)) {
        gauge!(figure, "partner" => name()).set(value);
    }
    for doing in Doing::ALL {
        let now = f64::from(u8::from(report.state == doing.word()));
        gauge!("keyrink_peer_state", "partner" => name(), "state" => doing.word()).set(now);
    }
    for kind in super::dataset::names() {
        let this = f64::from(u8::from(report.dataset.as_deref() == Some(kind)));
        gauge!("keyrink_peer_dataset", "partner" => name(), "dataset" => kind).set(this);
    }
}

/// Shows what a tree comes to, and of which version of the store that is true.
pub(super) fn show_tree(kind: &Kind, total: &Total) {
    gauge!("keyrink_tree_elements", "dataset" => kind.name).set(total.elements as f64);
    gauge!("keyrink_tree_sum", "dataset" => kind.name).set(total.sum as f64);
    for (writer, n) in &total.seen {
        gauge!("keyrink_tree_seen", "dataset" => kind.name, "writer" => writer.to_string()).set(*n as f64);
    }
}

/// Takes a partner that is none any more out of what is shown: no number at all, so that nothing can be watched in it.
pub(super) fn forget(partner: &str) {
    let name = || partner.to_owned();
    for figure in NUMBERS {
        gauge!(figure, "partner" => name()).set(f64::NAN);
    }
    for doing in Doing::ALL {
        gauge!("keyrink_peer_state", "partner" => name(), "state" => doing.word()).set(f64::NAN);
    }
    for kind in super::dataset::names() {
        gauge!("keyrink_peer_dataset", "partner" => name(), "dataset" => kind).set(f64::NAN);
    }
}

const NUMBERS: [&str; 8] = [
    "keyrink_peer_queue",
    "keyrink_peer_differences",
    "keyrink_peer_refused",
    "keyrink_peer_refused_parts",
    "keyrink_peer_omitted_parts",
    "keyrink_peer_failures",
    "keyrink_peer_last_session_seconds",
    "keyrink_peer_last_error_seconds",
];

/// In the same order. Times are 0 as long as nothing happened.
fn numbers(report: &Report) -> [f64; NUMBERS.len()] {
    let last_error = report.last_error.as_ref().map_or(0, |(when, _)| *when);
    let last_session = report.last_session.unwrap_or(0);
    [
        report.queue,
        report.differences,
        report.refused,
        report.refused_parts.len() as u64,
        report.omitted.split_whitespace().count() as u64,
        report.setbacks().into(),
        last_session,
        last_error,
    ]
    .map(|number| number as f64)
}
