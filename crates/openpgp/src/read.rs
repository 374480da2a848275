//! Reading keyrings: octets to certificates, and what could not be read.
//!
//! Never fails as a whole. Whatever is read stays read; the rest is reported with its place and reason.

use crate::cert::{Attached, Cert, Component};
use crate::hockeypuck::{self, COPY_OCTETS_MAX};
use crate::packet::key::{Key, KeyError};
use crate::packet::{self, Frame, FrameError, Frames, tag};
use crate::policy::Limits;
use std::fmt;
use thiserror::Error;

/// What a keyring holds.
#[derive(Debug, Default)]
pub struct Keyring {
    /// Certificates, not yet verified.
    pub certs: Vec<Incoming>,
    /// Signatures that came before any key: a revocation published on its own, for instance.
    pub bare_signatures: Vec<Box<[u8]>>,
    /// What became no certificate: the first of it.
    pub refused: Vec<Refused>,
    /// How much more that was.
    pub refused_more: u64,
    holds_secret: bool,
}

/// A certificate as it arrived.
#[derive(Debug)]
pub struct Incoming {
    /// Its packets.
    pub cert: Cert,
    /// Packets left out on reading.
    pub dropped: Vec<DroppedPacket>,
}

/// A packet that is no part of what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DroppedPacket {
    /// Packet type.
    pub tag: u8,
    /// Octets of its body.
    pub octets: usize,
    /// Why.
    pub reason: DropReason,
}

/// Why a packet is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DropReason {
    /// Longer than the limit for its type.
    #[error("longer than the limit of {0} octets")]
    TooLong(u64),
    /// Certificates don't hold packets of this type.
    #[error("packets of this type are not part of a certificate")]
    Foreign,
    /// A signature behind a packet that was left out.
    #[error("belongs to a packet that was left out")]
    Orphan,
}

/// Input that became no certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Octets before it.
    pub offset: usize,
    /// Why.
    pub reason: RefuseReason,
}

/// Why input became no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RefuseReason {
    /// Somebody published a secret.
    #[error("this is a SECRET key: whoever sees it can sign and read in your name; it was not stored")]
    SecretKey,
    /// Its primary key has no identity.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// Its primary key packet is longer than the limit.
    #[error("key packet is longer than the limit of {0} octets")]
    KeyTooLong(u64),
    /// More packets than the limit in one certificate, and they are so small that they hold nothing.
    #[error("certificate has more than {0} packets, most of them tiny")]
    TooManyPackets(u64),
    /// Something compressed, which is never unpacked.
    #[error("compressed data is not accepted: send the keys themselves")]
    Compressed,
    /// What stands here is no packet.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// Packets that belong to no key.
    #[error("no public key comes before this packet of type {0}")]
    NoKey(u8),
    /// So many signatures before any key that nobody meant them.
    #[error("more than {0} signatures without a key")]
    TooManySignatures(usize),
}

impl Keyring {
    /// Reads concatenated certificates.
    pub fn read(input: &[u8], limits: &Limits) -> Self {
        Self::read_until(input, limits, |_| false)
    }

    /// Reads no further than the first so many certificates, or what is in their place.
    pub fn read_some(input: &[u8], limits: &Limits, most: usize) -> Self {
        let count = |found: &Self| found.certs.len() + found.refused.len() + found.bare_signatures.len();
        let mut found = Self::read_until(input, limits, |found| count(found) >= most);
        found.certs.truncate(most);
        found
    }

    fn read_until(input: &[u8], limits: &Limits, is_enough: impl Fn(&Self) -> bool) -> Self {
        let mut reader = Reader {
            limits,
            keyring: Self::default(),
            state: State::Start,
        };
        let mut frames = Frames::new(input);
        while !is_enough(&reader.keyring) {
            let offset = frames.offset();
            match frames.next() {
                None => break,
                Some(Ok(frame)) => reader.take(offset, &frame),
                Some(Err(error)) => reader.broken(offset, input[offset], error),
            }
        }
        reader.close();
        reader.keyring
    }

    /// Did any secret key packet occur?
    pub fn holds_secret(&self) -> bool {
        self.holds_secret
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at octet {}: {}", self.offset, self.reason)
    }
}

/// Mean length of packets in a certificate that has more of them than the limit.
const MEAN_OCTETS_MIN: u64 = 64;

struct Reader<'a> {
    limits: &'a Limits,
    keyring: Keyring,
    state: State,
}

enum State {
    /// No key yet.
    Start,
    /// Inside a certificate; its last component takes signatures if `attach`.
    Open {
        components: Vec<Component>,
        dropped: Vec<DroppedPacket>,
        packets: u64,
        octets: u64,
        attach: bool,
        normal: Normal,
        offset: usize,
    },
    /// Behind something refused: everything up to the next key belongs to it.
    Skip,
}

/// How Hockeypuck reads the same certificate. Where it attaches a signature to something else than everybody, the
/// signature is not read there.
struct Normal {
    /// Signatures attach to the last component.
    attach: bool,
    /// What stands behind the last packet that it knows belongs to that.
    follow: bool,
    octets: u64,
    /// It does not take the copy.
    lost: bool,
}

impl Normal {
    fn new(octets: usize) -> Self {
        Self {
            attach: !hockeypuck::passes_over(tag::PUBLIC_KEY, octets),
            follow: true,
            octets: octets as u64,
            lost: hockeypuck::passes_over(tag::PUBLIC_KEY, octets),
        }
    }

    /// How often (once or not at all) it reads a packet where everybody does.
    fn take(&mut self, frame: &Frame<'_>, components: &mut [Component]) -> u32 {
        if hockeypuck::passes_over(frame.tag, frame.body.len()) {
            self.attach &= !matches!(frame.tag, tag::USER_ID | tag::USER_ATTRIBUTE | tag::PUBLIC_SUBKEY);
            return 0;
        }
        self.octets += frame.body.len() as u64;
        self.lost |= self.octets > COPY_OCTETS_MAX;
        match frame.tag {
            tag::SIGNATURE => return u32::from(self.attach),
            tag::MARKER => return 0,
            tag::TRUST => {
                self.lost |= !self.follow;
                self.trust(frame, components);
                return 0;
            }
            tag::USER_ID | tag::PUBLIC_SUBKEY => (self.attach, self.follow) = (true, true),
            _ => (self.attach, self.follow) = (false, false),
        }
        u32::from(self.attach)
    }

    /// A trust packet belongs to the last signature that can be read.
    fn trust(&self, frame: &Frame<'_>, components: &mut [Component]) {
        let Some(component) = components
            .last_mut()
            .filter(|_| self.attach && hockeypuck::trust::is_read(&frame.body))
        else {
            return;
        };
        let mut signatures = component.signatures.iter_mut().rev();
        let parent = signatures.find(|attached| hockeypuck::signature::read(&attached.body).is_ok());
        // Anybody can put them behind a signature, and nothing but their number bounds them.
        if let Some(parent) = parent
            && parent.trust.len() < TRUST_PACKETS_MAX
            && frame.body.len() <= TRUST_OCTETS_MAX
        {
            parent.trust.push(frame.body.as_ref().into());
        }
    }
}

impl Reader<'_> {
    fn take(&mut self, offset: usize, frame: &Frame<'_>) {
        match frame.tag {
            tag::SECRET_KEY | tag::SECRET_SUBKEY => self.refuse(offset, RefuseReason::SecretKey),
            tag::PUBLIC_KEY => self.open(offset, &frame.body),
            _ => match &mut self.state {
                State::Skip => {}
                State::Start => self.before_any_key(offset, frame),
                State::Open { .. } => self.inside(frame),
            },
        }
    }

    fn open(&mut self, offset: usize, body: &[u8]) {
        self.close();
        if body.len() as u64 > self.limits.packet_octets {
            return self.refuse(offset, RefuseReason::KeyTooLong(self.limits.packet_octets));
        }
        if let Err(error) = Key::read(body) {
            return self.refuse(offset, error.into());
        }
        let components = vec![Component::new(tag::PUBLIC_KEY, body)];
        self.state = State::Open {
            components,
            dropped: Vec::new(),
            packets: 1,
            octets: body.len() as u64,
            attach: true,
            normal: Normal::new(body.len()),
            offset,
        };
    }

    fn before_any_key(&mut self, offset: usize, frame: &Frame<'_>) {
        match frame.tag {
            tag::SIGNATURE if self.keyring.bare_signatures.len() >= BARE_SIGNATURES_MAX => {
                self.refuse(offset, RefuseReason::TooManySignatures(BARE_SIGNATURES_MAX));
            }
            tag::SIGNATURE if frame.body.len() as u64 <= self.limits.signature_octets => {
                self.keyring.bare_signatures.push(frame.body.as_ref().into());
            }
            tag::MARKER | tag::TRUST | tag::PADDING => {}
            tag::COMPRESSED => self.refuse(offset, RefuseReason::Compressed),
            other => self.refuse(offset, RefuseReason::NoKey(other)),
        }
    }

    fn inside(&mut self, frame: &Frame<'_>) {
        let State::Open {
            components,
            dropped,
            packets,
            octets,
            attach,
            normal,
            offset,
        } = &mut self.state
        else {
            return;
        };
        let reads = normal.take(frame, components);
        *packets += 1;
        *octets += frame.body.len() as u64;
        // Long certificates are read whole and trimmed later; this only keeps memory in proportion to the input.
        if *packets > self.limits.packets && *octets / *packets < MEAN_OCTETS_MIN {
            let (offset, reason) = (*offset, RefuseReason::TooManyPackets(self.limits.packets));
            return self.refuse(offset, reason);
        }
        let mut drop = |reason| {
            dropped.push(DroppedPacket {
                tag: frame.tag,
                octets: frame.body.len(),
                reason,
            })
        };
        let limit = self.limits.octets_for(frame.tag);
        match frame.tag {
            // Neither is part of anything, and neither parts what it stands between.
            tag::MARKER | tag::TRUST | tag::PADDING => drop(DropReason::Foreign),
            _ if frame.body.len() as u64 > limit => {
                *attach &= frame.tag == tag::SIGNATURE;
                drop(DropReason::TooLong(limit));
            }
            tag::SIGNATURE if !*attach => drop(DropReason::Orphan),
            tag::SIGNATURE => {
                let component = components.last_mut().expect("an open certificate has its primary key");
                component.signatures.push(Attached {
                    normal: reads,
                    ..Attached::new(&frame.body)
                });
            }
            tag::USER_ID | tag::USER_ATTRIBUTE | tag::PUBLIC_SUBKEY => {
                components.push(Component {
                    normal: reads,
                    ..Component::new(frame.tag, &frame.body)
                });
                *attach = true;
            }
            // What stands behind it still belongs to what stands before it.
            _ => drop(DropReason::Foreign),
        }
    }

    /// What stands here is no whole packet. The beginning of a secret key is as bad as all of it.
    fn broken(&mut self, offset: usize, first: u8, error: FrameError) {
        match (error, packet::tag_of(first)) {
            (FrameError::Truncated { .. }, tag::SECRET_KEY | tag::SECRET_SUBKEY) => {
                self.close();
                self.refuse(offset, RefuseReason::SecretKey);
            }
            _ => self.refuse(offset, error.into()),
        }
    }

    /// Notes a refusal. A frame error keeps the certificate before it; anything else gives it up.
    fn refuse(&mut self, offset: usize, reason: RefuseReason) {
        if matches!(reason, RefuseReason::Frame(_)) {
            self.close();
        }
        self.state = State::Skip;
        self.keyring.holds_secret |= reason == RefuseReason::SecretKey;
        match self.keyring.refused.len() < REFUSED_MAX {
            true => self.keyring.refused.push(Refused { offset, reason }),
            false => self.keyring.refused_more += 1,
        }
    }

    fn close(&mut self) {
        let State::Open {
            mut components,
            dropped,
            normal,
            offset,
            ..
        } = std::mem::replace(&mut self.state, State::Start)
        else {
            return;
        };
        components[0].normal = u32::from(!normal.lost);
        match Cert::of_copy(components) {
            Ok(cert) => self.keyring.certs.push(Incoming { cert, dropped }),
            Err(error) => self.refuse(offset, error.into()),
        }
    }
}

/// Refusals that are named one by one: two octets are enough for one.
const REFUSED_MAX: usize = 100;
/// Signatures without a key that are read: each has to be looked for among the stored certificates.
const BARE_SIGNATURES_MAX: usize = 16;
/// Trust packets that are kept behind one signature: Hockeypuck writes one of some forty octets.
const TRUST_PACKETS_MAX: usize = 4;
/// Octets of the body of each.
const TRUST_OCTETS_MAX: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_takes_little_room() {
        // Key packets without a body, and behind them a secret key.
        let input = [[0xC6, 0].repeat(1_000), vec![0xC5, 1, 4]].concat();
        let keyring = Keyring::read(&input, &Limits::default());
        assert_eq!((keyring.refused.len(), keyring.refused_more), (REFUSED_MAX, 901));
        assert!(keyring.holds_secret());
        // Signatures without a key.
        let keyring = Keyring::read(&[0xC2, 1, 4].repeat(1_000), &Limits::default());
        assert_eq!(keyring.bare_signatures.len(), BARE_SIGNATURES_MAX);
        assert_eq!(
            keyring.refused[0].reason,
            RefuseReason::TooManySignatures(BARE_SIGNATURES_MAX)
        );
    }
}
