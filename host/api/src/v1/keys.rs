//! Keys: written, never read.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

use super::super::ApiState;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{Body, Path, Query};
use super::{Page, Paging, removed};
use carillon_catalog::{Key, KeyGrants, KeyValue, KeyVersion, Overlap};
use carillon_config::{TenantKey, TenantKeyKind};
use carillon_core::clock::UnixMs;
use carillon_policy::KeyKind;
use carillon_policy::binding::parse_period;

/// The standard alphabet; padding is welcome.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How Standard Webhooks begins a key in base64, and which kind that is. `_` is in no base64 of the standard alphabet.
const SERIALIZED: [(&str, KeyKind); 2] = [("whsec_", KeyKind::Secret), ("whsk_", KeyKind::Ed25519)];

/// How it begins a public key.
const SERIALIZED_PUBLIC: &str = "whpk_";

/// What is in each text in PEM.
const PEM: &str = "-----BEGIN";

/// The overlap that has no end of its own.
const UNTIL_REMOVED: &str = "until-removed";

/// Value of a key: exactly one of `secret` and `secret_base64`.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyInput {
    /// Secret as text; its UTF-8 bytes are the secret. An `ed25519` key may be in PEM (PKCS #8), as `openssl genpkey -algorithm ed25519` writes
    /// it.
    secret: Option<String>,
    /// Secret in base64, for any bytes. An `ed25519` key is its seed of 32 bytes, which the public key may follow. The prefixes `whsec_` and
    /// `whsk_` of Standard Webhooks are accepted, and determine the kind.
    secret_base64: Option<String>,
    /// Kind: `secret` (the default) signs with HMAC, `ed25519` signs with Ed25519, `header` is sent as the value of one of a group's
    /// `auth_headers`, and `tls-client` is a client certificate for receivers (a group's `tls`): the certificate, those that lead to an authority,
    /// and the private key, all in PEM.
    kind: Option<KeyKind>,
    /// Names of the groups that may use the key from now on; they need not exist yet. Default: the grants stay as they are, and a new key is
    /// granted to all groups.
    groups: Option<Vec<String>>,
    /// Origins such as `https://hooks.example:8443` to which requests may go that the key signs, or that carry it. Default: they stay as they
    /// are, and a new key may go to all origins.
    origins: Option<Vec<String>>,
    /// How long the present versions of the key keep signing, after the new one: a duration such as `24h`, or `until-removed`. Default: they
    /// end at once.
    overlap: Option<String>,
}

impl KeyInput {
    /// A key of the configuration, whose secret was read.
    #[must_use]
    pub fn of_configuration(key: &TenantKey) -> Self {
        let secret = Some(key.secret.to_string());
        let (secret, secret_base64) = if key.base64 { (None, secret) } else { (secret, None) };
        let kind = key.kind.map(|kind| match kind {
            TenantKeyKind::Secret => KeyKind::Secret,
            TenantKeyKind::Ed25519 => KeyKind::Ed25519,
            TenantKeyKind::Header => KeyKind::Header,
            TenantKeyKind::TlsClient => KeyKind::TlsClient,
        });
        let (groups, origins, overlap) = (key.groups.clone(), key.origins.clone(), key.overlap.clone());
        Self { secret, secret_base64, kind, groups, origins, overlap }
    }

    /// The value to put.
    ///
    /// # Errors
    /// Returns a problem that points at the member whose value is not possible.
    pub fn value(self) -> Result<KeyValue, Problem> {
        let (secret, kind) = self.secret()?;
        let overlap = self.overlap()?;
        Ok(KeyValue { kind, secret, overlap, groups: self.groups, origins: self.origins, is_declared: false })
    }

    /// The value and its kind.
    fn secret(&self) -> Result<(Zeroizing<Vec<u8>>, KeyKind), Problem> {
        let (secret, kind) = match (&self.secret, &self.secret_base64) {
            (Some(text), None) if self.kind == Some(KeyKind::Ed25519) && text.contains(PEM) => (seed_of(text)?, None),
            (Some(text), None) => (text.clone().into_bytes(), None),
            (None, Some(text)) => decoded(text)?,
            _ => return Err(Problem::invalid("/secret", "exactly one of `secret` and `secret_base64` is required")),
        };
        if secret.is_empty() {
            return Err(Problem::invalid("/secret", "`secret` must not be empty"));
        }
        match (self.kind, kind) {
            (Some(said), Some(is)) if said != is => {
                Err(Problem::invalid("/kind", "`kind` contradicts the prefix of `secret_base64`"))
            }
            (said, is) => Ok((Zeroizing::new(secret), said.or(is).unwrap_or(KeyKind::Secret))),
        }
    }

    fn overlap(&self) -> Result<Option<Overlap>, Problem> {
        Ok(match self.overlap.as_deref() {
            None => None,
            Some(UNTIL_REMOVED) => Some(Overlap::UntilRemoved),
            Some(text) => Some(Overlap::For(parse_period("/overlap", text)?)),
        })
    }
}

/// The seed in a private key in PEM.
fn seed_of(pem: &str) -> Result<Vec<u8>, Problem> {
    let key = SigningKey::from_pkcs8_pem(pem.trim());
    let message = "`secret` is not an Ed25519 private key in PEM, as `openssl genpkey -algorithm ed25519` writes it";
    Ok(key.map_err(|_| Problem::invalid("/secret", message))?.to_bytes().to_vec())
}

/// What base64 says, and the kind that it says in front.
fn decoded(text: &str) -> Result<(Vec<u8>, Option<KeyKind>), Problem> {
    let invalid = |message: &str| Problem::invalid("/secret_base64", message);
    if text.starts_with(SERIALIZED_PUBLIC) {
        return Err(invalid("`secret_base64` is a public key, which cannot sign; a private key begins with `whsk_`"));
    }
    let known = SERIALIZED.into_iter().find_map(|(prefix, kind)| Some((text.strip_prefix(prefix)?, Some(kind))));
    let (text, kind) = known.unwrap_or((text, None));
    let secret = BASE64.decode(text).map_err(|_| invalid("`secret_base64` is not base64 (standard alphabet)"))?;
    Ok((secret, kind))
}

/// Key, without its secret.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct KeyView {
    /// Name of the key.
    name: String,
    /// Number of the newest version. `kind` and `usable` are about the same version.
    version: i64,
    /// Kind of the key.
    kind: KeyKind,
    /// Time of its creation.
    #[schema(format = DateTime)]
    created_at: String,
    /// Time of its last change.
    #[schema(format = DateTime)]
    updated_at: String,
    /// Whether the key can be decrypted; false if it was encrypted under another master key.
    usable: bool,
    /// Names of the groups that may use the key; null if all may.
    groups: Option<Vec<String>>,
    /// Origins to which requests may go that the key signs, or that carry it; null if it may go to all.
    origins: Option<Vec<String>>,
    /// Versions that have not expired, newest first. With more than one, the key is being rotated.
    versions: Vec<KeyVersionView>,
}

/// Version of a key, without its secret.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct KeyVersionView {
    /// Number of the version.
    version: i64,
    /// Kind of the version.
    kind: KeyKind,
    /// Time of its creation.
    #[schema(format = DateTime)]
    created_at: String,
    /// Expiry; null for the newest version, and for those that stay until they are removed.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// Whether the version can be decrypted; false if it was encrypted under another master key.
    usable: bool,
    /// Public key in base64, which verifies the signatures of an `ed25519` key; null for other kinds.
    public_key: Option<String>,
}

impl KeyView {
    fn new(key: &Key, now: UnixMs) -> Self {
        Self {
            name: key.name.clone(),
            version: key.newest.number,
            kind: key.newest.kind,
            created_at: key.created_at.to_string(),
            updated_at: key.updated_at.to_string(),
            usable: key.newest.material.is_some(),
            groups: key.groups.clone(),
            origins: key.origins.as_ref().map(|origins| origins.texts().to_vec()),
            versions: key.live(now).map(KeyVersionView::from).collect(),
        }
    }
}

impl From<&KeyVersion> for KeyVersionView {
    fn from(version: &KeyVersion) -> Self {
        Self {
            version: version.number,
            kind: version.kind,
            created_at: version.created_at.to_string(),
            expires_at: version.expires_at.map(|end| end.to_string()),
            usable: version.material.is_some(),
            public_key: version.material.as_ref().and_then(|it| it.public_key()).map(|key| STANDARD.encode(key)),
        }
    }
}

/// Warnings about a key that was put.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct PutKeyView {
    /// Warnings, such as a key of the kind `header` without `origins`.
    warnings: Vec<String>,
}

/// Makes a key, or gives it a new version, which signs first. `overlap` determines how long the present versions stay valid. The response has
/// content if there are warnings.
#[utoipa::path(put, path = "/v1/keys/{key}", operation_id = "keys_put", tag = "keys", request_body = KeyInput,
    responses((status = 200, body = PutKeyView), (status = 204), (status = "4XX", body = Problem)))]
pub(in super::super) async fn put(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Body(doc): Body<KeyInput>,
) -> Result<Response, Problem> {
    api.services.catalog.put_key(access.tenant.id, &name, doc.value()?, &access.origin()).await?;
    api.services.notifier.notify_local();
    let warnings = api.services.catalog.key(access.tenant.id, &name).map(|key| key.warnings()).unwrap_or_default();
    if warnings.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(Json(PutKeyView { warnings }).into_response())
}

/// Where a key may be used: at least one of the two members.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyPatch {
    /// Names of the groups that may use the key, and no others; null for all groups. Default: they stay as they are.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>)]
    groups: Option<Option<Vec<String>>>,
    /// Origins to which requests may go that the key signs, or that carry it, and no others; null for all origins. Default: they stay as they
    /// are.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>)]
    origins: Option<Option<Vec<String>>>,
}

/// Reads a member whose value may be null, which is not the same as its absence.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Vec<String>>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Grants a key to some groups, or to all, and bounds it to origins. The response is 409 if a group uses the key and would lose it.
#[utoipa::path(patch, path = "/v1/keys/{key}", operation_id = "keys_grant", tag = "keys", request_body = KeyPatch,
    responses((status = 200, body = KeyView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn grant(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Body(patch): Body<KeyPatch>,
) -> Result<Json<KeyView>, Problem> {
    let key = api.services.catalog.key(access.tenant.id, &name).ok_or_else(|| Problem::unknown("key", &name))?;
    let KeyPatch { groups, origins } = patch;
    if groups.is_none() && origins.is_none() {
        return Err(Problem::malformed(None, "`groups` or `origins` is required"));
    }
    let grants = KeyGrants { groups, origins };
    api.services.catalog.grant_key(access.tenant.id, &key, grants, &access.origin()).await?;
    api.services.notifier.notify_local();
    get(State(api), Extension(access), Path(name)).await
}

/// Shows a key, without its secret.
#[utoipa::path(get, path = "/v1/keys/{key}", operation_id = "keys_get", tag = "keys",
    responses((status = 200, body = KeyView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn get(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<Json<KeyView>, Problem> {
    let key = api.services.catalog.key(access.tenant.id, &name).ok_or_else(|| Problem::unknown("key", &name))?;
    Ok(Json(KeyView::new(&key, api.services.clock.now())))
}

/// Lists the tenant's keys by name.
#[utoipa::path(get, path = "/v1/keys", operation_id = "keys_list", tag = "keys", params(Paging),
    responses((status = 200, body = Page<KeyView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<KeyView>>, Problem> {
    let now = api.services.clock.now();
    let keys = api.services.catalog.keys(access.tenant.id).iter().map(|key| KeyView::new(key, now)).collect();
    Ok(Json(Page::of_sorted(keys, &paging, |key: &KeyView| key.name.clone())?.within(api.config.limits.answer)))
}

/// Removes a key. The response is 409 while a group uses it.
#[utoipa::path(delete, path = "/v1/keys/{key}", operation_id = "keys_delete", tag = "keys", responses((status = 204), (status = "4XX", body = Problem)))]
pub(in super::super) async fn delete(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    removed(api.services.catalog.delete_key(access.tenant.id, &name, &access.origin()).await?, "key", &name)
}

/// Removes a version of a key. If it is the newest, the version before it becomes the newest. The only version cannot be removed.
#[utoipa::path(delete, path = "/v1/keys/{key}/versions/{version}", operation_id = "key_versions_delete", tag = "keys",
    responses((status = 204), (status = "4XX", body = Problem)))]
pub(in super::super) async fn delete_version(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Path((name, version)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let key = api.services.catalog.key(access.tenant.id, &name).ok_or_else(|| Problem::unknown("key", &name))?;
    if let Ok(number) = version.parse()
        && api.services.catalog.delete_key_version(access.tenant.id, &key, number, &access.origin()).await?
    {
        api.services.notifier.notify_local();
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::unknown("version", &format!("{name}/{version}")))
}
