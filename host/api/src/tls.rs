//! TLS of the server's ports: its certificate, which can be replaced while the server runs, and the handshake with a client.
//!
//! Invariants: a certificate is used only with the key that belongs to it, and a key only if nobody but its owner can read its file. A pair that
//! cannot be used leaves the one before in use.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::response::IntoResponse as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

use super::error::Problem;
use super::socket::{Sent, Socket};

/// Protocols that are negotiated (ALPN), the preferred one first.
const HTTP_2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// Permissions of others than the owner.
const NOT_OWNER: u32 = 0o077;

/// Type of a record that begins a handshake (RFC 8446, section 5.1). No method of HTTP begins with it.
const HANDSHAKE_RECORD: u8 = 22;

/// Files with the server's certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// Certificate, and those that lead to an authority.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Authorities of clients' certificates; none is requested without them.
    pub client_authorities: Option<PathBuf>,
}

/// Certificate of the server's ports.
pub struct ServerTls {
    files: CertificateFiles,
    acceptor: RwLock<TlsAcceptor>,
    last: Mutex<Last>,
}

/// What the files held when they were last read.
struct Last {
    digest: Option<[u8; 32]>,
    /// Why they could not be used.
    failure: Option<String>,
}

/// Why the files are read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadTrigger {
    /// It is time to look; what was reported is not reported again.
    Period,
    /// A person, or a program, has said so.
    Signal,
}

/// What became of reading the files again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    /// There is nothing to report.
    Unchanged,
    /// The new certificate is in use.
    Replaced,
    /// The previous certificate stays in use, for this reason.
    Failed(String),
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, if others than its owner can read the key, or if the two do not belong together.
    pub fn load(files: CertificateFiles) -> anyhow::Result<Self> {
        let (contents, acceptor) = read(&files).and_then(|contents| {
            let acceptor = acceptor(&files, &contents)?;
            Ok((contents, acceptor))
        })?;
        let last = Last { digest: Some(contents.digest()), failure: None };
        Ok(Self { files, acceptor: RwLock::new(acceptor), last: Mutex::new(last) })
    }

    /// Reads the files again, and uses what they hold if it has changed.
    pub fn reload(&self, trigger: ReloadTrigger) -> Reload {
        let mut last = self.last();
        let replaced = read(&self.files).and_then(|contents| {
            let digest = contents.digest();
            if last.digest == Some(digest) && trigger == ReloadTrigger::Period {
                return Ok(None);
            }
            last.digest = Some(digest);
            acceptor(&self.files, &contents).map(Some)
        });
        match replaced {
            Ok(None) => Reload::Unchanged,
            Ok(Some(acceptor)) => {
                last.failure = None;
                *self.acceptor.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
                Reload::Replaced
            }
            Err(error) => {
                let failure = format!("{error:#}");
                if last.failure.as_ref() == Some(&failure) && trigger == ReloadTrigger::Period {
                    return Reload::Unchanged;
                }
                last.failure = Some(failure.clone());
                Reload::Failed(failure)
            }
        }
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Agrees on TLS with a client; returns `None` if it has closed the connection, or speaks HTTP without TLS and was told so.
    pub(super) async fn accept(&self, stream: TcpStream, write_timeout: Duration) -> io::Result<Option<Handshake>> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Ok(None);
        }
        if first[0] != HANDSHAKE_RECORD {
            if first[0].is_ascii_uppercase() {
                refuse_http(stream).await?;
            }
            return Ok(None);
        }
        let acceptor = self.acceptor.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (socket, sent) = Socket::new(stream, write_timeout);
        let stream = Box::new(acceptor.accept(socket).await?);
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP_2);
        Ok(Some(Handshake { stream, sent, is_http2 }))
    }
}

/// A handshake that is done.
pub(super) struct Handshake {
    pub(super) stream: Box<TlsStream<Socket>>,
    pub(super) sent: Arc<Sent>,
    pub(super) is_http2: bool,
}

/// Tells a client that the port has TLS. What else it sends is read, so that it sees that.
async fn refuse_http(mut stream: TcpStream) -> io::Result<()> {
    let response =
        Problem::malformed(None, "this port serves HTTPS: use a URL that begins with `https://`").into_response();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let kind = parts.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        parts.status,
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(())
}

/// Contents of the files.
struct Contents {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    client_authorities: Option<Vec<u8>>,
}

impl Contents {
    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(Sha256::digest(&self.certificate));
        digest.update(Sha256::digest(&*self.key));
        digest.update(self.client_authorities.as_deref().unwrap_or_default());
        digest.finalize().into()
    }
}

fn read(files: &CertificateFiles) -> anyhow::Result<Contents> {
    let certificate =
        std::fs::read(&files.certificate).context("cannot be read").with_context(|| certificate_at(files))?;
    let key = read_key(&files.key).with_context(|| key_at(files))?;
    let client_authorities = files
        .client_authorities
        .as_ref()
        .map(|path| std::fs::read(path).context("cannot be read").with_context(|| authorities_at(path)));
    Ok(Contents { certificate, key, client_authorities: client_authorities.transpose()? })
}

/// Reads a file that must be readable by its owner only.
fn read_key(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let mut file = File::open(path).context("cannot be read")?;
    let mode = file.metadata().context("cannot be read")?.permissions().mode();
    ensure!(
        mode & NOT_OWNER == 0,
        "its group or others have access to it (its mode is {:04o}): run `chmod 600 {}`",
        mode & 0o7777,
        path.display()
    );
    let mut key = Zeroizing::new(Vec::new());
    file.read_to_end(&mut key).context("cannot be read")?;
    Ok(key)
}

fn acceptor(files: &CertificateFiles, contents: &Contents) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_slice_iter(&contents.certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.context("is not in PEM").with_context(|| certificate_at(files))?;
    ensure!(!chain.is_empty(), "{}: it has no certificate in PEM", certificate_at(files));
    let key = PrivateKeyDer::from_pem_slice(&contents.key)
        .context("has no private key in PEM")
        .with_context(|| key_at(files))?;
    let builder = ServerConfig::builder();
    let builder = match files.client_authorities.as_deref().zip(contents.client_authorities.as_deref()) {
        Some((path, pem)) => {
            builder.with_client_cert_verifier(client_verifier(pem).with_context(|| authorities_at(path))?)
        }
        None => builder.with_no_client_auth(),
    };
    let config = builder.with_single_cert(chain, key);
    let mut config =
        config.with_context(|| format!("{} and {} cannot be used together", certificate_at(files), key_at(files)))?;
    config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1_1.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn client_verifier(pem: &[u8]) -> anyhow::Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(pem) {
        roots.add(authority.context("is not in PEM")?).context("has an unusable certificate")?;
    }
    ensure!(!roots.is_empty(), "has no certificate in PEM");
    Ok(WebPkiClientVerifier::builder(Arc::new(roots)).build()?)
}

fn authorities_at(path: &Path) -> String {
    format!("`server.client_ca` ({})", path.display())
}

fn certificate_at(files: &CertificateFiles) -> String {
    format!("`server.tls_cert` ({})", files.certificate.display())
}

fn key_at(files: &CertificateFiles) -> String {
    format!("`server.tls_key` ({})", files.key.display())
}
