//! Pages for people, without any script. Whatever comes from outside is escaped by the template, and made harmless by
//! [`visible`] where it could hide or reorder text.

pub(super) mod certificates;
mod submitted;
mod visible;

pub(super) use submitted::submitted;

use super::stats::{Peer, Stats};
use crate::peers::status;
use axum::http::StatusCode;
use maud::{DOCTYPE, Markup, html};

/// The start page: search and submit.
pub(super) fn start(words: bool) -> String {
    let content = html! {
        section.hero {
            h1 { "Find the keys of people you write to" }
            (search_form("", true))
            p.hint {
                "An e-mail address, a fingerprint, a key id of 16 digits or a whole user id"
                @if words { ", or words of a user id" }
                "."
            }
        }
        section.card {
            h2 { "Submit a key" }
            p {
                "Paste one or more OpenPGP public keys as text, or choose a file. "
                strong { "What is submitted becomes public" }
                ", is passed on to other servers and cannot be taken back. Never submit a secret key."
            }
            form action="/pks/add" method="post" enctype="multipart/form-data" {
                label for="keytext" { "Public key" }
                textarea #keytext name="keytext" rows="9" spellcheck="false" autocomplete="off"
                    placeholder="-----BEGIN PGP PUBLIC KEY BLOCK-----" {}
                div.row {
                    label.file for="keyfile" { "or a file " input #keyfile type="file" name="keyfile"; }
                    button type="submit" { "Submit" }
                }
            }
        }
    };
    page("OpenPGP keyserver", None, &content)
}

/// A page that says in one sentence what went wrong.
pub(super) fn problem(status: StatusCode, sentence: &str, search: &str) -> String {
    let title = match status {
        StatusCode::NOT_FOUND => "Nothing found",
        status if status.is_server_error() => "Something is wrong here",
        _ => "This does not work",
    };
    let content = html! {
        section.card.problem {
            h1 { (title) }
            p { (visible::text(sentence)) }
            p.quiet { "Status " (status.as_u16()) }
        }
    };
    page(title, Some(search), &content)
}

/// The page of numbers.
pub(super) fn stats(stats: &Stats<'_>, now: u64) -> String {
    let content = html! {
        section.card {
            h1 { "Statistics" }
            table.facts {
                tr { th scope="row" { "Total number of keys" } td { (grouped(stats.total)) } }
                @if stats.blocked > 0 { tr { th scope="row" { "Blocked keys" } td { (grouped(stats.blocked)) } } }
                @if stats.erased > 0 { tr { th scope="row" { "Erased keys" } td { (grouped(stats.erased)) } } }
                tr { th scope="row" { "Server" } td { (visible::text(stats.hostname)) } }
                @if let Some(contact) = stats.contact {
                    tr { th scope="row" { "Operator" } td { (visible::text(contact)) } }
                }
                tr { th scope="row" { "Software" } td { (stats.software) " " (stats.version) } }
                tr { th scope="row" { "Peers" } td { (stats.peers.len()) } }
            }
            @if !stats.peers.is_empty() { (peers(stats.peers, now)) }
            p { a href="/pks/stats?options=json" { "As JSON" } }
        }
    };
    page("Statistics", Some(""), &content)
}

/// How it stands with the servers that this one reconciles with.
fn peers(peers: &[Peer], now: u64) -> Markup {
    let head = [
        "Peer",
        "State",
        "Dataset",
        "Last session",
        "Differences",
        "Received",
        "Sent",
        "To fetch",
        "Last error",
    ];
    html! {
        table {
            tr { @for name in head { th { (name) } } }
            @for peer in peers {
                tr {
                    td { (visible::text(&peer.name)) }
                    td { (visible::text(&peer.state)) }
                    td { (peer.dataset.as_deref().unwrap_or("-")) }
                    td { (peer.last_session.map_or_else(|| "never".to_owned(), |last| status::ago(now, last))) }
                    @for number in [peer.differences, peer.received, peer.sent, peer.queue] { td { (grouped(number)) } }
                    td { (visible::text(peer.last_error.as_deref().unwrap_or("-"))) }
                }
            }
        }
    }
}

/// The frame of every page. `search` fills the search form at its top; without it there is none.
fn page(title: &str, search: Option<&str>, content: &Markup) -> String {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (visible::plain(title)) " · Keyrink" }
                link rel="stylesheet" href=(STYLE);
                link rel="icon" type="image/svg+xml" href=(ICON);
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    a.brand href="/" { img src=(ICON) alt="" width="28" height="28"; "Keyrink" }
                    @if let Some(search) = search { (search_form(search, false)) }
                }
                main #main { (content) }
                footer {
                    p {
                        a href="/" { "Search and submit" } " · " a href="/pks/stats" { "Statistics" }
                    }
                    p.quiet {
                        "Anybody can upload a key in any name: check the fingerprint with its owner before you trust it."
                    }
                }
            }
        }
    };
    markup.into_string()
}

fn search_form(search: &str, large: bool) -> Markup {
    html! {
        form.search.large[large] role="search" action="/pks/lookup" method="get" {
            input type="hidden" name="op" value="index";
            input type="search" name="search" value=(visible::plain(search)) required maxlength="1000" autofocus[large]
                aria-label="E-mail address, fingerprint, key id or user id" placeholder="name@example.org or fingerprint"
                autocapitalize="off" autocomplete="off" spellcheck="false";
            button type="submit" { "Search" }
        }
    }
}

/// A number with thin spaces between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    groups.join("\u{202F}")
}

/// Address of the style sheet; a new version has a new one.
const STYLE: &str = concat!("/assets/style.css?v=", env!("CARGO_PKG_VERSION"));
const ICON: &str = concat!("/assets/icon.svg?v=", env!("CARGO_PKG_VERSION"));
