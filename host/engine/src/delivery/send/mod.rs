//! Sender: the only module from which requests go out.
//!
//! Invariants: no request goes to an address or a port that the [`Guard`] or the tenant's quota refuses, whether it is written in the URL, comes from DNS or from a
//! redirect; no more redirects are followed than the group says, and credentials follow none to another origin; time and size of a
//! response are bounded, redirects and body included. A failure is a fact for the judge, not an error.

mod client;
mod connect;
mod failure;
#[cfg(feature = "fuzzing")]
mod fuzzing;
mod http2;
mod outgoing;
mod pool;
mod redirect;
mod resolve;
mod route;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::header::{HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use tokio::sync::Semaphore;

use self::client::{Client, Piece, Reply};
use self::connect::Connector;
use self::failure::Failure;
#[cfg(feature = "fuzzing")]
pub use self::fuzzing::redirected;
pub use self::outgoing::{Envelope, Outgoing};
use self::pool::Pool;
pub use self::resolve::Requester;
use self::resolve::Resolver;
use self::tls::ReceiverTls;
use crate::delivery::egress::Guard;
use crate::files::FileShares;
use carillon_config::Delivery;
use carillon_core::clock::{Stopwatch, deadline_after};
use carillon_core::error_code::TransportError;
use carillon_core::exhaustion::Exhausted;
use carillon_core::job::AttemptError;
use carillon_policy::Request;

/// Bytes of a redirect's body that are read, and the time for it, so that its connection can be used again.
const DISCARDED_LEN: usize = 16 << 10;
const DISCARD_TIMEOUT: Duration = Duration::from_millis(500);

/// Longest `Retry-After` that is always kept, in bytes: it is read again when an attempt is judged anew.
const RETRY_AFTER_LEN: usize = 256;

/// Sends requests.
#[derive(Clone)]
pub struct Sender {
    client: Arc<Client>,
    user_agent: HeaderValue,
    body_limit: usize,
    header_limit: usize,
}

/// Result of a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A response whose head has arrived, whatever became of its body.
    Response {
        /// Status.
        status: u16,
        /// Headers, in the order of arrival.
        headers: Vec<(String, Vec<u8>)>,
        /// First bytes of the body.
        body: Bytes,
        /// Whether the body is incomplete: it was too long, broke off, or did not end in time.
        truncated: bool,
        /// Time from the start of the request.
        elapsed: Duration,
    },
    /// No response.
    Failure {
        /// Reason.
        error: TransportError,
        /// Explanation in one sentence.
        message: String,
        /// Time from the start of the request.
        elapsed: Duration,
    },
}

/// Result of a request with its redirects.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Last response, or the failure.
    pub answer: Answer,
    /// Targets of the redirects, in order, without user info and cut to a readable length.
    pub redirects: Vec<String>,
    /// Time to open new connections: names, sockets and TLS. Zero where open ones could be used.
    pub connect: Duration,
}

impl Sender {
    /// Creates a sender with the server's limits.
    ///
    /// # Errors
    /// Returns an error if the limits cannot be used, or TLS or the resolver do not start.
    pub fn new(delivery: &Delivery, guard: Guard, files: FileShares) -> anyhow::Result<Self> {
        let sockets = Arc::new(Semaphore::new(files.receivers));
        let name_servers = delivery.name_servers.clone();
        let connector = Connector {
            resolver: Resolver::new(name_servers, delivery.resolve_timeout.get(), files.lookups)?,
            guard: Arc::new(guard),
            tls: ReceiverTls::new(delivery.ca_file.as_deref(), delivery.http2)?,
            proxy: delivery.proxy.clone(),
            timeout: delivery.connect_timeout.get(),
            sockets: Arc::clone(&sockets),
        };
        let pool = Pool::new(sockets, delivery.connection_age.get());
        Ok(Self {
            client: Arc::new(Client::new(connector, pool)),
            user_agent: HeaderValue::from_str(&delivery.user_agent)?,
            body_limit: delivery.response_judge_limit.get(),
            header_limit: delivery.response_header_limit.get(),
        })
    }

    /// Adds the server's own headers to a request; returns `None` if it cannot be sent as it is.
    #[must_use]
    pub fn complete(&self, request: &Request, envelope: Envelope<'_>) -> Option<Outgoing> {
        outgoing::complete(request, envelope, &self.user_agent)
    }

    /// Returns the error of an attempt at `outgoing` that would be refused, as far as that is known without a connection.
    #[must_use]
    pub fn refusal(&self, outgoing: &Outgoing) -> Option<AttemptError> {
        match self.client.connector.check(&outgoing.url, outgoing.egress.as_deref()) {
            Err(Failure::Transport { error, message }) => Some(AttemptError { code: error.into(), message }),
            Ok(()) | Err(Failure::Exhausted(_)) => None,
        }
    }

    /// Sends the request, and those that it is redirected to.
    ///
    /// # Errors
    /// Returns the resource that the server itself has run out of: nothing is known of the receiver then.
    pub async fn send(&self, requester: Requester, outgoing: Outgoing) -> Result<Sent, Exhausted> {
        let stopwatch = Stopwatch::start();
        let (mut redirects, mut connect) = (Vec::new(), Duration::ZERO);
        let answer = match self.follow(requester, outgoing, stopwatch, &mut redirects, &mut connect).await {
            Ok(answer) => answer,
            Err(Failure::Transport { error, message }) => {
                Answer::Failure { error, message, elapsed: stopwatch.elapsed() }
            }
            Err(Failure::Exhausted(exhausted)) => return Err(exhausted),
        };
        Ok(Sent { answer, redirects, connect })
    }

    async fn follow(
        &self,
        requester: Requester,
        mut outgoing: Outgoing,
        stopwatch: Stopwatch,
        redirects: &mut Vec<String>,
        connect: &mut Duration,
    ) -> Result<Answer, Failure> {
        let deadline = deadline_after(outgoing.timeout);
        loop {
            let reply = self.client.request(requester, &outgoing, deadline).await?;
            *connect += reply.connect;
            let next = redirect::onward(&outgoing, redirects.len(), reply.status(), reply.headers().get(LOCATION))?;
            let Some(next) = next else { return Ok(self.answer(reply, stopwatch).await) };
            redirects.push(redirect::shown(&next.url));
            outgoing = next;
            discard(reply).await;
        }
    }

    /// Reads the body as far as it arrives. The head has arrived, so it is a response even if the body breaks off.
    async fn answer(&self, mut reply: Reply, stopwatch: Stopwatch) -> Answer {
        let status = reply.status().as_u16();
        let headers = self.kept_headers(reply.headers());
        let mut body = BytesMut::new();
        let truncated = loop {
            match reply.next().await {
                Piece::Bytes(bytes) => {
                    let room = self.body_limit - body.len();
                    body.extend_from_slice(&bytes[..bytes.len().min(room)]);
                    if bytes.len() > room {
                        break true;
                    }
                }
                Piece::End => {
                    reply.keep_connection();
                    break false;
                }
                Piece::Broken => break true,
            }
        };
        Answer::Response { status, headers, body: body.freeze(), truncated, elapsed: stopwatch.elapsed() }
    }

    /// Returns as many headers as fit, in the order of arrival. Headers that the server itself reads again are always among them.
    fn kept_headers(&self, headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
        let len = |name: &HeaderName, value: &HeaderValue| name.as_str().len() + value.len();
        let asked = headers.get(RETRY_AFTER).filter(|value| value.len() <= RETRY_AFTER_LEN);
        let mut room = self.header_limit.saturating_sub(asked.map_or(0, |value| len(&RETRY_AFTER, value)));
        let (mut is_full, mut asked) = (false, asked);
        let kept = headers.iter().filter(|(name, value)| {
            if **name == RETRY_AFTER && asked.take().is_some() {
                return true;
            }
            is_full |= len(name, value) > room;
            room = room.saturating_sub(len(name, value));
            !is_full
        });
        kept.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
    }
}

/// Reads the rest of a redirect, so that its connection can be used again.
///
/// If the body is too long, too slow or breaks off, the connection is closed instead: the target is already known.
async fn discard(mut reply: Reply) {
    let mut room = DISCARDED_LEN;
    reply.shorten(DISCARD_TIMEOUT);
    loop {
        match reply.next().await {
            Piece::Bytes(bytes) if bytes.len() <= room => room -= bytes.len(),
            Piece::End => return reply.keep_connection(),
            Piece::Bytes(_) | Piece::Broken => return,
        }
    }
}
