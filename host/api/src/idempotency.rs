//! `Idempotency-Key`: a request that makes jobs is carried out once, however often a client that got no answer sends it again.
//!
//! Every other request by `POST` that comes with such a key is refused: its client would believe that it can be sent again. A `PUT`, a `PATCH`
//! and a `DELETE` come to the same when they are sent again, with or without a key.
//!
//! The answer is stored in the transaction that stores the jobs, so there is no moment in which only one of them is there. A
//! repetition with the same body and path gets it again, with the header `Idempotency-Replayed: true`; with another body or path, 409.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::error::Problem;
use super::input::{off_thread, parse_body, read};
use carillon_core::clock::UnixMs;
use carillon_core::job::TenantId;
use carillon_store::{IdempotentRequest, InsertOutcome, StoreError};

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(24 * 3_600);

/// The header, in the form in which headers are looked up.
const HEADER: &str = "idempotency-key";

/// The longest key, in bytes.
const KEY_LEN: usize = 255;

/// A body of JSON, with what makes its request the same as another one.
pub struct Idempotent<T> {
    /// The body.
    pub doc: T,
    /// The client's key, if it gave one.
    pub key: Option<Key>,
}

/// A client's key, with the digest of the request that it belongs to.
#[derive(Clone)]
pub struct Key {
    key: String,
    fingerprint: String,
}

impl<T: DeserializeOwned + Send + 'static, S: Send + Sync> FromRequest<S> for Idempotent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let key = key_of(request.headers())?;
        let path = request.uri().path().to_owned();
        let body = read(request).await?;
        let doc = parse_body(body.clone()).await?;
        let key = off_thread(body.len(), move || key.map(|key| Key::new(key, &path, &body))).await?;
        Ok(Self { doc, key })
    }
}

/// The key of a request whose body says nothing.
pub struct Keyed(pub Option<Key>);

impl<S: Send + Sync> FromRequest<S> for Keyed {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let key = key_of(request.headers())?;
        let path = request.uri().path().to_owned();
        let body = read(request).await?;
        Ok(Self(key.map(|key| Key::new(key, &path, &body))))
    }
}

/// The routes that carry out a request with a key once.
const ROUTES: [&str; 4] = [
    "/v1/groups/{group}/jobs",
    "/v1/groups/{group}/jobs/batch",
    "/v1/schedules/{schedule}/run",
    "/v1/schedules/{schedule}/backfill",
];

/// Refuses a key where it would not be looked at.
pub(super) fn refuse_elsewhere(request: &Request) -> Result<(), Problem> {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if ROUTES.contains(&route) { Ok(()) } else { refuse(request.method(), request.headers()) }
}

/// Refuses a key that a request by this method has.
///
/// # Errors
/// If it has one, and could be carried out twice.
pub fn refuse(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    if *method != Method::POST || !headers.contains_key(HEADER) {
        return Ok(());
    }
    let detail = "`Idempotency-Key` is not supported by this route, which would do its work again each time: send the request without the header";
    Err(Problem::malformed(None, detail))
}

fn key_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(HEADER).iter();
    let (value, other) = (values.next(), values.next());
    let Some(value) = value else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| other.is_none() && (1..=KEY_LEN).contains(&text.len()));
    let detail = format!("`Idempotency-Key` must be given once, with 1 to {KEY_LEN} visible ASCII characters");
    text.map(|text| Some(text.to_owned())).ok_or_else(|| Problem::malformed(None, detail))
}

impl Key {
    fn new(key: String, path: &str, body: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(path.as_bytes()).chain_update([0]).chain_update(body).finalize();
        Self { key, fingerprint: hex::encode(digest) }
    }

    /// What the store needs to carry the request out once.
    pub fn once(
        self,
        tenant: TenantId,
        now: UnixMs,
        answer: impl Fn(&[InsertOutcome]) -> String + Send + Sync + 'static,
    ) -> IdempotentRequest {
        let Self { key, fingerprint } = self;
        IdempotentRequest { tenant, key, fingerprint, now, expires_at: now.plus(KEPT), answer: Arc::new(answer) }
    }
}

/// An answer that can be kept.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    status: u16,
    body: Box<RawValue>,
}

impl Answer {
    /// With a body of JSON.
    pub fn new(status: StatusCode, body: &impl Serialize) -> Self {
        #[expect(clippy::expect_used, reason = "views have string keys only, so they are JSON")]
        let body = serde_json::value::to_raw_value(body).expect("a view is JSON");
        Self { status: status.as_u16(), body }
    }

    /// The answer that was kept.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn replay(kept: &str) -> Result<Response, Problem> {
        let answer: Self = serde_json::from_str(kept).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let mut response = answer.into_response();
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
        Ok(response)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let json = HeaderValue::from_static("application/json");
        (status, [(header::CONTENT_TYPE, json)], self.body.get().to_owned()).into_response()
    }
}
