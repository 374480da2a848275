//! The command line: what each subcommand takes, with examples, and the configuration it leads to.

pub mod decide;

use crate::config::{self, Config, ConfigError};
use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

/// An OpenPGP keyserver that reconciles with its peers.
#[derive(Debug, Parser)]
#[command(name = "keyrink", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve certificates over HTTP
    Serve(Serve),
    /// Load keyrings into the store, beside a running server or without one
    Load(Load),
    /// Read the certificates of a Hockeypuck database into the store, without a dump
    ImportHockeypuck(ImportHockeypuck),
    /// Write all certificates into files, as one consistent snapshot
    Dump(Dump),
    /// Recompute what is derived from every certificate and compare it with what is stored
    Check(Check),
    /// Derive search terms and reconciliation elements of every certificate anew
    Rebuild(Rebuild),
    /// Bring the tables of a PostgreSQL database up to date, while servers go on using it
    Migrate(Migrate),
    /// Tell what was found about each packet of a certificate, and who gets to see it
    Explain(Explain),
    /// Copy the store while it is in use
    Backup(Backup),
    /// Show how it stands with the partners, or talk to one now
    Peers(Peers),
    /// Show or check the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Block, erase and hide what certificates hold, whoever brings it
    #[command(subcommand)]
    Admin(decide::Admin),
    /// Fetch certificates from any keyserver
    Get(Get),
    /// Search any keyserver
    Search(Search),
}

/// Where the store is and what configures it.
#[derive(Args, Clone, Debug, Default)]
pub struct Source {
    /// Folder of the embedded database; created if missing [default: /var/lib/keyrink]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// PostgreSQL database to use instead: postgres://USER@HOST/NAME
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    pub database: Option<String>,
    /// Configuration file; `keyrink config show` writes one
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Source {
    /// The configuration: defaults, file, environment, `--data` or `--database`, each overriding those before.
    pub fn configuration(&self) -> Result<Config, ConfigError> {
        // A variable that is not Unicode can't be one of ours, and must not end the program.
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let mut config = Config::read(self.config.as_deref(), environment)?;
        if let Some(directory) = &self.data {
            config.store.directory.clone_from(directory);
            config.store.database = None;
        }
        config.store.database = self.database.clone().or(config.store.database);
        Ok(config)
    }
}

/// `keyrink serve`
#[derive(Args, Clone, Debug)]
#[command(after_help = "EXAMPLES:
  keyrink serve --data ./keys --load /usr/share/keyrings/*.gpg
  keyrink serve --config /etc/keyrink.toml
  keyrink serve --data ./keys --http 127.0.0.1:11371 --http '[::1]:11371'
  keyrink serve --data ./keys --https 0.0.0.0:443 --tls-cert fullchain.pem --tls-key privkey.pem
  keyrink serve --data ./keys --recon 0.0.0.0:11370 --partner recon=keys.example.org:11370
  keyrink serve --database postgres://keyrink@db.example.org/keyrink")]
pub struct Serve {
    /// Where the store is.
    #[command(flatten)]
    pub source: Source,
    /// Address for HTTP; may be given several times [default: 127.0.0.1:11371]
    #[arg(long, value_name = "ADDR")]
    pub http: Vec<SocketAddr>,
    /// Address for HTTPS; may be given several times
    #[arg(long, value_name = "ADDR")]
    pub https: Vec<SocketAddr>,
    /// Certificate chain for HTTPS (PEM); read again on SIGHUP
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key for HTTPS (PEM); read again on SIGHUP
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Keyrings to load while serving: files, folders or patterns
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub load: Vec<PathBuf>,
    /// Address for reconciliation; may be given several times [default with partners: 127.0.0.1:11370]
    #[arg(long, value_name = "ADDR")]
    pub recon: Vec<SocketAddr>,
    /// A keyserver to reconcile with: recon=HOST:PORT and more keys of `[[partner]]`, with commas; may be given several times
    #[arg(long, value_name = "KEY=VALUE,…", value_parser = partner)]
    pub partner: Vec<config::Partner>,
    /// Seconds between two calls to a partner while nothing changes [default: 60]
    #[arg(long, value_name = "SECONDS")]
    pub gossip_interval: Option<NonZeroU32>,
}

impl Serve {
    /// The configuration with the options of this command applied.
    pub fn configuration(&self) -> Result<Config, ConfigError> {
        let mut config = self.source.configuration()?;
        if !self.http.is_empty() {
            config.http.listen.clone_from(&self.http);
        }
        if !self.https.is_empty() {
            config.http.listen_tls.clone_from(&self.https);
        }
        config.http.certificate = self.tls_cert.clone().or(config.http.certificate);
        config.http.key = self.tls_key.clone().or(config.http.key);
        if !self.recon.is_empty() {
            config.peers.listen.clone_from(&self.recon);
        }
        config.peers.gossip_seconds = self.gossip_interval.unwrap_or(config.peers.gossip_seconds);
        config.partners.extend(self.partner.iter().cloned());
        config.checked()
    }
}

/// Reads `recon=HOST:PORT,http=URL,…`.
fn partner(text: &str) -> Result<config::Partner, String> {
    let mut partner = config::Partner::default();
    // A comma that no key follows belongs to the value before it, as in lists of filters.
    let mut pairs: Vec<(&str, String)> = Vec::new();
    for part in text.split(',') {
        match (part.split_once('='), pairs.last_mut()) {
            (Some((key, value)), _) => pairs.push((key, value.to_owned())),
            (None, Some((_, value))) => *value = format!("{value},{part}"),
            (None, None) => return Err("write recon=HOST:PORT".into()),
        }
    }
    for (key, value) in pairs {
        match key {
            "name" => partner.name = Some(value),
            "recon" => partner.recon = value,
            "http" => partner.http = Some(value),
            "dataset" => partner.dataset = value,
            "filters" => partner.filters = Some(value),
            "version" => partner.version = Some(value),
            "pause_seconds" => partner.pause_seconds = Some(value.parse().map_err(|_| "pause_seconds takes a number")?),
            _ => return Err(format!("unknown key {key:?}")),
        }
    }
    Ok(partner)
}

/// `keyrink load`
#[derive(Args, Debug)]
#[command(
    after_help = "Files may be binary or armored, plain, .gz or .zst, or keyboxes of GnuPG (pubring.kbx). Certificates are merged into what is there, never replaced.
An interrupted load goes on where it stopped when it is started again.

EXAMPLES:
  keyrink load --data ./keys /usr/share/keyrings
  keyrink load --data ./keys 'dump/*.pgp.zst'
  gpg --export | keyrink load --data ./keys -"
)]
pub struct Load {
    /// Where the store is.
    #[command(flatten)]
    pub source: Source,
    /// Files, folders or patterns; - is standard input
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Start anew instead of going on where an interrupted load stopped
    #[arg(long)]
    pub restart: bool,
}

/// `keyrink import-hockeypuck`
#[derive(Args, Debug)]
#[command(
    after_help = "Hockeypuck may go on running: its database is only read, its table `keys` alone. Certificates are merged into what
is there; an import that was interrupted goes on where it stopped when it is started again. The digest that Hockeypuck
has of each is compared with the one that Keyrink finds, and differences are listed at the end.

EXAMPLES:
  keyrink import-hockeypuck --database postgres://hockeypuck@/hkp --data ./keys
  keyrink import-hockeypuck --database postgres://hockeypuck@/hkp --into postgres://keyrink@/keyrink"
)]
pub struct ImportHockeypuck {
    /// The database of Hockeypuck: postgres://USER@HOST/NAME
    #[arg(long, value_name = "URL")]
    pub database: String,
    /// Folder of the embedded database; created if missing [default: /var/lib/keyrink]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// PostgreSQL database of Keyrink to use instead of a folder
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    pub into: Option<String>,
    /// Configuration file; `keyrink config show` writes one
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Start anew instead of going on where an interrupted import stopped
    #[arg(long)]
    pub restart: bool,
}

impl ImportHockeypuck {
    /// Where the store is that certificates go to.
    pub fn target(&self) -> Source {
        Source {
            data: self.data.clone(),
            database: self.into.clone(),
            config: self.config.clone(),
        }
    }
}

/// `keyrink dump`
#[derive(Args, Debug)]
#[command(
    after_help = "The files and their manifest (counts and SHA-256) can be given to `keyrink load`. Blocked certificates are left out
and counted; `keyrink admin list --export` writes the rules.

EXAMPLES:
  keyrink dump --data ./keys ./dump
  keyrink dump --data ./keys --dataset sks --certificates-per-file 15000 ./dump-for-sks"
)]
pub struct Dump {
    /// Where the store is.
    #[command(flatten)]
    pub source: Source,
    /// Folder to write into; created if missing, must be empty
    #[arg(value_name = "DIR")]
    pub target: PathBuf,
    /// Write what one dataset holds, for other keyservers, instead of everything
    #[arg(long, value_name = "NAME")]
    pub dataset: Option<String>,
    /// Certificates in one file
    #[arg(long, value_name = "N", default_value = "15000")]
    pub certificates_per_file: NonZeroU32,
}

/// `keyrink check`
#[derive(Args, Debug)]
#[command(after_help = "Exit status: 0 without a difference, 1 with any.

EXAMPLES:
  keyrink check --data ./keys")]
pub struct Check {
    /// Where the store is.
    #[command(flatten)]
    pub source: Source,
}

/// `keyrink rebuild`
#[derive(Args, Debug)]
#[command(
    after_help = "A server does so by itself, slowly, after a change of what is indexed (`words` in [search], `datasets` in
[peers]). This does it at once, and for every certificate.

EXAMPLES:
  keyrink rebuild --data ./keys"
)]
pub struct Rebuild {
    /// Where the store is.
    #[command(flatten)]
    pub source: Source,
}

/// `keyrink migrate`
#[derive(Args, Debug)]
#[command(
    after_help = "Needed only where the configuration says `migrate = false`: programs that write do it when they start. Servers of
the version before go on working with the new tables.

EXAMPLES:
  keyrink migrate --database postgres://keyrink@db.example.org/keyrink"
)]
pub struct Migrate {
    /// Where the store is.
    #[command(flatten)]
    pub source: Source,
}

/// `keyrink explain`
#[derive(Args, Debug)]
#[command(
    after_help = "A file is explained as if nothing of it were stored. Users see what /pks/lookup gives out, the datasets are
those of peers.

EXAMPLES:
  keyrink explain --data ./keys 653909A2F0E37C106F5FAF546C8857E0D8E8F074
  keyrink explain ./key.asc"
)]
pub struct Explain {
    /// Where the store is.
    #[command(flatten)]
    pub source: Source,
    /// A file with certificates, or the fingerprint or key id of a stored one
    #[arg(value_name = "FILE|FINGERPRINT")]
    pub what: String,
}

/// `keyrink backup`
#[derive(Args, Debug)]
#[command(
    after_help = "The copy is complete and consistent, also beside a running server. To restore it, stop the server and
use the copy as its data folder.

EXAMPLES:
  keyrink backup --data ./keys ./backup-of-today"
)]
pub struct Backup {
    /// Where the store is.
    #[command(flatten)]
    pub source: Source,
    /// Folder for the copy; must not exist
    #[arg(value_name = "DIR")]
    pub target: PathBuf,
}

/// `keyrink peers`
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = false,
    after_help = "EXAMPLES:
  keyrink peers --data ./keys
  keyrink peers --data ./keys test keys.example.org:11370
  keyrink peers --config /etc/keyrink/keyrink.toml sync example"
)]
pub struct Peers {
    /// Where the store is.
    #[command(flatten)]
    pub source: Source,
    /// Print everything that is known as JSON
    #[arg(long)]
    pub json: bool,
    /// What to do instead of showing the table.
    #[command(subcommand)]
    pub command: Option<PeersCommand>,
}

/// `keyrink peers test` and `keyrink peers sync`
#[derive(Debug, Subcommand)]
pub enum PeersCommand {
    /// Connect once to any keyserver that reconciles: what it announces and how far apart the sets are; changes nothing
    Test {
        /// Its host and port
        #[arg(value_name = "HOST:PORT")]
        address: String,
    },
    /// Run one session with a partner and fetch what is missing, now
    Sync {
        /// The name of the partner in the configuration
        name: String,
    },
}

/// `keyrink config`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the complete configuration with its documentation
    #[command(after_help = "EXAMPLES:
  keyrink config show > keyrink.toml
  keyrink config show --config keyrink.toml")]
    Show(Source),
    /// Name every unknown key and bad value of a file with its place
    #[command(after_help = "Exit status: 0 if the file is right, 1 if not.

EXAMPLES:
  keyrink config check keyrink.toml")]
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// `keyrink get`
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLES:
  keyrink get 0x80E976F14A508A48E9CA3FE9BC372252CA1CF964 | gpg --import
  keyrink get --server hkps://keyserver.ubuntu.com -o alice.asc alice@example.org")]
pub struct Get {
    /// Which server to ask.
    #[command(flatten)]
    pub server: Server,
    /// Fingerprint, key id, e-mail address or whole user id
    pub search: String,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write the binary form instead of armor
    #[arg(long)]
    pub bin: bool,
}

/// `keyrink search`
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLES:
  keyrink search alice@example.org
  keyrink search --server hkps://keyserver.ubuntu.com 'Alice Example'")]
pub struct Search {
    /// Which server to ask.
    #[command(flatten)]
    pub server: Server,
    /// E-mail address, user id, fingerprint or key id
    pub text: String,
}

/// The server that `get` and `search` ask.
#[derive(Args, Debug)]
pub struct Server {
    /// Keyserver: hkp, hkps, http or https
    #[arg(long, value_name = "URL", default_value = "hkp://127.0.0.1:11371")]
    pub server: String,
    /// Seconds to wait for the whole answer
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    pub timeout: NonZeroU32,
}

const EXAMPLES: &str = "EXAMPLES:
  keyrink serve --data ./keys --load /usr/share/keyrings/*.gpg
  gpg --keyserver hkp://127.0.0.1:11371 --recv-keys 0x80E976F14A508A48E9CA3FE9BC372252CA1CF964
  keyrink search --server hkps://keyserver.ubuntu.com alice@example.org

`keyrink COMMAND --help` has examples for each command.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_win_over_defaults() {
        let cli = Cli::parse_from([
            "keyrink",
            "serve",
            "--data",
            "d",
            "--http",
            "[::1]:80",
            "--http",
            "127.0.0.1:80",
            "--load",
            "a",
            "b",
        ]);
        let Command::Serve(serve) = cli.command else {
            panic!("serve")
        };
        let config = serve.configuration().unwrap();
        assert_eq!(config.store.directory, PathBuf::from("d"));
        assert_eq!(config.http.listen, serve.http);
        assert_eq!(serve.load.len(), 2);
    }

    #[test]
    fn https_needs_a_certificate() {
        let cli = Cli::parse_from(["keyrink", "serve", "--https", "[::1]:443"]);
        let Command::Serve(serve) = cli.command else {
            panic!("serve")
        };
        assert!(
            serve
                .configuration()
                .unwrap_err()
                .to_string()
                .contains("needs `certificate` and `key`")
        );
    }
}
