//! What a run of the tests must not keep to itself: tests that could not do their work here, and on what they were done.
//!
//! A test runner shows nothing of a test that passed. So these lines go into the file that KEYRINK_TEST_REPORT names, which
//! `scripts/test` shows in the end.

use std::fs::OpenOptions;
use std::io::Write;

/// Says that this test ends without having tested anything, and why.
pub fn skipped(reason: &str) {
    eprintln!("skipped: {reason}");
    note("skipped", reason);
}

/// Says that this test runs on a store of this kind.
pub fn runs_on(engine: &str) {
    note(engine, "");
}

/// A line of the report: what, the program and the name of the test, and more about it.
fn note(what: &str, more: &str) {
    let Some(path) = std::env::var_os("KEYRINK_TEST_REPORT") else {
        return;
    };
    let program = std::env::current_exe().unwrap_or_default();
    let program = program.file_stem().unwrap_or_default().to_string_lossy();
    // Cargo appends a hash.
    let program = program.rsplit_once('-').map_or(&*program, |(name, _)| name);
    // The runner starts a process for each test and names it there.
    let test = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let line = format!("{what} {program} {} {more}\n", test.unwrap_or_default());
    // One write of one line, so that processes don't tear each other's apart.
    let written = OpenOptions::new().create(true).append(true).open(&path);
    if let Err(error) = written.and_then(|mut file| file.write_all(line.as_bytes())) {
        eprintln!("the report {}: {error}", path.display());
    }
}
