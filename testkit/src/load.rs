//! The load generator: many connections in one thread, so that it takes little from the machine it measures on.
//!
//! Each connection sends a request, waits for the whole answer, and sends the next; it stays open as long as the server
//! allows. Bodies are counted and dropped.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::armor::{armor, form_encode};
use crate::error::{At, Error};
use crate::http::{Framing, Head};

/// What to send.
#[derive(Debug)]
pub enum Work {
    /// These requests over and over until the time is up.
    Cycle(Vec<Vec<u8>>),
    /// Each request once, or until the time is up.
    Once(Vec<Vec<u8>>),
}

impl Work {
    /// `GET` of every target, such as `/pks/lookup?op=get&search=…`.
    pub fn get(targets: impl IntoIterator<Item = String>) -> Self {
        let request = |target| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
        Self::Cycle(targets.into_iter().map(request).collect())
    }

    /// Submissions of binary certificates, one a request.
    pub fn submit(certificates: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self::Once(certificates.into_iter().map(|octets| submission(&octets)).collect())
    }

    fn request(&self, number: usize) -> Option<&[u8]> {
        match self {
            Self::Cycle(requests) => requests.get(number % requests.len().max(1)),
            Self::Once(requests) => requests.get(number),
        }
        .map(Vec::as_slice)
    }
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Octets of all answers, heads included.
    pub octets: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Connections refused or broken.
    pub failures: u64,
    latencies_micros: Vec<u32>,
}

impl Report {
    /// Answers with status 200.
    pub fn good(&self) -> u64 {
        self.statuses.get(&200).copied().unwrap_or(0)
    }

    /// Other answers and failed connections.
    pub fn errors(&self) -> u64 {
        self.statuses.values().sum::<u64>() - self.good() + self.failures
    }

    /// Answers with status 200 a second.
    pub fn per_second(&self) -> f64 {
        self.good() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The time within which this share of the answers came, connecting included; 0.5 is the median.
    pub fn latency(&self, share: f64) -> Duration {
        let place = ((self.latencies_micros.len() as f64 * share) as usize).min(self.latencies_micros.len().max(1) - 1);
        Duration::from_micros(self.latencies_micros.get(place).copied().unwrap_or(0).into())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |share| self.latency(share).as_secs_f64() * 1e3;
        write!(
            out,
            "{:.0} req/s, p50 {:.2} ms, p99 {:.2} ms, ",
            self.per_second(),
            millis(0.5),
            millis(0.99)
        )?;
        write!(
            out,
            "{:.1} MB/s, ",
            self.octets as f64 / 1e6 / self.elapsed.as_secs_f64().max(1e-9)
        )?;
        write!(out, "{} answers, {} errors", self.good(), self.errors())?;
        match self.errors() {
            0 => Ok(()),
            _ => write!(out, " (statuses {:?}, {} failures)", self.statuses, self.failures),
        }
    }
}

/// Sends `work` to `server` over `connections` for `duration` at most.
///
/// # Errors
/// When no socket can be made; answers of any status and broken connections are counted instead.
pub fn run(server: SocketAddr, connections: usize, duration: Duration, work: &Work) -> Result<Report, Error> {
    let mut generator = Generator {
        server,
        work,
        poll: Poll::new().at("epoll")?,
        next: 0,
        report: Report::default(),
        buffer: vec![0; 256 * 1024],
    };
    let start = Instant::now();
    let mut slots: Vec<Slot> = (0..connections).map(|_| Slot::new(start)).collect();
    for (number, slot) in slots.iter_mut().enumerate() {
        generator.begin(number, slot)?;
    }
    let mut events = Events::with_capacity(connections.max(1));
    let deadline = start + duration;
    while slots.iter().any(|slot| slot.stream.is_some()) {
        let now = Instant::now();
        if now >= deadline {
            break;
        }
        generator.poll.poll(&mut events, Some(deadline - now)).at("epoll")?;
        for event in &events {
            let number = event.token().0;
            generator.advance(number, &mut slots[number], event.is_writable())?;
        }
    }
    let mut report = generator.report;
    report.elapsed = start.elapsed();
    report.latencies_micros.sort_unstable();
    Ok(report)
}

/// The request that submits one binary certificate as GnuPG does.
pub fn submission(certificate: &[u8]) -> Vec<u8> {
    let form = format!("keytext={}", form_encode(&armor(certificate)));
    let kind = "Content-Type: application/x-www-form-urlencoded";
    let length = form.len();
    format!("POST /pks/add HTTP/1.1\r\nHost: localhost\r\n{kind}\r\nContent-Length: {length}\r\n\r\n{form}")
        .into_bytes()
}

struct Generator<'a> {
    server: SocketAddr,
    work: &'a Work,
    poll: Poll,
    next: usize,
    report: Report,
    buffer: Vec<u8>,
}

/// One connection and what it is doing.
struct Slot {
    stream: Option<TcpStream>,
    request: usize,
    sent: usize,
    began: Instant,
    head: Vec<u8>,
    body: Option<Body>,
}

/// A body being read after its head.
struct Body {
    head: Head,
    octets: usize,
}

impl Slot {
    fn new(began: Instant) -> Self {
        Self {
            stream: None,
            request: 0,
            sent: 0,
            began,
            head: Vec::new(),
            body: None,
        }
    }
}

impl Generator<'_> {
    /// Takes the next request and starts sending it, on a new connection if need be.
    fn begin(&mut self, number: usize, slot: &mut Slot) -> Result<(), Error> {
        if self.work.request(self.next).is_none() {
            slot.stream = None;
            return Ok(());
        }
        slot.request = self.next;
        self.next += 1;
        (slot.sent, slot.began, slot.body) = (0, Instant::now(), None);
        slot.head.clear();
        if slot.stream.is_some() {
            // The answer raises an event; reading at once would find nothing yet.
            return if self.write(slot) {
                Ok(())
            } else {
                self.fail(number, slot)
            };
        }
        let mut stream = TcpStream::connect(self.server).at(self.server.to_string())?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, Token(number), interest)
            .at("epoll")?;
        slot.stream = Some(stream);
        Ok(())
    }

    /// Writes and reads as far as the socket allows: events come on edges, and the end of the stream may have come with
    /// the octets before it.
    fn advance(&mut self, number: usize, slot: &mut Slot, writable: bool) -> Result<(), Error> {
        if writable && !self.write(slot) {
            return self.fail(number, slot);
        }
        loop {
            let Some(stream) = &mut slot.stream else { return Ok(()) };
            let octets = match stream.read(&mut self.buffer) {
                Ok(octets) => octets,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
                Err(_) => return self.fail(number, slot),
            };
            self.report.octets += octets as u64;
            match slot.take(&self.buffer[..octets]) {
                Ok(Some(head)) => return self.finish(number, slot, head),
                Ok(None) if octets > 0 => {}
                _ => return self.fail(number, slot),
            }
        }
    }

    fn write(&mut self, slot: &mut Slot) -> bool {
        let request = self.work.request(slot.request).unwrap_or_default();
        while let (Some(stream), true) = (&mut slot.stream, slot.sent < request.len()) {
            match stream.write(&request[slot.sent..]) {
                Ok(octets) => slot.sent += octets,
                Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected),
            }
        }
        true
    }

    fn finish(&mut self, number: usize, slot: &mut Slot, head: Head) -> Result<(), Error> {
        *self.report.statuses.entry(head.status).or_default() += 1;
        self.report
            .latencies_micros
            .push(slot.began.elapsed().as_micros().min(u32::MAX.into()) as u32);
        if !head.keeps_alive {
            slot.stream = None;
        }
        self.begin(number, slot)
    }

    /// Counts a broken connection and goes on with the next request.
    fn fail(&mut self, number: usize, slot: &mut Slot) -> Result<(), Error> {
        self.report.failures += 1;
        slot.stream = None;
        self.begin(number, slot)
    }
}

impl Slot {
    /// Takes octets of the answer, none at its end; the head once the answer is complete.
    fn take(&mut self, octets: &[u8]) -> Result<Option<Head>, Error> {
        let at_end = octets.is_empty();
        let body = match &mut self.body {
            Some(body) => {
                body.octets += octets.len();
                body
            }
            None => {
                self.head.extend_from_slice(octets);
                let Some(head) = Head::parse(&self.head)? else {
                    return Ok(None);
                };
                self.body.insert(Body {
                    head,
                    octets: self.head.len() - head.octets,
                })
            }
        };
        let complete = match body.head.framing {
            Framing::Length(length) => body.octets >= length,
            Framing::UntilClose => at_end,
            Framing::Chunked => return Err(Error::Answer("the load generator reads no chunks".to_owned())),
        };
        Ok(complete.then_some(body.head))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers every request with `answer`; closes after each one if `closes`.
    fn server(answer: &'static [u8], closes: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                thread::spawn(move || {
                    let mut buffer = [0; 65536];
                    while connection.read(&mut buffer).is_ok_and(|octets| octets > 0) {
                        connection.write_all(answer).unwrap();
                        if closes {
                            break;
                        }
                    }
                });
            }
        });
        address
    }

    #[test]
    fn counts_answers_on_kept_and_closed_connections() {
        for (answer, closes) in [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc".as_slice(), false),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", true),
            (b"HTTP/1.0 200 OK\r\n\r\nabc", true),
        ] {
            let requests = (0..100).map(|_| b"GET / HTTP/1.1\r\n\r\n".to_vec()).collect();
            let report = run(
                server(answer, closes),
                4,
                Duration::from_secs(20),
                &Work::Once(requests),
            )
            .unwrap();
            assert_eq!((report.good(), report.errors()), (100, 0), "{report}");
            assert_eq!(report.octets, 100 * answer.len() as u64);
        }
    }

    #[test]
    fn other_statuses_and_refused_connections_are_errors() {
        let busy = server(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", false);
        let work = Work::get(["/".to_owned()]);
        let report = run(busy, 2, Duration::from_millis(50), &work).unwrap();
        assert!(report.good() == 0 && report.errors() > 0, "{report}");
    }
}
