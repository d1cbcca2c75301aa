//! Pool of idle connections to receivers, bounded for each origin, in all, and in age.
//!
//! Connections of HTTP/2 carry many requests at once ([`Http2Connections`]); they have the same bounds.
//!
//! Every connection holds a permit from before its socket is opened until after it is closed. Where no permit is left, the connection that
//! has been idle longest is closed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::failure::Failure;
use super::http2::{Http2Connections, StreamPlace};
use super::route::Route;
use carillon_core::clock::Stopwatch;
use carillon_core::exhaustion::Exhausted;

/// Time for which an unused connection stays open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Period in which connections that are idle for too long, too old or closed are removed.
const SWEEP: Duration = Duration::from_secs(5);

/// Largest number of idle connections in all, and of one origin.
const MAX_IDLE: usize = 1_024;
const MAX_IDLE_OF_ORIGIN: usize = 512;

/// Time for a connection to become ready for the next request after a response has ended.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// An open connection, or the place of one request on it.
pub(super) struct Connection {
    protocol: Protocol,
    /// Rises when bytes arrive.
    reads: Arc<AtomicU64>,
    /// Value of `reads` when the request was made.
    reads_before: u64,
}

enum Protocol {
    Http1(Http1),
    Http2(StreamPlace),
}

struct Http1 {
    sender: SendRequest<Full<Bytes>>,
    reads: Arc<AtomicU64>,
    age: Stopwatch,
}

/// All idle connections.
pub(super) struct Pool {
    sockets: Arc<Semaphore>,
    max_age: Duration,
    inner: Mutex<Inner>,
    pub(super) http2: Arc<Http2Connections>,
}

#[derive(Default)]
struct Inner {
    /// Idle connections of each route, longest idle first.
    idle: HashMap<Route, VecDeque<Idle>>,
    /// Routes of all idle connections in the same order.
    order: BTreeMap<u64, Route>,
    next: u64,
}

struct Idle {
    number: u64,
    idle: Stopwatch,
    connection: Http1,
}

impl Connection {
    pub(super) fn http1(sender: SendRequest<Full<Bytes>>, reads: Arc<AtomicU64>) -> Self {
        Self::of(Http1 { sender, reads, age: Stopwatch::start() })
    }

    pub(super) fn http2(place: StreamPlace) -> Self {
        let reads = place.reads();
        Self { protocol: Protocol::Http2(place), reads, reads_before: 0 }
    }

    fn of(http1: Http1) -> Self {
        let reads = Arc::clone(&http1.reads);
        Self { protocol: Protocol::Http1(http1), reads, reads_before: 0 }
    }

    pub(super) fn is_http2(&self) -> bool {
        matches!(self.protocol, Protocol::Http2(_))
    }

    /// Makes a request on the connection.
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        self.reads_before = self.reads.load(Ordering::Acquire);
        match &mut self.protocol {
            Protocol::Http1(http1) => http1.sender.send_request(request).await,
            Protocol::Http2(place) => place.send(request).await,
        }
    }

    /// Returns whether no byte has arrived since the last request was made.
    pub(super) fn is_silent(&self) -> bool {
        self.reads.load(Ordering::Acquire) == self.reads_before
    }

    /// Keeps further requests from a connection of HTTP/2, which may be dead.
    pub(super) fn retire(&self) {
        if let Protocol::Http2(place) = &self.protocol {
            place.retire();
        }
    }
}

impl Pool {
    /// Creates a pool of connections that are at most `max_age` old, on at most `sockets` sockets.
    pub(super) fn new(sockets: Arc<Semaphore>, max_age: Duration) -> Arc<Self> {
        let pool = Arc::new(Self { sockets, max_age, inner: Mutex::default(), http2: Arc::default() });
        let swept = Arc::downgrade(&pool);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(pool) = swept.upgrade() else { return };
                pool.sweep();
            }
        });
        pool
    }

    /// Takes a connection of a route: a place on one of HTTP/2, or else an idle one, the newest first.
    pub(super) fn take(&self, route: &Route) -> Option<Connection> {
        if let Some(connection) = self.take_shared(route) {
            return Some(connection);
        }
        let mut inner = self.lock();
        loop {
            let idle = inner.remove_newest(route)?;
            if self.is_usable(&idle) {
                return Some(Connection::of(idle.connection));
            }
        }
    }

    /// Takes a place on a connection of HTTP/2.
    pub(super) fn take_shared(&self, route: &Route) -> Option<Connection> {
        self.http2.take(route, self.max_age).map(Connection::http2)
    }

    /// Takes back a connection whose response has been read to its end.
    pub(super) fn give_back(self: &Arc<Self>, route: Route, connection: Connection) {
        // One of HTTP/2 stays where it is.
        let Protocol::Http1(mut connection) = connection.protocol else { return };
        if connection.sender.is_closed() || connection.age.elapsed() >= self.max_age {
            return;
        }
        if connection.sender.is_ready() {
            self.put(route, connection);
            return;
        }
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            if let Ok(Ok(())) = tokio::time::timeout(READY_TIMEOUT, connection.sender.ready()).await {
                pool.put(route, connection);
            }
        });
    }

    /// Waits for the permit to open a socket. If all are in use, an idle connection is closed for it.
    pub(super) async fn permit(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, Failure> {
        if let Ok(permit) = Arc::clone(&self.sockets).try_acquire_owned() {
            return Ok(permit);
        }
        let evicted = self.lock().remove_oldest();
        if evicted.is_none() {
            self.http2.close_oldest();
        }
        drop(evicted);
        match tokio::time::timeout_at(deadline, Arc::clone(&self.sockets).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Failure::Exhausted(Exhausted::Files)),
        }
    }

    /// Returns the number of idle connections.
    #[cfg(test)]
    fn idle(&self) -> usize {
        self.lock().order.len()
    }

    fn put(&self, route: Route, connection: Http1) {
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        let of_origin = inner.idle.entry(route.clone()).or_default();
        of_origin.push_back(Idle { number, idle: Stopwatch::start(), connection });
        let too_many = if of_origin.len() > MAX_IDLE_OF_ORIGIN { of_origin.pop_front() } else { None };
        inner.order.insert(number, route);
        if let Some(idle) = &too_many {
            inner.order.remove(&idle.number);
        }
        let over = if inner.order.len() > MAX_IDLE { inner.remove_oldest() } else { None };
        drop(inner);
        drop((too_many, over));
    }

    fn is_usable(&self, idle: &Idle) -> bool {
        let connection = &idle.connection;
        connection.sender.is_ready() && connection.age.elapsed() < self.max_age && idle.idle.elapsed() < IDLE_TIMEOUT
    }

    fn sweep(&self) {
        self.http2.sweep(self.max_age, IDLE_TIMEOUT);
        let mut inner = self.lock();
        let Inner { idle, order, .. } = &mut *inner;
        idle.retain(|_, idle| {
            idle.retain(|idle| {
                let is_usable = self.is_usable(idle);
                if !is_usable {
                    order.remove(&idle.number);
                }
                is_usable
            });
            !idle.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn remove_newest(&mut self, route: &Route) -> Option<Idle> {
        let of_origin = self.idle.get_mut(route)?;
        let newest = of_origin.pop_back();
        if of_origin.is_empty() {
            self.idle.remove(route);
        }
        self.order.remove(&newest.as_ref()?.number);
        newest
    }

    fn remove_oldest(&mut self) -> Option<Idle> {
        let (_, origin) = self.order.pop_first()?;
        let of_origin = self.idle.get_mut(&origin)?;
        let oldest = of_origin.pop_front();
        if of_origin.is_empty() {
            self.idle.remove(&origin);
        }
        oldest
    }
}

#[cfg(test)]
mod tests {
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::files::FileShares;
    use carillon_core::clock::deadline_after;

    const AGE: Duration = Duration::from_secs(3_600);

    /// Opens a connection to `listener`, which never closes it, on a permit of the pool.
    async fn open(pool: &Pool, listener: &TcpListener) -> Connection {
        let permit = pool.permit(deadline_after(AGE)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move {
            drop(connection.await);
            drop(permit);
        });
        sender.ready().await.unwrap();
        Connection::http1(sender, Arc::default())
    }

    fn pool(sockets: usize) -> Arc<Pool> {
        Pool::new(Arc::new(Semaphore::new(sockets)), AGE)
    }

    #[tokio::test]
    async fn connection_that_was_idle_for_longest_makes_room() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pool = pool(3);
        for origin in ["a", "b", "c"] {
            let connection = open(&pool, &listener).await;
            pool.give_back(Route::anonymous(origin), connection);
        }
        assert_eq!(pool.idle(), 3);
        let fourth = open(&pool, &listener).await;
        assert_eq!(pool.idle(), 2);
        let take = |origin| pool.take(&Route::anonymous(origin));
        assert!(take("a").is_none() && take("b").is_some() && take("c").is_some());
        drop(fourth);
    }

    #[tokio::test]
    async fn socket_that_is_not_to_be_had_is_the_servers_own_exhaustion() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pool = pool(1);
        let _used = open(&pool, &listener).await;
        let refused = pool.permit(deadline_after(Duration::from_millis(1))).await;
        assert!(matches!(refused, Err(Failure::Exhausted(Exhausted::Files))));
    }

    #[tokio::test]
    async fn idle_connections_of_one_origin_and_of_all_are_bounded() {
        let _files = FileShares::of_process();
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let accepting = Arc::clone(&listener);
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((stream, _)) = accepting.accept().await {
                kept.push(stream);
            }
        });
        let pool = pool(MAX_IDLE_OF_ORIGIN * 4);
        for _ in 0..=MAX_IDLE_OF_ORIGIN {
            let connection = open(&pool, &listener).await;
            pool.give_back(Route::anonymous("a"), connection);
        }
        assert_eq!(pool.idle(), MAX_IDLE_OF_ORIGIN);
        for origin in 0..MAX_IDLE {
            let connection = match pool.take(&Route::anonymous("a")) {
                Some(connection) => connection,
                None => open(&pool, &listener).await,
            };
            pool.give_back(Route::anonymous(&origin.to_string()), connection);
        }
        assert_eq!(pool.idle(), MAX_IDLE);
    }

    #[tokio::test]
    async fn connection_that_has_ended_is_not_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pool = pool(1);
        let connection = open(&pool, &listener).await;
        pool.give_back(Route::anonymous("a"), connection);
        drop(listener.accept().await.unwrap());
        // The permit is free when the connection's task has seen the end.
        drop(Arc::clone(&pool.sockets).acquire_owned().await.unwrap());
        assert!(pool.take(&Route::anonymous("a")).is_none());
        assert_eq!(pool.idle(), 0);
    }
}
