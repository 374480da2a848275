//! Signatures of versions 3, 4 and 6 over every part of a certificate (RFC 9580 section 5.2).

use aws_lc_rs::digest::{self, SHA256, SHA512};

use crate::key::Key;
use crate::packet::{Tag, packet, put_integer, put_subpacket};

/// What a signature says (RFC 9580 section 5.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Binary = 0x00,
    Text = 0x01,
    GenericCertification = 0x10,
    PositiveCertification = 0x13,
    SubkeyBinding = 0x18,
    PrimaryKeyBinding = 0x19,
    DirectKey = 0x1F,
    KeyRevocation = 0x20,
    SubkeyRevocation = 0x28,
    CertificationRevocation = 0x30,
}

/// Why something was revoked (RFC 9580 section 5.2.3.31). The first two are *hard*: they hold for all time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Reason {
    Unspecified = 0,
    Compromised = 2,
    Superseded = 1,
    Retired = 3,
    UserIdInvalid = 32,
}

/// What is signed: the octets that enter the digest before the signature's own fields.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// A key alone: direct-key signatures and key revocations.
    Key(&'a Key),
    /// A user id of a key.
    UserId(&'a Key, &'a [u8]),
    /// A user attribute of a key.
    UserAttribute(&'a Key, &'a [u8]),
    /// A text of its own, its lines ended as its kind of signature wants them.
    Text(&'a [u8]),
    /// A subkey of a key: bindings, back-signatures and subkey revocations.
    Subkey(&'a Key, &'a Key),
}

/// A signature to be made: its kind, time and subpackets.
///
/// The creation time and the issuer are added when it is signed, as GnuPG adds them.
#[derive(Clone, Debug)]
pub struct Signature {
    kind: Kind,
    created: Option<u32>,
    hashed: Vec<u8>,
    unhashed: Vec<u8>,
    damaged: bool,
    is_old: bool,
}

impl Signature {
    /// A signature made when its signer was created, without further subpackets.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            created: None,
            hashed: Vec::new(),
            unhashed: Vec::new(),
            damaged: false,
            is_old: false,
        }
    }

    /// A revocation for `reason`.
    pub fn revocation(kind: Kind, reason: Reason) -> Self {
        Self::new(kind).hashed(29, &[reason as u8])
    }

    /// Sets the creation time, in seconds since 1970.
    pub fn created(mut self, time: u32) -> Self {
        self.created = Some(time);
        self
    }

    /// The key, or the subkey bound, expires `secs` after its own creation; 0 adds nothing.
    pub fn key_expires_after(self, secs: u32) -> Self {
        if secs == 0 {
            self
        } else {
            self.hashed(9, &secs.to_be_bytes())
        }
    }

    /// The signature expires `secs` after it was made.
    pub fn expires_after(self, secs: u32) -> Self {
        self.hashed(3, &secs.to_be_bytes())
    }

    /// The key may be used as `flags` say: 1 certify, 2 sign, 4 and 8 encrypt.
    pub fn key_flags(self, flags: u8) -> Self {
        self.hashed(27, &[flags])
    }

    /// Adds a subpacket under the signature.
    pub fn hashed(mut self, kind: u8, data: &[u8]) -> Self {
        put_subpacket(&mut self.hashed, kind, data);
        self
    }

    /// Adds a subpacket that the signature does not protect.
    pub fn unhashed(mut self, kind: u8, data: &[u8]) -> Self {
        put_subpacket(&mut self.unhashed, kind, data);
        self
    }

    /// Spoils the cryptographic part while the rest, the digest's first octets included, stays right.
    pub fn damaged(mut self) -> Self {
        self.damaged = true;
        self
    }

    /// Makes it of version 3, which tells its time and its issuer and knows no subpackets.
    pub fn version3(mut self) -> Self {
        self.is_old = true;
        self
    }

    /// The whole signature packet.
    pub fn packet(self, signer: &Key, target: Target<'_>) -> Vec<u8> {
        packet(Tag::Signature, signer.format(), &self.body(signer, target))
    }

    /// The body of the signature packet, as it is embedded in other signatures.
    pub fn body(self, signer: &Key, target: Target<'_>) -> Vec<u8> {
        if self.is_old {
            return self.old_body(signer, target);
        }
        let (hashed, unhashed) = self.areas(signer);
        let mut body = vec![signer.version(), self.kind as u8, signer.algorithm_id(), HASH_ID];
        put_area(&mut body, signer.version(), &hashed);
        let salt = salt(signer, &body);
        let digest = digest(signer.version(), salt.as_ref(), target, &body);
        put_area(&mut body, signer.version(), &unhashed);
        body.extend_from_slice(&digest[..2]);
        let mut signature = signer.sign(&digest);
        if self.damaged {
            signature[10] ^= 1;
        }
        if let Some(salt) = salt {
            body.push(salt.len() as u8);
            body.extend_from_slice(&salt);
            body.extend_from_slice(&signature);
        } else {
            put_integer(&mut body, &signature[..32]);
            put_integer(&mut body, &signature[32..]);
        }
        body
    }

    /// Version 3 (RFC 9580 section 5.2.2).
    fn old_body(self, signer: &Key, target: Target<'_>) -> Vec<u8> {
        let mut fields = vec![self.kind as u8];
        fields.extend_from_slice(&self.created.unwrap_or(signer.created()).to_be_bytes());
        let digest = digest(3, None, target, &fields);
        let mut body = vec![3, fields.len() as u8];
        body.extend_from_slice(&fields);
        body.extend_from_slice(&signer.key_id());
        body.extend_from_slice(&[signer.algorithm_id(), HASH_ID]);
        body.extend_from_slice(&digest[..2]);
        let mut signature = signer.sign(&digest);
        if self.damaged {
            signature[10] ^= 1;
        }
        put_integer(&mut body, &signature[..32]);
        put_integer(&mut body, &signature[32..]);
        body
    }

    fn areas(&self, signer: &Key) -> (Vec<u8>, Vec<u8>) {
        let mut hashed = Vec::with_capacity(self.hashed.len() + 45);
        let mut issuer = vec![signer.version()];
        issuer.extend_from_slice(&signer.fingerprint());
        put_subpacket(&mut hashed, 33, &issuer);
        put_subpacket(&mut hashed, 2, &self.created.unwrap_or(signer.created()).to_be_bytes());
        hashed.extend_from_slice(&self.hashed);
        let mut unhashed = Vec::new();
        if signer.version() == 4 {
            put_subpacket(&mut unhashed, 16, &signer.key_id());
        }
        unhashed.extend_from_slice(&self.unhashed);
        (hashed, unhashed)
    }
}

/// SHA2-512 (RFC 9580 section 9.5), as current GnuPG uses with Ed25519.
const HASH_ID: u8 = 10;
const SALT_OCTETS: usize = 32;

/// The salt of a version 6 signature: drawn from what is signed, so that generated octets never change.
fn salt(signer: &Key, fields: &[u8]) -> Option<[u8; SALT_OCTETS]> {
    (signer.version() == 6).then(|| {
        let mut salt = [0; SALT_OCTETS];
        salt.copy_from_slice(digest::digest(&SHA256, fields).as_ref());
        salt
    })
}

/// The digest that is signed (RFC 9580 section 5.2.4): salt, target, signed fields, trailer. Version 3 has no trailer, and
/// puts nothing in front of user ids.
fn digest(version: u8, salt: Option<&[u8; SALT_OCTETS]>, target: Target<'_>, fields: &[u8]) -> Vec<u8> {
    let mut context = digest::Context::new(&SHA512);
    context.update(salt.map_or(&[][..], |salt| salt));
    match target {
        Target::Key(key) => context.update(&key.hashed()),
        Target::Subkey(primary, subkey) => {
            context.update(&primary.hashed());
            context.update(&subkey.hashed());
        }
        Target::Text(text) => context.update(text),
        Target::UserId(key, data) | Target::UserAttribute(key, data) if version == 3 => {
            context.update(&key.hashed());
            context.update(data);
        }
        Target::UserId(key, text) => update_component(&mut context, key, 0xB4, text),
        Target::UserAttribute(key, data) => update_component(&mut context, key, 0xD1, data),
    }
    context.update(fields);
    if version > 3 {
        context.update(&[version, 0xFF]);
        context.update(&(fields.len() as u32).to_be_bytes());
    }
    context.finish().as_ref().to_vec()
}

fn update_component(context: &mut digest::Context, key: &Key, prefix: u8, data: &[u8]) {
    context.update(&key.hashed());
    context.update(&[prefix]);
    context.update(&(data.len() as u32).to_be_bytes());
    context.update(data);
}

fn put_area(out: &mut Vec<u8>, version: u8, area: &[u8]) {
    if version == 4 {
        out.extend_from_slice(&(area.len() as u16).to_be_bytes());
    } else {
        out.extend_from_slice(&(area.len() as u32).to_be_bytes());
    }
    out.extend_from_slice(area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::armor::{base64_decode, hex};
    use crate::key::Algorithm;
    use crate::keyring::entries;

    /// RFC 9580, appendix A.3.
    const CERTIFICATE: &str = "
        xioGY4d/4xsAAAAg+U2nu0jWCmHlZ3BqZYfQMxmZu52JGggkLq2EVD34laPCsQYf
        GwoAAABCBYJjh3/jAwsJBwUVCg4IDAIWAAKbAwIeCSIhBssYbE8GCaaX5NUt+mxy
        KwwfHifBilZwj2Ul7Ce62azJBScJAgcCAAAAAK0oIBA+LX0ifsDm185Ecds2v8lw
        gyU2kCcUmKfvBXbAf6rhRYWzuQOwEn7E/aLwIwRaLsdry0+VcallHhSu4RN6HWaE
        QsiPlR4zxP/TP7mhfVEe7XWPxtnMUMtf15OyA51YBM4qBmOHf+MZAAAAIIaTJINn
        +eUBXbki+PSAld2nhJh/LVmFsS+60WyvXkQ1wpsGGBsKAAAALAWCY4d/4wKbDCIh
        BssYbE8GCaaX5NUt+mxyKwwfHifBilZwj2Ul7Ce62azJAAAAAAQBIKbpGG2dWTX8
        j+VjFM21J0hqWlEg+bdiojWnKfA5AQpWUWtnNwDEM0g12vYxoWM8Y81W+bHBw805
        I8kWVkXU6vFOi+HWvv/ira7ofJu16NnoUkhclkUrk0mXubZvyl4GBg==";
    /// The start of appendix A.4: the secret key packet of the same certificate.
    const SECRET_KEY: &str = "
        xUsGY4d/4xsAAAAg+U2nu0jWCmHlZ3BqZYfQMxmZu52JGggkLq2EVD34laMAGXKB
        exK+cH6NX1hs5hNhIB00TrJmosgv3mg1ditlsLfC";

    #[test]
    fn version_6_signs_as_the_standard_does() {
        let secret = base64_decode(SECRET_KEY);
        let key = Key::from_secret(secret[45..77].try_into().unwrap(), 0x6387_7FE3, Algorithm::Ed25519);
        assert_eq!(
            hex(&key.fingerprint()),
            "CB186C4F0609A697E4D52DFA6C722B0C1F1E27C18A56708F6525EC27BAD9ACC9"
        );
        assert!(key.secret_packet(Tag::SecretKey) == secret[..77]);

        // Ed25519 is deterministic, so that the same fields and salt must give the same signature.
        let certificate = entries(&base64_decode(CERTIFICATE));
        let (_, signature) = &certificate[0].bodies[1];
        let hashed = u32::from_be_bytes(signature[4..8].try_into().unwrap()) as usize;
        let salt = signature[signature.len() - 96..][..32].try_into().unwrap();
        let digest = digest(6, Some(salt), Target::Key(&key), &signature[..8 + hashed]);
        assert!(key.sign(&digest) == signature[signature.len() - 64..]);
    }
}
