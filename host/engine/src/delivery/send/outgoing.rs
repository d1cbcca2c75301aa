//! Outgoing request: the policies' request with the server's own headers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use sha2::{Digest as _, Sha256};
use url::Url;

use carillon_core::job::{JobId, Metadata};
use carillon_policy::binding::{AuthHeader, EgressQuota, Redirects};
use carillon_policy::{KeyMaterial, Request};

/// Header with the job's id: the same for all attempts.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Header with the job's id, too: for people who read logs.
pub const JOB_ID_HEADER: &str = "carillon-job-id";
/// Header with the attempt's number, from 1.
pub const ATTEMPT_HEADER: &str = "carillon-attempt";

/// Header of the trace that the delivery belongs to (W3C Trace Context).
///
/// It is the client's own trace if the job has one, else one whose id is the job's, with a span for each attempt.
pub const TRACEPARENT: &str = "traceparent";

/// Parts of a request that policies do not make.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The job.
    pub job: JobId,
    /// The attempt's number, from 1.
    pub number: u32,
    /// Seed of the attempt.
    pub seed: u32,
    /// Timeout of the whole exchange, redirects and body included.
    pub timeout: Duration,
    /// Redirects that are followed.
    pub redirects: Redirects,
    /// Metadata that is sent as headers of its own.
    pub metadata: Option<&'a Metadata>,
    /// The job's own URL, if it is already parsed: most encoders leave it unchanged.
    pub url: Option<&'a Url>,
    /// Headers whose values are keys. They replace headers of the same name.
    pub auth_headers: &'a [(AuthHeader, Arc<KeyMaterial>)],
    /// Client certificate for receivers that ask for one.
    pub client_key: Option<&'a Arc<KeyMaterial>>,
    /// Keys that have signed the request.
    pub sign_keys: &'a [Arc<KeyMaterial>],
    /// Part of the server's networks and ports that the tenant's requests may go to.
    pub egress: Option<&'a Arc<EgressQuota>>,
}

/// A request that is ready to be sent.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The method.
    pub method: Method,
    /// The target.
    pub url: Url,
    /// All headers but those of the connection, and those in `auth_headers`.
    pub headers: HeaderMap,
    /// Headers whose values are keys, separate because only the receiver sees them.
    pub auth_headers: Vec<(AuthHeader, HeaderValue)>,
    /// Client certificate for receivers that ask for one.
    pub client_key: Option<Arc<KeyMaterial>>,
    /// Keys bound to origins that have signed the request: no redirect to another origin is followed.
    pub bound_keys: Vec<Arc<KeyMaterial>>,
    /// Part of the server's networks and ports that the tenant's requests may go to; `None` for all.
    pub egress: Option<Arc<EgressQuota>>,
    /// The body.
    pub body: Bytes,
    /// Timeout of the whole exchange, redirects and body included.
    pub timeout: Duration,
    /// Redirects that are followed.
    pub redirects: Redirects,
}

impl Outgoing {
    /// Returns the SHA-256, in hex, of what the receiver sees: method, URL, each header's name and value in order, body.
    ///
    /// Each has its length in front (8 bytes, big-endian), so no two requests share a digest. Headers whose values are keys are left out,
    /// because a key could be guessed from the digest.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        part(self.method.as_str().as_bytes());
        part(self.url.as_str().as_bytes());
        for (name, value) in &self.headers {
            part(name.as_str().as_bytes());
            part(value.as_bytes());
        }
        part(&self.body);
        hex::encode(hasher.finalize())
    }
}

/// Adds the server's own headers to a request; returns `None` if it cannot be sent as it is.
pub(super) fn complete(request: &Request, envelope: Envelope<'_>, user_agent: &HeaderValue) -> Option<Outgoing> {
    let mut headers = HeaderMap::with_capacity(request.headers.len() + 4);
    for header in &request.headers {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(&header.value).ok()?);
    }
    let id = HeaderValue::from_str(&envelope.job.to_string()).ok()?;
    headers.insert(HeaderName::from_static(IDEMPOTENCY_KEY), id.clone());
    headers.insert(HeaderName::from_static(JOB_ID_HEADER), id);
    headers.insert(HeaderName::from_static(ATTEMPT_HEADER), HeaderValue::from(envelope.number));
    for text in envelope.metadata.into_iter().flat_map(Metadata::texts) {
        let name = HeaderName::from_bytes(text.header_name()?.as_bytes()).ok()?;
        headers.insert(name, HeaderValue::from_str(&text.header_value()).ok()?);
    }
    let span = u64::from(envelope.number) << 32 | u64::from(envelope.seed);
    let trace = HeaderValue::from_str(&format!("00-{}-{span:016x}-01", envelope.job.0.simple())).ok()?;
    headers.entry(TRACEPARENT).or_insert(trace);
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    // Without this header any coding is acceptable (RFC 9110, section 12.5.3), and the server decodes none.
    headers.entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
    headers.entry(USER_AGENT).or_insert_with(|| user_agent.clone());
    let mut auth_headers = Vec::with_capacity(envelope.auth_headers.len());
    for (header, key) in envelope.auth_headers {
        headers.remove(&header.name);
        auth_headers.push((header.clone(), key.header().ok()?));
    }
    let known = envelope.url.filter(|url| url.as_str() == request.url).cloned();
    Some(Outgoing {
        method: Method::from_bytes(request.method.as_bytes()).ok()?,
        url: known.or_else(|| Url::parse(&request.url).ok())?,
        headers,
        auth_headers,
        client_key: envelope.client_key.cloned(),
        bound_keys: envelope.sign_keys.iter().filter(|key| key.origins().is_some()).cloned().collect(),
        egress: envelope.egress.cloned(),
        body: Bytes::copy_from_slice(&request.body),
        timeout: envelope.timeout,
        redirects: envelope.redirects,
    })
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use carillon_policy::{Header, KeyKind};

    fn with_key(secret: &str) -> Outgoing {
        let key = KeyMaterial::new("k/1".to_owned(), KeyKind::Header, Zeroizing::new(secret.into())).unwrap();
        let name = HeaderName::from_static("x-key");
        let auth = [(AuthHeader { name, key: "k".to_owned(), pointer: String::new() }, Arc::new(key))];
        let header = |name: &str| Header { name: name.to_owned(), value: b"own".to_vec() };
        let request = Request {
            method: "POST".to_owned(),
            url: "http://a/".to_owned(),
            headers: vec![header("X-Key"), header("X-Other"), header("X-KEY")],
            body: Vec::new(),
        };
        let envelope = Envelope {
            job: JobId(uuid::Uuid::nil()),
            number: 1,
            seed: 1,
            timeout: Duration::from_secs(1),
            redirects: Redirects::default(),
            metadata: None,
            url: None,
            auth_headers: &auth,
            client_key: None,
            sign_keys: &[],
            egress: None,
        };
        complete(&request, envelope, &HeaderValue::from_static("me")).unwrap()
    }

    #[test]
    fn a_key_replaces_headers_and_leaves_no_trace() {
        let (one, other) = (with_key("hunter2"), with_key("hunter3"));
        assert!(!one.headers.contains_key("x-key") && one.headers.contains_key("x-other"));
        assert_eq!(one.auth_headers[0].1, "hunter2");
        assert!(!format!("{one:?}").contains("hunter2"));
        assert_eq!(one.digest(), other.digest(), "nobody can guess at the value");
    }
}
