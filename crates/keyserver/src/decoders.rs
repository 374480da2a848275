//! One door to the private decoders of this program, for its fuzz targets: whatever strangers send, in plain types.

use crate::admin::cutter::Cutter;
use crate::admin::import::document;
use crate::admin::{decide, source};
use crate::client::index;
use crate::config::{self, ProxyHeader};
use crate::formats;
use crate::http::proxies::Proxies;
use crate::http::search::{Reading, Search};
use crate::http::{add, hashquery};
use crate::lifecycle::Verb;
use crate::lifecycle::order;
use futures_util::FutureExt;
use keyrink_store::Term;
use std::io::Read;
use std::net::IpAddr;

/// The terms that a `search` parameter means: one, or several words. `None` if it is refused.
pub fn search(text: &[u8], exact: bool, words: bool) -> Option<Vec<Term>> {
    let search = Search::parse(text, Reading { exact, words }).ok()?;
    Some(match search {
        Search::Term(term) => vec![formats::beginning(&term)],
        Search::Words(words) => {
            let terms = words.into_iter().map(keyrink_openpgp::terms::Term::Word);
            terms.map(|term| formats::beginning(&term)).collect()
        }
    })
}

/// The digests in a peer's question; `None` if it is refused.
pub fn hashquery(question: &[u8]) -> Option<Vec<Vec<u8>>> {
    hashquery::read_question(question).ok()
}

/// The certificates in a peer's answer when `asked` digests were asked for, as far as it could be read, and whether that
/// was to its end. Of longer ones than `certificate_octets_max` nothing is taken.
pub fn hashquery_answer(answer: &[u8], asked: usize, certificate_octets_max: u64) -> (Vec<Vec<u8>>, bool) {
    let mut found = Vec::new();
    let read = crate::client::hashquery::read(&mut &*answer, asked, certificate_octets_max, |octets| {
        found.push(octets)
    });
    (found, read.is_ok())
}

/// The saved sums of a tree, read and written again; `None` if they make no sense.
pub fn checkpoint(octets: &[u8]) -> Option<Vec<u8>> {
    crate::peers::checkpoint::rewritten(octets)
}

/// The key in the body of a submission with this `Content-Type`; `None` if it is refused.
pub fn submission(content_type: &str, body: &[u8]) -> Option<Vec<u8>> {
    add::keytext_of(content_type, body.to_vec().into())
        .now_or_never()?
        .map(Vec::from)
}

/// The machine-readable index of another keyserver, as it is printed to a terminal; `None` if it is none.
pub fn index(answer: &[u8]) -> Option<String> {
    let certificates = index::parse(answer)?;
    Some(certificates.iter().map(ToString::to_string).collect())
}

/// The pieces into which a keyring of at most `certificate_octets_max` octets a certificate is cut for loading, each with the
/// place in the keyring where it ends.
pub fn pieces(keyring: &[u8], certificate_octets_max: usize) -> Vec<(Vec<u8>, u64)> {
    let Ok(mut cutter) = Cutter::new(keyring, 0, certificate_octets_max) else {
        return Vec::new();
    };
    std::iter::from_fn(|| cutter.next_piece().ok()?)
        .map(|piece| (piece.octets, piece.end))
        .collect()
}

/// The packets in a file of any kind (packed, armored, a keybox), at most so many octets; `None` if they can't be read.
pub fn unpacked(file: &[u8], octets_max: u64) -> Option<Vec<u8>> {
    let mut packets = Vec::new();
    let unpacked = source::packets(std::io::Cursor::new(file.to_vec())).ok()?;
    unpacked.take(octets_max).read_to_end(&mut packets).ok()?;
    Some(packets)
}

/// The packets in a document of a Hockeypuck database; `None` if it is none.
pub fn hockeypuck_document(text: &str) -> Option<Vec<u8>> {
    document::read(text).ok().map(|document| document.packets)
}

/// The armored certificate in an administrator's order; `None` if it is refused.
pub fn order(text: &[u8]) -> Option<Vec<u8>> {
    let orders = [Verb::Delete, Verb::Replace].map(|verb| order::read(verb, text));
    orders.into_iter().find_map(|order| Some(order.ok()?.1.to_vec()))
}

/// A list of rules, read and written again; `None` if it is refused.
pub fn rules(text: &str) -> Option<String> {
    let rules = decide::rules_of(text).ok()?;
    let lines = rules.iter().map(|rule| serde_json::to_string(rule).ok());
    lines.map(|line| Some(line? + "\n")).collect()
}

/// For whom a trusted proxy at 10.0.0.1 asks that sends this `X-Forwarded-For`, or else `Forwarded`.
pub fn forwarded(header: &[u8], standard: bool) -> Option<IpAddr> {
    let config = config::Http {
        proxies: vec!["10.0.0.0/8".parse().ok()?],
        proxy_header: match standard {
            true => ProxyHeader::Forwarded,
            false => ProxyHeader::XForwardedFor,
        },
        ..config::Http::default()
    };
    Proxies::new(&config).client_in(IpAddr::from([10, 0, 0, 1]), header)
}
