//! Entry for the fuzz targets: redirects.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use url::Url;

use super::{Outgoing, redirect};
use carillon_policy::binding::Redirects;

/// Maximum number of redirects of the request.
const MAX_REDIRECTS: usize = 5;

/// Returns the URL to which a request to `url` goes on after a response with `status` and `location`; `None` if the response is final.
///
/// # Errors
/// Returns a sentence if the redirect is refused.
pub fn redirected(url: &Url, status: u16, location: &[u8]) -> Result<Option<Url>, String> {
    let Ok(status) = StatusCode::from_u16(status) else { return Ok(None) };
    let Ok(location) = HeaderValue::from_bytes(location) else { return Ok(None) };
    let request = Outgoing {
        method: Method::POST,
        url: url.clone(),
        headers: HeaderMap::new(),
        auth_headers: Vec::new(),
        client_key: None,
        bound_keys: Vec::new(),
        egress: None,
        body: Bytes::new(),
        timeout: Duration::from_secs(1),
        redirects: Redirects { most: MAX_REDIRECTS, to_http: false },
    };
    let next = redirect::onward(&request, 0, status, Some(&location));
    next.map(|next| next.map(|next| next.url)).map_err(|refused| format!("{refused:?}"))
}
