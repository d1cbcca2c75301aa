//! Workloads that go through a server at maximum speed: accepting jobs and delivering them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use indicatif::ProgressBar;
use serde::de::IgnoredAny;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::task::JoinSet;

use super::server::{LOOK, Server, Usage};
use super::sink::Sink;
use super::{Bench, Row, all};
use carillon_client::Client;
use carillon_client::bodies::{JobInput, Payload};
use carillon_core::clock::Stopwatch;

/// Jobs in one request.
const BATCH: usize = 100;

/// Connections that send batches.
const BATCH_CONNECTIONS: usize = 16;

/// Due time of a job that waits for the whole benchmark.
const NOT_NOW: &str = "+1h";

/// Due time of a job that waits behind others in all workloads.
const ANOTHER_DAY: &str = "+30days";

/// Number of these jobs that are serialized at once.
const CHUNK: usize = 10_000;

/// Time without progress after which a workload counts as stuck.
const STUCK: Duration = Duration::from_secs(30);

/// Way to submit jobs.
struct Way {
    name: &'static str,
    /// Jobs in a request.
    size: usize,
    connections: usize,
}

impl Bench {
    fn ways(&self) -> [Way; 2] {
        let way = |name, size, connections| Way { name, size, connections };
        [way("batches of 100", BATCH, BATCH_CONNECTIONS), way("one by one", 1, self.connections)]
    }

    /// Submits batches, and single jobs, to an empty database; none is due.
    pub(super) async fn enqueue(&self, sink: &Sink) -> anyhow::Result<Vec<Row>> {
        let jobs = vec![JobInput { run_at: Some(json!(NOT_NOW)), ..self.job(sink) }; self.jobs];
        let mut rows = Vec::new();
        for Way { name, size, connections } in self.ways() {
            let server = self.server().await?;
            let requests = requests(&jobs, size)?;
            let before = server.usage();
            let bar = self.bar("enqueue", self.jobs)?;
            let elapsed = send(&server.clients, &[&server.group], requests, size, connections, &bar).await?;
            bar.finish_and_clear();
            rows.push(Row::new(&format!("enqueue, {name}")).rate(self.jobs, elapsed).server(before, server.usage()));
        }
        Ok(rows)
    }

    /// Submits the same jobs, due at once, and measures from the first request until every delivery has arrived and every job is `succeeded`.
    /// A machine's speed varies, so each way runs between two bare loops, and is compared with these.
    pub(super) async fn deliver(&self, sink: &Sink) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        let mut before = self.bare_loop(sink).await?.per_second();
        for way in self.ways() {
            let row = self.delivered(&way, sink).await?;
            let after = self.bare_loop(sink).await?.per_second();
            let percent = 100.0 * row.per_second() / before.midpoint(after);
            rows.push(row.figure("of_bare_loop_percent", percent));
            before = after;
        }
        Ok(rows)
    }

    async fn delivered(&self, Way { name, size, connections }: &Way, sink: &Sink) -> anyhow::Result<Row> {
        let server = self.server().await?;
        self.wait_behind(&server, sink).await?;
        let requests = requests(&vec![self.job(sink); self.jobs], *size)?;
        sink.reset().await?;
        let (before, sink_before) = (server.usage(), Usage::for_process(sink.pid));
        let bar = self.bar("deliver", self.jobs)?;
        let stopwatch = Stopwatch::start();
        let accepted = ProgressBar::hidden();
        let accepting = send(&server.clients, &[&server.group], requests, *size, *connections, &accepted).await?;
        settled(&server, sink, self.jobs, LOOK, &bar).await?;
        let elapsed = stopwatch.elapsed();
        bar.finish_and_clear();
        let tally = sink.tally().await?;
        ensure!(tally.count == self.jobs as u64, "{} deliveries arrived for {} jobs", tally.count, self.jobs);
        let row = Row::new(&format!("deliver, signed; {name}")).rate(self.jobs, elapsed).server(before, server.usage());
        let row = row.figure("accepted_s", accepting.as_secs_f64());
        Ok(row.figure("sink_cpu_s", Usage::for_process(sink.pid).cpu - sink_before.cpu))
    }

    /// Submits jobs to `groups` groups in turn; returns the time until every delivery has arrived.
    pub(super) async fn delivered_over(&self, groups: usize, sink: &Sink) -> anyhow::Result<Duration> {
        let server = self.server().await?;
        self.wait_behind(&server, sink).await?;
        let names = server.more_groups(groups).await?;
        let bar = self.bar("growth", self.jobs)?;
        let size = BATCH.min(self.jobs.div_ceil(groups));
        let batches = requests(&vec![self.job(sink); self.jobs], size)?;
        sink.reset().await?;
        let stopwatch = Stopwatch::start();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        send(&server.clients, &names, batches, size, BATCH_CONNECTIONS, &ProgressBar::hidden()).await?;
        arrived(sink, self.jobs, LOOK, &bar).await?;
        bar.finish_and_clear();
        Ok(stopwatch.elapsed())
    }

    pub(super) async fn server(&self) -> anyhow::Result<Server> {
        Server::start(&self.dir, self.store.as_deref(), self.nodes).await
    }

    /// Submits jobs to another group that are due on another day.
    pub(super) async fn wait_behind(&self, server: &Server, sink: &Sink) -> anyhow::Result<()> {
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
            send(&server.clients[..1], &[&group], chunk.clone(), BATCH, BATCH_CONNECTIONS, &bar).await?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Submits the jobs of a group, in batches.
    pub(super) async fn send_batches(
        &self,
        clients: &[Client],
        group: &str,
        jobs: &[JobInput],
        bar: &ProgressBar,
    ) -> anyhow::Result<Duration> {
        send(clients, &[group], requests(jobs, BATCH)?, BATCH, BATCH_CONNECTIONS, bar).await
    }

    pub(super) fn payload(&self) -> Payload {
        Payload::Text("x".repeat(self.payload_bytes))
    }

    pub(super) fn job(&self, sink: &Sink) -> JobInput {
        JobInput { url: Some(sink.url.clone()), payload: Some(self.payload()), ..JobInput::default() }
    }
}

/// Makes the bodies of the requests, before the measurement.
fn requests(jobs: &[JobInput], size: usize) -> anyhow::Result<Vec<Box<RawValue>>> {
    let body = |jobs: &[JobInput]| match jobs {
        [job] if size == 1 => serde_json::value::to_raw_value(job),
        jobs => serde_json::value::to_raw_value(&json!({ "jobs": jobs })),
    };
    Ok(jobs.chunks(size).map(body).collect::<Result<_, _>>()?)
}

/// Sends `requests` of `size` jobs to the groups in turn, over `connections` connections to the servers in turn, and returns the time until
/// the last response.
async fn send(
    clients: &[Client],
    groups: &[&str],
    requests: Vec<Box<RawValue>>,
    size: usize,
    connections: usize,
    bar: &ProgressBar,
) -> anyhow::Result<Duration> {
    let path: &[&str] = if size == 1 { &["jobs"] } else { &["jobs", "batch"] };
    let path = |group: &&str| ["groups", group].iter().chain(path).map(|part| (*part).to_owned()).collect();
    let paths: Arc<[Vec<String>]> = groups.iter().map(path).collect();
    let queue = Arc::new(Mutex::new(requests.into_iter().enumerate()));
    let stopwatch = Stopwatch::start();
    let mut senders = JoinSet::new();
    for client in clients.iter().cycle().take(connections) {
        let (client, paths, queue, bar) = (client.clone(), Arc::clone(&paths), Arc::clone(&queue), bar.clone());
        senders.spawn(async move {
            let paths: Vec<Vec<&str>> = paths.iter().map(|path| path.iter().map(String::as_str).collect()).collect();
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((number, body)) = next else { return anyhow::Ok(()) };
                client.post::<IgnoredAny>(&paths[number % paths.len()], &body).await?;
                bar.inc(size as u64);
            }
        });
    }
    all(senders).await?;
    Ok(stopwatch.elapsed())
}

/// Waits until `count` requests have arrived.
pub(super) async fn arrived(sink: &Sink, count: usize, look: Duration, bar: &ProgressBar) -> anyhow::Result<()> {
    let arrivals = async || {
        let count = sink.tally().await?.count;
        bar.set_position(count);
        Ok(count)
    };
    reached(count, "deliveries arrived", look, arrivals).await
}

/// Waits until `count` requests have arrived and as many jobs of the server's group are `succeeded`.
pub(super) async fn settled(
    server: &Server,
    sink: &Sink,
    count: usize,
    look: Duration,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    arrived(sink, count, look, bar).await?;
    succeeded(server.client(), &server.group, count, look).await
}

/// Waits until `count` jobs of a group are `succeeded`.
pub(super) async fn succeeded(client: &Client, group: &str, count: usize, look: Duration) -> anyhow::Result<()> {
    reached(count, "jobs are `succeeded`", look, async || Ok(client.stats(group).await?.succeeded)).await
}

/// Waits until `count` is reached. Each poll takes time from the measured work.
async fn reached(
    count: usize,
    what: &str,
    look: Duration,
    progress: impl AsyncFn() -> anyhow::Result<u64>,
) -> anyhow::Result<()> {
    let (mut seen, mut since) = (0, Stopwatch::start());
    loop {
        let now = progress().await?;
        if now >= count as u64 {
            return Ok(());
        }
        if seen < now {
            (seen, since) = (now, Stopwatch::start());
        }
        ensure!(since.elapsed() < STUCK, "no progress any more: {now} of {count} {what}");
        tokio::time::sleep(look).await;
    }
}
