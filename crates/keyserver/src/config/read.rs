//! Reading the configuration: file, then environment; every mistake is reported, each with its place.

use super::section::Section as _;
use super::show::variable;
use super::{Config, PARTNER, Partner};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

/// Why there is no configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// What is wrong in the file or in the environment; never empty.
    #[error("{}", lines(.0))]
    Problems(Vec<Problem>),
}

/// One mistake in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it is.
    pub place: Place,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Problem {
    /// A contradiction of values that came from nowhere in particular.
    pub(super) fn unset((section, key, message): (&str, String, String)) -> Self {
        Self {
            place: Place::Unset,
            message: format!("{section}.{key}: {message}"),
        }
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Line and column of the file, counted from 1; columns count characters.
    File {
        /// The file, if it has a name.
        path: Option<PathBuf>,
        /// Line.
        line: usize,
        /// Column.
        column: usize,
    },
    /// A variable of the environment.
    Variable(String),
    /// The value was not set anywhere.
    Unset,
}

impl Config {
    /// The defaults, overridden by the file at `path` (if any), overridden by `environment`.
    pub fn read(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut reader = Reader::default();
        if let Some(path) = path {
            let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
                path: path.into(),
                reason: error.to_string(),
            })?;
            reader.file(&text, Some(path));
        }
        reader.environment(environment);
        reader.finish()
    }

    /// Parses the text of a file; `path` is used for messages and for relative `{ file = … }` values.
    pub fn parse(text: &str, path: Option<&Path>) -> Result<Self, ConfigError> {
        let mut reader = Reader::default();
        reader.file(text, path);
        reader.finish()
    }
}

/// The configuration so far, where its values came from, and what is wrong with it.
#[derive(Default)]
struct Reader {
    config: Config,
    places: BTreeMap<(&'static str, String), Place>,
    problems: Vec<Problem>,
}

impl Reader {
    fn file(&mut self, text: &str, path: Option<&Path>) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let source = Source { text, path };
        for error in errors {
            let place = source.place(error.span().unwrap_or_default());
            self.problem(place, error.message().to_string());
        }
        if !self.problems.is_empty() {
            return;
        }
        for (name, value) in table.into_inner() {
            let place = source.place(name.span());
            let known = self.config.sections().map(|section| section.name());
            if name.get_ref() == PARTNER {
                self.partners(value.into_inner(), place, &source);
                continue;
            }
            let Some(section) = known.into_iter().find(|section| section == name.get_ref()) else {
                let message = format!(
                    "unknown section [{}]{}",
                    name.get_ref(),
                    suggestion(name.get_ref(), &known)
                );
                self.problem(place, message);
                continue;
            };
            match value.into_inner() {
                DeValue::Table(keys) => self.section(section, keys, &source),
                _ => self.problem(
                    place,
                    format!("{section} is a section: write its keys below a line [{section}]"),
                ),
            }
        }
    }

    fn section(&mut self, section: &'static str, keys: DeTable<'_>, source: &Source<'_>) {
        for (key, value) in keys {
            let place = source.place(value.span());
            let name = key.get_ref().as_ref();
            if !self.key_names(section).contains(&name) {
                let message = format!(
                    "unknown key \"{name}\" in [{section}]{}",
                    suggestion(name, &self.key_names(section))
                );
                self.problem(source.place(key.span()), message);
                continue;
            }
            self.places.insert((section, name.to_string()), place.clone());
            match value.get_ref() {
                DeValue::Table(table) => match file_reference(table, source) {
                    Some(path) => self.value_from_file(section, name, &path, place),
                    None => self.problem(
                        place,
                        format!("{section}.{name} takes a value or {{ file = \"path\" }}"),
                    ),
                },
                _ => self.value(section, name, value, place, |span| source.place(span)),
            }
        }
    }

    /// Takes the tables of all partners.
    fn partners(&mut self, value: DeValue<'_>, place: Place, source: &Source<'_>) {
        let DeValue::Array(tables) = value else {
            return self.problem(place, format!("write each {PARTNER} below a line [[{PARTNER}]]"));
        };
        for table in tables {
            let place = source.place(table.span());
            match table.into_inner() {
                DeValue::Table(keys) => self.partner(keys, place, source),
                _ => self.problem(place, format!("write each {PARTNER} below a line [[{PARTNER}]]")),
            }
        }
    }

    fn partner(&mut self, keys: DeTable<'_>, place: Place, source: &Source<'_>) {
        let mut partner = Partner::default();
        let known: Vec<_> = partner.keys().iter().map(|key| key.name).collect();
        let index = self.config.partners.len();
        // What is missing is shown where the table begins.
        for key in &known {
            self.places.insert((PARTNER, format!("{index}.{key}")), place.clone());
        }
        for (key, value) in keys {
            let (name, place) = (key.get_ref().as_ref(), source.place(value.span()));
            self.places.insert((PARTNER, format!("{index}.{name}")), place.clone());
            match partner.set(name, ValueDeserializer::from(value)) {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    let place = error.span().map_or(place, |span| source.place(span));
                    self.problem(place, format!("{PARTNER}.{name}: {}", error.message().trim()));
                }
                None => {
                    let message = format!("unknown key \"{name}\" in [[{PARTNER}]]{}", suggestion(name, &known));
                    self.problem(source.place(key.span()), message);
                }
            }
        }
        self.config.partners.push(partner);
    }

    fn environment(&mut self, environment: impl IntoIterator<Item = (String, String)>) {
        let variables: BTreeMap<String, (&'static str, &'static str)> = self
            .config
            .sections()
            .iter()
            .flat_map(|section| {
                section
                    .keys()
                    .into_iter()
                    .map(|key| (variable(*section, key.name), (section.name(), key.name)))
            })
            .collect();
        let mut found: Vec<_> = environment
            .into_iter()
            .filter(|(name, _)| name.starts_with("KEYRINK_"))
            .collect();
        found.sort();
        for (name, text) in found {
            let place = Place::Variable(name.clone());
            let from_file = name.strip_suffix("_FILE").and_then(|name| variables.get(name));
            if let Some(&(section, key)) = variables.get(&name) {
                self.value_from_text(section, key, &text, place);
            } else if let Some(&(section, key)) = from_file {
                self.value_from_file(section, key, Path::new(&text), place);
            } else if let Some(meant) = nearest(&name, variables.keys().map(String::as_str)) {
                // Others may use our prefix for purposes of their own, so only what looks like a slip is one.
                self.problem(place, format!("no such key; did you mean \"{meant}\"?"));
            }
        }
    }

    fn value_from_file(&mut self, section: &'static str, key: &str, path: &Path, place: Place) {
        match std::fs::read_to_string(path) {
            Ok(text) => self.value_from_text(section, key, text.trim_end_matches(['\n', '\r']), place),
            Err(error) => self.problem(
                place,
                format!("cannot read {} for {section}.{key}: {error}", path.display()),
            ),
        }
    }

    /// Takes a value written without TOML's quotes: what it means follows from what the key holds by default.
    fn value_from_text(&mut self, section: &'static str, key: &str, text: &str, place: Place) {
        let plain = |text: &str| toml::Value::String(text.into());
        let literal = match self.sample_value(section, key) {
            None | Some(toml::Value::String(_)) => plain(text).to_string(),
            Some(toml::Value::Array(_)) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                toml::Value::Array(items.map(plain).collect()).to_string()
            }
            Some(_) => text.trim().to_string(),
        };
        self.places.insert((section, key.to_string()), place.clone());
        match DeValue::parse(&literal) {
            Ok(value) => self.value(section, key, value, place.clone(), |_| place.clone()),
            Err(error) => self.problem(place, error.message().to_string()),
        }
    }

    /// Sets a key that is known to exist; `locate` finds the place of a part of the value.
    fn value(
        &mut self,
        section: &'static str,
        key: &str,
        value: Spanned<DeValue<'_>>,
        place: Place,
        locate: impl Fn(Range<usize>) -> Place,
    ) {
        let right = self.right_value(section, key);
        let Some(target) = self
            .config
            .sections_mut()
            .into_iter()
            .find(|target| target.name() == section)
        else {
            return;
        };
        if let Some(Err(error)) = target.set(key, ValueDeserializer::from(value)) {
            let place = error.span().map_or(place, locate);
            self.problem(place, format!("{section}.{key}: {}; {right}", error.message().trim()));
        }
    }

    fn finish(mut self) -> Result<Config, ConfigError> {
        if self.problems.is_empty() {
            for (section, key, message) in self.config.contradictions() {
                let place = self
                    .places
                    .get(&(section, key.clone()))
                    .cloned()
                    .unwrap_or(Place::Unset);
                let key = key.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
                self.problem(place, format!("{section}.{key}: {message}"));
            }
        }
        self.problems.sort_by(|left, right| left.place.cmp(&right.place));
        if self.problems.is_empty() {
            Ok(self.config)
        } else {
            Err(ConfigError::Problems(self.problems))
        }
    }

    fn problem(&mut self, place: Place, message: String) {
        self.problems.push(Problem { place, message });
    }

    fn key_names(&self, section: &str) -> Vec<&'static str> {
        let sections = self.config.sections();
        let keys = sections
            .iter()
            .find(|found| found.name() == section)
            .map(|found| found.keys());
        keys.unwrap_or_default().iter().map(|key| key.name).collect()
    }

    /// A value of the type that a key takes: its default or its example.
    fn sample_value(&self, section: &str, key: &str) -> Option<toml::Value> {
        let key = default_key(section, key)?;
        key.value.or_else(|| key.example?.parse().ok())
    }

    /// What a right value looks like: the default or an example.
    fn right_value(&self, section: &str, key: &str) -> String {
        match default_key(section, key) {
            Some(super::section::Key { value: Some(value), .. }) => format!("right would be: {key} = {value}"),
            Some(super::section::Key {
                example: Some(example), ..
            }) => format!("right would be: {key} = {example}"),
            _ => format!("see `keyrink config show` for {section}.{key}"),
        }
    }
}

/// A key with its default.
fn default_key(section: &str, key: &str) -> Option<super::section::Key> {
    let defaults = Config::default();
    let found = defaults.sections().into_iter().find(|found| found.name() == section)?;
    found.keys().into_iter().find(|found| found.name == key)
}

/// The path in `{ file = "path" }`, relative to the folder of the configuration file.
fn file_reference(table: &DeTable<'_>, source: &Source<'_>) -> Option<PathBuf> {
    let mut entries = table.iter();
    let (name, value) = entries.next()?;
    let path = value.get_ref().as_str()?;
    if name.get_ref() != "file" || entries.next().is_some() {
        return None;
    }
    let folder = source.path.and_then(Path::parent).unwrap_or(Path::new(""));
    Some(folder.join(path))
}

/// The text of a file, to turn octet offsets into places.
struct Source<'a> {
    text: &'a str,
    path: Option<&'a Path>,
}

impl Source<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::File {
            path: self.path.map(Path::to_path_buf),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File {
                path: Some(path),
                line,
                column,
            } => write!(out, "{}:{line}:{column}: ", path.display())?,
            Place::File {
                path: None,
                line,
                column,
            } => write!(out, "line {line}, column {column}: ")?,
            Place::Variable(name) => write!(out, "environment variable {name}: ")?,
            Place::Unset => {}
        }
        out.write_str(&self.message)
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// Names what was probably meant, or all there is.
fn suggestion(wrong: &str, known: &[&str]) -> String {
    match nearest(wrong, known.iter().copied()) {
        Some(meant) => format!("; did you mean \"{meant}\"?"),
        None => format!("; known are {}", known.join(", ")),
    }
}

/// The known name that differs from a wrong one by a slip.
fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, name) = known.map(|name| (distance(wrong, name), name)).min()?;
    (distance <= SLIP_MAX).then_some(name)
}

/// Letters that are wrong, missing or too many in a slip.
const SLIP_MAX: usize = 2;

/// Levenshtein's distance of two short names, in characters.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> Vec<String> {
        match Config::parse(text, None) {
            Err(ConfigError::Problems(problems)) => problems.iter().map(Problem::to_string).collect(),
            other => panic!("expected problems, not {other:?}"),
        }
    }

    fn environment(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::read(
            None,
            variables
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string())),
        )
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        let found = messages("[http]\nlissten = []\nbody_octets = \"8M\"\n\n[stroe]\n[log]\n  format = \"xml\"\n");
        assert_eq!(
            found,
            [
                "line 2, column 1: unknown key \"lissten\" in [http]; did you mean \"listen\"?",
                "line 3, column 15: http.body_octets: invalid type: string \"8M\", expected a nonzero u64; \
                 right would be: body_octets = 16777216",
                "line 5, column 2: unknown section [stroe]; did you mean \"store\"?",
                "line 7, column 12: log.format: unknown variant `xml`, expected `text` or `json`; \
                 right would be: format = \"text\"",
            ]
        );
    }

    #[test]
    fn a_bad_item_of_a_list_is_found() {
        let found = messages("[http]\nlisten = [\"127.0.0.1:80\",\n  \"localhost\"]");
        assert!(
            found[0].starts_with("line 3, column 3: http.listen: invalid socket address syntax"),
            "{found:?}"
        );
    }

    #[test]
    fn broken_syntax_is_found() {
        let found = messages("[http]\nlisten = [\n");
        assert!(found[0].starts_with("line "), "{found:?}");
    }

    #[test]
    fn contradictions_are_found() {
        let found = messages("[http]\nlisten_tls = [\"[::]:443\"]");
        assert_eq!(
            found,
            ["line 2, column 14: http.listen_tls: HTTPS needs `certificate` and `key` too"]
        );
        let found = messages("[http]\ncertificate = \"a\"");
        assert_eq!(
            found,
            ["http.key: `certificate` and `key` belong together: set both or none"]
        );
        let found = messages("[[partner]]\nrecon = \"a:1\"\ndataset = \"hockeypuck\"");
        assert!(
            found[0].ends_with("dataset: \"hockeypuck\" is not among the `datasets` of [peers]"),
            "{found:?}"
        );
        assert!(
            messages("[peers]\ndatasets = [\"x\"]")[0].contains("unknown dataset \"x\"; known are sks, hockeypuck")
        );
        let found = messages("[[partner]]\nrecon = \"a:1\"\npause_seconds = 1e19");
        assert!(
            found[0].contains("pause_seconds: write a number from 0 to 3600"),
            "{found:?}"
        );
    }

    #[test]
    fn the_environment_wins() {
        let config = environment(&[
            ("KEYRINK_HTTP_LISTEN", "127.0.0.1:1, [::1]:2"),
            ("KEYRINK_HTTP_THREADS", "3"),
            ("KEYRINK_HTTP_CONTACT", "true"),
            ("KEYRINK_LOG_FORMAT", "json"),
            ("KEYRINK_SEARCH_WORDS", "true"),
            ("KEYRINK_HTTP_PORT", "of somebody else"),
            ("PATH", "/bin"),
        ])
        .unwrap();
        assert_eq!(
            config.http.listen,
            ["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()]
        );
        assert_eq!((config.http.threads, config.http.contact.as_deref()), (3, Some("true")));
        assert!(config.search.words);
    }

    #[test]
    fn mistakes_in_the_environment_are_named() {
        let problems = environment(&[("KEYRINK_HTTP_LISTN", "x"), ("KEYRINK_HTTP_THREADS", "many")])
            .unwrap_err()
            .to_string();
        let lines: Vec<_> = problems.lines().collect();
        assert_eq!(
            lines[0],
            "environment variable KEYRINK_HTTP_LISTN: no such key; did you mean \"KEYRINK_HTTP_LISTEN\"?"
        );
        assert!(
            lines[1].starts_with("environment variable KEYRINK_HTTP_THREADS: "),
            "{problems}"
        );
    }

    #[test]
    fn secrets_come_from_files() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("contact"), "somebody\n").unwrap();
        let file = folder.path().join("keyrink.toml");
        std::fs::write(
            &file,
            "[http]\ncontact = { file = \"contact\" }\nhostname = { file = \"missing\" }",
        )
        .unwrap();
        let problems = Config::read(Some(&file), []).unwrap_err().to_string();
        assert!(problems.contains("keyrink.toml:3:12: cannot read"), "{problems}");
        std::fs::write(&file, "[http]\ncontact = { file = \"contact\" }").unwrap();
        assert_eq!(
            Config::read(Some(&file), []).unwrap().http.contact.as_deref(),
            Some("somebody")
        );
        let path = folder.path().join("contact").display().to_string();
        assert_eq!(
            environment(&[("KEYRINK_HTTP_HOSTNAME_FILE", &path)])
                .unwrap()
                .http
                .hostname,
            "somebody"
        );
    }
}
