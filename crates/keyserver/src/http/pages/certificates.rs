//! Lists of certificates (`op=index`) and certificates with their signatures (`op=vindex`).

use super::{page, visible};
use crate::http::certificate::{Certificate, Component, Standing, algorithm_name};
use crate::http::time::{Date, away};
use keyrink_openpgp::facts::Fact;
use keyrink_openpgp::packet::key::{Fingerprint, KeyId};
use keyrink_openpgp::packet::signature::kind;
use keyrink_openpgp::status::Revocation;
use keyrink_openpgp::stored::{KeyEntry, SignatureEntry};
use maud::{Markup, html};

/// What a list or a certificate page shows besides the certificates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    /// What was searched for, as it was typed.
    pub search: &'a str,
    /// Seconds since 1970.
    pub now: u64,
    /// Address of the next page.
    pub next: Option<&'a str>,
    /// Address of certificates of version 6 that were found but have no place in this answer.
    pub newer: Option<&'a str>,
    /// The digest that SKS has of each certificate, in hexadecimal, in order.
    pub digests: Option<&'a [String]>,
}

/// The list of what was found.
pub(crate) fn list(certificates: &[Certificate<'_>], frame: Frame<'_>) -> String {
    let count = certificates.len();
    let more = if frame.next.is_some() {
        " on this page, there are more"
    } else {
        ""
    };
    let content = html! {
        h1.count { (count) " certificate" @if count != 1 { "s" } (more) }
        @for (at, certificate) in certificates.iter().enumerate() {
            article.card { (summary(certificate, frame, digest(frame, at))) }
        }
        (further(frame))
    };
    page(frame.search, Some(frame.search), &content)
}

/// Certificates with all their parts and signatures.
pub(crate) fn detailed(certificates: &[Certificate<'_>], frame: Frame<'_>) -> String {
    let content = html! {
        @for (at, certificate) in certificates.iter().enumerate() {
            article.card { (details(certificate, frame, digest(frame, at))) }
        }
        (further(frame))
    };
    page(frame.search, Some(frame.search), &content)
}

fn digest<'a>(frame: Frame<'a>, at: usize) -> Option<&'a str> {
    Some(frame.digests?.get(at)?.as_str())
}

fn summary(certificate: &Certificate<'_>, frame: Frame<'_>, digest: Option<&str>) -> Markup {
    let mut user_ids = certificate.user_ids();
    let main = user_ids.next();
    let fingerprint = certificate.key.fingerprint;
    html! {
        h2 {
            a href=(address("vindex", fingerprint)) { (name(main)) }
            (badge(heading_standing(certificate, frame.now)))
        }
        (fingerprint_line(fingerprint))
        p.quiet { (key_line(certificate.key, &certificate.primary, frame.now)) }
        @if let Some(digest) = digest { p.quiet { "MD5 for SKS: " code { (digest) } } }
        ul.names {
            @for user_id in user_ids {
                li { (name(Some(user_id))) (badge(user_id.standing(frame.now))) }
            }
        }
        (downloads(fingerprint, true))
    }
}

fn details(certificate: &Certificate<'_>, frame: Frame<'_>, digest: Option<&str>) -> Markup {
    let KeyEntry { fingerprint, .. } = certificate.key;
    let now = frame.now;
    html! {
        h1 { (name(certificate.user_ids().next())) (badge(heading_standing(certificate, now))) }
        (fingerprint_line(fingerprint))
        p { (key_line(certificate.key, &certificate.primary, now)) }
        p { (validity(&certificate.primary, now)) }
        @if let Some(digest) = digest { p.quiet { "MD5 for SKS: " code { (digest) } } }
        (downloads(fingerprint, false))
        (signatures(&certificate.primary, now))
        @if certificate.user_ids().next().is_some() { h2 { "User ids" } }
        @for user_id in certificate.user_ids() {
            section.part {
                h3 {
                    (name(Some(user_id)))
                    @if user_id.entry.status.main { span.badge.main { "main" } }
                    (badge(user_id.standing(now)))
                }
                @if user_id.entry.status.revoked.is_some() || user_id.entry.status.expires.is_some() {
                    p.quiet { (validity(user_id, now)) }
                }
                (signatures(user_id, now))
            }
        }
        @if certificate.subkeys().next().is_some() { h2 { "Subkeys" } }
        @for (key, subkey) in certificate.subkeys() {
            section.part {
                h3 { (algorithm(key)) (badge(subkey.standing(now))) }
                (fingerprint_line(key.fingerprint))
                p.quiet { "Made on " (made(subkey, now)) ". " (validity(subkey, now)) }
                (signatures(subkey, now))
            }
        }
    }
}

/// The certificate's standing, as its heading shows it beside the first user id: revoked as well if every user id is.
fn heading_standing(certificate: &Certificate<'_>, now: u64) -> Standing {
    let first = certificate.user_ids().next().map(|user_id| user_id.standing(now));
    match certificate.primary.standing(now) {
        Standing::Good | Standing::Expired if first == Some(Standing::Revoked) => Standing::Revoked,
        own => own,
    }
}

fn name(user_id: Option<&Component<'_>>) -> Markup {
    match user_id {
        Some(user_id) if !user_id.entry.body.is_empty() => visible::octets(user_id.entry.body),
        Some(_) => html! { em { "an empty user id" } },
        None => html! { em { "a key without a user id" } },
    }
}

fn key_line(key: KeyEntry, component: &Component<'_>, now: u64) -> Markup {
    html! { (algorithm(key)) ", made on " (made(component, now)) }
}

fn made(component: &Component<'_>, now: u64) -> Markup {
    let created = u64::from(component.entry.status.created);
    html! { (Date(created)) " (" (away(created, now)) ")" }
}

fn algorithm(key: KeyEntry) -> Markup {
    html! {
        @match algorithm_name(key.algorithm) {
            Some(name) => (name),
            None => { "Algorithm " (key.algorithm) },
        }
        @if key.bits > 0 && !matches!(key.algorithm, 25..=28) { " " (key.bits) }
    }
}

/// Whether a component can be used, in a sentence.
fn validity(component: &Component<'_>, now: u64) -> Markup {
    let status = &component.entry.status;
    let on = |time: u32| html! { (Date(time.into())) " (" (away(time.into(), now)) ")" };
    html! {
        @match (status.revoked, status.expires) {
            (Some(Revocation::Hard), _) => "Revoked by its owner, for the past as well: do not use it, do not trust its signatures.",
            (Some(Revocation::Soft(time)), _) => { "Revoked by its owner on " (on(time)) ": do not use it." },
            (None, Some(time)) if status.is_expired(now) => { "Expired on " (on(time)) "." },
            (None, Some(time)) => { "Valid until " (on(time)) "." },
            (None, None) => "Valid, does not expire.",
        }
    }
}

fn badge(standing: Standing) -> Markup {
    html! {
        @match standing {
            Standing::Revoked => span.badge.revoked { "revoked" },
            Standing::Expired => span.badge.expired { "expired" },
            Standing::Good => "",
        }
    }
}

fn fingerprint_line(fingerprint: Fingerprint) -> Markup {
    let digits = fingerprint.to_string();
    let size = if digits.len() == 32 { 2 } else { 4 };
    let groups = (0..digits.len())
        .step_by(size)
        .filter_map(|start| digits.get(start..start + size));
    html! { p.fingerprint { code { @for group in groups { (group) " " } } } }
}

fn downloads(fingerprint: Fingerprint, signatures: bool) -> Markup {
    html! {
        p.actions {
            a.button href=(address("get", fingerprint)) { "Download" }
            " "
            a href=(format!("{}&options=bin", address("get", fingerprint))) { "as binary" }
            @if signatures { " " a href=(address("vindex", fingerprint)) { "with signatures" } }
        }
    }
}

fn signatures(component: &Component<'_>, now: u64) -> Markup {
    let (own, others): (Vec<_>, Vec<_>) = component
        .signatures
        .iter()
        .partition(|signature| signature.facts.has(Fact::Own));
    html! {
        @if !own.is_empty() {
            details { summary { (counted(own.len(), "signature")) " by its owner" } (signature_table(&own, now)) }
        }
        @if !others.is_empty() {
            details open[others.len() <= OPEN_SIGNATURES_MAX] {
                summary { (counted(others.len(), "signature")) " by others" }
                (signature_table(&others, now))
            }
        }
    }
}

fn signature_table(signatures: &[&SignatureEntry<'_>], now: u64) -> Markup {
    html! {
        div.wide {
            table {
                thead { tr { th scope="col" { "By" } th scope="col" { "Kind" } th scope="col" { "Made" } th scope="col" { "Expires" } } }
                tbody {
                    @for facts in signatures.iter().map(|signature| signature.facts) {
                        tr {
                            td { (issuer(facts.issuer)) }
                            td { (kind_name(facts.kind)) }
                            td { @if facts.created > 0 { (Date(facts.created.into())) } }
                            td {
                                @if facts.expires > 0 { (Date(facts.expires.into())) }
                                @if facts.expires > 0 && u64::from(facts.expires) <= now { (badge(Standing::Expired)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn issuer(issuer: KeyId) -> Markup {
    html! {
        @if issuer == KeyId::default() { "unknown" }
        @else { a href={ "/pks/lookup?op=index&search=0x" (issuer) } { code { (issuer) } } }
    }
}

fn kind_name(of: u8) -> &'static str {
    match of {
        kind::CERTIFICATION => "certification",
        0x11 => "certification (not checked)",
        0x12 => "certification (casual)",
        kind::CERTIFICATION_LAST => "certification (checked)",
        kind::APPROVAL => "approval",
        kind::SUBKEY_BINDING => "subkey binding",
        kind::PRIMARY_BINDING => "primary key binding",
        kind::DIRECT_KEY => "direct on the key",
        kind::KEY_REVOCATION => "revocation of the key",
        kind::SUBKEY_REVOCATION => "revocation of the subkey",
        kind::CERTIFICATION_REVOCATION => "revocation",
        _ => "other",
    }
}

/// Links at the end: to the next page, and to what this page cannot show.
fn further(frame: Frame<'_>) -> Markup {
    html! {
        @if let Some(newer) = frame.newer {
            p.card {
                "There are certificates of version 6 too, which older programs cannot read: "
                a href=(newer) { "download them as binary" } "."
            }
        }
        @if let Some(next) = frame.next { nav.pages { a.button rel="next" href=(next) { "Next page" } } }
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn address(op: &str, fingerprint: Fingerprint) -> String {
    format!("/pks/lookup?op={op}&search=0x{fingerprint}")
}

/// So many signatures by others are shown without a click.
const OPEN_SIGNATURES_MAX: usize = 10;
