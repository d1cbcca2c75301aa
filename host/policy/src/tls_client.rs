//! Client certificates: what a key of the kind `tls-client` consists of.

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

/// Reads a certificate, those that lead to an authority, and the private key of the first, in PEM and in any order.
///
/// # Errors
/// Returns a sentence if something is missing, cannot be read, or does not belong together.
pub(super) fn parse(pem: &[u8]) -> Result<CertifiedKey, String> {
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("a `tls-client` key must be in PEM: {error}"))?;
    if chain.is_empty() {
        return Err("a `tls-client` key must have a certificate in PEM, besides its private key".to_owned());
    }
    // The reader's own message could show a part of the key.
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        "a `tls-client` key must have a private key in PEM (PKCS #8, PKCS #1 or SEC 1), not encrypted".to_owned()
    })?;
    CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "the private key of this `tls-client` key does not belong to its first certificate".to_owned()
        }
        other => format!("the certificate or the private key of this `tls-client` key cannot be used: {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = include_str!("../../../tests/tls/client.pem");
    const KEY: &str = include_str!("../../../tests/tls/client.key");
    const OTHER_KEY: &str = include_str!("../../../tests/tls/other.key");
    const AUTHORITY: &str = include_str!("../../../tests/tls/other-ca.pem");

    #[test]
    fn certificate_and_its_key_are_read_in_any_order() {
        for pem in [[CERTIFICATE, KEY], [KEY, CERTIFICATE]] {
            assert_eq!(parse(pem.concat().as_bytes()).unwrap().cert.len(), 1);
        }
        assert_eq!(parse([CERTIFICATE, AUTHORITY, KEY].concat().as_bytes()).unwrap().cert.len(), 2);
    }

    #[test]
    fn what_is_missing_or_does_not_belong_together_is_named() {
        let refused = |parts: &[&str]| parse(parts.concat().as_bytes()).unwrap_err();
        assert!(refused(&[KEY]).contains("must have a certificate"));
        assert!(refused(&[CERTIFICATE]).contains("must have a private key"));
        assert!(refused(&[CERTIFICATE, OTHER_KEY]).contains("does not belong"));
        assert!(refused(&[AUTHORITY, CERTIFICATE, KEY]).contains("does not belong"), "the first is the client's");
        assert!(refused(&["hello"]).contains("must have a certificate"));
    }
}
