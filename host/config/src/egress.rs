//! `[egress]`: allowed and refused targets.

use ipnet::IpNet;
use serde::Deserialize;

use super::values::{self, PortRange};

/// `[egress]`: allowed and refused networks and ports.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// Special-purpose networks that are allowed nevertheless.
    #[serde(deserialize_with = "values::networks")]
    pub allow: Vec<IpNet>,
    /// Networks that are always refused.
    #[serde(deserialize_with = "values::networks")]
    pub deny: Vec<IpNet>,
    /// Allowed ports; all if empty.
    #[serde(deserialize_with = "values::port_ranges")]
    pub ports: Vec<PortRange>,
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Sources};
    use super::*;

    #[test]
    fn ports_are_a_list_or_one_string_or_one_number() {
        let read = |text: &str| {
            let environment = vec![("CARILLON_EGRESS__PORTS".to_owned(), text.to_owned())];
            let config = Config::load(Sources { environment, ..Sources::default() }).unwrap();
            config.egress.ports.iter().map(PortRange::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(read("443"), "443");
        assert_eq!(read("443, 8000-8999"), "443 8000-8999");
        assert_eq!(read("[443, \"8000-8999\"]"), "443 8000-8999");
        assert_eq!(read(""), "");
    }
}
