//! Keys in the catalog: those that sign, and those that are sent.
//!
//! A key has one version, or several while it is rotated: the newest signs first, the older ones besides until they expire or
//! are removed. Expired versions are given to nobody, and leave the store with the next change of the key.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::entities::{KeyDoc, KeyVersion, SealedVersion};
use super::secrets::Vault;
use super::{Catalog, Group, Key, Rejected, check, document};
use crate::clock::UnixMs;
use crate::job::TenantId;
use crate::policy::binding::Invalid;
use crate::policy::{KeyKind, KeyMaterial};
use crate::store::{Entity, Expect, Kind};

/// The most versions of a key that sign at once. With the eight key operations of a call a signer can ask two keys that many times.
const VERSIONS: usize = 4;

/// How long the versions of a key go on when it is given a new value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// They sign for so long besides, unless they end earlier.
    For(Duration),
    /// They sign until somebody removes them, or as long as they were to anyway.
    UntilRemoved,
}

impl Overlap {
    /// When a version ends that would have ended then.
    fn end(self, before: Option<UnixMs>, now: UnixMs) -> Option<UnixMs> {
        match self {
            Self::For(time) => before.into_iter().chain([now.plus(time)]).min(),
            Self::UntilRemoved => before,
        }
    }
}

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

    /// Gives a key a value, which cannot be read again. Without an overlap its earlier versions end at once. A value that it has already
    /// makes no second version.
    ///
    /// # Errors
    /// If the value is not of the kind, or the older versions cannot go on beside it.
    pub async fn put_key(
        &self,
        tenant: TenantId,
        name: &str,
        kind: KeyKind,
        secret: Zeroizing<Vec<u8>>,
        overlap: Option<Overlap>,
    ) -> Result<(), Rejected> {
        check::name("key", name)?;
        let material = KeyMaterial::new(name.to_owned(), kind, secret.clone());
        let material = material.map_err(|error| Invalid::at("/secret", error))?;
        let sealed = self.vault.seal(&key_owner(tenant, name), &secret, &*self.clock);
        let sealed = sealed.map_err(|error| Invalid::at("/secret", error.to_string()))?;
        let newest = SealedVersion { kind, sealed, number: None, created_at: None, expires_at: None };
        let (older, expect) = match self.key(tenant, name).zip(overlap) {
            Some((key, overlap)) => (older(&key, &material, kind, overlap, self.now())?, Expect::Version(key.revision)),
            None => (Vec::new(), Expect::Anything),
        };
        self.write_key(tenant, name, &KeyDoc { newest, older }, expect).await
    }

    /// Removes a version of a key; false if there is none of this number. With the newest gone, the one before it is the newest.
    ///
    /// # Errors
    /// If it is the only one.
    pub async fn delete_key_version(&self, tenant: TenantId, key: &Key, number: i64) -> Result<bool, Rejected> {
        let mut versions: Vec<_> = key.live(self.now()).map(SealedVersion::from).collect();
        let Some(index) = versions.iter().position(|version| version.number == Some(number)) else { return Ok(false) };
        versions.remove(index);
        let mut versions = versions.into_iter();
        let Some(newest) = versions.next() else {
            return Err(Rejected::Conflict(
                "it is the only version: delete the key, or put a new version first".to_owned(),
            ));
        };
        let newest = SealedVersion { expires_at: None, ..newest };
        let doc = KeyDoc { newest, older: versions.collect() };
        self.write_key(tenant, &key.name, &doc, Expect::Version(key.revision)).await?;
        Ok(true)
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

    async fn write_key(&self, tenant: TenantId, name: &str, doc: &KeyDoc, expect: Expect) -> Result<(), Rejected> {
        self.put(self.entity(tenant, Kind::Key, name, document(doc), expect)).await.map(drop)
    }
}

/// The versions that go on beside a new one.
fn older(
    key: &Key,
    new: &KeyMaterial,
    kind: KeyKind,
    overlap: Overlap,
    now: UnixMs,
) -> Result<Vec<SealedVersion>, Invalid> {
    let other = |version: &&KeyVersion| !version.material.as_ref().is_some_and(|material| material.is_same(new));
    let kept: Vec<_> = key.live(now).filter(other).collect();
    if kept.iter().any(|version| KeyKind::Header == version.kind || KeyKind::Header == kind) {
        return Err(Invalid::at("/overlap", "a header has one value at a time; only keys that sign can overlap"));
    }
    if kept.len() >= VERSIONS {
        let message = format!("{} versions sign already, which is the most; remove one first", kept.len());
        return Err(Invalid::at("/overlap", message));
    }
    let end = |version: &KeyVersion| overlap.end(version.expires_at, now);
    Ok(kept.into_iter().map(|it| SealedVersion { expires_at: end(it), ..SealedVersion::from(it) }).collect())
}

/// Whom a sealed key belongs to.
fn key_owner(tenant: TenantId, name: &str) -> String {
    format!("{}/{name}", tenant.0)
}

/// A version that cannot be decrypted is shown but not usable: the server starts, and the groups that need it wait.
pub(super) fn key_of(entity: &Entity, doc: KeyDoc, vault: &Vault) -> Key {
    let owner = key_owner(TenantId(entity.tenant), &entity.name);
    let version = |stored: SealedVersion| {
        let number = stored.number.unwrap_or(entity.version);
        let opened = vault.open(&owner, &stored.sealed).and_then(|secret| {
            KeyMaterial::new(format!("{}/{number}", entity.name), stored.kind, secret).map_err(anyhow::Error::msg)
        });
        let opened =
            opened.inspect_err(|error| tracing::error!(key = entity.name, number, %error, "a key cannot be used"));
        KeyVersion {
            number,
            kind: stored.kind,
            created_at: stored.created_at.unwrap_or(entity.updated_at),
            expires_at: stored.expires_at,
            material: opened.ok().map(|material| Arc::new(material.until(stored.expires_at))),
            sealed: stored.sealed,
        }
    };
    Key {
        name: entity.name.clone(),
        created_at: entity.created_at,
        updated_at: entity.updated_at,
        newest: version(doc.newest),
        older: doc.older.into_iter().map(version).collect(),
        revision: entity.version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_ends_when_its_first_end_has_come() {
        let at = UnixMs;
        let overlap = Overlap::For(Duration::from_millis(10));
        assert_eq!(overlap.end(None, at(5)), Some(at(15)));
        assert_eq!(overlap.end(Some(at(12)), at(5)), Some(at(12)));
        assert_eq!(overlap.end(Some(at(20)), at(5)), Some(at(15)));
        assert_eq!(Overlap::UntilRemoved.end(Some(at(12)), at(5)), Some(at(12)));
        assert_eq!(Overlap::UntilRemoved.end(None, at(5)), None);
    }
}
