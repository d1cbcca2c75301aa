//! Workloads that measure lateness: jobs at distinct milliseconds, with and without other work of the server.
//!
//! The receiver measures lateness: from the due time that a job states to the arrival of its request. None may be early.

use std::time::Duration;

use anyhow::{bail, ensure};
use indicatif::ProgressBar;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::load::{settled, succeeded};
use super::server::Server;
use super::sink::{FAIL_PATH, RUN_AT_HEADER, SLOW_PATH, Sink};
use super::{Bench, Row};
use carillon_client::Client;
use carillon_client::bodies::{Headers, JobInput};
use carillon_core::clock::{Clock as _, Stopwatch, SystemClock, UnixMs};

/// Time between the submission of a timed workload's first job and its due time.
const LEAD: Duration = Duration::from_secs(3);

/// Pause between two progress polls. It is long because these workloads measure single milliseconds, and each poll takes some of that time.
const RARE_LOOK: Duration = Duration::from_millis(500);

/// Period in which other jobs are submitted while timed jobs are delivered.
const TICK: Duration = Duration::from_millis(20);

/// Groups of the workload `sick`; the receivers of the last two, a tenth, are slow or fail.
const GROUPS: usize = 20;

impl Bench {
    /// Measures without other work. A machine has a lateness of its own, so bare requests are measured first.
    pub(super) async fn lateness(&self, sink: &Sink) -> anyhow::Result<Vec<Row>> {
        let bare = self.bare_timed(sink).await?;
        let server = self.server().await?;
        self.wait_behind(&server, sink).await?;
        sink.reset().await?;
        let before = server.usage();
        let bar = self.bar("lateness", self.timed_jobs)?;
        self.send_timed(&server, std::slice::from_ref(&server.group), |_| sink.url.clone()).await?;
        settled(&server, sink, self.timed_jobs, RARE_LOOK, &bar).await?;
        bar.finish_and_clear();
        let row = timed(Row::new("lateness"), self.timed_jobs, sink).await?;
        Ok(vec![bare, row.server(before, server.usage())])
    }

    /// Measures while other jobs of the same tenant are accepted and delivered at once, at a steady rate.
    pub(super) async fn busy(&self, sink: &Sink) -> anyhow::Result<Vec<Row>> {
        let server = self.server().await?;
        let others = server.more_groups(1).await?.remove(0);
        sink.reset().await?;
        let before = server.usage();
        let bar = self.bar("lateness while others run", self.timed_jobs)?;
        self.send_timed(&server, std::slice::from_ref(&server.group), |_| sink.url.clone()).await?;
        tokio::time::sleep(LEAD / 2).await;
        let stopwatch = Stopwatch::start();
        tokio::select! {
            ended = succeeded(server.client(), &server.group, self.timed_jobs, RARE_LOOK) => ended?,
            failed = self.steady(server.client(), &others, self.job(sink)) => return failed.map(|()| Vec::new()),
        }
        let others = self.others_rate(stopwatch.elapsed(), sink).await?;
        bar.finish_and_clear();
        let row = timed(Row::new("lateness while others run"), self.timed_jobs, sink).await?;
        Ok(vec![row.figure("others_per_second", others).server(before, server.usage())])
    }

    /// Posts jobs to a group at a steady rate, or as fast as they are accepted. It ends only with an error.
    async fn steady(&self, client: &Client, group: &str, job: JobInput) -> anyhow::Result<()> {
        let batch = usize::try_from(self.others as u128 * TICK.as_millis() / 1_000)?.max(1);
        let body = json!({ "jobs": vec![job; batch] });
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            client.post::<IgnoredAny>(&["groups", group, "jobs", "batch"], &body).await?;
        }
    }

    /// Measures the lateness of other groups while a tenth of the groups have receivers that take two seconds, or fail.
    pub(super) async fn sick(&self, sink: &Sink) -> anyhow::Result<Vec<Row>> {
        let (server, sick) = (self.server().await?, Sink::start().await?);
        let groups = server.more_groups(GROUPS).await?;
        let (slow, fail) = (format!("{}{SLOW_PATH}", sick.url), format!("{}{FAIL_PATH}", sick.url));
        let target = |group: usize| match group {
            _ if group == GROUPS - 2 => slow.clone(),
            _ if group == GROUPS - 1 => fail.clone(),
            _ => sink.url.clone(),
        };
        sink.reset().await?;
        let before = server.usage();
        let bar = self.bar("lateness beside sick receivers", self.timed_jobs)?;
        self.send_timed(&server, &groups, target).await?;
        let mut healthy = 0;
        for (number, group) in groups.iter().enumerate().take(GROUPS - 2) {
            let count = self.timed_jobs / GROUPS + usize::from(number < self.timed_jobs % GROUPS);
            succeeded(server.client(), group, count, RARE_LOOK).await?;
            healthy += count;
            bar.set_position(healthy as u64);
        }
        bar.finish_and_clear();
        let row = timed(Row::new("lateness beside sick receivers"), healthy, sink).await?;
        Ok(vec![row.server(before, server.usage())])
    }

    /// Measures while another tenant has a due backlog. The store and the dispatcher determine the order of both tenants' jobs.
    pub(super) async fn fairness(&self, sink: &Sink) -> anyhow::Result<Vec<Row>> {
        let server = self.server().await?;
        let other = server.other_tenant().await?;
        let bar = self.bar("fairness: the backlog", self.backlog)?;
        self.send_batches(&other, &server.group, &vec![self.job(sink); self.backlog], &bar).await?;
        bar.finish_and_clear();
        sink.reset().await?;
        let before = server.usage();
        self.send_timed(&server, std::slice::from_ref(&server.group), |_| sink.url.clone()).await?;
        let stopwatch = Stopwatch::start();
        other[0].act(&["groups", &server.group, "resume"]).await?;
        succeeded(server.client(), &server.group, self.timed_jobs, RARE_LOOK).await?;
        let others = self.others_rate(stopwatch.elapsed(), sink).await?;
        let left = other[0].stats(&server.group).await?.available;
        ensure!(left > 0, "the backlog was empty before the last timed job ended: increase --backlog");
        let row = timed(Row::new("lateness beside a backlog"), self.timed_jobs, sink).await?;
        Ok(vec![row.figure("others_per_second", others).server(before, server.usage())])
    }

    /// Returns how many jobs other than the timed ones arrived in each second of `elapsed`.
    async fn others_rate(&self, elapsed: Duration, sink: &Sink) -> anyhow::Result<f64> {
        let others = sink.tally().await?.count.saturating_sub(self.timed_jobs as u64);
        #[expect(clippy::cast_precision_loss, reason = "a benchmark has far less than 2^52 jobs")]
        Ok((others as f64 / elapsed.as_secs_f64()).round())
    }

    /// Submits jobs that are due at distinct milliseconds, for each of the groups in turn; `target` returns a group's URL.
    async fn send_timed(
        &self,
        server: &Server,
        groups: &[String],
        target: impl Fn(usize) -> String,
    ) -> anyhow::Result<()> {
        let moments = self.moments()?;
        for (number, group) in groups.iter().enumerate() {
            let url = target(number);
            let moments = moments.iter().skip(number).step_by(groups.len());
            let jobs: Vec<_> = moments.map(|at| self.timed_job(url.clone(), *at)).collect();
            self.send_batches(&server.clients, group, &jobs, &ProgressBar::hidden()).await?;
        }
        let first = moments.first().copied().unwrap_or(UnixMs::MAX);
        ensure!(SystemClock.now() < first, "the timed jobs were not accepted before the first of them was due");
        Ok(())
    }

    /// Returns the due times of the jobs whose lateness is measured: at distinct milliseconds, from [`LEAD`] from now on.
    pub(super) fn moments(&self) -> anyhow::Result<Vec<UnixMs>> {
        let (count, spread) = (self.timed_jobs, self.timed_spread);
        let step = u64::try_from(spread.as_millis())? / u64::try_from(count)?.max(1);
        ensure!(step > 0, "{count} jobs have no distinct milliseconds in {}", carillon_core::duration::format(spread));
        let first = SystemClock.now().plus(LEAD);
        Ok((0..count as u64).map(|index| first.plus(Duration::from_millis(index * step))).collect())
    }

    fn timed_job(&self, url: String, at: UnixMs) -> JobInput {
        let headers = Headers(vec![(RUN_AT_HEADER.to_owned(), at.0.to_string())]);
        JobInput {
            url: Some(url),
            run_at: Some(Value::from(at.to_string())),
            headers,
            payload: Some(self.payload()),
            ..JobInput::default()
        }
    }
}

/// Measures the lateness of `count` jobs.
pub(super) async fn timed(row: Row, count: usize, sink: &Sink) -> anyhow::Result<Row> {
    let tally = sink.tally().await?;
    if tally.early > 0 {
        bail!("{} of {count} jobs were delivered before they were due", tally.early);
    }
    let row = row.count(count).figure("p50_ms", tally.p50).figure("p90_ms", tally.p90);
    Ok(row.figure("p99_ms", tally.p99).figure("max_ms", tally.max))
}
