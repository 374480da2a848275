//! The servers, their database and their partners.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::error::{At, Error};
use crate::http::Client;
use crate::peers::{Keyrink, KeyrinkOptions, Postgres, free_port, run, store_arguments};

/// Servers on one database.
pub(super) const SERVERS: usize = 3;
const PARTNERS: usize = 2;
/// Gossip has to go on within this time after its server was killed.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);
/// How long the database is away.
const AWAY: Duration = Duration::from_millis(200);
/// Between two kills.
const BETWEEN: Duration = Duration::from_millis(400);

pub(super) struct Fleet {
    servers: Vec<Mutex<Keyrink>>,
    addresses: RwLock<Vec<SocketAddr>>,
    partners: Vec<Keyrink>,
    options: Vec<KeyrinkOptions>,
    /// Logs of servers that were killed, with the number of their life.
    logs: Mutex<Vec<String>>,
    database: Postgres,
    _folder: TempDir,
}

/// What killing those that call has shown.
#[derive(Default)]
pub(super) struct Callers {
    after: Vec<Duration>,
    pub(super) faults: Vec<String>,
}

impl Callers {
    pub(super) fn slowest(&self) -> Duration {
        self.after.iter().max().copied().unwrap_or_default()
    }

    pub(super) fn median(&self) -> Duration {
        let mut sorted = self.after.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }
}

impl Fleet {
    /// Starts all of it.
    pub(super) fn start(program: &Path) -> Result<Self, Error> {
        // Processes are killed, not the machine.
        let database = Postgres::start_with(&["fsync=off", "max_connections=200"])?;
        let folder = tempfile::Builder::new()
            .prefix("shared-")
            .tempdir()
            .at("temporary folder")?;
        let addresses = (0..SERVERS + PARTNERS).map(|number| Ipv4Addr::new(127, 0, 1, 1 + number as u8));
        let nodes = addresses.map(|address| Ok((address, SocketAddr::from((address, free_port()?)))));
        let nodes = nodes.collect::<Result<Vec<_>, Error>>()?;
        let mut options = Vec::new();
        for (number, (address, recon)) in nodes.iter().enumerate() {
            let others = if number < SERVERS {
                &nodes[SERVERS..]
            } else {
                &nodes[..SERVERS]
            };
            let mut arguments = vec![
                "--recon".to_owned(),
                recon.to_string(),
                "--gossip-interval".to_owned(),
                "2".to_owned(),
            ];
            for (_, other) in others {
                arguments.extend(["--partner".to_owned(), format!("recon={other}")]);
            }
            options.push(KeyrinkOptions {
                program: program.to_owned(),
                data: match number < SERVERS {
                    true => PathBuf::from(database.url()),
                    false => folder.path().join(format!("partner{number}")),
                },
                address: *address,
                arguments,
                wrapper: ["env", "KEYRINK_LOG_FILTER=info,keyrink::peers=debug"]
                    .map(str::to_owned)
                    .to_vec(),
            });
        }
        let started = options.iter().map(Keyrink::start_with);
        let mut servers = started.collect::<Result<Vec<_>, Error>>()?;
        let partners = servers.split_off(SERVERS);
        Ok(Self {
            addresses: RwLock::new(servers.iter().map(Keyrink::http).collect()),
            servers: servers.into_iter().map(Mutex::new).collect(),
            partners,
            options,
            logs: Mutex::default(),
            database,
            _folder: folder,
        })
    }

    /// Where a server answers HTTP at present.
    pub(super) fn address(&self, server: usize) -> SocketAddr {
        self.addresses.read().unwrap_or_else(PoisonError::into_inner)[server]
    }

    /// Kills a server and the database so many times, by turns, and starts them again.
    pub(super) fn kill_in_turn(&self, times: u64) -> Result<(), Error> {
        for time in 0..times as usize {
            let server = time % SERVERS;
            self.kill(server);
            self.start_again(server)?;
            thread::sleep(BETWEEN);
            self.database.kill();
            thread::sleep(AWAY);
            self.database.start_again()?;
            thread::sleep(BETWEEN);
        }
        Ok(())
    }

    /// Kills the server that calls the first partner so many times. Another has to take over and call.
    pub(super) fn kill_callers(&self, times: u64) -> Result<Callers, Error> {
        let mut found = Callers::default();
        for time in 0..times {
            let Some((holder, token)) = self.holder(TAKEN_WITHIN) else {
                found.faults.push(format!("lease {time}: nobody holds it"));
                continue;
            };
            let began = Instant::now();
            self.kill(holder);
            match self.called_after(holder, token, began) {
                Some(after) => found.after.push(after),
                None => found
                    .faults
                    .push(format!("lease {time}: nobody called within {TAKEN_WITHIN:?}")),
            }
            self.start_again(holder)?;
        }
        found.faults.extend(self.tokens_used_twice());
        Ok(found)
    }

    fn kill(&self, server: usize) {
        let mut process = self.server(server);
        process.kill();
        let log = process.log();
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).push(log);
    }

    fn start_again(&self, server: usize) -> Result<(), Error> {
        let started = Keyrink::start_with(&self.options[server])?;
        self.addresses.write().unwrap_or_else(PoisonError::into_inner)[server] = started.http();
        *self.server(server) = started;
        Ok(())
    }

    fn server(&self, server: usize) -> MutexGuard<'_, Keyrink> {
        self.servers[server].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first_partner(&self) -> String {
        let arguments = &self.options[0].arguments;
        let named = arguments.iter().find_map(|argument| argument.strip_prefix("recon="));
        named.unwrap_or_default().to_owned()
    }

    /// The one server that holds the right to call the first partner, and its token.
    fn holder(&self, within: Duration) -> Option<(usize, u64)> {
        let (deadline, partner) = (Instant::now() + within, self.first_partner());
        while Instant::now() < deadline {
            let tokens = (0..SERVERS).map(|server| {
                let shown = figures(self.address(server)).unwrap_or_default();
                let line = shown
                    .lines()
                    .find(|line| line.starts_with("keyrink_peer_lease{") && line.contains(&partner));
                (
                    server,
                    line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                        .unwrap_or(0.0) as u64,
                )
            });
            let holders: Vec<_> = tokens.filter(|(_, token)| *token > 0).collect();
            if let [one] = holders[..] {
                return Some(one);
            }
            thread::sleep(Duration::from_millis(50));
        }
        None
    }

    /// How long it takes until another server calls, on a later token.
    fn called_after(&self, killed: usize, token: u64, began: Instant) -> Option<Duration> {
        let partner = self.first_partner();
        while began.elapsed() < TAKEN_WITHIN {
            for server in (0..SERVERS).filter(|server| *server != killed) {
                let log = self.server(server).log();
                if calls(&log).any(|(of, used)| of == partner && used > token) {
                    return Some(began.elapsed());
                }
            }
            thread::sleep(Duration::from_millis(50));
        }
        None
    }

    /// Tokens on which more than one life of a server has called.
    fn tokens_used_twice(&self) -> Vec<String> {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        logs.extend((0..SERVERS).map(|server| self.server(server).log()));
        let (mut users, mut faults) = (BTreeMap::new(), Vec::new());
        for (life, log) in logs.iter().enumerate() {
            for call in calls(log) {
                let first = *users.entry(call).or_insert(life);
                if first != life {
                    faults.push(format!("two servers called {} on token {}", call.0, call.1));
                }
            }
        }
        faults
    }

    /// What differs between the trees of all nodes, if anything does.
    pub(super) fn difference(&self) -> Result<Option<String>, Error> {
        let addresses = (0..SERVERS).map(|server| self.address(server));
        let addresses = addresses.chain(self.partners.iter().map(Keyrink::http));
        let shown = addresses.map(|address| figures(address).map(|text| tree(&text)));
        let shown = shown.collect::<Result<Vec<_>, Error>>()?;
        let (servers, partners) = shown.split_at(SERVERS);
        let first = &servers[0];
        let equal = servers.iter().all(|tree| tree == first) && partners.iter().all(|(sums, _)| *sums == first.0);
        Ok((!equal || first.0.is_empty()).then(|| format!("the trees differ: {shown:?}")))
    }

    /// What `keyrink check` has to say against the database, or against what the servers show.
    pub(super) fn check(&self) -> Vec<String> {
        let mut command = Command::new(&self.options[0].program);
        match run(
            command.arg("check").args(store_arguments(&self.options[0].data)),
            "keyrink",
        ) {
            Ok(output) => {
                let report = String::from_utf8_lossy(&output.stdout).into_owned();
                let sums = figures(self.address(0)).map(|text| tree(&text).0).unwrap_or_default();
                let differs = |(dataset, sum): &(&String, &String)| {
                    let rows = report
                        .lines()
                        .find_map(|line| line.strip_prefix(&format!("{dataset} sum")));
                    rows.map(str::trim) != Some(sum)
                };
                let wrong = sums.iter().filter(differs);
                wrong
                    .map(|(dataset, sum)| format!("the tree {dataset} is {sum}, not so the rows:\n{report}"))
                    .collect()
            }
            Err(error) => vec![error.to_string()],
        }
    }
}

/// What a server counts.
fn figures(address: SocketAddr) -> Result<String, Error> {
    Ok(Client::new(address).get("/metrics")?.text())
}

/// The sums of all trees by their datasets, and up to which changes they hold.
fn tree(figures: &str) -> (BTreeMap<String, String>, Vec<String>) {
    let lines = |name: &'static str| figures.lines().filter_map(move |line| line.strip_prefix(name));
    let sums = lines("keyrink_tree_sum{dataset=\"").filter_map(|line| line.split_once("\"} "));
    let sums = sums.map(|(dataset, sum)| (dataset.to_owned(), sum.to_owned()));
    let seen = lines("keyrink_tree_seen").filter(|line| !line.ends_with(" 0"));
    let mut seen: Vec<_> = seen.map(str::to_owned).collect();
    seen.sort_unstable();
    (sums.collect(), seen)
}

/// Calls in a log: the partner, and the token.
fn calls(log: &str) -> impl Iterator<Item = (&str, u64)> {
    let lines = log
        .lines()
        .filter(|line| line.contains("calling") && line.contains("token="));
    lines.filter_map(|line| {
        let field = |name: &str| line.split(name).nth(1)?.split_whitespace().next();
        Some((field("partner=")?.trim_matches('"'), field("token=")?.parse().ok()?))
    })
}
