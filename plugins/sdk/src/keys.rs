//! Keys as a signer sees them: something that can be asked for a code or a signature, and never read.
//!
//! The trait stands between a plugin and the host's handles so that a signer can be tested without a host, see
//! `testing::StaticKey`.

use crate::bindings::shared::keys;
use crate::{Failure, KeyError, Mac, SignatureAlgorithm};

/// One version of one key that the group was granted.
pub trait Key {
    /// Names the key and its version, such as `flask-secret/2`. Not secret.
    fn id(&self) -> String;

    /// The code of `data` under this key (RFC 2104): 20, 32 or 64 bytes.
    fn mac(&self, algorithm: Mac, data: &[u8]) -> Result<Vec<u8>, KeyError>;

    /// The signature of `data` under this key: 64 bytes for Ed25519 (RFC 8032).
    fn sign(&self, algorithm: SignatureAlgorithm, data: &[u8]) -> Result<Vec<u8>, KeyError>;
}

impl Key for keys::Key {
    fn id(&self) -> String {
        keys::Key::id(self)
    }

    fn mac(&self, algorithm: Mac, data: &[u8]) -> Result<Vec<u8>, KeyError> {
        keys::Key::mac(self, algorithm, data)
    }

    fn sign(&self, algorithm: SignatureAlgorithm, data: &[u8]) -> Result<Vec<u8>, KeyError> {
        keys::Key::sign(self, algorithm, data)
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::WrongKind => Self::config(
                "wrong-key-kind",
                "The bound key is not of a kind that this plugin's algorithm works with.",
            ),
            KeyError::TooManyOperations => {
                Self::policy("too-many-key-operations", "The call has used up its key operations.")
            }
        }
    }
}
