//! `POST /pks/hashquery` to a peer: fetching the certificates that reconciliation found.
//!
//! The answer is read as a stream: nothing is allocated for a length before its octets are there, a certificate that
//! is too long is passed over, and an answer has an end however long the peer says it is. Redirects are not followed:
//! a peer must not aim our requests at others.

use std::io::{self, Read};
use std::time::Duration;
use ureq::Agent;
use ureq::http::{HeaderMap, Uri, header};

/// Where a peer answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source(String);

impl Source {
    /// Plain HTTP at a host, by name or address, and a port.
    pub fn new(host: &str, port: u16) -> Self {
        match host.contains(':') {
            true => Self(format!("http://[{host}]:{port}")),
            false => Self(format!("http://{host}:{port}")),
        }
    }

    /// The address of a keyserver as people write it.
    pub fn parse(text: &str) -> Option<Self> {
        let address: super::address::Address = text.parse().ok()?;
        Some(Self(address.base().to_owned()))
    }

    /// The port.
    pub fn port(&self) -> Option<u16> {
        self.0.parse::<Uri>().ok()?.port_u16()
    }
}

/// How much of an answer is taken.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Octets of one certificate; a longer one is passed over.
    pub certificate: u64,
    /// Octets of a whole answer; what comes behind them is not read.
    pub answer: u64,
}

/// Why a peer delivered nothing.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It could not be asked.
    #[error("{0} cannot be asked for certificates: {1}")]
    Unreachable(String, Box<ureq::Error>),
    /// It wants to be asked again after a while.
    #[error("{0} asks to be left alone for {seconds} s", seconds = .1.as_secs())]
    Busy(String, Duration),
    /// It refused.
    #[error("{0} answered {1} to a request for certificates")]
    Refused(String, u16),
    /// Its answer ended early or makes no sense.
    #[error("the certificates of {0} broke off: {1}")]
    Broken(String, io::Error),
    /// Its answer goes on and on.
    #[error("the answer of {0} is longer than {1} octets")]
    TooLong(String, u64),
}

/// What came of a question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Octets that were read.
    pub octets: u64,
    /// What became of each digest, in the order asked; empty if the peer does not say.
    pub states: Vec<DigestState>,
}

/// What became of a digest that a peer was asked for. The numbers are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DigestState {
    /// A certificate with it is in the answer.
    Included = 0,
    /// It is not known.
    Unknown = 1,
    /// Its certificate is not given out.
    Withheld = 2,
    /// The answer is full: ask again.
    LeftOut = 3,
    /// The server has no time: ask later.
    Busy = 4,
}

impl DigestState {
    /// The state that this number stands for.
    fn of(number: u8) -> Option<Self> {
        let all = [Self::Included, Self::Unknown, Self::Withheld, Self::LeftOut, Self::Busy];
        all.into_iter().find(|state| *state as u8 == number)
    }
}

/// The header by which a client asks for the state of each digest, and whose value is 2.
pub const GENERATION_HEADER: &str = "Sks-Recon";
/// Octets of a digest of the second generation.
const SECOND_OCTETS: usize = 32;

/// Asks peers for certificates.
#[derive(Clone, Debug)]
pub struct Fetcher {
    agent: Agent,
    bounds: Bounds,
}

impl Fetcher {
    /// One that takes so much.
    pub fn new(bounds: Bounds) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_WITHIN))
            .timeout_recv_response(Some(ANSWER_WITHIN))
            .timeout_global(Some(WHOLE_WITHIN))
            .user_agent(concat!("keyrink/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: agent.into(),
            bounds,
        }
    }

    /// Asks at a path for the certificates with these digests and hands over each that comes. Digests of the second generation are
    /// those of 32 octets: who knows them tells what became of each digest.
    pub fn fetch(
        &self,
        source: &Source,
        path: &str,
        digests: &[Vec<u8>],
        each: impl FnMut(Vec<u8>),
    ) -> Result<Fetched, FetchError> {
        let at = || source.0.clone();
        let second = digests.iter().any(|digest| digest.len() == SECOND_OCTETS);
        let mut request = self.agent.post(format!("{}{path}", source.0));
        request = request.header("Content-Type", "sks/hashquery");
        if second {
            request = request.header(GENERATION_HEADER, "2");
        }
        let answer = request.send(&question(digests));
        let mut answer = answer.map_err(|error| match is_unreachable(&error) {
            true => FetchError::Unreachable(at(), Box::new(error)),
            // It may be what was asked for that makes it fall silent.
            false => FetchError::Broken(at(), io::Error::other(error)),
        })?;
        match answer.status().as_u16() {
            200 => {}
            429 | 503 => return Err(FetchError::Busy(at(), patience(answer.headers()))),
            status => return Err(FetchError::Refused(at(), status)),
        }
        let mut body = Answer {
            left: self.bounds.answer,
            stream: answer.body_mut().with_config().limit(u64::MAX).reader(),
        };
        match read(&mut body, digests.len(), self.bounds.certificate, each) {
            Ok(()) => {
                let states = if second { states(&mut body, digests.len()) } else { None };
                Ok(Fetched {
                    octets: self.bounds.answer - body.left,
                    states: states.unwrap_or_default(),
                })
            }
            Err(_) if body.left == 0 => Err(FetchError::TooLong(at(), self.bounds.answer)),
            Err(error) => Err(FetchError::Broken(at(), error)),
        }
    }
}

/// Did the question never get there?
fn is_unreachable(error: &ureq::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => true,
        ureq::Error::Io(error) => matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable),
        _ => false,
    }
}

/// How long a peer that is busy wants to be left alone (RFC 9110 section 10.2.3; a date counts as nothing said).
fn patience(headers: &HeaderMap) -> Duration {
    let said = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    said.map_or(BUSY_USUALLY, Duration::from_secs).clamp(BUSY_MIN, BUSY_MAX)
}

/// A body of which so much is taken.
struct Answer<R> {
    left: u64,
    stream: R,
}

impl<R: Read> Read for Answer<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.stream.read(&mut buffer[..room])?;
        self.left -= count as u64;
        Ok(count)
    }
}

fn question(digests: &[Vec<u8>]) -> Vec<u8> {
    let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let mut out = number(digests.len()).to_vec();
    for digest in digests {
        out.extend_from_slice(&number(digest.len()));
        out.extend_from_slice(digest);
    }
    out
}

/// Reads the counted list of an answer.
pub(crate) fn read(
    stream: &mut impl Read,
    asked: usize,
    certificate: u64,
    mut each: impl FnMut(Vec<u8>),
) -> io::Result<()> {
    let count = number(stream)?;
    // A digest can stand for several certificates, but not for many.
    if count as usize > FOR_EACH_MAX * asked {
        let reason = format!("{count} certificates where {asked} were asked for");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    for _ in 0..count {
        let length = u64::from(number(stream)?);
        let mut octets = Vec::new();
        let copied = match length > certificate {
            true => io::copy(&mut stream.by_ref().take(length), &mut io::sink())?,
            false => stream.by_ref().take(length).read_to_end(&mut octets)? as u64,
        };
        if copied < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !octets.is_empty() {
            each(octets);
        }
    }
    Ok(())
}

/// The states behind an answer to so many digests; nothing if there are none, or something else is there.
pub(crate) fn states(stream: &mut impl Read, asked: usize) -> Option<Vec<DigestState>> {
    let mut end = [0; 2];
    stream.read_exact(&mut end).ok().filter(|()| end == *b"\r\n")?;
    let count = number(stream).ok().filter(|count| *count as usize == asked)?;
    let mut states = Vec::new();
    stream
        .take(count.into())
        .read_to_end(&mut states)
        .ok()
        .filter(|octets| *octets == asked)?;
    states.into_iter().map(DigestState::of).collect()
}

fn number(stream: &mut impl Read) -> io::Result<u32> {
    let mut octets = [0; 4];
    stream.read_exact(&mut octets)?;
    Ok(u32::from_be_bytes(octets))
}

const CONNECT_WITHIN: Duration = Duration::from_secs(15);
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const WHOLE_WITHIN: Duration = Duration::from_secs(180);
const FOR_EACH_MAX: usize = 4;
/// How long a peer is left alone that is busy, if it does not say, and in any case.
const BUSY_USUALLY: Duration = Duration::from_secs(20);
const BUSY_MIN: Duration = Duration::from_secs(1);
const BUSY_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    fn certificates(answer: &[u8], certificate: u64) -> (io::Result<()>, Vec<Vec<u8>>) {
        let mut found = Vec::new();
        let result = read(&mut &answer[..], 2, certificate, |octets| found.push(octets));
        (result, found)
    }

    #[test]
    fn answers_are_read_and_bounded() {
        let answer = b"\0\0\0\x03\0\0\0\x02ab\0\0\0\x04cdef\0\0\0\x01g\r\n";
        let (result, found) = certificates(answer, 3);
        assert!(result.is_ok());
        assert_eq!(found, [b"ab".to_vec(), b"g".to_vec()], "the long one is passed over");
        for end in 0..answer.len() - 2 {
            assert!(certificates(&answer[..end], 3).0.is_err(), "cut at {end}");
        }
        assert!(certificates(b"\xff\xff\xff\xff", 3).0.is_err());
        assert!(certificates(b"\0\0\0\x01\xff\xff\xff\xff", u64::MAX).0.is_err());
    }

    #[test]
    fn the_vector_of_a_question_is_asked_and_its_states_understood() {
        let vectors = std::fs::read("../../testdata/recon-v2/vectors.json").unwrap();
        let vectors: serde_json::Value = serde_json::from_slice(&vectors).unwrap();
        let octets = |key: &str| -> Vec<u8> {
            let digits = vectors["recovery"][key].as_str().unwrap().as_bytes().chunks(2);
            let octet = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            digits.map(octet).collect()
        };
        let request = octets("request");
        let digests: Vec<Vec<u8>> = request[4..].chunks(36).map(|counted| counted[4..].to_vec()).collect();
        assert_eq!(question(&digests), request);
        let block = [b"\r\n".to_vec(), octets("status_block")].concat();
        let told = [DigestState::Included, DigestState::Included, DigestState::Unknown];
        assert_eq!(states(&mut &block[..], 3), Some(told.to_vec()));
    }

    #[test]
    fn states_are_told_or_not() {
        let told = |octets: &[u8]| states(&mut &octets[..], 2);
        let whole = b"\r\n\0\0\0\x02\x00\x02";
        assert_eq!(told(whole), Some(vec![DigestState::Included, DigestState::Withheld]));
        (0..whole.len()).for_each(|end| assert_eq!(told(&whole[..end]), None, "cut at {end}"));
        assert_eq!(told(b"\r\n\0\0\0\x02\x00\x05"), None, "no such state");
        assert_eq!(told(b"\r\n\0\0\0\x01\x00\x00"), None, "not as many as were asked for");
    }

    #[test]
    fn sources_are_urls() {
        assert_eq!(Source::new("::1", 80).0, "http://[::1]:80");
        assert_eq!(
            Source::parse("http://keys.example/x/"),
            Some(Source("http://keys.example:80/x".into()))
        );
        assert_eq!(Source::new("::1", 80).port(), Some(80));
    }
}
