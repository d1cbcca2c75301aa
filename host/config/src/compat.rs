//! `[compat]`: the APIs of other schedulers.

use std::fmt;
use std::net::SocketAddr;

use serde::Deserialize;

use super::checks::Checks;
use super::{Config, values};
use carillon_core::job::check_name;
use carillon_core::timetable::Zone;

/// `[compat]`: the APIs of other schedulers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compat {
    /// Callbacks of Flask applications.
    pub doppler: Mount,
    /// Pushed tasks, and crons.
    pub poussetaches: Poussetaches,
    /// Calls by name and minute.
    pub callme: Mount,
}

/// A mount: the API of another scheduler.
#[derive(Clone, Debug, Deserialize)]
pub struct Mount {
    /// Whether the mount is served.
    pub enabled: bool,
    /// Further address at whose root the mount is served.
    #[serde(deserialize_with = "values::address_unless_empty")]
    pub listen: Option<SocketAddr>,
    /// Group of the mount's jobs.
    pub group: String,
    /// Largest number of concurrent deliveries.
    pub workers: u32,
    /// Rate of starts, in the form of a group's `limits.rate`.
    #[serde(deserialize_with = "values::unless_empty")]
    pub rate: Option<String>,
    /// Largest number of starts at once after a pause; 0 derives it from the rate.
    pub burst: u32,
}

/// `[compat.poussetaches]`.
#[derive(Clone, Deserialize)]
pub struct Poussetaches {
    /// Settings that all mounts have.
    #[serde(flatten)]
    pub mount: Mount,
    /// Secret that identifies the server to receivers.
    #[serde(deserialize_with = "values::unless_empty")]
    pub auth_key: Option<String>,
    /// Time zone of crons; if unset, the server's.
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
    /// Returns all mounts.
    #[must_use]
    pub fn mounts(&self) -> [&Mount; 3] {
        [&self.doppler, &self.poussetaches.mount, &self.callme]
    }
}

/// Checks the settings of the mounts together and with the rest.
pub(super) fn check(config: &Config, checks: &mut Checks) {
    let mounts = config.compat.mounts();
    let keys = [
        ("compat.doppler.group", "compat.doppler.listen"),
        ("compat.poussetaches.group", "compat.poussetaches.listen"),
        ("compat.callme.group", "compat.callme.listen"),
    ];
    let listens = mounts.iter().map(|mount| mount.listen.filter(|_| mount.enabled));
    let mut listens: Vec<_> = std::iter::once(("server.listen", Some(config.server.listen)))
        .chain(keys.iter().map(|(_, key)| *key).zip(listens))
        .chain([("metrics.listen", config.metrics.listen)])
        .collect();
    // Port 0 stands for another port each time.
    listens.retain(|(_, listen)| listen.is_some_and(|listen| listen.port() != 0));
    for (index, (key, _)) in keys.iter().enumerate() {
        let group = &mounts[index].group;
        if let Err(message) = check_name("group", group) {
            checks.require(false, key, message);
        }
        let other = (0..index).find(|other| mounts[*other].group == *group);
        if let Some(other) = other {
            let message =
                format!("`{group}` is the group of {} already: each mount must have a group of its own", keys[other].0);
            checks.require(false, key, message);
        }
    }
    for (index, (key, listen)) in listens.iter().enumerate() {
        if let Some((other, _)) = listens[..index].iter().find(|(_, other)| other == listen) {
            let listen = listen.map(|listen| listen.to_string()).unwrap_or_default();
            checks.require(false, key, format!("{listen} is {other} already: each must have a port of its own"));
        }
    }
    if let Some(zone) = &config.compat.poussetaches.time_zone
        && let Err(error) = zone.parse::<Zone>()
    {
        checks.require(false, "compat.poussetaches.time_zone", error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sources;
    use super::*;

    fn refusal(variables: &[(&str, &str)]) -> String {
        let named = |(name, value): &(&str, &str)| (format!("CARILLON_COMPAT__{name}"), (*value).to_owned());
        let environment = variables.iter().map(named).collect();
        Config::load(Sources { environment, ..Sources::default() }).err().map(|it| it.to_string()).unwrap_or_default()
    }

    #[test]
    fn settings_are_checked_together() {
        let said = refusal(&[("DOPPLER__GROUP", "not a/name")]);
        assert!(said.contains("compat.doppler.group: `not a/name` is not a name for a group"), "{said}");
        let said = refusal(&[("CALLME__GROUP", "doppler")]);
        assert!(said.contains("compat.callme.group: `doppler` is the group of compat.doppler.group already"), "{said}");
        let listen = ("CALLME__LISTEN", "127.0.0.1:7070");
        let said = refusal(&[listen]);
        assert!(said.contains("compat.callme.listen: 127.0.0.1:7070 is server.listen already"), "{said}");
        assert_eq!(refusal(&[listen, ("CALLME__ENABLED", "false")]), "");
        let said = refusal(&[("CALLME__LISTEN", "127.0.0.1:5000"), ("DOPPLER__LISTEN", "127.0.0.1:5000")]);
        assert!(said.contains("compat.callme.listen: 127.0.0.1:5000 is compat.doppler.listen already"), "{said}");
        assert_eq!(refusal(&[("CALLME__LISTEN", "127.0.0.1:0"), ("DOPPLER__LISTEN", "127.0.0.1:0")]), "");
        let said = refusal(&[("POUSSETACHES__TIME_ZONE", "Mars/Olympus")]);
        assert!(said.contains("compat.poussetaches.time_zone: "), "{said}");
        assert_eq!(refusal(&[("POUSSETACHES__RATE", "")]), "");
    }
}
