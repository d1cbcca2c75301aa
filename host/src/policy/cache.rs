//! Native code on disk, so that a restart compiles nothing.
//!
//! Loading native code is running it. So each file begins with an HMAC-SHA256 under a key of this server over its name and its
//! content, and a file that does not verify is not loaded but made again. The name covers the component, the engine's settings
//! and version, and the host crate's version.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use wasmtime::Engine;
use zeroize::Zeroizing;

use super::plugin::Digest;

/// Length of the code in front of the content, in bytes.
const MAC_LEN: usize = 32;

/// A directory of authenticated artefacts.
pub struct Cache {
    dir: PathBuf,
    key: Zeroizing<[u8; 32]>,
    engine: u64,
}

impl Cache {
    /// Artefacts of `engine` in `dir`, which is made when it is first written to.
    #[must_use]
    pub fn new(dir: PathBuf, key: Zeroizing<[u8; 32]>, engine: &Engine) -> Self {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        Self { dir, key, engine: hasher.finish() }
    }

    /// The artefact of a component, if it is there and ours.
    pub async fn get(&self, component: &Digest) -> Option<Vec<u8>> {
        let name = self.name(component);
        let file = tokio::fs::read(self.dir.join(&name)).await.ok()?;
        let (mac, content) = file.split_at_checked(MAC_LEN)?;
        if self.mac(&name, content).verify_slice(mac).is_err() {
            tracing::warn!(
                file = name,
                "a file in the cache of compiled plugins was not written by this server; ignored"
            );
            return None;
        }
        Some(content.to_vec())
    }

    /// Keeps an artefact. A cache that cannot be written to costs time at the next start, nothing else.
    pub async fn put(&self, component: &Digest, artefact: &[u8]) {
        let name = self.name(component);
        let mut content = self.mac(&name, artefact).finalize().into_bytes().to_vec();
        content.extend_from_slice(artefact);
        let temporary = self.dir.join(format!("{name}.{}", std::process::id()));
        let written = async {
            tokio::fs::create_dir_all(&self.dir).await?;
            tokio::fs::write(&temporary, content).await?;
            tokio::fs::rename(&temporary, self.dir.join(&name)).await
        };
        if let Err(error) = written.await {
            tracing::warn!(%error, dir = %self.dir.display(), "cannot keep a compiled plugin");
        }
    }

    fn name(&self, component: &Digest) -> String {
        format!("{component}-{:016x}.cwasm", self.engine)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(dir: &std::path::Path, key: u8) -> Cache {
        Cache::new(dir.to_owned(), Zeroizing::new([key; 32]), &Engine::default())
    }

    #[tokio::test]
    async fn an_artefact_comes_back_unless_it_was_touched() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"component");
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
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        cache.put(&a, b"code of a").await;
        std::fs::rename(dir.path().join(cache.name(&a)), dir.path().join(cache.name(&b))).unwrap();
        assert_eq!(cache.get(&b).await, None);
    }
}
