//! The socket of a connection: a write that makes no progress ends it, and it knows when a response has left the process.
//!
//! What the kernel holds for a client that does not read is bounded, too: it takes little more than it can send.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep};

use super::connections::Busy;
use carillon_core::clock::deadline_after;

/// Bytes that the kernel holds for a connection without having sent them.
const MAX_UNSENT: u32 = 128 << 10;

/// Size of the kernel's buffer of a connection, which also holds what was sent and not acknowledged. Linux doubles it, for what it needs itself.
const SEND_BUFFER: usize = 128 << 10;

/// Socket of a connection.
pub(super) struct Socket {
    stream: TcpStream,
    write_timeout: Duration,
    /// Time until which a write that waits may wait.
    deadline: Option<Pin<Box<Sleep>>>,
    is_blocked: bool,
    sent: Arc<Sent>,
}

/// Whether the responses of a connection have left the process.
#[derive(Default)]
pub(super) struct Sent {
    /// The request whose response has ended and is still in a buffer.
    unsent: Mutex<Option<Busy>>,
    flushed: Notify,
    has_timed_out: AtomicBool,
}

impl Sent {
    /// Keeps a connection busy until the response that has just ended has left the process.
    pub(super) fn ended(&self, busy: Busy) {
        *self.lock() = Some(busy);
    }

    /// Returns when all responses that have ended have left the process.
    pub(super) async fn all(&self) {
        while self.lock().is_some() {
            let flushed = self.flushed.notified();
            tokio::pin!(flushed);
            flushed.as_mut().enable();
            if self.lock().is_some() {
                flushed.await;
            }
        }
    }

    /// Returns whether the connection ended because its client did not read.
    pub(super) fn has_timed_out(&self) -> bool {
        self.has_timed_out.load(Ordering::Relaxed)
    }

    fn flushed(&self) {
        if self.lock().take().is_some() {
            self.flushed.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Busy>> {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Socket {
    /// Prepares the socket of a new connection.
    pub(super) fn new(stream: TcpStream, write_timeout: Duration) -> (Self, Arc<Sent>) {
        // Each option only narrows what the kernel does by itself, so a system without it serves, too.
        drop(stream.set_nodelay(true));
        let options = SockRef::from(&stream);
        drop(options.set_send_buffer_size(SEND_BUFFER));
        #[cfg(target_os = "linux")]
        {
            drop(options.set_tcp_notsent_lowat(MAX_UNSENT));
            // It also holds for what the kernel still has when the process has closed the connection.
            drop(options.set_tcp_user_timeout(Some(write_timeout)));
        }
        let sent = Arc::new(Sent::default());
        (Self { stream, write_timeout, deadline: None, is_blocked: false, sent: Arc::clone(&sent) }, sent)
    }

    /// Passes on the result of a write; one that has waited for too long is an error.
    fn in_time(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if polled.is_ready() {
            self.is_blocked = false;
            return polled;
        }
        let timeout = self.write_timeout;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(timeout)));
        if !self.is_blocked {
            self.is_blocked = true;
            deadline.as_mut().reset(deadline_after(timeout));
        }
        ready!(deadline.as_mut().poll(context));
        self.sent.has_timed_out.store(true, Ordering::Relaxed);
        // The kernel forgets what it holds.
        drop(SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read (`server.write_timeout`)")))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.in_time(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.in_time(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        if polled.is_ready() {
            self.sent.flushed();
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
