//! Tests of old jobs and of their partitions' removal.

use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::PostgresStore;
use super::tests::{Cluster, Fresh, cluster, runtime};
use carillon_core::clock::UnixMs;
use carillon_core::job::{JobId, LeasedJob, NewJob, Settlement, State};
use carillon_store::conformance;
use carillon_store::conformance::{NOW, World, an_attempt};
use carillon_store::{Jobs as _, Prune, SettleOutcome};

const MINUTE: Duration = Duration::from_secs(60);

/// Retention of jobs; with it, an era is two minutes long.
const SUCCEEDED: Duration = Duration::from_secs(32 * 60);
const DEAD: Duration = Duration::from_secs(64 * 60);

/// Number of an era's jobs that succeed at once: more than one call removes row by row here.
const MANY: usize = 1_200;
const LIMIT: u32 = 10;

async fn prune(store: &PostgresStore, now: UnixMs) -> u32 {
    let ended = vec![(State::Succeeded, now.minus(SUCCEEDED)), (State::Dead, now.minus(DEAD))];
    store.prune(Prune { ended, now, limit: LIMIT, ..Prune::default() }).await.unwrap()
}

/// Returns a job that is accepted and due at `at`.
fn job(world: &World, at: UnixMs) -> NewJob {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let id = u128::try_from(at.0).unwrap() << 80 | u128::from(number);
    NewJob { id: JobId(Uuid::from_u128(id)), ..world.job(at) }
}

/// Jobs of the first era that remain after its time: a dead one, a running one, a waiting one.
struct Left {
    dead: JobId,
    running: LeasedJob,
    waiting: JobId,
}

/// Fills an era with jobs that succeed, and with three others.
async fn live_through_an_era(world: &World, store: &PostgresStore, at: UnixMs) -> Left {
    let mut jobs: Vec<NewJob> = (0..MANY + 2).map(|_| job(world, at)).collect();
    let waiting = NewJob { run_at: at.plus(MINUTE * 600), ..job(world, at) };
    let left = waiting.id;
    jobs.push(waiting);
    store.insert(jobs.into()).await.unwrap();
    let mut leased = conformance::claim(store, world.group, at, 5_000).await;
    assert_eq!(leased.len(), MANY + 2);
    let (running, dead) = (leased.remove(0), leased.remove(0));
    let mut ends: Vec<Settlement> =
        leased.iter().map(|leased| Settlement::succeeded(leased, at, an_attempt(leased, Some(200)))).collect();
    ends.push(Settlement::dead(&dead, at, an_attempt(&dead, Some(500))));
    assert!(store.settle(ends).await.unwrap().iter().all(|settled| matches!(settled, SettleOutcome::Applied(_))));
    Left { dead: dead.job.id, running, waiting: left }
}

/// Makes a job that is accepted at `at` and succeeds at once.
async fn one_succeeds(world: &World, store: &PostgresStore, at: UnixMs) -> JobId {
    store.insert(vec![job(world, at)].into()).await.unwrap();
    let [leased] = &conformance::claim(store, world.group, at, 9).await[..] else { panic!("not leased") };
    store.settle(vec![Settlement::succeeded(leased, at, an_attempt(leased, Some(200)))]).await.unwrap();
    leased.job.id
}

fn count(cluster: &Cluster, database: &str, table: &str) -> usize {
    cluster.sql(database, &format!("SELECT count(*) FROM {table}")).parse().unwrap()
}

/// Counts the eras that begin before `until`.
fn eras(cluster: &Cluster, database: &str, until: UnixMs) -> usize {
    let partitions = "pg_class WHERE relkind = 'r' AND relname ~ '^(job_done|job_spec|attempt)_[0-9]+$'";
    let future = format!("era WHERE from_ms >= {}", until.0);
    let (partitions, future) = (count(cluster, database, partitions), count(cluster, database, &future));
    assert_eq!(partitions, 3 * count(cluster, database, "era"));
    partitions / 3 - future
}

#[test]
fn what_is_old_goes_with_its_partition() {
    let cluster = cluster();
    let fresh = Fresh::new(&cluster);
    let (url, database) = fresh.url();
    runtime().block_on(async {
        let (world, store) = fresh.two_on(&url).await;
        prune(&store, NOW).await;
        let at = NOW.plus(Duration::from_secs(15));
        let left = live_through_an_era(&world, &store, at).await;
        let rest = ["job_done_rest", "job_spec_rest", "attempt_rest"].map(|table| count(&cluster, &database, table));
        assert_eq!(rest, [0, 0, 0], "everything is in the partitions of its era");

        // The jobs have reached their age, but the era may have younger ones.
        assert_eq!(prune(&store, at.plus(SUCCEEDED + MINUTE / 2)).await, 0);
        assert_eq!(count(&cluster, &database, "job_done"), MANY + 1);

        let old = at.plus(SUCCEEDED + 4 * MINUTE);
        assert_eq!(prune(&store, old).await, 0, "none is removed by itself");
        assert_eq!(["job_done", "job_spec", "attempt"].map(|table| count(&cluster, &database, table)), [1, 3, 1]);
        the_others_are_whole(&world, &store, left, old).await;

        // Later eras have begun, and the ones that ended empty are gone.
        let last = old.plus(DEAD + 4 * MINUTE);
        prune(&store, last).await;
        assert_eq!(["job", "job_done", "job_spec", "attempt"].map(|table| count(&cluster, &database, table)), [0; 4]);
        assert_eq!(eras(&cluster, &database, old), 0);
    });
}

/// Checks that the jobs that were not old when their era was removed are unchanged, and go on.
async fn the_others_are_whole(world: &World, store: &PostgresStore, left: Left, now: UnixMs) {
    let tenant = world.tenant;
    let states = [(left.dead, State::Dead), (left.running.job.id, State::Running), (left.waiting, State::Scheduled)];
    for (id, state) in states {
        let job = store.job(tenant, id).await.unwrap().unwrap();
        assert_eq!((job.state, &job.spec), (state, &left.running.job.spec));
        assert_eq!(store.body(tenant, id).await.unwrap().unwrap(), "{}");
    }
    assert_eq!(store.attempts(tenant, left.dead, 0, 9).await.unwrap()[0].status, Some(500));
    let end = Settlement::succeeded(&left.running, now, an_attempt(&left.running, Some(200)));
    assert_eq!(store.settle(vec![end]).await.unwrap(), [SettleOutcome::Applied(State::Succeeded)]);
    let waited = conformance::claim(store, world.group, now.plus(MINUTE * 600), 9).await;
    assert_eq!(conformance::ids(&waited), [left.waiting]);
    let end = Settlement::succeeded(&waited[0], now, an_attempt(&waited[0], Some(200)));
    store.settle(vec![end]).await.unwrap();
}

#[test]
fn partitions_wait_for_whoever_reads_them() {
    let cluster = cluster();
    let fresh = Fresh::new(&cluster);
    let (url, database) = fresh.url();
    runtime().block_on(async {
        let (world, store) = fresh.two_on(&url).await;
        prune(&store, NOW).await;
        let at = NOW.plus(Duration::from_secs(15));
        let first = one_succeeds(&world, &store, at).await;

        let mut backup = PgConnection::connect(&url).await.unwrap();
        sqlx::raw_sql("BEGIN; SELECT count(*) FROM attempt").execute(&mut backup).await.unwrap();
        let old = at.plus(SUCCEEDED + 13 * MINUTE / 6);
        prune(&store, old).await;
        assert!(store.job(world.tenant, first).await.unwrap().is_some());
        // Jobs that are accepted meanwhile, far after the last era that could be made, are kept as well.
        one_succeeds(&world, &store, old).await;
        assert_eq!(count(&cluster, &database, "job_done_rest"), 1);

        sqlx::raw_sql("COMMIT").execute(&mut backup).await.unwrap();
        prune(&store, old).await;
        assert!(store.job(world.tenant, first).await.unwrap().is_none());
        assert_eq!(eras(&cluster, &database, old), 3, "those that came after it are not old yet");
        // A job without an era is removed as a row, a little later.
        assert_eq!(prune(&store, old.plus(SUCCEEDED * 3 / 2)).await, 1);
    });
}

/// Number of eras that pass, each of which keeps a job.
const ERAS_PASSED: u32 = 100;

/// Length of an era in these tests: a thirty-second of [`DEAD`].
const ERA: Duration = Duration::from_secs(2 * 60);

#[test]
fn what_waits_for_years_keeps_no_partition() {
    let cluster = cluster();
    let fresh = Fresh::new(&cluster);
    let (url, database) = fresh.url();
    runtime().block_on(async {
        let (world, store) = fresh.two_on(&url).await;
        let start = NOW.plus(Duration::from_secs(15));
        let mut waiting = Vec::new();
        for number in 0..ERAS_PASSED {
            let at = start.plus(ERA * number);
            prune(&store, at).await;
            let reminder = NewJob { run_at: at.plus(MINUTE * 1_000_000), ..job(&world, at) };
            waiting.push(reminder.id);
            store.insert(vec![reminder].into()).await.unwrap();
        }
        let partitions = count(&cluster, &database, "era");
        assert!(partitions <= 45, "{partitions} after {ERAS_PASSED}, of which 32 are as old as what is kept");
        for id in &waiting {
            let job = store.job(world.tenant, *id).await.unwrap().unwrap();
            assert_eq!((job.state, job.spec), (State::Scheduled, world.job(NOW).spec));
            assert_eq!(store.body(world.tenant, *id).await.unwrap().unwrap(), "{}");
        }
        let last = conformance::claim(&*store, world.group, start.plus(MINUTE * 2_000_000), 1_000).await;
        assert_eq!(last.len(), waiting.len());
        let end = |leased: &LeasedJob| Settlement::succeeded(leased, start, an_attempt(leased, Some(200)));
        let settled = store.settle(last.iter().map(end).collect()).await.unwrap();
        assert!(settled.iter().all(|settled| *settled == SettleOutcome::Applied(State::Succeeded)));
    });
}

#[test]
fn the_number_of_partitions_has_a_bound() {
    let cluster = cluster();
    let fresh = Fresh::new(&cluster);
    let (url, database) = fresh.url();
    // More jobs wait in each era than are moved out of one.
    let fill = "INSERT INTO job (id, tenant, grp, lane, run_at, state, blocked, seed, created_at)
        SELECT (lpad(to_hex(from_ms), 12, '0') || lpad(to_hex(n), 20, '0'))::UUID, 1, 1, 20, 9000000000000, 'scheduled', FALSE, 1, 1
        FROM era CROSS JOIN generate_series(0, 1000) AS n
        WHERE NOT EXISTS (SELECT 1 FROM job WHERE id = (lpad(to_hex(from_ms), 12, '0') || repeat('0', 20))::UUID)";
    runtime().block_on(async {
        let (world, store) = fresh.two_on(&url).await;
        let start = NOW.plus(Duration::from_secs(15));
        for number in 0..ERAS_PASSED {
            prune(&store, start.plus(ERA * number)).await;
            cluster.sql(&database, fill);
        }
        assert_eq!(count(&cluster, &database, "era"), 64);
        let late = start.plus(ERA * ERAS_PASSED);
        let one = one_succeeds(&world, &store, late).await;
        assert_eq!(count(&cluster, &database, "job_done_rest"), 1, "new jobs are kept all the same");
        // When the waiting jobs are gone, so are their partitions, and new ones are made.
        cluster.sql(&database, "DELETE FROM job");
        prune(&store, late.plus(MINUTE)).await;
        let partitions = count(&cluster, &database, "era");
        assert!(partitions < 64, "{partitions}");
        assert!(store.job(world.tenant, one).await.unwrap().is_some());
    });
}

#[test]
fn a_step_of_the_housekeeping_that_fails_keeps_no_other_from_being_made() {
    let cluster = cluster();
    let fresh = Fresh::new(&cluster);
    let (url, database) = fresh.url();
    // A job that was accepted tomorrow, by a clock that has been set back since: no partition can be made around it.
    let tomorrow = NOW.plus(Duration::from_secs(86_400)).0;
    let stray = format!(
        "INSERT INTO job_spec (job, spec, body) VALUES ((lpad(to_hex({tomorrow}), 12, '0') || repeat('0', 20))::UUID, '{{}}', '')"
    );
    let refuse = "CREATE FUNCTION refuse() RETURNS TRIGGER LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no'; END$$";
    runtime().block_on(async {
        let (world, store) = fresh.two_on(&url).await;
        prune(&store, NOW).await;
        one_succeeds(&world, &store, NOW.plus(Duration::from_secs(15))).await;
        cluster.sql(&database, &stray);
        cluster.sql(&database, refuse);
        cluster.sql(&database, "INSERT INTO recent VALUES (1, 'dedupe', 'k', 1, NULL, '{}'); INSERT INTO tick (schedule, at) VALUES (99, 1)");
        let late = UnixMs(tomorrow).minus(MINUTE);
        for table in ["recent", "tick"] {
            cluster.sql(&database, &format!("CREATE TRIGGER no BEFORE DELETE ON {table} EXECUTE FUNCTION refuse()"));
            prune(&store, late).await;
            let left = ["recent", "tick", "job_done"].map(|table| count(&cluster, &database, table));
            let expected = if table == "recent" { [1, 0, 0] } else { [0, 1, 0] };
            assert_eq!(left, expected, "deletions from {table} fail, and no partition can be made");
            cluster.sql(&database, &format!("DROP TRIGGER no ON {table}; INSERT INTO tick (schedule, at) VALUES (99, 1) ON CONFLICT DO NOTHING"));
        }
    });
}
