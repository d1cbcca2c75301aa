//! One HTTP request to a receiver, on a connection that is kept for the next.
//!
//! Invariant: a request goes out once. The exceptions: on a connection that was open before, and that ends without a byte of a response
//! (the receiver closed it at the same moment), it is made once more on another connection, as RFC 9112, section 9.3.1, foresees; and so it is
//! where the receiver of HTTP/2 says that it has not processed it (RFC 9113, section 8.7). Its `Idempotency-Key` tells the receiver that it is the
//! same.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue};
use hyper::http::uri::{Authority, Scheme};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use url::Position;

use super::connect::{Connector, basic};
use super::failure::{Failure, is_of_stream, is_unprocessed};
use super::http2::Turn;
use super::outgoing::Outgoing;
use super::pool::{Connection, Pool};
use super::resolve::Requester;
use super::route::Route;
use carillon_core::clock::{Stopwatch, deadline_after};
use carillon_core::error_code::TransportError;

/// Methods whose requests usually have a body, and declare its absence (RFC 9110, section 8.6).
const WITH_BODY: [Method; 3] = [Method::POST, Method::PUT, Method::PATCH];

/// Largest number of headers of a response.
const MAX_HEADERS: usize = 2_000;

/// Makes requests.
pub(super) struct Client {
    pub(super) connector: Connector,
    pub(super) pool: Arc<Pool>,
    http: http1::Builder,
}

/// A response whose head has arrived.
pub(super) struct Reply {
    response: Response<Incoming>,
    connection: Connection,
    route: Route,
    deadline: Instant,
    pool: Arc<Pool>,
    /// Time to open a new connection; zero on one that was open.
    pub(super) connect: Duration,
}

/// A piece of a response's body.
pub(super) enum Piece {
    /// The next bytes.
    Bytes(Bytes),
    /// All of it has been read.
    End,
    /// The body broke off, or the deadline passed.
    Broken,
}

impl Client {
    pub(super) fn new(connector: Connector, pool: Arc<Pool>) -> Self {
        let mut http = http1::Builder::new();
        http.max_headers(MAX_HEADERS);
        Self { connector, pool, http }
    }

    /// Makes a request and waits for the head of its response until `deadline`.
    pub(super) async fn request(
        &self,
        requester: Requester,
        outgoing: &Outgoing,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        let (route, stopwatch) = (Route::new(outgoing), Stopwatch::start());
        let (mut connection, mut is_reused) = match self.pool.take(&route) {
            Some(connection) => (connection, true),
            // Boxed, because most requests find an open connection.
            None => (Box::pin(self.open(requester, outgoing, &route, deadline)).await?, false),
        };
        let (mut has_repeated, mut connect) = (false, if is_reused { Duration::ZERO } else { stopwatch.elapsed() });
        loop {
            let error = match respond(&mut connection, outgoing, deadline).await? {
                Ok(response) => {
                    let pool = Arc::clone(&self.pool);
                    return Ok(Reply { response, connection, route, deadline, pool, connect });
                }
                Err(error) => error,
            };
            if !is_of_stream(&error) {
                connection.retire();
            }
            let may_repeat = is_unprocessed(&error) || is_reused && connection.is_silent();
            if has_repeated || !may_repeat {
                return Err(Failure::of_exchange(&error));
            }
            (has_repeated, is_reused) = (true, false);
            let stopwatch = Stopwatch::start();
            connection = Box::pin(self.open(requester, outgoing, &route, deadline)).await?;
            connect = stopwatch.elapsed();
        }
    }

    /// Opens a connection, or waits for a place on one that another request opens.
    async fn open(
        &self,
        requester: Requester,
        outgoing: &Outgoing,
        route: &Route,
        deadline: Instant,
    ) -> Result<Connection, Failure> {
        if outgoing.url.scheme() != "https" {
            return self.connect(requester, outgoing, route, deadline).await;
        }
        loop {
            match self.pool.http2.turn(route) {
                Turn::Beside => return self.connect(requester, outgoing, route, deadline).await,
                Turn::First(opening) => {
                    // The one before may have been opened since this request looked for it.
                    if let Some(connection) = self.pool.take_shared(route) {
                        opening.opened(true);
                        return Ok(connection);
                    }
                    let connection = self.connect(requester, outgoing, route, deadline).await?;
                    opening.opened(connection.is_http2());
                    return Ok(connection);
                }
                Turn::Wait(waiting) => {
                    let no_time =
                        || Failure::new(TransportError::Connect, "no connection within the request's timeout");
                    let is_http2 =
                        tokio::time::timeout_at(deadline, waiting.is_http2()).await.map_err(|_| no_time())?;
                    if !is_http2 {
                        return self.connect(requester, outgoing, route, deadline).await;
                    }
                    if let Some(connection) = self.pool.take_shared(route) {
                        return Ok(connection);
                    }
                }
            }
        }
    }

    async fn connect(
        &self,
        requester: Requester,
        outgoing: &Outgoing,
        route: &Route,
        deadline: Instant,
    ) -> Result<Connection, Failure> {
        let permit = self.pool.permit(deadline.min(deadline_after(self.connector.timeout))).await?;
        let identity = outgoing.client_key.as_ref().and_then(|key| key.tls_client().ok());
        let stream = self.connector.connect(requester, outgoing, identity, deadline).await?;
        if stream.is_http2() {
            let opened = self.pool.http2.open(route.clone(), stream, permit).await;
            return opened.map(Connection::http2).map_err(|error| Failure::of_exchange(&error));
        }
        let reads = stream.reads();
        let (sender, connection) =
            self.http.handshake(TokioIo::new(stream)).await.map_err(|error| Failure::of_exchange(&error))?;
        tokio::spawn(async move {
            // The error is reported to the task that waits for the response.
            drop(connection.await);
            drop(permit);
        });
        Ok(Connection::http1(sender, reads))
    }
}

impl Reply {
    pub(super) fn status(&self) -> hyper::StatusCode {
        self.response.status()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Returns the next piece of the body, if it arrives before the deadline.
    pub(super) async fn next(&mut self) -> Piece {
        let body = self.response.body_mut();
        loop {
            match tokio::time::timeout_at(self.deadline, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    // Anything else is a trailer.
                    if let Ok(bytes) = frame.into_data() {
                        return Piece::Bytes(bytes);
                    }
                }
                Ok(None) => return Piece::End,
                Ok(Some(Err(_))) | Err(_) => return Piece::Broken,
            }
        }
    }

    /// Shortens the deadline to at most `time` from now.
    pub(super) fn shorten(&mut self, time: Duration) {
        self.deadline = self.deadline.min(deadline_after(time));
    }

    /// Keeps the connection of a response that was read to its end.
    pub(super) fn keep_connection(self) {
        drop(self.response);
        self.pool.give_back(self.route, self.connection);
    }
}

/// Makes the request on `connection`. The outer error is final; the inner one is the connection's.
async fn respond(
    connection: &mut Connection,
    outgoing: &Outgoing,
    deadline: Instant,
) -> Result<hyper::Result<Response<Incoming>>, Failure> {
    let request = request_of(outgoing, connection.is_http2())?;
    match tokio::time::timeout_at(deadline, connection.send(request)).await {
        Ok(responded) => Ok(responded),
        Err(_) => {
            connection.retire();
            Err(Failure::new(TransportError::Timeout, "no response within the request's timeout"))
        }
    }
}

/// Builds the request in its wire form.
fn request_of(outgoing: &Outgoing, is_http2: bool) -> Result<Request<Full<Bytes>>, Failure> {
    let unusable = |error: &dyn std::fmt::Display| {
        Failure::new(TransportError::Connect, format!("the request cannot be made: {error}"))
    };
    let url = &outgoing.url;
    let mut uri: Uri = url[Position::BeforePath..Position::AfterQuery].parse().map_err(|error| unusable(&error))?;
    let host = &url[Position::BeforeHost..Position::AfterPort];
    let mut headers = HeaderMap::with_capacity(outgoing.headers.len() + outgoing.auth_headers.len() + 3);
    headers.insert(HOST, HeaderValue::from_str(host).map_err(|error| unusable(&error))?);
    headers.extend(outgoing.headers.clone());
    headers.extend(outgoing.auth_headers.iter().map(|(header, value)| (header.name.clone(), value.clone())));
    if outgoing.body.is_empty() && WITH_BODY.contains(&outgoing.method) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    // User info in the URL becomes a header; a header of the request itself has priority.
    if let Some(credentials) = basic(url).filter(|_| !headers.contains_key(AUTHORIZATION)) {
        let mut value = HeaderValue::from_str(&credentials).map_err(|error| unusable(&error))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    if is_http2 {
        // The pseudo-header `:authority` takes the place of `Host` (RFC 9113, section 8.3.1).
        let host = headers.remove(HOST).map_or_else(Bytes::new, |host| Bytes::copy_from_slice(host.as_bytes()));
        let mut parts = uri.into_parts();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(Authority::from_maybe_shared(host).map_err(|error| unusable(&error))?);
        uri = Uri::from_parts(parts).map_err(|error| unusable(&error))?;
    }
    let mut request = Request::new(Full::new(outgoing.body.clone()));
    *request.method_mut() = outgoing.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}
