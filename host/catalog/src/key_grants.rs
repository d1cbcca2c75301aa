//! Bounds of a key's use: the groups that it is granted to, and the origins that it may go to.

use super::audit::Cause;
use super::entities::{KeyRecord, SealedVersion};
use super::{Catalog, CatalogError, Key};
use carillon_core::audit::{Origin, Verb};
use carillon_core::job::TenantId;
use carillon_policy::binding::Invalid;
use carillon_policy::{KeyKind, KeyOrigins};

/// Change of the bounds of a key's use. What is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct KeyGrants {
    /// Groups that the key is granted to, and no others; the inner `None` grants it to all of the tenant's.
    pub groups: Option<Option<Vec<String>>>,
    /// Origins that the key may go to, and no others; the inner `None` allows all.
    pub origins: Option<Option<Vec<String>>>,
}

impl Catalog {
    /// Changes where a key may be used. It makes no version of the key.
    ///
    /// # Errors
    /// Returns an error if a name or an origin is not valid, or if a group uses the key and is no longer granted it.
    pub async fn grant_key(
        &self,
        tenant: TenantId,
        key: &Key,
        grants: KeyGrants,
        origin: &Origin,
    ) -> Result<(), CatalogError> {
        let groups = match grants.groups {
            Some(groups) => Some(self.grants(tenant, &key.name, groups).await?),
            None => None,
        };
        let origins = grants.origins.map(origins_of).transpose()?;
        let change = |before: Option<&Key>| {
            let key = before.ok_or(CatalogError::Gone)?;
            let older = key.live(self.now()).skip(1).map(SealedVersion::from).collect();
            let mut doc = key.doc(SealedVersion::from(&key.newest), older);
            if let Some(groups) = &groups {
                doc.groups.clone_from(groups);
            }
            if let Some(origins) = &origins {
                doc.origins = origins.as_ref().map(|origins| origins.texts().to_vec());
            }
            Ok(doc)
        };
        self.change_key(&Cause::change(origin, Verb::KEY_GRANT), tenant, &key.name, change).await
    }
}

impl Key {
    /// Returns the stored form of the key with these versions.
    pub(super) fn doc(&self, newest: SealedVersion, older: Vec<SealedVersion>) -> KeyRecord {
        let origins = self.origins.as_ref().map(|origins| origins.texts().to_vec());
        KeyRecord { newest, older, groups: self.groups.clone(), origins, declared: self.is_declared }
    }

    /// Returns warnings about the key.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let is_open = self.newest.kind == KeyKind::Header && self.origins.is_none();
        let warning =
            "the key has no `origins`: who may create jobs in a group that sends it can have it sent to any server";
        is_open.then(|| warning.to_owned()).into_iter().collect()
    }
}

/// Parses the origins of a request.
pub(super) fn origins_of(origins: Option<Vec<String>>) -> Result<Option<KeyOrigins>, Invalid> {
    origins
        .map(|origins| KeyOrigins::parse(&origins).map_err(|error| Invalid::from(error).within("/origins")))
        .transpose()
}

/// Parses stored origins. What cannot be read allows no origin.
pub(super) fn stored_origins(origins: &[String]) -> KeyOrigins {
    KeyOrigins::parse(origins).unwrap_or_else(|error| {
        tracing::error!(error = error.message, "origins of a key are unreadable; the key goes nowhere");
        KeyOrigins::default()
    })
}
