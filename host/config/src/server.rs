//! `[server]`: the API's port, and the bounds of connections and requests.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::Deserialize;
use url::Url;

use super::checks::Checks;
use super::values::{self, Period, Size};

/// `[server]`: the API.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Address and port on which the API is served.
    #[serde(deserialize_with = "values::address")]
    pub listen: SocketAddr,
    /// URL under which clients reach the server, if it is not `listen`.
    #[serde(deserialize_with = "values::read_unless_empty")]
    pub public_url: Option<Url>,
    /// Whether the OpenAPI document is served.
    pub openapi: bool,
    /// Name of the node; None for its host's name.
    #[serde(deserialize_with = "values::unless_empty")]
    pub name: Option<String>,
    /// Largest request body.
    pub body_limit: Size,
    /// Largest number of jobs in one batch.
    pub batch_limit: usize,
    /// Largest payload of one job.
    pub payload_limit: Size,
    /// Time limit for a request's headers.
    pub header_read_timeout: Period,
    /// Time limit for a request, body and response included.
    pub request_timeout: Period,
    /// Largest number of concurrent requests.
    pub concurrent_requests: usize,
    /// Time for which a response may make no progress.
    pub write_timeout: Period,
    /// Largest number of open connections.
    pub connections: usize,
    /// Largest number of them from one address.
    pub connections_per_peer: usize,
    /// Networks of proxies, whose word on a client's address counts, and for which `connections_per_peer` does not hold.
    #[serde(deserialize_with = "values::networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Header in which they write down the address of a client.
    pub forwarded_header: ForwardedHeader,
    /// Largest number of requests at once on one connection of HTTP/2.
    pub http2_streams: u32,
    /// File with the certificate of all ports; they serve in clear if it is unset.
    #[serde(deserialize_with = "values::unless_empty")]
    pub tls_cert: Option<PathBuf>,
    /// File with the certificate's key.
    #[serde(deserialize_with = "values::unless_empty")]
    pub tls_key: Option<PathBuf>,
    /// File with the authorities of clients' certificates; none is requested if it is unset.
    #[serde(deserialize_with = "values::unless_empty")]
    pub client_ca: Option<PathBuf>,
    /// Time that running work has after the first signal to stop.
    pub drain_timeout: Period,
    /// Time for which `/readyz` reports the coming stop to load balancers before the port closes.
    pub drain_notice: Period,
}

/// Header in which proxies write down the address of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl Server {
    /// Returns the name of the node.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| hostname::get().unwrap_or_default().to_string_lossy().into_owned())
    }

    /// Returns the files of the certificate and its key, if there is one.
    #[must_use]
    pub fn tls(&self) -> Option<(&Path, &Path)> {
        Some((self.tls_cert.as_deref()?, self.tls_key.as_deref()?))
    }

    pub(super) fn check(&self, checks: &mut Checks) {
        checks.between("server.http2_streams", self.http2_streams, 1, 10_000);
        let message = |other: &str| format!("it must be set, because {other} is set");
        let (cert, key) = (self.tls_cert.is_some(), self.tls_key.is_some());
        checks.require(key || !cert, "server.tls_key", message("server.tls_cert"));
        checks.require(cert || !key, "server.tls_cert", message("server.tls_key"));
        checks.require(cert || self.client_ca.is_none(), "server.tls_cert", message("server.client_ca"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Sources};

    fn refusal(variables: &[(&str, &str)]) -> String {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match Config::load(Sources { environment, ..Sources::default() }) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn header_of_proxies_is_one_of_two() {
        for name in ["x-forwarded-for", "forwarded"] {
            assert_eq!(refusal(&[("CARILLON_SERVER__FORWARDED_HEADER", name)]), "");
        }
        let message = refusal(&[("CARILLON_SERVER__FORWARDED_HEADER", "x-real-ip")]);
        assert!(message.contains("server.forwarded_header") && message.contains("x-forwarded-for"), "{message}");
    }

    #[test]
    fn certificate_and_key_are_set_together() {
        let (cert, key) = (("CARILLON_SERVER__TLS_CERT", "a.pem"), ("CARILLON_SERVER__TLS_KEY", "a.key"));
        assert_eq!(refusal(&[cert, key]), "");
        let message = refusal(&[cert]);
        assert!(message.contains("server.tls_key: it must be set, because server.tls_cert is set"), "{message}");
        let message = refusal(&[key]);
        assert!(message.contains("server.tls_cert: it must be set, because server.tls_key is set"), "{message}");
        let message = refusal(&[("CARILLON_SERVER__CLIENT_CA", "ca.pem")]);
        assert!(message.contains("server.tls_cert: it must be set, because server.client_ca is set"), "{message}");
    }
}
