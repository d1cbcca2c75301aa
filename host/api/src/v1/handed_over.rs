//! An answer that hands leases over. What was written to the connection counts as handed over; what was not goes back.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// A body whose last byte is given out only after the server has tried to write the others: if the connection is gone by then, nobody asks
/// for it.
pub(super) struct HandedOver {
    /// Called when all is written; dropped if it is not.
    done: Option<Box<dyn FnOnce() + Send>>,
    left: Bytes,
    is_flushed: bool,
}

impl HandedOver {
    /// `done` is called when all but the last byte was written, and dropped if that does not happen.
    pub(super) fn new(answer: impl Into<Bytes>, done: impl FnOnce() + Send + 'static) -> Self {
        Self { done: Some(Box::new(done)), left: answer.into(), is_flushed: false }
    }
}

impl Body for HandedOver {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.left.len() {
            0 => return Poll::Ready(None),
            1 if !self.is_flushed => {
                // The server writes what it has before it asks again.
                self.is_flushed = true;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            1 => {
                if let Some(done) = self.done.take() {
                    done();
                }
            }
            _ => {}
        }
        let first = self.left.len().saturating_sub(1).max(1);
        let frame = self.left.split_to(first);
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Waker;

    use super::*;

    /// The frames that are given out until the server would write.
    fn poll(body: &mut HandedOver) -> Option<Bytes> {
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
            Poll::Ready(_) | Poll::Pending => None,
        }
    }

    #[test]
    fn the_last_byte_is_kept_back_until_the_others_are_written() {
        let is_done = Arc::new(AtomicBool::new(false));
        let body = || {
            let is_done = Arc::clone(&is_done);
            HandedOver::new("answer", move || is_done.store(true, Ordering::Relaxed))
        };
        let mut cut_off = body();
        assert_eq!(cut_off.size_hint().exact(), Some(6));
        assert_eq!(poll(&mut cut_off).as_deref(), Some(&b"answe"[..]));
        assert_eq!(poll(&mut cut_off), None, "the server writes");
        drop(cut_off);
        assert!(!is_done.load(Ordering::Relaxed), "the connection was gone");

        let mut whole = body();
        assert_eq!([0; 3].map(|_| poll(&mut whole)), [Some("answe".into()), None, Some("r".into())]);
        assert!(whole.is_end_stream() && is_done.load(Ordering::Relaxed));
        assert_eq!(poll(&mut whole), None);
    }
}
