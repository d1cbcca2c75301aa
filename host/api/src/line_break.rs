//! A line break behind every answer in JSON, so that a terminal's prompt stands in a line of its own.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

const LINE_BREAK: &[u8] = b"\n";

/// Marks an answer that goes out byte for byte.
#[derive(Clone, Copy)]
pub(super) struct Verbatim;

/// Ends an answer in JSON with a line break. Problems have one of their own.
pub(super) fn append(response: Response<Body>) -> Response<Body> {
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if !is_json || response.extensions().get::<Verbatim>().is_some() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // The length of an answer to HEAD is that of the one to GET.
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if let Some(length) = length {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length.saturating_add(1)));
    }
    if body.is_end_stream() {
        return Response::from_parts(parts, body);
    }
    Response::from_parts(parts, Body::new(Lined { body, is_over: false }))
}

/// A body with a line break behind it.
struct Lined {
    body: Body,
    is_over: bool,
}

impl HttpBody for Lined {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(frame.or_else(|| {
            self.is_over = true;
            Some(Ok(Frame::data(Bytes::from_static(LINE_BREAK))))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }

    fn size_hint(&self) -> SizeHint {
        let (own, mut hint) = (self.body.size_hint(), SizeHint::new());
        let more = u64::from(!self.is_over);
        hint.set_lower(own.lower().saturating_add(more));
        if let Some(upper) = own.upper() {
            hint.set_upper(upper.saturating_add(more));
        }
        hint
    }
}
