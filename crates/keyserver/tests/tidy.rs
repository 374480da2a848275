//! The house rules that can be counted, and the arrows between crates (`CONTRIBUTING.md`, `ARCHITECTURE.md`).
//!
//! Each rule is a function from a text to what is wrong with it, tried here on something wrong first.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "a module of this test only")]

#[path = "tidy/source.rs"]
mod source;

use source::{code, functions, names_path, production, test_modules, words};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 1000;
const FUNCTION_LINES_MAX: usize = 70;

/// Crates on the left may name nothing on the right.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "crates/openpgp",
        &[
            "keyrink_store",
            "keyrink_recon",
            "keyrink",
            "std::fs",
            "std::net",
            "std::env",
            "std::process",
            "tokio",
        ],
    ),
    (
        "crates/store",
        &[
            "keyrink_openpgp",
            "keyrink_recon",
            "keyrink",
            "std::net",
            "std::env",
            "std::process",
        ],
    ),
    (
        "crates/recon",
        &[
            "keyrink_openpgp",
            "keyrink_store",
            "keyrink",
            "std::fs",
            "std::net",
            "std::env",
            "std::process",
            "std::io",
            "std::thread",
            "Instant",
            "SystemTime",
            "tokio",
        ],
    ),
];

/// Libraries with a place of their own. Without a line here a library may be named in one module of each crate.
const PLACES: &[(&str, &[&str])] = &[
    ("rusqlite", &["crates/store/src/sqlite"]),
    (
        "aws_lc_rs",
        &[
            "crates/openpgp/src/crypto",
            "crates/keyserver/src/http/tls",
            "crates/keyserver/src/client",
        ],
    ),
    ("aws_lc_sys", &["crates/openpgp/src/crypto/aws_lc"]),
    (
        "rustls",
        &[
            "crates/keyserver/src/http",
            "crates/keyserver/src/client",
            "crates/store/src/postgres",
        ],
    ),
    // Outside of the program only the engine that hides a runtime of its own has anything asynchronous.
    ("tokio", &["crates/keyserver/src", "crates/store/src/postgres"]),
    ("futures_util", &["crates/keyserver/src", "crates/store/src/postgres"]),
    (
        "axum",
        &[
            "crates/keyserver/src/http",
            "crates/keyserver/src/serve",
            "crates/keyserver/src/metrics",
        ],
    ),
    ("hyper", &["crates/keyserver/src/http"]),
    ("hyper_util", &["crates/keyserver/src/http"]),
    ("maud", &["crates/keyserver/src/http/pages"]),
    ("ureq", &["crates/keyserver/src/client"]),
];

/// Libraries that are words of the language here: they may be named anywhere in their crates.
const VOCABULARY: &[&str] = &[
    "bytes",
    "clap",
    "keyrink_openpgp",
    "keyrink_recon",
    "keyrink_store",
    "metrics",
    "metrics_exporter_prometheus",
    "percent_encoding",
    "serde",
    "serde_json",
    "thiserror",
    "tracing",
];

struct File {
    /// From the root of the workspace.
    path: String,
    text: String,
    /// Its code, if it is part of what is shipped, without tests.
    shipped: Option<String>,
}

#[test]
fn every_source_file_is_in_order() {
    let files = sources();
    assert!(files.len() > 100, "where are the sources? {}", files.len());
    let mut faults = Vec::new();
    for file in &files {
        let mut found = untidy(&file.text);
        found.extend(file.shipped.iter().flat_map(|code| unsafe_to_ship(code)));
        faults.extend(found.into_iter().map(|fault| format!("{}: {fault}", file.path)));
    }
    none(faults);
}

#[test]
fn crates_do_not_know_what_is_above_them() {
    let (files, mut faults) = (sources(), Vec::new());
    for (folder, forbidden) in ARROWS {
        let Ok(manifest) = fs::read_to_string(root().join(folder).join("Cargo.toml")) else {
            assert!(*folder == "crates/recon", "{folder} is gone");
            continue;
        };
        faults.extend(forbidden_names(folder, &dependencies(&manifest).join(" "), forbidden));
        for (path, code) in shipped_below(&files, folder) {
            faults.extend(forbidden_names(path, code, forbidden));
        }
    }
    none(faults);
}

#[test]
fn each_library_has_one_place() {
    let (files, mut faults) = (sources(), Vec::new());
    for folder in ["crates/openpgp", "crates/store", "crates/keyserver", "crates/recon"] {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap_or_default();
        for library in dependencies(&manifest) {
            let path_of_it = |code: &str| words(code, &library).any(|at| code[at + library.len()..].starts_with("::"));
            let naming = shipped_below(&files, folder).filter(|(_, code)| path_of_it(code));
            faults.extend(scattered(&library, naming.map(|(path, _)| path).collect()));
        }
    }
    none(faults);
}

#[test]
fn the_map_is_right() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let all: BTreeSet<String> = tracked().into_iter().collect();
    none(wrong_paths(&text, &all));
}

/// Whoever copies such a line must not switch the second generation off by it.
#[test]
fn documented_datasets_hold_the_second_generation() {
    let (mut faults, mut count) = (Vec::new(), 0);
    for path in tracked().iter().filter(|path| path.ends_with(".md")) {
        let text = fs::read_to_string(root().join(path)).unwrap();
        for written in text.split("datasets =").skip(1) {
            let Some((list, _)) = written
                .trim_start()
                .strip_prefix('[')
                .and_then(|rest| rest.split_once(']'))
            else {
                continue;
            };
            count += 1;
            let holds = list.contains("\"openpgp/2\"");
            faults.extend((!holds).then(|| format!("{path}: datasets = [{list}]")));
        }
    }
    assert!(count > 0);
    none(faults);
}

#[test]
fn the_readme_has_its_two_commands() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    for command in ["cargo run --release -- serve ", "scripts/test"] {
        assert!(
            text.lines().any(|line| line.trim_start().starts_with(command)),
            "{command}"
        );
    }
    assert!(root().join("scripts/test").exists());
    // Without it `cargo run` asks which program is meant.
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(workspace.contains("default-members = [\"crates/keyserver\"]"));
}

#[test]
fn nothing_is_left_over() {
    let marks = ["TO DO", "FIX ME", "XX X", "/wo rk/", ".. /shared", "/tmp/ wt"].map(|mark| mark.replace(' ', ""));
    let mut faults = Vec::new();
    for path in tracked().iter().filter(|path| !path.starts_with("testdata/")) {
        let Ok(text) = fs::read_to_string(root().join(path)) else {
            continue;
        };
        faults.extend(marked(path, &text, &marks));
    }
    none(faults);
    assert_eq!(marked("x", "a\nb mark\n", &["mark".to_owned()]).len(), 1);
}

#[test]
fn the_rules_refuse_what_is_wrong() {
    let long_function = format!("//! Idea.\nfn f() {{\n{}}}\n", "    a();\n".repeat(70));
    assert_eq!(untidy(&long_function), ["f has 72 lines"]);
    assert_eq!(untidy(&format!("//! Idea.\n{}", "a\n".repeat(1000))), ["1001 lines"]);
    assert_eq!(untidy("// Idea.\n"), ["no head (//!) that tells its idea"]);
    assert_eq!(
        untidy("//! Idea.\n#[cfg(test)]\nmod tests {\n}\nfn f() {}\n"),
        ["something stands behind the tests"]
    );
    assert_eq!(
        unsafe_to_ship("x.unwrap(); panic!(); todo!(); unimplemented!(); dbg!(x)").len(),
        5
    );
    assert!(unsafe_to_ship("x.unwrap_or(y); x.expect(z)").is_empty());

    let manifest = "[dependencies]\nkeyrink-store.workspace = true\n[dev-dependencies]\nother = \"1\"\n";
    assert_eq!(dependencies(manifest), ["keyrink_store"]);
    assert_eq!(forbidden_names("x", "keyrink_store", ARROWS[0].1).len(), 1);
    assert_eq!(
        forbidden_names("x", "use std::{fmt, fs}; Instant::now()", ARROWS[2].1).len(),
        2
    );

    let two = vec!["crates/a/src/one.rs", "crates/a/src/two/three.rs"];
    assert_eq!(scattered("library", two.clone()).len(), 1);
    assert_eq!(scattered("rusqlite", two).len(), 2);
    assert!(scattered("library", vec!["crates/a/src/one.rs", "crates/a/src/one/two.rs"]).is_empty());

    let all = BTreeSet::from(["crates/a/src/b.rs".to_owned()]);
    assert_eq!(wrong_paths("see `gone.rs`, `crates/gone` and `a/b`", &all).len(), 3);
    assert!(wrong_paths("see `b.rs`, `crates/a` and `/pks/add`, `op=get`", &all).is_empty());
}

/// What is wrong with a file, wherever it stands.
fn untidy(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let shipped = production(text);
    let lines = shipped.lines().count();
    if lines > FILE_LINES_MAX {
        faults.push(format!("{lines} lines"));
    }
    if !text.starts_with("//!") && !text.starts_with("#![no_main]") {
        faults.push("no head (//!) that tells its idea".to_owned());
    }
    let tests = &text[shipped.len()..];
    if tests.find("\n}\n").is_some_and(|end| end + 3 < tests.len()) {
        faults.push("something stands behind the tests".to_owned());
    }
    let code = code(text);
    let long = functions(&code)
        .into_iter()
        .filter(|(_, lines)| *lines > FUNCTION_LINES_MAX);
    faults.extend(long.map(|(name, lines)| format!("{name} has {lines} lines")));
    faults
}

/// What production code must not do.
fn unsafe_to_ship(code: &str) -> Vec<String> {
    let forbidden = [".unwrap()", "panic!", "todo!", "unimplemented!", "dbg!"];
    let found = forbidden.into_iter().filter(|word| code.contains(word));
    found.map(|word| format!("{word} in production")).collect()
}

fn forbidden_names(place: &str, code: &str, forbidden: &[&str]) -> Vec<String> {
    let named = forbidden.iter().filter(|path| names_path(code, path));
    named.map(|path| format!("{place} names {path}")).collect()
}

/// Is a library named in more modules than it may be?
fn scattered(library: &str, files: Vec<&str>) -> Vec<String> {
    if VOCABULARY.contains(&library) {
        return Vec::new();
    }
    if let Some((_, places)) = PLACES.iter().find(|(name, _)| *name == library) {
        let places = places.iter().map(|place| (*place).to_owned()).collect();
        let outside = files.into_iter().filter(|path| !is_below(path, &places));
        return outside.map(|path| format!("{path} names {library}")).collect();
    }
    let modules: BTreeSet<String> = files.iter().map(|path| module(path)).collect();
    let many = modules.len() > 1;
    many.then(|| format!("{library} is named in {modules:?}"))
        .into_iter()
        .collect()
}

/// The module right below its crate that a file belongs to: `crates/a/src/b` for `crates/a/src/b/c.rs`.
fn module(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').take(4).collect();
    parts.join("/").trim_end_matches(".rs").to_owned()
}

/// Is a file one of these modules, or in the folder of one?
fn is_below(path: &str, modules: &BTreeSet<String>) -> bool {
    let path = path.trim_end_matches(".rs");
    modules.iter().any(|module| {
        path.strip_prefix(module.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// The modules that are compiled for tests only.
fn test_files(files: &[File]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in files {
        let stem = file.path.trim_end_matches(".rs");
        let folder = stem.trim_end_matches("/lib").trim_end_matches("/main");
        found.extend(
            test_modules(&file.text)
                .into_iter()
                .map(|name| format!("{folder}/{name}")),
        );
    }
    found
}

/// Names of the libraries that a manifest links into what is shipped, as code writes them.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut linked = false;
    let mut names = Vec::new();
    for line in manifest.lines() {
        match line.strip_prefix('[') {
            Some(table) => linked = table == "dependencies]",
            None if linked && line.starts_with(|first: char| first.is_ascii_alphabetic()) => {
                let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
                names.push(name.replace('-', "_"));
            }
            None => {}
        }
    }
    names
}

/// Paths in backquotes that name nothing: whole ones from the root, or ends of one.
fn wrong_paths(text: &str, all: &BTreeSet<String>) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter(|path| path.ends_with(".rs") || path.ends_with('/') || path.contains('/'))
        .filter(|path| !path.starts_with('/') && !path.contains([' ', ':']))
        .filter(|path| {
            let path = path.trim_end_matches('/');
            let whole = |file: &&String| format!("/{file}/").contains(&format!("/{path}/"));
            !all.iter().any(|file| whole(&file))
        })
        .map(|path| format!("{path} does not exist"))
        .collect()
}

fn marked(path: &str, text: &str, marks: &[String]) -> Vec<String> {
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| marks.iter().any(|mark| line.contains(mark)))
        .map(|(number, line)| format!("{path}:{}: {line}", number + 1))
        .collect()
}

fn none(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn shipped_below<'a>(files: &'a [File], folder: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let below = files
        .iter()
        .filter(move |file| file.path.starts_with(&format!("{folder}/")));
    below.filter_map(|file| Some((file.path.as_str(), file.shipped.as_deref()?)))
}

fn sources() -> Vec<File> {
    let paths = tracked().into_iter().filter(|path| path.ends_with(".rs"));
    let mut files: Vec<File> = paths
        .map(|path| File {
            text: fs::read_to_string(root().join(&path)).expect("sources are UTF-8"),
            path,
            shipped: None,
        })
        .collect();
    let tests = test_files(&files);
    for file in &mut files {
        if file.path.starts_with("crates/") && file.path.contains("/src/") && !is_below(&file.path, &tests) {
            file.shipped = Some(code(production(&file.text)));
        }
    }
    files
}

/// Every file of the project, from its root: without what is built and what starts with a dot.
fn tracked() -> Vec<String> {
    let (root, mut found, mut folders) = (root(), Vec::new(), vec![String::new()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).expect("the project can be read") {
            let entry = entry.expect("the project can be read");
            let name = entry.file_name().into_string().expect("names are UTF-8");
            if name.starts_with('.') || name == "target" {
                continue;
            }
            let path = if folder.is_empty() {
                name
            } else {
                format!("{folder}/{name}")
            };
            match entry.file_type().expect("entries have a type").is_dir() {
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    found
}
