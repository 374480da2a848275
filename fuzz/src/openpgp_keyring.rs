//! Keyrings: read, verified, written and read again, certificates stay what they are.

use keyrink_openpgp::merge::merge;
use keyrink_openpgp::policy::Limits;
use keyrink_openpgp::project::Projection;
use keyrink_openpgp::read::Keyring;
use keyrink_openpgp::verify::verify;

/// Takes a keyring.
pub fn run(input: &[u8]) {
    let limits = Limits::default();
    for incoming in Keyring::read(input, &limits).certs {
        let mut cert = incoming.cert;
        verify(&mut cert, None);

        let mut written = Vec::new();
        cert.write_all(&mut written);
        let mut again = Keyring::read(&written, &limits);
        assert!(again.refused.is_empty(), "{:?}", again.refused);
        let mut read = again.certs.pop().expect("a certificate was written").cert;
        assert!(again.certs.is_empty());
        verify(&mut read, Some(&cert));
        // What Hockeypuck makes of copies that stand in one file is another matter.
        let mut rewritten = Vec::new();
        read.write_all(&mut rewritten);
        assert_eq!(rewritten, written);

        let shown = |projection| {
            let mut out = Vec::new();
            cert.write(projection, &mut out);
            out
        };
        assert!(shown(Projection::Served).len() <= written.len());
        for projection in [Projection::Sks, Projection::Hockeypuck] {
            assert_eq!(cert.digest(projection).is_some(), !shown(projection).is_empty());
        }
        assert_eq!(merge(cert.clone(), cert.clone()), Some(cert));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn keyrings_survive_anything() {
        crate::mutation::run(&crate::certificates::certificates(), super::run);
    }
}
