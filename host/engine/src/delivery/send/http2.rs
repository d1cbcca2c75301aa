//! Connections of HTTP/2 to receivers: one carries many requests at once.
//!
//! While one is being opened, other requests of its route wait for it, so that a burst of jobs does not open as many connections. Routes whose
//! receivers speak HTTP/1.1 are remembered: their requests open connections side by side.
//!
//! Invariant: a connection carries requests of one route only, and no more at once than the receiver allows.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::connect::Stream;
use super::route::Route;
use carillon_core::clock::Stopwatch;

/// Largest number of requests at once on one connection; the receiver may allow fewer.
const MAX_STREAMS: usize = 100;

/// Bytes of one response, and of all responses of a connection, that the receiver may send before they are read.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Longest wait for a receiver's settings.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(1);

/// Largest head of a response, in bytes.
const MAX_HEAD_LEN: u32 = 256 << 10;

/// Largest number of routes that are remembered to speak HTTP/1.1.
const MAX_REMEMBERED: usize = 4_096;

/// All connections of HTTP/2.
#[derive(Default)]
pub(super) struct Http2Connections {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    open: HashMap<Route, Vec<Arc<Shared>>>,
    opening: HashMap<Route, Arc<PendingConnect>>,
    /// Routes whose receivers have chosen HTTP/1.1.
    http1: HashSet<Route>,
}

/// A connection that is being opened.
#[derive(Default)]
struct PendingConnect {
    done: CancellationToken,
    /// Whether it speaks HTTP/2; not set if it failed.
    is_http2: OnceLock<bool>,
}

/// An open connection.
struct Shared {
    sender: SendRequest<Full<Bytes>>,
    reads: Arc<AtomicU64>,
    age: Stopwatch,
    max_streams: Arc<AtomicUsize>,
    is_retired: AtomicBool,
    usage: Mutex<Usage>,
}

struct Usage {
    streams: usize,
    idle: Stopwatch,
}

/// What to do for a connection of a route.
pub(super) enum Turn {
    /// Open one; others wait for it.
    First(ConnectGuard),
    /// Wait for the one that is being opened.
    Wait(Waiting),
    /// Open one beside others.
    Beside,
}

/// Wakes those who wait when it is dropped.
pub(super) struct ConnectGuard {
    connections: Arc<Http2Connections>,
    route: Route,
    opening: Arc<PendingConnect>,
}

/// Waits for a connection that is being opened.
pub(super) struct Waiting(Arc<PendingConnect>);

impl Waiting {
    /// Returns whether the connection was opened and speaks HTTP/2.
    pub(super) async fn is_http2(&self) -> bool {
        self.0.done.cancelled().await;
        self.0.is_http2.get() == Some(&true)
    }
}

impl ConnectGuard {
    /// Notes what the receiver speaks.
    pub(super) fn opened(&self, is_http2: bool) {
        self.opening.is_http2.get_or_init(|| is_http2);
        let mut inner = self.connections.lock();
        if is_http2 {
            inner.http1.remove(&self.route);
            return;
        }
        if inner.http1.len() >= MAX_REMEMBERED {
            inner.http1.clear();
        }
        inner.http1.insert(self.route.clone());
    }
}

impl Drop for ConnectGuard {
    fn drop(&mut self) {
        self.connections.lock().opening.remove(&self.route);
        self.opening.done.cancel();
    }
}

/// Place of one request on a connection.
pub(super) struct StreamPlace(Arc<Shared>);

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut usage = self.0.usage();
        usage.streams -= 1;
        usage.idle = Stopwatch::start();
    }
}

impl StreamPlace {
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        self.0.sender.clone().send_request(request).await
    }

    /// Returns a number that rises when bytes arrive, whatever request they belong to.
    pub(super) fn reads(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.0.reads)
    }

    /// Keeps further requests from the connection, which may be dead; those under way go on.
    pub(super) fn retire(&self) {
        self.0.is_retired.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place, if there is one.
    fn place(self: &Arc<Self>) -> Option<StreamPlace> {
        let mut usage = self.usage();
        if usage.streams >= self.max_streams.load(Ordering::Relaxed).min(MAX_STREAMS) {
            return None;
        }
        usage.streams += 1;
        Some(StreamPlace(Arc::clone(self)))
    }

    fn is_usable(&self, max_age: Duration) -> bool {
        let is_open = !self.sender.is_closed() && !self.is_retired.load(Ordering::Relaxed);
        is_open && self.age.elapsed() < max_age
    }

    /// Returns the time since the last request; `None` while one is under way.
    fn idle(&self) -> Option<Duration> {
        let usage = self.usage();
        (usage.streams == 0).then(|| usage.idle.elapsed())
    }
}

impl Http2Connections {
    /// Takes a place on a connection of a route that is younger than `max_age`.
    pub(super) fn take(&self, route: &Route, max_age: Duration) -> Option<StreamPlace> {
        let mut inner = self.lock();
        let of_route = inner.open.get_mut(route)?;
        of_route.retain(|shared| shared.is_usable(max_age));
        of_route.iter().find_map(Shared::place)
    }

    /// Says how to get a connection of a route that has no place.
    pub(super) fn turn(self: &Arc<Self>, route: &Route) -> Turn {
        let mut inner = self.lock();
        if inner.http1.contains(route) {
            return Turn::Beside;
        }
        if let Some(opening) = inner.opening.get(route) {
            return Turn::Wait(Waiting(Arc::clone(opening)));
        }
        let opening = Arc::<PendingConnect>::default();
        inner.opening.insert(route.clone(), Arc::clone(&opening));
        Turn::First(ConnectGuard { connections: Arc::clone(self), route: route.clone(), opening })
    }

    /// Begins HTTP/2 on a new connection, and takes a place on it. `permit` is held until it is closed.
    pub(super) async fn open(
        &self,
        route: Route,
        stream: Stream,
        permit: OwnedSemaphorePermit,
    ) -> hyper::Result<StreamPlace> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_max_send_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD_LEN);
        let reads = stream.reads();
        let (sender, mut connection) = builder.handshake(TokioIo::new(stream)).await?;
        // The receiver's settings come first (RFC 9113, section 3.4). Without them nobody knows how many requests it allows.
        let settled = std::future::poll_fn(|context| match Pin::new(&mut connection).poll(context) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending if reads.load(Ordering::Acquire) > 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        let ended = tokio::time::timeout(SETTINGS_TIMEOUT, settled).await.ok().flatten();
        let is_open = ended.transpose()?.is_none();
        let max_streams = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
        let allowed = Arc::clone(&max_streams);
        if is_open {
            tokio::spawn(async move {
                let ended = std::future::poll_fn(|context| {
                    let polled = Pin::new(&mut connection).poll(context);
                    allowed.store(connection.current_max_send_streams(), Ordering::Relaxed);
                    polled
                });
                // The error is reported to the tasks that wait for responses.
                drop(ended.await);
                drop(permit);
            });
        }
        let usage = Mutex::new(Usage { streams: 1, idle: Stopwatch::start() });
        let (age, is_retired) = (Stopwatch::start(), AtomicBool::new(false));
        let shared = Arc::new(Shared { sender, reads, age, max_streams, is_retired, usage });
        self.lock().open.entry(route).or_default().push(Arc::clone(&shared));
        Ok(StreamPlace(shared))
    }

    /// Closes the connection without a request that has been so for the longest time; returns whether there was one.
    pub(super) fn close_oldest(&self) -> bool {
        let mut inner = self.lock();
        let idle = inner.open.iter().flat_map(|(route, of_route)| {
            of_route.iter().enumerate().filter_map(move |(index, shared)| Some((shared.idle()?, route, index)))
        });
        let Some((_, route, index)) = idle.max_by_key(|(idle, ..)| *idle) else { return false };
        let route = route.clone();
        if let Some(of_route) = inner.open.get_mut(&route) {
            of_route.swap_remove(index);
        }
        true
    }

    /// Forgets connections that no further request can use, and those without a request for `idle_timeout`, which are closed.
    pub(super) fn sweep(&self, max_age: Duration, idle_timeout: Duration) {
        self.lock().open.retain(|_, of_route| {
            of_route.retain(|shared| shared.is_usable(max_age) && shared.idle().is_none_or(|idle| idle < idle_timeout));
            !of_route.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
