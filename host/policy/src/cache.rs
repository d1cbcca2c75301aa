//! Cache of native code on disk, so that a restart compiles nothing.
//!
//! To load native code is to run it. So each file begins with an HMAC-SHA256 of its name and content, under a key of this server. A file that
//! does not verify is not loaded but compiled again. The name covers the component, the engine's settings and version, and the host crate's
//! version.
//!
//! The total size of the files is bounded. Beyond the bound, the files that were loaded longest ago are removed, and among them those that
//! another version of the server has left.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::sync::Mutex;
use wasmtime::Engine;
use zeroize::Zeroizing;

use super::component::Digest;
use carillon_core::clock;

/// Length of the authentication code in front of the content, in bytes.
const MAC_LEN: usize = 32;

/// Permissions of the directory: only the server's user reads it.
const OWNER_ONLY: u32 = 0o700;

/// Part of the name of each file, complete or half written.
const EXTENSION: &str = ".cwasm";

/// Share of the bound that one removal frees, in percent: to find the files that were loaded longest ago, it must read the whole directory.
const LESS: u64 = 10;

/// Directory of authenticated artefacts.
pub struct Cache {
    dir: PathBuf,
    key: Zeroizing<[u8; 32]>,
    engine: u64,
    /// Maximum size of all files, in bytes.
    limit: u64,
    /// Size of all files in bytes; `None` until they have been counted.
    size: Mutex<Option<u64>>,
}

impl Cache {
    /// Caches artefacts of `engine` in `dir`, which is made at the first write; at most `limit` bytes are kept.
    #[must_use]
    pub fn new(dir: PathBuf, key: Zeroizing<[u8; 32]>, engine: &Engine, limit: usize) -> Self {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        Self { dir, key, engine: hasher.finish(), limit, size: Mutex::default() }
    }

    /// Returns the artefact of a component, if it is cached and authentic.
    pub async fn get(&self, component: &Digest) -> Option<Vec<u8>> {
        let name = self.name(component);
        let path = self.dir.join(&name);
        let file = tokio::fs::read(&path).await.ok()?;
        let (mac, content) = file.split_at_checked(MAC_LEN)?;
        if self.mac(&name, content).verify_slice(mac).is_err() {
            tracing::warn!(file = name, "ignored a file in the plugin cache that this server did not write");
            return None;
        }
        if let Err(error) = clock::touch(&path) {
            tracing::debug!(%error, file = name, "recording the use of a cached plugin failed");
        }
        Some(content.to_vec())
    }

    /// Stores an artefact. A failure to write costs time at the next start and nothing else.
    pub async fn put(&self, component: &Digest, artefact: &[u8]) {
        let name = self.name(component);
        let mut content = self.mac(&name, artefact).finalize().into_bytes().to_vec();
        content.extend_from_slice(artefact);
        let (dir, limit) = (self.dir.clone(), self.limit);
        let mut size = self.size.lock().await;
        let known = *size;
        let written = tokio::task::spawn_blocking(move || {
            let before = write(&dir, &name, &content)?;
            let known = known.map(|known| (known + content.len() as u64).saturating_sub(before));
            match known.filter(|known| *known <= limit) {
                Some(known) => Ok(known),
                None => prune(&dir, limit),
            }
        });
        match written.await.map_err(std::io::Error::other).flatten() {
            Ok(now) => *size = Some(now),
            Err(error) => tracing::warn!(%error, dir = %self.dir.display(), "caching a compiled plugin failed"),
        }
    }

    /// Removes the artefact of a component, if it is cached.
    pub async fn remove(&self, component: &Digest) {
        let mut size = self.size.lock().await;
        if tokio::fs::remove_file(self.dir.join(self.name(component))).await.is_ok() {
            *size = None;
        }
    }

    fn name(&self, component: &Digest) -> String {
        format!("{component}-{:016x}{EXTENSION}", self.engine)
    }

    fn mac(&self, name: &str, content: &[u8]) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.as_slice()).expect("any key will do");
        mac.update(name.as_bytes());
        mac.update(&[0]);
        mac.update(content);
        mac
    }
}

/// Writes a file under a temporary name, renames it into its place, and returns the size of the file that it replaced.
fn write(dir: &Path, name: &str, content: &[u8]) -> std::io::Result<u64> {
    std::fs::DirBuilder::new().recursive(true).mode(OWNER_ONLY).create(dir)?;
    let place = dir.join(name);
    let before = std::fs::metadata(&place).map_or(0, |file| file.len());
    let mut file = tempfile::Builder::new().prefix(&format!("{name}.")).tempfile_in(dir)?;
    file.write_all(content)?;
    file.persist(&place).map_err(|error| error.error)?;
    Ok(before)
}

/// Removes the files that were loaded longest ago until the rest fits the limit, and returns the size of the rest.
fn prune(dir: &Path, limit: u64) -> std::io::Result<u64> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains(EXTENSION)
            && let Ok(file) = entry.metadata()
        {
            files.push((file.modified()?, file.len(), entry.path()));
        }
    }
    let mut size: u64 = files.iter().map(|(_, len, _)| len).sum();
    if size <= limit {
        return Ok(size);
    }
    files.sort();
    let least = limit - limit / 100 * LESS;
    for (_, len, path) in files {
        if size <= least {
            break;
        }
        // A reader of the file has it open and can read on.
        if std::fs::remove_file(&path).is_ok() {
            size -= len;
        }
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(dir: &std::path::Path, key: u8) -> Cache {
        Cache::new(dir.to_owned(), Zeroizing::new([key; 32]), &Engine::default(), 1 << 20)
    }

    /// Returns the indices of the components that are cached.
    async fn there(cache: &Cache, components: &[Digest]) -> Vec<usize> {
        let mut there = Vec::new();
        for (index, component) in components.iter().enumerate() {
            if tokio::fs::try_exists(cache.dir.join(cache.name(component))).await.unwrap() {
                there.push(index);
            }
        }
        there
    }

    #[tokio::test]
    async fn directory_is_readable_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("plugin-cache");
        cache(&place, 1).put(&Digest::from_bytes(b"a"), &[0; 10]).await;
        assert_eq!(std::fs::metadata(&place).unwrap().permissions().mode() & 0o777, OWNER_ONLY);
    }

    #[tokio::test]
    async fn what_was_loaded_longest_ago_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().to_owned(), Zeroizing::new([1; 32]), &Engine::default(), 5_000);
        std::fs::write(dir.path().join("not-ours"), [0; 9_000]).unwrap();
        let components: Vec<_> = (0..6_u8).map(|number| Digest::from_bytes(&[number])).collect();
        for component in &components[..4] {
            cache.put(component, &[0; 1_000]).await;
        }
        assert_eq!(there(&cache, &components).await, [0, 1, 2, 3]);
        // Times of the file system: the first file is the newest, the third the oldest.
        for (index, seconds) in [(2, 1), (3, 2), (1, 3), (0, 4)] {
            let file = std::fs::File::open(dir.path().join(cache.name(&components[index]))).unwrap();
            let metadata = file.metadata().unwrap();
            let old = metadata.modified().unwrap() - std::time::Duration::from_secs(100 - seconds);
            file.set_modified(old).unwrap();
        }
        assert!(cache.get(&components[2]).await.is_some(), "it is the newest now");
        cache.put(&components[4], &[0; 1_000]).await;
        assert_eq!(there(&cache, &components).await, [0, 1, 2, 4]);
        // Storing the same artefact again does not count it twice.
        cache.put(&components[4], &[0; 1_000]).await;
        assert_eq!(there(&cache, &components).await, [0, 1, 2, 4]);
        cache.put(&components[5], &[0; 3_000]).await;
        assert_eq!(there(&cache, &components).await, [4, 5]);
        cache.remove(&components[4]).await;
        assert_eq!(there(&cache, &components).await, [5]);
        assert!(dir.path().join("not-ours").exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left of what was being written");
    }

    #[tokio::test]
    async fn writers_of_one_name_do_not_meet() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other, digest) = (cache(dir.path(), 1), cache(dir.path(), 1), Digest::from_bytes(b"component"));
        let content = vec![7; 100_000];
        for _ in 0..20 {
            tokio::join!(one.put(&digest, &content), other.put(&digest, &content));
            assert_eq!(one.get(&digest).await.as_deref(), Some(&content[..]));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn an_artefact_comes_back_unless_it_was_touched() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::from_bytes(b"component");
        cache(dir.path(), 1).put(&digest, b"native code").await;
        assert_eq!(cache(dir.path(), 1).get(&digest).await.as_deref(), Some(b"native code".as_slice()));
        assert_eq!(cache(dir.path(), 2).get(&digest).await, None, "another server's file");

        let path = dir.path().join(cache(dir.path(), 1).name(&digest));
        let mut file = std::fs::read(&path).unwrap();
        *file.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &file).unwrap();
        assert_eq!(cache(dir.path(), 1).get(&digest).await, None, "a touched file");
        std::fs::write(&path, &file[..10]).unwrap();
        assert_eq!(cache(dir.path(), 1).get(&digest).await, None, "a cut file");
    }

    #[tokio::test]
    async fn a_file_under_another_components_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path(), 1);
        let (a, b) = (Digest::from_bytes(b"a"), Digest::from_bytes(b"b"));
        cache.put(&a, b"code of a").await;
        std::fs::rename(dir.path().join(cache.name(&a)), dir.path().join(cache.name(&b))).unwrap();
        assert_eq!(cache.get(&b).await, None);
    }
}
