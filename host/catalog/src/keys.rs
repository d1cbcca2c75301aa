//! Keys in the catalog: keys that sign, and keys that are sent.
//!
//! A key is granted to all groups of its tenant, or to some by name; a group can be named before it exists. A group binds only keys that are
//! granted to it, and a call gets no others. A grant stays as long as the group uses the key, so that a working group does not lose it.
//!
//! A key has one version, or several while it is rotated: the newest signs first, and the older ones sign as well until they expire or are
//! removed. Expired versions are given to no caller, and leave the store with the next change of the key.
//!
//! A key can be bound to origins, to which all of its versions go and to no others.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::audit::Cause;
use super::entities::{KeyRecord, KeyVersion, SealedVersion};
use super::key_grants::{origins_of, stored_origins};
use super::secrets::{Sealed, Vault};
use super::{Catalog, CatalogError, Group, Key, KeyGrants, document, validation};
use carillon_core::audit::{Origin, Verb};
use carillon_core::clock::UnixMs;
use carillon_core::job::TenantId;
use carillon_core::limits::json_len;
use carillon_policy::binding::{Effective, Invalid};
use carillon_policy::{KeyKind, KeyMaterial};
use carillon_store::{Entity, Kind, Precondition};

/// Maximum number of versions of a key that sign at once. With the eight key operations of a call, a signer can use two keys with all
/// versions.
const VERSIONS: usize = 4;

/// Maximum number of groups that a key is granted to by name.
const GRANTS: usize = 1_000;

/// New value of a key.
pub struct KeyValue {
    /// Kind of the key, which determines its use.
    pub kind: KeyKind,
    /// Bytes of the secret.
    pub secret: Zeroizing<Vec<u8>>,
    /// How long the present versions stay valid; without it they end at once.
    pub overlap: Option<Overlap>,
    /// Groups that the key is granted to from now on. Without it, the grants stay; a new key is granted to all.
    pub groups: Option<Vec<String>>,
    /// Origins that the key may go to from now on. Without them, the origins stay; a new key may go to all.
    pub origins: Option<Vec<String>>,
    /// Whether the value comes from the configuration.
    pub is_declared: bool,
}

/// How long the versions of a key stay valid after it is given a new value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// They keep signing for this time, unless they end earlier.
    For(Duration),
    /// They keep signing until they are removed, or until their own expiry.
    UntilRemoved,
}

impl Overlap {
    /// Returns the end of a version whose end was `before`.
    fn end(self, before: Option<UnixMs>, now: UnixMs) -> Option<UnixMs> {
        match self {
            Self::For(time) => before.into_iter().chain([now.plus(time)]).min(),
            Self::UntilRemoved => before,
        }
    }
}

impl Catalog {
    /// Returns the tenant's keys, by name.
    #[must_use]
    pub fn keys(&self, tenant: TenantId) -> Vec<Arc<Key>> {
        self.state().keys_of(tenant).cloned().collect()
    }

    /// Returns the tenant's key of this name.
    #[must_use]
    pub fn key(&self, tenant: TenantId, name: &str) -> Option<Arc<Key>> {
        self.state().key(tenant, name).cloned()
    }

    /// Gives a key a value, which cannot be read again. A value that the key already has makes no second version.
    ///
    /// # Errors
    /// Returns an error if the value does not fit the kind, if the older versions cannot stay valid beside it, or if a group uses the key and
    /// is no longer granted it.
    pub async fn put_key(
        &self,
        tenant: TenantId,
        name: &str,
        value: KeyValue,
        origin: &Origin,
    ) -> Result<(), CatalogError> {
        validation::name("key", name)?;
        let KeyValue { kind, secret, overlap, groups, origins, is_declared: declared } = value;
        self.bounds.requests.secret.check("secret", "/secret", secret.len())?;
        let groups = self.grants(tenant, name, groups).await?;
        let origins = origins_of(origins)?;
        let material = KeyMaterial::new(name.to_owned(), kind, secret.clone());
        let material = material.map_err(|error| Invalid::at("/secret", error))?;
        let sealed = self.vault.seal(&key_owner(tenant, name), &secret, &*self.clock);
        let sealed = sealed.map_err(|error| Invalid::at("/secret", error.to_string()))?;
        let change = |before: Option<&Key>| {
            // A value that is put again keeps its version.
            let same = before.map(|key| &key.newest).filter(|newest| {
                newest.kind == kind && newest.material.as_ref().is_some_and(|known| known.is_same(&material))
            });
            let new = SealedVersion { kind, sealed: sealed.clone(), number: None, created_at: None, expires_at: None };
            let newest = same.map_or(new, SealedVersion::from);
            let older = match before.zip(overlap) {
                Some((key, overlap)) => older(key, &material, kind, overlap, self.now())?,
                None => Vec::new(),
            };
            let groups = groups.clone().or_else(|| before?.groups.clone());
            let origins = origins.clone().or_else(|| before?.origins.clone()).as_ref().map(|it| it.texts().to_vec());
            Ok(KeyRecord { newest, older, groups, origins, declared })
        };
        self.change_key(&Cause::change(origin, Verb::KEY_PUT), tenant, name, change).await
    }

    /// Gives a key the value that the configuration states, unless it has it.
    ///
    /// # Errors
    /// See [`Catalog::put_key`].
    pub async fn declare_key(
        &self,
        tenant: TenantId,
        name: &str,
        value: KeyValue,
        origin: &Origin,
    ) -> Result<(), CatalogError> {
        let material = KeyMaterial::new(name.to_owned(), value.kind, value.secret.clone());
        let material = material.map_err(|error| Invalid::at("/secret", error))?;
        let known = self.key(tenant, name);
        let is_same = |key: &Arc<Key>| key.newest.material.as_ref().is_some_and(|known| known.is_same(&material));
        let Some(known) = known.filter(is_same) else {
            return self.put_key(tenant, name, KeyValue { is_declared: true, ..value }, origin).await;
        };
        let mut groups = value.groups;
        groups.iter_mut().for_each(|groups| {
            groups.sort();
            groups.dedup();
        });
        let origins = origins_of(value.origins)?;
        let groups = groups.filter(|groups| known.groups.as_ref() != Some(groups)).map(Some);
        let origins = origins.filter(|origins| known.origins.as_ref() != Some(origins));
        if groups.is_some() || origins.is_some() {
            let origins = origins.map(|origins| Some(origins.texts().to_vec()));
            self.grant_key(tenant, &known, KeyGrants { groups, origins }, origin).await?;
        }
        Ok(())
    }

    /// Removes a version of a key; returns false if none has this number. If the newest is removed, the one before it becomes the newest.
    ///
    /// # Errors
    /// Returns an error if it is the only version.
    pub async fn delete_key_version(
        &self,
        tenant: TenantId,
        key: &Key,
        number: i64,
        origin: &Origin,
    ) -> Result<bool, CatalogError> {
        if !key.live(self.now()).any(|version| version.number == number) {
            return Ok(false);
        }
        let change = |before: Option<&Key>| {
            let key = before.ok_or(CatalogError::Gone)?;
            let mut versions = key.live(self.now()).filter(|version| version.number != number).map(SealedVersion::from);
            let only = || {
                let text = "the only version of a key cannot be deleted: delete the key, or put a new version first";
                CatalogError::Conflict(text.to_owned())
            };
            let newest = SealedVersion { expires_at: None, ..versions.next().ok_or_else(only)? };
            Ok(key.doc(newest, versions.collect()))
        };
        self.change_key(&Cause::change(origin, Verb::KEY_DELETE_VERSION), tenant, &key.name, change).await?;
        Ok(true)
    }

    /// Removes a key; returns false if there is none.
    ///
    /// # Errors
    /// Returns an error if a group uses the key.
    pub async fn delete_key(&self, tenant: TenantId, name: &str, origin: &Origin) -> Result<bool, CatalogError> {
        self.check_unused(tenant, name, |_| true).await?;
        self.delete(&Cause::change(origin, Verb::KEY_DELETE), tenant, Kind::Key, name).await
    }

    /// Removes a key that the configuration no longer names, unless a group names it itself.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn withdraw_key(&self, tenant: TenantId, key: &Key, origin: &Origin) -> Result<(), CatalogError> {
        let is_named = |group: &Arc<Group>| {
            let own = Effective::keys_named_in(&group.own.value());
            own.iter().chain(&Effective::keys_named_in(&group.tenant.defaults)).any(|name| name == &key.name)
        };
        if let Some(group) = self.groups(tenant).iter().find(|group| is_named(group)) {
            let (key, group) = (&key.name, &group.name);
            tracing::warn!(key, group, "kept a key that is no longer in the configuration, because a group uses it");
            return Ok(());
        }
        self.delete(&Cause::change(origin, Verb::KEY_DELETE), tenant, Kind::Key, &key.name).await?;
        tracing::warn!(key = key.name, "deleted a key that is no longer in the configuration");
        Ok(())
    }

    /// Returns the sorted names that a key is to be granted to, after checking them.
    pub(super) async fn grants(
        &self,
        tenant: TenantId,
        name: &str,
        groups: Option<Vec<String>>,
    ) -> Result<Option<Vec<String>>, CatalogError> {
        let Some(mut groups) = groups else { return Ok(None) };
        if groups.len() > GRANTS {
            return Err(Invalid::at("/groups", format!("`groups` must have at most {GRANTS} names")).into());
        }
        self.bounds.requests.document.check("groups", "/groups", json_len(&groups))?;
        for (index, group) in groups.iter().enumerate() {
            validation::name("group", group).map_err(|error| error.within(&format!("/groups/{index}")))?;
        }
        groups.sort();
        groups.dedup();
        self.check_unused(tenant, name, |group| groups.binary_search(&group.name).is_err()).await?;
        Ok(Some(groups))
    }

    /// Checks that none of these groups uses a key, under any version of its policy that decides attempts or is shown them.
    async fn check_unused(
        &self,
        tenant: TenantId,
        name: &str,
        is_one: impl Fn(&Group) -> bool,
    ) -> Result<(), CatalogError> {
        // A binding that another node made a moment ago counts.
        self.refresh().await?;
        for group in self.groups(tenant).into_iter().filter(|group| is_one(group)) {
            let used = self.used(&group).await?;
            let mut effective = used.iter().filter_map(|group| group.effective.as_ref().ok());
            if effective.any(|effective| effective.uses_key(name)) {
                return Err(CatalogError::Conflict(format!("the group `{}` uses this key", group.name)));
            }
        }
        Ok(())
    }

    /// Changes or makes a key as `change` decides from the present one. If another node was faster, `change` is called again.
    pub(super) async fn change_key(
        &self,
        cause: &Cause<'_>,
        tenant: TenantId,
        name: &str,
        change: impl Fn(Option<&Key>) -> Result<KeyRecord, CatalogError>,
    ) -> Result<(), CatalogError> {
        let decide = |before: Option<&Key>| {
            let doc = change(before)?;
            let expect = before.map_or(Precondition::Nothing, |key| Precondition::Version(key.revision));
            Ok(self.entity(cause, tenant, Kind::Key, name, document(&doc), expect).into())
        };
        self.change(|| self.key(tenant, name), decide).await.map(drop)
    }
}

/// Returns the versions that stay valid beside a new one.
fn older(
    key: &Key,
    new: &KeyMaterial,
    kind: KeyKind,
    overlap: Overlap,
    now: UnixMs,
) -> Result<Vec<SealedVersion>, Invalid> {
    let other = |version: &&KeyVersion| !version.material.as_ref().is_some_and(|material| material.is_same(new));
    let kept: Vec<_> = key.live(now).filter(other).collect();
    let has_one_value = |kind| matches!(kind, KeyKind::Header | KeyKind::TlsClient);
    if kept.iter().any(|version| has_one_value(version.kind) || has_one_value(kind)) {
        return Err(Invalid::at(
            "/overlap",
            "`overlap` is not allowed for the kinds `header` and `tls-client`, which have one value at a time",
        ));
    }
    if kept.len() >= VERSIONS {
        let message =
            format!("the key has {} versions that sign, the most that it can have: remove one first", kept.len());
        return Err(Invalid::at("/overlap", message));
    }
    let end = |version: &KeyVersion| overlap.end(version.expires_at, now);
    Ok(kept.into_iter().map(|it| SealedVersion { expires_at: end(it), ..SealedVersion::from(it) }).collect())
}

/// Returns every sealed value of a stored key.
pub(super) fn sealed_versions(doc: KeyRecord) -> impl Iterator<Item = Sealed> {
    std::iter::once(doc.newest).chain(doc.older).map(|version| version.sealed)
}

/// Returns the owner of a sealed key.
pub(super) fn key_owner(tenant: TenantId, name: &str) -> String {
    format!("{}/{name}", tenant.0)
}

/// Decrypts a stored key. A version that cannot be decrypted is listed but not usable: the server starts, and the groups that need the key
/// wait.
pub(super) fn key_of(entity: &Entity, doc: KeyRecord, tenant: &str, vault: &Vault) -> Key {
    let owner = key_owner(TenantId(entity.tenant), &entity.name);
    let origins = doc.origins.as_deref().map(stored_origins);
    let version = |stored: SealedVersion| {
        let number = stored.number.unwrap_or(entity.version);
        let opened = vault.open(&owner, &stored.sealed).and_then(|secret| {
            KeyMaterial::new(format!("{}/{number}", entity.name), stored.kind, secret).map_err(anyhow::Error::msg)
        });
        let opened = opened
            .inspect_err(|error| tracing::error!(tenant, key = entity.name, number, %error, "key version is unusable"));
        KeyVersion {
            number,
            kind: stored.kind,
            created_at: stored.created_at.unwrap_or(entity.updated_at),
            expires_at: stored.expires_at,
            material: opened.ok().map(|material| Arc::new(material.until(stored.expires_at).bound_to(origins.clone()))),
            sealed: stored.sealed,
        }
    };
    Key {
        name: entity.name.clone(),
        created_at: entity.created_at,
        updated_at: entity.updated_at,
        newest: version(doc.newest),
        older: doc.older.into_iter().map(version).collect(),
        groups: doc.groups,
        origins: origins.clone(),
        is_declared: doc.declared,
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
