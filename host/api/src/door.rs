//! The door: one request comes in, one answer goes out.
//!
//! The handler of a request that may change something runs to its end whether or not its client still listens: what was written to the
//! store is also done in memory, told to listeners and waited for by a graceful stop. Neither a client that hangs up nor the timeout of
//! the request cuts such a handler in two: see [`Handler`]. It ends by itself, because everything in it has a bound: the store, the
//! policies, and the body of the request, which fails once the client has gone. Requests that only read are dropped with their
//! connection.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::Version;
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::client::{Listening, RequestBody};
use super::connections::Busy;
use super::error::Problem;
use super::handler::Handler;
use super::pools::ConnectionEnd;

/// When a request is given up. A route that has bounds of its own gives more time to what it does within them.
#[derive(Clone, Debug)]
pub struct Deadline(Arc<Mutex<Instant>>);

impl Deadline {
    fn after(timeout: Duration) -> Self {
        Self(Arc::new(Mutex::new(tokio::time::sleep(timeout).deadline())))
    }

    /// Waits so much longer.
    pub fn extend(&self, by: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }

    fn at(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when it is over.
    async fn passed(&self) {
        let mut seen = self.at();
        loop {
            tokio::time::sleep_until(seen).await;
            let now = self.at();
            if now == seen {
                return;
            }
            seen = now;
        }
    }
}

/// Place of a request beside others on its connection, which is held until its handler has ended, also one whose client has cancelled the request.
/// An extension of each request of HTTP/2.
#[derive(Clone)]
pub(super) struct Held {
    _busy: Arc<Busy>,
}

impl Held {
    pub(super) fn new(busy: Busy) -> Self {
        Self { _busy: Arc::new(busy) }
    }
}

/// What answers the requests of one listener.
#[derive(Clone)]
pub struct Door {
    router: Router,
    request_timeout: Duration,
    /// The handlers that run to their end.
    handlers: TaskTracker,
}

impl Door {
    /// A door in front of `router`.
    #[must_use]
    pub fn new(router: Router, request_timeout: Duration) -> Self {
        Self { router, request_timeout, handlers: TaskTracker::new() }
    }

    /// Answers a request.
    pub async fn answer(&self, mut request: Request) -> Response {
        // A connection of HTTP/2 has other requests, too; an unread body ends with its stream.
        let has_one_request = request.version() < Version::HTTP_2;
        let end = ConnectionEnd::default();
        request.extensions_mut().insert(end.clone());
        let mut response = self.answer_in_time(request).await;
        if has_one_request {
            end.mark(&mut response);
        }
        response
    }

    async fn answer_in_time(&self, mut request: Request) -> Response {
        let deadline = Deadline::after(self.request_timeout);
        request.extensions_mut().insert(deadline.clone());
        if request.method().is_safe() {
            return tokio::select! {
                biased;
                answered = self.router.clone().oneshot(request) => answered.unwrap_or_else(|never| match never {}),
                () = deadline.passed() => Problem::too_slow().into_response(),
            };
        }
        let (client, listening) = Listening::begin();
        let mut request = request.map(|body| RequestBody::wrap(body, &client));
        request.extensions_mut().insert(client);
        let (router, held) = (self.router.clone(), request.extensions().get::<Held>().cloned());
        let handler = Handler::new(&self.handlers, async move {
            let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
            drop(held);
            response
        });
        tokio::select! {
            biased;
            answered = handler => listening.watch(answered),
            () = deadline.passed() => Problem::too_slow().into_response(),
        }
    }

    /// Returns when no handler runs any more, also none whose client has gone.
    pub async fn drained(&self) {
        self.handlers.close();
        self.handlers.wait().await;
        self.handlers.reopen();
    }
}
