//! Files given to be loaded, packed and armored in all ways: what comes out has a bound, whatever went in.

use keyrink::decoders::unpacked;

/// Takes a file.
pub fn run(input: &[u8]) {
    if let Some(packets) = unpacked(input, OCTETS_MAX) {
        assert!(packets.len() as u64 <= OCTETS_MAX);
    }
}

const OCTETS_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    /// A keybox with its first blob and one certificate, as GnuPG writes it.
    fn keybox(certificate: &[u8]) -> Vec<u8> {
        let head = [&[0, 0, 0, 32, 1, 1, 0, 2][..], b"KBXf", &[0; 20]].concat();
        let place = 40_u32;
        let length = place + certificate.len() as u32;
        let mut blob = length.to_be_bytes().to_vec();
        blob.extend([2, 1, 0, 0]);
        blob.extend(place.to_be_bytes());
        blob.extend((certificate.len() as u32).to_be_bytes());
        blob.resize(place as usize, 0);
        [head, blob, certificate.to_vec()].concat()
    }

    #[test]
    fn files_survive_being_unpacked() {
        let mut corpus = Vec::new();
        for certificate in crate::certificates::certificates().iter().take(3) {
            let mut armored = Vec::new();
            keyrink_openpgp::armor::encode(keyrink_openpgp::armor::PUBLIC_KEY_BLOCK, certificate, &mut armored);
            corpus.extend([keybox(certificate), armored, certificate.clone()]);
        }
        // A packet of one octet by `gzip -n`, and the same by zstd.
        corpus.push(
            b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x9b\xc1\xc8\x02\x00\x02\xc5\x37\x12\x03\x00\x00\x00".to_vec(),
        );
        corpus.push(b"\x28\xb5\x2f\xfd\x04\x58\x19\x00\x00\x98\x01\x04\x27\x2e\xbe\xf5".to_vec());
        assert_eq!(
            keyrink::decoders::unpacked(&corpus[0], 1 << 20),
            Some(corpus[2].clone())
        );
        for packed in &corpus[corpus.len() - 2..] {
            assert_eq!(keyrink::decoders::unpacked(packed, 100), Some(vec![0x98, 1, 4]));
        }
        crate::mutation::run(&corpus, super::run);
    }
}
