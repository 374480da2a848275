//! Parameters of a request: the query of a URI, or a body of type `application/x-www-form-urlencoded`.

use percent_encoding::percent_decode;
use std::borrow::Cow;

/// `name=value` pairs separated by `&`, percent-encoded, with `+` for a space. Nothing is decoded until it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a>(&'a [u8]);

/// A parameter that should be text is not valid UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a parameter is not valid UTF-8")]
pub struct NotText;

impl<'a> Query<'a> {
    /// Takes the part of a URI after `?`, or a form body. Anything is accepted.
    pub fn new(encoded: &'a [u8]) -> Self {
        Self(encoded)
    }

    /// The value of `name`, decoded; the first one if there are several. A name without `=` has an empty value.
    /// A `%` that no two hex digits follow stays as it is.
    pub fn octets(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        self.0.split(|&octet| octet == b'&').find_map(|pair| {
            let end = pair.iter().position(|&octet| octet == b'=').unwrap_or(pair.len());
            let value = pair.get(end + 1..).unwrap_or_default();
            (*decode(&pair[..end]) == *name.as_bytes()).then(|| decode(value))
        })
    }

    /// The same as text.
    pub fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, NotText> {
        match self.octets(name) {
            None => Ok(None),
            Some(Cow::Borrowed(octets)) => std::str::from_utf8(octets)
                .map(|text| Some(text.into()))
                .map_err(|_| NotText),
            Some(Cow::Owned(octets)) => String::from_utf8(octets)
                .map(|text| Some(text.into()))
                .map_err(|_| NotText),
        }
    }

    /// Whether a switch like `exact=on` is set: to anything but `off`, `0`, `false` or `no`.
    pub fn switch(&self, name: &str) -> bool {
        let off: [&[u8]; 5] = [b"off", b"0", b"false", b"no", b""];
        self.octets(name)
            .is_some_and(|value| !off.contains(&&*value.to_ascii_lowercase()))
    }

    /// Whether `name`, a list with commas like `options=mr,nm`, holds `item`.
    pub fn lists(&self, name: &str, item: &str) -> bool {
        self.octets(name).is_some_and(|value| lists(&value, item))
    }
}

/// Whether `list`, with commas like `mr,nm`, holds `item`.
pub(super) fn lists(list: &[u8], item: &str) -> bool {
    list.split(|&octet| octet == b',')
        .any(|found| found.trim_ascii().eq_ignore_ascii_case(item.as_bytes()))
}

fn decode(encoded: &[u8]) -> Cow<'_, [u8]> {
    if !encoded.contains(&b'+') {
        return percent_decode(encoded).into();
    }
    let spaced: Vec<u8> = encoded
        .iter()
        .map(|&octet| if octet == b'+' { b' ' } else { octet })
        .collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_the_first_wins() {
        let query = Query::new(b"op=get&search=A+b%20%3Ca%40b%2B%3E&search=no&exact&se%61rch2=%zz%4");
        assert_eq!(query.text("search"), Ok(Some("A b <a@b+>".into())));
        assert_eq!(query.text("op"), Ok(Some("get".into())));
        assert_eq!(query.text("exact"), Ok(Some("".into())));
        assert_eq!(query.text("search2"), Ok(Some("%zz%4".into())));
        assert_eq!(query.text("missing"), Ok(None));
        assert!(matches!(query.octets("op"), Some(Cow::Borrowed(_))));
    }

    #[test]
    fn text_must_be_utf_8() {
        let query = Query::new(b"a=%C3%A4&b=%E4&c=%00");
        assert_eq!(query.text("a"), Ok(Some("ä".into())));
        assert_eq!(query.text("b"), Err(NotText));
        assert_eq!(query.octets("b").as_deref(), Some(&[0xE4][..]));
        assert_eq!(query.text("c"), Ok(Some("\0".into())));
    }

    #[test]
    fn switches_and_lists() {
        let query = Query::new(b"exact=on&hash=off&options=mr%2CNM,+json&x");
        assert!(query.switch("exact") && !query.switch("hash") && !query.switch("x") && !query.switch("y"));
        assert!(query.lists("options", "mr") && query.lists("options", "nm") && query.lists("options", "json"));
        assert!(!query.lists("options", "m") && !query.lists("op", "get"));
    }
}
