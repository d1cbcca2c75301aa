//! Egress of one tenant: narrows what the server's [`Guard`](super::egress::Guard) allows. It allows nothing that the guard refuses, which is
//! asked as well.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::egress::{canonical_net, forms};
use carillon_policy::binding::EgressQuota;

/// A network or a port that the quota of the tenant leaves out.
///
/// Its text names the address: it is for the operator, and for the client that wrote the address itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedByQuota {
    /// An address.
    Address(IpAddr),
    /// A port.
    Port(u16),
}

impl fmt::Display for RefusedByQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}")?,
            Self::Port(port) => write!(f, "port {port}")?,
        }
        f.write_str(" is refused: the tenant's `quota.egress` leaves it out")
    }
}

/// Checks whether a tenant's request may go to `port`.
///
/// # Errors
/// Returns [`RefusedByQuota`] if it may not.
pub fn check_port(quota: &EgressQuota, port: u16) -> Result<(), RefusedByQuota> {
    let is_within = quota.ports.as_ref().is_none_or(|ports| ports.iter().any(|range| range.contains(port)));
    if is_within { Ok(()) } else { Err(RefusedByQuota::Port(port)) }
}

/// Checks whether a tenant's request may go to `address`. As for the server, what an address carries is denied as the address itself is, and
/// allowed only if it is sure that packets go there.
///
/// # Errors
/// Returns [`RefusedByQuota`] if it may not.
pub fn check(quota: &EgressQuota, address: IpAddr) -> Result<(), RefusedByQuota> {
    let address = address.to_canonical();
    let (all, sure) = forms(address);
    let within = |nets: &[IpNet], form: &IpAddr| nets.iter().any(|net| canonical_net(*net).contains(form));
    let is_denied = all.iter().any(|form| within(&quota.deny, form));
    let is_allowed = quota.allow.as_ref().is_none_or(|allow| sure.iter().any(|form| within(allow, form)));
    if is_allowed && !is_denied { Ok(()) } else { Err(RefusedByQuota::Address(address)) }
}

#[cfg(test)]
mod tests {
    use carillon_policy::binding::{Quota, QuotaInput};
    use serde_json::{Value, json};

    use super::*;

    fn quota(egress: Value) -> EgressQuota {
        let doc: QuotaInput = serde_json::from_value(json!({"egress": egress})).unwrap();
        EgressQuota::clone(&Quota::parse(doc).unwrap().egress.unwrap())
    }

    fn allows(quota: &EgressQuota, address: &str) -> bool {
        check(quota, address.parse().unwrap()).is_ok()
    }

    #[test]
    fn only_allowed_networks_are_left_and_denied_ones_are_not() {
        let quota = quota(json!({"allow": ["8.8.0.0/16", "2001:4860::/32"], "deny": ["8.8.4.0/24"]}));
        for (address, expected) in [
            ("8.8.8.8", true),
            ("8.8.4.4", false),
            ("1.1.1.1", false),
            ("2001:4860::1", true),
            ("2606:4700::1", false),
            ("::ffff:8.8.8.8", true),
            ("64:ff9b::808:808", true),
            ("64:ff9b::808:404", false),
            ("2002:808:808::", true),
            ("64:ff9b::101:101", false),
        ] {
            assert_eq!(allows(&quota, address), expected, "{address}");
        }
    }

    #[test]
    fn what_is_left_out_allows_all() {
        let quota = quota(json!({"deny": ["::ffff:9.0.0.0/104"]}));
        assert!(allows(&quota, "8.8.8.8") && !allows(&quota, "9.9.9.9"));
        assert_eq!(check_port(&quota, 1), Ok(()));
    }

    #[test]
    fn ports_are_bounded() {
        let quota = quota(json!({"ports": ["443", "8000-8999"]}));
        for (port, expected) in [(443, true), (8_443, true), (80, false), (9_000, false)] {
            assert_eq!(check_port(&quota, port).is_ok(), expected, "{port}");
        }
    }
}
