//! Files for connections to an `https` server: certificate authorities, and the client's own certificate.

use std::path::Path;

use reqwest::{Certificate, Identity};

/// Files for connections to an `https` server.
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsFiles<'a> {
    /// Certificate authorities, in PEM, that are trusted besides those that the system trusts.
    pub authorities: Option<&'a Path>,
    /// Certificate of the client with its private key, in PEM.
    pub certificate: Option<&'a Path>,
}

/// Reason why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {reason} ({flag})")]
pub struct TlsFileError {
    file: String,
    reason: String,
    /// Flag that names the file.
    flag: &'static str,
}

impl TlsFileError {
    fn new(path: &Path, flag: &'static str, reason: &dyn ToString) -> Self {
        Self { file: path.display().to_string(), reason: reason.to_string(), flag }
    }
}

pub(super) fn read_authorities(path: &Path) -> Result<Vec<Certificate>, TlsFileError> {
    let failed = |reason: &dyn ToString| TlsFileError::new(path, "--ca-file", reason);
    let pem = std::fs::read(path).map_err(|error| failed(&error))?;
    let authorities = Certificate::from_pem_bundle(&pem).map_err(|error| failed(&error))?;
    if authorities.is_empty() {
        return Err(failed(&"it has no certificate in PEM"));
    }
    Ok(authorities)
}

pub(super) fn read_identity(path: &Path) -> Result<Identity, TlsFileError> {
    let failed = |reason: &dyn ToString| TlsFileError::new(path, "--client-cert", reason);
    let pem = std::fs::read(path).map_err(|error| failed(&error))?;
    // The reader's own message could show a part of the key.
    Identity::from_pem(&pem).map_err(|_| failed(&"it has no certificate with its private key in PEM"))
}
