//! TLS of deliveries: the certificate authorities of the system and those of `delivery.ca_file`, the protocols, and the client's certificate.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// Protocols that are negotiated (ALPN).
pub(super) const HTTP_2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// Settings of handshakes with receivers.
pub(super) struct ReceiverTls {
    /// Settings of those without a client certificate.
    anonymous: Arc<ClientConfig>,
}

impl ReceiverTls {
    /// Makes the settings, which also trust the authorities in the file `ca_file`, and offer HTTP/2 if `http2` says so.
    ///
    /// # Errors
    /// Returns the reason for which the file cannot be used.
    pub(super) fn new(ca_file: Option<&Path>, http2: bool) -> anyhow::Result<Self> {
        let mut config = ClientConfig::builder().with_root_certificates(roots(ca_file)?).with_no_client_auth();
        let protocols = [HTTP_2, HTTP_1_1].into_iter().skip(usize::from(!http2));
        config.alpn_protocols = protocols.map(<[u8]>::to_vec).collect();
        Ok(Self { anonymous: Arc::new(config) })
    }

    /// Returns the connector for a client with this certificate, if it has one.
    ///
    /// Sessions of clients with certificates are not resumed: a session that another certificate began would keep its identity.
    pub(super) fn connector(&self, identity: Option<Arc<CertifiedKey>>) -> TlsConnector {
        let Some(identity) = identity else { return TlsConnector::from(Arc::clone(&self.anonymous)) };
        let mut config = ClientConfig::clone(&self.anonymous);
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(identity));
        config.resumption = Resumption::disabled();
        TlsConnector::from(Arc::new(config))
    }
}

fn roots(ca_file: Option<&Path>) -> anyhow::Result<RootCertStore> {
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
    Ok(roots)
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> anyhow::Result<()> {
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path).context("cannot be read as PEM")? {
        roots.add(certificate.context("cannot be read as PEM")?).context("has an unusable certificate")?;
    }
    anyhow::ensure!(roots.len() > before, "has no certificate in PEM form");
    Ok(())
}
