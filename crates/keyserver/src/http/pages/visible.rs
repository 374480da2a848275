//! Text from outside that must not deceive: what has no shape of its own, ends lines or turns the direction of writing
//! is replaced by its name.

use maud::{Markup, html};
use std::fmt::Write;

/// Text in a page. Runs in its own direction, and characters that could deceive stand out as `U+202E`.
pub(super) fn text(text: &str) -> Markup {
    html! {
        bdi {
            @for part in Parts(text) {
                @match part {
                    Part::Plain(plain) => (plain),
                    Part::Deceptive(c) => span.odd title="a character that cannot be seen" { (name(c)) },
                }
            }
        }
    }
}

/// Octets that should be UTF-8, as [`text`]; what is not shows as `U+FFFD`.
pub(super) fn octets(octets: &[u8]) -> Markup {
    text(&String::from_utf8_lossy(octets))
}

/// The same where no markup is possible: titles and attributes.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for part in Parts(text) {
        match part {
            Part::Plain(plain) => out.push_str(plain),
            Part::Deceptive(c) => {
                let _ = write!(out, "[{}]", name(c));
            }
        }
    }
    out
}

enum Part<'a> {
    Plain(&'a str),
    Deceptive(char),
}

/// A text cut before and behind each deceptive character.
struct Parts<'a>(&'a str);

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let first = self.0.chars().next()?;
        if is_deceptive(first) {
            self.0 = &self.0[first.len_utf8()..];
            return Some(Part::Deceptive(first));
        }
        let (plain, rest) = self.0.split_at(self.0.find(is_deceptive).unwrap_or(self.0.len()));
        self.0 = rest;
        Some(Part::Plain(plain))
    }
}

/// Controls, line ends, invisible and direction-changing characters (Unicode's `Cc`, `Zl`, `Zp`, and of `Cf` and
/// the fillers those that serve no script; joiners, which some scripts and emoji need, are harmless).
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{AD}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{180E}' | '\u{200B}' | '\u{200E}' | '\u{200F}'
            | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{2800}' | '\u{3164}' | '\u{FEFF}' | '\u{FFA0}'
            | '\u{FFF0}'..='\u{FFFB}' | '\u{E0000}'..='\u{E0FFF}')
}

fn name(c: char) -> String {
    format!("U+{:04X}", u32::from(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn deceptive_characters_show() {
        assert_eq!(plain("a\u{202E}b\nc"), "a[U+202E]b[U+000A]c");
        assert_eq!(
            text("<b>\u{200B}ü").into_string(),
            "<bdi>&lt;b&gt;<span class=\"odd\" title=\"a character that cannot be seen\">U+200B</span>ü</bdi>"
        );
        assert_eq!(octets(b"J\xF6rg").into_string(), "<bdi>J\u{FFFD}rg</bdi>");
    }

    proptest! {
        #[test]
        fn nothing_deceptive_is_left(from: String) {
            prop_assert!(!plain(&from).contains(is_deceptive));
        }
    }
}
