//! Reading what clients send: JSON with a pointer to what is wrong.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use axum::http::request::Parts;
use bytes::BytesMut;
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;

use super::auth::Standing;
use super::bounds::BodyLimit;
use super::error::Problem;
pub use super::query::Query;
use carillon_core::json::{Unreadable, read_object};
pub use carillon_engine::intake::time::{is_relative, run_at, time};

/// A body of JSON, whatever its content type says.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned + Send + 'static, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        parse_body(read(request).await?).await.map(Self)
    }
}

/// A body of JSON that may be left out, which is an empty object.
pub struct OptionalBody<T>(pub T);

impl<T: DeserializeOwned + Send + 'static, S: Send + Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let bytes = read(request).await?;
        parse_body(if bytes.is_empty() { Bytes::from_static(b"{}") } else { bytes }).await.map(Self)
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
pub async fn read(request: Request) -> Result<Bytes, Problem> {
    // What is packed could be as large as anybody likes.
    if let Some(encoding) = request.headers().get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        return Err(Problem::encoded(&String::from_utf8_lossy(encoding.as_bytes())));
    }
    let limit = *request.extensions().get::<BodyLimit>().ok_or_else(Problem::internal)?;
    let standing = request.extensions().get::<Standing>().cloned();
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
    let mut parts = request.into_body().into_data_stream();
    let (mut body, mut len) = (Buffer::new(declared.filter(|len| *len <= limit.bytes)), 0_usize);
    while let Some(part) = parts.next().await {
        let part = part.map_err(|_| Problem::malformed(None, "the body ended before it was complete"))?;
        len = len.saturating_add(part.len());
        if len <= limit.bytes {
            body.push(&part);
            continue;
        }
        body = Buffer::new(Some(0));
        if len > limit.read {
            break;
        }
    }
    if len > limit.bytes {
        return Err(Problem::large_body(declared.unwrap_or(len).max(len), limit));
    }
    // A client can take long to send a body, and lose its rights meanwhile.
    if let Some(standing) = standing {
        standing.check()?;
    }
    Ok(body.whole())
}

/// Size in bytes of the blocks in which a body of unknown length is kept until all of it is there.
const BLOCK: usize = 64 << 10;

/// Body that arrives. One buffer that grows would be copied, and twice as large as what is in it.
struct Buffer {
    /// Full blocks of a body of unknown length.
    full: Vec<BytesMut>,
    last: BytesMut,
    is_known: bool,
}

impl Buffer {
    /// Creates a buffer for a body of this length, if it is known.
    fn new(len: Option<usize>) -> Self {
        Self { full: Vec::new(), last: BytesMut::with_capacity(len.unwrap_or_default()), is_known: len.is_some() }
    }

    fn push(&mut self, mut part: &[u8]) {
        while !self.is_known && self.last.len() + part.len() > BLOCK {
            let (fits, rest) = part.split_at(BLOCK - self.last.len());
            self.last.extend_from_slice(fits);
            self.full.push(std::mem::replace(&mut self.last, BytesMut::with_capacity(BLOCK)));
            part = rest;
        }
        self.last.extend_from_slice(part);
    }

    /// Returns the body in one piece.
    fn whole(self) -> Bytes {
        if self.full.is_empty() {
            return self.last.freeze();
        }
        let mut whole = BytesMut::with_capacity(self.full.len() * BLOCK + self.last.len());
        for block in self.full.into_iter().chain([self.last]) {
            whole.extend_from_slice(&block);
        }
        whole.freeze()
    }
}

/// Largest text that is parsed, hashed or decoded on the async threads, in bytes; a larger one would keep them from other work.
const INLINE: usize = 64 << 10;

/// Does work on `len` bytes, on another thread if they are many.
///
/// # Errors
/// If the work panics.
pub async fn off_thread<T: Send + 'static>(
    len: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    if len <= INLINE {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| Problem::internal())
}

/// Reads a JSON object from a body.
///
/// # Errors
/// With a pointer to what cannot be read.
pub async fn parse_body<T: DeserializeOwned + Send + 'static>(bytes: Bytes) -> Result<T, Problem> {
    off_thread(bytes.len(), move || parse(&bytes)).await?
}

/// Reads a JSON object.
///
/// # Errors
/// With a pointer to what cannot be read.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    read_object(bytes).map_err(|Unreadable { pointer, message }| Problem::malformed(Some(pointer), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_of_unknown_length_is_the_same_in_one_piece() {
        let bytes: Vec<u8> = (0..3 * BLOCK + 7).map(|number| u8::try_from(number % 251).unwrap()).collect();
        for part in [1_000, BLOCK - 1, BLOCK, BLOCK + 1, bytes.len()] {
            for len in [None, Some(bytes.len())] {
                let mut buffer = Buffer::new(len);
                bytes.chunks(part).for_each(|part| buffer.push(part));
                assert_eq!(buffer.whole(), bytes, "{part} {len:?}");
            }
        }
    }
}
