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

use crate::formats;
use crate::network::Network;
use crate::peers::branches;
pub use read::{ConfigError, Place, Problem};
use section::{Section, section};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
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
    /// `[throttle]`
    pub throttle: Throttle,
    /// `[load]`
    pub load: Load,
    /// `[log]`
    pub log: Log,
    /// `[orders]`
    pub orders: Orders,
    /// `[peers]`
    pub peers: Peers,
    /// Every `[[partner]]`
    pub partners: Vec<Partner>,
}

impl Config {
    /// The sections in the order they are shown.
    fn sections(&self) -> [&dyn Section; 9] {
        [
            &self.store,
            &self.http,
            &self.search,
            &self.limits,
            &self.throttle,
            &self.load,
            &self.log,
            &self.orders,
            &self.peers,
        ]
    }

    /// The same, to be changed.
    fn sections_mut(&mut self) -> [&mut dyn Section; 9] {
        [
            &mut self.store,
            &mut self.http,
            &mut self.search,
            &mut self.limits,
            &mut self.throttle,
            &mut self.load,
            &mut self.log,
            &mut self.orders,
            &mut self.peers,
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
    fn contradictions(&self) -> Vec<Contradiction> {
        let http = &self.http;
        let mut found: Vec<(&'static str, &'static str, &'static str)> = Vec::new();
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
        let reconciles = !self.partners.is_empty() || !self.peers.listen.is_empty();
        if reconciles && http.listen.is_empty() && self.peers.http_port.is_none() {
            let message = "partners fetch by plain HTTP: set it, or an address in `listen` of [http]";
            found.push(("peers", "http_port", message));
        }
        let found = found
            .into_iter()
            .map(|(section, key, message)| (section, key.to_owned(), message.to_owned()));
        let orders = self.orders.keys.iter().filter(|key| !is_fingerprint(key));
        let message = |key: &String| format!("{key:?} is no fingerprint of a primary key");
        let orders = orders.map(|key| ("orders", "keys".to_owned(), message(key)));
        found
            .chain(orders)
            .chain(self.wrong_datasets())
            .chain(self.wrong_partners())
            .collect()
    }

    fn wrong_datasets(&self) -> Vec<Contradiction> {
        let known = |name: &&String| formats::family(name).is_some();
        let unknown = self.peers.datasets.iter().filter(|name| !known(name));
        let names = formats::FAMILIES.map(|family| family.name).join(", ");
        let message = |name: &String| format!("unknown dataset {name:?}; known are {names}");
        let mut found: Vec<_> = unknown
            .map(|name| ("peers", "datasets".to_owned(), message(name)))
            .collect();
        if let Err(error) = branches::omission(&self.peers.omit) {
            found.push(("peers", "omit".to_owned(), error.to_string()));
        }
        if let Err(error) = branches::refused(&self.peers.refuse) {
            found.push(("peers", "refuse".to_owned(), error.to_string()));
        }
        if self.peers.datasets.is_empty() && !self.partners.is_empty() {
            let message = "partners reconcile a dataset: keep at least one";
            found.push(("peers", "datasets".to_owned(), message.to_owned()));
        }
        found
    }

    fn wrong_partners(&self) -> Vec<Contradiction> {
        let (mut found, mut names) = (Vec::new(), BTreeSet::new());
        for (index, partner) in self.partners.iter().enumerate() {
            let mut wrong = |key: &str, message: String| found.push((PARTNER, format!("{index}.{key}"), message));
            if partner.recon.parse::<HostPort>().is_err() {
                wrong(
                    "recon",
                    format!(
                        "{:?} is no host and port; right would be: \"keys.example.org:11370\"",
                        partner.recon
                    ),
                );
            }
            if let Some(http) = partner.http.as_ref().filter(|http| !crate::client::is_plain_http(http)) {
                wrong(
                    "http",
                    format!("{http:?} is no address; right would be: \"http://keys.example.org:11371\""),
                );
            }
            let dataset = partner.dataset.as_str();
            if dataset != AUTO && formats::family(dataset).is_none() {
                let known = formats::FAMILIES.map(|family| family.name).join(", ");
                wrong(
                    "dataset",
                    format!("unknown dataset {dataset:?}; known are {AUTO}, {known}"),
                );
            } else if dataset != AUTO && !self.peers.datasets.iter().any(|kept| kept == dataset) {
                wrong("dataset", format!("{dataset:?} is not among the `datasets` of [peers]"));
            }
            if partner
                .pause_seconds
                .is_some_and(|seconds| !(0.0..=PAUSE_SECONDS_MAX).contains(&seconds))
            {
                wrong("pause_seconds", format!("write a number from 0 to {PAUSE_SECONDS_MAX}"));
            }
            if !names.insert(partner.label()) {
                wrong("name", format!("two partners have the name {:?}", partner.label()));
            }
        }
        found
    }
}

fn is_fingerprint(text: &str) -> bool {
    matches!(text.parse(), Ok(crate::lifecycle::Selector::Fingerprint(_)))
}

/// Section, key and what is wrong with it; for a partner the key is preceded by its number and a dot.
type Contradiction = (&'static str, String, String);

/// The name of the tables for partners.
const PARTNER: &str = "partner";

/// The longest pause between requests to a partner, an hour.
pub(crate) const PAUSE_SECONDS_MAX: f64 = 3600.0;

/// The `dataset` of a partner that goes by what it announces.
pub(crate) const AUTO: &str = "auto";

section! {
    /// Where the certificates are kept.
    "store" => Store {
        /// The folder of the embedded database. It is created if missing and belongs to one machine;
        /// several processes of that machine (serve, load, dump, check) may use it at the same time.
        directory: PathBuf = PathBuf::from("/var/lib/keyrink");
        /// The URL of a PostgreSQL database, which any number of processes on any machines may use at the same time.
        /// Set, it takes the place of `directory`. A database on another machine is spoken to by TLS, and its certificate
        /// is verified (`sslrootcert=FILE` names the authorities), unless the URL says `sslmode=disable`.
        database: Option<String> = None, example r#""postgres://keyrink@/keyrink?host=/var/run/postgresql""#;
        /// Where the password for `database` is looked for if the URL has none: lines of
        /// `host:port:database:user:password`. Unset: the file that PGPASSFILE names, or `~/.pgpass`.
        password_file: Option<PathBuf> = None, example r#""/etc/keyrink/pgpass""#;
        /// Whether programs that write to `database` bring its tables up to date when they start. Otherwise that is done by
        /// `keyrink migrate`. Programs of the version before go on working.
        migrate: bool = true;
        /// Connections of one process to `database`, besides the one that updates.
        connections: NonZeroU32 = nonzero(16);
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
        /// Addresses and networks of proxies that are believed when they say for whom they ask. Without them everybody
        /// behind a proxy is one client, or none if `exempt` of `[throttle]` holds the proxy. IPv6 without brackets.
        proxies: Vec<Network> = Vec::new();
        /// The header in which they say it, "x-forwarded-for" or "forwarded" (RFC 7239). Every one of them must write it: what
        /// clients put there counts otherwise.
        proxy_header: ProxyHeader = ProxyHeader::XForwardedFor;
        /// The longest request body, in octets: the most one submission can hold.
        body_octets: NonZeroU64 = nonzero64(16 << 20);
        /// Octets of all submissions that are taken at the same time, which bounds the memory they need; later ones
        /// wait, and are asked to come again if that takes long. One address (IPv6: one network of 64 bits) gets at
        /// most a quarter, but always one body.
        submissions_octets: NonZeroU64 = nonzero64(128 << 20);
        /// Octets of all answers that are made and sent at the same time, small ones aside; later ones wait, and the
        /// client is asked to come again if that takes long. One address gets at most a quarter.
        answers_octets: NonZeroU64 = nonzero64(256 << 20);
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
        /// an e-mail address or a whole user id. After switching it on, a server indexes what is stored while it serves.
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
        /// What the owner signed is never left out of a certificate; one that holds more than four times this room, or
        /// four times `packets`, is refused as a whole.
        certificate_octets: NonZeroU64 = nonzero64(16 << 20);
        /// The most packets of one certificate and class of sizes.
        packets: NonZeroU64 = nonzero64(20_000);
        /// Octets of one certificate that users never see: photographs, signatures that prove nothing, whatever nothing
        /// binds. They are kept so that peers which keep everything find the same here. Fewer than `certificate_octets`
        /// bounds them; 0 keeps none. Peers that have more are then asked for it less and less often.
        extra_octets: u64 = 16 << 20;
        /// Octets of signatures by others that users get with one certificate, in steps of 8192: of each issuer the newest
        /// certification of a user id, with the revocation of it, come first. Peers still get what their dataset holds.
        /// What is no multiple is rounded up; 2080769 and more: no bound.
        others_octets: u64 = 64 << 10;
        /// Whether users get only those certifications by others that the owner of a certificate has approved (1pa3pc).
        approved_only: bool = false;
    }
}

section! {
    /// How much one client may ask, which is one address, of IPv6 one network of 64 bits. Each has a bucket of tokens, and who
    /// finds too few gets 429 and a time. A lookup costs one token, a submission five and one more for some ten
    /// milliseconds of verification, an order five. Partners that fetch have a bound of their own (`requests_per_second` in `[peers]`).
    "throttle" => Throttle {
        /// Tokens that come into a bucket each second. 0: nobody is throttled.
        tokens_per_second: u32 = 20;
        /// Tokens that a bucket holds: so much is possible at once, such as refreshing a keyring of some hundred keys.
        tokens: NonZeroU32 = nonzero(600);
        /// Addresses and networks that are not throttled.
        exempt: Vec<Network> = Network::LOOPBACK.to_vec();
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

section! {
    /// Signed orders by HTTP: `/pks/delete` erases a certificate, `/pks/replace` stores another one in its place.
    "orders" => Orders {
        /// Fingerprints of those whose orders are taken; their certificates have to be stored here. None: no orders are taken.
        keys: Vec<String> = Vec::new();
        /// Whether orders are taken that do not name this server (`hostname` in `[http]`) and a time, as programs made for
        /// Hockeypuck send them. Another server that trusts the same key can be given such an order too.
        unbound: bool = true;
    }
}

section! {
    /// Reconciliation with other keyservers. Each of them is named in a `[[partner]]` of its own.
    "peers" => Peers {
        /// Addresses at which partners may call. With partners and without an address: `127.0.0.1:11370`.
        /// Calls go out from the first address of the same family, unless it is a wildcard.
        listen: Vec<SocketAddr> = Vec::new();
        /// The datasets that are kept, each for one family of peers: "sks" is what SKS 1.1.6 stores, "hockeypuck" what
        /// Hockeypuck 2.4 stores, "openpgp/2" the single self-signatures that servers of the second generation reconcile.
        /// Certificates travel between networks of the datasets that are kept. One that is left out costs nothing; when
        /// one is added, a server that starts derives it from what is stored, while it serves (as does `keyrink rebuild`).
        datasets: Vec<String> = vec!["sks".to_owned(), "openpgp/2".to_owned()];
        /// Hours between two sessions of the first generation with a partner that speaks the second too: only the first
        /// brings signatures by others and keys without a valid self-signature. 0: none.
        first_generation_hours: u32 = 24;
        /// Parts of "openpgp/2" that are not reconciled: "v3", "v4", "v5" or "v6" for signatures of that version,
        /// "user-attributes" for those on user attributes, or the first 2, 4, 6 or 8 bits of the part.
        omit: Vec<String> = Vec::new();
        /// Parts of "openpgp/2" that partners may ask for and get a polite refusal, named by their first bits. They are not
        /// asked for either.
        refuse: Vec<String> = Vec::new();
        /// The port of plain HTTP at which partners fetch what they lack. Unset: that of the first address in
        /// `listen` of `[http]`. Behind a proxy: the port that the world sees.
        http_port: Option<NonZeroU16> = None, example "11371";
        /// Seconds between two calls to a partner while nothing changes here; each is varied by up to a tenth.
        gossip_seconds: NonZeroU32 = nonzero(60);
        /// Requests for certificates (`/pks/hashquery`) that one address may send in a second; those above it are
        /// answered with a delay. One counts once more for every further 100 digests and for each MiB of its answer.
        requests_per_second: NonZeroU32 = nonzero(50);
    }
}

section! {
    /// Another keyserver that this one reconciles with; one table for each. It has to list this server as its partner
    /// too. A HUP signal makes a running server read these tables again.
    "partner" => Partner {
        /// What it is called in the log and by `keyrink peers`. Unset: its address.
        name: Option<String> = None, example r#""example""#;
        /// Where it reconciles: host and port. Only callers with an address of this host are listened to.
        recon: String = String::new();
        /// Where certificates are fetched from. Unset: the host of `recon` with the port that the partner announces.
        http: Option<String> = None, example r#""http://keys.example.org:11371""#;
        /// What is reconciled: one of the `datasets` that are kept, or "auto", which goes by what the partner announces and
        /// takes "openpgp/2" if it can.
        dataset: String = "auto".into();
        /// The filters to announce to it, word for word. Unset: what it announces itself, if that is known.
        filters: Option<String> = None, example r#""yminsky.dedup,yminsky.merge""#;
        /// The version to announce to it: three numbers. Unset: 1.1.6.
        version: Option<String> = None, example r#""1.1.6""#;
        /// Seconds between two requests for certificates. Unset: 2 for SKS, which answers one request at a time,
        /// and 0.05 for others.
        pause_seconds: Option<f64> = None, example "2.0";
    }
}

impl Partner {
    /// What it is called.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.recon)
    }
}

/// A host, by name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl std::str::FromStr for HostPort {
    type Err = BadHostPort;

    fn from_str(text: &str) -> Result<Self, BadHostPort> {
        let (host, port) = text.rsplit_once(':').ok_or(BadHostPort)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or(BadHostPort)?;
        let bare = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address
                .parse::<std::net::Ipv6Addr>()
                .map(|_| address)
                .map_err(|_| BadHostPort)?,
            None => host,
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if bare.is_empty() || (bare.len() == host.len() && !host.chars().all(plain)) {
            return Err(BadHostPort);
        }
        Ok(Self {
            host: bare.to_owned(),
            port,
        })
    }
}

/// Not a host and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a host and a port, such as keys.example.org:11370 or [2001:db8::1]:11370")]
pub struct BadHostPort;

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

/// Where proxies say for whom they ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyHeader {
    /// `X-Forwarded-For`, a list of addresses.
    XForwardedFor,
    /// `Forwarded` (RFC 7239), a list of pairs.
    Forwarded,
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
