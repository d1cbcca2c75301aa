//! Receiver of the benchmarks, in a process of its own: it responds at once, counts, and records how late each request is. It also plays a
//! slow receiver, and one that fails.
//!
//! It runs on one thread, prints its address as its first line, and ends when its standard input does: with its parent.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::body::{Body, to_bytes};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin, Command};

use carillon_core::clock::SystemClock;
use carillon_core::stats::percentile;

/// Hidden subcommand that makes this program a receiver.
pub const SUBCOMMAND: &str = "bench-sink";

/// Header with the due time of a request, in milliseconds since 1970.
pub(super) const RUN_AT_HEADER: &str = "bench-run-at";

/// Path that responds after [`SLOW`] and counts nothing.
pub(super) const SLOW_PATH: &str = "slow";

/// Path that responds with 500 and counts nothing.
pub(super) const FAIL_PATH: &str = "fail";

/// Response time of a slow receiver.
const SLOW: Duration = Duration::from_secs(2);

/// Maximum size of a body; no benchmark sends a larger one.
const BODY_LIMIT: usize = 64 << 20;

/// Requests that have arrived.
#[derive(Debug, Default)]
struct Arrivals {
    count: u64,
    late_us: Vec<i64>,
}

/// Counts and lateness of the requests.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    /// Number of requests.
    pub(super) count: u64,
    /// Number of requests that came before they were due.
    pub(super) early: u64,
    /// Lateness of the requests that state their due time, in milliseconds.
    pub(super) p50: f64,
    /// See `p50`.
    pub(super) p90: f64,
    /// See `p50`.
    pub(super) p99: f64,
    /// See `p50`.
    pub(super) max: f64,
}

impl Arrivals {
    fn tally(&self) -> Tally {
        let mut sorted = self.late_us.clone();
        sorted.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "a lateness is far below 2^52 µs")]
        let at = |percent| percentile(&sorted, percent).map_or(0.0, |us| us as f64 / 1_000.0);
        let early = sorted.iter().take_while(|us| **us < 0).count();
        Tally {
            count: self.count,
            early: u64::try_from(early).unwrap_or(u64::MAX),
            p50: at(50),
            p90: at(90),
            p99: at(99),
            max: at(100),
        }
    }
}

/// Entry of the child process.
pub fn main() -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(receive())
}

async fn receive() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    let arrivals = Arc::new(Mutex::new(Arrivals::default()));
    std::thread::spawn(|| {
        // Any result means that the parent is gone.
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        std::process::exit(0);
    });
    loop {
        let (stream, _) = listener.accept().await?;
        drop(stream.set_nodelay(true));
        let arrivals = Arc::clone(&arrivals);
        let service = service_fn(move |request| answer(Arc::clone(&arrivals), request));
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}

async fn answer(
    arrivals: Arc<Mutex<Arrivals>>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, Infallible> {
    let now = SystemClock.now_micros();
    let lock = || -> MutexGuard<'_, Arrivals> { arrivals.lock().unwrap_or_else(PoisonError::into_inner) };
    let mut answered = StatusCode::OK;
    let text = match (request.method(), request.uri().path().trim_start_matches('/')) {
        (_, SLOW_PATH) => {
            tokio::time::sleep(SLOW).await;
            String::new()
        }
        (_, FAIL_PATH) => {
            answered = StatusCode::INTERNAL_SERVER_ERROR;
            String::new()
        }
        (&Method::GET, _) => serde_json::to_string(&lock().tally()).unwrap_or_default(),
        (&Method::DELETE, _) => {
            *lock() = Arrivals::default();
            String::new()
        }
        _ => {
            let due = request.headers().get(RUN_AT_HEADER).and_then(|value| value.to_str().ok()?.parse::<i64>().ok());
            // A truncated body is not an arrival.
            if to_bytes(Body::new(request.into_body()), BODY_LIMIT).await.is_ok() {
                let mut arrivals = lock();
                arrivals.count += 1;
                arrivals.late_us.extend(due.map(|due| now - due * 1_000));
            }
            "ok".to_owned()
        }
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = answered;
    Ok(response)
}

/// Parent's side of the receiver.
#[derive(Debug)]
pub(super) struct Sink {
    /// URL of the receiver.
    pub(super) url: String,
    /// Id of its process.
    pub(super) pid: u32,
    http: reqwest::Client,
    _child: Child,
    _lifeline: Option<ChildStdin>,
}

impl Sink {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe()
            .context("the path of this program, which is also the receiver, cannot be determined")?;
        let mut child = Command::new(program)
            .arg(SUBCOMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the receiver does not start")?;
        let lifeline = child.stdin.take();
        let stdout = child.stdout.take().context("the receiver has no output")?;
        let address = BufReader::new(stdout).lines().next_line().await?.context("the receiver ended at once")?;
        let pid = child.id().context("the receiver ended at once")?;
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build()?;
        Ok(Self { url: format!("http://{address}/"), pid, http, _child: child, _lifeline: lifeline })
    }

    /// Returns the tally since the last [`Sink::reset`].
    pub(super) async fn tally(&self) -> anyhow::Result<Tally> {
        Ok(self.http.get(&self.url).send().await?.json().await?)
    }

    pub(super) async fn reset(&self) -> anyhow::Result<()> {
        self.http.delete(&self.url).send().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let arrivals = Arrivals { count: 4, late_us: vec![3_000, -1_000, 1_000, 2_000] };
        let tally = arrivals.tally();
        assert_eq!((tally.early, tally.p50, tally.p99, tally.max), (1, 1.0, 3.0, 3.0));
        assert_eq!(Arrivals::default().tally().max, 0.0);
    }
}
