//! Signers whose plugins a tenant accepts.
//!
//! A tenant can name signers: the Ed25519 public keys (RFC 8032) of those who may upload plugins for it. From then on an upload must have a
//! signature over the component's bytes that one of the keys verifies; the name and the version are part of these bytes. Versions that were
//! uploaded before stay. Only an operator changes the signers, so that a lost token of the tenant cannot bring in code.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::DecodePublicKey as _;
use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::error::CatalogError;
use carillon_core::job::check_name;
use carillon_policy::binding::Invalid;

/// Maximum number of signers of a tenant.
const MAX_SIGNERS: usize = 32;

/// Signer whose plugins a tenant accepts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignerInput {
    /// Name of the signer, which the plugins that it has signed show.
    pub name: String,
    /// Ed25519 public key in PEM (RFC 8410), as `openssl pkey -pubout` writes it.
    pub public_key: String,
}

/// All signers of a tenant. Without any, its plugins need no signature.
#[derive(Clone, Debug, Default)]
pub struct Signers(Vec<(SignerInput, VerifyingKey)>);

impl Signers {
    pub(super) fn parse(docs: Vec<SignerInput>) -> Result<Self, Invalid> {
        if docs.len() > MAX_SIGNERS {
            return Err(Invalid::at("", format!("`plugin_signers` must have at most {MAX_SIGNERS} entries")));
        }
        let mut signers: Vec<(SignerInput, VerifyingKey)> = Vec::with_capacity(docs.len());
        for (index, doc) in docs.into_iter().enumerate() {
            check_name("signer", &doc.name).map_err(|message| Invalid::at(format!("/{index}/name"), message))?;
            if signers.iter().any(|(known, _)| known.name == doc.name) {
                return Err(Invalid::at(format!("/{index}/name"), "the name of a signer is given twice"));
            }
            let key = VerifyingKey::from_public_key_pem(&doc.public_key).ok().filter(|key| !key.is_weak());
            let key = key.ok_or_else(|| {
                let message = "`public_key` is not an Ed25519 public key in PEM, as `openssl pkey -pubout` writes it";
                Invalid::at(format!("/{index}/public_key"), message)
            })?;
            signers.push((doc, key));
        }
        Ok(Self(signers))
    }

    /// Returns the signers as they were put.
    #[must_use]
    pub fn docs(&self) -> Vec<SignerInput> {
        self.0.iter().map(|(doc, _)| doc.clone()).collect()
    }

    /// Returns the name of the signer of a component, if the tenant has signers; `signature` is in base64.
    pub(super) fn verify(&self, component: &[u8], signature: Option<&str>) -> Result<Option<String>, CatalogError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let unsigned = |text: &str| CatalogError::Unsigned(text.to_owned());
        let signature = signature.ok_or_else(|| {
            unsigned("the tenant accepts only signed plugins: send an Ed25519 signature of the component's bytes, in base64, as `Carillon-Signature`")
        })?;
        let bytes = STANDARD.decode(signature.trim()).ok().and_then(|bytes| Signature::from_slice(&bytes).ok());
        let signature = bytes.ok_or_else(|| unsigned("`Carillon-Signature` is not 64 bytes in base64"))?;
        let signer = self.0.iter().find(|(_, key)| key.verify_strict(component, &signature).is_ok());
        let signer = signer.ok_or_else(|| unsigned("the signature is not by one of the tenant's signers"))?;
        Ok(Some(signer.0.name.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use ed25519_dalek::pkcs8::EncodePublicKey as _;
    use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&[7; 32]));

    fn doc(name: &str, key: &SigningKey) -> SignerInput {
        let public_key = key.verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
        SignerInput { name: name.to_owned(), public_key }
    }

    fn refused(signers: &Signers, component: &[u8], signature: Option<&str>) -> String {
        signers.verify(component, signature).unwrap_err().to_string()
    }

    #[test]
    fn without_signers_anything_goes() {
        assert_eq!(Signers::default().verify(b"x", None).unwrap(), None);
        assert_eq!(Signers::default().verify(b"x", Some("odd")).unwrap(), None);
    }

    #[test]
    fn one_of_the_signers_must_have_signed_just_these_bytes() {
        let other = SigningKey::from_bytes(&[8; 32]);
        let signers = Signers::parse(vec![doc("other", &other), doc("ci", &KEY)]).unwrap();
        let signature = STANDARD.encode(KEY.sign(b"component").to_bytes());
        assert_eq!(signers.verify(b"component", Some(&signature)).unwrap().as_deref(), Some("ci"));
        assert!(refused(&signers, b"another", Some(&signature)).contains("not by one of"));
        assert!(refused(&signers, b"component", None).contains("Carillon-Signature"));
        assert!(refused(&signers, b"component", Some("!")).contains("64 bytes"));
        let stranger = SigningKey::from_bytes(&[9; 32]).sign(b"component");
        assert!(refused(&signers, b"component", Some(&STANDARD.encode(stranger.to_bytes()))).contains("not by one of"));
    }

    #[test]
    fn what_openssl_signs_is_signed() {
        let public_key = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAB1bhekLxUbpvwZ1k78FkHA19w8Hzlx0+YHy0yaVeSJU=\n-----END PUBLIC KEY-----\n";
        let signers =
            Signers::parse(vec![SignerInput { name: "o".to_owned(), public_key: public_key.to_owned() }]).unwrap();
        // Made with `openssl pkeyutl -sign -rawin`.
        let signature = "/EQ8C2lMJ0JLVoCNQJyZwASD2uZ9i5qBPgfzcEWIJPffSiP9UmAqI6Z9kkZkfqL6QVqF94LHY2UCmsvNGqV8Bg==";
        assert_eq!(signers.verify(b"component", Some(signature)).unwrap().as_deref(), Some("o"));
    }

    #[test]
    fn keys_are_looked_at() {
        let pointer = |docs: Vec<SignerInput>| Signers::parse(docs).unwrap_err().pointer;
        let odd = SignerInput { public_key: "ssh-ed25519 AAAA".to_owned(), ..doc("a", &KEY) };
        assert_eq!(pointer(vec![odd]), "/0/public_key");
        assert_eq!(pointer(vec![doc("a", &KEY), doc("a", &KEY)]), "/1/name");
        assert_eq!(pointer(vec![doc("", &KEY)]), "/0/name");
        assert_eq!(pointer((0..33).map(|n| doc(&format!("s{n}"), &KEY)).collect()), "");
    }
}
