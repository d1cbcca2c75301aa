//! The groups of the mounts: the presets, which say what is different about such jobs, with the limits of the configuration.

use serde_json::{Value, json};

use super::Mount;
use crate::catalog::Catalog;
use crate::config::Compat;
use crate::job::TenantId;
use crate::policy::KeyKind;

/// The key that holds what receivers of poussetaches' tasks know the server by, and the header that it is sent in.
pub const AUTH_KEY: &str = "poussetaches-auth-key";
const AUTH_HEADER: &str = "Poussetaches-Auth-Key";

/// The group of a mount as it is made at its first use, in the form of the API's groups.
#[must_use]
pub fn group_doc(mount: Mount, compat: &Compat, catalog: &Catalog, tenant: TenantId) -> Value {
    let preset = match mount {
        Mount::Doppler => include_str!("../../../../examples/presets/doppler.json"),
        Mount::Poussetaches => include_str!("../../../../examples/presets/poussetaches.json"),
        Mount::Callme => include_str!("../../../../examples/presets/callme.json"),
    };
    let mut doc = serde_json::from_str(preset).unwrap_or(Value::Null);
    json_patch::merge(&mut doc, &group_patch(mount, compat, catalog, tenant));
    doc
}

/// The part of it that the configuration says, as a merge patch (RFC 7396).
#[must_use]
pub fn group_patch(mount: Mount, compat: &Compat, catalog: &Catalog, tenant: TenantId) -> Value {
    let settings = mount.settings(compat);
    let burst = Some(settings.burst).filter(|burst| *burst > 0);
    let limits = json!({"concurrency": settings.workers, "rate": settings.rate, "burst": burst});
    let auth_key = catalog.key(tenant, AUTH_KEY).filter(|key| key.newest.kind == KeyKind::Header);
    if mount == Mount::Poussetaches && auth_key.is_some() {
        return json!({"limits": limits, "auth_headers": {AUTH_HEADER: AUTH_KEY}});
    }
    json!({"limits": limits})
}
