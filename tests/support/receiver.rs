//! A real HTTP server that does as it is told, path by path, and remembers exactly what it was sent.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use carillon_core::clock::{Clock, SystemClock, UnixMs};
use futures_util::StreamExt as _;
use futures_util::stream;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::soon;

/// Bytes of one piece of a long body.
const PIECE: usize = 64 << 10;

/// How long it takes at most until what was written is on its way.
const FLUSHED: Duration = Duration::from_millis(100);

/// What was received.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When its head was there.
    pub at: UnixMs,
    pub method: String,
    /// With the query.
    pub target: String,
    /// In the order of the wire, names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Bytes,
}

impl Arrival {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name)?;
        Some(std::str::from_utf8(&found.1).expect("the header is text"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }
}

/// Lets held answers go, one permit each.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    pub fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    pub fn release(&self, answers: usize) {
        self.0.add_permits(answers);
    }
}

#[derive(Clone, Debug)]
enum Content {
    Bytes(Bytes),
    /// So many bytes, made as they are sent.
    Long(usize),
    /// A beginning, and then nothing for ever.
    Stalled(Bytes),
    /// A beginning, and then the connection ends.
    BrokenOff(Bytes),
    /// No answer at all: the connection ends.
    Nothing,
}

/// How a request is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    content: Content,
    gate: Option<Gate>,
}

impl Answer {
    fn of(status: u16, content: Content) -> Self {
        Self { status, headers: Vec::new(), content, gate: None }
    }

    pub fn status(status: u16) -> Self {
        Self::of(status, Content::Bytes(Bytes::new()))
    }

    pub fn body(status: u16, body: impl Into<Bytes>) -> Self {
        Self::of(status, Content::Bytes(body.into()))
    }

    /// A body of `len` times the letter `x`.
    pub fn long(status: u16, len: usize) -> Self {
        Self::of(status, Content::Long(len))
    }

    pub fn stalled(beginning: &'static str) -> Self {
        Self::of(200, Content::Stalled(beginning.into()))
    }

    /// A redirect whose body never ends.
    pub fn stalled_redirect(to: &str) -> Self {
        Self::of(302, Content::Stalled("it has".into())).header("location", to)
    }

    pub fn broken_off(beginning: &'static str) -> Self {
        Self::of(200, Content::BrokenOff(beginning.into()))
    }

    pub fn nothing() -> Self {
        Self::of(200, Content::Nothing)
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Waits for a permit of `gate` first.
    pub fn held(self, gate: &Gate) -> Self {
        Self { gate: Some(gate.clone()), ..self }
    }

    fn response(self) -> io::Result<Response<Body>> {
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        let body = match self.content {
            Content::Bytes(bytes) => Body::from(bytes),
            Content::Long(len) => {
                let pieces =
                    (0..len.div_ceil(PIECE)).map(move |at| Bytes::from(vec![b'x'; PIECE.min(len - at * PIECE)]));
                Body::from_stream(stream::iter(pieces.map(Ok::<_, Infallible>)))
            }
            Content::Stalled(beginning) => {
                Body::from_stream(stream::iter([Ok::<_, Infallible>(beginning)]).chain(stream::pending()))
            }
            Content::BrokenOff(beginning) => {
                let end = stream::once(async {
                    // The beginning goes out first.
                    tokio::time::sleep(FLUSHED).await;
                    Err(io::Error::other("broken off"))
                });
                Body::from_stream(stream::iter([Ok(beginning)]).chain(end))
            }
            Content::Nothing => return Err(io::Error::other("nothing")),
        };
        Ok(response.body(body).unwrap())
    }
}

#[derive(Default)]
struct Inner {
    /// The answers that are left of each path; the last one stays.
    scripts: HashMap<String, Vec<Answer>>,
    arrivals: HashMap<String, Vec<Arrival>>,
    connections: usize,
}

/// A server that receives callbacks.
pub struct Receiver {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
    total: watch::Sender<usize>,
}

impl Receiver {
    pub async fn start() -> Self {
        Self::with_clock(Arc::new(SystemClock)).await
    }

    /// Listens on every address of this machine: it is as many receivers as there are addresses.
    pub async fn start_on_all_addresses() -> Self {
        Self::listening_on("0.0.0.0:0", Arc::new(SystemClock)).await
    }

    /// Arrivals get the times of `clock`.
    pub async fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self::listening_on("127.0.0.1:0", clock).await
    }

    async fn listening_on(address: &str, clock: Arc<dyn Clock>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { clock, inner: Mutex::default(), total: watch::Sender::new(0) });
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { port, shared }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Answers requests for `path` with `answers`, one after the other, and then always with the last.
    pub fn on(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        let mut answers: Vec<_> = answers.into_iter().collect();
        answers.reverse();
        self.shared.lock().scripts.insert(path.to_owned(), answers);
    }

    /// How many requests for `path` have arrived.
    pub fn count(&self, path: &str) -> usize {
        self.shared.lock().arrivals.get(path).map_or(0, Vec::len)
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections
    }

    /// What has arrived for `path`.
    pub fn arrivals(&self, path: &str) -> Vec<Arrival> {
        self.shared.lock().arrivals.get(path).cloned().unwrap_or_default()
    }

    /// Waits until at least `count` requests for `path` have arrived.
    pub async fn arrived(&self, path: &str, count: usize) -> Vec<Arrival> {
        let mut total = self.shared.total.subscribe();
        let what = format!("{count} requests for {path} arrive");
        soon(&what, total.wait_for(|_| self.count(path) >= count)).await.expect("the receiver is there");
        self.arrivals(path)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn next_answer(&self, path: &str) -> Answer {
        match self.lock().scripts.get_mut(path) {
            Some(answers) if answers.len() > 1 => answers.pop().unwrap(),
            Some(answers) => answers[0].clone(),
            None => Answer::status(200),
        }
    }

    async fn answer(&self, request: Request<hyper::body::Incoming>) -> io::Result<Response<Body>> {
        let at = self.clock.now();
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(Body::new(body), usize::MAX).await.map_err(io::Error::other)?;
        let path = head.uri.path().to_owned();
        let header = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
            (name.as_str().to_owned(), value.as_bytes().to_vec())
        };
        let arrival = Arrival {
            at,
            method: head.method.to_string(),
            target: head.uri.to_string(),
            headers: head.headers.iter().map(header).collect(),
            body,
        };
        let answer = self.next_answer(&path);
        self.lock().arrivals.entry(path).or_default().push(arrival);
        self.total.send_modify(|total| *total += 1);
        if let Some(Gate(gate)) = &answer.gate {
            gate.acquire().await.map_err(io::Error::other)?.forget();
        }
        answer.response()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        shared.lock().connections += 1;
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| shared.answer(request));
            // A connection that ends early is what some answers are about.
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}
