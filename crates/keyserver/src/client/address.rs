//! Addresses of keyservers as people write them.

use std::fmt;
use std::str::FromStr;
use ureq::http::Uri;

/// A keyserver: `hkp://host[:port][/path]`, also `hkps`, `http`, `https`; without a scheme `hkp` is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    written: String,
    base: String,
}

/// Not the address of a keyserver.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no keyserver: write hkp://host, hkps://host, http://host or https://host, with :port if needed")]
pub struct BadAddress(String);

impl Address {
    /// The URL that `/pks/…` is appended to.
    pub(super) fn base(&self) -> &str {
        &self.base
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress(text.into());
        let (scheme, rest) = text.split_once("://").unwrap_or(("hkp", text));
        let (scheme, port) = match scheme.to_ascii_lowercase().as_str() {
            "hkp" => ("http", 11371),
            "hkps" | "https" => ("https", 443),
            "http" => ("http", 80),
            _ => return Err(bad()),
        };
        let uri = Uri::from_str(&format!("http://{rest}")).map_err(|_| bad())?;
        let authority = uri
            .authority()
            .filter(|authority| !authority.as_str().contains('@'))
            .ok_or_else(bad)?;
        if authority.host().is_empty() || uri.query().is_some() {
            return Err(bad());
        }
        // A port that is no number must not silently become the default.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            None | Some("") => port,
            Some(_) => authority.port_u16().ok_or_else(bad)?,
        };
        let path = uri.path().trim_end_matches('/');
        Ok(Self {
            written: text.into(),
            base: format!("{scheme}://{}:{port}{path}", authority.host()),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_have_their_ports() {
        for (text, base) in [
            ("keys.example.org", "http://keys.example.org:11371"),
            ("hkp://keys.example.org", "http://keys.example.org:11371"),
            ("HKPS://keys.example.org/", "https://keys.example.org:443"),
            ("http://keys.example.org/sub/", "http://keys.example.org:80/sub"),
            ("https://keys.example.org:8443", "https://keys.example.org:8443"),
            ("hkp://[::1]:80", "http://[::1]:80"),
            ("hkp://[::1]", "http://[::1]:11371"),
        ] {
            assert_eq!(
                text.parse::<Address>().map(|address| address.base),
                Ok(base.into()),
                "{text}"
            );
        }
    }

    #[test]
    fn other_things_are_refused() {
        for text in [
            "",
            "ldap://host",
            "hkp://",
            "hkp://user@host",
            "hkp://host:port",
            "hkp://a b",
            "hkp://host?x",
            "hkp://host:99999",
        ] {
            assert_eq!(text.parse::<Address>(), Err(BadAddress(text.into())));
        }
    }
}
