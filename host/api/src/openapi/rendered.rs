//! The description as it is served: rendered once, with an entity tag.

use axum::body::Bytes;
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::line_break::Verbatim;

/// Number of digits of an entity tag.
const ETAG_DIGITS: usize = 32;

/// A document in the form in which it goes out.
#[derive(Clone)]
pub(crate) struct Rendered {
    text: Bytes,
    etag: HeaderValue,
}

impl Rendered {
    /// Renders a document.
    pub(crate) fn new(document: &Value) -> Self {
        let text = Bytes::from(format!("{document}\n"));
        let digest = hex::encode(Sha256::digest(&text));
        let etag = HeaderValue::from_str(&format!("\"{}\"", &digest[..ETAG_DIGITS]));
        Self { text, etag: etag.unwrap_or(HeaderValue::from_static("\"\"")) }
    }

    /// Answers a request with these headers: with the document, or with 304 if the client has it.
    pub(crate) fn answer(&self, headers: &HeaderMap) -> Response {
        let etag = [(ETAG, self.etag.clone())];
        if self.is_known(headers) {
            return (StatusCode::NOT_MODIFIED, etag).into_response();
        }
        let kind = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let mut response = (etag, kind, self.text.clone()).into_response();
        response.extensions_mut().insert(Verbatim);
        response
    }

    /// Returns whether `If-None-Match` names the document (RFC 9110, section 13.1.2).
    fn is_known(&self, headers: &HeaderMap) -> bool {
        let tags = headers.get_all(IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
        let own = self.etag.to_str().unwrap_or_default();
        tags.flat_map(|tags| tags.split(','))
            .map(str::trim)
            .any(|tag| tag == "*" || tag.trim_start_matches("W/") == own)
    }
}
