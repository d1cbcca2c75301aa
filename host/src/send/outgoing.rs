//! A request as it goes out: what the policies made of it, and the server's own headers.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use reqwest::{Method, Url};
use sha2::{Digest as _, Sha256};

use crate::job::{JobId, Metadata};
use crate::policy::Request;

/// Carries the job's id: the same for all attempts.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Carries the job's id, too: for people who read logs.
pub const JOB_ID_HEADER: &str = "carillon-job-id";
/// Carries the attempt's number, from 1.
pub const ATTEMPT_HEADER: &str = "carillon-attempt";

/// Names the trace that the delivery belongs to (W3C Trace Context): the client's own if the job has one, else one whose id is the
/// job's, with a span for each attempt.
pub const TRACEPARENT: &str = "traceparent";

/// What is on a request besides what policies made.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The job.
    pub job: JobId,
    /// The attempt, from 1.
    pub number: u32,
    /// The attempt's randomness.
    pub seed: u32,
    /// For all of it, redirects and body included.
    pub timeout: Duration,
    /// How many redirects are followed.
    pub redirects: usize,
    /// What goes out as headers of its own.
    pub metadata: Option<&'a Metadata>,
}

/// A request that is ready to go.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The method.
    pub method: Method,
    /// The target.
    pub url: Url,
    /// All headers but those of the connection.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// For all of it, redirects and body included.
    pub timeout: Duration,
    /// How many redirects are followed.
    pub redirects: usize,
}

impl Outgoing {
    /// The sha-256, in hex, of everything that the receiver sees: method, URL, each header's name and value in order, body; each
    /// with its length in front (8 bytes, big-endian), so that no two requests share one.
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

/// Puts the server's own headers on a request; none if it cannot be sent as it is.
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
    headers.entry(USER_AGENT).or_insert_with(|| user_agent.clone());
    Some(Outgoing {
        method: Method::from_bytes(request.method.as_bytes()).ok()?,
        url: Url::parse(&request.url).ok()?,
        headers,
        body: Bytes::copy_from_slice(&request.body),
        timeout: envelope.timeout,
        redirects: envelope.redirects,
    })
}
