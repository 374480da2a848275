//! Where the database is: a URL, what TLS it asks for, and the password file.
//!
//! The URL is that of PostgreSQL (`postgres://user@host:port/database?name=value`, also with several hosts or the folder of a
//! socket). A database on this machine is spoken to as it is; any other only by TLS with a certificate that was verified,
//! unless the URL says `sslmode=disable`. `sslrootcert` names a file of authorities; without it those of the system count.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::StoreError;

/// How to reach a database.
pub(super) struct Address {
    pub(super) config: Config,
    /// Its authorities, if it is spoken to by TLS and they are not those of the system.
    pub(super) authorities: Option<PathBuf>,
    /// How it is called in messages: never with the password.
    pub(super) name: String,
}

impl Address {
    /// Takes a URL apart; a password it lacks is looked for in `passwords`.
    pub(super) fn new(url: &str, passwords: Option<&Path>) -> Result<Self, StoreError> {
        let wrong = |reason: &dyn std::fmt::Display| StoreError::Invalid(format!("the URL of the database: {reason}"));
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(wrong(&"it begins with postgres://, as in postgres://keyrink@/keyrink"));
        }
        let (rest, tls) = Tls::take(url);
        let mut config = Config::from_str(&rest).map_err(|error| wrong(&sources(&error)))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host_path(SOCKETS);
        }
        // An address counts for more than the name beside it.
        let local = config.get_hosts().iter().all(is_local)
            && config.get_hostaddrs().iter().all(|address| address.is_loopback());
        let mode = match tls.mode.as_deref() {
            Some("disable") => SslMode::Disable,
            Some("require" | "verify-full") => SslMode::Require,
            None if local && tls.authorities.is_none() => SslMode::Disable,
            None => SslMode::Require,
            Some(other) => return Err(wrong(&format!("sslmode is disable or verify-full, not {other}"))),
        };
        config
            .ssl_mode(mode)
            .application_name("keyrink")
            .connect_timeout(CONNECT_WITHIN)
            .tcp_user_timeout(SILENT_MAX)
            .keepalives_idle(SILENT_MAX);
        let name = name(&config);
        if config.get_password().is_none()
            && let Some(password) = passwords.map(|file| password(file, &config)).transpose()?.flatten()
        {
            config.password(password);
        }
        let authorities = tls.authorities.filter(|_| mode == SslMode::Require);
        Ok(Self {
            config,
            authorities,
            name,
        })
    }
}

/// The parts of a URL that are ours to interpret.
#[derive(Default)]
struct Tls {
    mode: Option<String>,
    authorities: Option<PathBuf>,
}

impl Tls {
    /// Takes `sslmode` and `sslrootcert` out of a URL.
    fn take(url: &str) -> (String, Self) {
        let mut tls = Self::default();
        let Some((base, query)) = url.split_once('?') else {
            return (url.to_owned(), tls);
        };
        let mut others = Vec::new();
        for pair in query.split('&') {
            match pair.split_once('=') {
                Some(("sslmode", mode)) => tls.mode = Some(mode.to_owned()),
                Some(("sslrootcert", file)) => tls.authorities = Some(file.replace("%2F", "/").into()),
                _ => others.push(pair),
            }
        }
        (format!("{base}?{}", others.join("&")), tls)
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => matches!(name.as_str(), "localhost" | "127.0.0.1" | "::1"),
    }
}

/// The hosts as the URL names them; their addresses if it names none.
fn host_names(config: &Config) -> Vec<String> {
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(folder) => folder.display().to_string(),
    });
    match config.get_hosts() {
        [] => config.get_hostaddrs().iter().map(ToString::to_string).collect(),
        _ => hosts.collect(),
    }
}

fn database(config: &Config) -> &str {
    config.get_dbname().or(config.get_user()).unwrap_or("postgres")
}

/// Names the database, so that no two that differ are called the same.
fn name(config: &Config) -> String {
    let ports = config.get_ports();
    let place = |(at, host): (usize, String)| match ports.get(at).or(ports.first()) {
        None | Some(5432) => host,
        Some(port) if host.contains(':') => format!("[{host}]:{port}"),
        Some(port) => format!("{host}:{port}"),
    };
    let places: Vec<_> = host_names(config).into_iter().enumerate().map(place).collect();
    format!("the database {} at {}", database(config), places.join(", "))
}

/// An error with what lies behind it.
fn sources(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The password in a file of lines `host:port:database:user:password`, of which the first that fits counts; `*` fits
/// everything (PostgreSQL's manual, "The Password File"). A file that is not there holds none.
fn password(file: &Path, config: &Config) -> Result<Option<String>, StoreError> {
    let failed = |reason: &dyn std::fmt::Display| {
        StoreError::Unavailable(format!("the password file {}: {reason}", file.display()))
    };
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(file).map_err(|error| failed(&error))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(failed(&"others can read it: chmod 600"));
        }
    }
    let mut hosts = host_names(config);
    if config.get_hosts().iter().any(|host| matches!(host, Host::Unix(_))) {
        hosts.push("localhost".to_owned());
    }
    let ports: Vec<String> = match config.get_ports() {
        [] => vec!["5432".to_owned()],
        ports => ports.iter().map(u16::to_string).collect(),
    };
    let fits = |field: &str, values: &[String]| field == "*" || values.iter().any(|value| value == field);
    let found = text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let [host, port, base, user, password] = <[String; 5]>::try_from(fields(line)).ok()?;
        let right = fits(&host, &hosts)
            && fits(&port, &ports)
            && fits(&base, &[database(config).to_owned()])
            && fits(&user, &[config.get_user().unwrap_or_default().to_owned()]);
        right.then_some(password)
    });
    Ok(found)
}

/// The fields of a line; a backslash takes away the meaning of what follows it.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let last = fields.last_mut().expect("there is always a field");
        match character {
            '\\' => last.extend(characters.next()),
            ':' => fields.push(String::new()),
            _ => last.push(character),
        }
    }
    fields
}

/// Where Debian's PostgreSQL has its socket.
const SOCKETS: &str = "/var/run/postgresql";
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long the network may swallow what is sent, and be silent.
const SILENT_MAX: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn mode(url: &str) -> SslMode {
        Address::new(url, None).unwrap().config.get_ssl_mode()
    }

    #[test]
    fn other_machines_are_spoken_to_by_tls() {
        assert_eq!(mode("postgres://keyrink@/keyrink"), SslMode::Disable);
        assert_eq!(mode("postgres://keyrink@127.0.0.1:5433/keyrink"), SslMode::Disable);
        assert_eq!(mode("postgresql://keyrink@db.example.org/keyrink"), SslMode::Require);
        assert_eq!(
            mode("postgres://localhost/keyrink?sslmode=verify-full"),
            SslMode::Require
        );
        assert_eq!(
            mode("postgres://db.example.org/keyrink?sslmode=disable"),
            SslMode::Disable
        );
        let addressed = mode("postgres://keyrink@/keyrink?hostaddr=10.0.0.5");
        assert_eq!(addressed, SslMode::Require);
        let addressed = mode("postgres://keyrink@/keyrink?host=localhost&hostaddr=10.0.0.5");
        assert_eq!(addressed, SslMode::Require);
        let addressed = mode("postgres://keyrink@/keyrink?host=localhost&hostaddr=127.0.0.1");
        assert_eq!(addressed, SslMode::Disable);
        let own = Address::new(
            "postgres://localhost:99/x?sslrootcert=%2Fetc%2Fca.pem&application_name=y",
            None,
        )
        .unwrap();
        assert_eq!(own.config.get_ssl_mode(), SslMode::Require);
        assert_eq!(
            (own.authorities, own.config.get_ports()),
            (Some("/etc/ca.pem".into()), &[99][..])
        );
    }

    #[test]
    fn names_hold_no_password_and_slips_are_named() {
        let socket = Address::new("postgres://keyrink:secret@/keys", None).unwrap();
        assert_eq!(socket.name, "the database keys at /var/run/postgresql");
        let name = |url: &str| Address::new(url, None).unwrap().name;
        assert_eq!(name("postgres://x@a:5432,b:5433/y"), "the database y at a, b:5433");
        assert_eq!(
            name("postgres://x@/y?hostaddr=::1&port=99"),
            "the database y at [::1]:99"
        );
        for (url, reason) in [
            ("sqlite://x", "begins with postgres://"),
            ("postgres://x/y?sslmode=prefer", "not prefer"),
            ("postgres://x/y?port=many", "port"),
        ] {
            let error = Address::new(url, None).err().unwrap().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn passwords_come_from_the_first_line_that_fits() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(
            file,
            "# comment\nother:*:*:*:no\n*:5432:keys:keyrink:with\\:colon\n*:*:*:*:late"
        )
        .unwrap();
        let password = |url: &str| {
            let address = Address::new(url, Some(file.path())).unwrap();
            address
                .config
                .get_password()
                .map(|password| String::from_utf8_lossy(password).into_owned())
        };
        assert_eq!(password("postgres://keyrink@/keys").unwrap(), "with:colon");
        assert_eq!(password("postgres://keyrink:own@/keys").unwrap(), "own");
        assert_eq!(password("postgres://other/keys").unwrap(), "no");
        assert_eq!(password("postgres://keyrink@localhost:1/keys").unwrap(), "late");
        let missing = Address::new("postgres://x/y", Some(Path::new("/no/such/file"))).unwrap();
        assert!(missing.config.get_password().is_none());
    }
}
