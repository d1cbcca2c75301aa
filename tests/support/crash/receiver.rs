//! Who is called back: remembers every request, and answers as the path says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use carillon_core::clock::{Clock as _, SystemClock, UnixMs};
use tokio::sync::watch;

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub at: UnixMs,
    pub key: String,
    pub job: String,
    pub attempt: u64,
    pub body: Vec<u8>,
    pub answer: u16,
}

/// Receives on a port of its own. `/fails/<n>/<ms>` refuses the first `n` requests of each job, and takes `<ms>` over each.
#[derive(Clone)]
pub struct Receiver {
    pub base: String,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    counts: Arc<Mutex<HashMap<String, u64>>>,
    hold: Arc<Hold>,
}

/// Requests that get no answer for as long as the receiver holds them.
struct Hold {
    is_held: watch::Sender<bool>,
    held: watch::Sender<usize>,
}

impl Default for Hold {
    fn default() -> Self {
        Self { is_held: watch::Sender::new(false), held: watch::Sender::new(0) }
    }
}

impl Hold {
    async fn pass(&self) {
        let mut is_held = self.is_held.subscribe();
        if *is_held.borrow() {
            self.held.send_modify(|held| *held += 1);
            is_held.wait_for(|is_held| !is_held).await.unwrap();
        }
    }
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let receiver = Self { base, arrivals: Arc::default(), counts: Arc::default(), hold: Arc::default() };
        let router = axum::Router::new().fallback(answer).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        receiver
    }

    pub fn url(&self, fails: u64, delay: u64) -> String {
        format!("{}/fails/{fails}/{delay}", self.base)
    }

    /// Answers nothing from now on, and returns when a request waits for its answer: its attempt is under way.
    pub async fn hold(&self) {
        self.hold.held.send_replace(0);
        self.hold.is_held.send_replace(true);
        self.hold.held.subscribe().wait_for(|held| *held > 0).await.unwrap();
    }

    /// Answers what was held, and everything from now on.
    pub fn release(&self) {
        self.hold.is_held.send_replace(false);
    }

    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().unwrap().clone()
    }
}

async fn answer(State(receiver): State<Receiver>, request: Request) -> StatusCode {
    let at = SystemClock.now();
    let (head, body) = request.into_parts();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    let (key, job, attempt) = (header("idempotency-key"), header("carillon-job-id"), header("carillon-attempt"));
    let mut numbers = head.uri.path().split('/').skip(2).map(|text| text.parse().unwrap());
    let (fails, delay): (u64, u64) = (numbers.next().unwrap(), numbers.next().unwrap());
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else { return StatusCode::BAD_REQUEST };
    let count = {
        let mut counts = receiver.counts.lock().unwrap();
        let count = counts.entry(key.clone()).or_default();
        *count += 1;
        *count
    };
    let status = if count <= fails { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let attempt = attempt.parse().unwrap();
    let arrival = Arrival { at, key, job, attempt, body: body.to_vec(), answer: status.as_u16() };
    receiver.arrivals.lock().unwrap().push(arrival);
    receiver.hold.pass().await;
    tokio::time::sleep(Duration::from_millis(delay)).await;
    status
}
