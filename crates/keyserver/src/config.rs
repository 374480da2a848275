//! The configuration: one TOML file, every key documented here, every default here.
//!
//! Each section below is declared once; the declaration yields the struct, its defaults, the comments that
//! `keyrink config show` prints and the pages of `docs/configuration.md`, so that none can drift from the others.
//! [`Config::read`] parses the file and applies the environment; it reports every mistake at once, with its place.
//!
//! Any key can be set from the environment: `KEYRINK_HTTP_LISTEN=0.0.0.0:11371` sets `listen` in `[http]`, and
//! `KEYRINK_HTTP_LISTEN_FILE=/run/secrets/listen` reads the value from that file.

mod read;
mod section;
mod show;

pub use read::{ConfigError, Place, Problem};
use section::{Section, section};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[store]`
    pub store: Store,
    /// `[http]`
    pub http: Http,
    /// `[search]`
    pub search: Search,
    /// `[limits]`
    pub limits: Limits,
    /// `[load]`
    pub load: Load,
    /// `[log]`
    pub log: Log,
}

impl Config {
    /// The sections in the order they are shown.
    fn sections(&self) -> [&dyn Section; 6] {
        [
            &self.store,
            &self.http,
            &self.search,
            &self.limits,
            &self.load,
            &self.log,
        ]
    }

    /// The same, to be changed.
    fn sections_mut(&mut self) -> [&mut dyn Section; 6] {
        [
            &mut self.store,
            &mut self.http,
            &mut self.search,
            &mut self.limits,
            &mut self.load,
            &mut self.log,
        ]
    }

    /// Itself, unless its values contradict each other; for configurations changed after they were read.
    pub fn checked(self) -> Result<Self, ConfigError> {
        let problems: Vec<_> = self.contradictions().into_iter().map(Problem::unset).collect();
        if problems.is_empty() {
            Ok(self)
        } else {
            Err(ConfigError::Problems(problems))
        }
    }

    /// What each value allows but all together do not: section, key and why.
    fn contradictions(&self) -> Vec<(&'static str, &'static str, &'static str)> {
        let http = &self.http;
        let mut found = Vec::new();
        if http.certificate.is_some() != http.key.is_some() {
            let missing = if http.key.is_some() { "certificate" } else { "key" };
            found.push((
                "http",
                missing,
                "`certificate` and `key` belong together: set both or none",
            ));
        } else if !http.listen_tls.is_empty() && http.certificate.is_none() {
            found.push(("http", "listen_tls", "HTTPS needs `certificate` and `key` too"));
        }
        if http.listen.is_empty() && http.listen_tls.is_empty() {
            found.push((
                "http",
                "listen",
                "at least one address in `listen` or `listen_tls` is needed",
            ));
        }
        found
    }
}

section! {
    /// Where the certificates are kept.
    "store" => Store {
        /// The folder of the embedded database. It is created if missing and belongs to one machine;
        /// several processes of that machine (serve, load, dump, check) may use it at the same time.
        directory: PathBuf = PathBuf::from("/var/lib/keyrink");
    }
}

section! {
    /// The web server that speaks HKP.
    "http" => Http {
        /// Addresses for plain HTTP. IPv6 in brackets: `[::]:11371`.
        listen: Vec<SocketAddr> = vec![SocketAddr::from(([127, 0, 0, 1], 11371))];
        /// Addresses for HTTPS; needs `certificate` and `key`.
        listen_tls: Vec<SocketAddr> = Vec::new();
        /// PEM file with the certificate chain for HTTPS, the server's own first. Read again on SIGHUP.
        certificate: Option<PathBuf> = None, example r#""/etc/keyrink/fullchain.pem""#;
        /// PEM file with the private key for HTTPS. Read again on SIGHUP.
        key: Option<PathBuf> = None, example r#""/etc/keyrink/privkey.pem""#;
        /// The name under which clients reach this server, as its pages and statistics give it.
        hostname: String = "localhost".into();
        /// How to reach the operator: the fingerprint of a certificate or an address, shown in the statistics.
        contact: Option<String> = None, example r#""operator@keys.example.org""#;
        /// The longest request body, in octets: the most one submission can hold.
        body_octets: NonZeroU64 = nonzero64(16 << 20);
        /// Octets of all submissions that are taken at the same time, which bounds the memory they need; later ones
        /// wait, and are asked to come again if that takes long.
        submissions_octets: NonZeroU64 = nonzero64(128 << 20);
        /// The longest request line and headers of a request together, in octets (at least 8192).
        header_octets: NonZeroU32 = nonzero(32 << 10);
        /// Seconds a client may take to send its headers; also how long a connection may wait between requests.
        header_seconds: NonZeroU32 = nonzero(15);
        /// Seconds a client may take to send a request body.
        body_seconds: NonZeroU32 = nonzero(60);
        /// Seconds one request may take in all, its body included.
        request_seconds: NonZeroU32 = nonzero(90);
        /// Seconds that requests in flight are given to finish when the server stops.
        shutdown_seconds: NonZeroU32 = nonzero(20);
        /// Connections served at the same time; more wait in the queue of the operating system.
        /// Keep it below the limit of open files (`LimitNOFILE` of systemd, `ulimit -n`).
        connections: NonZeroU32 = nonzero(768);
        /// Threads that serve requests. 0: four for each core, so that some may wait for the disk.
        threads: u32 = 0;
        /// Whether `/metrics` answers (Prometheus text; it never holds a search term or an address).
        metrics: bool = true;
    }
}

section! {
    /// What can be searched for.
    "search" => Search {
        /// Whether single words of user ids are indexed and found. Off, a search matches a fingerprint, a key id,
        /// an e-mail address or a whole user id. After switching it on, run `keyrink rebuild`.
        words: bool = false;
        /// The most certificates in one answer. An answer that was cut says so.
        results: NonZeroU32 = nonzero(100);
    }
}

section! {
    /// The largest things that are stored. A certificate that exceeds them loses its least valuable packets first:
    /// signatures by others, never a valid self-signature or a revocation.
    "limits" => Limits {
        /// The longest packet of any kind, in octets.
        packet_octets: NonZeroU64 = nonzero64(1 << 20);
        /// The longest signature, in octets.
        signature_octets: NonZeroU64 = nonzero64(128 << 10);
        /// The longest user id, in octets.
        user_id_octets: NonZeroU64 = nonzero64(16 << 10);
        /// Room for one certificate, in octets: half of it for signatures of up to 1 KiB, the rest for longer
        /// signatures and for components that nothing binds.
        certificate_octets: NonZeroU64 = nonzero64(16 << 20);
        /// The most packets of one certificate and class of sizes.
        packets: NonZeroU64 = nonzero64(20_000);
    }
}

section! {
    /// Reading keyrings with `keyrink load` and `keyrink serve --load`.
    "load" => Load {
        /// Threads that parse and verify. 0: one for each core.
        threads: u32 = 0;
    }
}

section! {
    /// The log, written to standard error.
    "log" => Log {
        /// How lines are written: "text" for people, "json" for machines.
        format: LogFormat = LogFormat::Text;
        /// What is logged: error, warn, info, debug or trace, also for single parts: "info,keyrink::http=debug".
        filter: String = "info".into();
        /// Whether the addresses of clients may appear in the log.
        addresses: bool = false;
        /// Whether what clients search for may appear in the log.
        searches: bool = false;
    }
}

impl Load {
    /// Threads that parse and verify.
    pub fn threads(&self) -> usize {
        threads(self.threads)
    }
}

/// How many threads a setting means, where 0 stands for one for each core.
pub(crate) fn threads(setting: u32) -> usize {
    match setting {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads as usize,
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line an event.
    Text,
    /// One JSON object an event.
    Json,
}

/// For defaults, which are written down above and never zero.
const fn nonzero(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).expect("a default that is not zero")
}

/// The same in 64 bits.
const fn nonzero64(value: u64) -> NonZeroU64 {
    NonZeroU64::new(value).expect("a default that is not zero")
}
