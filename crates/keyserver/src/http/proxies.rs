//! For whom a proxy asks.
//!
//! Anybody can write anything into a header, so it counts only from proxies that the configuration names, and only what
//! they added themselves: each adds to the end the address it was called from, so the list is read from its end up to
//! the first address that is not a proxy's. And only one of the two headers counts, since a proxy that writes one of them
//! passes the other on as its client sent it.

use crate::config::{self, ProxyHeader};
use crate::network::Network;
use axum::http::header::{FORWARDED, HeaderName};
use axum::http::{HeaderMap, HeaderValue};
use std::net::{IpAddr, SocketAddr};

/// The proxies that are believed.
pub(crate) struct Proxies {
    trusted: Vec<Network>,
    header: HeaderName,
    read: fn(&str) -> Option<IpAddr>,
}

impl Proxies {
    /// As configured.
    pub(crate) fn new(http: &config::Http) -> Self {
        let (header, read): (_, fn(&str) -> _) = match http.proxy_header {
            ProxyHeader::XForwardedFor => (HeaderName::from_static("x-forwarded-for"), node),
            ProxyHeader::Forwarded => (FORWARDED, forwarded),
        };
        Self {
            trusted: http.proxies.clone(),
            header,
            read,
        }
    }

    /// Who sent a request that came from `caller`.
    pub(super) fn client(&self, caller: IpAddr, headers: &HeaderMap) -> IpAddr {
        let is_proxy = |address: IpAddr| self.trusted.iter().any(|network| network.holds(address));
        let mut client = caller.to_canonical();
        let values = headers
            .get_all(&self.header)
            .into_iter()
            .rev()
            .map(HeaderValue::as_bytes);
        let mut hops = values.flat_map(|value| value.rsplit(|octet| *octet == b','));
        while is_proxy(client) {
            let hop = hops.next().and_then(|hop| std::str::from_utf8(hop).ok());
            match hop.and_then(|hop| (self.read)(hop.trim())) {
                Some(address) => client = address.to_canonical(),
                None => break,
            }
        }
        client
    }

    /// The same with nothing but the octets of the header; `None` if no header can have them.
    pub(crate) fn client_in(&self, caller: IpAddr, header: &[u8]) -> Option<IpAddr> {
        let value = HeaderValue::from_bytes(header).ok()?;
        Some(self.client(caller, &HeaderMap::from_iter([(self.header.clone(), value)])))
    }
}

/// One element of `Forwarded` (RFC 7239, section 4): pairs, of which `for` names the caller.
fn forwarded(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let mut callers = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
    node(callers.next()?.1.trim().trim_matches('"'))
}

/// An address, with or without a port; IPv6 possibly in brackets. Names that hide an address are none.
fn node(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(with_port).or_else(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(header: ProxyHeader, values: &[(&'static str, &'static str)]) -> String {
        let proxies = ["127.0.0.1", "10.0.0.0/8", "2001:db8::/64"].map(|text| text.parse().unwrap());
        let http = config::Http {
            proxies: proxies.into(),
            proxy_header: header,
            ..config::Http::default()
        };
        let headers = values.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        Proxies::new(&http).client([127, 0, 0, 1].into(), &map).to_string()
    }

    #[test]
    fn what_proxies_added_counts_and_nothing_before_it() {
        let of = |value| client(ProxyHeader::XForwardedFor, &[("x-forwarded-for", value)]);
        assert_eq!(of("192.0.2.9"), "192.0.2.9");
        assert_eq!(of("6.6.6.6, 192.0.2.9, 10.1.1.1"), "192.0.2.9");
        assert_eq!(of("6.6.6.6, unknown, 10.1.1.1"), "10.1.1.1");
        assert_eq!(of("[2001:db8:1::9]:443, 2001:db8::7"), "2001:db8:1::9");
        assert_eq!(of("::ffff:192.0.2.9"), "192.0.2.9");
        assert_eq!(of("192.0.2.9:4711"), "192.0.2.9");
        assert_eq!(of(""), "127.0.0.1");
        let twice = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "192.0.2.9")];
        assert_eq!(client(ProxyHeader::XForwardedFor, &twice), "192.0.2.9");
        assert_eq!(
            client(ProxyHeader::XForwardedFor, &[("forwarded", "for=6.6.6.6")]),
            "127.0.0.1"
        );
    }

    #[test]
    fn the_standard_header_is_read_too() {
        let of = |value| client(ProxyHeader::Forwarded, &[("forwarded", value)]);
        assert_eq!(of("for=192.0.2.9;proto=http;by=203.0.113.43"), "192.0.2.9");
        assert_eq!(of("for=6.6.6.6, For=\"[2001:db8:1::9]:4711\""), "2001:db8:1::9");
        assert_eq!(of("for=\"_hidden\""), "127.0.0.1");
        assert_eq!(of("proto=http"), "127.0.0.1");
    }

    #[test]
    fn strangers_are_believed_nothing() {
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("x-forwarded-for"),
            HeaderValue::from_static("6.6.6.6"),
        )]);
        let proxies = Proxies::new(&config::Http::default());
        assert_eq!(
            proxies.client([192, 0, 2, 1].into(), &headers),
            IpAddr::from([192, 0, 2, 1])
        );
    }
}
