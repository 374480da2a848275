//! Certificates built piece by piece, valid unless a test asks for something else.

use crate::armor::{armor, hex};
use crate::key::{Algorithm, Key};
use crate::packet::{Tag, packet};
use crate::signature::{Kind, Reason, Signature, Target};

/// A certificate under construction: the primary key, what is signed directly below it, then the components in the
/// order they were added, each with its signatures.
///
/// ```
/// use keyrink_testkit::{Certificate, Key, Reason};
///
/// let bob = Key::primary(1, "bob");
/// let alice = Certificate::v4(1, "alice")
///     .user_id("Alice <alice@example.org>")
///     .certified_by(&bob)
///     .user_id("Alice <old@example.org>")
///     .revoke_last(Reason::UserIdInvalid)
///     .encryption_subkey("encrypt");
/// assert_eq!(alice.to_bytes()[0], 0x98);
/// ```
#[derive(Debug)]
pub struct Certificate {
    primary: Key,
    expires_after_secs: u32,
    direct: Vec<Vec<u8>>,
    components: Vec<Component>,
}

#[derive(Debug)]
struct Component {
    item: Item,
    signatures: Vec<Vec<u8>>,
}

#[derive(Debug)]
enum Item {
    UserId(Vec<u8>),
    UserAttribute(Vec<u8>),
    Subkey(Key),
    /// Whole packets that no signature of ours covers.
    Raw(Vec<u8>),
}

impl Certificate {
    /// Starts a certificate; a version 6 one gets the direct-key signature it must have (RFC 9580 section 10.1.1).
    pub fn new(primary: Key) -> Self {
        let mut certificate = Self {
            primary,
            expires_after_secs: 0,
            direct: Vec::new(),
            components: Vec::new(),
        };
        if certificate.primary.version() == 6 {
            let signature = preferences(Signature::new(Kind::DirectKey));
            certificate = certificate.direct(signature);
        }
        certificate
    }

    /// A version 4 certificate for `label` with its primary key only.
    pub fn v4(seed: u64, label: &str) -> Self {
        Self::new(Key::primary(seed, label))
    }

    /// A version 6 certificate for `label` with its primary key and direct-key signature.
    pub fn v6(seed: u64, label: &str) -> Self {
        Self::new(Key::derive(seed, label, Algorithm::Ed25519))
    }

    /// Certifications added from here on say that the key expires `secs` after its creation.
    pub fn expires_after(mut self, secs: u32) -> Self {
        self.expires_after_secs = secs;
        self
    }

    /// Adds a user id with a positive certification, as GnuPG makes it.
    pub fn user_id(self, text: impl AsRef<[u8]>) -> Self {
        let signature = preferences(Signature::new(Kind::PositiveCertification));
        let signature = signature.key_expires_after(self.expires_after_secs);
        self.user_id_with(text, signature)
    }

    /// Adds a user id with `signature` by the primary key.
    pub fn user_id_with(self, text: impl AsRef<[u8]>, signature: Signature) -> Self {
        self.component(Item::UserId(text.as_ref().to_vec()))
            .sign_last(signature)
    }

    /// Adds a user id that nothing binds.
    pub fn bare_user_id(self, text: impl AsRef<[u8]>) -> Self {
        self.component(Item::UserId(text.as_ref().to_vec()))
    }

    /// Adds a certified user attribute whose body is `data`.
    pub fn user_attribute(self, data: &[u8]) -> Self {
        self.component(Item::UserAttribute(data.to_vec()))
            .sign_last(Signature::new(Kind::PositiveCertification))
    }

    /// Adds a Curve25519 subkey for encryption with its binding.
    pub fn encryption_subkey(self, label: &str) -> Self {
        let algorithm = if self.primary.version() == 4 {
            Algorithm::EcdhLegacy
        } else {
            Algorithm::X25519
        };
        let subkey = self.primary.subkey(label, algorithm);
        self.subkey_with(subkey, Signature::new(Kind::SubkeyBinding).key_flags(0x0C))
    }

    /// Adds an Ed25519 subkey for signing; its back-signature is embedded in the unhashed area, as GnuPG does.
    pub fn signing_subkey(self, label: &str) -> Self {
        let algorithm = if self.primary.version() == 4 {
            Algorithm::EdDsaLegacy
        } else {
            Algorithm::Ed25519
        };
        let subkey = self.primary.subkey(label, algorithm);
        let back = Signature::new(Kind::PrimaryKeyBinding).body(&subkey, Target::Subkey(&self.primary, &subkey));
        self.subkey_with(
            subkey,
            Signature::new(Kind::SubkeyBinding).key_flags(0x02).unhashed(32, &back),
        )
    }

    /// Adds `subkey` with `signature` by the primary key.
    pub fn subkey_with(self, subkey: Key, signature: Signature) -> Self {
        self.component(Item::Subkey(subkey)).sign_last(signature)
    }

    /// Adds whole packets, whatever they are.
    pub fn raw(self, packets: &[u8]) -> Self {
        self.component(Item::Raw(packets.to_vec()))
    }

    /// Adds `signature` by the primary key over itself, before all components.
    pub fn direct(mut self, signature: Signature) -> Self {
        self.direct
            .push(signature.packet(&self.primary, Target::Key(&self.primary)));
        self
    }

    /// Revokes the whole certificate.
    pub fn revoke(self, reason: Reason) -> Self {
        let created = self.primary.created() + LATER_SECS;
        self.direct(Signature::revocation(Kind::KeyRevocation, reason).created(created))
    }

    /// Revokes the user id or subkey added last.
    pub fn revoke_last(self, reason: Reason) -> Self {
        let kind = match self.components.last().map(|component| &component.item) {
            Some(Item::Subkey(_)) => Kind::SubkeyRevocation,
            _ => Kind::CertificationRevocation,
        };
        let created = self.primary.created() + LATER_SECS;
        self.sign_last(Signature::revocation(kind, reason).created(created))
    }

    /// Adds a third-party certification by `signer` to the user id added last.
    pub fn certified_by(self, signer: &Key) -> Self {
        let created = self.primary.created().max(signer.created()) + LATER_SECS;
        let signature = Signature::new(Kind::GenericCertification).created(created);
        self.sign_last_by(Some(signer), signature)
    }

    /// Adds `signature` by the primary key over the component added last.
    pub fn sign_last(self, signature: Signature) -> Self {
        self.sign_last_by(None, signature)
    }

    /// The revocation that [`Certificate::revoke`] would add, alone, as owners keep it in a drawer.
    pub fn revocation(&self, reason: Reason) -> Vec<u8> {
        Signature::revocation(Kind::KeyRevocation, reason)
            .created(self.primary.created() + LATER_SECS)
            .packet(&self.primary, Target::Key(&self.primary))
    }

    /// The primary key.
    pub fn primary(&self) -> &Key {
        &self.primary
    }

    /// The fingerprint of the primary key in upper-case digits.
    pub fn fingerprint(&self) -> String {
        hex(&self.primary.fingerprint())
    }

    /// The public packets.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.packets(Key::public_packet, Tag::PublicKey, Tag::PublicSubkey)
    }

    /// The same with unencrypted secret keys: what no keyserver may accept.
    pub fn to_secret_bytes(&self) -> Vec<u8> {
        self.packets(Key::secret_packet, Tag::SecretKey, Tag::SecretSubkey)
    }

    /// The public packets in armor.
    pub fn armored(&self) -> String {
        armor(&self.to_bytes())
    }

    fn component(mut self, item: Item) -> Self {
        self.components.push(Component {
            item,
            signatures: Vec::new(),
        });
        self
    }

    fn sign_last_by(mut self, signer: Option<&Key>, signature: Signature) -> Self {
        let primary = &self.primary;
        let signer = signer.unwrap_or(primary);
        if let Some(component) = self.components.last_mut() {
            let target = match &component.item {
                Item::UserId(text) => Target::UserId(primary, text),
                Item::UserAttribute(data) => Target::UserAttribute(primary, data),
                Item::Subkey(subkey) => Target::Subkey(primary, subkey),
                Item::Raw(_) => Target::Key(primary),
            };
            component.signatures.push(signature.packet(signer, target));
        }
        self
    }

    fn packets(&self, key_packet: fn(&Key, Tag) -> Vec<u8>, primary: Tag, subkey: Tag) -> Vec<u8> {
        let mut out = key_packet(&self.primary, primary);
        out.extend(self.direct.iter().flatten());
        for component in &self.components {
            out.extend_from_slice(&match &component.item {
                Item::UserId(text) => packet(Tag::UserId, self.primary.format(), text),
                Item::UserAttribute(data) => packet(Tag::UserAttribute, self.primary.format(), data),
                Item::Subkey(key) => key_packet(key, subkey),
                Item::Raw(packets) => packets.clone(),
            });
            out.extend(component.signatures.iter().flatten());
        }
        out
    }
}

/// Revocations and third-party certifications are made this long after the key.
const LATER_SECS: u32 = 86_400;

/// The key flags and preferences that GnuPG puts in the first self-signature.
fn preferences(signature: Signature) -> Signature {
    signature
        .key_flags(0x03)
        .hashed(11, &[9, 8, 7, 2])
        .hashed(21, &[10, 9, 8])
        .hashed(22, &[2, 3, 1])
        .hashed(30, &[1])
}

/// User ids that must stay inert in pages, lists and logs, and must survive the way to a client and back.
pub const HOSTILE_USER_IDS: &[&[u8]] = &[
    b"<script>document.title='owned'</script> <script@example.org>",
    b"\"><img src=x onerror=\"document.title='owned'\"> <img@example.org>",
    b"' onmouseover='document.title=1' x=' <quote@example.org>",
    b"</textarea></style></title><svg onload=document.title=1> <svg@example.org>",
    b"javascript:document.title=1 <javascript@example.org>",
    b"{{7*7}} ${7*7} <%= 7*7 %> <template@example.org>",
    b"&lt;b&gt; &amp;amp; &#60;i&#62; <entity@example.org>",
    b"a:b:c%3Ad%%25 <colon@example.org>",
    b"line\nuid:forged:1::r\r\npub:0000 <line@example.org>",
    b"nul\0tab\tbell\x07escape\x1B[31m <control@example.org>",
    b"Latin-1 M\xFCller \xFF\xFE <latin1@example.org>",
    b"over\xC0\xBClong \xED\xA0\x80surrogate <utf8@example.org>",
    "right \u{202E}gro.elpmaxe@live\u{202C} to left <bidi@example.org>".as_bytes(),
    "zero\u{200B}width\u{FEFF} e\u{301}\u{301}\u{301} <zero@example.org>".as_bytes(),
    b"two <first@example.org> <second@example.org>",
    b"../../../../etc/passwd <path@example.org>",
    b"'; DROP TABLE record; -- <sql@example.org>",
    b"<unclosed@example.org",
    b"@",
    b"",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_6_certificates_carry_a_direct_key_signature() {
        let bytes = Certificate::v6(1, "six").encryption_subkey("encrypt").to_bytes();
        assert_eq!(bytes[..3], [0xC6, 42, 6], "new header, 42 octets, version 6");
        assert_eq!(bytes[44], 0xC2, "then a signature");
        assert_eq!(bytes[46..49], [6, 0x1F, 27]);
    }

    #[test]
    fn same_seed_same_octets() {
        let build = |seed| {
            Certificate::v4(seed, "a")
                .user_id("A")
                .signing_subkey("sign")
                .to_bytes()
        };
        assert_eq!(build(1), build(1));
        assert_ne!(build(1), build(2));
    }
}
