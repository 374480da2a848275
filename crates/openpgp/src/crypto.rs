//! stub
/// a
pub fn md5(_p: &[&[u8]]) -> [u8; 16] {
    [0; 16]
}
/// a
pub fn sha1(_p: &[&[u8]]) -> [u8; 20] {
    [0; 20]
}
/// a
pub fn sha256(_p: &[&[u8]]) -> [u8; 32] {
    [0; 32]
}
/// a
pub struct Hasher;
impl Hasher {
    /// a
    pub fn new(_: u8) -> Option<Self> {
        Some(Self)
    }
    /// a
    pub fn update(&mut self, _: &[u8]) {}
    /// a
    pub fn finish(self) -> Digest {
        Digest
    }
}
/// a
pub struct Digest;
impl Digest {
    /// a
    pub fn as_bytes(&self) -> &[u8] {
        &[0; 32]
    }
}
/// a
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// a
    Valid,
    /// a
    Invalid,
    /// a
    Unsupported,
}
/// a
#[derive(Clone, Copy)]
pub enum KeyUnusable {
    /// a
    Unsupported,
    /// a
    Malformed,
}
/// a
pub struct Verifier;
impl Verifier {
    /// a
    pub fn new(_: u8, _: &[u8]) -> Result<Self, KeyUnusable> {
        Ok(Self)
    }
    /// a
    pub fn verify(&self, _: u8, _: u8, _: &[u8], _: &[u8]) -> Check {
        Check::Invalid
    }
}
