//! Connections: bounded in number, in time and in what they may send before they are cut off.
//!
//! A request may be answered before all of it has arrived: it is too large, or nobody may send it. The rest of it is then read and
//! thrown away, because a connection that is closed on unread bytes is reset, and the client never sees why it was refused.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::Extensions;
use axum::http::header::EXPECT;
use axum::response::IntoResponse as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::service_fn;

use super::answer_body::AnswerBody;
use super::connections::{Connections, Place};
use super::door::Door;
use super::head::{self, MAX_HEAD_LEN};
use super::socket::Socket;

/// The pause after the operating system has refused a connection: it has run out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How much of a request that has been answered is thrown away, and for how long, before its connection is cut off.
const REST_LIMIT: usize = 64 << 20;
const REST_TIMEOUT: Duration = Duration::from_secs(10);

/// Bounds of the server's connections.
#[derive(Clone)]
pub struct ServeLimits {
    /// For the head of a request, and for a connection that says nothing.
    pub header_read_timeout: Duration,
    /// For the next part of a response to be taken by a client.
    pub write_timeout: Duration,
    /// All that are open, whichever port they came to.
    pub connections: Connections,
}

/// Marks an answer whose body ends when its sender wants it to. When everything else has ended its connection is cut off after
/// a moment: the sender has ended it by then, but a client that does not read would never see that.
#[derive(Clone, Copy, Debug)]
pub struct Endless;

/// Address of the client of a request, with IPv4 addresses in their own form. An extension of each request that came over a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

impl Peer {
    /// Returns the address that a request's extensions have.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Option<IpAddr> {
        extensions.get::<Self>().map(|peer| peer.0)
    }
}

/// How long the last of an endless answer has to reach its client.
const ENDLESS_GRACE: Duration = Duration::from_secs(1);

/// Answers requests until `stop`, and then those that are under way; answers without an end last until `end`.
pub async fn serve(
    listener: TcpListener,
    door: Door,
    limits: ServeLimits,
    stop: CancellationToken,
    end: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.header_read_timeout).max_buf_size(MAX_HEAD_LEN);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &limits.connections) => accepted,
            () = stop.cancelled() => break,
        };
        let Some((stream, peer, place)) = accepted else { continue };
        let (door, endless, place) = (door.clone(), Arc::new(AtomicBool::new(false)), Arc::new(place));
        let (is_endless, working) = (Arc::clone(&endless), Arc::clone(&place));
        let (socket, sent) = Socket::new(stream, limits.write_timeout);
        let unsent = Arc::clone(&sent);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let (door, is_endless) = (door.clone(), Arc::clone(&is_endless));
            let (working, sent) = (Arc::clone(&working), Arc::clone(&unsent));
            async move {
                // A client that sends many requests without reading has one response at a time.
                sent.all().await;
                let busy = working.busy();
                let mut request = with_rest_thrown_away(request);
                request.extensions_mut().insert(peer);
                let answer = match head::check(&request) {
                    Ok(()) => door.answer(request).await,
                    Err(problem) => problem.into_response(),
                };
                is_endless.store(answer.extensions().get::<Endless>().is_some(), Ordering::Relaxed);
                Ok::<_, Infallible>(answer.map(|body| axum::body::Body::new(AnswerBody::new(body, busy, sent))))
            }
        });
        let connection = server.serve_connection(TokioIo::new(socket), TowerToHyperService::new(service));
        let watched = graceful.watch(connection);
        let (end, connections) = (end.clone(), limits.connections.clone());
        tokio::spawn(async move {
            let ended = tokio::select! {
                biased;
                ended = until_cut_off(watched, &endless, &end) => ended,
                () = place.closed() => return tracing::debug!("closed an idle connection in favor of a new one"),
            };
            if sent.has_timed_out() {
                connections.count_refusal("server.write_timeout");
            }
            match ended {
                Some(Err(error)) => tracing::debug!(%error, "client connection failed"),
                Some(Ok(())) => {}
                None => tracing::debug!("closed a stream that its client did not read to the end"),
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// The end of a connection; none if it has an endless answer and is not waited for any longer. The other connections, which are most,
/// pay nothing for this.
async fn until_cut_off<T>(
    connection: impl Future<Output = T>,
    endless: &AtomicBool,
    end: &CancellationToken,
) -> Option<T> {
    let cut_off = async {
        end.cancelled().await;
        tokio::time::sleep(ENDLESS_GRACE).await;
    };
    let (mut connection, mut cut_off) = (std::pin::pin!(connection), std::pin::pin!(cut_off));
    std::future::poll_fn(|context| {
        if let Poll::Ready(ended) = connection.as_mut().poll(context) {
            return Poll::Ready(Some(ended));
        }
        if endless.load(Ordering::Relaxed) && cut_off.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

async fn accept(listener: &TcpListener, connections: &Connections) -> Option<(tokio::net::TcpStream, Peer, Place)> {
    match listener.accept().await {
        Ok((stream, address)) => {
            let place = connections.place(address.ip()).await?;
            Some((stream, Peer(address.ip().to_canonical()), place))
        }
        Err(error) => {
            tracing::warn!(%error, "accepting a connection failed");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// A client that waits to be told to go on sends nothing more when it is told no, so that nothing is thrown away.
fn with_rest_thrown_away(request: hyper::Request<Incoming>) -> Request {
    let waits = request.headers().contains_key(EXPECT);
    request.map(|body| if waits { axum::body::Body::new(body) } else { axum::body::Body::new(WholeBody(Some(body))) })
}

/// A request's body that is read to its end, whether or not anybody wants it.
struct WholeBody(Option<Incoming>);

impl Body for WholeBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for WholeBody {
    fn drop(&mut self) {
        let Some(body) = self.0.take().filter(|body| !body.is_end_stream()) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(REST_TIMEOUT, throw_away(body)));
        }
    }
}

async fn throw_away(mut body: Incoming) {
    let mut left = REST_LIMIT;
    while let Some(Ok(frame)) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}
