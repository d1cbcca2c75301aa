//! Routes: which connections can carry which requests.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::outgoing::Outgoing;
use carillon_policy::binding::EgressQuota;

/// Origin of a receiver, the identity that the connection has there, and the bounds under which it was opened. Requests of one route can share connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Route {
    origin: Arc<str>,
    /// Digest of the client certificate that the receiver was shown.
    identity: Option<[u8; 32]>,
    /// Bounds of the tenant's egress under which the connection was opened: its address passed these only.
    egress: Option<Arc<EgressQuota>>,
}

impl Route {
    /// Returns the route of a request.
    pub(super) fn new(outgoing: &Outgoing) -> Self {
        // Only handshakes show a certificate.
        let key = outgoing.client_key.as_ref().filter(|_| outgoing.url.scheme() == "https");
        let certified = key.and_then(|key| key.tls_client().ok());
        let certificate = certified.as_ref().and_then(|certified| certified.cert.first());
        let identity = certificate.map(|certificate| Sha256::digest(certificate).into());
        Self { origin: outgoing.url.origin().ascii_serialization().into(), identity, egress: outgoing.egress.clone() }
    }

    /// Returns the route of requests without a client certificate.
    #[cfg(test)]
    pub(super) fn anonymous(origin: &str) -> Self {
        Self { origin: origin.into(), identity: None, egress: None }
    }
}
