//! Best figures of the same machine in the same run, with which the other figures are compared.

use std::fs::File;
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use hyper::Method;
use hyper::header::{HeaderMap, HeaderName};
use ipnet::IpNet;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use url::Url;

use super::sink::{RUN_AT_HEADER, Sink};
use super::timed::timed;
use super::{Bench, Row, all};
use carillon_config::{Config, Egress, Sources};
use carillon_core::clock::{Clock as _, Stopwatch, SystemClock};
use carillon_core::job::{GroupId, TenantId};
use carillon_engine::delivery::egress::Guard;
use carillon_engine::delivery::send::{Answer, Outgoing, Requester, Sender};
use carillon_engine::files::FileShares;
use carillon_policy::binding::Redirects;

/// Maximum length of a response of the receiver.
const ANSWER_LEN: usize = 4 << 10;

/// Maximum duration of one request to the sink.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Rows in one transaction.
const INSERT_ROWS: usize = 1_000;

/// Number of flushes, of which the median counts.
const FLUSHES: usize = 101;

impl Bench {
    /// Measures the receiver, a loop around the deliveries' HTTP client, inserts into SQLite, and a flush of the disk.
    pub(super) async fn limits(&self, sink: &Sink) -> anyhow::Result<Vec<Row>> {
        Ok(vec![self.raw_loop(sink).await?, self.bare_loop(sink).await?, self.inserts().await?, self.flush()?])
    }

    /// Sends the same bytes repeatedly and reads as many bytes of a response: no client could do less.
    async fn raw_loop(&self, sink: &Sink) -> anyhow::Result<Row> {
        let url = Url::parse(&sink.url)?;
        let address = *url.socket_addrs(|| None)?.first().context("the receiver has no address")?;
        let body = "x".repeat(self.payload_bytes);
        let request = format!("POST / HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let (request, left) = (Arc::new(request), Arc::new(AtomicUsize::new(self.jobs)));
        let stopwatch = Stopwatch::start();
        let mut loops = JoinSet::new();
        for _ in 0..self.connections {
            let (request, left) = (Arc::clone(&request), Arc::clone(&left));
            loops.spawn(async move {
                let mut stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let mut answer = vec![0; ANSWER_LEN];
                let mut len = None;
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    stream.write_all(request.as_bytes()).await?;
                    match len {
                        // All responses have one length, which the first one shows.
                        None => len = Some(stream.read(&mut answer).await?),
                        Some(len) => _ = stream.read_exact(&mut answer[..len]).await?,
                    }
                }
                anyhow::Ok(())
            });
        }
        all(loops).await?;
        Ok(Row::new("limit: the receiver").rate(self.jobs, stopwatch.elapsed()))
    }

    /// Inserts rows of an id and a payload, as many in a transaction as a batch of the server has, each transaction flushed.
    async fn inserts(&self) -> anyhow::Result<Row> {
        let directory = tempfile::Builder::new().prefix("carillon-bench-").tempdir_in(&self.dir)?;
        let options = SqliteConnectOptions::new()
            .filename(directory.path().join("rows.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let mut connection = options.connect().await?;
        sqlx::query("CREATE TABLE row (id INTEGER PRIMARY KEY, body TEXT NOT NULL)").execute(&mut connection).await?;
        let body = "x".repeat(self.payload_bytes);
        let places = vec!["(?)"; INSERT_ROWS].join(",");
        let sql = format!("INSERT INTO row (body) VALUES {places}");
        let batches = self.jobs.div_ceil(INSERT_ROWS);
        let stopwatch = Stopwatch::start();
        for _ in 0..batches {
            let query = sqlx::query(sqlx::AssertSqlSafe(sql.as_str()));
            (0..INSERT_ROWS).fold(query, |query, _| query.bind(body.as_str())).execute(&mut connection).await?;
        }
        let row = Row::new("limit: SQLite, rows in batches of 1,000").rate(batches * INSERT_ROWS, stopwatch.elapsed());
        connection.close().await?;
        Ok(row)
    }

    /// Measures the deliveries' HTTP client alone: no policy, no store.
    pub(super) async fn bare_loop(&self, sink: &Sink) -> anyhow::Result<Row> {
        let bar = self.bar("bare HTTP loop", self.jobs)?;
        let (sender, url) = (sender()?, Url::parse(&sink.url)?);
        let (left, body) = (Arc::new(AtomicUsize::new(self.jobs)), Bytes::from(vec![b'x'; self.payload_bytes]));
        let stopwatch = Stopwatch::start();
        let mut loops = JoinSet::new();
        for _ in 0..self.connections {
            let (sender, url, left, body, bar) =
                (sender.clone(), url.clone(), Arc::clone(&left), body.clone(), bar.clone());
            loops.spawn(async move {
                let take = |left: usize| left.checked_sub(1);
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                    answered(&sender, request(&url, HeaderMap::new(), &body)).await?;
                    bar.inc(1);
                }
                anyhow::Ok(())
            });
        }
        all(loops).await?;
        let elapsed = stopwatch.elapsed();
        bar.finish_and_clear();
        Ok(Row::new("limit: bare HTTP loop").rate(self.jobs, elapsed))
    }

    /// Measures the lateness of the same client: requests at the times of the jobs that measure lateness, without lookups, decisions or
    /// writes.
    pub(super) async fn bare_timed(&self, sink: &Sink) -> anyhow::Result<Row> {
        let bar = self.bar("bare requests on time", self.timed_jobs)?;
        let (sender, url) = (sender()?, Url::parse(&sink.url)?);
        let body = Bytes::from(vec![b'x'; self.payload_bytes]);
        sink.reset().await?;
        let mut requests = JoinSet::new();
        for at in self.moments()? {
            let (sender, url, body, bar) = (sender.clone(), url.clone(), body.clone(), bar.clone());
            requests.spawn(async move {
                SystemClock.sleep_until(at).await;
                let headers = HeaderMap::from_iter([(HeaderName::from_static(RUN_AT_HEADER), at.0.into())]);
                answered(&sender, request(&url, headers, &body)).await?;
                bar.inc(1);
                anyhow::Ok(())
            });
        }
        all(requests).await?;
        bar.finish_and_clear();
        timed(Row::new("limit: bare requests on time"), self.timed_jobs, sink).await
    }

    /// Measures a flush, for which a commit waits: on a disk that flushes quickly, durability costs little.
    fn flush(&self) -> anyhow::Result<Row> {
        let path = tempfile::Builder::new().prefix("carillon-bench-").tempdir_in(&self.dir)?;
        let mut file = File::create(path.path().join("flush"))?;
        let mut times = Vec::with_capacity(FLUSHES);
        for _ in 0..FLUSHES {
            let stopwatch = Stopwatch::start();
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
            times.push(stopwatch.elapsed());
        }
        times.sort_unstable();
        Ok(Row::new("limit: flush of 4 KiB").figure("call_us", times[FLUSHES / 2].as_secs_f64() * 1e6))
    }
}

/// Makes the deliveries' HTTP client with default settings, except that it may reach the sink.
fn sender() -> anyhow::Result<Sender> {
    let config = Config::load(Sources::default())?;
    let egress = Egress { allow: vec![IpNet::from(IpAddr::from([127, 0, 0, 1]))], ..config.egress };
    Sender::new(&config.delivery, Guard::new(&egress), FileShares::of_process())
}

fn request(url: &Url, headers: HeaderMap, body: &Bytes) -> Outgoing {
    Outgoing {
        method: Method::POST,
        url: url.clone(),
        headers,
        auth_headers: Vec::new(),
        client_key: None,
        bound_keys: Vec::new(),
        egress: None,
        body: body.clone(),
        timeout: TIMEOUT,
        redirects: Redirects::default(),
    }
}

async fn answered(sender: &Sender, request: Outgoing) -> anyhow::Result<()> {
    let requester = Requester { tenant: TenantId(0), group: GroupId(0) };
    match sender.send(requester, request).await?.answer {
        Answer::Response { .. } => Ok(()),
        Answer::Failure { message, .. } => anyhow::bail!("the receiver does not respond: {message}"),
    }
}
