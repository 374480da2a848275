//! A tiny reader of good certificates for tests and benches of signature checks: each self-signature with its digest.
//! It knows nothing of bad framing, partial lengths or third parties, and indexes without fear.

use keyrink_openpgp::crypto::digest::Hasher;
use keyrink_openpgp::crypto::{Check, KeyUnusable, Verifier};

/// A signature on a component of a certificate, and the primary key to check it with.
pub(crate) struct Signature {
    pub(crate) algorithm: u8,
    pub(crate) hash_id: u8,
    pub(crate) digest: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) key_algorithm: u8,
    pub(crate) key_material: Vec<u8>,
}

impl Signature {
    pub(crate) fn verifier(&self) -> Result<Verifier, KeyUnusable> {
        Verifier::new(self.key_algorithm, &self.key_material)
    }

    pub(crate) fn check(&self, verifier: &Verifier) -> Check {
        verifier.verify(self.algorithm, self.hash_id, &self.digest, &self.value)
    }
}

/// All signatures of the certificates that can be read, in order.
pub(crate) fn signatures(octets: &[u8]) -> Vec<Signature> {
    let mut primary = Vec::new();
    let mut component = Vec::new();
    let mut found = Vec::new();
    for (tag, body) in packets(octets) {
        match tag {
            6 => (primary, component) = (body, Vec::new()),
            14 => component = framed_key(&body),
            13 => component = [&[0xb4], &(body.len() as u32).to_be_bytes()[..], &body].concat(),
            17 => component = [&[0xd1], &(body.len() as u32).to_be_bytes()[..], &body].concat(),
            2 if !primary.is_empty() => found.extend(signature(&primary, &component, &body)),
            _ => component.clear(),
        }
    }
    found
}

fn signature(primary: &[u8], component: &[u8], body: &[u8]) -> Option<Signature> {
    let mut input = Vec::new();
    let (algorithm, hash_id, rest);
    match body[0] {
        2 | 3 => {
            (algorithm, hash_id, rest) = (body[15], body[16], &body[17..]);
            input.extend(framed_key(primary));
            input.extend(if component.first() == Some(&0xb4) {
                &component[5..]
            } else {
                component
            });
            input.extend(&body[2..7]);
        }
        version @ (4 | 6) => {
            (algorithm, hash_id) = (body[2], body[3]);
            let width = if version == 4 { 2 } else { 4 };
            let hashed_end = 4 + width + number(&body[4..4 + width]);
            let unhashed_end = hashed_end + width + number(&body[hashed_end..hashed_end + width]);
            rest = &body[unhashed_end..];
            if version == 6 {
                input.extend(&rest[3..3 + usize::from(rest[2])]);
            }
            input.extend(framed_key(primary));
            input.extend(component);
            input.extend(&body[..hashed_end]);
            input.extend([version, 0xff]);
            input.extend((hashed_end as u32).to_be_bytes());
        }
        _ => return None,
    }
    let mut hasher = Hasher::new(hash_id)?;
    hasher.update(&input);
    let value = if body[0] == 6 {
        &rest[3 + usize::from(rest[2])..]
    } else {
        &rest[2..]
    };
    let material_at = [0, 0, 8, 8, 6, 10, 10][usize::from(primary[0])];
    Some(Signature {
        algorithm,
        hash_id,
        digest: hasher.finish().as_bytes().to_vec(),
        value: value.to_vec(),
        key_algorithm: primary[if primary[0] < 4 { 7 } else { 5 }],
        key_material: primary[material_at..].to_vec(),
    })
}

fn framed_key(body: &[u8]) -> Vec<u8> {
    match body[0] {
        6 => [&[0x9b], &(body.len() as u32).to_be_bytes()[..], body].concat(),
        _ => [&[0x99], &(body.len() as u16).to_be_bytes()[..], body].concat(),
    }
}

/// Tag and body of each packet.
pub(crate) fn packets(octets: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = octets;
    while let [header, after @ ..] = rest {
        let new = header & 0x40 != 0;
        let tag = if new { header & 0x3f } else { header >> 2 & 0x0f };
        let (length, width) = match (new, header & 3, after[0]) {
            (true, _, first @ 0..192) => (usize::from(first), 1),
            (true, _, first @ 192..=223) => ((usize::from(first) - 192) * 256 + usize::from(after[1]) + 192, 2),
            (true, _, _) => (number(&after[1..5]), 5),
            (false, kind, _) => (number(&after[..1 << kind]), 1 << kind),
        };
        found.push((tag, after[width..width + length].to_vec()));
        rest = &after[width + length..];
    }
    found
}

fn number(octets: &[u8]) -> usize {
    octets.iter().fold(0, |number, octet| number << 8 | usize::from(*octet))
}
