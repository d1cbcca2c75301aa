//! A connection from its acceptance to its end: the TLS handshake, if the server has a certificate, and then HTTP/1.1 or HTTP/2.
//!
//! Invariants: a connection ends when its client says nothing for `server.header_read_timeout`, or does not read for `server.write_timeout`, in
//! every protocol. As long as it has no request, also during a handshake, it gives way to a new one.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower::service_fn;

use super::answer_body::AnswerBody;
use super::client_address::{Peer, TrustedProxies};
use super::connections::{Connections, Place};
use super::door::{Door, Held};
use super::error::Problem;
use super::head::{self, MAX_HEAD_LEN};
use super::http2::{Overrun, Streams, builder};
use super::rest_of_request::with_rest_thrown_away;
use super::socket::{Sent, Socket};
use super::tls::{Handshake, ServerTls};

/// How long the last of an endless answer has to reach its client, and a client of HTTP/2 to take leave.
const GRACE: Duration = Duration::from_secs(1);

/// Bounds of the server's connections.
#[derive(Clone)]
pub struct ServeLimits {
    /// For the TLS handshake, for the head of a request, and for a connection that says nothing.
    pub header_read_timeout: Duration,
    /// For the next part of a response to be taken by a client.
    pub write_timeout: Duration,
    /// Largest number of requests at once on a connection of HTTP/2.
    pub http2_streams: u32,
    /// All that are open, whichever port they came to.
    pub connections: Connections,
    /// Proxies whose word on the client's address counts.
    pub proxies: Arc<TrustedProxies>,
    /// Certificate of all ports; `None` if they serve in clear.
    pub tls: Option<Arc<ServerTls>>,
}

/// Marks an answer whose body ends when its sender wants it to. When everything else has ended its connection is cut off after
/// a moment: the sender has ended it by then, but a client that does not read would never see that.
#[derive(Clone, Copy, Debug)]
pub struct Endless;

/// A connection that was accepted.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: Peer,
    pub(super) place: Place,
}

/// What the connections of one port have in common.
pub(super) struct Port {
    door: Door,
    limits: ServeLimits,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    /// No new requests.
    stop: CancellationToken,
    /// No answers without an end.
    end: CancellationToken,
}

/// What the requests of one connection have in common.
#[derive(Clone)]
struct Conversation {
    door: Door,
    proxies: Arc<TrustedProxies>,
    peer: Peer,
    place: Arc<Place>,
    /// Whether the answer under way has no end; of HTTP/2, whether any answer had none.
    endless: Arc<AtomicBool>,
}

/// Why a connection was cut off.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// It is an answer without an end that its client did not read to the end.
    Endless,
    /// Its client said nothing, or did not go when it was told to.
    Idle,
    Overrun(Overrun),
}

type Ended = Result<Result<(), hyper::Error>, Cut>;

impl Port {
    pub(super) fn new(door: Door, limits: ServeLimits, stop: CancellationToken, end: CancellationToken) -> Self {
        let mut http1 = http1::Builder::new();
        http1.timer(TokioTimer::new()).header_read_timeout(limits.header_read_timeout).max_buf_size(MAX_HEAD_LEN);
        let http2 = builder(limits.http2_streams);
        Self { door, limits, http1, http2, stop, end }
    }

    /// Answers the requests of a connection until its end.
    pub(super) async fn converse(self: Arc<Self>, accepted: Accepted) {
        let Accepted { stream, peer, place } = accepted;
        let place = Arc::new(place);
        tokio::select! {
            biased;
            () = self.answer(stream, peer, &place) => {}
            () = place.closed() => tracing::debug!("closed an idle connection in favor of a new one"),
        }
    }

    async fn answer(&self, stream: TcpStream, peer: Peer, place: &Arc<Place>) {
        let endless = Arc::default();
        let (door, proxies) = (self.door.clone(), Arc::clone(&self.limits.proxies));
        let conversation = Conversation { door, proxies, peer, place: Arc::clone(place), endless };
        // Boxed, so that a connection without TLS carries no room for it.
        if let Some(tls) = &self.limits.tls {
            return Box::pin(self.answer_over_tls(tls, stream, conversation)).await;
        }
        let (socket, sent) = Socket::new(stream, self.limits.write_timeout);
        let ended = self.answer_http1(socket, &sent, conversation).await;
        self.note_end(ended, &sent);
    }

    async fn answer_over_tls(&self, tls: &ServerTls, stream: TcpStream, conversation: Conversation) {
        let Some(Handshake { stream, sent, is_http2 }) = self.handshake(tls, stream).await else { return };
        let ended = if is_http2 {
            self.answer_http2(stream, conversation).await
        } else {
            self.answer_http1(stream, &sent, conversation).await
        };
        self.note_end(ended, &sent);
    }

    /// Agrees on TLS with a client; returns `None` if that fails.
    async fn handshake(&self, tls: &ServerTls, stream: TcpStream) -> Option<Handshake> {
        let handshake = tls.accept(stream, self.limits.write_timeout);
        let timed = tokio::time::timeout(self.limits.header_read_timeout, handshake);
        let done = tokio::select! {
            done = timed => done,
            () = self.stop.cancelled() => return None,
        };
        match done {
            Ok(Ok(handshake)) => return handshake,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => {
                self.limits.connections.count_refusal("server.header_read_timeout");
                tracing::debug!("TLS handshake timed out");
            }
        }
        None
    }

    fn note_end(&self, ended: Ended, sent: &Sent) {
        let connections = &self.limits.connections;
        if sent.has_timed_out() {
            connections.count_refusal("server.write_timeout");
        }
        match ended {
            Ok(Err(error)) => tracing::debug!(%error, "client connection failed"),
            Ok(Ok(())) => {}
            Err(cut) => {
                if let Cut::Overrun(overrun) = cut {
                    connections.count_refusal(overrun.bound());
                }
                tracing::debug!(?cut, "cut off a connection");
            }
        }
    }

    async fn answer_http1<S>(&self, stream: S, sent: &Arc<Sent>, conversation: Conversation) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sent, endless) = (Arc::clone(sent), Arc::clone(&conversation.endless));
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let (conversation, sent) = (conversation.clone(), Arc::clone(&sent));
            async move {
                // A client that sends many requests without reading has one response at a time.
                sent.all().await;
                let busy = conversation.place.busy();
                let answer = conversation.answer(with_rest_thrown_away(request)).await;
                conversation.endless.store(is_endless(&answer), Ordering::Relaxed);
                Ok::<_, Infallible>(answer.map(|body| axum::body::Body::new(AnswerBody::new(body, busy, sent))))
            }
        });
        let connection = self.http1.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        self.until_cut_off(connection, &endless, &self.stop.child_token()).await
    }

    async fn answer_http2<S>(&self, stream: S, conversation: Conversation) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (place, endless) = (Arc::clone(&conversation.place), Arc::clone(&conversation.endless));
        let streams = Arc::new(Streams::new(self.limits.write_timeout, self.limits.http2_streams));
        let counted = Arc::clone(&streams);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let (conversation, stream) = (conversation.clone(), counted.begin());
            async move {
                let Some(busy) = conversation.place.busy_besides().await else {
                    let detail = "too many requests at once from this address (`server.connections_per_peer`)";
                    return Ok(Problem::unavailable(detail).into_response().map(|body| stream.body(body, None)));
                };
                let held = Held::new(busy);
                let mut request = request.map(axum::body::Body::new);
                request.extensions_mut().insert(held.clone());
                let answer = conversation.answer(request).await;
                conversation.endless.fetch_or(is_endless(&answer), Ordering::Relaxed);
                Ok::<_, Infallible>(answer.map(|body| stream.body(body, Some(held))))
            }
        });
        let connection = self.http2.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let leave = self.stop.child_token();
        let silence = async {
            tokio::select! {
                () = place.idle_for(self.limits.header_read_timeout) => {}
                () = leave.cancelled() => {}
            }
            leave.cancel();
            place.idle_for(GRACE).await;
        };
        tokio::select! {
            ended = self.until_cut_off(connection, &endless, &leave) => ended,
            overrun = streams.overrun() => Err(Cut::Overrun(overrun)),
            () = silence => Err(Cut::Idle),
        }
    }

    /// Drives a connection to its end. After `leave` it takes no further request; an endless answer is cut off after the end of everything else.
    ///
    /// `leave` is the connection's own, because connections would wait for each other at one that they share.
    async fn until_cut_off<C>(&self, connection: C, endless: &AtomicBool, leave: &CancellationToken) -> Ended
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let cut_off = async {
            self.end.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        let (mut connection, mut cut_off) = (std::pin::pin!(connection), std::pin::pin!(cut_off));
        let (mut leave, mut is_leaving) = (std::pin::pin!(leave.cancelled()), false);
        std::future::poll_fn(|context| {
            if !is_leaving && leave.as_mut().poll(context).is_ready() {
                is_leaving = true;
                connection.as_mut().graceful_shutdown();
            }
            if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                return Poll::Ready(Ok(ended));
            }
            if endless.load(Ordering::Relaxed) && cut_off.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(Cut::Endless));
            }
            Poll::Pending
        })
        .await
    }
}

impl Conversation {
    async fn answer(&self, mut request: axum::extract::Request) -> Response {
        let client = self.proxies.client(self.peer, &request);
        request.extensions_mut().insert(client);
        match head::check(&request) {
            Ok(()) => self.door.answer(request).await,
            Err(problem) => problem.into_response(),
        }
    }
}

fn is_endless(answer: &Response) -> bool {
    answer.extensions().get::<Endless>().is_some()
}
