//! Orders that are said to come from an administrator, and signatures that are said to be his.

use keyrink::decoders::order;
use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::policy::Limits;
use keyrink_openpgp::read::Keyring;
use keyrink_openpgp::verify::detached::verify_detached;
use keyrink_openpgp::verify::verify;
use std::sync::OnceLock;

/// Takes the text of an order, or the body of its signature.
pub fn run(input: &[u8]) {
    if let Some(key) = order(input) {
        assert!(input.ends_with(&key));
    }
    assert!(
        verify_detached(signers(), b"/pks/delete\n", input, NOW).is_err(),
        "nobody signed this"
    );
}

const NOW: u64 = 1_900_000_000;

fn signers() -> &'static [Cert] {
    static SIGNERS: OnceLock<Vec<Cert>> = OnceLock::new();
    SIGNERS.get_or_init(|| {
        let octets = keyrink_testkit::Certificate::v4(1, "administrator")
            .user_id("Administrator")
            .to_bytes();
        let mut certs: Vec<Cert> = Vec::new();
        for incoming in Keyring::read(&octets, &Limits::default()).certs {
            let mut cert = incoming.cert;
            verify(&mut cert, None);
            certs.push(cert);
        }
        certs
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn orders_survive_anything() {
        let certificate = keyrink_testkit::Certificate::v4(1, "administrator").user_id("Administrator");
        let order = "/pks/replace\r\nhost: keys.example.org:11371\nTime: 2026-06-05T12:00:00Z\nreason: none\n\n";
        let mut corpus = vec![[order.as_bytes(), certificate.armored().as_bytes()].concat()];
        corpus.push(b"/pks/delete\n-----BEGIN PGP PUBLIC KEY BLOCK-----\n".to_vec());
        // The signature on its user id, as if it were one of a text.
        let octets = certificate.to_bytes();
        let packets = keyrink_openpgp::packet::Frames::new(&octets).filter_map(Result::ok);
        for packet in packets.filter(|packet| packet.tag == keyrink_openpgp::packet::tag::SIGNATURE) {
            let mut body = packet.body.to_vec();
            body[1] = 0;
            corpus.push(body.clone());
            body[1] = 1;
            corpus.push(body);
        }
        crate::mutation::run(&corpus, super::run);
    }
}
