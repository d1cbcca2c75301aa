//! Tests of databases of other programs, of damaged ones, of ones that go away and come back, and of ones that were migrated to.

use std::collections::HashSet;

use super::PostgresOptions;
use super::tests::{Fresh, Postgres, cluster, node, open_error, runtime};
use carillon_core::error_code::ErrorCode;
use carillon_core::job::{
    Admission, AttemptError, Carries, Debounce, DispatchMode, JobId, Label, Metadata, NewJob, Settlement, State,
};
use carillon_store::conformance;
use carillon_store::conformance::{LEASE, NOW, World, an_attempt};
use carillon_store::{ClaimDue, InsertOutcome, InsertResult, JobFilter, Jobs as _, SettleOutcome, StoreError, TABLES};

#[test]
fn other_databases_and_damage() {
    let mut cluster = cluster();
    let fresh = Fresh::new(&cluster);
    runtime().block_on(async {
        what_is_not_our_database_is_refused(&fresh).await;
        what_is_damaged_does_not_stop_the_rest(&fresh).await;
        texts_with_the_character_zero_are_kept(&fresh).await;
        every_column_is_moved_here(&fresh).await;
    });
    let (url, database) = fresh.url();
    let runtime = runtime();
    let world = runtime.block_on(World::new(Box::new(Postgres::new(url))));
    let ids = runtime.block_on(world.insert_due(5));
    let connected = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    cluster.sql(&database, connected);
    let all = |ids: &[JobId]| runtime.block_on(until_claimed(&world, ids.len()));
    assert_eq!(all(&ids), ids, "after every connection was killed");
    let ids = runtime.block_on(world.insert_due(5));
    cluster.crash();
    assert_eq!(runtime.block_on(until_claimed(&world, ids.len())), ids, "after a crash of the server");
}

/// Claims repeatedly until the database answers again.
async fn until_claimed(world: &World, count: usize) -> Vec<JobId> {
    let mut got = Vec::new();
    while got.len() < count {
        let quotas = vec![(world.group, 99)];
        let claim =
            ClaimDue { due_by: NOW, lease_until: NOW.plus(LEASE), mode: DispatchMode::Push, quotas, owed: Vec::new() };
        match world.store.claim_due(claim).await {
            Ok(leased) => got.extend(conformance::ids(&leased)),
            Err(StoreError::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
    got
}

async fn what_is_not_our_database_is_refused(fresh: &Fresh<'_>) {
    fresh.cluster.create("foreign_db", None);
    fresh.cluster.sql("foreign_db", "CREATE TABLE job (x INTEGER)");
    let error = open_error(&fresh.cluster.url("foreign_db")).await;
    assert!(matches!(&error, StoreError::Corrupt(text) if text.contains("another program")), "{error}");
    let error = open_error(&fresh.cluster.url("no_such_db")).await;
    assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("does not exist")), "{error}");
    let (url, database) = fresh.url();
    fresh.cluster.sql(
        &database,
        "INSERT INTO _sqlx_migrations SELECT 9999, 'x', installed_on, TRUE, '\\x00', 0 FROM _sqlx_migrations LIMIT 1",
    );
    node(&url).await.close().await;
    fresh.cluster.sql(&database, "UPDATE carillon SET needs = 9999");
    let error = open_error(&url).await;
    assert!(matches!(&error, StoreError::Corrupt(text) if text.contains("version 9999")), "{error}");
    for bad in ["postgres://user:secret@host:port/x", "mysql://x", "sqlite:x"] {
        let error = bad.parse::<PostgresOptions>().unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
}

async fn what_is_damaged_does_not_stop_the_rest(fresh: &Fresh<'_>) {
    let (url, database) = fresh.url();
    let world = World::new(Box::new(Postgres::new(url))).await;
    let jobs = world.insert_due(3).await;
    fresh.cluster.sql(&database, &format!("UPDATE job_spec SET spec = '{{' WHERE job = '{}'", jobs[1]));
    assert_eq!(world.store.job(world.tenant, jobs[1]).await, Err(StoreError::Unreadable(jobs[1])));
    assert_eq!(conformance::ids(&world.claim(NOW, 10).await), [jobs[0], jobs[2]]);
    let debounce = Debounce { key: "k".to_owned(), window: LEASE, always_delay: true, carries: Carries::First };
    let job = || NewJob { admission: Admission::Debounced(debounce.clone()), ..world.job(NOW) };
    world.store.insert(vec![job()].into()).await.unwrap();
    fresh.cluster.sql(&database, "UPDATE recent SET doc = '?'");
    let inserted = world.store.insert(vec![job()].into()).await.unwrap();
    let stored = InsertOutcome::Stored { run_at: NOW.plus(LEASE), forgotten: true, cancelled: Vec::new() };
    assert_eq!(inserted, InsertResult::Placed(vec![stored]), "nothing that is asked for is lost");
}

/// PostgreSQL cannot store these texts; a client's text must neither fail nor change.
async fn texts_with_the_character_zero_are_kept(fresh: &Fresh<'_>) {
    let (url, _) = fresh.url();
    let world = World::new(Box::new(Postgres::new(url))).await;
    let metadata = [("k".to_owned(), Label::Text("a\0b".to_owned()))].into();
    let mut job = world.job(NOW);
    job.spec.metadata = Metadata(metadata);
    world.store.insert(vec![job.clone()].into()).await.unwrap();
    let leased = world.claim(NOW, 1).await.remove(0);
    assert_eq!(leased.job.spec, job.spec);
    let mut attempt = an_attempt(&leased, None);
    attempt.detail.error = Some(AttemptError { code: ErrorCode::parse("a\0b"), message: "\0".to_owned() });
    let dead = Settlement::dead(&leased, NOW, attempt.clone());
    assert_eq!(world.store.settle(vec![dead]).await.unwrap(), [SettleOutcome::Applied(State::Dead)]);
    assert_eq!(world.store.attempts(world.tenant, job.id, 0, 9).await.unwrap(), [attempt]);
    let all = || JobFilter::all(world.tenant, world.group);
    let labelled = JobFilter { metadata: [("k".to_owned(), "a\0b".to_owned())].into(), ..all() };
    assert_eq!(world.store.count(labelled).await.unwrap(), 1);
    let named = JobFilter { name: Some("\0".to_owned()), ..all() };
    assert_eq!(world.store.count(named).await.unwrap(), 0);
}

/// Columns that a migration from SQLite does not fill, each with the reason.
const NOT_MOVED: [&str; 11] = [
    // Computed from others.
    "job.expires_at",
    // The counter among them is moved separately.
    "carillon.one",
    "carillon.generation",
    "carillon.recent",
    "carillon.needs",
    // Live nodes.
    "node.id",
    "node.since",
    "node.beat_at",
    "node.doc",
    // Partitions belong to the database.
    "era.from_ms",
    "era.until_ms",
];

async fn every_column_is_moved_here(fresh: &Fresh<'_>) {
    let (_, database) = fresh.url();
    let found = fresh.cluster.sql(
        &database,
        "SELECT relname || '.' || attname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        WHERE relnamespace = current_schema()::REGNAMESPACE AND relkind IN ('r', 'p') AND NOT relispartition
            AND attnum > 0 AND NOT attisdropped AND relname <> '_sqlx_migrations'",
    );
    let found: HashSet<&str> = found.lines().collect();
    let moved = TABLES.iter().flat_map(|table| {
        let columns = table.columns.iter();
        columns.map(|column| format!("{}.{}", table.name, column.name))
    });
    let moved: HashSet<String> = moved.chain(NOT_MOVED.map(str::to_owned)).collect();
    assert_eq!(found, moved.iter().map(String::as_str).collect());
}
