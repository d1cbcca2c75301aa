//! Networks and ports to which a tenant's requests may go: how a quota writes them, and their parsed form. Pure.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Invalid;
use carillon_config::{PortRange, parse_network};

/// Largest number of members of one list.
const MAX_MEMBERS: usize = 1_000;

/// Networks and ports to which a tenant's requests may go, of those that the server allows.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EgressInput {
    /// Networks to which requests may go, and no others: `203.0.113.0/24`. Default: all that the server allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// Networks to which no request may go, even if they are in `allow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny: Option<Vec<String>>,
    /// Ports to which requests may go, and no others: `443`, `8000-8999`. Default: all that the server allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<String>>,
}

/// Parsed form of an [`EgressInput`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EgressQuota {
    /// Networks to which requests may go; `None` for all.
    pub allow: Option<Vec<IpNet>>,
    /// Networks to which no request may go.
    pub deny: Vec<IpNet>,
    /// Ports to which requests may go; `None` for all.
    pub ports: Option<Vec<PortRange>>,
}

impl EgressQuota {
    /// Parses the document of a quota.
    ///
    /// # Errors
    /// Returns [`Invalid`] with a pointer to the offending member.
    pub(super) fn parse(doc: &EgressInput) -> Result<Self, Invalid> {
        let network = |text: &str| parse_network(text);
        let allow = listed("allow", doc.allow.as_deref(), network)?;
        let deny = listed("deny", doc.deny.as_deref(), network)?.unwrap_or_default();
        let ports = listed("ports", doc.ports.as_deref(), str::parse::<PortRange>)?;
        Ok(Self { allow, deny, ports })
    }
}

/// Parses a list. An empty one is refused, because it could mean everything and nothing.
fn listed<T, E: fmt::Display>(
    name: &str,
    texts: Option<&[String]>,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<Vec<T>>, Invalid> {
    let Some(texts) = texts else { return Ok(None) };
    if !(1..=MAX_MEMBERS).contains(&texts.len()) {
        let message = format!("`{name}` must have 1 to {MAX_MEMBERS} members, or be left out");
        return Err(Invalid::at(format!("/{name}"), message));
    }
    let one = |(index, text): (usize, &String)| {
        parse(text).map_err(|error| Invalid::at(format!("/{name}/{index}"), error.to_string()))
    };
    texts.iter().enumerate().map(one).collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(doc: serde_json::Value) -> Result<EgressQuota, Invalid> {
        EgressQuota::parse(&serde_json::from_value(doc).unwrap())
    }

    #[test]
    fn lists_are_parsed_and_what_is_left_out_allows_all() {
        let quota = parsed(json!({"allow": ["10.1.2.3/8", "::1"], "ports": ["443", "8000-8999"]})).unwrap();
        assert_eq!(quota.allow, Some(vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]));
        assert!(quota.deny.is_empty() && quota.ports.is_some_and(|ports| ports.len() == 2));
        let all = parsed(json!({})).unwrap();
        assert_eq!((all.allow, all.ports), (None, None));
    }

    #[test]
    fn member_that_cannot_be_read_is_pointed_at() {
        for (doc, pointer) in [
            (json!({"allow": ["10.0.0.0/8", "here"]}), "/allow/1"),
            (json!({"deny": ["10.0.0.0/33"]}), "/deny/0"),
            (json!({"ports": ["443", "9-8"]}), "/ports/1"),
            (json!({"allow": []}), "/allow"),
            (json!({"ports": vec!["443"; 1_001]}), "/ports"),
        ] {
            assert_eq!(parsed(doc.clone()).unwrap_err().pointer, pointer, "{doc}");
        }
    }
}
