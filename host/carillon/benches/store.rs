//! How many jobs a second a store takes, leases and settles, and how long a claim takes with many jobs waiting.
//!
//! `cargo bench -p carillon --bench store`, with `TMPDIR` on the disk to be measured; or with `CARILLON_BENCH_STORE=postgres://…`, an
//! empty database. `CARILLON_BENCH_WAITING` is how many jobs wait in the end, a million unless it says otherwise. Every commit waits for a
//! disk, so the table begins with the time of one flush here: figures from two machines can only be compared with it next to them.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_core::clock::{Clock, Stopwatch, SystemClock, UnixMs};
use carillon_core::job::{
    AttemptDetail, AttemptRecord, DispatchMode, GroupId, JobId, LeasedJob, NewJob, Outcome, Settlement, Target,
    TenantId,
};
use carillon_core::test_util::new_job;
use carillon_store::{Audit, ClaimDue, INSERT_LIMIT, Kind, Precondition, PutEntity, Store};
use carillon_store_postgres::{PostgresOptions, PostgresStore};
use carillon_store_sqlite::{SqliteOptions, SqliteStore};
use futures_util::future::try_join_all;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

const SINGLE_CALLERS: usize = 64;
const SINGLE_EACH: usize = 1_000;
const BATCH_CALLERS: usize = 16;
const BATCH_EACH: usize = 60;
const BATCH: usize = 100;
const CLAIM: u32 = 200;
const CLAIMED: usize = 60_000;
const WAITING: usize = 1_000_000;
const ROUNDS: usize = 10;
const SAMPLES: usize = 300;
const PAYLOAD: Bytes = Bytes::from_static(&[b'x'; 256]);
const ANSWER: Bytes = Bytes::from_static(&[b'y'; 700]);
const LEASE: Duration = Duration::from_secs(600);

type Outcomes<T> = anyhow::Result<T>;

#[derive(Clone)]
struct Bench {
    store: Arc<dyn Store>,
    tenant: TenantId,
    group: GroupId,
}

#[tokio::main]
async fn main() -> Outcomes<()> {
    let directory = tempfile::tempdir()?;
    row("one flush of 4 KiB, median", &micros(flush(directory.path())?));
    let url = std::env::var("CARILLON_BENCH_STORE").ok();
    let waiting = std::env::var("CARILLON_BENCH_WAITING").map_or(Ok(WAITING), |count| count.parse())?;
    let bench = Bench::open(url.as_deref(), &directory.path().join("store.db")).await?;
    bench.single_inserts().await?;
    bench.batched_inserts().await?;
    bench.work_off(2_000).await?;
    bench.claim_and_settle(1).await?;
    bench.claim_and_settle(4).await?;
    if let Some(url) = &url {
        bench.with_a_transaction_open(url).await?;
    }
    bench.claim_latency("nothing else waiting").await?;
    bench.fill(waiting / 2).await?;
    bench.claim_latency(&format!("{} due elsewhere, as many later here", waiting / 2)).await?;
    bench.store.close().await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is a program whose output is a table")]
fn row(what: &str, figure: &str) {
    println!("{what:<72} {figure:>24}");
}

fn micros(time: Duration) -> String {
    format!("{} µs", time.as_micros())
}

fn report(what: &str, count: usize, watch: Stopwatch) {
    row(what, &format!("{:.0} /s", count as f64 / watch.elapsed().as_secs_f64()));
}

/// The median time to append 4 KiB to a file and have it on disk.
fn flush(directory: &Path) -> Outcomes<Duration> {
    let mut file = File::create(directory.join("flush"))?;
    let mut times = Vec::new();
    for _ in 0..200 {
        file.write_all(&[0; 4096])?;
        let watch = Stopwatch::start();
        file.sync_data()?;
        times.push(watch.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

fn attempt(leased: &LeasedJob, now: UnixMs) -> AttemptRecord {
    AttemptRecord {
        number: leased.number(),
        started_at: now,
        finished_at: now,
        outcome: Outcome::Success,
        status: Some(200),
        response_body: ANSWER,
        detail: AttemptDetail {
            spent: true,
            request_digest: Some("0".repeat(64)),
            response_headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            ..AttemptDetail::default()
        },
    }
}

impl Bench {
    async fn open(url: Option<&str>, path: &Path) -> Outcomes<Self> {
        let store: Arc<dyn Store> = match url {
            None => Arc::new(SqliteStore::open(SqliteOptions::new(path)).await?),
            Some(url) => {
                let options = url.parse::<PostgresOptions>().map_err(anyhow::Error::msg)?;
                Arc::new(PostgresStore::open(options).await?)
            }
        };
        let mut bench = Self { store, tenant: TenantId(0), group: GroupId(0) };
        bench.tenant = TenantId(bench.put(Kind::Tenant, "tenant").await?);
        bench.group = GroupId(bench.put(Kind::Group, "group").await?);
        Ok(bench)
    }

    async fn put(&self, kind: Kind, name: &str) -> Outcomes<i64> {
        let (name, doc) = (name.to_owned(), serde_json::Value::Null);
        let tenant = self.tenant.0;
        let now = SystemClock.now();
        let put = PutEntity {
            tenant,
            kind,
            name,
            doc,
            now,
            expect: Precondition::Anything,
            needs: Vec::new(),
            component: None,
            audit: Audit::Upkeep,
        };
        Ok(self.store.put(put).await?.done.id)
    }

    fn job(&self, group: GroupId, run_at: UnixMs) -> NewJob {
        let target = Target {
            method: "POST".to_owned(),
            url: "https://receiver.example.org/hooks/reminders".to_owned(),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        };
        let job = new_job().id(JobId::new(&SystemClock)).of(self.tenant, group).run_at(run_at);
        job.created_at(SystemClock.now()).seed(1).target(target).body(PAYLOAD).build()
    }

    async fn single_inserts(&self) -> Outcomes<()> {
        let watch = Stopwatch::start();
        self.insert_from(SINGLE_CALLERS, SINGLE_EACH, 1).await?;
        report("64 callers insert single jobs", SINGLE_CALLERS * SINGLE_EACH, watch);
        let stats = self.store.commit_stats();
        row("  calls per commit", &format!("{:.1}", stats.calls as f64 / stats.commits as f64));
        Ok(())
    }

    async fn batched_inserts(&self) -> Outcomes<()> {
        let watch = Stopwatch::start();
        self.insert_from(BATCH_CALLERS, BATCH_EACH, BATCH).await?;
        report("16 callers insert batches of 100 jobs", BATCH_CALLERS * BATCH_EACH * BATCH, watch);
        Ok(())
    }

    /// `callers` tasks that insert `each` times `batch` due jobs.
    async fn insert_from(&self, callers: usize, each: usize, batch: usize) -> Outcomes<()> {
        let callers = (0..callers).map(|_| {
            let bench = self.clone();
            tokio::spawn(async move {
                for _ in 0..each {
                    let now = SystemClock.now();
                    bench
                        .store
                        .insert((0..batch).map(|_| bench.job(bench.group, now)).collect::<Vec<_>>().into())
                        .await?;
                }
                Outcomes::Ok(())
            })
        });
        try_join_all(callers).await?.into_iter().collect()
    }

    async fn claim(&self, quota: u32) -> Outcomes<Vec<LeasedJob>> {
        let now = SystemClock.now();
        let claim = ClaimDue {
            due_by: now,
            lease_until: now.plus(LEASE),
            mode: DispatchMode::Push,
            quotas: vec![(self.group, quota)],
            owed: Vec::new(),
        };
        Ok(self.store.claim_due(claim).await?)
    }

    async fn settle(&self, leased: &[LeasedJob]) -> Outcomes<()> {
        let now = SystemClock.now();
        let settlements = leased.iter().map(|leased| Settlement::succeeded(leased, now, attempt(leased, now)));
        self.store.settle(settlements.collect()).await?;
        Ok(())
    }

    /// Claims and settles all due jobs, as a node does it: it looks before each claim.
    async fn work_off(&self, quota: u32) -> Outcomes<()> {
        loop {
            self.store.waiting().await?;
            let leased = self.claim(quota).await?;
            if leased.is_empty() {
                return Ok(());
            }
            self.settle(&leased).await?;
        }
    }

    async fn claim_and_settle(&self, workers: usize) -> Outcomes<()> {
        self.insert_from(1, CLAIMED / 1_000, 1_000).await?;
        let watch = Stopwatch::start();
        self.work_off_with(workers).await?;
        let what = format!("{workers} workers claim 200 jobs each and settle them with 1 kB of attempt each");
        report(&what, CLAIMED, watch);
        Ok(())
    }

    async fn work_off_with(&self, workers: usize) -> Outcomes<()> {
        let tasks = (0..workers).map(|_| {
            let bench = self.clone();
            tokio::spawn(async move { bench.work_off(CLAIM).await })
        });
        try_join_all(tasks).await?.into_iter().collect()
    }

    /// Rounds of jobs that are inserted and worked off, a fifth at a time, while another session keeps what ended from being vacuumed
    /// away.
    async fn with_a_transaction_open(&self, url: &str) -> Outcomes<()> {
        let mut report_of_others = PgConnection::connect(url).await?;
        sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM entity")
            .execute(&mut report_of_others)
            .await?;
        for round in 1..=ROUNDS {
            let watch = Stopwatch::start();
            for _ in 0..5 {
                self.insert_from(4, CLAIMED / 2_000, 100).await?;
                self.work_off_with(4).await?;
            }
            report(&format!("round {round} beside a transaction that stays open"), CLAIMED, watch);
        }
        let mut other = PgConnection::connect(url).await?;
        sqlx::raw_sql("VACUUM ANALYZE job").execute(&mut other).await?;
        let dead: i64 = sqlx::query_scalar("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'job'")
            .fetch_one(&mut other)
            .await?;
        row("  dead rows of `job` that no vacuum may remove", &dead.to_string());
        report_of_others.close().await?;
        Ok(())
    }

    /// So many due jobs in another group, and as many later ones in this one.
    async fn fill(&self, count: usize) -> Outcomes<()> {
        let other = GroupId(self.put(Kind::Group, "other").await?);
        let now = SystemClock.now();
        for (group, run_at) in [(other, now), (self.group, now.plus(LEASE))] {
            for _ in 0..count / INSERT_LIMIT {
                self.store
                    .insert((0..INSERT_LIMIT).map(|_| self.job(group, run_at)).collect::<Vec<_>>().into())
                    .await?;
            }
        }
        Ok(())
    }

    async fn claim_latency(&self, what: &str) -> Outcomes<()> {
        let (mut claims, mut waits) = (Vec::new(), Vec::new());
        for _ in 0..SAMPLES {
            self.store.insert(vec![self.job(self.group, SystemClock.now())].into()).await?;
            let watch = Stopwatch::start();
            self.store.waiting().await?;
            waits.push(watch.elapsed());
            let watch = Stopwatch::start();
            let leased = self.claim(CLAIM).await?;
            claims.push(watch.elapsed());
            anyhow::ensure!(leased.len() == 1, "one job is due, {} were leased", leased.len());
            self.settle(&leased).await?;
        }
        for (verb, times) in [("waiting()", &mut waits), ("claim of one job", &mut claims)] {
            times.sort_unstable();
            let [half, most] = [50, 99].map(|percent| times[times.len() * percent / 100]);
            row(&format!("{verb}, p50 / p99, {what}"), &format!("{} / {}", micros(half), micros(most)));
        }
        let watch = Stopwatch::start();
        self.store.stats(self.tenant, self.group, SystemClock.now()).await?;
        row(&format!("stats(), {what}"), &micros(watch.elapsed()));
        Ok(())
    }
}
