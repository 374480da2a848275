//! One rule: which certificates, what is done with them, why, by whom and when.

use crate::formats::{hexadecimal, octets};
use crate::http::time::Instant;
use keyrink_openpgp::terms;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// What is done with the certificates that a rule selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// User ids are shown to nobody: all, or those that the selector names.
    HideUid,
    /// Nothing is shown or reconciled but a revocation for all time.
    Block,
    /// Nothing is kept.
    Erase,
}

impl Action {
    /// As commands and lists have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::HideUid => "hide-uid",
            Self::Block => "block",
            Self::Erase => "erase",
        }
    }
}

/// Which certificates a rule is about: one by its primary key, or all that their owners gave some address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Selector {
    /// The primary key's fingerprint.
    Fingerprint(Vec<u8>),
    /// The primary key's key id.
    KeyId([u8; 8]),
    /// An address, in lower case.
    Email(String),
    /// A domain, in lower case, or with a dot before it all domains below it.
    Domain(String),
}

/// A text selects nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{0:?} selects no certificate: give a fingerprint, a key id of 16 digits, an address (a@example.org), or a domain with an \
     @ before it (@example.org, with all below it @.example.org)"
)]
pub struct SelectorError(String);

/// A rule. One line of JSON in lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// What is done.
    pub action: Action,
    /// With which certificates.
    pub selector: Selector,
    /// Why, in the operator's words.
    pub reason: String,
    /// Who decided it.
    pub by: String,
    /// When.
    pub time: Instant,
    /// The same for all rules that came of one decision, which are taken back together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
}

/// The address in a user id, in lower case, as rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address(String);

impl Address {
    /// The address of a user id.
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(body).to_lowercase();
        terms::email(&text).map(|email| Self(email.to_owned()))
    }

    /// The whole, if a rule can name it.
    pub(super) fn email(&self) -> Option<&str> {
        Some(&*self.0).filter(|email| email.len() <= ADDRESS_OCTETS_MAX)
    }

    /// The domains by which rules select it: its own, and, with a dot before them, all that it is below. Slices of one text,
    /// and few: whoever makes user ids chooses how many labels there are.
    pub(super) fn domains(&self) -> impl Iterator<Item = &str> {
        let domain = self.0.rsplit_once('@').map_or("", |(_, domain)| domain);
        let domain = Some(domain).filter(|domain| domain.len() <= DOMAIN_OCTETS_MAX);
        let above = domain.into_iter().flat_map(|domain| {
            let dots = domain.match_indices('.');
            dots.map(move |(at, _)| &domain[at..])
        });
        domain.into_iter().chain(above)
    }
}

impl Rule {
    /// What tells it from all others. What another decision says about the same certificates is another rule, and so is what
    /// is more or less than this: none takes the place of another unawares.
    pub(super) fn key(&self) -> (&Selector, Action, Option<&str>) {
        (&self.selector, self.action, self.decision.as_deref())
    }
}

impl Selector {
    /// It may select more than one certificate, later ones too.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Email(_) | Self::Domain(_))
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let typed = text.trim().to_lowercase();
        let wrong = || SelectorError(text.to_owned());
        if let Some(domain) = typed.strip_prefix('@') {
            let labels = domain.strip_prefix('.').unwrap_or(domain).split('.');
            let sound = labels.into_iter().all(|label| !label.is_empty()) && is_plain(domain);
            let sound = sound && domain.len() <= DOMAIN_OCTETS_MAX;
            return sound.then(|| Self::Domain(domain.to_owned())).ok_or_else(wrong);
        }
        if let Some((local, domain)) = typed.rsplit_once('@') {
            let sound = !local.is_empty() && !domain.is_empty() && is_plain(&typed);
            return sound.then(|| Self::Email(typed.clone())).ok_or_else(wrong);
        }
        let digits: String = typed.chars().filter(|c| !c.is_whitespace()).collect();
        let digits = digits.strip_prefix("0x").unwrap_or(&digits);
        let octets = octets(digits).ok_or_else(wrong)?;
        match (octets.len(), octets.first_chunk()) {
            (8, Some(id)) => Ok(Self::KeyId(*id)),
            (16 | 20 | 32, _) => Ok(Self::Fingerprint(octets)),
            _ => Err(wrong()),
        }
    }
}

/// Nothing in it could end an address.
fn is_plain(text: &str) -> bool {
    text.len() <= ADDRESS_OCTETS_MAX
        && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "<>".contains(c))
}

/// No user id with a longer address is found by it.
const ADDRESS_OCTETS_MAX: usize = 1024;
/// No address in a longer domain is selected by it: the longest name that the domain name system has (RFC 1035, section
/// 2.3.4).
const DOMAIN_OCTETS_MAX: usize = 253;

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fingerprint(octets) => f.write_str(&hexadecimal(octets).to_uppercase()),
            Self::KeyId(id) => f.write_str(&hexadecimal(id).to_uppercase()),
            Self::Email(email) => f.write_str(email),
            Self::Domain(domain) => write!(f, "@{domain}"),
        }
    }
}

impl TryFrom<String> for Selector {
    type Error = SelectorError;

    fn try_from(text: String) -> Result<Self, SelectorError> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_as_they_are_written() {
        for (typed, written) in [
            (
                "0x653909a2f0e37c106f5faf546c8857e0d8e8f074",
                "653909A2F0E37C106F5FAF546C8857E0D8E8F074",
            ),
            (
                "6539 09A2 F0E3 7C10 6F5F  AF54 6C88 57E0 D8E8 F074",
                "653909A2F0E37C106F5FAF546C8857E0D8E8F074",
            ),
            ("6C8857E0D8E8F074", "6C8857E0D8E8F074"),
            (" Alice@Example.ORG", "alice@example.org"),
            ("@Example.org", "@example.org"),
            ("@.example.org", "@.example.org"),
        ] {
            let selector: Selector = typed.parse().unwrap();
            assert_eq!(selector.to_string(), written);
            assert_eq!(written.parse(), Ok(selector));
        }
        for wrong in [
            "",
            "6C8857E0",
            "example.org",
            "@",
            "@.",
            "@a..b",
            "a b@c",
            "Alice <a@b>",
            "a@",
        ] {
            assert!(wrong.parse::<Selector>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_user_id_is_selected_by_its_address_and_domains() {
        let address = Address::of(b"Alice <Alice@Mail.Example.org>").unwrap();
        assert_eq!(address.email(), Some("alice@mail.example.org"));
        let domains: Vec<_> = address.domains().collect();
        assert_eq!(domains, ["mail.example.org", ".example.org", ".org"]);
        assert_eq!(Address::of(b"Alice"), None);
    }

    #[test]
    fn an_address_of_dots_is_in_few_domains() {
        let of = |dots: usize| Address::of(format!("a@{}", ".".repeat(dots)).as_bytes()).unwrap();
        assert_eq!((of(16_000).domains().count(), of(16_000).email()), (0, None));
        let longest = of(DOMAIN_OCTETS_MAX);
        assert_eq!(longest.domains().count(), 1 + DOMAIN_OCTETS_MAX);
        // All of them are parts of one text.
        let range = longest.0.as_bytes().as_ptr_range();
        assert!(longest.domains().all(|domain| range.contains(&domain.as_ptr())));
    }

    #[test]
    fn a_rule_is_one_line_of_json() {
        let line =
            r#"{"action":"hide-uid","selector":"a@b.c","reason":"asked","by":"root","time":"2026-06-05T12:00:00Z"}"#;
        let rule: Rule = serde_json::from_str(line).unwrap();
        assert_eq!(
            (rule.action, &rule.selector),
            (Action::HideUid, &Selector::Email("a@b.c".into()))
        );
        assert_eq!(serde_json::to_string(&rule).unwrap(), line);
        assert!(serde_json::from_str::<Rule>(&line.replace("a@b.c", "a b")).is_err());
        assert!(serde_json::from_str::<Rule>(&line.replace("06-05T", "13-05T")).is_err());
    }
}
