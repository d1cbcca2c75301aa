//! The client of a request, as the handler of the request sees it: still listening, gone, or served.
//!
//! A handler that changes something runs to its end whoever listens (see [`super::door`]). What only makes sense for a client that is still
//! there asks here: a consumer that waits for a job, a simulation, a lease that has to be handed over.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::error::Problem;

/// The client of a request. An extension of each request that may change something.
#[derive(Clone, Debug, Default)]
pub struct Client {
    gone: CancellationToken,
    served: CancellationToken,
}

impl Client {
    /// Returns when the client has hung up, or was told that its request took too long: the answer of the handler reaches nobody. Never
    /// returns for a client that was served.
    pub async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// Is cancelled when [`Self::gone`] returns.
    #[must_use]
    pub fn gone_token(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// Whether the answer of the handler reaches nobody.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Returns true when the connection has taken the whole answer of the handler, false when it never will.
    pub async fn served(&self) -> bool {
        tokio::select! {
            biased;
            () = self.served.cancelled() => true,
            () = self.gone.cancelled() => false,
        }
    }

    /// Does work whose only effect is its answer, as long as there is a client for it.
    ///
    /// # Errors
    /// If the client has gone; nobody sees the problem.
    pub async fn unless_gone<T>(&self, work: impl Future<Output = T>) -> Result<T, Problem> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.gone() => Err(Problem::client_gone()),
        }
    }
}

/// The side of the connection: as long as it is there, somebody may listen.
#[derive(Debug)]
pub(super) struct Listening(Client);

impl Listening {
    /// A client that listens.
    pub(super) fn begin() -> (Client, Self) {
        let client = Client::default();
        (client.clone(), Self(client))
    }

    /// Watches over an answer on its way into the connection.
    pub(super) fn watch(self, answer: Response) -> Response {
        answer.map(|body| {
            let mut watched = WatchedBody { body, listening: Some(self) };
            watched.note_end();
            Body::new(watched)
        })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if !self.0.served.is_cancelled() {
            self.0.gone.cancel();
        }
    }
}

/// The body of an answer, which notes that all of it was taken.
struct WatchedBody {
    body: Body,
    listening: Option<Listening>,
}

impl WatchedBody {
    fn note_end(&mut self) {
        if self.body.is_end_stream()
            && let Some(listening) = self.listening.take()
        {
            listening.0.served.cancel();
        }
    }
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.note_end();
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a request, which ends with an error when its client has gone: no handler waits for the rest of it.
pub(super) struct RequestBody {
    body: Body,
    client: Client,
    /// Made when the body is first waited for: most bodies are there with their heads.
    gone: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl RequestBody {
    pub(super) fn wrap(body: Body, client: &Client) -> Body {
        Body::new(Self { body, client: client.clone(), gone: None })
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(context);
        if polled.is_ready() {
            return polled;
        }
        let gone = this.gone.get_or_insert_with(|| Box::pin(this.client.gone_token().cancelled_owned()));
        ready!(gone.as_mut().poll(context));
        let error = std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "the client has gone");
        Poll::Ready(Some(Err(axum::Error::new(error))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_whole(answer: Response) {
        axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    }

    #[tokio::test]
    async fn answer_that_is_read_to_its_end_serves_the_client() {
        for body in ["", "text"] {
            let (client, listening) = Listening::begin();
            read_whole(listening.watch(Response::new(Body::from(body)))).await;
            assert!(client.served().await, "{body:?}");
            assert!(!client.is_gone(), "{body:?}");
        }
    }

    #[tokio::test]
    async fn answer_that_is_dropped_unread_means_that_the_client_is_gone() {
        let (client, listening) = Listening::begin();
        drop(listening.watch(Response::new(Body::from("text"))));
        assert!(!client.served().await);
        let (client, listening) = Listening::begin();
        drop(listening);
        assert!(client.is_gone());
    }

    #[tokio::test]
    async fn request_body_fails_when_the_client_goes() {
        let (client, listening) = Listening::begin();
        let (never, rest) = tokio::io::duplex(1);
        let stream = futures_util::stream::unfold(never, |mut never| async move {
            let read = tokio::io::AsyncReadExt::read_u8(&mut never).await;
            Some((read.map(|byte| Bytes::from(vec![byte])), never))
        });
        let body = RequestBody::wrap(Body::from_stream(stream), &client);
        let reading = tokio::spawn(axum::body::to_bytes(body, usize::MAX));
        drop(listening);
        reading.await.unwrap().unwrap_err();
        drop(rest);
    }
}
