//! Rotation of the master key: every sealed value is sealed anew under another key, in one transaction.
//!
//! A server can have two master keys meanwhile ([`Vault::with_old`]). Values that neither of them opens were lost before; they stay as they
//! are.

use std::collections::HashSet;

use anyhow::{Context as _, ensure};
use serde::Serialize;

use super::decode::read;
use super::document;
use super::entities::{KeyRecord, SealedVersion};
use super::keys::key_owner;
use super::master_key::{MasterKey, Unfit, new_proof, unlock};
use super::sealing::{DataKeyDoc, data_key_owner};
use super::secrets::{Sealed, SealedUnder, Vault};
use carillon_core::clock::Clock;
use carillon_core::job::TenantId;
use carillon_store::{Audit, Entity, Kind, Precondition, PutEntity, Reseal, Store};

/// Time after its last sign of life for which a server counts as running.
const SERVER_TTL: std::time::Duration = std::time::Duration::from_secs(30);

/// Numbers of sealed values in a store, by the master key that opens them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SealedValues {
    /// Under the master key that is configured, or that was rotated to.
    pub current: usize,
    /// Under the one before it.
    pub old: usize,
    /// Under another one, or damaged: they are lost.
    pub unusable: usize,
}

/// Servers that may use the store during a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Servers {
    /// None may.
    Stopped,
    /// All of them have both keys.
    HaveBothKeys,
}

/// Seals every value that is sealed under the master key of `old` under that of `new`, and returns the numbers before that.
///
/// # Errors
/// Returns an error, and changes nothing, if a key cannot be read, if the store was sealed with neither, if servers run that may not, or if the
/// store was changed meanwhile.
pub async fn rotate_master_key(
    old: &MasterKey,
    new: &MasterKey,
    servers: Servers,
    store: &dyn Store,
    clock: &dyn Clock,
) -> anyhow::Result<SealedValues> {
    // The store may be under either key: an interrupted command is repeated.
    let under_old = unlock(old, Some(new), Unfit::Refuse, store, clock).await?;
    let vault = under_old.swapped().context("there is no new key")?;
    ensure!(!vault.is_same(&under_old), "{new} holds the same key as {old}");
    let (_, entities) = store.load().await?;
    let (mut values, mut puts) = (SealedValues::default(), Vec::new());
    for entity in of_tenants(&entities) {
        let mut anew = Anew { vault: &vault, clock, values: &mut values, is_changed: false };
        let doc = anew.entity(entity)?;
        if let Some(doc) = doc.filter(|_| anew.is_changed) {
            puts.push(PutEntity {
                tenant: entity.tenant,
                kind: entity.kind,
                name: entity.name.clone(),
                doc,
                // The value is the same, so the time of its last change is, too.
                now: entity.updated_at,
                expect: Precondition::Version(entity.version),
                needs: Vec::new(),
                component: None,
                // What it holds is the same; only the command can read both keys.
                audit: Audit::Upkeep,
            });
        }
    }
    let instead_of = store.sealed_proof().await?.context("the store has no proof of its master key")?;
    let without_servers = (servers == Servers::Stopped).then_some(SERVER_TTL);
    store.reseal(Reseal { entities: puts, proof: new_proof(&vault, clock)?, instead_of, without_servers }).await?;
    Ok(values)
}

/// Counts the sealed values of a store by the master key that opens them.
///
/// # Errors
/// Returns an error if a key cannot be read, or if the store was sealed with neither.
pub async fn sealed_values(
    source: &MasterKey,
    old: Option<&MasterKey>,
    store: &dyn Store,
    clock: &dyn Clock,
) -> anyhow::Result<SealedValues> {
    let vault = unlock(source, old, Unfit::Refuse, store, clock).await?;
    let (_, entities) = store.load().await?;
    let mut values = SealedValues::default();
    for entity in of_tenants(&entities) {
        Anew { vault: &vault, clock, values: &mut values, is_changed: false }.entity(entity)?;
    }
    Ok(values)
}

/// Returns the entities without those that deleted tenants have left: nothing reads these any more, and housekeeping removes them.
fn of_tenants(entities: &[Entity]) -> impl Iterator<Item = &Entity> {
    let tenants: HashSet<i64> =
        entities.iter().filter(|entity| entity.kind == Kind::Tenant).map(|entity| entity.id).collect();
    entities.iter().filter(move |entity| tenants.contains(&entity.tenant))
}

/// Seals the values of one entity anew, and counts them.
struct Anew<'a> {
    vault: &'a Vault,
    clock: &'a dyn Clock,
    values: &'a mut SealedValues,
    is_changed: bool,
}

impl Anew<'_> {
    /// Returns the new document of an entity; `None` if it is of a kind without sealed values.
    fn entity(&mut self, entity: &Entity) -> anyhow::Result<Option<serde_json::Value>> {
        match entity.kind {
            Kind::Key => self.key(entity, read(entity)?).map(Some),
            Kind::DataKey => {
                let (owner, doc) = (data_key_owner(TenantId(entity.tenant)), read::<DataKeyDoc>(entity)?);
                Ok(Some(document(&DataKeyDoc { sealed: self.value(&owner, doc.sealed)? })))
            }
            _ => Ok(None),
        }
    }

    fn key(&mut self, entity: &Entity, doc: KeyRecord) -> anyhow::Result<serde_json::Value> {
        let owner = key_owner(TenantId(entity.tenant), &entity.name);
        let KeyRecord { newest, older, groups, origins, declared } = doc;
        // The entity gets another version, from which a value without a number would take its own.
        let newest = SealedVersion {
            sealed: self.value(&owner, newest.sealed)?,
            number: newest.number.or(Some(entity.version)),
            created_at: newest.created_at.or(Some(entity.updated_at)),
            ..newest
        };
        let older = older
            .into_iter()
            .map(|version| Ok(SealedVersion { sealed: self.value(&owner, version.sealed)?, ..version }))
            .collect::<anyhow::Result<_>>()?;
        Ok(document(&KeyRecord { newest, older, groups, origins, declared }))
    }

    fn value(&mut self, owner: &str, sealed: Sealed) -> anyhow::Result<Sealed> {
        match self.vault.sealed_under(owner, &sealed) {
            SealedUnder::Current => self.values.current += 1,
            SealedUnder::Neither => self.values.unusable += 1,
            SealedUnder::Old => {
                self.values.old += 1;
                self.is_changed = true;
                return self.vault.seal(owner, &self.vault.open(owner, &sealed)?, self.clock);
            }
        }
        Ok(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::clock::{SystemClock, UnixMs};
    use carillon_store::{DeleteEntity, Entities as _, Jobs as _};
    use carillon_store_sqlite::{SqliteOptions, SqliteStore};

    #[tokio::test]
    async fn key_that_a_deleted_tenant_has_left_does_not_prevent_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(SqliteOptions::new(dir.path().join("x.db"))).await.unwrap();
        let keys = ["one", "two"].map(|name| dir.path().join(name));
        std::fs::write(&keys[0], "ab".repeat(32)).unwrap();
        std::fs::write(&keys[1], "cd".repeat(32)).unwrap();
        let [old, new] = keys.map(|path| MasterKey::File("--file", path));
        let vault = unlock(&old, None, Unfit::Refuse, &store, &SystemClock).await.unwrap();
        let put = async |tenant, kind, name: &str, doc| {
            let (name, now, expect, audit) = (name.to_owned(), UnixMs(1), Precondition::Nothing, Audit::Upkeep);
            let put = PutEntity { tenant, kind, name, doc, now, expect, needs: Vec::new(), component: None, audit };
            store.put(put).await.unwrap().done
        };
        for name in ["stays", "goes"] {
            let tenant = put(0, Kind::Tenant, name, serde_json::json!({})).await.id;
            let sealed = vault.seal(&key_owner(TenantId(tenant), "k"), b"secret", &SystemClock).unwrap();
            put(tenant, Kind::Key, "k", serde_json::json!({"kind": "secret", "sealed": sealed})).await;
        }
        let (name, audit) = ("goes".to_owned(), Audit::Upkeep);
        let gone = DeleteEntity { tenant: 0, kind: Kind::Tenant, name, now: UnixMs(2), generation: None, audit };
        assert!(store.delete(gone).await.unwrap().done);
        let rotated = rotate_master_key(&old, &new, Servers::Stopped, &store, &SystemClock).await.unwrap();
        assert_eq!(rotated, SealedValues { old: 1, ..SealedValues::default() });
        let after = sealed_values(&new, None, &store, &SystemClock).await.unwrap();
        assert_eq!(after, SealedValues { current: 1, ..SealedValues::default() });
        store.close().await;
    }
}
