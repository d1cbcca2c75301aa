//! `[limits]` and `[metrics]`: bounds of what tenants may ask for, and the place of the metrics.

use std::net::SocketAddr;

use serde::Deserialize;

use super::{Period, Size, values};

/// `[limits]`: bounds of what a tenant may ask for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Shortest delay between a failed attempt and the next one.
    pub retry_floor: Period,
    /// Largest number of attempts of one job between redrives.
    pub attempts: u32,
    /// Part of each pool that one tenant may hold while several tenants exist.
    pub tenant_share: f64,
    /// Largest size of the bodies of all requests that are received and processed.
    pub bodies: Size,
}

/// `[metrics]`: place of the metrics.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsConfig {
    /// Address that serves the metrics in place of `server.listen`.
    #[serde(deserialize_with = "values::address_unless_empty")]
    pub listen: Option<SocketAddr>,
}
