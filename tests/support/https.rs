//! Certificates of `tests/tls`: `server` is for `localhost` and by the authority `ca`; `other`, also for `localhost`, and `client`, for a client, are by
//! `other-ca`. Nobody else knows these authorities.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::repository;

/// A file of `tests/tls`.
pub fn tls_file(name: &str) -> PathBuf {
    repository().join("tests/tls").join(name)
}

/// Puts a certificate and its key into a directory, in place of those that are there; returns the names of the files. Only their owner can read
/// the key.
pub fn put_certificate(dir: &Path, name: &str) -> (String, String) {
    let put = |to: &str, from: &str| {
        let (draft, path) = (dir.join("draft"), dir.join(to));
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).unwrap();
        std::io::Write::write_all(&mut file, &std::fs::read(tls_file(from)).unwrap()).unwrap();
        std::fs::rename(&draft, &path).unwrap();
        path.display().to_string()
    };
    (put("cert.pem", &format!("{name}.pem")), put("cert.key", &format!("{name}.key")))
}

/// A client that trusts one authority of `tests/tls`, and no other.
pub fn trusting(authority: &str) -> reqwest::ClientBuilder {
    // Another test of this process may have installed it already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let authority = reqwest::Certificate::from_pem(&std::fs::read(tls_file(authority)).unwrap()).unwrap();
    reqwest::Client::builder().no_proxy().tls_certs_only([authority])
}
