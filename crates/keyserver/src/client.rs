//! `keyrink get` and `keyrink search`: asking any keyserver from the command line.
//!
//! What a keyserver answers is not trusted: answers are bounded, and nothing of them reaches a terminal as a
//! control sequence. Whether a certificate is the right one is for the program that imports it to decide.

mod address;
pub mod hashquery;
pub(crate) mod index;

use crate::cli;
use address::{Address, BadAddress};
use keyrink_openpgp::armor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

/// Why a keyserver gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// `--server` is no keyserver.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// The server has nothing that matches.
    #[error("{0} has nothing for \"{1}\"")]
    NotFound(String, String),
    /// The server refused.
    #[error("{0} answered {1}: {2}")]
    Refused(String, u16, String),
    /// The server could not be asked, or its answer is broken or too long.
    #[error("cannot ask {0}: {1}")]
    Unreachable(String, Box<ureq::Error>),
    /// The answer is something else than asked for.
    #[error("{0} sent {1}")]
    Unexpected(String, &'static str),
    /// The answer could not be written.
    #[error("cannot write {0}: {1}")]
    Write(PathBuf, io::Error),
}

/// Runs `keyrink get`.
pub fn get(arguments: &cli::Get) -> Result<(), ClientError> {
    let keyserver = Keyserver::new(&arguments.server)?;
    let options = if arguments.bin { "mr,bin" } else { "mr" };
    let body = keyserver.lookup("get", options, &arguments.search)?;
    let body = in_form(body, arguments.bin).ok_or_else(|| keyserver.unexpected("no certificate"))?;
    match &arguments.output {
        Some(path) => std::fs::write(path, body).map_err(|error| ClientError::Write(path.clone(), error)),
        None => io::stdout()
            .write_all(&body)
            .map_err(|error| ClientError::Write("standard output".into(), error)),
    }
}

/// Runs `keyrink search`.
pub fn search(arguments: &cli::Search) -> Result<(), ClientError> {
    let keyserver = Keyserver::new(&arguments.server)?;
    let body = keyserver.lookup("index", "mr", &arguments.text)?;
    let Some(index) = index::parse(&body) else {
        return Err(keyserver.unexpected("no machine-readable index"));
    };
    if index.is_empty() {
        return Err(ClientError::NotFound(
            keyserver.address.to_string(),
            arguments.text.clone(),
        ));
    }
    let mut out = io::stdout().lock();
    index
        .iter()
        .try_for_each(|certificate| write!(out, "{certificate}"))
        .map_err(|error| ClientError::Write("standard output".into(), error))
}

/// Is this the address of a keyserver without TLS?
pub fn is_plain_http(text: &str) -> bool {
    text.parse::<Address>()
        .is_ok_and(|address| address.base().starts_with("http://"))
}

/// Certificates in the form wanted, whatever form they came in; `None` if they are none.
fn in_form(body: Vec<u8>, binary: bool) -> Option<Vec<u8>> {
    let is_armored = body
        .trim_ascii_start()
        .starts_with(b"-----BEGIN PGP PUBLIC KEY BLOCK-----");
    let is_binary = body.first().is_some_and(|octet| octet & PACKET_BIT != 0);
    match (is_armored, is_binary) {
        (true, _) if binary => armor::decode(&body).ok(),
        (_, true) if !binary => {
            let mut armored = Vec::new();
            armor::encode(armor::PUBLIC_KEY_BLOCK, &body, &mut armored);
            Some(armored)
        }
        (true, _) | (_, true) => Some(body),
        (false, false) => None,
    }
}

/// Set in the first octet of every packet (RFC 9580, section 4.2).
const PACKET_BIT: u8 = 0x80;

/// A server to ask and the means to do so.
struct Keyserver {
    address: Address,
    agent: Agent,
}

impl Keyserver {
    fn new(server: &cli::Server) -> Result<Self, BadAddress> {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(server.timeout.get().into())))
            .user_agent(concat!("keyrink/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self {
            address: server.server.parse()?,
            agent: agent.into(),
        })
    }

    fn lookup(&self, operation: &str, options: &str, search: &str) -> Result<Vec<u8>, ClientError> {
        let search_term = term(search);
        let search_term = utf8_percent_encode(&search_term, ESCAPED);
        let url = format!(
            "{}/pks/lookup?op={operation}&options={options}&search={search_term}",
            self.address.base()
        );
        let unreachable = |error| ClientError::Unreachable(self.address.to_string(), Box::new(error));
        let mut response = self.agent.get(url).call().map_err(unreachable)?;
        let status = response.status().as_u16();
        let body = response
            .body_mut()
            .with_config()
            .limit(ANSWER_OCTETS_MAX)
            .read_to_vec()
            .map_err(unreachable)?;
        match status {
            200 => Ok(body),
            404 => Err(ClientError::NotFound(self.address.to_string(), search.into())),
            _ => Err(ClientError::Refused(
                self.address.to_string(),
                status,
                first_line(&body),
            )),
        }
    }

    fn unexpected(&self, what: &'static str) -> ClientError {
        ClientError::Unexpected(self.address.to_string(), what)
    }
}

/// Hex that looks like a key id or a fingerprint gets its `0x`, also when it is written in groups.
fn term(search: &str) -> String {
    let digits: String = search.chars().filter(|c| !c.is_whitespace()).collect();
    let digits = digits
        .strip_prefix("openpgp4fpr:")
        .or(digits.strip_prefix("OPENPGP4FPR:"))
        .unwrap_or(&digits);
    let digits = digits
        .strip_prefix("0x")
        .or(digits.strip_prefix("0X"))
        .unwrap_or(digits);
    let is_id = [16, 32, 40, 64].contains(&digits.len()) && digits.bytes().all(|octet| octet.is_ascii_hexdigit());
    if is_id {
        format!("0x{digits}")
    } else {
        search.to_string()
    }
}

/// The first line of an error page that has words in it, without markup.
fn first_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(LINE_OCTETS_MAX)]);
    let mut inside_tag = false;
    let words: String = text
        .chars()
        .filter(|&c| match c {
            '<' => {
                inside_tag = true;
                false
            }
            '>' => {
                inside_tag = false;
                false
            }
            _ => !inside_tag,
        })
        .collect();
    let line = words
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or("no reason");
    index::harmless(line)
}

/// What stands for itself in a query.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'@');
/// The longest answer that is read.
const ANSWER_OCTETS_MAX: u64 = 64 << 20;
/// How far into an error page its reason is looked for.
const LINE_OCTETS_MAX: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    /// A server that answers one request and returns the request line.
    fn server(answer: &'static [u8]) -> (cli::Server, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("hkp://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let mut connection = listener.accept().unwrap().0;
            let mut request = vec![0; 4096];
            let count = connection.read(&mut request).unwrap();
            connection.write_all(answer).unwrap();
            String::from_utf8_lossy(&request[..count])
                .lines()
                .next()
                .unwrap_or_default()
                .to_string()
        });
        (
            cli::Server {
                server,
                timeout: std::num::NonZeroU32::MIN,
            },
            thread,
        )
    }

    fn get_from(answer: &'static [u8], search: &str) -> (Result<(), String>, String) {
        let (server, thread) = server(answer);
        let output = tempfile::NamedTempFile::new().unwrap();
        let arguments = cli::Get {
            server,
            search: search.into(),
            output: Some(output.path().into()),
            bin: false,
        };
        let result = get(&arguments).map_err(|error| error.to_string());
        (result, thread.join().unwrap())
    }

    #[test]
    fn the_request_is_what_keyservers_expect() {
        let answer = b"HTTP/1.0 200 OK\r\n\r\n-----BEGIN PGP PUBLIC KEY BLOCK-----\n";
        let (result, line) = get_from(answer, "A <a+b@c.example>");
        assert_eq!(result, Ok(()));
        assert_eq!(
            line,
            "GET /pks/lookup?op=get&options=mr&search=A%20%3Ca%2Bb@c.example%3E HTTP/1.1"
        );
    }

    #[test]
    fn refusals_are_told_in_one_harmless_line() {
        let (result, _) = get_from(b"HTTP/1.0 404 Not Found\r\n\r\nno", "x");
        assert!(result.unwrap_err().ends_with("has nothing for \"x\""));
        let (result, _) = get_from(b"HTTP/1.0 500 Oh\r\n\r\n<html>\n<h1>Too many \x1b[31mhits</h1>", "x");
        assert!(result.unwrap_err().ends_with("answered 500: Too many \\u{1b}[31mhits"));
        let (result, _) = get_from(b"HTTP/1.0 200 OK\r\n\r\n<html>hello", "x");
        assert!(result.unwrap_err().ends_with("sent no certificate"));
    }

    #[test]
    fn certificates_take_the_form_wanted() {
        let binary = b"\x99\0\x01\x04".to_vec();
        let armored = in_form(binary.clone(), false).unwrap();
        assert!(armored.starts_with(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n"));
        assert_eq!(in_form(armored.clone(), true), Some(binary.clone()));
        assert_eq!(in_form(armored.clone(), false), Some(armored));
        assert_eq!(in_form(binary.clone(), true), Some(binary));
        assert_eq!(
            (in_form(b"<html>".to_vec(), true), in_form(Vec::new(), false)),
            (None, None)
        );
    }

    #[test]
    fn ids_get_their_prefix() {
        assert_eq!(
            term("80E9 76F1 4A50 8A48 E9CA  3FE9 BC37 2252 CA1C F964"),
            "0x80E976F14A508A48E9CA3FE9BC372252CA1CF964"
        );
        assert_eq!(term("0XBC372252CA1CF964"), "0xBC372252CA1CF964");
        assert_eq!(term("Ann Other"), "Ann Other");
        assert_eq!(term("deadbeef"), "deadbeef");
    }
}
