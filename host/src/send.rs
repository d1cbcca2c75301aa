//! The one place from which requests go out.
//!
//! Invariants: no request goes to an address that the [`Guard`] refuses, whether it is written in the URL or comes from DNS; no
//! request is redirected; time and size of an answer are bounded, body included. A failure is a fact for the judge, not an error.

use std::error::Error as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use reqwest::{Client, Method, Url};
use sha2::{Digest as _, Sha256};

use crate::clock::Stopwatch;
use crate::config::Delivery;
use crate::egress::{Guard, Refused};
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

/// The methods whose requests usually have a body, and say so when they have none (RFC 9110, section 8.6).
const WITH_BODY: [Method; 3] = [Method::POST, Method::PUT, Method::PATCH];

/// How long a connection that is not needed stays open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Makes requests.
#[derive(Clone, Debug)]
pub struct Sender {
    client: Client,
    guard: Arc<Guard>,
    user_agent: HeaderValue,
    body_limit: usize,
    header_limit: usize,
}

/// What came back.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A whole answer, or as much of it as is looked at.
    Response {
        /// The status.
        status: u16,
        /// In the order of arrival.
        headers: Vec<(String, Vec<u8>)>,
        /// The first bytes.
        body: Bytes,
        /// Whether there was more.
        truncated: bool,
        /// From the start of the request.
        elapsed: Duration,
    },
    /// No answer, or half of one.
    Failure {
        /// See `transport-error` in the policy interface.
        code: &'static str,
        /// One sentence.
        message: String,
        /// From the start of the request.
        elapsed: Duration,
    },
}

/// What is on a request besides what policies made.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The job.
    pub job: JobId,
    /// The attempt, from 1.
    pub number: u32,
    /// The attempt's randomness.
    pub seed: u32,
    /// For all of it, body included.
    pub timeout: Duration,
    /// What goes out as headers of its own.
    pub metadata: Option<&'a Metadata>,
}

/// The HTTP client that deliveries are made with.
///
/// # Errors
/// If TLS does not start.
pub fn client(delivery: &Delivery, guard: &Arc<Guard>) -> reqwest::Result<Client> {
    Client::builder()
        .dns_resolver(Arc::new(GuardedResolver(Arc::clone(guard))))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .http1_only()
        .tcp_nodelay(true)
        .connect_timeout(delivery.connect_timeout.get())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .build()
}

impl Sender {
    /// A client with the server's limits.
    ///
    /// # Errors
    /// If the limits cannot be used, or TLS does not start.
    pub fn new(delivery: &Delivery, guard: Guard) -> anyhow::Result<Self> {
        let guard = Arc::new(guard);
        Ok(Self {
            client: client(delivery, &guard)?,
            guard,
            user_agent: HeaderValue::from_str(&delivery.user_agent)?,
            body_limit: delivery.response_judge_limit.get(),
            header_limit: delivery.response_header_limit.get(),
        })
    }

    /// Puts the server's own headers on a request.
    #[must_use]
    pub fn complete(&self, request: &Request, envelope: Envelope<'_>) -> Option<Outgoing> {
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
        headers.entry(USER_AGENT).or_insert_with(|| self.user_agent.clone());
        Some(Outgoing {
            method: Method::from_bytes(request.method.as_bytes()).ok()?,
            url: Url::parse(&request.url).ok()?,
            headers,
            body: Bytes::copy_from_slice(&request.body),
            timeout: envelope.timeout,
        })
    }

    /// Makes the request.
    pub async fn send(&self, outgoing: Outgoing) -> Answer {
        let stopwatch = Stopwatch::start();
        match self.exchange(outgoing, stopwatch).await {
            Ok(answer) => answer,
            Err(failure) => {
                Answer::Failure { code: failure.code, message: failure.message, elapsed: stopwatch.elapsed() }
            }
        }
    }

    async fn exchange(&self, outgoing: Outgoing, stopwatch: Stopwatch) -> Result<Answer, Failure> {
        self.check_literal(&outgoing.url)?;
        let mut request = self.client.request(outgoing.method.clone(), outgoing.url).headers(outgoing.headers);
        if outgoing.body.is_empty() && WITH_BODY.contains(&outgoing.method) {
            request = request.header(CONTENT_LENGTH, 0);
        }
        let mut response = request.body(outgoing.body).timeout(outgoing.timeout).send().await?;
        let status = response.status().as_u16();
        let headers = self.kept_headers(response.headers());
        let (mut body, mut truncated) = (BytesMut::new(), false);
        while let Some(chunk) = response.chunk().await? {
            let room = self.body_limit - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() > room {
                truncated = true;
                break;
            }
        }
        Ok(Answer::Response { status, headers, body: body.freeze(), truncated, elapsed: stopwatch.elapsed() })
    }

    /// The resolver is not asked about addresses that stand in the URL.
    fn check_literal(&self, url: &Url) -> Result<(), Refused> {
        match url.host() {
            Some(url::Host::Ipv4(address)) => self.guard.check(IpAddr::V4(address)),
            Some(url::Host::Ipv6(address)) => self.guard.check(IpAddr::V6(address)),
            _ => Ok(()),
        }
    }

    fn kept_headers(&self, headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
        let mut room = self.header_limit;
        let fits = |(name, value): &(&HeaderName, &HeaderValue)| {
            let len = name.as_str().len() + value.len();
            let fits = len <= room;
            room = room.saturating_sub(len);
            fits
        };
        let kept = headers.iter().take_while(fits);
        kept.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
    }
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
    /// For all of it.
    pub timeout: Duration,
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

/// Why there is no answer.
struct Failure {
    code: &'static str,
    message: String,
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self { code: "refused-address", message: refused.to_string() }
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        let mut causes = Vec::new();
        let mut cause = error.source();
        let mut code = if error.is_timeout() {
            "timeout"
        } else if error.is_connect() {
            "connect"
        } else if error.is_body() || error.is_decode() {
            "body"
        } else {
            "reset"
        };
        while let Some(error) = cause {
            if let Some(refused) = error.downcast_ref::<Refused>() {
                return refused.clone().into();
            }
            if error.is::<rustls::Error>() || error.downcast_ref::<std::io::Error>().is_some_and(is_tls) {
                code = "tls";
            } else if error.is::<DnsError>() {
                code = "dns";
            }
            causes.push(error.to_string());
            cause = error.source();
        }
        let message = causes.pop().unwrap_or_else(|| error.without_url().to_string());
        Self { code, message }
    }
}

/// TLS errors arrive inside an I/O error, or inside an I/O error inside an I/O error.
fn is_tls(error: &std::io::Error) -> bool {
    let nested = |inner: &(dyn std::error::Error + Send + Sync + 'static)| {
        inner.is::<rustls::Error>() || inner.downcast_ref::<std::io::Error>().is_some_and(is_tls)
    };
    error.get_ref().is_some_and(nested)
}

/// Resolves names and drops the addresses that the guard refuses.
struct GuardedResolver(Arc<Guard>);

#[derive(Debug, thiserror::Error)]
#[error("the name `{name}` does not resolve: {reason}")]
struct DnsError {
    name: String,
    reason: String,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = Arc::clone(&self.0);
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let failed = |reason: String| DnsError { name: name.clone(), reason };
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|error| failed(error.to_string()))?;
            let mut refused = None;
            let mut allowed = Vec::new();
            for address in found {
                match guard.check(address.ip()) {
                    Ok(()) => allowed.push(SocketAddr::new(address.ip(), 0)),
                    Err(error) => refused = Some(error),
                }
            }
            match (allowed.is_empty(), refused) {
                (false, _) => Ok(Box::new(allowed.into_iter()) as Addrs),
                (true, Some(refused)) => Err(refused.into()),
                (true, None) => Err(failed("it has no addresses".to_owned()).into()),
            }
        })
    }
}
