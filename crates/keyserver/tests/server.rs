//! The web server as clients meet it: real sockets, raw octets, slow and broken clients.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use keyrink::config::Config;
use keyrink::http::answer::Answers;
use keyrink::http::body::{self, BodyLimits};
use keyrink::http::query::Query;
use keyrink::http::room::Room;
use keyrink::http::routes::Routes;
use keyrink::http::server::Server;
use keyrink::http::tls::Certificate;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

#[tokio::test]
async fn raw_angle_brackets_arrive() {
    let server = Running::start(|_| {}).await;
    let request = b"GET /echo?search=Name%20<mail@host>&x=\"\xE4 HTTP/1.0\r\nHost: [::1]\r\n\r\n";
    let answer = server.exchange(request).await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nName <mail@host>"), "{answer}");
}

#[tokio::test]
async fn old_clients_get_a_length_and_an_end() {
    let server = Running::start(|_| {}).await;
    for path in ["/small", "/big", "/stream", "/nothing"] {
        let answer = server
            .exchange(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
            .await
            .to_lowercase();
        assert!(!answer.contains("transfer-encoding"), "{path}: {answer}");
        assert_eq!(
            answer.contains("content-length: "),
            path != "/stream",
            "{path}: {answer}"
        );
        assert!(path != "/stream" || answer.ends_with("\r\n\r\nonetwo"), "{answer}");
    }
}

#[tokio::test]
async fn connections_are_kept_for_clients_that_reuse_them() {
    let server = Running::start(|_| {}).await;
    let request = b"GET /small HTTP/1.1\r\nHost: a\r\n\r\nGET /small HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = server.exchange(request).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    assert_eq!(answer.matches("\r\n\r\nsmall").count(), 2, "{answer}");
}

#[tokio::test]
async fn head_has_a_length_but_no_body() {
    let server = Running::start(|_| {}).await;
    for (path, status, length) in [("/small", "200 OK", "5"), ("/add", "405 Method Not Allowed", "0")] {
        let answer = server
            .exchange(format!("HEAD {path} HTTP/1.0\r\n\r\n").as_bytes())
            .await;
        assert!(answer.starts_with(&format!("HTTP/1.0 {status}\r\n")), "{answer}");
        assert!(answer.contains(&format!("content-length: {length}\r\n")), "{answer}");
        assert!(answer.contains("access-control-allow-origin: *\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn idle_connections_and_slow_headers_are_cut() {
    let server = Running::start(|config| config.http.header_seconds = NonZeroU32::MIN).await;
    let start = Instant::now();
    for sent in [
        "",
        "GET /small HTTP/1.1\r\nHost: a\r\n",
        "GET /small HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let answer = server.exchange(sent.as_bytes()).await;
        assert_eq!(answer.contains("200 OK"), sent.ends_with("\r\n\r\n"), "{answer}");
    }
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}

#[tokio::test]
async fn slow_bodies_are_cut() {
    let server = Running::start(|config| config.http.body_seconds = NonZeroU32::MIN).await;
    let answer = server
        .exchange(b"POST /add HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        .await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("access-control-allow-origin: *\r\n"), "{answer}");
}

#[tokio::test]
async fn long_bodies_are_refused_with_an_answer_that_arrives() {
    let server = Running::start(|config| config.http.body_octets = NonZeroU64::new(1000).unwrap()).await;
    for head in [
        "Content-Length: 4000000\r\n\r\n".to_string(),
        "Transfer-Encoding: chunked\r\n\r\n3D0900\r\n".into(),
    ] {
        let mut request = format!("POST /add HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{head}").into_bytes();
        request.resize(request.len() + 4_000_000, b'x');
        request.extend(b"\r\n0\r\n\r\n");
        let answer = server.exchange(&request).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(
            answer.ends_with("the request body is longer than 1000 octets"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn headers_are_bounded() {
    let server = Running::start(|_| {}).await;
    let request = format!("GET /small HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let mut connection = server.connect().await;
    // The server may close before it has read everything.
    let _ = connection.write_all(request.as_bytes()).await;
    let mut answer = [0; 12];
    if connection.read_exact(&mut answer).await.is_ok() {
        assert_eq!(&answer, b"HTTP/1.1 431");
    }
    let request = format!("GET /small HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200));
    let answer = server.exchange(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(answer.contains("access-control-allow-origin: *\r\n"), "{answer}");
}

#[tokio::test]
async fn garbage_is_refused() {
    let server = Running::start(|_| {}).await;
    for garbage in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ] {
        let answer = server.exchange(garbage).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") || answer.is_empty(), "{answer}");
        assert!(
            answer.is_empty() || answer.contains("access-control-allow-origin: *\r\n"),
            "{answer}"
        );
    }
    // Behind a good request on the same connection, too.
    let answer = server
        .exchange(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\nGET\r\n\r\n")
        .await;
    let (_, second) = answer.split_once("HTTP/1.1 400 ").unwrap();
    assert!(second.contains("access-control-allow-origin: *\r\n"), "{answer}");
    assert!(server.exchange(b"GET /small HTTP/1.0\r\n\r\n").await.contains("200 OK"));
}

#[tokio::test]
async fn connections_over_the_limit_wait() {
    let server = Running::start(|config| config.http.connections = NonZeroU32::MIN).await;
    let mut first = server.connect().await;
    first
        .write_all(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    first.read_exact(&mut [0; 100]).await.unwrap();
    let mut second = server.connect().await;
    second.write_all(b"GET /small HTTP/1.0\r\n\r\n").await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(200), second.read_u8()).await;
    assert!(early.is_err(), "the second connection must wait for the first to end");
    drop(first);
    assert!(finish(second).await.contains("200 OK"));
}

#[tokio::test]
async fn a_stop_finishes_what_was_begun_and_takes_nothing_new() {
    let mut server = Running::start(|_| {}).await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    idle.read_exact(&mut [0; 100]).await.unwrap();
    let mut busy = server.connect().await;
    busy.write_all(b"GET /half-a-second HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop.take().unwrap().send(()).unwrap();
    finish(idle).await;
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "the socket must be closed"
    );
    assert!(finish(busy).await.ends_with("\r\n\r\ndone"));
    server.task.await.unwrap();
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let mut server = Running::start(|config| config.http.shutdown_seconds = NonZeroU32::MIN).await;
    let mut stuck = server.connect().await;
    stuck
        .write_all(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop.take().unwrap().send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(3), server.task)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn clients_that_hardly_read_are_cut() {
    let server = Running::start(|config| config.http.request_seconds = NonZeroU32::MIN).await;
    let mut connection = server.connect().await;
    connection
        .write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let answer = tokio::time::timeout(Duration::from_secs(2), finish(connection))
        .await
        .unwrap();
    assert!(answer.len() < BIG_OCTETS, "{} octets arrived", answer.len());
}

#[tokio::test]
async fn https_speaks_both_versions_and_reloads_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    let install = |name: &str| {
        std::fs::copy(testdata(&format!("{name}.pem")), &chain).unwrap();
        std::fs::copy(testdata(&format!("{name}.key")), &key).unwrap();
    };
    install("first");
    let server = Running::start(|config| {
        config.http.listen.clear();
        config.http.listen_tls = vec![([127, 0, 0, 1], 0).into()];
        config.http.certificate = Some(chain.clone());
        config.http.key = Some(key.clone());
    })
    .await;

    let (mut connection, first) = server.connect_tls(b"http/1.1").await;
    connection
        .write_all(b"GET /echo?search=<a> HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    assert!(finish(connection).await.ends_with("\r\n\r\n<a>"));

    let (mut connection, _) = server.connect_tls(b"h2").await;
    connection
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut frame = [0; 9];
    connection.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[3..5], [4, 0], "the server's first frame is SETTINGS");

    std::fs::write(&chain, "no certificate").unwrap();
    assert!(server.certificate.as_ref().unwrap().reload().is_err());
    assert_eq!(
        server.connect_tls(b"http/1.1").await.1,
        first,
        "the old certificate stays in use"
    );
    install("second");
    server.certificate.as_ref().unwrap().reload().unwrap();
    assert_ne!(server.connect_tls(b"http/1.1").await.1, first);
    std::fs::copy(testdata("first.key"), &key).unwrap();
    let error = server.certificate.as_ref().unwrap().reload().unwrap_err().to_string();
    assert!(error.contains("key.pem"), "{error}");
}

/// A server with routes for these tests.
struct Running {
    address: SocketAddr,
    certificate: Option<Arc<Certificate>>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.http.listen = vec![([127, 0, 0, 1], 0).into()];
        change(&mut config);
        let server = Server::bind(&config.http).unwrap();
        let (address, certificate) = (server.addresses()[0], server.certificate());
        let (stop, stopped) = oneshot::channel();
        let answers = Answers::new(routes(&config), &config);
        let task = tokio::spawn(server.run(answers, async {
            let _ = stopped.await;
        }));
        Self {
            address,
            certificate,
            stop: Some(stop),
            task,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends everything and reads until the server closes.
    async fn exchange(&self, request: &[u8]) -> String {
        let mut connection = self.connect().await;
        connection.write_all(request).await.unwrap();
        finish(connection).await
    }

    /// A TLS connection and the certificate the server showed.
    async fn connect_tls(&self, protocol: &[u8]) -> (TlsStream<TcpStream>, Vec<u8>) {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(testdata("authority.pem")).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector
            .connect("localhost".try_into().unwrap(), self.connect().await)
            .await
            .unwrap();
        let session = stream.get_ref().1;
        assert_eq!(session.alpn_protocol(), Some(protocol));
        let shown = session.peer_certificates().unwrap()[0].to_vec();
        (stream, shown)
    }
}

async fn finish(mut connection: impl AsyncRead + AsyncWrite + Unpin) -> String {
    let mut answer = Vec::new();
    // A server that cuts a connection may reset it; what arrived before counts.
    let _ = tokio::time::timeout(Duration::from_secs(10), connection.read_to_end(&mut answer))
        .await
        .expect("an end");
    String::from_utf8_lossy(&answer).into_owned()
}

fn routes(config: &Config) -> Routes {
    let limits = BodyLimits {
        octets: config.http.body_octets.get(),
        time: Duration::from_secs(config.http.body_seconds.get().into()),
    };
    Routes::new()
        .route("/small", get(async || "small"))
        .route("/big", get(async || "x".repeat(BIG_OCTETS)))
        .route("/echo", get(echo))
        .route("/stream", get(stream))
        .route("/half-a-second", get(half_a_second))
        .route("/never", get(async || std::future::pending::<&str>().await))
        .route("/add", post(add))
        .with_state(limits)
}

async fn echo(request: Request) -> String {
    let query = Query::new(request.uri().query().unwrap_or_default().as_bytes());
    query.text("search").unwrap().unwrap_or_default().into_owned()
}

/// A body whose length is not known beforehand.
async fn stream() -> Body {
    let parts = ["one", "two"].map(Ok::<_, std::convert::Infallible>);
    Body::from_stream(futures_util::stream::iter(parts))
}

async fn half_a_second() -> &'static str {
    tokio::time::sleep(Duration::from_millis(500)).await;
    "done"
}

async fn add(State(limits): State<BodyLimits>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let room = Room::new(1 << 20, limits.octets);
    let mut room = room.open([127, 0, 0, 1].into());
    match body::read(&parts.headers, body, limits, &mut room).await {
        Ok(body) => format!("{} octets", body.len()).into_response(),
        Err(error) => (error.status(), error.to_string()).into_response(),
    }
}

fn testdata(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "tls", name].iter().collect()
}

/// More than the buffers of a socket hold.
const BIG_OCTETS: usize = 30_000_000;
