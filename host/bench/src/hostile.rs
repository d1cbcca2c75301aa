//! One tenant beside a hostile one: lateness and latency of its API calls, undisturbed and while the other tenant holds or floods one of the pools
//! that both share (`docs/reference/pools.md`).
//!
//! The undisturbed window is measured before each disturbed one, on the same server, and the ratio compares the two. Server, both clients and the
//! receivers share the machine: a flood takes processor time from all of them, whatever the server does.

mod attacks;

use std::time::Duration;

use anyhow::ensure;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use self::attacks::{Attack, Hostile};
use super::server::Server;
use super::sink::{RUN_AT_HEADER, Sink};
use super::{Bench, Row};
use carillon_client::Client;
use carillon_client::bodies::{Headers, JobInput};
use carillon_core::clock::{Clock as _, Stopwatch, SystemClock, UnixMs};
use carillon_core::stats::percentile;

/// Sizes of the pools, small enough for one client to hold its share.
const SETTINGS: [(&str, &str); 4] = [
    ("CARILLON_SERVER__CONCURRENT_REQUESTS", "512"),
    ("CARILLON_EVENTS__STREAMS", "128"),
    ("CARILLON_EVENTS__KEEP", "8192"),
    ("CARILLON_ENGINE__CONCURRENCY", "256"),
];

/// Time between a job's submission and the time when it is due.
const LEAD: Duration = Duration::from_secs(1);

/// Distance between the due times of the jobs whose lateness is measured.
const STEP: Duration = Duration::from_millis(10);

/// Period of the calls whose latency is measured.
const TICK: Duration = Duration::from_millis(5);

/// Time in which an attack takes what it can get, before the disturbed window begins.
const ONSET: Duration = Duration::from_secs(1);

/// Time in which what an attack has left behind ends, before the next undisturbed window begins.
const CALM: Duration = Duration::from_secs(2);

/// Time after which the jobs of a window count as lost.
const STUCK: Duration = Duration::from_secs(60);

/// Jobs of the victim that its lists show.
const LISTED: usize = 200;

/// Figures of one window, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Window {
    late_p99: f64,
    api_p50: f64,
    api_p99: f64,
}

impl Bench {
    /// Measures the victim beside each attack.
    pub(super) async fn hostile(&self, sink: &Sink) -> anyhow::Result<Vec<Row>> {
        let server = Server::start_with(&self.dir, self.store.as_deref(), self.nodes, &SETTINGS).await?;
        let receiver = Sink::start().await?;
        let (clients, token) = server.tenant().await?;
        let hostile = Hostile::prepare(clients[0].clone(), token, &server, &receiver).await?;
        let listed = vec![JobInput { run_at: Some(json!("+1h")), ..self.job(sink) }; LISTED];
        server.client().create_jobs(&server.group, &listed).await?;
        // The first calls of anything load and connect.
        self.window(&server, sink).await?;
        let bar = self.bar("hostile", Attack::ALL.len())?;
        let mut rows = Vec::new();
        for attack in Attack::ALL {
            let before = self.window(&server, sink).await?;
            let running = hostile.begin(attack);
            tokio::time::sleep(ONSET).await;
            let during = self.window(&server, sink).await?;
            drop(running);
            hostile.end(attack).await?;
            tokio::time::sleep(CALM).await;
            rows.push(compared(attack.name(), before, during));
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(rows)
    }

    /// Submits jobs that are due one after the other, and makes other calls meanwhile.
    async fn window(&self, server: &Server, sink: &Sink) -> anyhow::Result<Window> {
        sink.reset().await?;
        let count = usize::try_from(self.window.as_millis() / STEP.as_millis())?;
        let first = SystemClock.now().plus(LEAD);
        let moments = (0..count).map(|number| first.plus(STEP * u32::try_from(number).unwrap_or(u32::MAX)));
        let jobs: Vec<_> = moments.map(|at| self.due_job(sink, at)).collect();
        server.client().create_jobs(&server.group, &jobs).await?;
        let mut calls = self.calls(server, sink, LEAD + self.window).await?;
        let since = Stopwatch::start();
        while sink.tally().await?.count < count as u64 {
            ensure!(since.elapsed() < STUCK, "the victim's jobs were not delivered");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let tally = sink.tally().await?;
        ensure!(tally.early == 0, "{} jobs were delivered before they were due", tally.early);
        calls.sort_unstable();
        let ms = |percent| percentile(&calls, percent).map_or(0.0, |time| time.as_secs_f64() * 1e3);
        Ok(Window { late_p99: tally.p99, api_p50: ms(50), api_p99: ms(99) })
    }

    fn due_job(&self, sink: &Sink, at: UnixMs) -> JobInput {
        let headers = Headers(vec![(RUN_AT_HEADER.to_owned(), at.0.to_string())]);
        JobInput { run_at: Some(at.to_string().into()), headers, ..self.job(sink) }
    }

    /// Makes calls of several kinds in turn, for `time`; returns how long each took. A call that is refused fails the workload.
    async fn calls(&self, server: &Server, sink: &Sink, time: Duration) -> anyhow::Result<Vec<Duration>> {
        let (client, group) = (server.client(), server.group.as_str());
        let later = JobInput { run_at: Some(json!("+1h")), ..self.job(sink) };
        let known = client.create_job(group, &later).await?.id;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (since, mut took) = (Stopwatch::start(), Vec::new());
        while since.elapsed() < time {
            ticks.tick().await;
            let begun = Stopwatch::start();
            one_call(took.len(), client, group, &known, &later).await?;
            took.push(begun.elapsed());
        }
        Ok(took)
    }
}

async fn one_call(number: usize, client: &Client, group: &str, known: &str, job: &JobInput) -> anyhow::Result<()> {
    match number % 4 {
        0 => drop(client.create_job(group, job).await?),
        1 => drop(client.get::<Value>(&["jobs", known], &[]).await?),
        2 => drop(client.get::<IgnoredAny>(&["groups", group, "jobs"], &[("limit", "20".to_owned())]).await?),
        _ => _ = client.stats(group).await?,
    }
    Ok(())
}

fn compared(attack: &str, before: Window, during: Window) -> Row {
    let ratio = |before: f64, during: f64| if before > 0.0 { during / before } else { 0.0 };
    Row::new(attack)
        .figure("late_p99_ms", before.late_p99)
        .figure("late_p99_disturbed_ms", during.late_p99)
        .figure("late_ratio", ratio(before.late_p99, during.late_p99))
        .figure("api_p50_ms", before.api_p50)
        .figure("api_p50_disturbed_ms", during.api_p50)
        .figure("api_p99_ms", before.api_p99)
        .figure("api_p99_disturbed_ms", during.api_p99)
        .figure("api_ratio", ratio(before.api_p99, during.api_p99))
}
