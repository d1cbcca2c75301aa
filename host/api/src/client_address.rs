//! Addresses of clients: that of the connection, or the one that a trusted proxy has written down.
//!
//! A proxy appends the address from which it got a request to a header. So the header is read from its end: the first address that is no trusted
//! proxy's is the client's, and what stands before it is what the client says, which proves nothing.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr as _;

use axum::extract::Request;
use axum::http::{Extensions, HeaderMap, HeaderName};
use ipnet::IpNet;

/// Address of the client of a request, with IPv4 addresses in their own form. An extension of each request that came over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

impl Peer {
    /// Returns the address that a request's extensions have.
    #[must_use]
    pub fn address(extensions: &Extensions) -> Option<IpAddr> {
        extensions.get::<Self>().map(|peer| peer.0)
    }
}

/// Header in which proxies write down the address of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`: addresses with commas between them.
    XForwardedFor,
    /// `Forwarded` (RFC 7239): the parameter `for` of each element.
    Forwarded,
}

/// Proxies that are believed.
#[derive(Clone, Debug)]
pub struct TrustedProxies {
    /// Networks of the proxies.
    pub networks: Vec<IpNet>,
    /// Header that all of them append to.
    pub header: ForwardedHeader,
}

impl TrustedProxies {
    /// Returns whether an address is that of a proxy.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Returns the client of a request that came from `peer`.
    pub(super) fn client(&self, peer: Peer, request: &Request) -> Peer {
        if self.networks.is_empty() || !self.contains(peer.0) {
            return peer;
        }
        let mut client = peer;
        for address in self.addresses(request.headers()) {
            // What cannot be read was not written by a proxy that is known here: the last that is known is the client then.
            let Some(address) = address else { break };
            client = Peer(address);
            if !self.contains(address) {
                break;
            }
        }
        client
    }

    /// Returns the addresses of the header, the last first; `None` for what is not an address.
    fn addresses(&self, headers: &HeaderMap) -> Vec<Option<IpAddr>> {
        let (name, read): (_, fn(&str) -> Option<IpAddr>) = match self.header {
            ForwardedHeader::XForwardedFor => (HeaderName::from_static("x-forwarded-for"), node),
            ForwardedHeader::Forwarded => (HeaderName::from_static("forwarded"), element),
        };
        let mut addresses = Vec::new();
        for value in headers.get_all(name) {
            match value.to_str() {
                Ok(value) => addresses.extend(value.split(',').map(|part| read(part.trim()))),
                Err(_) => addresses.push(None),
            }
        }
        addresses.reverse();
        addresses
    }
}

/// Reads the `for` of an element of `Forwarded`. Quoted text has no comma in any address, so that elements are told apart by commas alone: a client
/// that quotes one only makes an element of its own unreadable.
fn element(text: &str) -> Option<IpAddr> {
    let mut found = None;
    for pair in text.split(';') {
        let (name, value) = pair.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("for") {
            if found.is_some() {
                return None;
            }
            found = Some(value.trim());
        }
    }
    let value = found?;
    node(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// Reads an address, with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn node(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = IpAddr::from_str(bare).or_else(|_| SocketAddr::from_str(text).map(|address| address.ip())).ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn client(header: ForwardedHeader, peer: &str, lines: &[(&str, &str)]) -> String {
        let networks = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let mut request = Request::builder().uri("/");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let proxies = TrustedProxies { networks, header };
        proxies.client(Peer(peer.parse().unwrap()), &request.body(Body::empty()).unwrap()).0.to_string()
    }

    fn x_forwarded_for(peer: &str, lines: &[&str]) -> String {
        let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
        client(ForwardedHeader::XForwardedFor, peer, &lines)
    }

    #[test]
    fn header_of_a_peer_that_is_no_proxy_is_ignored() {
        assert_eq!(x_forwarded_for("192.0.2.1", &["198.51.100.1"]), "192.0.2.1");
        assert_eq!(x_forwarded_for("192.0.2.1", &["10.0.0.1"]), "192.0.2.1");
    }

    #[test]
    fn last_address_that_is_no_proxy_is_the_client() {
        for (lines, expected) in [
            (&[][..], "10.0.0.1"),
            (&["198.51.100.1"], "198.51.100.1"),
            (&["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
            (&["203.0.113.9, 198.51.100.1, 10.9.9.9"], "198.51.100.1"),
            (&["203.0.113.9", "198.51.100.1", "10.9.9.9,10.8.8.8"], "198.51.100.1"),
            (&["198.51.100.1:4711"], "198.51.100.1"),
            (&["2001:4860::1"], "2001:4860::1"),
            (&["[2001:4860::1]:80, 2001:db8::7"], "2001:4860::1"),
            (&["::ffff:198.51.100.1"], "198.51.100.1"),
            // All of them are proxies: the first in the row speaks for itself.
            (&["10.7.7.7, 10.9.9.9"], "10.7.7.7"),
            // What cannot be read ends the row of what is known.
            (&["198.51.100.1, unknown"], "10.0.0.1"),
            (&["198.51.100.1, unknown, 10.9.9.9"], "10.9.9.9"),
            (&["198.51.100.1,"], "10.0.0.1"),
        ] {
            assert_eq!(x_forwarded_for("10.0.0.1", lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_says() {
        let forwarded = |line: &str| client(ForwardedHeader::Forwarded, "10.0.0.1", &[("forwarded", line)]);
        for (line, expected) in [
            ("for=198.51.100.1", "198.51.100.1"),
            ("For=203.0.113.9, for=198.51.100.1;proto=https;by=10.0.0.1, for=10.9.9.9", "198.51.100.1"),
            ("for=\"[2001:4860::1]:4711\"", "2001:4860::1"),
            ("proto=https;for=\"198.51.100.1:80\"", "198.51.100.1"),
            ("for=198.51.100.1, for=_hidden", "10.0.0.1"),
            ("for=198.51.100.1, proto=https", "10.0.0.1"),
            ("for=198.51.100.1;for=203.0.113.9", "10.0.0.1"),
            ("for=203.0.113.9;by=\"a, for=198.51.100.1", "198.51.100.1"),
        ] {
            assert_eq!(forwarded(line), expected, "{line}");
        }
    }

    #[test]
    fn other_header_is_ignored() {
        let both = [("x-forwarded-for", "198.51.100.1"), ("forwarded", "for=203.0.113.9")];
        assert_eq!(client(ForwardedHeader::XForwardedFor, "10.0.0.1", &both), "198.51.100.1");
        assert_eq!(client(ForwardedHeader::Forwarded, "10.0.0.1", &both), "203.0.113.9");
    }
}
