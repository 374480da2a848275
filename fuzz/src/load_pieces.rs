//! Keyrings cut for loading: pieces end where they say, in order, and hold nothing that was not there.

use keyrink::decoders::pieces;

/// Takes one octet for the most octets of a certificate, then the keyring.
pub fn run(input: &[u8]) {
    let Some((limit, keyring)) = input.split_first() else {
        return;
    };
    let (mut before, mut octets_before) = (0, 0);
    for (octets, end) in pieces(keyring, 64 << (limit % 12)) {
        assert!(end >= before && end <= keyring.len() as u64);
        octets_before += octets.len() as u64;
        assert!(octets_before <= end);
        before = end;
    }
    assert_eq!(before, keyring.len() as u64, "every octet is taken or skipped");
}

#[cfg(test)]
mod tests {
    #[test]
    fn keyrings_survive_being_cut() {
        let corpus: Vec<Vec<u8>> = crate::certificates::certificates()
            .iter()
            .map(|keyring| [&[11], &keyring[..]].concat())
            .collect();
        crate::mutation::run(&corpus, super::run);
    }
}
