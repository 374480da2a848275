//! Rust source as the house rules see it: code without comments and texts, production without tests, functions.
//!
//! Not a parser. It knows comments, string and character literals and braces, which is enough for rules that count.

/// `text` with comments, strings and characters blanked out; line ends stay, so line numbers do too.
pub fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let skipped = not_code(rest);
        let length = skipped.unwrap_or_else(|| word_length(rest));
        let (piece, behind) = rest.split_at(length);
        match skipped {
            Some(_) => out.extend(piece.chars().map(|c| if c == '\n' { c } else { ' ' })),
            None => out.push_str(piece),
        }
        rest = behind;
    }
    out
}

/// The part of a file before its inline tests, which come last.
pub fn production(text: &str) -> &str {
    let marks = text.match_indices("#[cfg(test)]\nmod ");
    let tests = marks.map(|(at, _)| at).find(|at| is_inline(&text[*at..]));
    tests.map_or(text, |at| &text[..at])
}

/// Names of modules in files of their own that only tests have.
pub fn test_modules(text: &str) -> Vec<&str> {
    let marks = text.split("#[cfg(test)]\n").skip(1);
    marks
        .filter_map(|behind| behind.lines().next()?.split_once("mod ")?.1.strip_suffix(';'))
        .collect()
}

/// Every function that has a body: its name and its lines from `fn` to the closing brace. Takes what [`code`] gave.
pub fn functions(code: &str) -> Vec<(&str, usize)> {
    words(code, "fn")
        .filter_map(|at| {
            let head = &code[at + 2..];
            let name = head.split(|c: char| !is_word(c)).find(|word| !word.is_empty())?;
            let open = head.find(['{', ';']).filter(|open| head[*open..].starts_with('{'))?;
            Some((name, head[..block_end(head, open)].lines().count()))
        })
        .collect()
}

/// Places where `word` stands with no letter, digit or underscore beside it.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let free = |found: Option<char>| !found.is_some_and(is_word);
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| free(code[..*at].chars().next_back()) && free(code[at + word.len()..].chars().next()))
}

/// Is any path named that starts with `path` (`std::fs`)? `use std::{fs, io}` names both.
pub fn names_path(code: &str, path: &str) -> bool {
    let grouped = || {
        let (root, item) = path.rsplit_once("::")?;
        let mut groups = code.match_indices(root).filter_map(|(at, _)| {
            let group = code[at + root.len()..].strip_prefix("::{")?;
            Some(&group[..block_end(code, at + root.len() + 2) - (at + root.len() + 3)])
        });
        Some(groups.any(|group| words(group, item).next().is_some()))
    };
    words(code, path).next().is_some() || grouped().unwrap_or(false)
}

/// Where the block that opens at `open` ends: behind its closing brace.
fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (at, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return open + at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

fn is_inline(text: &str) -> bool {
    text.lines().nth(1).is_some_and(|line| line.ends_with('{'))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Octets up to where something else than this word, or this one character, begins.
fn word_length(text: &str) -> usize {
    let first = text.chars().next().map_or(0, char::len_utf8);
    text.find(|c| !is_word(c)).unwrap_or(text.len()).max(first)
}

/// Octets of the comment, string or character that `text` begins with.
fn not_code(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(text.find("*/").map_or(text.len(), |end| end + 2));
    }
    let prefix = ["br", "b", "c", "r"].into_iter().find(|prefix| {
        let behind = text.strip_prefix(prefix);
        behind.is_some_and(|behind| behind.starts_with(['"', '#', '\'']))
    });
    let start = prefix.map_or(0, str::len);
    let body = &text[start..];
    let raw = prefix.is_some_and(|prefix| prefix.ends_with('r'));
    let hashes = body.len() - body.trim_start_matches('#').len();
    if raw && body[hashes..].starts_with('"') {
        let end = format!("\"{}", &body[..hashes]);
        let inside = &body[hashes + 1..];
        let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
        return Some(start + hashes + 1 + length);
    }
    match body.chars().next()? {
        '"' => Some(start + escaped_end(body, '"')),
        // A lifetime has no second quote.
        '\'' if body[1..].starts_with('\\') || body.chars().nth(2) == Some('\'') => {
            Some(start + escaped_end(body, '\''))
        }
        _ => None,
    }
}

fn escaped_end(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[test]
fn comments_and_texts_are_no_code() {
    let text =
        "a(); // panic!()\nb(\"x.unwrap() \\\" panic!\", 'q', '\\'', r#\"todo!(\"\"#); /* dbg!\n */ c::<'a>('{')";
    let code = code(text);
    assert_eq!(code.lines().count(), text.lines().count());
    for hidden in ["panic", "unwrap", "todo", "dbg", "q", "{"] {
        assert!(!code.contains(hidden), "{hidden} in {code}");
    }
    assert!(code.contains("c::<'a>("), "{code}");
}

#[test]
fn tests_are_no_production() {
    assert_eq!(production("a\n#[cfg(test)]\nmod tests {\n}\n"), "a\n");
    let apart = "a\n#[cfg(test)]\nmod tests;\nb\n";
    assert_eq!((production(apart), test_modules(apart)), (apart, vec!["tests"]));
}

#[test]
fn functions_are_measured() {
    let text = "fn a() {\n    if b {\n    }\n}\ntrait T {\n    fn c();\n    fn d(\n        e: F,\n    ) {\n    }\n}\n";
    assert_eq!(functions(text), [("a", 4), ("d", 4)]);
}

#[test]
fn paths_are_found_in_groups() {
    assert!(names_path("std::fs::read(x)", "std::fs"));
    assert!(names_path("use std::{fmt, fs::File};", "std::fs"));
    assert!(!names_path("use std::{fmt, io}; mystd::fs(x); std::fsx", "std::fs"));
}
