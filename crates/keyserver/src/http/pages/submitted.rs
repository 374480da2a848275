//! The answer to a submission.

use super::{page, visible};
use crate::ingest::{CertReport, Outcome, Report};
use maud::{Markup, html};

/// What became of each certificate that was submitted.
pub(crate) fn submitted(report: &Report) -> String {
    let content = html! {
        h1.count { "What became of your submission" }
        @for cert in &report.certs { article.card { (certificate(cert)) } }
        @if !report.refused.is_empty() {
            section.card.problem {
                h2 { "Not taken" }
                ul { @for reason in &report.refused { li { (visible::text(reason)) } } }
            }
        }
    };
    page("Submission", Some(""), &content)
}

fn certificate(cert: &CertReport) -> Markup {
    let (title, sentence) = match cert.outcome {
        Outcome::Inserted => ("Stored", "It is new here and can be found now."),
        Outcome::Updated => ("Updated", "What was new in it has been added."),
        Outcome::Unchanged => ("Known already", "There was nothing new in it."),
        Outcome::Invalid => (
            "Not shown",
            "No valid self-signature shows that anybody holds this key.",
        ),
        Outcome::TooLarge => (
            "Too large",
            "Its owner signed more than this server keeps of one certificate: nothing of it was stored.",
        ),
        Outcome::Forbidden => (
            "Refused",
            "The operator of this server has blocked or erased this certificate: nothing of it was stored.",
        ),
    };
    html! {
        h2 { (title) }
        p.fingerprint {
            @if cert.outcome == Outcome::Invalid { code { (cert.fingerprint) } }
            @else { a href={ "/pks/lookup?op=vindex&search=0x" (cert.fingerprint) } { code { (cert.fingerprint) } } }
        }
        p { (sentence) }
        @if !cert.dropped.is_empty() {
            details {
                summary { "Parts that are not shown (" (cert.dropped.len()) ")" }
                ul { @for dropped in &cert.dropped { li { (visible::text(&dropped.part)) ": " (visible::text(&dropped.reason)) } } }
            }
        }
    }
}
