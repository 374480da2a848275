//! GnuPG's keybox (`pubring.kbx`): the packets in it, one certificate after another.
//!
//! A keybox is a row of blobs, each of which begins with its length (4 octets, big-endian), type and version. The first one
//! is of type 1 and holds the letters `KBXf` at octet 8. In a blob of type 2, octets 8 to 15 are place and length of an
//! OpenPGP certificate inside the blob (GnuPG, `kbx/keybox-blob.c`). Everything else in it is an index.

use std::io::{self, Read};

/// Reads the certificates of a keybox.
pub(super) struct Keybox<R> {
    inner: R,
    blob: Vec<u8>,
    /// What of the blob is still to be given out.
    ready: std::ops::Range<usize>,
}

/// Do these octets start a keybox?
pub(super) fn is_keybox(start: &[u8]) -> bool {
    start.get(4) == Some(&HEADER) && start.get(8..12) == Some(b"KBXf")
}

impl<R: Read> Keybox<R> {
    /// Takes a keybox from its first octet on.
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            blob: Vec::new(),
            ready: 0..0,
        }
    }

    /// Reads the next blob; `false` at the end.
    fn next_blob(&mut self) -> io::Result<bool> {
        self.blob.clear();
        (&mut self.inner).take(LENGTH_OCTETS).read_to_end(&mut self.blob)?;
        if self.blob.is_empty() {
            return Ok(false);
        }
        let length = number(&self.blob, 0).filter(|length| *length <= BLOB_OCTETS_MAX);
        let length = length.ok_or_else(|| damaged("the length of a blob is wrong"))?;
        let rest = (length as u64).saturating_sub(LENGTH_OCTETS);
        (&mut self.inner).take(rest).read_to_end(&mut self.blob)?;
        if self.blob.len() != length {
            return Err(damaged("it ends inside a blob"));
        }
        if self.blob.get(4) == Some(&OPENPGP) {
            self.ready = certificate(&self.blob).ok_or_else(|| damaged("a certificate lies outside its blob"))?;
        }
        Ok(true)
    }
}

impl<R: Read> Read for Keybox<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.ready.is_empty() {
            if !self.next_blob()? {
                return Ok(0);
            }
        }
        let count = (&self.blob[self.ready.clone()]).read(buffer)?;
        self.ready.start += count;
        Ok(count)
    }
}

/// Where the certificate lies in a blob.
fn certificate(blob: &[u8]) -> Option<std::ops::Range<usize>> {
    let (start, octets) = (number(blob, 8)?, number(blob, 12)?);
    let range = start..start.checked_add(octets)?;
    blob.get(range.clone()).map(|_| range)
}

fn number(blob: &[u8], at: usize) -> Option<usize> {
    let octets = blob.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_be_bytes(*octets)).ok()
}

fn damaged(what: &str) -> io::Error {
    let cure = "export its keys instead: gpg --export > keys.pgp";
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the keybox is damaged, {what}; {cure}"),
    )
}

const LENGTH_OCTETS: u64 = 4;
/// GnuPG itself reads no blob as long as this.
const BLOB_OCTETS_MAX: usize = 32 << 20;
const HEADER: u8 = 1;
const OPENPGP: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() + 8) as u32;
        [&length.to_be_bytes()[..], &[kind, 1, 0, 0], body].concat()
    }

    fn certificate(place: u32, octets: u32, packets: &[u8]) -> Vec<u8> {
        blob(
            OPENPGP,
            &[&place.to_be_bytes()[..], &octets.to_be_bytes(), packets].concat(),
        )
    }

    fn read(keybox: &[u8]) -> io::Result<Vec<u8>> {
        let mut packets = Vec::new();
        Keybox::new(keybox).read_to_end(&mut packets).map(|_| packets)
    }

    #[test]
    fn certificates_come_out_in_order() {
        let header = blob(HEADER, b"KBXf\0\0\0\0");
        assert!(is_keybox(&header) && !is_keybox(&header[1..]) && !is_keybox(b""));
        let deleted = blob(0, b"anything");
        let keybox = [header, certificate(17, 3, b"-abc-"), deleted, certificate(16, 2, b"de")];
        assert_eq!(read(&keybox.concat()).unwrap(), b"abcde");
        assert_eq!(read(&keybox[0]).unwrap(), b"");
    }

    #[test]
    fn damage_is_named() {
        let beyond = [0xff, 0xff, 0xff, 0xff, 2];
        for damaged in [
            &beyond[..],
            b"\0\0",
            &certificate(16, 3, b"ab"),
            &certificate(u32::MAX, u32::MAX, b"ab"),
            &certificate(16, 2, b"ab")[..17],
            &blob(OPENPGP, b"short"),
        ] {
            let error = read(damaged).unwrap_err().to_string();
            assert!(error.contains("gpg --export"), "{error}");
        }
    }
}
