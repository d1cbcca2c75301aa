//! `[compat]`: the APIs of other schedulers.

use std::fmt;
use std::net::SocketAddr;

use serde::Deserialize;

use super::values;

/// `[compat]`: the APIs of other schedulers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compat {
    /// Callbacks of Flask applications.
    pub doppler: Mount,
    /// Tasks that are pushed, and crons.
    pub poussetaches: Poussetaches,
    /// Calls by name and minute.
    pub callme: Mount,
}

/// One of them.
#[derive(Clone, Debug, Deserialize)]
pub struct Mount {
    /// Whether it is served.
    pub enabled: bool,
    /// Where it is served, too, at the root.
    #[serde(deserialize_with = "values::read_unless_empty")]
    pub listen: Option<SocketAddr>,
    /// The group of its jobs.
    pub group: String,
    /// How many deliveries run at once.
    pub workers: u32,
    /// How many start in a period, in the form of a group's `limits.rate`.
    #[serde(deserialize_with = "values::unless_empty")]
    pub rate: Option<String>,
    /// How many start at once after a pause; 0 is what the rate says.
    pub burst: u32,
}

/// `[compat.poussetaches]`.
#[derive(Clone, Deserialize)]
pub struct Poussetaches {
    /// What it has in common with the others.
    #[serde(flatten)]
    pub mount: Mount,
    /// What receivers know the server by.
    #[serde(deserialize_with = "values::unless_empty")]
    pub auth_key: Option<String>,
    /// In whose local time crons are read; if unset, the server's.
    #[serde(deserialize_with = "values::unless_empty")]
    pub time_zone: Option<String>,
}

impl fmt::Debug for Poussetaches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let auth_key = self.auth_key.as_ref().map(|_| "…");
        f.debug_struct("Poussetaches")
            .field("mount", &self.mount)
            .field("auth_key", &auth_key)
            .field("time_zone", &self.time_zone)
            .finish()
    }
}

impl Compat {
    /// All of them.
    #[must_use]
    pub fn mounts(&self) -> [&Mount; 3] {
        [&self.doppler, &self.poussetaches.mount, &self.callme]
    }
}
