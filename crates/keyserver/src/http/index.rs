//! Indexes for machines: the lines of HKP (`options=mr`) and JSON (`options=json`).
//!
//! Of the flags of HKP's lines, `r` (revoked) and `e` (expired) are written. `d` (disabled) tells of a keyserver whose
//! operator switches single keys off, which cannot be done here: what is stored is shown or is not found.
//!
//! The number in the first line counts the certificates in this answer, as HKP has it. That there are more is said by
//! the header `Link` only: a line of another kind would reach people as a result, because GnuPG hands on to its caller
//! every line that a server sends, and a larger number would not be the one that HKP means.
//!
//! The JSON is that of the HKP draft's index (§7.1.1) in an object with the address of the next page:
//!
//! ```text
//! index:        certificates[], next (address of the next page, only if there is one)
//! certificate:  version, fingerprint, creation, expiration, isExpired, isRevoked, algorithm, userIDs[], subkeys[],
//!               signatures[], md5 (with `hash=on`)
//! userID:       uidString, creation, expiration, isExpired, isRevoked, signatures[]
//! subkey:       version, fingerprint, creation, expiration, isExpired, isRevoked, algorithm, signatures[]
//! algorithm:    code, name, bitLength
//! signature:    type, issuer, creation, expiration, isSelf            with `op=vindex` only
//! ```
//!
//! Fingerprints and key ids are lower-case hexadecimal, times are RFC 3339 in UTC, what is unknown is missing.

use super::certificate::{Certificate, Component, Standing, algorithm_name};
use super::time::Instant;
use keyrink_openpgp::facts::Fact;
use keyrink_openpgp::packet::key::KeyId;
use keyrink_openpgp::stored::{KeyEntry, SignatureEntry};
use serde::Serialize;
use std::borrow::Cow;
use std::fmt::Write;

/// The machine-readable index: one `pub` line a certificate, each followed by its `uid` lines, all ended by LF.
pub(super) fn lines(certificates: &[Certificate<'_>], now: u64) -> String {
    let mut out = format!("info:1:{}\n", certificates.len());
    for certificate in certificates {
        let KeyEntry {
            algorithm,
            bits,
            fingerprint,
        } = certificate.key;
        let _ = write!(out, "pub:{fingerprint}:{algorithm}:");
        if bits > 0 {
            let _ = write!(out, "{bits}");
        }
        end_line(&mut out, &certificate.primary, now);
        for user_id in certificate.user_ids() {
            out.push_str("uid:");
            escape(user_id.entry.body, &mut out);
            end_line(&mut out, user_id, now);
        }
    }
    out
}

/// Creation, expiry and flags.
fn end_line(out: &mut String, component: &Component<'_>, now: u64) {
    let status = &component.entry.status;
    out.push(':');
    if status.created > 0 {
        let _ = write!(out, "{}", status.created);
    }
    out.push(':');
    if let Some(expires) = status.expires {
        let _ = write!(out, "{expires}");
    }
    out.push(':');
    if status.revoked.is_some() {
        out.push('r');
    }
    if status.is_expired(now) {
        out.push('e');
    }
    out.push('\n');
}

/// Percent-encodes what could end a field or a line for any reader, and octets that are not UTF-8.
fn escape(text: &[u8], out: &mut String) {
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            if matches!(c, '%' | ':' | '\u{2028}' | '\u{2029}') || c.is_control() {
                percent_encode(c.encode_utf8(&mut [0; 4]).as_bytes(), out);
            } else {
                out.push(c);
            }
        }
        percent_encode(chunk.invalid(), out);
    }
}

fn percent_encode(octets: &[u8], out: &mut String) {
    for octet in octets {
        let _ = write!(out, "%{octet:02X}");
    }
}

/// What the JSON holds besides the certificates.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent<'a> {
    /// With signatures.
    pub signatures: bool,
    /// The digest that SKS has of each certificate, in hexadecimal, in order.
    pub digests: Option<&'a [String]>,
    /// Address of the next page.
    pub next: Option<&'a str>,
}

/// The index as JSON.
pub(super) fn json(certificates: &[Certificate<'_>], now: u64, extent: Extent<'_>) -> Vec<u8> {
    let view = View {
        now,
        signatures: extent.signatures,
    };
    let digests = extent.digests.unwrap_or_default();
    let index = Index {
        certificates: certificates
            .iter()
            .enumerate()
            .map(|(at, certificate)| view.certificate(certificate, digests.get(at).map(String::as_str)))
            .collect(),
        next: extent.next,
    };
    let mut out = serde_json::to_vec(&index).expect("text and numbers can always be written as JSON");
    out.push(b'\n');
    out
}

struct View {
    now: u64,
    signatures: bool,
}

impl View {
    fn certificate<'a>(&self, certificate: &Certificate<'a>, digest: Option<&'a str>) -> CertificateJson<'a> {
        CertificateJson {
            key: self.key(certificate.key, &certificate.primary),
            user_ids: certificate
                .user_ids()
                .map(|user_id| UserIdJson {
                    text: String::from_utf8_lossy(user_id.entry.body),
                    validity: self.validity(user_id),
                })
                .collect(),
            subkeys: certificate
                .subkeys()
                .map(|(key, subkey)| self.key(key, subkey))
                .collect(),
            md5: digest,
        }
    }

    fn key(&self, key: KeyEntry, component: &Component<'_>) -> KeyJson {
        KeyJson {
            version: key.fingerprint.version(),
            fingerprint: key.fingerprint.to_string().to_lowercase(),
            algorithm: AlgorithmJson {
                code: key.algorithm,
                name: algorithm_name(key.algorithm).unwrap_or("unknown"),
                bit_length: (key.bits > 0).then_some(key.bits),
            },
            validity: self.validity(component),
        }
    }

    fn validity(&self, component: &Component<'_>) -> ValidityJson {
        let status = &component.entry.status;
        ValidityJson {
            creation: (status.created > 0).then_some(Instant(status.created.into())),
            expiration: status.expires.map(|expires| Instant(expires.into())),
            is_expired: status.is_expired(self.now),
            is_revoked: component.standing(self.now) == Standing::Revoked,
            signatures: self
                .signatures
                .then(|| component.signatures.iter().map(signature).collect()),
        }
    }
}

fn signature(signature: &SignatureEntry<'_>) -> SignatureJson {
    let facts = &signature.facts;
    SignatureJson {
        kind: facts.kind,
        issuer: (facts.issuer != KeyId::default()).then(|| facts.issuer.to_string().to_lowercase()),
        creation: (facts.created > 0).then_some(Instant(facts.created.into())),
        expiration: (facts.expires > 0).then_some(Instant(facts.expires.into())),
        is_self: facts.has(Fact::Own),
    }
}

#[derive(Serialize)]
struct Index<'a> {
    certificates: Vec<CertificateJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
}

#[derive(Serialize)]
struct CertificateJson<'a> {
    #[serde(flatten)]
    key: KeyJson,
    #[serde(rename = "userIDs")]
    user_ids: Vec<UserIdJson<'a>>,
    subkeys: Vec<KeyJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    md5: Option<&'a str>,
}

#[derive(Serialize)]
struct KeyJson {
    version: u8,
    fingerprint: String,
    algorithm: AlgorithmJson,
    #[serde(flatten)]
    validity: ValidityJson,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AlgorithmJson {
    code: u8,
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bit_length: Option<u32>,
}

#[derive(Serialize)]
struct UserIdJson<'a> {
    #[serde(rename = "uidString")]
    text: Cow<'a, str>,
    #[serde(flatten)]
    validity: ValidityJson,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ValidityJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    creation: Option<Instant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<Instant>,
    is_expired: bool,
    is_revoked: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    signatures: Option<Vec<SignatureJson>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SignatureJson {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    creation: Option<Instant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<Instant>,
    is_self: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn escaped(text: &[u8]) -> String {
        let mut out = String::new();
        escape(text, &mut out);
        out
    }

    #[test]
    fn user_ids_are_escaped() {
        assert_eq!(escaped("Jörg 100%: <a@b>".as_bytes()), "Jörg 100%25%3A <a@b>");
        assert_eq!(escaped(b"a\r\nb\x7F\0"), "a%0D%0Ab%7F%00");
        assert_eq!(escaped("a\u{85}b\u{2028}".as_bytes()), "a%C2%85b%E2%80%A8");
        assert_eq!(escaped(b"J\xF6rg \xC3"), "J%F6rg %C3");
    }

    proptest! {
        #[test]
        fn escaping_keeps_one_field_in_one_line_and_loses_nothing(text in any::<Vec<u8>>()) {
            let out = escaped(&text);
            let breaks = |c: char| c == ':' || c.is_control() || ['\u{2028}', '\u{2029}'].contains(&c);
            prop_assert!(!out.contains(breaks));
            prop_assert_eq!(percent_encoding::percent_decode_str(&out).collect::<Vec<u8>>(), text);
        }

        #[test]
        fn escaping_text_with_line_ends(text in "[\r\n\t:%\u{85}\u{2028}a-c0-9]{0,40}") {
            let out = escaped(text.as_bytes());
            prop_assert!(out.lines().count() <= 1);
            prop_assert_eq!(percent_encoding::percent_decode_str(&out).decode_utf8().unwrap(), text);
        }
    }
}
