//! Addresses of clients.

use std::net::IpAddr;

use axum::http::Extensions;

/// Address of the client of a request, with IPv4 addresses in their own form. An extension of each request that came over a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

impl Peer {
    /// Returns the address that a request's extensions have.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Option<IpAddr> {
        extensions.get::<Self>().map(|peer| peer.0)
    }
}
