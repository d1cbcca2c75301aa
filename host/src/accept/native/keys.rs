//! Keys: written, never read.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::super::Api;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{Body, Path, Query};
use super::{Page, Paging};
use crate::catalog::Key;
use crate::policy::KeyKind;

/// A key's value. One of `secret` and `secret_base64`.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyDoc {
    /// As text: its UTF-8 bytes are the secret.
    secret: Option<String>,
    /// As base64: any bytes. An `ed25519` key is its 32 byte seed.
    secret_base64: Option<String>,
    /// `secret` (for HMAC) by default; `ed25519` signs, too; a `header` goes out under a group's `auth_headers`.
    kind: Option<KeyKind>,
}

/// What is shown of a key.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct KeyView {
    name: String,
    version: i64,
    kind: KeyKind,
    created_at: String,
    updated_at: String,
    /// False if the server's master key is not the one that it was encrypted under.
    usable: bool,
}

impl From<Arc<Key>> for KeyView {
    fn from(key: Arc<Key>) -> Self {
        Self {
            name: key.name.clone(),
            version: key.version,
            kind: key.kind,
            created_at: key.created_at.to_string(),
            updated_at: key.updated_at.to_string(),
            usable: key.material.is_some(),
        }
    }
}

/// Makes a key or gives it a new value.
#[utoipa::path(put, path = "/v1/keys/{key}", tag = "keys", request_body = KeyDoc,
    responses((status = 204), (status = "4XX", body = Problem)))]
pub(in super::super) async fn put(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Body(doc): Body<KeyDoc>,
) -> Result<StatusCode, Problem> {
    let secret = match (doc.secret, doc.secret_base64) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(text)) => STANDARD
            .decode(&text)
            .map_err(|_| Problem::invalid("/secret_base64", "not base64 (standard alphabet, padded)"))?,
        _ => return Err(Problem::invalid("/secret", "give one of `secret` and `secret_base64`")),
    };
    if secret.is_empty() {
        return Err(Problem::invalid("/secret", "an empty secret protects nothing"));
    }
    let kind = doc.kind.unwrap_or(KeyKind::Secret);
    api.catalog.put_key(access.tenant.id, &name, kind, Zeroizing::new(secret)).await?;
    api.wake.here();
    Ok(StatusCode::NO_CONTENT)
}

/// Shows what is not secret of a key.
#[utoipa::path(get, path = "/v1/keys/{key}", tag = "keys",
    responses((status = 200, body = KeyView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn get(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<Json<KeyView>, Problem> {
    let key = api.catalog.key(access.tenant.id, &name).ok_or_else(|| Problem::unknown("key", &name))?;
    Ok(Json(key.into()))
}

/// Lists the tenant's keys by name.
#[utoipa::path(get, path = "/v1/keys", tag = "keys", params(Paging),
    responses((status = 200, body = Page<KeyView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<KeyView>>, Problem> {
    let keys = api.catalog.keys(access.tenant.id).into_iter().map(KeyView::from).collect();
    Ok(Json(Page::of_sorted(keys, &paging, |key: &KeyView| key.name.clone())?))
}

/// Removes a key. Refused while a group uses it.
#[utoipa::path(delete, path = "/v1/keys/{key}", tag = "keys", responses((status = 204), (status = "4XX", body = Problem)))]
pub(in super::super) async fn delete(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    if api.catalog.delete_key(access.tenant.id, &name).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::unknown("key", &name))
}
