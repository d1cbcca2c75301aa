//! Reading what clients send: JSON with a pointer to what is wrong.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_ENCODING;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::auth::Standing;
use super::error::Problem;
pub use super::query::Query;
use carillon_core::json::{Unreadable, read_object};
pub use carillon_engine::intake::time::{is_relative, run_at, time};

/// A body of JSON, whatever its content type says.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = read(request, state).await?;
        parse(&bytes).map(Self)
    }
}

/// A body of JSON that may be left out, which is an empty object.
pub struct OptionalBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = read(request, state).await?;
        parse(if bytes.is_empty() { b"{}" } else { &bytes }).map(Self)
    }
}

/// The variable parts of a route's path.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(|_| Problem::malformed(None, "a part of the path is not UTF-8 text"))
    }
}

/// The bytes of a body.
///
/// # Errors
/// If it is too large or breaks off, or if the client's token is no longer good when it is there.
pub async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    // What is packed could be as large as anybody likes.
    if let Some(encoding) = request.headers().get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        return Err(Problem::encoded(&String::from_utf8_lossy(encoding.as_bytes())));
    }
    let standing = request.extensions().get::<Standing>().cloned();
    let read =
        Bytes::from_request(request, state).await.map_err(|rejection: BytesRejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large("the body is larger than `server.body_limit` allows"),
            _ => Problem::malformed(None, "the body ended before it was complete"),
        })?;
    // A client can take long to send a body, and lose its rights meanwhile.
    if let Some(standing) = standing {
        standing.check()?;
    }
    Ok(read)
}

/// Reads a JSON object.
///
/// # Errors
/// With a pointer to what cannot be read.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    read_object(bytes).map_err(|Unreadable { pointer, message }| Problem::malformed(Some(pointer), message))
}
