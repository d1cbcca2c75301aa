//! What is left of a request that was answered before all of it had arrived: it was too large, or nobody may send it.
//!
//! The rest is read and thrown away, because a connection that is closed on unread bytes is reset, and the client never sees why it was refused.
//! That holds for HTTP/1.1. A stream of HTTP/2 is reset by itself, after its response.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::header::EXPECT;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// How much of a request that has been answered is thrown away, and for how long, before its connection is cut off.
const REST_LIMIT: usize = 64 << 20;
const REST_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that waits to be told to go on sends nothing more when it is told no, so that nothing is thrown away.
pub(super) fn with_rest_thrown_away(request: hyper::Request<Incoming>) -> Request {
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
