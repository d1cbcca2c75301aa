//! Components in OCI registries, in the CNCF's layout of Wasm artefacts, so that `wkg` and other tools can read them.
//!
//! An artefact is a manifest with a config of the type `application/vnd.wasm.config.v0+json` and one layer, the component. A pushed artefact
//! follows from the component alone, so that pushing it again changes nothing. A pulled artefact is not trusted: the manifest and the
//! component must have the digests by which they were requested, and the announced size.
//!
//! <https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/>

mod credentials;
mod docker_config;
mod login;
mod reference;
mod registry;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wasmparser::Parser;

pub(super) use self::login::Login;
pub(super) use self::reference::Reference;

use self::registry::Registry;
use super::anatomy::Anatomy;
use carillon_policy::Digest;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const LAYER: &str = "application/wasm";

/// Time of creation, which the layout requires. It never changes, so that the same component is the same artefact.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// Maximum size of a component that is pulled, in bytes.
const COMPONENT_LIMIT: u64 = 256 << 20;

/// Version of the schema of manifests.
const SCHEMA_VERSION: u32 = 2;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// Reference to a part of the artefact.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

impl Descriptor {
    fn new(media_type: &str, bytes: &[u8]) -> Self {
        Self { media_type: media_type.to_owned(), digest: digest(bytes), size: bytes.len() as u64 }
    }
}

/// Returns a digest in the form of registries.
fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", Digest::from_bytes(bytes))
}

/// Uploads a component.
pub(super) async fn push(reference: &Reference, login: &Login, component: Vec<u8>) -> anyhow::Result<Value> {
    ensure!(Parser::is_component(&component), "this is not a WebAssembly component; `carillon plugin build` makes one");
    let Some(tag) = reference.tag() else {
        bail!("a tag is required: oci://{}/{}:TAG", reference.host, reference.repository)
    };
    let config = config(&component);
    let manifest = Manifest {
        schema_version: SCHEMA_VERSION,
        media_type: Some(MANIFEST.to_owned()),
        config: Descriptor::new(CONFIG, &config),
        layers: vec![Descriptor::new(LAYER, &component)],
    };
    let manifest = serde_json::to_vec(&manifest)?;
    let shown = shown(reference, &manifest, &component);
    let mut registry = Registry::new(reference, login)?;
    registry.put_blob(component).await?;
    registry.put_blob(config).await?;
    registry.put_manifest(tag, MANIFEST, manifest).await?;
    Ok(shown)
}

/// Downloads a component; returns it with a record for the output.
pub(super) async fn pull(reference: &Reference, login: &Login) -> anyhow::Result<(Vec<u8>, Value)> {
    let mut registry = Registry::new(reference, login)?;
    let bytes = registry.manifest(reference.pointer(), MANIFEST).await?;
    let layer = layer(&bytes).with_context(|| format!("{reference} is not a component"))?;
    let component = registry.blob(&layer.digest, layer.size).await?;
    let shown = shown(reference, &bytes, &component);
    Ok((component, shown))
}

fn shown(reference: &Reference, manifest: &[u8], component: &[u8]) -> Value {
    json!({
        "reference": reference.to_string(),
        "manifest": digest(manifest),
        "digest": Digest::from_bytes(component),
        "size": component.len(),
    })
}

/// Returns the config of the layout: facts about the component beside its bytes.
fn config(component: &[u8]) -> Vec<u8> {
    let anatomy = Anatomy::from_component(component);
    let config = json!({
        "created": CREATED,
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [digest(component)],
        "component": { "imports": anatomy.imports, "exports": anatomy.exports },
    });
    config.to_string().into_bytes()
}

/// Returns the only layer of a manifest, if the manifest is one of a component.
fn layer(manifest: &[u8]) -> anyhow::Result<Descriptor> {
    let manifest: Value = serde_json::from_slice(manifest).context("its manifest is not JSON")?;
    if manifest.get("manifests").is_some() {
        bail!("it is an index of several artefacts: select one by its digest");
    }
    let mut manifest: Manifest = serde_json::from_value(manifest).context("its manifest cannot be read")?;
    if manifest.media_type.as_deref().is_some_and(|it| it != MANIFEST) {
        bail!("its manifest has the type `{}`, not `{MANIFEST}`", manifest.media_type.unwrap_or_default());
    }
    let (config, mut layers) = (manifest.config.media_type, std::mem::take(&mut manifest.layers));
    ensure!(config == CONFIG, "its config has the type `{config}`, not `{CONFIG}`");
    let (Some(layer), true) = (layers.pop(), layers.is_empty()) else {
        bail!("it does not have exactly one layer");
    };
    ensure!(layer.media_type == LAYER, "its layer has the type `{}`, not `{LAYER}`", layer.media_type);
    ensure!(layer.size <= COMPONENT_LIMIT, "its layer has {} bytes; at most {COMPONENT_LIMIT} are pulled", layer.size);
    ensure!(reference::is_digest(&layer.digest), "its layer's digest is not a SHA-256");
    Ok(layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_has_one_component() {
        let good = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": Descriptor::new(CONFIG, b"{}"),
            "layers": [Descriptor::new(LAYER, b"x")]});
        let read = |manifest: &Value| layer(manifest.to_string().as_bytes()).map_err(|error| error.to_string());
        assert_eq!(read(&good).unwrap().digest, digest(b"x"));
        for (pointer, value, said) in [
            ("/mediaType", json!("application/vnd.docker.distribution.manifest.v2+json"), "its manifest has the type"),
            ("/config/mediaType", json!("application/vnd.oci.image.config.v1+json"), "its config has the type"),
            ("/layers/0/mediaType", json!("application/vnd.oci.image.layer.v1.tar+gzip"), "its layer has the type"),
            ("/layers", json!([]), "exactly one layer"),
            ("/layers", json!([Descriptor::new(LAYER, b"x"), Descriptor::new(LAYER, b"y")]), "exactly one layer"),
            ("/layers/0/size", json!(COMPONENT_LIMIT + 1), "at most"),
            ("/layers/0/digest", json!("sha256:../../x"), "is not a SHA-256"),
            ("/layers/0", json!({}), "cannot be read"),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).unwrap() = value;
            assert!(read(&bad).unwrap_err().contains(said), "{bad}");
        }
        assert!(read(&json!({"schemaVersion": 2, "manifests": []})).unwrap_err().contains("index"));
        assert!(layer(b"<html>").unwrap_err().to_string().contains("not JSON"));
    }
}
