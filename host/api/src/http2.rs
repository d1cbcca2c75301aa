//! HTTP/2: many requests at once on a connection, within the bounds that hold for connections of HTTP/1.1.
//!
//! A client of HTTP/2 decides for each response how much of it may be sent, so that a socket that takes bytes does not show that the client reads.
//! [`Streams`] watches over the responses themselves. A client may also cancel requests as fast as it sends them (CVE-2023-44487): it is cut off
//! when it has cancelled many more than it has waited for.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::server::conn::http2::Builder;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::door::Held;
use super::head::MAX_HEAD_LEN;
use carillon_core::clock::deadline_after;

/// Bytes of requests that a client may send on one connection before a handler reads them.
const RECEIVE_WINDOW: u32 = 128 << 10;

/// Bytes of one response that wait in the connection's buffers.
const SEND_BUFFER: usize = 64 << 10;

/// Size in bytes of the largest part that is handed to the connection at once.
const MAX_PART: usize = 16 << 10;

/// Returns the settings of connections.
pub(super) fn builder(max_streams: u32) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(max_streams)
        .initial_stream_window_size(RECEIVE_WINDOW)
        .initial_connection_window_size(RECEIVE_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(MAX_HEAD_LEN).unwrap_or(u32::MAX));
    builder
}

/// Bound that a client of a connection has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overrun {
    /// A response made no progress.
    Unread,
    /// Too many requests were cancelled.
    Cancelled,
}

impl Overrun {
    /// Returns the setting of the bound.
    pub(super) fn bound(self) -> &'static str {
        match self {
            Self::Unread => "server.write_timeout",
            Self::Cancelled => "server.http2_streams",
        }
    }
}

/// Requests and responses of one connection.
pub(super) struct Streams {
    write_timeout: Duration,
    max_cancelled: u32,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Deadlines of parts that wait for the client, by number; a later one has the larger number.
    unread: BTreeMap<u64, Instant>,
    next: u64,
    /// Cancelled requests, less those that were answered to the end since.
    cancelled: u32,
}

impl Streams {
    pub(super) fn new(write_timeout: Duration, max_cancelled: u32) -> Self {
        Self { write_timeout, max_cancelled, state: Mutex::default(), changed: Notify::new() }
    }

    /// Returns when the client has passed a bound.
    pub(super) async fn overrun(&self) -> Overrun {
        loop {
            let (first, is_cancelled) = {
                let state = self.lock();
                let first = state.unread.first_key_value().map(|(number, deadline)| (*number, *deadline));
                (first, state.cancelled > self.max_cancelled)
            };
            if is_cancelled {
                return Overrun::Cancelled;
            }
            let Some((number, deadline)) = first else {
                self.changed.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => {
                    if self.lock().unread.contains_key(&number) {
                        return Overrun::Unread;
                    }
                }
                () = self.changed.notified() => {}
            }
        }
    }

    /// Counts a request, which is cancelled unless its response ends.
    pub(super) fn begin(self: &Arc<Self>) -> Stream {
        Stream { streams: Arc::clone(self), part: None, has_ended: false }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request with its response.
pub(super) struct Stream {
    streams: Arc<Streams>,
    /// Number of the part that the client has not taken.
    part: Option<u64>,
    has_ended: bool,
}

impl Stream {
    /// Watches over the body of the response. `held` is kept until the client has made room for all of it.
    pub(super) fn body(mut self, body: Body, held: Option<Held>) -> Body {
        self.has_ended = body.is_end_stream();
        Body::new(StreamBody { body, rest: Bytes::new(), stream: self, _held: held })
    }

    /// Notes that a part was handed to the connection.
    fn handed_over(&mut self) {
        let deadline = deadline_after(self.streams.write_timeout);
        let mut state = self.streams.lock();
        state.next += 1;
        let (number, is_only) = (state.next, state.unread.is_empty());
        state.unread.insert(number, deadline);
        self.part = Some(number);
        drop(state);
        if is_only {
            self.streams.changed.notify_one();
        }
    }

    /// Notes that there was room for the last part.
    fn taken(&mut self) {
        if let Some(number) = self.part.take() {
            self.streams.lock().unread.remove(&number);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.taken();
        let mut state = self.streams.lock();
        if self.has_ended {
            state.cancelled = state.cancelled.saturating_sub(1);
            return;
        }
        state.cancelled += 1;
        if state.cancelled > self.streams.max_cancelled {
            self.streams.changed.notify_one();
        }
    }
}

/// Body of a response, in parts.
///
/// The connection takes a part, asks for the next one, and keeps that until the client has made room for the first. So the last byte is a part of its
/// own where the end is known: it is taken when the client has made room for everything before it.
struct StreamBody {
    body: Body,
    rest: Bytes,
    stream: Stream,
    _held: Option<Held>,
}

impl StreamBody {
    fn next_part(&mut self) -> Frame<Bytes> {
        let len = match self.rest.len() {
            len if len > MAX_PART => MAX_PART,
            len if len > 1 && self.body.is_end_stream() => len - 1,
            len => len,
        };
        let part = self.rest.split_to(len);
        self.stream.has_ended = self.is_end_stream();
        self.stream.handed_over();
        Frame::data(part)
    }
}

impl HttpBody for StreamBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.stream.taken();
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.next_part())));
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => {
                self.stream.has_ended = true;
                return Poll::Ready(None);
            }
        };
        match frame.into_data() {
            Ok(data) => {
                self.rest = data;
                Poll::Ready(Some(Ok(self.next_part())))
            }
            Err(other) => Poll::Ready(Some(Ok(other))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (of_body, rest) = (self.body.size_hint(), u64::try_from(self.rest.len()).unwrap_or(u64::MAX));
        let mut hint = SizeHint::new();
        hint.set_lower(of_body.lower().saturating_add(rest));
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}
