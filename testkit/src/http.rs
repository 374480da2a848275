//! A small blocking HTTP client for tests: both versions, connections kept alive, and any octets as a request.
//!
//! [`Head`] is shared with the load generator.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::armor::form_encode;
use crate::error::{At, Error};

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code, such as 200.
    pub status: u16,
    /// Header fields in the order sent; names in lower case.
    pub fields: Vec<(String, String)>,
    /// The content, without transfer coding.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first value of the header field `name`, in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    /// The content as text, for tests to search.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection to one server, made anew when the server closes it.
#[derive(Debug)]
pub struct Client {
    server: SocketAddr,
    connection: Option<TcpStream>,
    unread: Vec<u8>,
}

impl Client {
    /// A client of `server`; connects with the first request.
    pub fn new(server: SocketAddr) -> Self {
        Self {
            server,
            connection: None,
            unread: Vec::new(),
        }
    }

    /// `GET target` in HTTP/1.1.
    ///
    /// # Errors
    /// When the server does not answer in HTTP within 30 seconds.
    pub fn get(&mut self, target: &str) -> Result<Answer, Error> {
        self.request("GET", target, &[], b"")
    }

    /// `POST` of the urlencoded form `fields`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post_form(&mut self, target: &str, fields: &[(&str, &str)]) -> Result<Answer, Error> {
        let form: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", form_encode(value)))
            .collect();
        let kind = [("Content-Type", "application/x-www-form-urlencoded")];
        self.request("POST", target, &kind, form.join("&").as_bytes())
    }

    /// Submits certificates as GnuPG does.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn add(&mut self, armored: &str) -> Result<Answer, Error> {
        self.post_form("/pks/add", &[("keytext", armored)])
    }

    /// Any method, extra header fields and body; `Content-Length` is added when there is a body.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, Error> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.server);
        for (name, value) in fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.send([head.as_bytes(), body].concat().as_slice(), method != "HEAD")
    }

    /// Sends `octets` as they are and reads one answer, with a body unless `has_body` is false (as after `HEAD`).
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn send(&mut self, octets: &[u8], has_body: bool) -> Result<Answer, Error> {
        let kept = self.connection.is_some();
        match self.exchange(octets, has_body) {
            // The server may close a kept connection at any time: try once more with a new one.
            Err(Error::Io { .. }) if kept && self.unread.is_empty() => {
                self.connection = None;
                self.exchange(octets, has_body)
            }
            result => result,
        }
        .inspect_err(|_| self.close())
    }

    /// Forgets the connection.
    pub fn close(&mut self) {
        self.connection = None;
        self.unread.clear();
    }

    fn exchange(&mut self, octets: &[u8], has_body: bool) -> Result<Answer, Error> {
        let place = self.server.to_string();
        if self.connection.is_none() {
            let connection = TcpStream::connect_timeout(&self.server, TIMEOUT).at(&place)?;
            connection.set_nodelay(true).at(&place)?;
            connection.set_read_timeout(Some(TIMEOUT)).at(&place)?;
            connection.set_write_timeout(Some(TIMEOUT)).at(&place)?;
            self.connection = Some(connection);
            self.unread.clear();
        }
        if let Some(connection) = &mut self.connection {
            // A server may answer and close before it has read everything: the answer counts then.
            if let Err(error) = connection.write_all(octets)
                && !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
            {
                return Err(error).at(&place);
            }
        }
        self.answer(has_body)
    }

    fn answer(&mut self, has_body: bool) -> Result<Answer, Error> {
        let head = loop {
            match Head::parse(&self.unread)? {
                // Interim answers, such as 100 Continue, precede the real one.
                Some(head) if head.status / 100 == 1 => drop(self.unread.drain(..head.octets)),
                Some(head) => break head,
                None if self.unread.len() > HEAD_OCTETS_MAX => return Err(Error::Answer("endless head".to_owned())),
                None => self.read_some(true).map(drop)?,
            }
        };
        let fields = head_fields(&self.unread[..head.octets]);
        self.unread.drain(..head.octets);
        let body = match head.framing {
            _ if !has_body || matches!(head.status, 204 | 304) => Vec::new(),
            Framing::Length(octets) => self.take(octets)?,
            Framing::Chunked => self.chunks()?,
            Framing::UntilClose => {
                while self.read_some(false)? {}
                std::mem::take(&mut self.unread)
            }
        };
        if !head.keeps_alive {
            self.close();
        }
        Ok(Answer {
            status: head.status,
            fields,
            body,
        })
    }

    fn chunks(&mut self) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let octets =
                usize::from_str_radix(digits, 16).map_err(|_| Error::Answer(format!("chunk size {line:?}")))?;
            if octets == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.take(octets)?);
            self.line()?;
        }
    }

    fn line(&mut self) -> Result<String, Error> {
        loop {
            if let Some(end) = self.unread.iter().position(|octet| *octet == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            self.read_some(true)?;
        }
    }

    fn take(&mut self, octets: usize) -> Result<Vec<u8>, Error> {
        while self.unread.len() < octets {
            self.read_some(true)?;
        }
        Ok(self.unread.drain(..octets).collect())
    }

    /// Reads what there is; false at the end of the stream, which is an error when `needed`.
    fn read_some(&mut self, needed: bool) -> Result<bool, Error> {
        let mut buffer = [0; 16 * 1024];
        let connection = self
            .connection
            .as_mut()
            .ok_or_else(|| Error::Answer("no connection".to_owned()))?;
        let octets = connection.read(&mut buffer).at(self.server.to_string())?;
        if octets == 0 && needed {
            return Err(ErrorKind::UnexpectedEof.into()).at(self.server.to_string());
        }
        self.unread.extend_from_slice(&buffer[..octets]);
        Ok(octets > 0)
    }
}

/// How the end of a body is found (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many octets.
    Length(usize),
    /// By chunks.
    Chunked,
    /// Where the connection ends.
    UntilClose,
}

/// What a client must know of the head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Status code.
    pub status: u16,
    /// Length of the head with its empty line.
    pub octets: usize,
    /// Where the body ends.
    pub framing: Framing,
    /// The server takes another request on this connection.
    pub keeps_alive: bool,
}

impl Head {
    /// The head at the start of `octets`; none while it is incomplete.
    ///
    /// # Errors
    /// When this is no HTTP.
    pub fn parse(octets: &[u8]) -> Result<Option<Self>, Error> {
        let Some(end) = octets.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(None);
        };
        let wrong = || Error::Answer(String::from_utf8_lossy(&octets[..end.min(200)]).into_owned());
        let version_1_1 = octets.starts_with(b"HTTP/1.1 ");
        if !version_1_1 && !octets.starts_with(b"HTTP/1.0 ") {
            return Err(wrong());
        }
        let status = std::str::from_utf8(&octets[9..end.min(12)])
            .ok()
            .and_then(|digits| digits.parse().ok());
        let mut head = Self {
            status: status.ok_or_else(wrong)?,
            octets: end + 4,
            framing: Framing::UntilClose,
            keeps_alive: version_1_1,
        };
        for line in octets[..end].split(|octet| *octet == b'\n').skip(1) {
            head.read_field(line).ok_or_else(wrong)?;
        }
        head.keeps_alive &= head.framing != Framing::UntilClose;
        Ok(Some(head))
    }

    fn read_field(&mut self, line: &[u8]) -> Option<()> {
        let colon = line.iter().position(|octet| *octet == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            self.framing = Framing::Length(std::str::from_utf8(value).ok()?.parse().ok()?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case(b"connection") {
            self.keeps_alive = value.eq_ignore_ascii_case(b"keep-alive");
        }
        Some(())
    }
}

const TIMEOUT: Duration = Duration::from_secs(30);
const HEAD_OCTETS_MAX: usize = 64 * 1024;

fn head_fields(head: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(head);
    let pairs = text.lines().skip(1).filter_map(|line| line.split_once(':'));
    pairs
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers each connection with one of `answers`, whatever is asked.
    fn server(answers: Vec<&'static [u8]>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for answer in answers {
                let (mut connection, _) = listener.accept().unwrap();
                assert!(connection.read(&mut [0; 4096]).unwrap() > 0);
                connection.write_all(answer).unwrap();
            }
        });
        address
    }

    #[test]
    fn bodies_end_by_length_chunks_or_close() {
        let mut client = Client::new(server(vec![
            b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 2\r\n\r\nab",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\nto the end",
        ]));
        let first = client.get("/").unwrap();
        assert_eq!(
            (first.status, first.field("x-a"), first.body.as_slice()),
            (200, Some("b"), b"ab".as_slice())
        );
        let second = client.get("/").unwrap();
        assert_eq!((second.status, second.text().as_str()), (404, "abcd"));
        client.close();
        assert_eq!(client.get("/").unwrap().text(), "to the end");
    }

    #[test]
    fn kept_connections_need_a_known_end() {
        let head = |text: &str| Head::parse(text.as_bytes()).unwrap().unwrap();
        assert!(head("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").keeps_alive);
        assert!(!head("HTTP/1.1 200 OK\r\n\r\n").keeps_alive);
        assert!(!head("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").keeps_alive);
        assert!(!head("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").keeps_alive);
        assert!(head("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n").keeps_alive);
        assert!(Head::parse(b"SSH-2.0\r\n\r\n").is_err());
    }
}
