//! `carillon bench`: measures how fast this machine accepts, delivers and decides, with a server, a receiver and a client of its own.
//!
//! Role: runs workloads against servers that it starts itself, and prints their figures. Every figure is printed with the settings of its
//! workload, and with the best figure of the same machine in the same run: compare ratios, not figures of two machines.
//!
//! Not: a part of a running server.
//!
//! Invariants: deliveries are encoded, signed and judged by components, and each attempt is recorded.
//!
//! May import: `carillon-core`, `-config`, `-policy`, `-engine`, `-client`, `-cli`.

mod growth;
mod hostile;
mod idle;
mod limits;
mod load;
mod plot;
mod plugins;
mod policy;
mod server;
pub mod sink;
mod timed;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use carillon_cli::Output;
use carillon_core::shutdown::signal;
use carillon_core::stats::percentile;
use server::Usage;
use sink::Sink;

/// Measure how fast this machine accepts and delivers jobs and calls policies.
#[derive(Clone, Debug, Args)]
pub struct Bench {
    /// Number of jobs in a workload.
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    jobs: usize,
    /// Number of connections in the workloads that send one job at a time.
    #[arg(long, default_value_t = 64, value_name = "N")]
    connections: usize,
    /// Size of a job's payload, in bytes.
    #[arg(long, default_value_t = 256, value_name = "N")]
    payload_bytes: usize,
    /// Number of jobs in the workloads that measure lateness.
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    timed_jobs: usize,
    /// Time over which these jobs are spread.
    #[arg(long, default_value = "20s", value_name = "PERIOD", value_parser = carillon_core::duration::parse)]
    timed_spread: Duration,
    /// Workloads to run. Default: all but `growth` and `hostile`.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WORKLOAD")]
    only: Vec<Workload>,
    /// Directory for the databases, which are removed at the end; a file system in memory would hide the cost of durability.
    #[arg(long, default_value_os_t = std::env::temp_dir(), value_name = "DIR")]
    dir: PathBuf,
    /// PostgreSQL database to measure instead of SQLite files. It should be empty; the data of the run stays in it.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Number of nodes that share that database.
    #[arg(long, default_value_t = 1, value_name = "N", requires = "store")]
    nodes: usize,
    /// Number of jobs that wait for another day during the run.
    #[arg(long, default_value_t = 0, value_name = "N")]
    waiting: usize,
    /// Number of due jobs of another tenant in the workload `fairness`.
    #[arg(long, default_value_t = 500_000, value_name = "N")]
    backlog: usize,
    /// Number of other jobs per second in the workload `busy`, which are accepted and delivered at once.
    #[arg(long, default_value_t = 5_000, value_name = "N")]
    others: usize,
    /// Number of plugins, each with a group of its own, in the workload `plugins`.
    #[arg(long, default_value_t = 200, value_name = "N")]
    plugins: usize,
    /// Time for which each window of the workload `hostile` is measured.
    #[arg(long, default_value = "5s", value_name = "PERIOD", value_parser = carillon_core::duration::parse)]
    window: Duration,
    /// Directory for the plots of the workload `growth`, as SVG files.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Best figures of the machine.
    Limits,
    /// Idle server, with and without waiting jobs.
    Idle,
    /// Calls of policies.
    Policy,
    /// Accepting jobs.
    Enqueue,
    /// Accepting and delivering jobs.
    Deliver,
    /// Delivering jobs on time.
    Lateness,
    /// Delivering jobs on time while others are delivered at once.
    Busy,
    /// Delivering jobs on time while other receivers are slow or fail.
    Sick,
    /// Delivering jobs on time while another tenant has a backlog.
    Fairness,
    /// Many plugins, each in a group of its own.
    Plugins,
    /// One tenant while another one holds, or floods, each of the pools that they share.
    Hostile,
    /// Delivery rate by number of waiting jobs, groups, bytes of a payload, and nodes.
    Growth,
}

const COLUMNS: [(&str, &str); 26] = [
    ("WORKLOAD", "/workload"),
    ("COUNT", "/count"),
    ("SECONDS", "/seconds"),
    ("PER SECOND", "/per_second"),
    ("% OF BARE LOOP", "/of_bare_loop_percent"),
    ("P50 MS", "/p50_ms"),
    ("P90 MS", "/p90_ms"),
    ("P99 MS", "/p99_ms"),
    ("MAX MS", "/max_ms"),
    ("COLD US", "/cold_us"),
    ("US", "/call_us"),
    ("US, 2 THREADS", "/call_us_two_threads"),
    ("2 : 1", "/two_to_one"),
    ("OTHERS / S", "/others_per_second"),
    ("LATE P99 MS", "/late_p99_ms"),
    ("DISTURBED", "/late_p99_disturbed_ms"),
    ("RATIO", "/late_ratio"),
    ("API P50 MS", "/api_p50_ms"),
    ("DISTURBED", "/api_p50_disturbed_ms"),
    ("API P99 MS", "/api_p99_ms"),
    ("DISTURBED", "/api_p99_disturbed_ms"),
    ("RATIO", "/api_ratio"),
    ("SERVER CPU S", "/server_cpu_s"),
    ("SERVER CPU %", "/server_cpu_percent"),
    ("SERVER RSS MIB", "/server_rss_mib"),
    ("SINK CPU S", "/sink_cpu_s"),
];

/// Row of the result.
#[derive(Debug)]
struct Row(Map<String, Value>);

impl Row {
    fn new(workload: &str) -> Self {
        Self(Map::from_iter([("workload".to_owned(), json!(workload))]))
    }

    fn figure(mut self, name: &str, value: f64) -> Self {
        self.0.insert(name.to_owned(), json!((value * 100.0).round() / 100.0));
        self
    }

    fn count(mut self, count: usize) -> Self {
        self.0.insert("count".to_owned(), json!(count));
        self
    }

    fn rate(self, count: usize, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a benchmark has far less than 2^52 jobs")]
        let rate = count as f64 / seconds;
        self.count(count).figure("seconds", seconds).figure("per_second", rate.round())
    }

    /// Returns the rate that [`Row::rate`] has set.
    fn per_second(&self) -> f64 {
        self.0.get("per_second").and_then(Value::as_f64).unwrap_or(0.0)
    }

    /// Adds the distribution of repeated measurements of one duration.
    fn times(self, mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let ms = |percent| percentile(&times, percent).map_or(0.0, |time| time.as_secs_f64() * 1e3);
        self.figure("p50_ms", ms(50)).figure("p90_ms", ms(90)).figure("p99_ms", ms(99)).figure("max_ms", ms(100))
    }

    fn server(self, before: Usage, after: Usage) -> Self {
        self.figure("server_cpu_s", after.cpu - before.cpu).figure("server_rss_mib", after.rss)
    }
}

impl Bench {
    /// Runs the workloads and prints their figures.
    ///
    /// # Errors
    /// Returns an error if a workload fails.
    pub async fn run(self, out: Output) -> anyhow::Result<()> {
        tokio::select! {
            done = self.measure(out) => done,
            // The servers and the receiver end when the future of the workloads is dropped.
            wanted = signal() => wanted.and_then(|_| bail!("the benchmark was interrupted")),
        }
    }

    async fn measure(&self, out: Output) -> anyhow::Result<()> {
        // An error means that another part of the program has installed it already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let sink = Sink::start().await?;
        let settings = self.settings();
        let mut rows = Vec::new();
        for workload in Workload::value_variants() {
            if !self.is_wanted(*workload) {
                continue;
            }
            rows.extend(match workload {
                Workload::Limits => self.limits(&sink).await?,
                Workload::Idle => self.idle(&sink).await?,
                Workload::Policy => self.policy().await?,
                Workload::Enqueue => self.enqueue(&sink).await?,
                Workload::Deliver => self.deliver(&sink).await?,
                Workload::Lateness => self.lateness(&sink).await?,
                Workload::Busy => self.busy(&sink).await?,
                Workload::Sick => self.sick(&sink).await?,
                Workload::Fairness => self.fairness(&sink).await?,
                Workload::Plugins => self.many_plugins(&sink).await?,
                Workload::Hostile => self.hostile(&sink).await?,
                Workload::Growth => self.growth(&sink).await?,
            });
        }
        let rows: Vec<Value> = rows.into_iter().map(|row| Value::Object(row.0)).collect();
        if out.is_json() {
            return out.json(&json!({ "settings": settings, "results": rows }));
        }
        out.answer(&settings)?;
        out.line("")?;
        out.table(&COLUMNS, &rows)
    }

    fn is_wanted(&self, workload: Workload) -> bool {
        match &self.only[..] {
            [] => !matches!(workload, Workload::Growth | Workload::Hostile),
            only => only.contains(&workload),
        }
    }

    fn settings(&self) -> Value {
        json!({
            "cores": std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
            "store": if self.store.is_some() { "postgresql, durability full" } else { "sqlite, durability full" },
            "nodes": self.nodes,
            "waiting": self.waiting,
            "policy": "base64-envelope, werkzeug-cookie, expected-status, backoff",
            "group_concurrency": server::CONCURRENCY,
            "payload_bytes": self.payload_bytes,
            "connections": self.connections,
            "machine": "server, client and receiver share it",
        })
    }

    fn bar(&self, workload: &str, length: usize) -> anyhow::Result<ProgressBar> {
        let style = ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} {elapsed}")?;
        Ok(ProgressBar::new(length as u64).with_style(style).with_message(workload.to_owned()))
    }
}

/// Waits until all tasks of a workload have ended, or one has failed.
async fn all(mut tasks: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task of the workload failed")??;
    }
    Ok(())
}
