//! A server that stands still for longer than its leases last, or whose database does: what it is at work on is not done twice.

use std::path::Path;
use std::time::Duration;

use carillon_core::clock::Clock as _;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection};

use crate::support::{
    ADMIN_TOKEN, Answer, Api, DATABASE, Gate, ManualClock, Program, Receiver, Setup, TestHost, cluster, eventually,
    upload_built,
};

const SECOND: Duration = Duration::from_secs(1);

/// How long leases last, unless a test says so.
const LEASE: Duration = Duration::from_secs(30);

/// Real time in which writes pile up while the database is held. Nothing depends on how many do.
const PILE_UP: Duration = Duration::from_millis(40);

/// A connection of another program to the database of a host.
async fn shell(dir: &Path) -> SqliteConnection {
    SqliteConnection::connect(&format!("sqlite:{}", dir.join("carillon.db").display())).await.unwrap()
}

/// Time passes while nothing can be written: first `before`, in which extensions are asked for, and then `after`.
async fn stall(clock: &ManualClock, shell: &mut SqliteConnection, before: Duration, after: Duration) {
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *shell).await.unwrap();
    for time in [before, after] {
        clock.advance(time);
        tokio::time::sleep(PILE_UP).await;
    }
    sqlx::query("COMMIT").execute(&mut *shell).await.unwrap();
}

/// Returns when the present leases were extended, and the rescuer has seen the present time twice: what it would take back, it has.
async fn swept(clock: &ManualClock, host: &TestHost, shell: &mut SqliteConnection) {
    for _ in 0..2 {
        let sentinel = host.api.job_id("paused", json!({"url": "http://127.0.0.1:9/", "limits": {"ttl": "1s"}})).await;
        clock.advance(2 * SECOND);
        host.api.until_state(&sentinel, "expired").await;
    }
    let now = clock.now().0;
    let ended = format!("SELECT count(*) AS ended FROM job WHERE state = 'running' AND lease_until <= {now}");
    let look = async || {
        let row = sqlx::query(AssertSqlSafe(ended.clone())).fetch_one(&mut *shell).await.unwrap();
        row.get::<i64, _>("ended")
    };
    eventually("all leases are extended", look, |ended| *ended == 0).await;
}

/// A host with its groups, and jobs at work whose answers the gates hold.
struct AtWork {
    clock: std::sync::Arc<ManualClock>,
    host: TestHost,
    receiver: Receiver,
    shell: SqliteConnection,
    gates: Vec<Gate>,
    ids: Vec<String>,
}

impl AtWork {
    async fn start(jobs: usize) -> Self {
        let clock = ManualClock::new();
        let host = Setup::with_clock(&clock).start().await;
        let receiver = Receiver::with_clock(clock.clone()).await;
        host.api.put_group("g", json!({"limits": {"concurrency": 50, "timeout": "3m"}})).await;
        host.api.put_group("paused", json!({})).await;
        host.api.post("/v1/groups/paused/pause", json!({})).await.expect(200);
        let shell = shell(host.dir.path()).await;
        let mut world = Self { clock, host, receiver, shell, gates: Vec::new(), ids: Vec::new() };
        for job in 0..jobs {
            let (path, gate) = (format!("/{job}"), Gate::closed());
            world.receiver.on(&path, [Answer::status(200).held(&gate)]);
            world.ids.push(world.host.api.job_id("g", json!({"url": world.receiver.url(&path)})).await);
            world.receiver.arrived(&path, 1).await;
            world.gates.push(gate);
        }
        world
    }

    /// Lets all answers go, and compares the books.
    async fn settle_accounts(&self) {
        self.gates.iter().for_each(|gate| gate.release(100));
        for (job, id) in self.ids.iter().enumerate() {
            let done = self.host.api.until_state(id, "succeeded").await;
            assert_eq!(done["attempt_count"], 1, "{done}");
            assert_eq!(self.receiver.count(&format!("/{job}")), 1, "job {job} is requested once");
        }
        let metrics = self.host.api.get("/metrics").await;
        assert!(metrics.text().contains("carillon_leases_lost_total 0\n"), "{}", metrics.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_of_the_database_longer_than_a_lease_repeats_nothing() {
    let mut world = AtWork::start(4).await;
    stall(&world.clock, &mut world.shell, LEASE, 2 * LEASE).await;
    swept(&world.clock, &world.host, &mut world.shell).await;
    // Attempts go on for longer than leases last, and some end while others go on.
    for round in 0..8 {
        world.clock.advance(LEASE / 2);
        swept(&world.clock, &world.host, &mut world.shell).await;
        world.gates[round % 2].release(1);
    }
    world.settle_accounts().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_of_the_server_longer_than_a_lease_repeats_nothing() {
    let mut world = AtWork::start(4).await;
    // All loops wake at once, and whichever is first must do no harm.
    for _ in 0..5 {
        world.clock.advance(3 * LEASE);
        swept(&world.clock, &world.host, &mut world.shell).await;
    }
    world.settle_accounts().await;
}

/// The job's time has come and its lease was looked at, but its request waits for a policy thread when the server stands still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_prepared_after_its_lease_is_not_sent_under_it() {
    let clock = ManualClock::new();
    let setup = Setup::with_clock(&clock).set("policy.threads", "1").set("policy.deadline", "5s");
    let host = setup.set("policy.fuel", "18446744073709551615").start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    let moody = |mood: &str| json!({"encode": [{"plugin": "moody", "config": {"mood": mood}}]});
    upload_built(&host.api, "tests/guests/moody", "moody").await;
    host.api.put_group("spin", moody("spin")).await;
    host.api.put_group("g", moody("talk")).await;
    let mut shell = shell(host.dir.path()).await;
    let waiting = async |calls: u8| {
        let line = format!("carillon_policy_queue {calls}\n");
        let metrics = async || host.api.get("/metrics").await.text().to_owned();
        eventually("as many calls wait for the thread", metrics, |text| text.contains(&line)).await;
    };

    let spinning = host.api.job_id("spin", json!({"url": receiver.url("/spin")})).await;
    host.api.until_state(&spinning, "running").await;
    let job = host.api.job_id("g", json!({"url": receiver.url("/job")})).await;
    waiting(1).await;
    host.api.job_id("g", json!({"url": receiver.url("/behind")})).await;
    waiting(2).await;
    // Nothing is extended while the server stands still.
    sqlx::query("BEGIN IMMEDIATE").execute(&mut shell).await.unwrap();
    clock.advance(2 * LEASE);
    let woken = clock.now();
    // The one behind has the thread, or had it: the request is prepared.
    waiting(0).await;
    sqlx::query("COMMIT").execute(&mut shell).await.unwrap();

    host.api.until_state(&job, "succeeded").await;
    let attempts = host.api.attempts(&job).await;
    assert_eq!(attempts.len(), 1, "what was not sent spends no attempt");
    assert_eq!(attempts[0]["started_at"], woken.to_string(), "it was leased again, and sent then");
    assert_eq!(receiver.count("/job"), 1);
}

#[derive(Clone, Debug)]
enum Step {
    /// Time passes.
    Pass(u64),
    /// The same while nothing is written.
    Stall(u64, u64),
    /// A job's answer goes out.
    Answer(usize),
}

fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..40_u64).prop_map(Step::Pass),
        3 => (1..80_u64, 1..80_u64).prop_map(|(before, after)| Step::Stall(before, after)),
        2 => (0..JOBS).prop_map(Step::Answer),
    ]
}

const JOBS: usize = 6;
const STEPS: usize = 12;
const WALKS: u32 = 3;

/// Requests per job <= 1, whatever stalls: there is no other node that could have it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_pauses_repeat_nothing() {
    let persistence = FileFailurePersistence::WithSource("regressions");
    let config = Config {
        cases: WALKS,
        max_shrink_iters: 8,
        failure_persistence: Some(Box::new(persistence)),
        ..Config::default()
    };
    let walk = |steps: Vec<Step>| {
        tokio::runtime::Handle::current().block_on(async {
            let mut world = AtWork::start(JOBS).await;
            for step in steps {
                match step {
                    Step::Pass(seconds) => world.clock.advance(seconds as u32 * SECOND),
                    Step::Stall(before, after) => {
                        let [before, after] = [before, after].map(|seconds| seconds as u32 * SECOND);
                        stall(&world.clock, &mut world.shell, before, after).await;
                    }
                    Step::Answer(job) => world.gates[job].release(1),
                }
                swept(&world.clock, &world.host, &mut world.shell).await;
            }
            world.settle_accounts().await;
        });
        Ok(())
    };
    tokio::task::block_in_place(|| TestRunner::new(config).run(&proptest::collection::vec(a_step(), STEPS), walk))
        .unwrap();
}

/// Of two nodes one stands still: the other repeats its jobs once, and nobody counts that as the end of a node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stands_still_costs_its_jobs_one_request_more() {
    let postgres = cluster();
    let url = postgres.url(DATABASE);
    let environment = [
        ("CARILLON_AUTH__ADMIN_TOKEN", ADMIN_TOKEN),
        ("CARILLON_EGRESS__ALLOW", "127.0.0.0/8"),
        ("CARILLON_ENGINE__LEASE", "2s"),
        ("CARILLON_STORE__TIMEOUT", "1s"),
    ];
    let frozen = Program::serve(&["--store", &url], &environment).await;
    let receiver = Receiver::start().await;
    let api = Api::new(&frozen.base, Some(ADMIN_TOKEN));
    api.put_group("g", json!({"limits": {"timeout": "3m"}})).await;
    let mut jobs = Vec::new();
    for job in 0..4 {
        let (path, gate) = (format!("/{job}"), Gate::closed());
        receiver.on(&path, [Answer::status(200).held(&gate)]);
        jobs.push((api.job_id("g", json!({"url": receiver.url(&path)})).await, path.clone(), gate));
        receiver.arrived(&path, 1).await;
    }
    let other = Program::serve(&["--store", &url], &environment).await;
    frozen.signal("STOP").await;
    for (_, path, _) in &jobs {
        receiver.arrived(path, 2).await;
    }
    frozen.signal("CONT").await;
    jobs.iter().for_each(|(_, _, gate)| gate.release(2));
    let api = Api::new(&other.base, Some(ADMIN_TOKEN));
    for (id, path, _) in &jobs {
        api.until_state(id, "succeeded").await;
        let attempts = api.attempts(id).await;
        let codes: Vec<_> = attempts.iter().map(|attempt| attempt["error"]["code"].as_str()).collect();
        assert_eq!(codes, [Some("attempt.interrupted"), None]);
        assert_eq!(receiver.count(path), 2, "one pause, one repetition");
    }
}

/// Returns when the server has found out by itself that its store does not take what it is to write.
async fn is_not_ready(host: &TestHost) {
    let metrics = async || host.api.get("/metrics").await.text().to_owned();
    eventually("the store fails", metrics, |text| text.contains("carillon_ready 0")).await;
}

/// The clock stands still from the failure on: the pauses after it are not the clock's, which may be set back meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_that_is_back_is_used_though_the_clock_stands_still() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::start().await;
    let mut shell = shell(host.dir.path()).await;
    let gate = Gate::closed();
    receiver.on("/tick", [Answer::status(200)]);
    receiver.on("/job", [Answer::status(200).held(&gate)]);
    host.api.put_group("g", json!({})).await;
    let schedule = json!({"group": "g", "cron": "@every 10s", "job": {"url": receiver.url("/tick")}});
    host.api.put("/v1/schedules/s", schedule).await.expect(201);
    let id = host.api.job_id("g", json!({"url": receiver.url("/job"), "run_at": "+15s"})).await;
    let locked = async |shell: &mut SqliteConnection| {
        sqlx::query("BEGIN IMMEDIATE").execute(shell).await.unwrap();
    };
    let free = async |shell: &mut SqliteConnection| {
        sqlx::query("COMMIT").execute(shell).await.unwrap();
    };

    locked(&mut shell).await;
    clock.advance(10 * SECOND);
    is_not_ready(&host).await;
    free(&mut shell).await;
    receiver.arrived("/tick", 1).await;

    locked(&mut shell).await;
    clock.advance(5 * SECOND);
    is_not_ready(&host).await;
    free(&mut shell).await;
    receiver.arrived("/job", 1).await;

    locked(&mut shell).await;
    gate.release(1);
    is_not_ready(&host).await;
    free(&mut shell).await;
    host.api.until_state(&id, "succeeded").await;
}
