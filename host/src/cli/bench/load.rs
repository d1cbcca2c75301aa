//! The workloads that go through a server: accepting jobs, delivering them, delivering them on time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use indicatif::ProgressBar;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::super::bodies::{JobInput, Payload};
use super::super::client::Client;
use super::server::{LOOK, Server, Usage};
use super::sink::{RUN_AT_HEADER, Sink};
use super::{Bench, Row};
use crate::clock::{Clock as _, Stopwatch, SystemClock, UnixMs};

/// Jobs in one request.
const BATCH: usize = 100;

/// Connections that send batches.
const BATCH_CONNECTIONS: usize = 16;

/// A job that is due so much later waits for the whole benchmark.
const NOT_NOW: &str = "+1h";

/// The same for a job that waits behind others in all workloads.
const ANOTHER_DAY: &str = "+30days";

/// How many of these are written at once.
const CHUNK: usize = 10_000;

/// How long before the first job is due the jobs of a timed workload are begun to be accepted.
const LEAD: Duration = Duration::from_secs(3);

/// A workload in which nothing has happened for so long is stuck.
const STUCK: Duration = Duration::from_secs(30);

impl Bench {
    /// Batches, and one job at a time, into an empty database; none is due.
    pub(super) async fn enqueue(&self, sink: &Sink) -> anyhow::Result<Vec<Row>> {
        let job = || Ok(JobInput { run_at: Some(json!(NOT_NOW)), ..self.job(sink) });
        let jobs = (0..self.jobs).map(|_| job()).collect::<anyhow::Result<Vec<_>>>()?;
        let mut rows = Vec::new();
        for (name, size, connections) in
            [("enqueue, batches of 100", BATCH, BATCH_CONNECTIONS), ("enqueue, one by one", 1, self.connections)]
        {
            let server = self.server().await?;
            let requests = requests(&jobs, size)?;
            let before = server.usage();
            let bar = self.bar(name, self.jobs)?;
            let elapsed = send(&server.clients, &server.group, requests, size, connections, &bar).await?;
            bar.finish_and_clear();
            rows.push(Row::new(name).rate(self.jobs, elapsed).server(before, server.usage()));
        }
        Ok(rows)
    }

    /// From the first request until every delivery has arrived and every job is `succeeded`.
    pub(super) async fn deliver(&self, sink: &Sink) -> anyhow::Result<Vec<Row>> {
        let server = self.server().await?;
        self.wait_behind(&server, sink).await?;
        let requests = requests(&vec![self.job(sink); self.jobs], BATCH)?;
        sink.reset().await?;
        let (before, sink_before) = (server.usage(), Usage::of(sink.pid));
        let bar = self.bar("deliver", self.jobs)?;
        let stopwatch = Stopwatch::start();
        let accepting = self.send_batches(&server, requests).await?;
        settled(&server, sink, self.jobs, &bar).await?;
        let elapsed = stopwatch.elapsed();
        bar.finish_and_clear();
        let tally = sink.tally().await?;
        ensure!(tally.count == self.jobs as u64, "{} deliveries arrived for {} jobs", tally.count, self.jobs);
        let row = Row::new("deliver, signed").rate(self.jobs, elapsed).server(before, server.usage());
        let row = row.figure("accepted_s", accepting.as_secs_f64());
        Ok(vec![row.figure("sink_cpu_s", Usage::of(sink.pid).cpu - sink_before.cpu)])
    }

    /// Jobs at distinct milliseconds, spread evenly; none may be early.
    pub(super) async fn lateness(&self, sink: &Sink) -> anyhow::Result<Vec<Row>> {
        let server = self.server().await?;
        self.wait_behind(&server, sink).await?;
        sink.reset().await?;
        let before = server.usage();
        let bar = self.bar("lateness", self.timed_jobs)?;
        self.send_timed(&server, sink).await?;
        settled(&server, sink, self.timed_jobs, &bar).await?;
        bar.finish_and_clear();
        Ok(vec![self.timed(Row::new("lateness"), sink).await?.server(before, server.usage())])
    }

    /// The same while another tenant has a backlog that is due. The order of the jobs of both is the store's and the loop's to find.
    pub(super) async fn fairness(&self, sink: &Sink) -> anyhow::Result<Vec<Row>> {
        let server = self.server().await?;
        let other = server.other_tenant().await?;
        let bar = self.bar("fairness: the backlog", self.backlog)?;
        let backlog = requests(&vec![self.job(sink); self.backlog], BATCH)?;
        send(&other, &server.group, backlog, BATCH, BATCH_CONNECTIONS, &bar).await?;
        sink.reset().await?;
        let before = server.usage();
        self.send_timed(&server, sink).await?;
        other[0].act(&["groups", &server.group, "resume"]).await?;
        while server.client().stats(&server.group).await?.succeeded < self.timed_jobs as u64 {
            bar.set_position(sink.tally().await?.count);
            tokio::time::sleep(LOOK).await;
        }
        let left = other[0].stats(&server.group).await?.available;
        ensure!(left > 0, "the backlog was worked off before the last timed job: make it larger");
        bar.finish_and_clear();
        let row = self.timed(Row::new("lateness beside a backlog"), sink).await?.server(before, server.usage());
        let others = sink.tally().await?.count - self.timed_jobs as u64;
        #[expect(clippy::cast_precision_loss, reason = "a benchmark has far less than 2^52 jobs")]
        Ok(vec![row.figure("per_second", (others as f64 / self.timed_spread.as_secs_f64()).round())])
    }

    async fn server(&self) -> anyhow::Result<Server> {
        Server::start(&self.dir, self.store.as_deref(), self.nodes).await
    }

    /// Jobs in another group that are due on another day.
    async fn wait_behind(&self, server: &Server, sink: &Sink) -> anyhow::Result<()> {
        if self.waiting == 0 {
            return Ok(());
        }
        let bar = self.bar("what waits", self.waiting)?;
        let job = JobInput { run_at: Some(json!(ANOTHER_DAY)), ..self.job(sink) };
        let group = format!("{}-waiting", server.group);
        server.client().put_group(&group, &json!({}), None).await?;
        // The requests of all of them would not fit into memory.
        let chunk = requests(&vec![job; CHUNK.min(self.waiting)], BATCH)?;
        for _ in 0..self.waiting.div_ceil(CHUNK) {
            send(&server.clients[..1], &group, chunk.clone(), BATCH, BATCH_CONNECTIONS, &bar).await?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    async fn send_batches(&self, server: &Server, requests: Vec<Box<RawValue>>) -> anyhow::Result<Duration> {
        send(&server.clients, &server.group, requests, BATCH, BATCH_CONNECTIONS, &ProgressBar::hidden()).await
    }

    async fn send_timed(&self, server: &Server, sink: &Sink) -> anyhow::Result<()> {
        let (count, spread) = (self.timed_jobs, self.timed_spread);
        let step = u64::try_from(spread.as_millis())? / u64::try_from(count)?.max(1);
        ensure!(step > 0, "{count} jobs have no distinct milliseconds in {}", humantime::format_duration(spread));
        let first = SystemClock.now().plus(LEAD);
        let at = |index| first.plus(Duration::from_millis(index * step));
        let jobs: Vec<_> = (0..count as u64).map(|index| self.timed_job(sink, at(index))).collect();
        self.send_batches(server, requests(&jobs, BATCH)?).await?;
        ensure!(SystemClock.now() < first, "the jobs were not accepted before the first of them was due");
        Ok(())
    }

    async fn timed(&self, row: Row, sink: &Sink) -> anyhow::Result<Row> {
        let (tally, count) = (sink.tally().await?, self.timed_jobs);
        if tally.early > 0 {
            bail!("{} of {count} jobs were delivered before they were due", tally.early);
        }
        let row = row.count(count).figure("p50_ms", tally.p50).figure("p90_ms", tally.p90);
        Ok(row.figure("p99_ms", tally.p99).figure("max_ms", tally.max))
    }

    pub(super) fn job(&self, sink: &Sink) -> JobInput {
        let payload = Some(Payload::Text("x".repeat(self.payload_bytes)));
        JobInput { url: Some(sink.url.clone()), payload, ..JobInput::default() }
    }

    fn timed_job(&self, sink: &Sink, at: UnixMs) -> JobInput {
        let headers = BTreeMap::from([(RUN_AT_HEADER.to_owned(), at.0.to_string())]);
        JobInput { run_at: Some(Value::from(at.to_string())), headers, ..self.job(sink) }
    }
}

/// The bodies of the requests, written before the clock runs.
fn requests(jobs: &[JobInput], size: usize) -> anyhow::Result<Vec<Box<RawValue>>> {
    let body = |jobs: &[JobInput]| match jobs {
        [job] if size == 1 => serde_json::value::to_raw_value(job),
        jobs => serde_json::value::to_raw_value(&json!({ "jobs": jobs })),
    };
    Ok(jobs.chunks(size).map(body).collect::<Result<_, _>>()?)
}

/// Sends `requests` of `size` jobs over `connections` connections to the servers in turn, and gives the time until the last is answered.
async fn send(
    clients: &[Client],
    group: &str,
    requests: Vec<Box<RawValue>>,
    size: usize,
    connections: usize,
    bar: &ProgressBar,
) -> anyhow::Result<Duration> {
    let path: &[&str] = if size == 1 { &["jobs"] } else { &["jobs", "batch"] };
    let path: Arc<[String]> = ["groups", group].iter().chain(path).map(|part| (*part).to_owned()).collect();
    let queue = Arc::new(Mutex::new(requests.into_iter()));
    let stopwatch = Stopwatch::start();
    let mut senders = JoinSet::new();
    for client in clients.iter().cycle().take(connections) {
        let (client, path, queue, bar) = (client.clone(), Arc::clone(&path), Arc::clone(&queue), bar.clone());
        senders.spawn(async move {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(body) = next else { return anyhow::Ok(()) };
                client.post::<IgnoredAny>(&path, &body).await?;
                bar.inc(size as u64);
            }
        });
    }
    while let Some(sender) = senders.join_next().await {
        sender.context("a sender failed")??;
    }
    Ok(stopwatch.elapsed())
}

/// Returns when `count` requests have arrived and as many jobs are `succeeded`.
async fn settled(server: &Server, sink: &Sink, count: usize, bar: &ProgressBar) -> anyhow::Result<()> {
    let (client, group) = (server.client(), &server.group);
    let (mut seen, mut since) = (0, Stopwatch::start());
    loop {
        let arrived = sink.tally().await?.count;
        bar.set_position(arrived);
        let succeeded = if arrived < count as u64 { 0 } else { client.stats(group).await?.succeeded };
        if succeeded == count as u64 {
            return Ok(());
        }
        if seen < arrived + succeeded {
            (seen, since) = (arrived + succeeded, Stopwatch::start());
        }
        if since.elapsed() > STUCK {
            let stats = client.stats(group).await?;
            bail!("nothing happens any more: {arrived} of {count} deliveries arrived, and the jobs are {stats:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
}
