//! URLs of deliveries, redirects, and the guard that decides where requests may go.

use std::net::IpAddr;

use carillon_engine::delivery::egress::Guard;
use carillon_engine::delivery::send::redirected;
use url::{Host, Url};

use crate::lines;

/// First line: the URL of a request; second: the status of the response; third: its `Location`.
pub(crate) fn urls(data: &[u8]) {
    let [url, status, location] = lines(data);
    let guard = Guard::default();
    let Ok(url) = Url::parse(url) else { return };
    if !["http", "https"].contains(&url.scheme()) || url.host().is_none() {
        return;
    }
    check_guard(&guard, &url);
    let Ok(Some(next)) = redirected(&url, status.parse().unwrap_or(307), location.as_bytes()) else { return };
    assert!(["http", "https"].contains(&next.scheme()) && next.host().is_some(), "{next}");
    assert!(url.scheme() == "http" || next.scheme() == "https", "{url} leads to clear text: {next}");
    assert!(next.fragment().is_none(), "{next}");
    if next.origin() != url.origin() {
        assert!(next.username().is_empty() && next.password().is_none(), "credentials go to {next}");
    } else {
        assert_eq!((next.username(), next.password()), (url.username(), url.password()), "{next}");
    }
    check_guard(&guard, &next);
}

/// Checks that the guard refuses what is an internal address by the standard library's own judgement, in each form of it.
fn check_guard(guard: &Guard, url: &Url) {
    let address: IpAddr = match url.host() {
        Some(Host::Ipv4(address)) => address.into(),
        Some(Host::Ipv6(address)) => address.into(),
        _ => return,
    };
    let canonical = address.to_canonical();
    let is_internal = match canonical {
        IpAddr::V4(address) => {
            address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()
                || address.is_broadcast()
                || address.is_multicast()
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_unique_local()
                || address.is_unicast_link_local()
        }
    };
    assert!(!is_internal || guard.check(address).is_err(), "{address} is allowed");
    let mapped = match canonical {
        IpAddr::V4(address) => Some(address.to_ipv6_mapped()),
        IpAddr::V6(_) => None,
    };
    if let Some(mapped) = mapped {
        assert_eq!(guard.check(address).is_ok(), guard.check(mapped.into()).is_ok(), "{address} and {mapped}");
    }
}
