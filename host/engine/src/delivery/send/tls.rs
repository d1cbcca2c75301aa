//! TLS trust of deliveries: the certificate authorities of the system, and those of `delivery.ca_file`.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// Protocol that is negotiated (ALPN).
const HTTP_1_1: &[u8] = b"http/1.1";

/// Returns the TLS connector for deliveries, which also trusts the authorities in the file `ca_file`.
///
/// # Errors
/// Returns the reason for which the file cannot be used.
pub(super) fn connector(ca_file: Option<&Path>) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "reading a system certificate failed");
    }
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = ca_file {
        add_file(&mut roots, path).with_context(|| format!("`delivery.ca_file` ({})", path.display()))?;
    }
    if roots.is_empty() {
        tracing::warn!("no certificate authority found; deliveries over https will fail");
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> anyhow::Result<()> {
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path).context("cannot be read as PEM")? {
        roots.add(certificate.context("cannot be read as PEM")?).context("has an unusable certificate")?;
    }
    anyhow::ensure!(roots.len() > before, "has no certificate in PEM form");
    Ok(())
}
