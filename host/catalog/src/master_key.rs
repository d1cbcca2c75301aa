//! The master key: its source, and the check that a store has only one.
//!
//! A store keeps a constant that was sealed with the key of its first server. A server whose key does not open it does not start: it could
//! use no key of the tenants, and the other servers could not open what it sealed. A key is made only for a store in which nothing is sealed
//! yet, and only if none is configured: in any other case a missing file was moved, or is not mounted.

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use zeroize::Zeroizing;

use super::decode::read;
use super::entities::KeyRecord;
use super::keys::{key_owner, sealed_versions};
use super::secrets::{MASTER_KEY_LEN, Sealed, Vault};
use carillon_core::clock::Clock;
use carillon_core::job::TenantId;
use carillon_store::{Kind, Store};

/// Owner of the sealed constant. Owners of keys begin with a number.
const PROOF_OWNER: &str = "master key";

/// The sealed constant.
const PROOF: &[u8] = b"carillon";

/// Permission bits that let users other than the owner read or change a file.
const OTHERS: u32 = 0o077;

/// Source of the master key.
#[derive(Clone)]
pub enum MasterKey {
    /// `keys.master_key`: 64 hexadecimal digits.
    Given(Zeroizing<String>),
    /// A file that must be there, and the setting or option that names it.
    File(&'static str, PathBuf),
    /// The file next to an embedded database, which is made with the database.
    Beside(PathBuf),
}

impl fmt::Display for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => f.write_str("keys.master_key"),
            Self::File(name, path) => write!(f, "{name} `{}`", path.display()),
            Self::Beside(path) => write!(f, "the master key file `{}`", path.display()),
        }
    }
}

/// Reaction to a key that does not fit the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The key is rejected.
    Refuse,
    /// The store uses the key from now on. Values that were sealed with another key are lost.
    Adopt,
}

/// Opens the vault of a store with its master key. Values may also be sealed with the key before it, `old`.
///
/// # Errors
/// Returns an error if a key cannot be read, or if the store was sealed with another one.
pub async fn unlock(
    source: &MasterKey,
    old: Option<&MasterKey>,
    unfit: Unfit,
    store: &dyn Store,
    clock: &dyn Clock,
) -> anyhow::Result<Vault> {
    let kept = store.sealed_proof().await?;
    let sealed = sealed_keys(store).await?;
    let is_unused = kept.is_none() && sealed.is_empty();
    let absent = if is_unused || unfit == Unfit::Adopt { Absent::Create } else { Absent::Refuse };
    let mut vault = source.read(absent, clock)?;
    if let Some(old) = old {
        vault = vault.with_old(old.read(Absent::Refuse, clock)?);
    }
    let fits = match &kept {
        Some(proof) => is_proof(&vault, proof)?,
        // The store was written by a version that kept no proof. Some values may be sealed with a key that was lost before.
        None => sealed.is_empty() || sealed.iter().any(|(owner, sealed)| vault.open(owner, sealed).is_ok()),
    };
    if fits && kept.is_some() {
        return Ok(vault);
    }
    if !fits && unfit == Unfit::Refuse {
        bail!("{}", refusal(source));
    }
    let proof = new_proof(&vault, clock)?;
    let kept = store.keep_proof(proof, kept).await?;
    // Another node may have been faster, with another key.
    if !is_proof(&vault, &kept)? {
        bail!("{}", refusal(source));
    }
    Ok(vault)
}

fn refusal(source: &MasterKey) -> String {
    format!(
        "{source} is not the master key that the keys in this store are encrypted under: configure that one \
         (if it is lost for good, `carillon recover master-key` lets the store take this one; every key must then be put again)"
    )
}

/// Seals the constant with the vault's own master key.
pub(super) fn new_proof(vault: &Vault, clock: &dyn Clock) -> anyhow::Result<String> {
    Ok(serde_json::to_string(&vault.seal(PROOF_OWNER, PROOF, clock)?)?)
}

/// Returns whether a proof was sealed with one of the vault's master keys.
fn is_proof(vault: &Vault, proof: &str) -> anyhow::Result<bool> {
    let sealed: Sealed =
        serde_json::from_str(proof).context("the proof of the master key in the store cannot be read")?;
    Ok(vault.open(PROOF_OWNER, &sealed).is_ok_and(|opened| opened.as_slice() == PROOF))
}

/// Returns all sealed values of keys in the store, with their owners.
async fn sealed_keys(store: &dyn Store) -> anyhow::Result<Vec<(String, Sealed)>> {
    let (_, entities) = store.load().await?;
    let mut all = Vec::new();
    for entity in entities.iter().filter(|entity| entity.kind == Kind::Key) {
        let owner = key_owner(TenantId(entity.tenant), &entity.name);
        let doc: KeyRecord = read(entity)?;
        all.extend(sealed_versions(doc).map(|sealed| (owner.clone(), sealed)));
    }
    Ok(all)
}

/// Treatment of a missing key next to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absent {
    /// It is an error: keys may be sealed with it.
    Refuse,
    /// A key is created.
    Create,
}

impl MasterKey {
    /// Reads the key.
    fn read(&self, absent: Absent, clock: &dyn Clock) -> anyhow::Result<Vault> {
        let path = match self {
            Self::Given(text) => return Vault::from_hex(text),
            Self::File(_, path) | Self::Beside(path) => path,
        };
        match std::fs::read_to_string(path) {
            Ok(text) => {
                warn_of_others(path);
                let text = Zeroizing::new(text);
                Vault::from_hex(&text).with_context(|| self.to_string())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => match self {
                Self::Beside(_) if absent == Absent::Create => {
                    make(path, clock).with_context(|| format!("{self} cannot be made"))
                }
                Self::Beside(_) => bail!(
                    "{self} does not exist, although the keys in this store are encrypted under it: put it back \
                     (if it is lost for good, `carillon recover master-key` makes a new one; every key must then be put again)"
                ),
                _ => bail!(
                    "{self} does not exist: put the file there, or mount it (a first one is made with \
                     `openssl rand -hex 32`)"
                ),
            },
            Err(error) => Err(error).with_context(|| format!("{self} cannot be read")),
        }
    }
}

/// Logs a warning if users other than its owner can read the key.
fn warn_of_others(path: &Path) {
    let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode() & 0o777);
    if mode & OTHERS != 0 {
        let (file, mode) = (path.display(), format!("{mode:04o}"));
        tracing::warn!(%file, mode, "master key file is readable by other users; set its mode to 0600");
    }
}

/// Makes a key. The file gets its name when it is complete and on disk, and never replaces another file.
fn make(path: &Path, clock: &dyn Clock) -> anyhow::Result<Vault> {
    let mut random = Zeroizing::new([0; MASTER_KEY_LEN]);
    clock.fill_random(random.as_mut_slice());
    let text = Zeroizing::new(hex::encode(random.as_slice()));
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let placed = std::fs::hard_link(&draft, path);
    std::fs::remove_file(&draft)?;
    placed?;
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(directory)?.sync_all()?;
    tracing::warn!(file = %path.display(), "created a new master key; keep a copy of it elsewhere");
    Vault::from_hex(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::clock::SystemClock;
    use carillon_store::{Audit, Entities as _, Precondition, PutEntity};
    use carillon_store_sqlite::{SqliteOptions, SqliteStore};

    const ONE: &str = "abababababababababababababababababababababababababababababababab";
    const OTHER: &str = "acacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacac";

    fn given(text: &str) -> MasterKey {
        MasterKey::Given(Zeroizing::new(text.to_owned()))
    }

    struct World {
        dir: tempfile::TempDir,
        store: SqliteStore,
    }

    impl World {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = SqliteStore::open(SqliteOptions::new(dir.path().join("x.db"))).await.unwrap();
            Self { dir, store }
        }

        async fn unlock(&self, source: &MasterKey, unfit: Unfit) -> Result<Vault, String> {
            unlock(source, None, unfit, &self.store, &SystemClock).await.map_err(|error| format!("{error:#}"))
        }

        fn file(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        /// Stores a key as versions without proofs did.
        async fn put_key(&self, under: &str) {
            let sealed = Vault::from_hex(under).unwrap().seal("1/k", b"secret", &SystemClock).unwrap();
            let doc = serde_json::json!({"kind": "secret", "sealed": sealed});
            let (name, now, expect) = ("k".to_owned(), SystemClock.now(), Precondition::Nothing);
            let (needs, component, audit) = (Vec::new(), None, Audit::Upkeep);
            let put = PutEntity { tenant: 1, kind: Kind::Key, name, doc, now, expect, needs, component, audit };
            self.store.put(put).await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn store_under_another_key_refuses_it() {
        let world = World::new().await;
        world.unlock(&given(ONE), Unfit::Refuse).await.unwrap();
        world.unlock(&given(ONE), Unfit::Refuse).await.unwrap();
        let error = world.unlock(&given(OTHER), Unfit::Refuse).await.err().unwrap();
        assert!(error.starts_with("keys.master_key is not the master key that"), "{error}");
        let file = world.file("other.key");
        std::fs::write(&file, OTHER).unwrap();
        let error =
            world.unlock(&MasterKey::File("keys.master_key_file", file.clone()), Unfit::Refuse).await.err().unwrap();
        assert!(error.contains(&file.display().to_string()), "{error}");
        world.unlock(&given(OTHER), Unfit::Adopt).await.unwrap();
        world.unlock(&given(OTHER), Unfit::Refuse).await.unwrap();
        world.unlock(&given(ONE), Unfit::Refuse).await.err().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn store_without_a_proof_takes_the_key_of_its_keys_only() {
        let world = World::new().await;
        world.put_key(ONE).await;
        world.unlock(&given(OTHER), Unfit::Refuse).await.err().unwrap();
        assert_eq!(world.store.sealed_proof().await.unwrap(), None);
        let missing = world.file("master.key");
        let error = world.unlock(&MasterKey::Beside(missing.clone()), Unfit::Refuse).await.err().unwrap();
        assert!(error.contains("does not exist") && !missing.exists(), "{error}");
        world.unlock(&given(ONE), Unfit::Refuse).await.unwrap();
        world.unlock(&given(OTHER), Unfit::Refuse).await.err().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn key_file_is_made_with_the_store_and_never_again() {
        let world = World::new().await;
        let path = world.file("master.key");
        let beside = MasterKey::Beside(path.clone());
        let first = world.unlock(&beside, Unfit::Refuse).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(first.derive("x"), Vault::from_hex(&text).unwrap().derive("x"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(world.unlock(&beside, Unfit::Refuse).await.unwrap().derive("x"), first.derive("x"));
        let mut names: Vec<_> =
            std::fs::read_dir(world.dir.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        names.retain(|name| name.to_string_lossy().contains("key"));
        assert_eq!(names, ["master.key"]);

        std::fs::remove_file(&path).unwrap();
        let error = world.unlock(&beside, Unfit::Refuse).await.err().unwrap();
        assert!(error.contains("master.key` does not exist") && error.contains("put it back"), "{error}");
        assert!(!path.exists());
        std::fs::write(&path, "short").unwrap();
        let error = world.unlock(&beside, Unfit::Refuse).await.err().unwrap();
        assert!(error.contains("master.key`: the master key must be 64 hexadecimal digits"), "{error}");
        std::fs::remove_file(&path).unwrap();
        world.unlock(&beside, Unfit::Adopt).await.unwrap();
        assert!(path.exists());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn configured_key_file_is_never_made() {
        let world = World::new().await;
        let path = world.file("typo.key");
        for unfit in [Unfit::Refuse, Unfit::Adopt] {
            let error =
                world.unlock(&MasterKey::File("keys.master_key_file", path.clone()), unfit).await.err().unwrap();
            assert!(error.contains("keys.master_key_file") && error.contains("typo.key` does not exist"), "{error}");
            assert!(!path.exists());
        }
    }
}
