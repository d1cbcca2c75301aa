//! Where requests may go. Addresses are judged after name resolution, one by one, so that a name cannot smuggle one in.
//!
//! The list of special networks is that of the IANA registries for IPv4 and IPv6 (RFC 6890 and its updates), with the addresses
//! that carry an IPv4 address inside them judged by what they carry.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// IPv4 networks that are not the public internet.
const SPECIAL_V4: [(Ipv4Addr, u8, &str); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, "this network"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "private"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "carrier-grade NAT"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local, cloud metadata"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "private"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "protocol assignments"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "documentation"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "6to4 relay"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "private"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "benchmarking"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "documentation"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "documentation"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved"),
];

/// The IPv6 networks of the public internet, and what is special within them.
const PUBLIC_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
const SPECIAL_V6: [(Ipv6Addr, u8, &str); 3] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "protocol assignments, Teredo"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "documentation"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "documentation"),
];

/// The networks under which an IPv4 address is carried, and at which bit it begins.
const NAT64: (Ipv6Addr, u8) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);
const SIX_TO_FOUR: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16);

/// An address that requests may not go to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is refused ({why}); the operator can allow its network with `egress.allow`")]
pub struct Refused {
    /// The address.
    pub address: IpAddr,
    /// What kind of address it is.
    pub why: String,
}

/// Judges addresses.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
}

impl Guard {
    /// `deny` goes before `allow`, and `allow` before the list of special networks.
    #[must_use]
    pub fn new(allow: Vec<IpNet>, deny: Vec<IpNet>) -> Self {
        Self { allow, deny }
    }

    /// Whether a request may go to `address`.
    ///
    /// # Errors
    /// If it may not.
    pub fn check(&self, address: IpAddr) -> Result<(), Refused> {
        let address = address.to_canonical();
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
        if within(&self.deny) {
            return Err(Refused { address, why: "denied by `egress.deny`".to_owned() });
        }
        if within(&self.allow) {
            return Ok(());
        }
        special(address).map_or(Ok(()), |why| Err(Refused { address, why: why.to_owned() }))
    }
}

fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => {
            let within = |(net, len, _): &&(Ipv4Addr, u8, &str)| Ipv4Net::new_assert(*net, *len).contains(&address);
            SPECIAL_V4.iter().find(within).map(|(_, _, why)| *why)
        }
        IpAddr::V6(address) => special_v6(address),
    }
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let within = |net: Ipv6Addr, len: u8| Ipv6Net::new_assert(net, len).contains(&address);
    let carried = |at: usize| {
        let octets = address.octets();
        special(IpAddr::V4(Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3])))
    };
    if within(NAT64.0, NAT64.1) {
        return carried(12);
    }
    if within(SIX_TO_FOUR.0, SIX_TO_FOUR.1) {
        return carried(2);
    }
    if !within(PUBLIC_V6.0, PUBLIC_V6.1) {
        return Some("not a public IPv6 address");
    }
    SPECIAL_V6.iter().find(|(net, len, _)| within(*net, *len)).map(|(_, _, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(guard: &Guard, address: &str) -> bool {
        guard.check(address.parse().unwrap()).is_ok()
    }

    #[test]
    fn the_public_internet_is_allowed() {
        for address in
            ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.63.0.1", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::1"]
        {
            assert!(allowed(&Guard::default(), address), "{address}");
        }
    }

    #[test]
    fn everything_else_is_refused_however_it_is_written() {
        for address in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.192",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
        ] {
            assert!(!allowed(&Guard::default(), address), "{address}");
        }
    }

    #[test]
    fn the_operator_opens_and_closes_networks() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let guard = Guard::new(vec![net("127.0.0.0/8"), net("10.0.0.0/8")], vec![net("10.9.0.0/16"), net("1.0.0.0/8")]);
        assert!(allowed(&guard, "127.0.0.1") && allowed(&guard, "::ffff:127.0.0.1") && allowed(&guard, "10.0.0.1"));
        assert!(!allowed(&guard, "10.9.0.1"), "deny goes first");
        assert!(!allowed(&guard, "1.1.1.1") && !allowed(&guard, "192.168.0.1"));
    }
}
