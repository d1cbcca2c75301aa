//! Signatures of uploads, for tenants that accept signed plugins only.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, EncodePublicKey as _};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::json;
use zeroize::Zeroizing;

use super::super::Session;
use carillon_core::clock::{Clock as _, SystemClock};

#[derive(Debug, Args)]
pub struct Keygen {
    /// File for the private key; it must not exist, and only its owner can read it.
    file: PathBuf,
}

impl Keygen {
    pub(super) fn run(self, session: &Session) -> anyhow::Result<()> {
        let mut seed = Zeroizing::new([0; 32]);
        SystemClock.fill_random(&mut *seed);
        let key = SigningKey::from_bytes(&seed);
        let private = key.to_pkcs8_pem(LineEnding::LF).context("the key cannot be written as PEM")?;
        let public =
            key.verifying_key().to_public_key_pem(LineEnding::LF).context("the key cannot be written as PEM")?;
        let cannot = || format!("{} cannot be written", self.file.display());
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.file).with_context(cannot)?;
        file.write_all(private.as_bytes()).and_then(|()| file.sync_all()).with_context(cannot)?;
        if session.out.is_json() {
            session.out.answer(&json!({ "public_key": public }))
        } else {
            public.lines().try_for_each(|line| session.out.line(line))
        }
    }
}

/// Signs a component with the private key in `file`; returns the signature in base64.
pub(super) fn sign(file: &Path, component: &[u8]) -> anyhow::Result<String> {
    let cannot = || format!("{} cannot be read", file.display());
    let pem = Zeroizing::new(std::fs::read_to_string(file).with_context(cannot)?);
    let key = SigningKey::from_pkcs8_pem(&pem).with_context(|| {
        let genpkey = "`openssl genpkey -algorithm ed25519`";
        format!(
            "{} is not an Ed25519 private key in PEM; create one with `carillon plugin keygen` or {genpkey}",
            file.display()
        )
    })?;
    Ok(STANDARD.encode(key.sign(component).to_bytes()))
}
