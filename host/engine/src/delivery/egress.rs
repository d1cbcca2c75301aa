//! Egress guard: decides to which addresses and ports requests may go. Addresses are checked after name resolution, one by one, so that a name
//! cannot hide one.
//!
//! The list of special networks is that of the IANA registries for IPv4 and IPv6 (RFC 6890 and its updates). Addresses of metadata services that
//! lie outside of those networks are listed here.
//!
//! Invariant: `egress.deny`, `egress.allow` and that list see an address and every IPv4 address that it carries ([`carried`]).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use carillon_config::{Egress, PortRange};

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

/// Addresses of the public internet at which platforms serve metadata and credentials to their own machines. The services of AWS, Google, Alibaba,
/// Oracle, Tencent, IBM, DigitalOcean, Hetzner, Scaleway and Akamai have special addresses, which are refused as such.
const METADATA_V4: [(Ipv4Addr, &str); 2] = [
    // Azure: https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
    (Ipv4Addr::new(168, 63, 129, 16), "metadata of Azure"),
    // Equinix Metal, metadata.platformequinix.com: https://deploy.equinix.com/developers/docs/metal/server-metadata/metadata
    (Ipv4Addr::new(192, 80, 8, 124), "metadata of Equinix Metal"),
];

/// The IPv6 networks of the public internet, and what is special within them.
const PUBLIC_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
const SPECIAL_V6: [(Ipv6Addr, u8, &str); 3] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "protocol assignments, Teredo"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "documentation"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "documentation"),
];

/// Reason for which an address is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The operator denies its network.
    Denied,
    /// It is not an address of the public internet, or one of a metadata service.
    Special(&'static str),
}

/// A port that requests may not go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedPort(pub u16);

impl fmt::Display for RefusedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {} is refused: it is not among those that the operator allows with `egress.ports`", self.0)
    }
}

/// An address that requests may not go to.
///
/// Its text names the address: it is for the operator, and for the client that wrote the address itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The address.
    pub address: IpAddr,
    /// The IPv4 address inside of it that is refused, if it is not the address itself.
    pub carried: Option<Ipv4Addr>,
    /// Reason for the refusal.
    pub reason: Reason,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if let Some(carried) = self.carried {
            write!(f, ", which carries {carried},")?;
        }
        match self.reason {
            Reason::Denied => f.write_str(" is refused: the operator denies its network with `egress.deny`"),
            Reason::Special(kind) => {
                write!(f, " is refused ({kind}); the operator can allow its network with `egress.allow`")
            }
        }
    }
}

impl std::error::Error for Refused {}

/// Checks addresses.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    /// All ports are allowed if it is empty.
    ports: Vec<PortRange>,
}

impl Guard {
    /// Creates a guard. `deny` goes before `allow`, and `allow` before the list of special networks.
    #[must_use]
    pub fn new(egress: &Egress) -> Self {
        let canonical = |nets: &[IpNet]| nets.iter().copied().map(canonical_net).collect();
        Self { allow: canonical(&egress.allow), deny: canonical(&egress.deny), ports: egress.ports.clone() }
    }

    /// Checks whether a request may go to `port`.
    ///
    /// # Errors
    /// Returns [`RefusedPort`] if it may not.
    pub fn check_port(&self, port: u16) -> Result<(), RefusedPort> {
        if self.ports.is_empty() || self.ports.iter().any(|range| range.contains(port)) {
            return Ok(());
        }
        Err(RefusedPort(port))
    }

    /// Checks whether a request may go to `address`.
    ///
    /// # Errors
    /// Returns [`Refused`] if it may not.
    pub fn check(&self, address: IpAddr) -> Result<(), Refused> {
        let address = address.to_canonical();
        let within = |nets: &[IpNet], form: IpAddr| nets.iter().any(|net| net.contains(&form));
        let carried = carried(address);
        let refused = |carried: Option<Ipv4Addr>, reason| Err(Refused { address, carried, reason });
        if within(&self.deny, address) {
            return refused(None, Reason::Denied);
        }
        if let Some(inner) = carried.iter().map(|form| form.address).find(|inner| within(&self.deny, (*inner).into())) {
            return refused(Some(inner), Reason::Denied);
        }
        // A form whose meaning is only possible allows nothing: the author of the address could choose it.
        let sure = carried.iter().filter(|form| form.certainty == Certainty::Sure).map(|form| form.address.into());
        if sure.chain([address]).any(|form| within(&self.allow, form)) {
            return Ok(());
        }
        if let Some(kind) = special(address) {
            return refused(None, Reason::Special(kind));
        }
        for form in &carried {
            if let Some(kind) = special_v4(form.address) {
                return refused(Some(form.address), Reason::Special(kind));
            }
        }
        Ok(())
    }
}

/// Returns an address with every IPv4 address that it carries or may carry, and with those for which that is sure.
pub(super) fn forms(address: IpAddr) -> (Vec<IpAddr>, Vec<IpAddr>) {
    let carried = carried(address);
    let sure = carried.iter().filter(|form| form.certainty == Certainty::Sure).map(|form| form.address.into());
    let sure = [address].into_iter().chain(sure).collect();
    let all = [address].into_iter().chain(carried.iter().map(|form| form.address.into())).collect();
    (all, sure)
}

/// Returns a network of IPv4-mapped addresses as the IPv4 network that it is.
pub(super) fn canonical_net(net: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    let IpNet::V6(v6) = net else { return net };
    let inner = v6.addr().to_ipv4_mapped().filter(|_| v6.prefix_len() >= MAPPED_BITS);
    inner.map_or(net, |inner| IpNet::V4(Ipv4Net::new_assert(inner, v6.prefix_len() - MAPPED_BITS)))
}

/// Certainty that packets for an address go to the IPv4 address inside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Certainty {
    /// The standard says so.
    Sure,
    /// It depends on how the network is set up.
    Possible,
}

/// An IPv4 address inside of an IPv6 address.
#[derive(Clone, Copy, Debug)]
struct Carried {
    address: Ipv4Addr,
    certainty: Certainty,
}

/// The networks under which IPv4 addresses are carried, and at which octets.
///
/// NAT64 (RFC 6052, 8215), 6to4 (RFC 3056), Teredo (RFC 4380, server and client), IPv4-compatible (RFC 4291) and IPv4-translated
/// addresses (RFC 2765).
const NAT64: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);
const SIX_TO_FOUR: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16);
const LOCAL_NAT64: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48);
const TEREDO: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32);
const COMPATIBLE: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 96);
const TRANSLATED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96);

/// The octets at which a local NAT64 may put the address: prefixes of 48, 56, 64 and 96 bits. Octet 8 is left out.
const LOCAL_NAT64_OCTETS: [[usize; 4]; 4] = [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12], [12, 13, 14, 15]];

/// The interface identifiers of ISATAP (RFC 5214) in front of the IPv4 address, in octets 8 to 11.
const ISATAP: [[u8; 4]; 2] = [[0, 0, 0x5e, 0xfe], [2, 0, 0x5e, 0xfe]];

/// Returns every IPv4 address that `address` carries or may carry.
fn carried(address: IpAddr) -> Vec<Carried> {
    let IpAddr::V6(address) = address else { return Vec::new() };
    let octets = address.octets();
    let at = |places: [usize; 4]| Ipv4Addr::from(places.map(|place| octets[place]));
    let (last, possible) = ([12, 13, 14, 15], Certainty::Possible);
    let carried = |address, certainty| Carried { address, certainty };
    let mut forms = Vec::new();
    if NAT64.contains(&address) {
        forms.push(carried(at(last), Certainty::Sure));
    } else if SIX_TO_FOUR.contains(&address) {
        forms.push(carried(at([2, 3, 4, 5]), Certainty::Sure));
    } else if LOCAL_NAT64.contains(&address) {
        forms.extend(LOCAL_NAT64_OCTETS.map(|places| carried(at(places), possible)));
    } else if TEREDO.contains(&address) {
        let client = Ipv4Addr::from(at(last).octets().map(|octet| !octet));
        forms.extend([carried(at([4, 5, 6, 7]), possible), carried(client, possible)]);
    } else if COMPATIBLE.contains(&address) || TRANSLATED.contains(&address) {
        forms.push(carried(at(last), possible));
    }
    if ISATAP.iter().any(|id| octets[8..12] == *id) {
        forms.push(carried(at(last), possible));
    }
    forms
}

/// Returns what is special about the address itself, whatever it carries.
fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    if let Some((_, kind)) = METADATA_V4.iter().find(|(known, _)| *known == address) {
        return Some(kind);
    }
    let within = |(net, len, _): &&(Ipv4Addr, u8, &str)| Ipv4Net::new_assert(*net, *len).contains(&address);
    SPECIAL_V4.iter().find(within).map(|(_, _, kind)| *kind)
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let within = |net: Ipv6Addr, len: u8| Ipv6Net::new_assert(net, len).contains(&address);
    // They are judged by the addresses that they carry.
    if NAT64.contains(&address) || SIX_TO_FOUR.contains(&address) {
        return None;
    }
    if !within(PUBLIC_V6.0, PUBLIC_V6.1) {
        return Some("not a public IPv6 address");
    }
    SPECIAL_V6.iter().find(|(net, len, _)| within(*net, *len)).map(|(_, _, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allow: Vec<IpNet>, deny: Vec<IpNet>) -> Guard {
        Guard::new(&Egress { allow, deny, ports: Vec::new() })
    }

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
        let guard = guard(vec![net("127.0.0.0/8"), net("10.0.0.0/8")], vec![net("10.9.0.0/16"), net("1.0.0.0/8")]);
        assert!(allowed(&guard, "127.0.0.1") && allowed(&guard, "::ffff:127.0.0.1") && allowed(&guard, "10.0.0.1"));
        assert!(!allowed(&guard, "10.9.0.1"), "deny goes first");
        assert!(!allowed(&guard, "1.1.1.1") && !allowed(&guard, "192.168.0.1"));
    }

    #[test]
    fn metadata_service_is_refused_unless_its_network_is_allowed() {
        for address in [
            // AWS: instances, containers, pods.
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "fd00:ec2::254",
            "fd00:ec2::23",
            // Google over IPv6, Azure, Alibaba, Oracle Classic, Tencent, Equinix Metal, Scaleway, Akamai.
            "fd20:ce::254",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "169.254.0.23",
            "100.88.222.5",
            "192.80.8.124",
            "169.254.42.42",
            "fd00:42::42",
            "fd00:a9fe:a9fe::1",
        ] {
            let known: IpAddr = address.parse().unwrap();
            let in_forms = match known {
                IpAddr::V4(v4) => forms(v4),
                IpAddr::V6(_) => vec![known],
            };
            for form in in_forms {
                let refused = Guard::default().check(form).unwrap_err();
                assert!(matches!(refused.reason, Reason::Special(_)), "{form}");
            }
            assert!(allowed(&guard(vec![known.into()], Vec::new()), address), "{address}");
        }
        assert!(allowed(&Guard::default(), "168.63.129.17"), "its neighbours are like any other address");
    }

    #[test]
    fn ports_outside_of_the_list_are_refused() {
        let ports = vec!["443".parse().unwrap(), "8000-8999".parse().unwrap()];
        let guard = Guard::new(&Egress { allow: Vec::new(), deny: Vec::new(), ports });
        assert!([443, 8000, 8999].into_iter().all(|port| guard.check_port(port).is_ok()));
        for port in [0, 22, 80, 444, 7999, 9000] {
            assert_eq!(guard.check_port(port), Err(RefusedPort(port)));
            assert_eq!(Guard::default().check_port(port), Ok(()), "without a list all are allowed");
        }
    }

    /// Returns an IPv4 address in every form that carries it, the certain forms first.
    fn forms(address: Ipv4Addr) -> Vec<IpAddr> {
        let [a, b, c, d] = address.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let v6 = |segments: [u16; 8]| IpAddr::V6(segments.into());
        vec![
            address.into(),
            v6([0, 0, 0, 0, 0, 0xffff, high, low]),
            v6([0x64, 0xff9b, 0, 0, 0, 0, high, low]),
            v6([0x2002, high, low, 0, 0, 0, 0, 1]),
            v6([0x64, 0xff9b, 1, high, u16::from(c), u16::from_be_bytes([d, 0]), 0, 0]),
            v6([0x64, 0xff9b, 1, u16::from(a), u16::from(b), low, 0, 0]),
            v6([0x64, 0xff9b, 1, 0, u16::from(a), u16::from_be_bytes([b, c]), u16::from_be_bytes([d, 0]), 0]),
            v6([0x64, 0xff9b, 1, 0, 0, 0, high, low]),
            v6([0x2001, 0, high, low, 0, 0, 0, 0]),
            v6([0x2001, 0, 0x101, 0x101, 0, 0, !high, !low]),
            v6([0, 0, 0, 0, 0, 0, high, low]),
            v6([0, 0, 0, 0, 0xffff, 0, high, low]),
            v6([0x2606, 0x4700, 0, 0, 0, 0x5efe, high, low]),
            v6([0x2606, 0x4700, 0, 0, 0x200, 0x5efe, high, low]),
        ]
    }

    /// Number of forms with one meaning everywhere.
    const SURE: usize = 4;

    #[test]
    fn denied_network_is_refused_in_every_form() {
        let everything = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        for net in ["8.8.8.0/24", "::ffff:8.8.8.0/120"] {
            let guard = guard(everything.clone(), vec![net.parse().unwrap()]);
            for form in forms(Ipv4Addr::new(8, 8, 8, 8)) {
                let refused = guard.check(form).unwrap_err();
                assert_eq!(refused.reason, Reason::Denied, "{form}");
                assert!(!refused.to_string().contains("egress.allow"), "allowing it changes nothing: {refused}");
            }
            for form in forms(Ipv4Addr::new(8, 8, 9, 9)) {
                assert_eq!(guard.check(form), Ok(()), "{form}");
            }
        }
        let guard = guard(Vec::new(), vec!["64:ff9b::/96".parse().unwrap()]);
        assert!(!allowed(&guard, "64:ff9b::808:808") && allowed(&guard, "8.8.8.8"), "one form alone can be denied");
    }

    #[test]
    fn special_network_is_refused_in_every_form() {
        for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(169, 254, 169, 254), Ipv4Addr::new(10, 0, 0, 1)] {
            for form in forms(address) {
                let refused = Guard::default().check(form).unwrap_err();
                assert!(refused.to_string().contains("egress.allow"), "{refused}");
            }
        }
    }

    #[test]
    fn allowed_network_is_open_in_the_forms_that_have_one_meaning() {
        for net in ["10.0.0.0/8", "::ffff:10.0.0.0/104"] {
            let guard = guard(vec![net.parse().unwrap()], Vec::new());
            for (at, form) in forms(Ipv4Addr::new(10, 0, 0, 1)).into_iter().enumerate() {
                assert_eq!(guard.check(form).is_ok(), at < SURE, "{form}");
            }
        }
    }
}
