//! What somebody searches for: every way in which people and programs write keys, addresses and names.

use keyrink_openpgp::terms::{self, Term};
use thiserror::Error;

/// The meaning of a `search` parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Search {
    /// Certificates found by this term.
    Term(Term),
    /// Certificates whose user ids hold all these words; at least one.
    Words(Vec<String>),
}

/// How to read text that could mean several things.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    /// The client wants whole user ids (`exact=on`).
    pub exact: bool,
    /// This server finds single words.
    pub words: bool,
}

/// Why a text is nothing to search for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum SearchError {
    /// Nothing but spaces.
    #[error(
        "The parameter `search` is missing or empty: it takes a fingerprint, a key id, an e-mail address or a user id."
    )]
    Empty,
    /// More than anything here is found by.
    #[error("A search has at most {OCTETS_MAX} octets.")]
    TooLong,
    /// Eight digits: whoever wants to makes another key with the same ones.
    #[error(
        "Key ids of 8 digits are not searched for, because anybody can make a key that has the same: \
         use the whole fingerprint, or the key id of 16 digits."
    )]
    ShortKeyId,
    /// Marked as the digits of a key, but no key has so many.
    #[error("A fingerprint has 40, 64 or 32 hexadecimal digits and a key id 16, but this search has {0}.")]
    Digits(usize),
    /// Marked as the digits of a key, but something else.
    #[error("After `openpgp4fpr:` only hexadecimal digits may follow.")]
    NotDigits,
}

impl Search {
    /// Reads the decoded value of `search`. Octets that are not UTF-8 are replaced, as they are in user ids.
    ///
    /// Keys: `0x` or `openpgp4fpr:` and digits, or digits alone, with spaces anywhere. Text: an e-mail address, also
    /// in angle brackets, finds all its certificates; after `=` as gpg writes it, and for whatever holds an address
    /// and more, the whole user id must match; the rest are words.
    pub(crate) fn parse(search: &[u8], reading: Reading) -> Result<Self, SearchError> {
        let text = String::from_utf8_lossy(search);
        let text = text.trim();
        if text.is_empty() {
            return Err(SearchError::Empty);
        }
        if text.to_lowercase().len() > OCTETS_MAX {
            return Err(SearchError::TooLong);
        }
        if let Some(user_id) = text.strip_prefix('=').map(str::trim).filter(|rest| !rest.is_empty()) {
            return Ok(user_id_of(user_id));
        }
        if let Some(key) = marked_key(text) {
            return key;
        }
        if !reading.exact
            && let Some(key) = bare_key(text)
            && !(reading.words && key.is_err())
        {
            return key;
        }
        Ok(Self::of_text(&text.to_lowercase(), reading))
    }

    fn of_text(text: &str, reading: Reading) -> Self {
        let address = terms::email(text);
        let between_brackets = || text.strip_prefix('<')?.strip_suffix('>').map(str::trim);
        if let Some(address) = address.filter(|address| *address == text || between_brackets() == Some(address)) {
            return Self::Term(Term::Email(address.to_owned()));
        }
        let words: Vec<String> = match reading {
            Reading {
                words: true,
                exact: false,
            } if address.is_none() => terms::words(text).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        if words.is_empty() {
            user_id_of(text)
        } else {
            Self::Words(words)
        }
    }
}

fn user_id_of(text: &str) -> Search {
    Search::Term(Term::UserId(text.to_lowercase()))
}

/// A text that says itself that it means a key. What starts like a number but goes on otherwise is text.
fn marked_key(text: &str) -> Option<Result<Search, SearchError>> {
    if let Some(rest) = strip_prefix_any_case(text, "openpgp4fpr:") {
        return Some(digits(rest).ok_or(SearchError::NotDigits).and_then(key_of));
    }
    strip_prefix_any_case(text, "0x").and_then(digits).map(key_of)
}

/// Digits that nothing marks mean a key if there are as many as a key has.
fn bare_key(text: &str) -> Option<Result<Search, SearchError>> {
    digits(text)
        .map(key_of)
        .filter(|key| !matches!(key, Err(SearchError::Digits(_))))
}

fn key_of(digits: Vec<u8>) -> Result<Search, SearchError> {
    let octets = || digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]);
    match digits.len() {
        8 => Err(SearchError::ShortKeyId),
        16 => {
            let mut id = [0; 8];
            id.iter_mut().zip(octets()).for_each(|(to, octet)| *to = octet);
            Ok(Search::Term(Term::KeyId(id)))
        }
        32 | 40 | 64 => Ok(Search::Term(Term::Fingerprint(octets().collect()))),
        others => Err(SearchError::Digits(others)),
    }
}

/// The values of hexadecimal digits, at least one, between which spaces may stand; `None` for anything else.
fn digits(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect();
    digits.filter(|digits| !digits.is_empty())
}

fn strip_prefix_any_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Octets of a search: more than an address, a name and a comment need.
const OCTETS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const V4: &str = "0123456789ABCDEF0123456789abcdef01234567";

    fn parse(text: &str) -> Result<Search, SearchError> {
        Search::parse(text.as_bytes(), Reading::default())
    }

    fn with(text: &str, exact: bool, words: bool) -> Search {
        Search::parse(text.as_bytes(), Reading { exact, words }).unwrap()
    }

    fn user_id(text: &str) -> Search {
        Search::Term(Term::UserId(text.into()))
    }

    fn address(text: &str) -> Search {
        Search::Term(Term::Email(text.into()))
    }

    #[test]
    fn keys_in_every_form() {
        let octets: Vec<u8> = (0..20)
            .map(|i| [1, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF][i % 8])
            .collect();
        let v4 = Search::Term(Term::Fingerprint(octets.clone()));
        let spaced = "0123 4567 89AB CDEF 0123  4567 89ab cdef 0123 4567";
        for form in [
            V4,
            spaced,
            &format!(" {V4}\n"),
            &format!("0x{V4}"),
            &format!("0X{spaced}"),
        ] {
            assert_eq!(parse(form).as_ref(), Ok(&v4), "{form}");
        }
        assert_eq!(parse(&format!("openpgp4fpr:{V4}")), Ok(v4.clone()));
        assert_eq!(parse(&format!("OPENPGP4FPR:{spaced}")), Ok(v4.clone()));
        for (digits, octets) in [(32, 16), (64, 32)] {
            let expected = Search::Term(Term::Fingerprint(vec![0xAB; octets]));
            assert_eq!(parse(&"aB".repeat(digits / 2)), Ok(expected.clone()));
            assert_eq!(parse(&format!("0x{}", "aB".repeat(digits / 2))), Ok(expected));
        }
        let id = Search::Term(Term::KeyId([1, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF]));
        assert_eq!(parse(&V4[..16]), Ok(id.clone()));
        assert_eq!(with(&format!("0x{}", &V4[..16]), true, true), id);
    }

    #[test]
    fn digits_that_no_key_has() {
        assert_eq!(parse("0x01234567"), Err(SearchError::ShortKeyId));
        assert_eq!(parse("01234567"), Err(SearchError::ShortKeyId));
        assert_eq!(parse("0x123"), Err(SearchError::Digits(3)));
        assert_eq!(parse("openpgp4fpr:x"), Err(SearchError::NotDigits));
        assert_eq!(parse("openpgp4fpr:"), Err(SearchError::NotDigits));
        assert_eq!(parse("123"), Ok(user_id("123")));
        assert_eq!(parse("0xyz"), Ok(user_id("0xyz")));
        assert_eq!(with("deadbeef", false, true), Search::Words(vec!["deadbeef".into()]));
        assert_eq!(with(V4, true, false), user_id(&V4.to_lowercase()));
        assert_eq!(parse(" \t"), Err(SearchError::Empty));
    }

    #[test]
    fn addresses_user_ids_and_words() {
        for form in [
            "a@example.org",
            "<a@Example.ORG>",
            " A@example.org ",
            "< a@example.org >",
        ] {
            assert_eq!(parse(form), Ok(address("a@example.org")), "{form}");
            assert_eq!(with(form, true, true), address("a@example.org"), "{form}");
        }
        let whole = user_id("alice <a@example.org>");
        assert_eq!(parse("Alice <a@example.org>"), Ok(whole.clone()));
        assert_eq!(parse("=Alice <a@example.org>"), Ok(whole.clone()));
        assert_eq!(with("Alice <a@example.org>", false, true), whole);
        assert_eq!(parse("=a@example.org"), Ok(user_id("a@example.org")));
        assert_eq!(parse("Alice Smith"), Ok(user_id("alice smith")));
        assert_eq!(with("Alice Smith", true, true), user_id("alice smith"));
        assert_eq!(
            with("Alice B. Smith", false, true),
            Search::Words(vec!["alice".into(), "smith".into()])
        );
        assert_eq!(with("?", false, true), user_id("?"));
        assert_eq!(parse("="), Ok(user_id("=")));
        assert_eq!(
            Search::parse(b"J\xF6rg", Reading::default()),
            Ok(user_id("j\u{FFFD}rg"))
        );
    }

    proptest! {
        #[test]
        fn whatever_is_typed_means_something_or_says_why_not(text in any::<Vec<u8>>(), exact: bool, words: bool) {
            let _ = Search::parse(&text, Reading { exact, words });
        }
    }
}
