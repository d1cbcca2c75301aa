//! Types of a configuration's values: periods and sizes with units, networks, strings that may be unset.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

/// Default port of name servers.
const DNS_PORT: u16 = 53;

/// A duration, written with its unit: `"250ms"`, `"15m"`, `"1h 30m"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(Duration);

impl Period {
    /// Returns the duration.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Period {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        carillon_core::duration::parse(text).map(Self).map_err(|error| {
            format!("`{text}` is not a duration with its unit, such as \"250ms\", \"30s\" or \"15m\": {error}")
        })
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        carillon_core::duration::format(self.0).fmt(f)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl Visitor<'_> for Words {
            type Value = Period;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration with its unit, such as \"250ms\", \"30s\" or \"15m\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Period, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Words)
    }
}

/// A number of bytes, written as a number or with a unit: `65536`, `"64KiB"`, `"4MiB"`, `"1MB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(usize);

impl Size {
    /// Returns the number of bytes.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0
    }
}

impl From<usize> for Size {
    fn from(bytes: usize) -> Self {
        Self(bytes)
    }
}

/// Units of a [`Size`]; binary ones count in 1024, the others in 1000.
///
/// A size is printed in the largest unit that divides it.
const UNITS: [(&str, usize); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = match unit.trim() {
            "" => Some(1),
            unit => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, bytes)| *bytes),
        };
        unit.zip(number.parse::<usize>().ok())
            .and_then(|(unit, number)| number.checked_mul(unit))
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a size in bytes, such as 65536, \"64KiB\" or \"4MiB\""))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, bytes)| self.0 > 0 && self.0.is_multiple_of(*bytes)) {
            Some((name, bytes)) => write!(f, "{}{name}", self.0 / bytes),
            None => f.write_str("0B"),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl Visitor<'_> for Words {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size in bytes, such as 65536, \"64KiB\" or \"4MiB\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                usize::try_from(bytes).map(Size).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                usize::try_from(bytes).map(Size).map_err(|_| E::custom("a size cannot be negative"))
            }
        }
        deserializer.deserialize_any(Words)
    }
}

/// Reads a list of networks, or one string with commas between them.
///
/// A bare address stands for the network of this address alone.
pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    list(deserializer, "a list of networks, such as [\"10.1.0.0/16\", \"::1/128\"]", parse_network)
}

/// Parses a network, or an address as a network of its own.
///
/// # Errors
/// Returns a sentence with the text that is neither.
pub fn parse_network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map(|network| network.trunc())
        .map_err(|_| format!("`{text}` is not a network, such as 10.1.0.0/16 or ::1/128"))
}

/// Reads a list of name servers' addresses, or one string with commas between them.
///
/// The port may be left out.
pub(super) fn name_servers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    list(deserializer, "a list of addresses, such as [\"10.0.0.53\", \"[fd00::53]:5353\"]", |text| {
        text.parse::<SocketAddr>()
            .or_else(|_| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, DNS_PORT)))
            .map_err(|_| format!("`{text}` is not an address, such as 10.0.0.53 or [fd00::53]:5353"))
    })
}

/// One port, or a range of them: `443`, `8000-8999`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortRange(RangeInclusive<u16>);

impl PortRange {
    /// Returns whether the range contains `port`.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.contains(&port)
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = port(first).zip(port(last)).filter(|(first, last)| first <= last);
        range
            .map(|(first, last)| Self(first..=last))
            .ok_or_else(|| format!("`{text}` is not a port or a range of ports, such as 443 or 8000-8999"))
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.clone().into_inner() {
            (first, last) if first == last => first.fmt(f),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// Reads a list of ports and ranges of ports, as strings or numbers; or one number, or one string with commas between them.
pub(super) fn port_ranges<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PortRange>, D::Error> {
    list(deserializer, "a list of ports and ranges of ports, such as [\"443\", \"8000-8999\"]", str::parse)
}

/// Item of a list: a string, or a whole number, which an item of a list such as `egress.ports` may be.
struct Item(String);

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl Visitor<'_> for Words {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Item, E> {
                Ok(Item(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Item, E> {
                Ok(Item(number.to_string()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Item, E> {
                Ok(Item(number.to_string()))
            }
        }
        deserializer.deserialize_any(Words)
    }
}

/// Reads a list of items, or one string with commas between them, and parses each with `read`.
fn list<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: &'static str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, D::Error> {
    struct Words<R>(&'static str, R);
    impl<'de, T, R: Fn(&str) -> Result<T, String>> Visitor<'de> for Words<R> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            parts.map(|part| (self.1)(part).map_err(E::custom)).collect()
        }

        // A variable of the environment that holds one number is read as a number.
        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
            self.visit_str(&number.to_string())
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
            self.visit_str(&number.to_string())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut values = Vec::new();
            while let Some(text) = list.next_element::<Item>()?.map(|item| item.0) {
                values.push((self.1)(&text).map_err(de::Error::custom)?);
            }
            Ok(values)
        }
    }
    deserializer.deserialize_any(Words(expected, read))
}

/// Parses an address and port: `127.0.0.1:7070`, `[::1]:7070`, or a host name in place of the address.
///
/// Of a host name's addresses the first IPv4 one is used, or else the first.
///
/// # Errors
/// Returns an error if the text has neither form, or if the host name cannot be resolved.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let known = text.parse().or_else(|_| {
        let found: Vec<SocketAddr> = text.to_socket_addrs()?.collect();
        let first = found.iter().find(|address| address.is_ipv4()).or(found.first()).copied();
        first.ok_or_else(|| std::io::Error::other("the name has no address"))
    });
    known.map_err(|error| {
        format!(
            "`{text}` is not an address and port such as `127.0.0.1:7070`, `[::1]:7070` or `localhost:7070`: {error}"
        )
    })
}

/// Reads an address and port.
pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    parse_address(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// Reads an address and port; an empty string means None.
pub(super) fn address_unless_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    (!text.is_empty()).then(|| parse_address(&text).map_err(de::Error::custom)).transpose()
}

/// Reads a string; an empty string means None.
pub(super) fn unless_empty<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: From<String>,
{
    let text = String::deserialize(deserializer)?;
    Ok((!text.is_empty()).then(|| T::from(text)))
}

/// Reads a value that is written as a string; an empty string means None.
pub(super) fn read_unless_empty<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: std::fmt::Display>,
{
    let text = String::deserialize(deserializer)?;
    (!text.is_empty()).then(|| text.parse().map_err(de::Error::custom)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_a_name() {
        assert_eq!(parse_address("127.0.0.1:1").unwrap().to_string(), "127.0.0.1:1");
        assert_eq!(parse_address("[::1]:1").unwrap().to_string(), "[::1]:1");
        assert!(parse_address("localhost:7070").unwrap().ip().is_loopback());
        for bad in ["here", "", ":", "127.0.0.1", "localhost", "127.0.0.1:99999", "::1:x"] {
            let said = parse_address(bad).unwrap_err();
            assert!(
                said.starts_with(&format!("`{bad}` is not an address and port such as `127.0.0.1:7070`")),
                "{said}"
            );
        }
    }

    #[test]
    fn sizes_are_read_and_printed() {
        for (text, bytes) in
            [("0", 0), ("1024", 1024), ("64KiB", 65_536), ("4 MiB", 4 << 20), ("2gib", 2 << 30), ("1MB", 1_000_000)]
        {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.get(), bytes, "{text}");
            assert_eq!(size.to_string().parse(), Ok(size), "{text}");
        }
        assert_eq!(Size(16 << 20).to_string(), "16MiB");
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in ["", "MiB", "-1", "1.5MiB", "4MiBs", "99999999999999999999", "99999999999GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_period_needs_its_unit() {
        assert_eq!("1h 30m".parse(), Ok(Period(Duration::from_secs(5400))));
        assert_eq!("0s".parse(), Ok(Period(Duration::ZERO)));
        assert!("5".parse::<Period>().unwrap_err().contains("with its unit"));
        assert!("5M".parse::<Period>().unwrap_err().contains("months and years"));
    }

    #[test]
    fn port_ranges_are_read_and_printed() {
        for (text, inside, outside) in [("443", 443, 444), ("8000-8999", 8500, 9000), ("8000 - 8999", 8999, 7999)] {
            let range: PortRange = text.parse().unwrap();
            assert!(range.contains(inside) && !range.contains(outside), "{text}");
            assert_eq!(range.to_string().parse(), Ok(range), "{text}");
        }
        for text in ["", "0", "x", "443-", "-443", "9-8", "65536", "1-2-3", "0-10"] {
            assert!(text.parse::<PortRange>().unwrap_err().contains("such as 443 or 8000-8999"), "{text}");
        }
    }
}
