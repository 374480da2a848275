//! Stored records: a damaged one is told from a whole one, and what decodes is written as it was.

use keyrink_openpgp::cert::Cert;
use keyrink_openpgp::project::Projection;
use keyrink_openpgp::serving::Serving;
use keyrink_openpgp::stored::{self, Entries};

/// Takes a record.
pub fn run(input: &[u8]) {
    if let Ok(entries) = Entries::new(input) {
        entries.for_each(drop);
    }
    let mut shown = Vec::new();
    let written = stored::write_projection(input, Projection::Served, &mut shown);
    assert!(written.is_err() || shown.len() <= input.len() * 2 + 64);
    let Ok(cert) = Cert::decode(input) else { return };
    // The first form may be one that this program would not write (derived fields are trusted), the second is.
    let again = cert.encode(&Serving::default());
    assert_eq!(Cert::decode(&again).as_ref(), Ok(&cert));
    assert_eq!(
        Cert::decode(&again).map(|cert| cert.encode(&Serving::default())),
        Ok(again)
    );
}

#[cfg(test)]
mod tests {
    use keyrink_openpgp::policy::Limits;
    use keyrink_openpgp::read::Keyring;
    use keyrink_openpgp::serving::Serving;

    #[test]
    fn records_survive_anything() {
        let mut records = Vec::new();
        for certificate in crate::certificates::certificates() {
            let keyring = Keyring::read(&certificate, &Limits::default());
            records.extend(
                keyring
                    .certs
                    .iter()
                    .map(|incoming| incoming.cert.encode(&Serving::default())),
            );
        }
        crate::mutation::run(&records, super::run);
    }
}
