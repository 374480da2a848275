//! The configuration as text: the commented file of `keyrink config show` and the reference in `docs/`.

use super::section::{Key, Section};
use super::{Config, PARTNER, Partner};
use std::fmt::Write;

impl Config {
    /// The complete file: every key with its documentation and its present value. Parses to this configuration.
    pub fn show(&self) -> String {
        let mut text =
            String::from("# Configuration of Keyrink. Every key is here; those left out have these values.\n");
        for section in self.sections() {
            text.push('\n');
            comment(&mut text, section.about());
            let _ = writeln!(text, "[{}]", section.name());
            keys(&mut text, section, "");
        }
        text.push('\n');
        comment(&mut text, Partner::default().about());
        for partner in &self.partners {
            let _ = writeln!(text, "[[{PARTNER}]]");
            keys(&mut text, partner, "");
        }
        if self.partners.is_empty() {
            let _ = writeln!(text, "# [[{PARTNER}]]");
            keys(&mut text, &Partner::default(), "# ");
        }
        text
    }

    /// The reference page `docs/configuration.md`, generated from the defaults.
    pub fn reference() -> String {
        let mut page = String::from(REFERENCE_HEAD);
        for section in Config::default().sections() {
            let _ = writeln!(page, "\n## `[{}]`\n", section.name());
            paragraph(&mut page, section.about());
            for key in section.keys() {
                describe(&mut page, &key);
                let _ = writeln!(page, " · Environment: `{}`", variable(section, key.name));
            }
        }
        let _ = writeln!(page, "\n## `[[{PARTNER}]]`\n");
        paragraph(&mut page, Partner::default().about());
        for key in Partner::default().keys() {
            describe(&mut page, &key);
            page.push('\n');
        }
        page
    }
}

/// The keys of a table with their documentation and values, each line behind `mark`.
fn keys(text: &mut String, section: &dyn Section, mark: &str) {
    for key in section.keys() {
        comment(text, key.about);
        let shown = key
            .value
            .as_ref()
            .map(|value| match value.as_str().map(without_password) {
                Some((url, true)) if key.name == DATABASE => {
                    comment(text, &[" Its password is not shown here."]);
                    url.into()
                }
                _ => value.clone(),
            });
        let _ = match shown {
            Some(value) => writeln!(text, "{mark}{} = {value}", key.name),
            None => writeln!(text, "# {} = {}", key.name, example(&key)),
        };
    }
}

/// The key whose value may hold a password.
const DATABASE: &str = "database";

/// A URL of a database without the password in it; whether there was one.
fn without_password(url: &str) -> (String, bool) {
    let (base, query) = url
        .split_once('?')
        .map_or((url, None), |(base, query)| (base, Some(query)));
    let (scheme, rest) = base.split_once("://").unwrap_or(("", base));
    // A password may hold anything that is not at its end.
    let shown = match rest.rsplit_once('@') {
        Some((user, host)) => format!(
            "{scheme}://{}@{host}",
            user.split_once(':').map_or(user, |(user, _)| user)
        ),
        None => base.to_owned(),
    };
    let others = query.map(|query| {
        let others = query.split('&').filter(|pair| !pair.starts_with("password="));
        others.collect::<Vec<_>>().join("&")
    });
    let shown = match others.filter(|others| !others.is_empty()) {
        Some(others) => format!("{shown}?{others}"),
        None => shown,
    };
    let hidden = shown.len() < url.trim_end_matches('?').len();
    (shown, hidden)
}

fn describe(page: &mut String, key: &Key) {
    let _ = writeln!(page, "\n### `{}`\n", key.name);
    paragraph(page, key.about);
    let _ = match &key.value {
        Some(value) => write!(page, "\nDefault: `{value}`"),
        None => write!(page, "\nUnset by default. Example: `{}`", example(key)),
    };
}

/// The environment variable that sets a key.
pub(super) fn variable(section: &dyn Section, key: &str) -> String {
    format!("KEYRINK_{}_{}", section.name(), key).to_uppercase()
}

/// What could be written for a key that is unset.
fn example(key: &Key) -> &'static str {
    key.example.unwrap_or("\"\"")
}

fn comment(text: &mut String, lines: &[&str]) {
    for line in lines {
        let _ = writeln!(text, "#{line}");
    }
}

fn paragraph(page: &mut String, lines: &[&str]) {
    for line in lines {
        let _ = writeln!(page, "{}", line.trim());
    }
}

const REFERENCE_HEAD: &str = "# Configuration

Generated from the program's own documentation; `keyrink config show` prints the same as a file to start from.

`keyrink serve --config FILE` reads a TOML file. Every key has a default, so the file needs only what differs.
`keyrink config check FILE` names every unknown key and every bad value with its line and column.

Every key can be set in the environment too, which wins over the file: write lists with commas
(`KEYRINK_HTTP_LISTEN=127.0.0.1:11371,[::1]:11371`). With `_FILE` at its end, the variable names a file that holds the
value, for secrets. In the TOML file, `{ file = \"path\" }` in place of a value does the same.
Options of the command line win over both.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shown_file_parses_to_the_defaults() {
        let shown = Config::default().show();
        assert_eq!(Config::parse(&shown, None), Ok(Config::default()));
    }

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            (
                "postgres://keyrink:se:cr@et@db/keyrink?sslmode=disable",
                "postgres://keyrink@db/keyrink?sslmode=disable",
            ),
            (
                "postgres://keyrink@db/keyrink?password=secret",
                "postgres://keyrink@db/keyrink",
            ),
            (
                "postgres://keyrink@db/keyrink?a=b&password=secret&host=/run",
                "postgres://keyrink@db/keyrink?a=b&host=/run",
            ),
            ("postgres:///keyrink?user=keyrink", "postgres:///keyrink?user=keyrink"),
        ] {
            let mut config = Config::default();
            config.store.database = Some(url.to_owned());
            let text = config.show();
            assert!(text.contains(&format!("\ndatabase = \"{shown}\"\n")), "{text}");
            assert_eq!(text.contains("password is not shown"), url.contains("cr"), "{url}");
        }
    }

    #[test]
    fn the_shown_examples_are_valid_too() {
        let shown = Config::default().show();
        let uncommented: String = shown
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(key) if key.contains(" = \"/") || key.contains(" = \"operator") => format!("{key}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let config = Config::parse(&uncommented, None).unwrap();
        assert!(config.http.certificate.is_some() && config.http.key.is_some() && config.http.contact.is_some());
    }

    #[test]
    fn the_reference_page_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let page = Config::reference();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            page,
            "run this test with UPDATE_DOCS=1"
        );
    }
}
