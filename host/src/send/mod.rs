//! The one place from which requests go out.
//!
//! Invariants: no request goes to an address that the [`Guard`] refuses, whether it is written in the URL, comes from DNS or from a
//! redirect; no more redirects are followed than the group says, and credentials follow none to another origin; time and size of an
//! answer are bounded, redirects and body included. A failure is a fact for the judge, not an error.

mod failure;
mod outgoing;
mod redirect;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Client, Method, Response, Url, retry};

use self::failure::{Failure, GuardedResolver};
pub use self::outgoing::{Envelope, Outgoing};
use crate::clock::Stopwatch;
use crate::config::Delivery;
use crate::egress::{Guard, Refused};
use crate::policy::Request;

/// The methods whose requests usually have a body, and say so when they have none (RFC 9110, section 8.6).
const WITH_BODY: [Method; 3] = [Method::POST, Method::PUT, Method::PATCH];

/// Bytes of a redirect's body that are read so that its connection can be used again.
const DISCARDED_LEN: usize = 16 << 10;

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

/// The codes of all failures.
pub const TRANSPORT_ERRORS: [&str; 8] =
    ["dns", "connect", "tls", "timeout", "reset", "body", "refused-address", "redirect"];

/// What came of a request.
#[derive(Clone, Debug)]
pub struct Sent {
    /// What came back in the end.
    pub answer: Answer,
    /// Where it was sent on to, in order, without user info and cut to a readable length.
    pub redirects: Vec<String>,
}

/// The HTTP client that deliveries are made with.
///
/// # Errors
/// If TLS does not start.
pub fn client(delivery: &Delivery, guard: &Arc<Guard>) -> reqwest::Result<Client> {
    Client::builder()
        .dns_resolver(Arc::new(GuardedResolver(Arc::clone(guard))))
        .redirect(reqwest::redirect::Policy::none())
        // Whether to try again is the policy's to say; and no copy of the request is kept for it.
        .retry(retry::never().max_retries_per_request(0))
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
        outgoing::complete(request, envelope, &self.user_agent)
    }

    /// Makes the request, and those that it is redirected to.
    pub async fn send(&self, outgoing: Outgoing) -> Sent {
        let (stopwatch, mut redirects) = (Stopwatch::start(), Vec::new());
        let answer = self.follow(outgoing, stopwatch, &mut redirects).await.unwrap_or_else(|failure| Answer::Failure {
            code: failure.code,
            message: failure.message,
            elapsed: stopwatch.elapsed(),
        });
        Sent { answer, redirects }
    }

    async fn follow(
        &self,
        mut outgoing: Outgoing,
        stopwatch: Stopwatch,
        redirects: &mut Vec<String>,
    ) -> Result<Answer, Failure> {
        while outgoing.redirects > 0 {
            let response = self.response(outgoing.clone(), stopwatch).await?;
            let location = response.headers().get(LOCATION);
            let next = redirect::onward(&outgoing, redirects.len(), response.status(), location)?;
            let Some(next) = next else { return self.answer(response, stopwatch).await };
            redirects.push(redirect::shown(&next.url));
            outgoing = next;
            discard(response).await?;
        }
        // Most requests follow none, and are not copied.
        let response = self.response(outgoing, stopwatch).await?;
        self.answer(response, stopwatch).await
    }

    /// One request of an exchange that began with `stopwatch`.
    async fn response(&self, outgoing: Outgoing, stopwatch: Stopwatch) -> Result<Response, Failure> {
        self.check_literal(&outgoing.url)?;
        let mut headers = outgoing.headers;
        headers.extend(outgoing.auth_headers.into_iter().map(|(header, value)| (header.name, value)));
        if outgoing.body.is_empty() && WITH_BODY.contains(&outgoing.method) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let left = outgoing.timeout.saturating_sub(stopwatch.elapsed());
        let request = self.client.request(outgoing.method, outgoing.url).body(outgoing.body).timeout(left);
        let mut request = request.build()?;
        // What stood in the URL has become a header; one that the request has itself goes before it.
        if let Some(basic) = request.headers_mut().remove(AUTHORIZATION) {
            headers.entry(AUTHORIZATION).or_insert(basic);
        }
        *request.headers_mut() = headers;
        Ok(self.client.execute(request).await?)
    }

    async fn answer(&self, mut response: Response, stopwatch: Stopwatch) -> Result<Answer, Failure> {
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

/// Reads what nobody looks at. If it is too long, or breaks off, the connection is given up instead: where to go next is known. If
/// the time runs out, it has run out for what comes next, too.
async fn discard(mut response: Response) -> Result<(), Failure> {
    let mut room = DISCARDED_LEN;
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if chunk.len() <= room => room -= chunk.len(),
            Err(error) if error.is_timeout() => return Err(error.into()),
            _ => return Ok(()),
        }
    }
}
