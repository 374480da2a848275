//! Orders that an administrator signs and sends over HTTP: delete a certificate, or put another one in its place.
//!
//! What is signed is a text: its first line is the path that it is sent to, then lines that bind it to one server and one
//! moment, then the certificate in armor. Programs made for Hockeypuck leave the lines in between out; then only the time
//! of the signature keeps an order from being used for ever, and nothing from being used on another server that
//! trusts the same key. No order is carried out twice: what was carried out is noted in the store, for as long as
//! its signature would be accepted, and shared by all servers on it.

use super::change::{self, ChangeError};
use super::{Action, Change, Entry, Rules, Selector};
use crate::config::Config;
use crate::formats::OPENPGP;
use crate::http::time::Instant;
use crate::ingest::{Ingest, IngestError, Outcome};
use keyrink_openpgp::armor::{self, ArmorError};
use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::packet::key::Fingerprint;
use keyrink_openpgp::packet::{Frames, tag};
use keyrink_openpgp::read::Keyring;
use keyrink_openpgp::verify::detached::{DetachedError, Signed, verify_detached};
use keyrink_store::{RecordId, StoreError};
use thiserror::Error;

/// Takes orders.
pub struct Orders {
    /// The write path.
    pub ingest: Ingest,
    /// Fingerprints of the primary keys whose orders are taken.
    pub keys: Vec<RecordId>,
    /// Orders that do not name this server and a time are taken too.
    pub unbound: bool,
    /// What this server is called in orders.
    pub hostname: String,
    /// The clock: seconds since 1970.
    pub now: fn() -> u64,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Erase the certificates.
    Delete,
    /// Store them in place of what is stored under their fingerprints.
    Replace,
}

/// Why an order is not carried out.
#[derive(Debug, Error)]
pub enum OrderError {
    /// Nobody may give any.
    #[error("this server takes no orders: its configuration names nobody who may give them")]
    NoKeys,
    /// The first line is another one.
    #[error("the first line of `keytext` must be {0}")]
    FirstLine(&'static str),
    /// Something stands between the first line and the certificate.
    #[error("{0:?} is no line of an order: `host: NAME`, `time: 2026-06-05T12:00:00Z` and `reason: TEXT` are known")]
    Line(String),
    /// The signature can't be read.
    #[error("`keysig` is no armored signature: {0}")]
    Armor(ArmorError),
    /// The signature proves nothing.
    #[error(transparent)]
    Signature(#[from] DetachedError),
    /// Too old, or from the future.
    #[error("the order is of {0}, and here it is {1}: sign a new one, {WINDOW_SECS} seconds are allowed")]
    Stale(Instant, Instant),
    /// For another server.
    #[error("the order is for the server {0:?}, this one is {1:?}")]
    Host(String, String),
    /// For no server in particular.
    #[error("the order must name the server and the time: add the lines `host: {0}` and `time: …` after the first")]
    Unbound(String),
    /// It was carried out before.
    #[error("this order was carried out before: sign a new one")]
    Replayed,
    /// What it is about.
    #[error("the order holds no certificate: {0}")]
    NoCertificate(String),
    /// It is not stored.
    #[error("there is no certificate {0} here")]
    Unknown(Fingerprint),
    /// It is not wanted.
    #[error("the certificate {0} was not stored: {1}")]
    Refused(Fingerprint, &'static str),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Verb {
    /// Where such orders are sent to.
    pub fn path(self) -> &'static str {
        match self {
            Self::Delete => "/pks/delete",
            Self::Replace => "/pks/replace",
        }
    }
}

/// The lines between the path and the certificate.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms<'a> {
    host: Option<&'a str>,
    time: Option<Instant>,
    reason: Option<&'a str>,
}

impl Orders {
    /// As configured.
    pub fn new(config: &Config, ingest: Ingest, now: fn() -> u64) -> Self {
        let keys = config.orders.keys.iter().filter_map(|key| match key.parse() {
            Ok(Selector::Fingerprint(octets)) => RecordId::new(&octets),
            _ => None,
        });
        Self {
            ingest,
            keys: keys.collect(),
            unbound: config.orders.unbound,
            hostname: config.http.hostname.clone(),
            now,
        }
    }

    /// Carries out an order; the certificates that it was about.
    pub fn obey(&self, verb: Verb, text: &[u8], signature: &[u8]) -> Result<Vec<Fingerprint>, OrderError> {
        let (terms, key) = read(verb, text)?;
        let signed = self.signed(text, signature)?;
        self.check(&terms, signed.created)?;
        let keyring = match armor::decode(key) {
            Ok(octets) => Keyring::read(&octets, &self.ingest.limits),
            Err(error) => return Err(OrderError::NoCertificate(error.to_string())),
        };
        if keyring.certs.is_empty() || keyring.holds_secret() {
            let reason = keyring.refused.first().map(ToString::to_string);
            return Err(OrderError::NoCertificate(
                reason.unwrap_or_else(|| "export a public key".into()),
            ));
        }
        let fingerprints: Vec<Fingerprint> = keyring.certs.iter().map(|new| new.cert.key().fingerprint()).collect();
        for fingerprint in &fingerprints {
            let id = RecordId::new(fingerprint.as_bytes());
            let found = id.map(|id| self.stored(&id)).transpose()?.flatten();
            found.ok_or(OrderError::Unknown(*fingerprint))?;
        }
        let change = self.change(&fingerprints, &terms, &signed);
        match verb {
            Verb::Delete => drop(change.make(&*self.ingest.store, &self.ingest.rules, self.ingest.policy)?),
            Verb::Replace => self.replace(keyring, &change)?,
        }
        Ok(fingerprints)
    }

    /// Who signed the text, of those who may.
    fn signed(&self, text: &[u8], signature: &[u8]) -> Result<Signed, OrderError> {
        if self.keys.is_empty() {
            return Err(OrderError::NoKeys);
        }
        let octets = armor::decode(signature).map_err(OrderError::Armor)?;
        let frame = Frames::new(&octets).next().and_then(Result::ok);
        let frame = frame
            .filter(|frame| frame.tag == tag::SIGNATURE)
            .ok_or(DetachedError::Unreadable)?;
        let mut signers = Vec::new();
        let rules = self.ingest.rules.newest(&*self.ingest.store)?;
        for id in &self.keys {
            signers.extend(self.stored(id)?.filter(|cert| rules.judge(cert).ban().is_none()));
        }
        Ok(verify_detached(&signers, text, &frame.body, (self.now)())?)
    }

    /// A stored certificate.
    fn stored(&self, id: &RecordId) -> Result<Option<Cert>, StoreError> {
        let stored = self.ingest.store.get(OPENPGP, std::slice::from_ref(id))?;
        let cert = stored
            .into_iter()
            .flatten()
            .find_map(|stored| Cert::decode(&stored.data).ok());
        Ok(cert)
    }

    fn check(&self, terms: &Terms<'_>, created: u64) -> Result<(), OrderError> {
        let now = Instant((self.now)());
        let times = [Some(Instant(created)), terms.time];
        if let Some(time) = times
            .into_iter()
            .flatten()
            .find(|time| time.0.abs_diff(now.0) > WINDOW_SECS)
        {
            return Err(OrderError::Stale(time, now));
        }
        match terms.host {
            Some(host) if !host.eq_ignore_ascii_case(&self.hostname) => {
                Err(OrderError::Host(host.to_owned(), self.hostname.clone()))
            }
            _ if self.unbound || terms.host.is_some() && terms.time.is_some() => Ok(()),
            _ => Err(OrderError::Unbound(self.hostname.clone())),
        }
    }

    fn change(&self, fingerprints: &[Fingerprint], terms: &Terms<'_>, signed: &Signed) -> Change {
        let selectors = fingerprints.iter().map(|fingerprint| fingerprint.as_bytes().to_vec());
        Change {
            action: Some(Action::Erase),
            selectors: selectors.map(Selector::Fingerprint).collect(),
            once: false,
            reason: terms.reason.unwrap_or("a signed order").to_owned(),
            by: signed.signer.to_string(),
            time: Instant((self.now)()),
            order: Some(signed.statement),
        }
    }

    /// What was done is noted, and with it that the order is spent; what was not done, not. Two who bring the same order at
    /// once may both do it, which is the same as doing it once.
    fn replace(&self, keyring: Keyring, change: &Change) -> Result<(), OrderError> {
        if change
            .order
            .map_or(Ok(false), |order| change::is_spent(&*self.ingest.store, order))?
        {
            return Err(OrderError::Replayed);
        }
        let (mut done, mut failed) = (Vec::new(), None);
        for (fingerprint, outcome) in self.ingest.replace(keyring.certs)? {
            let refused = |reason| OrderError::Refused(fingerprint, reason);
            match outcome {
                None => failed = Some(OrderError::Unknown(fingerprint)),
                Some(Outcome::Forbidden) => failed = Some(refused(crate::ingest::FORBIDDEN)),
                Some(Outcome::TooLarge) => failed = Some(refused(crate::ingest::TOO_LARGE)),
                Some(_) => done.push(Selector::Fingerprint(fingerprint.as_bytes().to_vec())),
            }
        }
        if !done.is_empty() {
            note(&self.ingest, change, &done)?;
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Notes that an order to replace was carried out for these.
fn note(ingest: &Ingest, change: &Change, done: &[Selector]) -> Result<(), ChangeError> {
    let entries = done.iter().map(|selector| Entry {
        time: change.time,
        by: change.by.clone(),
        action: "replace".to_owned(),
        selector: Some(selector.clone()),
        reason: change.reason.clone(),
        certificates: 1,
    });
    let rules: &Rules = &ingest.rules;
    change::put_rules(
        &*ingest.store,
        rules,
        ingest.policy,
        &[],
        entries.collect(),
        change.order,
    )
}

/// Takes the text of an order apart: what binds it, and the certificate in armor.
pub(crate) fn read(verb: Verb, text: &[u8]) -> Result<(Terms<'_>, &[u8]), OrderError> {
    let mut terms = Terms::default();
    let first = line(text);
    if first != verb.path().as_bytes() {
        return Err(OrderError::FirstLine(verb.path()));
    }
    let mut rest = after(text);
    while !rest.is_empty() && !rest.starts_with(b"-----BEGIN ") {
        let text = line(rest);
        let wrong = || OrderError::Line(String::from_utf8_lossy(text).into_owned());
        let words = std::str::from_utf8(text).map_err(|_| wrong())?.trim();
        match words.split_once(':').map(|(name, value)| (name.trim(), value.trim())) {
            Some(("host", host)) => terms.host = Some(host.split(':').next().unwrap_or(host)),
            Some(("time", time)) => terms.time = Some(Instant::parse(time).ok_or_else(wrong)?),
            Some(("reason", reason)) => terms.reason = Some(reason),
            None if words.is_empty() => {}
            _ => return Err(wrong()),
        }
        rest = after(rest);
    }
    Ok((terms, rest))
}

fn line(text: &[u8]) -> &[u8] {
    let line = text.split(|octet| *octet == b'\n').next().unwrap_or_default();
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn after(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|octet| *octet == b'\n');
    end.map_or(&[], |end| &text[end + 1..])
}

impl From<ChangeError> for OrderError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Replayed => Self::Replayed,
            ChangeError::Store(error) => Self::Store(error),
            ChangeError::NoRule(_) | ChangeError::OnceHides => Self::Store(StoreError::Invalid(error.to_string())),
        }
    }
}

impl From<IngestError> for OrderError {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Store(error) => Self::Store(error),
            other => Self::NoCertificate(other.to_string()),
        }
    }
}

/// How far the time of an order may be from that of this server.
pub const WINDOW_SECS: u64 = 900;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_bound_by_their_lines() {
        let text = b"/pks/delete\r\nhost: keys.example.org:11371\r\ntime: 2026-06-05T12:00:00Z\nreason: a: b\n\n-----BEGIN PGP\n";
        let (terms, key) = read(Verb::Delete, text).unwrap();
        assert_eq!(
            (terms.host, terms.time.map(|time| time.0), terms.reason),
            (Some("keys.example.org"), Some(1_780_660_800), Some("a: b"))
        );
        assert_eq!(key, b"-----BEGIN PGP\n");
        let plain = read(Verb::Replace, b"/pks/replace\n-----BEGIN PGP\n").unwrap();
        assert_eq!(plain, (Terms::default(), &b"-----BEGIN PGP\n"[..]));
        assert!(matches!(
            read(Verb::Replace, text),
            Err(OrderError::FirstLine("/pks/replace"))
        ));
        for wrong in ["host", "time: now", "Host: a", "-----START"] {
            let text = format!("/pks/delete\n{wrong}\n-----BEGIN PGP\n");
            assert!(
                matches!(read(Verb::Delete, text.as_bytes()), Err(OrderError::Line(_))),
                "{wrong}"
            );
        }
        assert_eq!(read(Verb::Delete, b"/pks/delete").unwrap().1, b"");
    }
}
