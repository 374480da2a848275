//! What only this engine has to show.

use tempfile::TempDir;

use super::*;
use crate::conformance;

#[test]
fn conforms() {
    let dir = TempDir::new().unwrap();
    conformance::run(|number| SqliteStore::open(&dir.path().join(number.to_string()), &Options::default()).unwrap());
}
