//! The machine-readable index (draft-shaw-openpgp-hkp-00, section 5.2): parsed leniently, printed for people.

use percent_encoding::percent_decode;
use std::fmt;

/// One certificate of an index.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// Fingerprint or key id.
    id: String,
    algorithm: Option<u8>,
    bits: Option<u32>,
    created: Option<u64>,
    expires: Option<u64>,
    flags: String,
    user_ids: Vec<UserId>,
}

/// One user id of a certificate.
#[derive(Debug, PartialEq, Eq)]
struct UserId {
    text: String,
    flags: String,
}

/// Reads an index; `None` if the answer is something else. Lines and fields that are unknown or missing are no error.
pub(crate) fn parse(body: &[u8]) -> Option<Vec<Certificate>> {
    let mut certificates: Vec<Certificate> = Vec::new();
    let mut recognised = false;
    for line in body.split(|&octet| octet == b'\n') {
        let mut fields = line.strip_suffix(b"\r").unwrap_or(line).split(|&octet| octet == b':');
        let kind = fields.next().unwrap_or_default();
        let mut text = || fields.next().map(|field| harmless(&decoded(field))).unwrap_or_default();
        match kind {
            b"info" => recognised = true,
            b"pub" => certificates.push(Certificate {
                id: text(),
                algorithm: text().parse().ok(),
                bits: text().parse().ok().filter(|&bits| bits > 0),
                created: text().parse().ok(),
                expires: text().parse().ok(),
                flags: text(),
                user_ids: Vec::new(),
            }),
            b"uid" => {
                let Some(certificate) = certificates.last_mut() else {
                    continue;
                };
                let user_id = text();
                certificate.user_ids.push(UserId {
                    text: user_id,
                    flags: fields.nth(2).map(decoded).unwrap_or_default(),
                });
            }
            _ => {}
        }
    }
    (recognised || !certificates.is_empty()).then_some(certificates)
}

impl fmt::Display for Certificate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut facts = Vec::new();
        let bits = self.bits.map(|bits| format!(" {bits}")).unwrap_or_default();
        facts.extend(
            self.algorithm
                .map(|algorithm| format!("{}{bits}", algorithm_name(algorithm))),
        );
        facts.extend(self.created.map(|time| format!("created {}", date(time))));
        let expired = self.flags.contains('e');
        facts.extend(
            self.expires
                .map(|time| format!("{} {}", if expired { "expired" } else { "expires" }, date(time))),
        );
        facts.extend((expired && self.expires.is_none()).then(|| "expired".into()));
        facts.extend(self.flags.contains('r').then(|| "REVOKED".into()));
        facts.extend(self.flags.contains('d').then(|| "disabled".into()));
        writeln!(out, "{}  {}", self.id, facts.join(", "))?;
        for user_id in &self.user_ids {
            let revoked = if user_id.flags.contains('r') { "  (revoked)" } else { "" };
            writeln!(out, "    {}{revoked}", user_id.text)?;
        }
        Ok(())
    }
}

/// Text that can be printed to a terminal: control characters, and those that reorder or hide text, are spelled out.
pub(super) fn harmless(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, c| {
        let reorders_or_hides =
            matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        match c.is_control() || reorders_or_hides {
            true => safe.extend(c.escape_unicode()),
            false => safe.push(c),
        }
        safe
    })
}

fn decoded(field: &[u8]) -> String {
    String::from_utf8_lossy(&percent_decode(field).collect::<Vec<_>>()).into_owned()
}

/// Names of public-key algorithms (RFC 9580, section 9.1, and RFC 9980).
fn algorithm_name(algorithm: u8) -> String {
    let name = match algorithm {
        1..=3 => "RSA",
        16 | 20 => "Elgamal",
        17 => "DSA",
        18 => "ECDH",
        19 => "ECDSA",
        22 => "EdDSA",
        25 => "X25519",
        26 => "X448",
        27 => "Ed25519",
        28 => "Ed448",
        _ => return format!("algorithm {algorithm}"),
    };
    name.into()
}

/// The day of a Unix time, as `2026-06-05`. Times that no key can have are given as they are.
fn date(time: u64) -> String {
    if time > SECONDS_MAX {
        return time.to_string();
    }
    // Days are counted in eras of 400 years that begin on a first of March, so that leap days come last.
    let days = time / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The end of the year 9999.
const SECONDS_MAX: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(body: &str) -> String {
        parse(body.as_bytes())
            .unwrap()
            .iter()
            .map(Certificate::to_string)
            .collect()
    }

    #[test]
    fn an_index_is_printed_for_people() {
        let body = "info:1:2\r\npub:80E976F14A508A48E9CA3FE9BC372252CA1CF964:1:4096:1388571010:1577836800:re\r\n\
                    uid:A%3A%25 ä <a@b>:1388571010::\r\nuid:old:::r\r\n\
                    pub:BC372252CA1CF964\nuid:x\nunknown:line\n";
        assert_eq!(
            printed(body),
            "80E976F14A508A48E9CA3FE9BC372252CA1CF964  RSA 4096, created 2014-01-01, expired 2020-01-01, REVOKED\n    \
             A:% ä <a@b>\n    old  (revoked)\nBC372252CA1CF964  \n    x\n"
        );
    }

    #[test]
    fn flags_are_spelled_out() {
        let line = |flags: &str| printed(&format!("pub:AA:22::::{flags}\n"));
        assert_eq!(line("d"), "AA  EdDSA, disabled\n");
        assert_eq!(line("dre"), "AA  EdDSA, expired, REVOKED, disabled\n");
        assert_eq!(line("x"), "AA  EdDSA\n");
    }

    #[test]
    fn control_characters_are_spelled_out() {
        let text = printed("info:1:1\npub:%1b[2J\nuid:%07%1b]0;x%E2%80%AEevil%0A%9b%FF\n");
        assert_eq!(
            text,
            "\\u{1b}[2J  \n    \\u{7}\\u{1b}]0;x\\u{202e}evil\\u{a}\u{fffd}\u{fffd}\n"
        );
        assert_eq!(harmless("a\u{9b}b\tc"), "a\\u{9b}b\\u{9}c");
    }

    #[test]
    fn other_answers_are_no_index() {
        assert_eq!(parse(b"<html>\n<p>hello"), None);
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"info:1:0\n"), Some(vec![]));
        assert_eq!(parse(b"uid:orphan\npub:AA\n").map(|index| index.len()), Some(1));
    }

    #[test]
    fn days_are_right() {
        for (time, day) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (4_107_542_400, "2100-03-01"),
            (1_582_934_400, "2020-02-29"),
        ] {
            assert_eq!(date(time), day);
        }
        assert_eq!(date(SECONDS_MAX), "9999-12-31");
        assert_eq!(date(u64::MAX), u64::MAX.to_string());
    }
}
