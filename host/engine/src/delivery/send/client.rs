//! One HTTP request to a receiver, on a connection that is kept for the next.
//!
//! Invariant: a request goes out once. The one exception: on a connection that had been idle, and that ends without a byte of a response
//! (the receiver closed it at the same moment), it is made once more on a fresh connection, as RFC 9112, section 9.3.1, foresees; its
//! `Idempotency-Key` tells the receiver that it is the same.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use url::{Position, Url};

use super::connect::{Connector, basic};
use super::failure::Failure;
use super::outgoing::Outgoing;
use super::pool::{Connection, Pool};
use super::resolve::Requester;
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
    origin: Arc<str>,
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
        let origin: Arc<str> = outgoing.url.origin().ascii_serialization().into();
        if let Some(mut connection) = self.pool.take(&origin) {
            match respond(&mut connection, outgoing, deadline).await? {
                Ok(response) => return Ok(self.reply(response, connection, origin, deadline, Duration::ZERO)),
                Err(_) if connection.is_silent() => {}
                Err(error) => return Err(Failure::of_exchange(&error)),
            }
        }
        let stopwatch = Stopwatch::start();
        // Boxed, because most requests find an open connection.
        let mut connection = Box::pin(self.connect(requester, &outgoing.url, deadline)).await?;
        let connect = stopwatch.elapsed();
        match respond(&mut connection, outgoing, deadline).await? {
            Ok(response) => Ok(self.reply(response, connection, origin, deadline, connect)),
            Err(error) => Err(Failure::of_exchange(&error)),
        }
    }

    async fn connect(&self, requester: Requester, url: &Url, deadline: Instant) -> Result<Connection, Failure> {
        let permit = self.pool.permit(deadline.min(deadline_after(self.connector.timeout))).await?;
        let stream = self.connector.connect(requester, url, deadline).await?;
        let received = stream.received();
        let (sender, connection) =
            self.http.handshake(TokioIo::new(stream)).await.map_err(|error| Failure::of_exchange(&error))?;
        tokio::spawn(async move {
            // The error is reported to the task that waits for the response.
            drop(connection.await);
            drop(permit);
        });
        Ok(Connection::new(sender, received))
    }

    fn reply(
        &self,
        response: Response<Incoming>,
        connection: Connection,
        origin: Arc<str>,
        deadline: Instant,
        connect: Duration,
    ) -> Reply {
        Reply { response, connection, origin, deadline, pool: Arc::clone(&self.pool), connect }
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
        self.pool.give_back(self.origin, self.connection);
    }
}

/// Makes the request on `connection`. The outer error is final; the inner one is the connection's.
async fn respond(
    connection: &mut Connection,
    outgoing: &Outgoing,
    deadline: Instant,
) -> Result<hyper::Result<Response<Incoming>>, Failure> {
    let response = connection.send(request_of(outgoing)?);
    let no_answer = || Failure::new(TransportError::Timeout, "no response within the request's timeout");
    tokio::time::timeout_at(deadline, response).await.map_err(|_| no_answer())
}

/// Builds the request in its wire form.
fn request_of(outgoing: &Outgoing) -> Result<Request<Full<Bytes>>, Failure> {
    let unusable = |error: &dyn std::fmt::Display| {
        Failure::new(TransportError::Connect, format!("the request cannot be made: {error}"))
    };
    let url = &outgoing.url;
    let uri: Uri = url[Position::BeforePath..Position::AfterQuery].parse().map_err(|error| unusable(&error))?;
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
    let mut request = Request::new(Full::new(outgoing.body.clone()));
    *request.method_mut() = outgoing.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}
