//! Sequoia's verdicts: cryptography only, no policy.

use crate::judged::{Claim, Judgement, tidy};
use sequoia_openpgp::cert::prelude::*;
use sequoia_openpgp::packet::Signature;
use sequoia_openpgp::parse::Parse;
use std::time::{SystemTime, UNIX_EPOCH};

/// The self-signatures that Sequoia finds valid.
pub(crate) fn valid(keyrings: &[Vec<u8>]) -> Judgement {
    let mut judgement = Judgement::new();
    for octets in keyrings {
        // A certificate that Sequoia does not take is missing from the judgement, and a dispute for that.
        let certs = CertParser::from_bytes(octets).into_iter().flatten();
        for cert in certs.flatten() {
            let claims = judgement.entry(cert.fingerprint().to_hex()).or_default();
            claims.extend(signatures(&cert).iter().map(claim));
        }
    }
    judgement.values_mut().for_each(tidy);
    judgement
}

/// Sequoia verifies when it is asked for these, and leaves out what is not valid.
fn signatures(cert: &Cert) -> Vec<Signature> {
    let mut found: Vec<Signature> = Vec::new();
    for key in cert.keys() {
        found.extend(key.self_signatures().cloned());
        found.extend(key.self_revocations().cloned());
    }
    for user_id in cert.userids() {
        found.extend(user_id.self_signatures().cloned());
        found.extend(user_id.self_revocations().cloned());
        found.extend(user_id.approvals().cloned());
    }
    for attribute in cert.user_attributes() {
        found.extend(attribute.self_signatures().cloned());
        found.extend(attribute.self_revocations().cloned());
        found.extend(attribute.approvals().cloned());
    }
    found
}

fn claim(signature: &Signature) -> Claim {
    let created = signature.signature_creation_time().unwrap_or(UNIX_EPOCH);
    Claim {
        kind: signature.typ().into(),
        created: seconds(created),
        hash: signature.hash_algo().into(),
    }
}

fn seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}
