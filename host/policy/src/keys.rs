//! Keys, and the operations on them that a signer may request.
//!
//! The material lives in host memory only and is wiped when it is dropped; a guest holds a handle. No type here prints it. A key that goes
//! out as a header is a kind of its own: receivers see it, so it must not be used for signatures. So is a client certificate, which proves to
//! receivers who connects.

use std::fmt;
use std::sync::Arc;

use ed25519_dalek::{KEYPAIR_LENGTH, SECRET_KEY_LENGTH, Signer as _, SigningKey};
use hmac::{Hmac, KeyInit};
use http::HeaderValue;
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use zeroize::Zeroizing;

use super::key_origins::KeyOrigins;
use super::tls_client;
use carillon_core::clock::UnixMs;

/// Kind of a key, which determines its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// Shared secret of any length, for HMAC (RFC 2104).
    Secret,
    /// Private key of 32 bytes, for Ed25519 (RFC 8032).
    Ed25519,
    /// Text that is sent as the value of a header (`auth_headers`), and signs nothing.
    Header,
    /// Client certificate with its private key, in PEM, that is shown to receivers in TLS handshakes (`tls`), and signs nothing else.
    #[serde(rename = "tls-client")]
    TlsClient,
}

/// Maximum length of a header's value, in bytes.
const HEADER_LEN: usize = 4 << 10;

/// Algorithm of a message authentication code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacAlgorithm {
    /// Code of 20 bytes.
    HmacSha1,
    /// Code of 32 bytes.
    HmacSha256,
    /// Code of 64 bytes.
    HmacSha512,
}

/// Error of an operation that needs a key of another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key is of another kind than the operation needs")]
pub struct WrongKind;

/// Version of a key, decrypted.
pub struct KeyMaterial {
    id: String,
    kind: KeyKind,
    secret: Zeroizing<Vec<u8>>,
    /// The certificate with its key, of the kind [`KeyKind::TlsClient`].
    certified: Option<Arc<CertifiedKey>>,
    expires_at: Option<UnixMs>,
    origins: Option<KeyOrigins>,
}

impl KeyMaterial {
    /// Makes a version of a key. `id` is the public name, `name/version`. The secret of an Ed25519 key is its 32 byte seed; the public key
    /// may follow it.
    ///
    /// # Errors
    /// Returns a sentence if the secret does not fit the kind.
    pub fn new(id: String, kind: KeyKind, mut secret: Zeroizing<Vec<u8>>) -> Result<Self, String> {
        if kind == KeyKind::Ed25519 {
            check_ed25519(&secret)?;
            secret.truncate(SECRET_KEY_LENGTH);
        }
        if kind == KeyKind::Header && !is_header(&secret) {
            return Err(format!(
                "the value of a header is 1 to {HEADER_LEN} visible ASCII characters, with spaces between them only"
            ));
        }
        let certified = if kind == KeyKind::TlsClient { Some(Arc::new(tls_client::parse(&secret)?)) } else { None };
        Ok(Self { id, kind, secret, certified, expires_at: None, origins: None })
    }

    /// Sets the expiry of a version that a newer one has replaced.
    #[must_use]
    pub fn until(self, expires_at: Option<UnixMs>) -> Self {
        Self { expires_at, ..self }
    }

    /// Bounds the key to requests to these origins.
    #[must_use]
    pub fn bound_to(self, origins: Option<KeyOrigins>) -> Self {
        Self { origins, ..self }
    }

    /// Returns the origins that the key may go to; `None` if it may go to all.
    #[must_use]
    pub fn origins(&self) -> Option<&KeyOrigins> {
        self.origins.as_ref()
    }

    /// Returns whether signers still get it.
    #[must_use]
    pub fn lives(&self, now: UnixMs) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    /// Returns whether both keys can do exactly the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind && *self.secret == *other.secret
    }

    /// Returns the public key of an Ed25519 key, with which receivers verify signatures. It is not secret.
    #[must_use]
    pub fn public_key(&self) -> Option<[u8; 32]> {
        let seed: &[u8; SECRET_KEY_LENGTH] = self.secret.as_slice().try_into().ok()?;
        (self.kind == KeyKind::Ed25519).then(|| SigningKey::from_bytes(seed).verifying_key().to_bytes())
    }

    /// Returns the public name, `name/version`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the name of the key, without the version.
    #[must_use]
    pub fn name(&self) -> &str {
        self.id.rsplit_once('/').map_or(self.id.as_str(), |(name, _)| name)
    }

    /// Returns the value of a header, marked so that it is not printed.
    ///
    /// # Errors
    /// Returns [`WrongKind`] if this key is not for headers.
    pub fn header(&self) -> Result<HeaderValue, WrongKind> {
        if self.kind != KeyKind::Header {
            return Err(WrongKind);
        }
        let mut value = HeaderValue::from_bytes(&self.secret).map_err(|_| WrongKind)?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Returns the client certificate with its private key, for handshakes with receivers.
    ///
    /// # Errors
    /// Returns [`WrongKind`] if this key is not a client certificate.
    pub fn tls_client(&self) -> Result<Arc<CertifiedKey>, WrongKind> {
        self.certified.clone().ok_or(WrongKind)
    }

    /// Computes the message authentication code of `data`.
    ///
    /// # Errors
    /// Returns [`WrongKind`] if this is not a shared secret.
    pub fn mac(&self, algorithm: MacAlgorithm, data: &[u8]) -> Result<Vec<u8>, WrongKind> {
        if self.kind != KeyKind::Secret {
            return Err(WrongKind);
        }
        match algorithm {
            MacAlgorithm::HmacSha1 => code::<Hmac<Sha1>>(&self.secret, data),
            MacAlgorithm::HmacSha256 => code::<Hmac<Sha256>>(&self.secret, data),
            MacAlgorithm::HmacSha512 => code::<Hmac<Sha512>>(&self.secret, data),
        }
    }

    /// Computes the Ed25519 signature of `data`.
    ///
    /// # Errors
    /// Returns [`WrongKind`] if this is not an Ed25519 key.
    pub fn sign(&self, data: &[u8]) -> Result<Vec<u8>, WrongKind> {
        if self.kind != KeyKind::Ed25519 {
            return Err(WrongKind);
        }
        let seed: &[u8; 32] = self.secret.as_slice().try_into().map_err(|_| WrongKind)?;
        Ok(SigningKey::from_bytes(seed).sign(data).to_bytes().to_vec())
    }
}

fn check_ed25519(secret: &[u8]) -> Result<(), String> {
    if let Ok(pair) = <&[u8; KEYPAIR_LENGTH]>::try_from(secret) {
        let whole = SigningKey::from_keypair_bytes(pair).map(drop);
        return whole.map_err(|_| "the second half of this ed25519 key is not its public key".to_owned());
    }
    if secret.len() == SECRET_KEY_LENGTH {
        return Ok(());
    }
    let (seed, pair) = (SECRET_KEY_LENGTH, KEYPAIR_LENGTH);
    Err(format!("an ed25519 key is {seed} bytes long, or {pair} with its public key; this is {}", secret.len()))
}

fn is_header(secret: &[u8]) -> bool {
    let visible = secret.iter().all(|byte| *byte == b' ' || byte.is_ascii_graphic());
    visible && secret.trim_ascii().len() == secret.len() && (1..=HEADER_LEN).contains(&secret.len())
}

fn code<M: hmac::Mac + KeyInit>(secret: &[u8], data: &[u8]) -> Result<Vec<u8>, WrongKind> {
    let mut mac = <M as KeyInit>::new_from_slice(secret).map_err(|_| WrongKind)?;
    mac.update(data);
    Ok(mac.finalize().into_bytes().to_vec())
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyMaterial").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Host side of a guest's `key` handle.
pub struct GrantedKey(pub(super) Arc<KeyMaterial>);

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: &str = "what do ya want for nothing?";

    fn key(kind: KeyKind, secret: &[u8]) -> KeyMaterial {
        KeyMaterial::new("k/1".into(), kind, Zeroizing::new(secret.to_vec())).unwrap()
    }

    #[test]
    fn hmac_agrees_with_rfc_2202_and_rfc_4231() {
        let long = "Test Using Larger Than Block-Size Key - Hash Key First";
        for (secret, data, algorithm, expected) in [
            (&b"Jefe"[..], NOTHING, MacAlgorithm::HmacSha1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (
                b"Jefe",
                NOTHING,
                MacAlgorithm::HmacSha256,
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                b"Jefe",
                NOTHING,
                MacAlgorithm::HmacSha512,
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ),
            (
                &[0xaa; 131],
                long,
                MacAlgorithm::HmacSha256,
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (
                &[0xaa; 131],
                long,
                MacAlgorithm::HmacSha512,
                "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f3526b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
            ),
        ] {
            let code = key(KeyKind::Secret, secret).mac(algorithm, data.as_bytes()).unwrap();
            assert_eq!(hex::encode(code), expected, "{algorithm:?}");
        }
    }

    #[test]
    fn ed25519_agrees_with_rfc_8032() {
        for (seed, public, data, signature) in [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                "",
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                "72",
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
            ),
            (
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                "af82",
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
            ),
        ] {
            let key = key(KeyKind::Ed25519, &hex::decode(seed).unwrap());
            assert_eq!(hex::encode(key.public_key().unwrap()), public);
            assert_eq!(hex::encode(key.sign(&hex::decode(data).unwrap()).unwrap()), signature, "{data}");
        }
    }

    #[test]
    fn an_ed25519_key_may_come_with_its_public_key() {
        let seed = [7; SECRET_KEY_LENGTH];
        let public = key(KeyKind::Ed25519, &seed).public_key().unwrap();
        let pair = [seed, public].concat();
        assert!(key(KeyKind::Ed25519, &pair).is_same(&key(KeyKind::Ed25519, &seed)));
        assert!(!key(KeyKind::Ed25519, &seed).is_same(&key(KeyKind::Secret, &seed)));
        let wrong = Zeroizing::new([seed, seed].concat());
        assert!(KeyMaterial::new("k".into(), KeyKind::Ed25519, wrong).is_err());
        assert_eq!(key(KeyKind::Secret, &seed).public_key(), None);
    }

    #[test]
    fn a_version_lives_until_its_end() {
        let until = |end| key(KeyKind::Secret, b"x").until(end);
        assert!(until(None).lives(UnixMs::MAX));
        assert!(until(Some(UnixMs(2))).lives(UnixMs(1)));
        assert!(!until(Some(UnixMs(2))).lives(UnixMs(2)));
    }

    #[test]
    fn a_key_serves_its_own_kind_only() {
        assert_eq!(key(KeyKind::Secret, b"x").sign(b""), Err(WrongKind));
        assert_eq!(key(KeyKind::Ed25519, &[1; 32]).mac(MacAlgorithm::HmacSha1, b""), Err(WrongKind));
        assert!(KeyMaterial::new("k".into(), KeyKind::Ed25519, Zeroizing::new(vec![1; 31])).is_err());
        assert_eq!(key(KeyKind::Secret, b"x").header(), Err(WrongKind));
        assert_eq!(key(KeyKind::Ed25519, &[b'x'; 32]).header(), Err(WrongKind));
        assert_eq!(key(KeyKind::Secret, b"x").tls_client().unwrap_err(), WrongKind);
        let header = key(KeyKind::Header, &[b'x'; 32]);
        assert_eq!(header.header().unwrap().as_bytes(), [b'x'; 32]);
        assert_eq!((header.mac(MacAlgorithm::HmacSha256, b""), header.sign(b"")), (Err(WrongKind), Err(WrongKind)));
    }

    #[test]
    fn a_headers_value_is_visible_text() {
        let taken = |secret: &[u8]| {
            KeyMaterial::new("k".into(), KeyKind::Header, Zeroizing::new(secret.to_vec()))
                .is_ok_and(|key| key.header().is_ok())
        };
        assert!(taken(b"x") && taken(b"Bearer a.b-c=") && taken(&[b'x'; HEADER_LEN]));
        for secret in
            [&b""[..], b" x", b"x ", b"x\n", b"a\r\nb: c", b"a\tb", b"\xc3\xa4", b"\0", &[b'x'; HEADER_LEN + 1]]
        {
            assert!(!taken(secret), "{secret:?}");
        }
    }

    #[test]
    fn a_key_cannot_be_printed() {
        assert!(!format!("{:?}", key(KeyKind::Secret, b"hunter2")).contains("hunter2"));
        assert!(!format!("{:?}", key(KeyKind::Header, b"hunter2").header()).contains("hunter2"));
    }
}
