//! Nodes that reconcile, and what they hold.
#![allow(dead_code, reason = "each test program uses a part of this")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use keyrink::formats::{Family, SKS};
use keyrink_openpgp::digest::sks_digest;
use keyrink_store::postgres::{self, PostgresStore};
use keyrink_store::sqlite::{self, SqliteStore};
use keyrink_store::{Store, StoreError};
use keyrink_testkit::http::Client;
use keyrink_testkit::keyring::entries;
use keyrink_testkit::peers::{Keyrink, Sks, SksOptions, free_port};

use super::Node;

/// A set of digests.
pub type Digests = BTreeSet<Vec<u8>>;

/// A Keyrink that reconciles: its store, its port, and the server while it runs.
pub struct Reconciling {
    pub node: Node,
    pub recon: String,
    pub server: Option<Keyrink>,
    settings: Vec<String>,
    arguments: Vec<String>,
}

impl Reconciling {
    /// A node on `address` of the loopback network, not started yet.
    pub fn new(node: Node, address: &str) -> Self {
        let recon = format!("{address}:{}", free_port().unwrap());
        let arguments = ["--recon", &recon].map(str::to_owned).to_vec();
        Self {
            node,
            recon,
            server: None,
            settings: Vec::new(),
            arguments,
        }
    }

    /// Adds a partner: what stands behind `recon=`.
    pub fn partner(mut self, partner: &str) -> Self {
        self.arguments
            .extend(["--partner".to_owned(), format!("recon={partner}")]);
        self
    }

    /// Another address for partners.
    pub fn listen(mut self, address: &str) -> Self {
        self.arguments.extend(["--recon", address].map(str::to_owned));
        self
    }

    /// Seconds between two calls.
    pub fn gossip(mut self, seconds: u32) -> Self {
        self.arguments
            .extend(["--gossip-interval".to_owned(), seconds.to_string()]);
        self
    }

    /// A setting such as `KEYRINK_LOG_FILTER=debug`.
    pub fn setting(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    pub fn start(mut self) -> Self {
        self.start_again();
        self
    }

    pub fn start_again(&mut self) {
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let address = self.recon.split(':').next().unwrap().parse().unwrap();
        self.server = Some(self.node.serve_at(address, &settings, &arguments));
    }

    pub fn server(&mut self) -> &mut Keyrink {
        self.server.as_mut().unwrap()
    }

    pub fn port(&self) -> u16 {
        self.recon.rsplit(':').next().unwrap().parse().unwrap()
    }

    pub fn client(&self) -> Client {
        Client::new(self.server.as_ref().unwrap().http())
    }

    pub fn digests(&self) -> Digests {
        digests(&self.node.data())
    }

    /// What it knows about its only partner.
    pub fn report(&self) -> serde_json::Value {
        self.reports()[0].clone()
    }

    /// What it knows about the partner with this name.
    pub fn report_of(&self, name: &str) -> serde_json::Value {
        let reports = self.reports();
        let found = reports.as_array().unwrap().iter().find(|report| report["name"] == name);
        found.unwrap_or_else(|| panic!("{name}: {reports}")).clone()
    }

    fn reports(&self) -> serde_json::Value {
        serde_json::from_str(&self.node.succeed("peers", &["--json"])).unwrap()
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.server.as_ref().map(Keyrink::log).unwrap_or_default()
    }

    /// A number of its report.
    pub fn number(&self, key: &str) -> u64 {
        self.report()[key].as_u64().unwrap_or_else(|| panic!("{key}"))
    }

    /// How many requests for certificates it has answered.
    pub fn asked(&self) -> u64 {
        let text = self.client().get("/metrics").unwrap().text();
        let lines = text
            .lines()
            .filter(|line| line.starts_with("keyrink_http_requests_total") && line.contains("hashquery"));
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64)
            .sum()
    }

    /// Sessions with all partners.
    pub fn sessions(&self) -> u64 {
        let reports = self.reports();
        let all = reports.as_array().unwrap().iter();
        all.map(|report| report["sessions"].as_u64().unwrap()).sum()
    }

    /// Its settings, as `env` takes them.
    pub fn settings(&self) -> Vec<String> {
        self.settings.clone()
    }

    /// Kibibytes in memory.
    pub fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.server.as_ref().unwrap().id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// All digests of dataset `sks` in a store.
pub fn digests(data: &Path) -> Digests {
    digests_of(data, &SKS)
}

/// All digests by which one family of peers knows what is in a store.
pub fn digests_of(data: &Path, family: &Family) -> Digests {
    open_to_read(data)
        .unwrap()
        .range(family.dataset, &[], &[0xFF; 16], usize::MAX)
        .unwrap()
        .0
        .into_iter()
        .collect()
}

fn open_to_read(data: &Path) -> Result<Box<dyn Store>, StoreError> {
    if data.starts_with("postgres:") {
        let options = postgres::Options {
            read_only: true,
            ..postgres::Options::new(data.to_str().unwrap())
        };
        return Ok(Box::new(PostgresStore::open(&options)?));
    }
    let options = sqlite::Options {
        read_only: true,
        ..sqlite::Options::default()
    };
    Ok(Box::new(SqliteStore::open(data, &options)?))
}

/// An SKS that knows `partners` by their ports on 127.0.0.1, with these keyrings.
pub fn sks(keyrings: &[&Path], partners: &[u16], calls: bool) -> Sks {
    Sks::start(SksOptions {
        keyrings: keyrings.iter().map(|path| path.to_path_buf()).collect(),
        membership: partners.iter().map(|port| ("127.0.0.1".to_owned(), *port)).collect(),
        recon: true,
        gossip_minutes: if calls { 0.05 } else { 100_000.0 },
        both_filters: true,
        ..SksOptions::default()
    })
    .unwrap()
}

/// All digests that an SKS holds, by its own dump. It is stopped for that.
pub fn dumped(sks: &mut Sks) -> Digests {
    let keyrings = sks.dump().unwrap();
    entries(&keyrings).iter().map(|entry| digest(&entry.octets)).collect()
}

/// Those of `digests` that a server hands out by hashquery, as computed from what it hands out.
pub fn handed_out(client: &mut Client, digests: &Digests) -> Digests {
    let mut found = Digests::new();
    for chunk in digests.iter().collect::<Vec<_>>().chunks(100) {
        let mut question = (chunk.len() as u32).to_be_bytes().to_vec();
        for digest in chunk {
            question.extend((digest.len() as u32).to_be_bytes());
            question.extend_from_slice(digest);
        }
        let answer = client.request("POST", "/pks/hashquery", &[], &question).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        found.extend(certificates(&answer.body).iter().map(|octets| digest(octets)));
        client.close();
    }
    found
}

/// The counted strings of an answer to a hashquery.
pub fn certificates(mut answer: &[u8]) -> Vec<Vec<u8>> {
    let number = |answer: &mut &[u8]| {
        let (number, rest) = answer.split_first_chunk::<4>().unwrap();
        *answer = rest;
        u32::from_be_bytes(*number) as usize
    };
    let count = number(&mut answer);
    let take = |_| {
        let length = number(&mut answer);
        let (octets, rest) = answer.split_at(length);
        answer = rest;
        octets.to_vec()
    };
    (0..count).map(take).collect()
}

/// The digest of a certificate.
pub fn digest(octets: &[u8]) -> Vec<u8> {
    let entries = entries(octets);
    let bodies = entries.iter().flat_map(|entry| &entry.bodies);
    sks_digest(bodies.map(|(tag, body)| (*tag, body.as_slice()))).to_vec()
}

/// Waits until SKS holds what Keyrink holds, and `count` of it.
pub fn wait_until_equal(keyrink: &Reconciling, sks: &Sks, count: usize, within: Duration) -> Result<Digests, String> {
    let mut client = Client::new(sks.http());
    wait(within, || {
        let ours = keyrink.digests();
        let theirs = handed_out(&mut client, &ours);
        if theirs == ours && count == ours.len() {
            return Ok(ours);
        }
        let (held, shared) = (ours.len(), theirs.len());
        Err(format!(
            "Keyrink holds {held} of {count}, of which SKS holds {shared}\n{}",
            keyrink.log()
        ))
    })
}

/// Tries again and again.
pub fn wait<T>(within: Duration, mut attempt: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let deadline = Instant::now() + within;
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(200)),
            result => return result,
        }
    }
}
