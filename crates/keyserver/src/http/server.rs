//! The listening sockets and what happens to a connection: TLS, limits of number and time, orderly end.
//!
//! The server knows nothing of keyservers: it hands requests to [`Answers`].
//! Slow clients are cut in every phase: handshake and headers by `header_seconds` (which also ends idle
//! connections), bodies by [`super::body::read`], a whole request by `request_seconds`, and a client that hardly reads its
//! answer by `OCTETS_PER_SECOND_MIN`. When all places are taken, those who do nothing with theirs lose it at once.

use super::answer::Answers;
use super::hyper_refusals::HyperRefusals;
use super::meter::{Meter, Requests};
use super::request_line::RequestLine;
use super::tls::{self, Certificate, TlsError};
use crate::config;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use metrics::counter;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// A server that listens but does not answer yet.
pub struct Server {
    listeners: Vec<(TcpListener, Option<TlsAcceptor>)>,
    certificate: Option<Arc<Certificate>>,
    limits: Limits,
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is in use, not ours or not permitted.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// The certificate for HTTPS.
    #[error(transparent)]
    Certificate(#[from] TlsError),
    /// TLS could not be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

#[derive(Clone, Copy)]
struct Limits {
    connections: u32,
    header_octets: usize,
    header_time: Duration,
    request_time: Duration,
    shutdown_time: Duration,
}

impl Server {
    /// Opens all sockets and reads the certificate. Must run inside the runtime.
    pub fn bind(http: &config::Http) -> Result<Self, StartError> {
        let certificate = match (&http.certificate, &http.key) {
            (Some(chain), Some(key)) => Some(Arc::new(Certificate::load(chain, key)?)),
            _ => None,
        };
        let acceptor = certificate.clone().map(tls::acceptor).transpose()?;
        let plain = http.listen.iter().map(|address| (*address, None));
        let secure = http.listen_tls.iter().map(|address| (*address, acceptor.clone()));
        let listeners = plain
            .chain(secure)
            .map(|(address, acceptor)| match listen(address) {
                Ok(listener) => Ok((listener, acceptor)),
                Err(error) => Err(StartError::Listen(address, error)),
            })
            .collect::<Result<_, _>>()?;
        let seconds = |value: std::num::NonZeroU32| Duration::from_secs(value.get().into());
        let limits = Limits {
            connections: http.connections.get(),
            header_octets: http.header_octets.get() as usize,
            header_time: seconds(http.header_seconds),
            request_time: seconds(http.request_seconds),
            shutdown_time: seconds(http.shutdown_seconds),
        };
        Ok(Self {
            listeners,
            certificate,
            limits,
        })
    }

    /// Where it listens, plain and then TLS, each in the order configured; port 0 has become the real one.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter_map(|(listener, _)| listener.local_addr().ok())
            .collect()
    }

    /// The certificate for HTTPS, to be reloaded.
    pub fn certificate(&self) -> Option<Arc<Certificate>> {
        self.certificate.clone()
    }

    /// Serves until `stop` ends, then finishes the requests in flight, at most for `shutdown_seconds`.
    pub async fn run(self, answers: Answers, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(false);
        let connections = self.limits.connections as usize;
        let service = Arc::new(Service {
            answers,
            limits: self.limits,
            places: Arc::new(Semaphore::new(connections)),
            crowded: Notify::new(),
            stopped,
        });
        let mut acceptors = tokio::task::JoinSet::new();
        for (listener, tls) in self.listeners {
            acceptors.spawn(service.clone().accept(listener, tls));
        }
        stop.await;
        // Sockets close at once, so that a successor or another node gets the connections that come now.
        stopping.send_replace(true);
        acceptors.join_all().await;
        let all_closed = service.places.acquire_many(self.limits.connections);
        if tokio::time::timeout(self.limits.shutdown_time, all_closed)
            .await
            .is_err()
        {
            let open = connections - service.places.available_permits();
            tracing::warn!(open, "connections were cut that did not end in time");
        }
    }
}

/// What all connections share.
struct Service {
    answers: Answers,
    limits: Limits,
    /// One permit for each connection; all are back when no connection is left.
    places: Arc<Semaphore>,
    /// Told whenever somebody waits for a place.
    crowded: Notify,
    stopped: watch::Receiver<bool>,
}

impl Service {
    async fn accept(self: Arc<Self>, listener: TcpListener, tls: Option<TlsAcceptor>) {
        let mut stopped = self.stopped.clone();
        loop {
            let next = async {
                let accepted = listener.accept().await;
                Some((self.place().await?, accepted))
            };
            let next = tokio::select! {
                next = next => next,
                _ = stopped.wait_for(|stopped| *stopped) => None,
            };
            match next {
                None => return,
                Some((place, Ok((stream, client)))) => {
                    let connection = self.clone().connection(stream, client, tls.clone());
                    tokio::spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Some((_, Err(error))) => {
                    // Out of file descriptors or memory, or the client went away: others must not suffer for long.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// A place for a connection, if need be that of one that does nothing.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        let mut calls = tokio::time::interval(CROWDED_EVERY);
        let mut place = pin!(Arc::clone(&self.places).acquire_owned());
        loop {
            tokio::select! {
                biased;
                place = place.as_mut() => return place.ok(),
                _ = calls.tick() => self.crowded.notify_waiters(),
            }
        }
    }

    /// Ends when somebody waits for a place and this connection does nothing with its own.
    async fn lose_place(&self, meter: &Meter) {
        loop {
            self.crowded.notified().await;
            if meter.idle() >= IDLE_WHEN_CROWDED {
                return counter!(PUSHED_OUT).increment(1);
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, client: SocketAddr, tls: Option<TlsAcceptor>) {
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else {
            return self.http_1(stream, client).await;
        };
        let meter = Meter::default();
        let handshake = tokio::time::timeout(self.limits.header_time, tls.accept(stream));
        let accepted = tokio::select! {
            biased;
            accepted = handshake => accepted,
            () = self.lose_place(&meter) => return,
        };
        // A failed handshake is the client's business: scanners do that all day.
        let Ok(Ok(stream)) = accepted else { return };
        if stream.get_ref().1.alpn_protocol() == Some(tls::HTTP_2) {
            self.http_2(stream, client).await;
        } else {
            self.http_1(stream, client).await;
        }
    }

    async fn http_1(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin + 'static, client: SocketAddr) {
        let meter = Meter::default();
        let io = TokioIo::new(RequestLine::new(HyperRefusals::new(meter.watch(stream))));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_time)
            .max_buf_size(self.limits.header_octets.max(HEADER_OCTETS_MIN))
            .serve_connection(io, self.clone().handler(client, meter.requests()));
        self.drive(connection, meter).await;
    }

    async fn http_2(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin + 'static, client: SocketAddr) {
        let meter = Meter::default();
        let io = TokioIo::new(meter.watch(stream));
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(u32::try_from(self.limits.header_octets).unwrap_or(u32::MAX))
            .serve_connection(io, self.clone().handler(client, meter.requests()));
        self.drive(connection, meter).await;
    }

    /// Runs a connection to its end, asks it to end when the server stops or when it is slow, and drops it when
    /// it is slow for a second time, or does nothing while others wait for its place.
    async fn drive(&self, connection: impl GracefulConnection, mut meter: Meter) {
        let mut connection = pin!(connection);
        let mut stopped = self.stopped.clone();
        let period = self.limits.request_time;
        let mut laps = tokio::time::interval_at(Instant::now() + period, period);
        let octets_min = OCTETS_PER_SECOND_MIN * period.as_secs();
        let (mut stopping, mut slow) = (false, false);
        loop {
            tokio::select! {
                biased;
                _ = connection.as_mut() => return,
                () = self.lose_place(&meter) => return,
                _ = stopped.wait_for(|stopped| *stopped), if !stopping => stopping = true,
                _ = laps.tick() => match meter.lap() < octets_min {
                    true if slow => return,
                    now_slow => slow = now_slow,
                },
            }
            if stopping || slow {
                connection.as_mut().graceful_shutdown();
            }
        }
    }

    /// Answers the requests of one connection.
    fn handler(
        self: Arc<Self>,
        client: SocketAddr,
        requests: Requests,
    ) -> impl HttpService<Incoming, ResBody = Body, Error = Infallible, Future: Send + 'static> {
        service_fn(move |request: Request<Incoming>| {
            let (service, working) = (self.clone(), requests.begin());
            async move {
                let answer = service.answers.answer(request.map(Body::new), client).await;
                drop(working);
                Ok(answer)
            }
        })
    }
}

/// IPv6 sockets take IPv6 only, so that `0.0.0.0` and `::` can be listened on side by side on every system.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A connection that moves less than this, on average over `request_seconds`, is asked to end and then dropped.
const OCTETS_PER_SECOND_MIN: u64 = 1024;
/// Who has done nothing for so long loses his place to who waits for one.
const IDLE_WHEN_CROWDED: Duration = Duration::from_secs(1);
/// How often those are looked for.
const CROWDED_EVERY: Duration = Duration::from_millis(100);
/// The metric that counts them.
const PUSHED_OUT: &str = "keyrink_http_connections_pushed_out_total";
/// Requests at the same time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 64;
/// What hyper needs at least to read headers.
const HEADER_OCTETS_MIN: usize = 8192;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
