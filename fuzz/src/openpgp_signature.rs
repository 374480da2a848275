//! Signature packets: what is read lies inside of the packet, embedded signatures too.

use keyrink_openpgp::packet::signature::Signature;

/// Takes the body of a signature packet.
pub fn run(input: &[u8]) {
    let mut body = input;
    // An embedded signature is shorter than what it is embedded in, so this ends.
    while let Some(signature) = Signature::read(body) {
        assert!((2..=6).contains(&signature.version));
        assert!(signature.hashed.len() + signature.value.len() + signature.salt.len() < body.len());
        let _ = (signature.issuer(), signature.expires(), signature.revokes_hard());
        let Some(embedded) = signature.embedded else { return };
        assert!(embedded.len() < body.len());
        body = embedded;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn signatures_survive_anything() {
        crate::mutation::run(&crate::certificates::bodies(&[2]), super::run);
    }
}
