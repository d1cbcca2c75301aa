//! Keys in the catalog: those that sign, and those that are sent.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::entities::KeyDoc;
use super::{Catalog, Group, Key, Rejected, check, document};
use crate::job::TenantId;
use crate::policy::binding::Invalid;
use crate::policy::{KeyKind, KeyMaterial};
use crate::store::{Expect, Kind};

impl Catalog {
    /// The tenant's keys, by name.
    #[must_use]
    pub fn keys(&self, tenant: TenantId) -> Vec<Arc<Key>> {
        self.state().keys_of(tenant).cloned().collect()
    }

    /// The tenant's key of this name.
    #[must_use]
    pub fn key(&self, tenant: TenantId, name: &str) -> Option<Arc<Key>> {
        self.state().key(tenant, name).cloned()
    }

    /// Gives a key its value. It cannot be read again.
    ///
    /// # Errors
    /// If the value is not of the kind.
    pub async fn put_key(
        &self,
        tenant: TenantId,
        name: &str,
        kind: KeyKind,
        secret: Zeroizing<Vec<u8>>,
    ) -> Result<(), Rejected> {
        check::name("key", name)?;
        KeyMaterial::new(name.to_owned(), kind, secret.clone()).map_err(|error| Invalid::at("/secret", error))?;
        let sealed = self.vault.seal(&key_owner(tenant, name), &secret, &*self.clock);
        let sealed = sealed.map_err(|error| Invalid::at("/secret", error.to_string()))?;
        let doc = document(&KeyDoc { kind, sealed });
        self.put(self.entity(tenant, Kind::Key, name, doc, Expect::Anything)).await.map(drop)
    }

    /// Removes a key; false if there is none.
    ///
    /// # Errors
    /// If a group uses it.
    pub async fn delete_key(&self, tenant: TenantId, name: &str) -> Result<bool, Rejected> {
        let uses = |group: &Arc<Group>| {
            let tried = group.rollout.canary.as_ref().and_then(|canary| self.bound(group, canary.version));
            let effective = tried.iter().chain([group]).filter_map(|group| group.effective.as_ref().ok());
            effective.into_iter().any(|effective| effective.uses_key(name))
        };
        if let Some(group) = self.groups(tenant).into_iter().find(uses) {
            return Err(Rejected::Conflict(format!("the group `{}` uses this key", group.name)));
        }
        self.delete(tenant, Kind::Key, name).await
    }
}

/// Whom a sealed key belongs to.
pub(super) fn key_owner(tenant: TenantId, name: &str) -> String {
    format!("{}/{name}", tenant.0)
}
