//! Terms: what a certificate can be found by, and the entries of an index that answer them.

use crate::cert::Cert;
use crate::packet::key::Key;
use crate::packet::tag;
use crate::project::Projection;
use crate::veto::Veto;

/// What somebody looks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Term {
    /// Fingerprint of the primary key or a subkey: 16, 20 or 32 octets.
    Fingerprint(Vec<u8>),
    /// Key id of the primary key or a subkey.
    KeyId([u8; 8]),
    /// The e-mail address of a user id, in lower case.
    Email(String),
    /// A whole user id, in lower case.
    UserId(String),
    /// A word of a user id, in lower case.
    Word(String),
}

/// One entry of an index. Several terms find it: an index in which an entry begins with the more common one needs it once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    /// A primary key or subkey, found by its key id and by its fingerprint.
    Key {
        /// Key id.
        id: [u8; 8],
        /// Fingerprint: 16, 20 or 32 octets.
        fingerprint: Vec<u8>,
    },
    /// A user id in lower case, found by its address and as a whole.
    UserId {
        /// The address in it, if there is one.
        email: Option<String>,
        /// The whole.
        text: String,
    },
    /// A word of a user id, in lower case.
    Word(String),
}

/// Entries for a verified certificate, sorted. Only what users are shown can be found, except the primary key itself.
pub fn entries(cert: &Cert, words_too: bool, veto: &Veto) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut push_key = |key: &Key<'_>| {
        entries.push(Entry::Key {
            id: key.key_id().0,
            fingerprint: key.fingerprint().as_bytes().to_vec(),
        });
    };
    push_key(&cert.key());
    let shown = || {
        cert.project(Projection::Served)
            .filter(|component| veto.leaves(component))
    };
    shown()
        .filter_map(|component| component.key())
        .for_each(|key| push_key(&key));
    for user_id in shown().filter(|component| component.tag == tag::USER_ID) {
        let text = String::from_utf8_lossy(&user_id.body).to_lowercase();
        if words_too {
            entries.extend(words(&text).map(|word| Entry::Word(word.to_owned())));
        }
        entries.push(Entry::UserId {
            email: email(&text).map(str::to_owned),
            text,
        });
    }
    entries.sort();
    entries.dedup();
    entries
}

/// The address of a user id: between its only pair of angle brackets, or the whole if that looks like one. A user id
/// in which two parts could be the address has none.
pub fn email(user_id: &str) -> Option<&str> {
    let candidate = match (user_id.matches('<').count(), user_id.matches('>').count()) {
        (0, 0) => user_id.trim(),
        (1, 1) => user_id.split_once('<')?.1.split_once('>')?.0.trim(),
        _ => return None,
    };
    let (local, domain) = candidate.rsplit_once('@')?;
    let sound =
        !local.is_empty() && !domain.is_empty() && !candidate.contains(|c: char| c.is_whitespace() || c.is_control());
    sound.then_some(candidate)
}

/// Words of a text: runs of letters and digits, of at least two characters.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.chars().nth(1).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_where_there_is_one() {
        assert_eq!(email("Alice <a@example.org>"), Some("a@example.org"));
        assert_eq!(email("a@example.org"), Some("a@example.org"));
        assert_eq!(email("Alice <a@b> <c@d>"), None);
        assert_eq!(email("Alice (a@b)"), None);
        assert_eq!(email("Alice >a@b<"), None);
        assert_eq!(email(""), None);
    }

    #[test]
    fn words_are_runs_of_letters_and_digits() {
        assert_eq!(
            words("jörg a. müller <j.m@example.org>").collect::<Vec<_>>(),
            ["jörg", "müller", "example", "org"]
        );
    }
}
