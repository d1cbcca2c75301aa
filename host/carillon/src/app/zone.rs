//! Time zone in which the mounts' crontab expressions are read.

use carillon_config::Compat;
use carillon_core::timetable::{SystemZone, system_zone};

/// Returns the settings of the mounts, with the machine's time zone where none is configured.
pub(super) fn with_local_zone(compat: &Compat) -> Compat {
    let mut compat = compat.clone();
    let settings = &mut compat.poussetaches;
    if settings.time_zone.is_none() && settings.mount.enabled {
        settings.time_zone = match system_zone() {
            SystemZone::Named(name) => Some(name),
            SystemZone::Unset => None,
            SystemZone::Unnamed(found) => {
                tracing::warn!(found, used = "UTC", "system time zone has no name; set compat.poussetaches.time_zone");
                None
            }
        };
    }
    compat
}
