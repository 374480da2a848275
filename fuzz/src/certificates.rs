//! The corpus of targets that take certificates: the vectors in `testdata/datasets`.

use keyrink_openpgp::packet::Frames;
use std::fs;
use std::path::Path;

/// Longest file that is worth mutating, in octets.
const OCTETS_MAX: u64 = 16 << 10;

/// Every vector of moderate size.
pub(crate) fn certificates() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/datasets");
    let folders = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = folders
        .filter(|path| path.is_dir())
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.metadata().unwrap().len() <= OCTETS_MAX)
        .collect();
    files.sort();
    files.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Every packet body of these types.
pub(crate) fn bodies(tags: &[u8]) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    for certificate in certificates() {
        let packets = Frames::new(&certificate).map_while(Result::ok);
        bodies.extend(
            packets
                .filter(|packet| tags.contains(&packet.tag))
                .map(|packet| packet.body.into_owned()),
        );
    }
    bodies
}
