//! Cipher of one tenant's payloads: XChaCha20-Poly1305 with a random nonce for each value, as for keys.
//!
//! A value is bound to its tenant and to its column, and not to its row: a job that takes over the request of a later one takes the stored
//! values along.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use carillon_core::clock::Clock;
use carillon_core::job::TenantId;
use carillon_store::StoreError;

/// Length of a tenant's key, in bytes.
pub(super) const KEY_LEN: usize = 32;

/// Length of a nonce, in bytes.
const NONCE_LEN: usize = 24;

/// Beginning of every encrypted value. It tells the versions of this format apart; whether a value is encrypted, its mark says.
const FORMAT: &[u8] = b"\xc5sealed1";

/// Bytes that encryption adds: format and nonce in front, and the authentication code at the end.
pub(super) const OVERHEAD: usize = FORMAT.len() + NONCE_LEN + 16;

/// Returns whether bytes begin as an encrypted value does. If not, they are not encrypted.
pub(super) fn may_be_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(FORMAT)
}

/// Column to which an encrypted value is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Spec,
    Body,
    Detail,
    ResponseBody,
    Schedule,
    Answer,
}

impl Column {
    fn as_str(self) -> &'static str {
        match self {
            Self::Spec => "job_spec.spec",
            Self::Body => "job_spec.body",
            Self::Detail => "attempt.detail",
            Self::ResponseBody => "attempt.response_body",
            Self::Schedule => "entity.doc of a schedule",
            Self::Answer => "recent.doc",
        }
    }
}

/// Encrypts and decrypts the values of one tenant.
#[derive(Clone)]
pub(super) struct TenantCipher {
    tenant: TenantId,
    cipher: XChaCha20Poly1305,
}

impl fmt::Debug for TenantCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantCipher").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl TenantCipher {
    pub(super) fn new(tenant: TenantId, key: &[u8; KEY_LEN]) -> Self {
        Self { tenant, cipher: XChaCha20Poly1305::new(key.into()) }
    }

    /// Encrypts a value.
    pub(super) fn seal(&self, column: Column, value: &[u8], clock: &dyn Clock) -> Result<Bytes, StoreError> {
        let mut nonce = [0; NONCE_LEN];
        clock.fill_random(&mut nonce);
        let payload = Payload { msg: value, aad: &self.bound_to(column) };
        let ciphertext = self.cipher.encrypt(&XNonce::from(nonce), payload);
        let ciphertext =
            ciphertext.map_err(|_| StoreError::Conflict("a value is too long to be encrypted".to_owned()))?;
        Ok(Bytes::from([FORMAT, nonce.as_slice(), &ciphertext].concat()))
    }

    /// Encrypts a value, and returns it in base64.
    pub(super) fn seal_text(&self, column: Column, value: &[u8], clock: &dyn Clock) -> Result<String, StoreError> {
        Ok(STANDARD.encode(self.seal(column, value, clock)?))
    }

    /// Decrypts a value that [`TenantCipher::seal`] encrypted.
    pub(super) fn open(&self, column: Column, sealed: &[u8]) -> Result<Bytes, StoreError> {
        let sealed = sealed.strip_prefix(FORMAT).ok_or_else(|| unopened(column))?;
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(|| unopened(column))?;
        let payload = Payload { msg: ciphertext, aad: &self.bound_to(column) };
        let opened = self.cipher.decrypt(&XNonce::from(*nonce), payload);
        opened.map(Bytes::from).map_err(|_| unopened(column))
    }

    /// Decrypts a value in base64.
    pub(super) fn open_text(&self, column: Column, sealed: &str) -> Result<Bytes, StoreError> {
        self.open(column, &STANDARD.decode(sealed).map_err(|_| unopened(column))?)
    }

    fn bound_to(&self, column: Column) -> Vec<u8> {
        format!("{}/{}", self.tenant.0, column.as_str()).into_bytes()
    }
}

fn unopened(column: Column) -> StoreError {
    let column = column.as_str();
    StoreError::Corrupt(format!(
        "column `{column}`: the encrypted value is damaged, or was encrypted under another key"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::clock::SystemClock;
    use proptest::prelude::*;

    const COLUMNS: [Column; 6] =
        [Column::Spec, Column::Body, Column::Detail, Column::ResponseBody, Column::Schedule, Column::Answer];

    fn cipher(tenant: i64, key: u8) -> TenantCipher {
        TenantCipher::new(TenantId(tenant), &[key; KEY_LEN])
    }

    proptest! {
        #[test]
        fn value_comes_back_to_its_tenant_and_column_only(value in prop::collection::vec(any::<u8>(), 0..4096), at in 0_usize..6) {
            let (cipher, column) = (cipher(1, 7), COLUMNS[at]);
            let sealed = cipher.seal(column, &value, &SystemClock).unwrap();
            prop_assert_eq!(sealed.len(), value.len() + OVERHEAD);
            prop_assert_eq!(cipher.open(column, &sealed).unwrap(), Bytes::from(value.clone()));
            let text = cipher.seal_text(column, &value, &SystemClock).unwrap();
            prop_assert_eq!(cipher.open_text(column, &text).unwrap(), Bytes::from(value.clone()));
            for other in [super::tests::cipher(2, 7), super::tests::cipher(1, 8)] {
                prop_assert!(other.open(column, &sealed).is_err());
            }
            for other in COLUMNS.into_iter().filter(|other| *other != column) {
                prop_assert!(cipher.open(other, &sealed).is_err());
            }
            prop_assert_ne!(cipher.seal(column, &value, &SystemClock).unwrap(), sealed);
        }

        #[test]
        fn damaged_value_is_an_error_and_never_another_value(
            value in prop::collection::vec(any::<u8>(), 0..256),
            at in any::<prop::sample::Index>(),
            flip in 1_u8..=255,
            cut in any::<prop::sample::Index>(),
        ) {
            let cipher = cipher(1, 7);
            let sealed = cipher.seal(Column::Body, &value, &SystemClock).unwrap().to_vec();
            let mut flipped = sealed.clone();
            flipped[at.index(sealed.len())] ^= flip;
            let shorter = &sealed[..cut.index(sealed.len())];
            let longer = [sealed.as_slice(), &[flip]].concat();
            for damaged in [flipped.as_slice(), shorter, &longer, &value] {
                let error = cipher.open(Column::Body, damaged).unwrap_err().to_string();
                prop_assert!(error.contains("column `job_spec.body`: the encrypted value is damaged"), "{}", error);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            prop_assert!(cipher(1, 7).open_text(Column::Spec, &text).is_err());
        }
    }
}
