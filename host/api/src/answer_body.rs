//! The body of a response on its way into a connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::connections::Busy;
use super::socket::Sent;

/// Size in bytes of the largest part that is handed to the connection at once. What a slow client has not read waits here, where it keeps the
/// connection busy, and not in the connection's own buffer.
const MAX_PART: usize = 64 << 10;

/// Body of a response. The connection is busy until the last of it has left the process.
pub(super) struct AnswerBody {
    body: Body,
    /// Rest of a large part.
    rest: Bytes,
    busy: Option<Busy>,
    sent: Arc<Sent>,
}

impl AnswerBody {
    pub(super) fn new(body: Body, busy: Busy, sent: Arc<Sent>) -> Self {
        Self { body, rest: Bytes::new(), busy: Some(busy), sent }
    }

    fn next_part(&mut self) -> Frame<Bytes> {
        let len = self.rest.len().min(MAX_PART);
        Frame::data(self.rest.split_to(len))
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.next_part())));
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let Poll::Ready(Some(Ok(frame))) = polled else { return polled };
        match frame.into_data() {
            Ok(data) if data.len() > MAX_PART => {
                self.rest = data;
                Poll::Ready(Some(Ok(self.next_part())))
            }
            Ok(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
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

impl Drop for AnswerBody {
    fn drop(&mut self) {
        if let Some(busy) = self.busy.take() {
            self.sent.ended(busy);
        }
    }
}
