//! Protection of secrets in the database: keys are encrypted, API tokens are hashed.
//!
//! One master key encrypts all keys (XChaCha20-Poly1305, a random nonce for each, bound to the tenant and the name so that a row cannot be
//! copied under another one). The key that authenticates the cache of compiled plugins is derived from the same master key, by HMAC with a
//! label.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use carillon_core::clock::Clock;

/// Length of the master key, in bytes.
pub(super) const MASTER_KEY_LEN: usize = 32;

/// Length of a nonce, in bytes.
const NONCE_LEN: usize = 24;

/// Prefix of every token, so that scanners for leaked secrets can find it.
const TOKEN_PREFIX: &str = "carillon_";

/// Length of the random part of a token, in bytes.
const TOKEN_LEN: usize = 32;

/// Encrypted secret, as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sealed {
    nonce: String,
    ciphertext: String,
}

/// Vault that encrypts and decrypts keys. While the master key is being replaced it has two: it encrypts under the new one, and decrypts
/// under both.
#[derive(Clone)]
pub struct Vault {
    master: Zeroizing<[u8; MASTER_KEY_LEN]>,
    old: Option<Zeroizing<[u8; MASTER_KEY_LEN]>>,
}

/// Master key under which a value is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SealedUnder {
    /// The vault's own.
    Current,
    /// The one before it.
    Old,
    /// Another one, or the value was modified.
    Neither,
}

impl Vault {
    /// Makes a vault from a master key of 64 hexadecimal digits.
    ///
    /// # Errors
    /// Returns an error if `text` is anything else.
    pub fn from_hex(text: &str) -> anyhow::Result<Self> {
        let mut master = Zeroizing::new([0; MASTER_KEY_LEN]);
        hex::decode_to_slice(text.trim(), master.as_mut_slice())
            .map_err(|_| anyhow::anyhow!("the master key must be {} hexadecimal digits", 2 * MASTER_KEY_LEN))?;
        Ok(Self { master, old: None })
    }

    /// Returns a vault that also decrypts what was encrypted under the master key of `old`.
    #[must_use]
    pub fn with_old(self, old: Self) -> Self {
        Self { old: Some(old.master), ..self }
    }

    /// Returns a vault that encrypts under the other one of the two master keys; `None` if there is only one.
    pub(super) fn swapped(&self) -> Option<Self> {
        Some(Self { master: self.old.clone()?, old: Some(self.master.clone()) })
    }

    /// Returns whether the vault encrypts under the same master key as `other`.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.master == other.master
    }

    /// Derives a key for another purpose.
    #[must_use]
    pub fn derive(&self, label: &str) -> Zeroizing<[u8; 32]> {
        derive(&self.master, label)
    }

    /// Derives a key for another purpose from each master key, from the current one first.
    pub(super) fn derive_each(&self, label: &str) -> impl Iterator<Item = Zeroizing<[u8; 32]>> {
        std::iter::once(&self.master).chain(&self.old).map(move |master| derive(master, label))
    }

    /// Encrypts a secret of `owner`; the owner's name is not secret.
    ///
    /// # Errors
    /// Returns an error if the secret is too long for the cipher.
    pub fn seal(&self, owner: &str, secret: &[u8], clock: &dyn Clock) -> anyhow::Result<Sealed> {
        let mut nonce = [0; NONCE_LEN];
        clock.fill_random(&mut nonce);
        let ciphertext = cipher(&self.master)
            .encrypt(&XNonce::from(nonce), Payload { msg: secret, aad: owner.as_bytes() })
            .map_err(|_| anyhow::anyhow!("the secret cannot be encrypted"))?;
        Ok(Sealed { nonce: hex::encode(nonce), ciphertext: hex::encode(ciphertext) })
    }

    /// Decrypts a secret that [`Vault::seal`] encrypted.
    ///
    /// # Errors
    /// Returns an error if the secret was sealed with another master key or for another owner, or was modified.
    pub fn open(&self, owner: &str, sealed: &Sealed) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        let current = open_under(&self.master, owner, sealed);
        match &self.old {
            Some(old) => current.or_else(|_| open_under(old, owner, sealed)),
            None => current,
        }
    }

    /// Returns the master key under which a value of `owner` is sealed.
    pub(super) fn sealed_under(&self, owner: &str, sealed: &Sealed) -> SealedUnder {
        let opens = |master: &Zeroizing<[u8; MASTER_KEY_LEN]>| open_under(master, owner, sealed).is_ok();
        if opens(&self.master) {
            SealedUnder::Current
        } else if self.old.as_ref().is_some_and(opens) {
            SealedUnder::Old
        } else {
            SealedUnder::Neither
        }
    }
}

fn open_under(master: &[u8; MASTER_KEY_LEN], owner: &str, sealed: &Sealed) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let mut nonce = [0; NONCE_LEN];
    hex::decode_to_slice(&sealed.nonce, &mut nonce)?;
    let ciphertext = hex::decode(&sealed.ciphertext)?;
    cipher(master)
        .decrypt(&XNonce::from(nonce), Payload { msg: &ciphertext, aad: owner.as_bytes() })
        .map(Zeroizing::new)
        .map_err(|_| anyhow::anyhow!("it was encrypted under another master key"))
}

fn derive(master: &[u8; MASTER_KEY_LEN], label: &str) -> Zeroizing<[u8; 32]> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(master).expect("any key will do");
    mac.update(label.as_bytes());
    Zeroizing::new(mac.finalize().into_bytes().into())
}

fn cipher(key: &[u8; MASTER_KEY_LEN]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.into())
}

/// Makes an API token of 256 random bits, so that a plain hash of it is as good as a slow one.
#[must_use]
pub fn new_token(clock: &dyn Clock) -> String {
    let mut random = [0; TOKEN_LEN];
    clock.fill_random(&mut random);
    format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(random))
}

/// Returns the stored hash of a token, in hexadecimal digits.
#[must_use]
pub fn token_hash(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::clock::SystemClock;

    #[test]
    fn a_secret_opens_for_its_owner_under_its_master_key_only() {
        let (vault, other) = (Vault::from_hex(&"ab".repeat(32)).unwrap(), Vault::from_hex(&"ac".repeat(32)).unwrap());
        let sealed = vault.seal("1/k", b"hunter2", &SystemClock).unwrap();
        assert!(!serde_json::to_string(&sealed).unwrap().contains("hunter2"));
        assert_eq!(vault.open("1/k", &sealed).unwrap().as_slice(), b"hunter2");
        assert!(vault.open("2/k", &sealed).is_err());
        assert!(other.open("1/k", &sealed).is_err());
    }

    #[test]
    fn vault_with_an_old_key_reads_both_and_writes_under_the_new_one() {
        let (old, new) = (Vault::from_hex(&"ab".repeat(32)).unwrap(), Vault::from_hex(&"ac".repeat(32)).unwrap());
        let (before, both) = (old.seal("1/k", b"hunter2", &SystemClock).unwrap(), new.clone().with_old(old.clone()));
        let after = both.seal("1/k", b"hunter2", &SystemClock).unwrap();
        for sealed in [&before, &after] {
            assert_eq!(both.open("1/k", sealed).unwrap().as_slice(), b"hunter2");
        }
        assert_eq!(both.sealed_under("1/k", &before), SealedUnder::Old);
        assert_eq!(both.sealed_under("1/k", &after), SealedUnder::Current);
        assert_eq!(both.sealed_under("2/k", &after), SealedUnder::Neither);
        assert!(
            new.open("1/k", &after).is_ok() && new.open("1/k", &before).is_err() && old.open("1/k", &after).is_err()
        );
        assert!(both.is_same(&new) && !both.is_same(&old));
    }
}
