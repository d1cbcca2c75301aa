//! Authentication of tickets: texts that the server gives to a client and takes back, and that no one else may be able to make.
//!
//! A ticket carries the first bytes of an HMAC-SHA256 under a key that is derived from the master key, so that every node accepts the tickets of
//! all nodes. It is bound to the tenant.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::Catalog;
use carillon_core::job::TenantId;

/// Length of the authentication code of a ticket, in bytes: 128 bits.
pub const TICKET_MAC_LEN: usize = 16;

/// Label under which the key of tickets is derived from the master key.
const LABEL: &str = "carillon ticket v1";

impl Catalog {
    /// Returns the authentication code of a tenant's ticket.
    #[must_use]
    pub fn ticket_mac(&self, tenant: TenantId, ticket: &[u8]) -> [u8; TICKET_MAC_LEN] {
        let mut code = [0; TICKET_MAC_LEN];
        let hmac = ticket_hmac(&self.vault.derive(LABEL), tenant, ticket);
        code.copy_from_slice(&hmac.finalize().into_bytes()[..TICKET_MAC_LEN]);
        code
    }

    /// Returns whether `mac` is the authentication code of the tenant's ticket, under the master key or the one before it. The time does not
    /// depend on where they differ.
    #[must_use]
    pub fn is_ticket_mac(&self, tenant: TenantId, ticket: &[u8], mac: &[u8; TICKET_MAC_LEN]) -> bool {
        let mut keys = self.vault.derive_each(LABEL);
        keys.any(|key| ticket_hmac(&key, tenant, ticket).verify_truncated_left(mac).is_ok())
    }
}

fn ticket_hmac(key: &[u8; 32], tenant: TenantId, ticket: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key will do");
    mac.update(&tenant.0.to_be_bytes());
    mac.update(ticket);
    mac
}
