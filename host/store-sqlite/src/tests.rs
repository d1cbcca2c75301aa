//! Conformance suite on SQLite, and tests of promises that only this backend makes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{join, join_all};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row as _};
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::readers::Readers;
use super::{SqliteOptions, SqliteStore, file, migrations, open};
use carillon_core::audit::AuditId;
use carillon_core::clock::UnixMs;
use carillon_core::job::{
    Admission, Carries, Debounce, DispatchMode, GroupId, JobId, NewJob, Priority, Settlement, State, TenantId,
};
use carillon_store::conformance;
use carillon_store::conformance::{Backend, LEASE, NOW, TABLES_WITH_ROWS, World, a_plugin, an_attempt, claim_lost};
use carillon_store::read_turns::READ_PLACES;
use carillon_store::{
    ChangeOutcome, Durability, Entities, GroupBacklog, InsertOutcome, InsertResult, JobChange, JobFilter, Jobs as _,
    JobsQuery, Prune, SettleOutcome, Store, StoreError,
};

/// A database in a directory of its own.
struct Sqlite {
    directory: TempDir,
    durability: Durability,
    open: Mutex<Option<Arc<SqliteStore>>>,
}

impl Sqlite {
    fn options(&self) -> SqliteOptions {
        let path = self.directory.path().join("test.db");
        SqliteOptions { path, durability: self.durability }
    }
}

#[async_trait]
impl Backend for Sqlite {
    async fn open(&self) -> Arc<dyn Store> {
        let mut open = self.open.lock().await;
        if let Some(before) = open.take() {
            before.close().await;
        }
        let store = Arc::new(SqliteStore::open(self.options()).await.unwrap());
        *open = Some(Arc::clone(&store));
        store
    }

    async fn damage(&self, id: JobId) {
        damage(&self.options().path, "UPDATE job_spec SET spec = '{' WHERE job = ?", id).await;
    }

    async fn damage_attempts(&self, id: JobId) {
        damage(&self.options().path, "UPDATE attempt SET detail = '{' WHERE job = ?", id).await;
    }

    async fn forge_audit(&self, id: AuditId) {
        damage(
            &self.options().path,
            "UPDATE audit SET doc = replace(doc, 'system', 'token') WHERE id = ?",
            JobId(id.0),
        )
        .await;
    }

    async fn rows(&self) -> BTreeMap<String, u64> {
        let mut shell = shell(&self.options().path).await;
        let tables = "SELECT name FROM sqlite_schema WHERE type = 'table'";
        let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut shell).await.unwrap();
        let mut rows = BTreeMap::new();
        for table in tables.into_iter().filter(|table| !TABLES_WITH_ROWS.contains(&table.as_str())) {
            let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
            let count: i64 = sqlx::query_scalar(count).fetch_one(&mut shell).await.unwrap();
            rows.insert(table, count.try_into().unwrap());
        }
        rows
    }
}

async fn damage(path: &Path, sql: &'static str, id: JobId) {
    let mut shell = shell(path).await;
    sqlx::query(sql).bind(super::rows::id(id)).execute(&mut shell).await.unwrap();
    shell.close().await.unwrap();
}

async fn empty() -> Arc<Sqlite> {
    let (directory, durability) = (tempfile::tempdir().unwrap(), Durability::default());
    Arc::new(Sqlite { directory, durability, open: Mutex::default() })
}

mod files;
mod power_loss;

mod suite {
    use super::conformance;

    conformance!(crate::tests::empty);
}

async fn open_error(path: &Path) -> StoreError {
    SqliteStore::open(SqliteOptions::new(path)).await.unwrap_err()
}

/// Opens a connection as another program would.
async fn shell(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap()
}

#[tokio::test]
async fn leases_end_with_the_process_that_held_them() {
    let world = World::new(Box::new(empty().await)).await;
    let before = world.leased().await;
    let store = world.reopened().await;
    let after = claim_lost(&*store, NOW, NOW.plus(LEASE), 10).await.remove(0);
    assert_eq!((after.job.id, after.lost_leases), (before.job.id, 1));
    let settled = Settlement::succeeded(&after, NOW, an_attempt(&after, Some(200)));
    assert_eq!(store.settle(vec![settled]).await.unwrap(), [SettleOutcome::Applied(State::Succeeded)]);
}

/// Never ends and returns no row on its way.
const ENDLESS: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

#[tokio::test]
async fn read_whose_time_is_over_is_stopped_and_its_connection_is_used_again() {
    let sqlite = empty().await;
    let store = SqliteStore::open(sqlite.options()).await.unwrap();
    let endless = async || {
        let mut view = store.readers.view(TenantId(1)).await.unwrap();
        let read = async { Ok(sqlx::query(ENDLESS).fetch_one(&mut *view).await?) };
        Readers::bounded(read).await.map(drop)
    };
    // More than there are connections for one tenant, so that each is used again.
    for _ in 0..2 {
        let ended = join_all((0..3).map(|_| endless())).await;
        assert_eq!(ended, vec![Err(StoreError::ReadTimeout); 3]);
    }
    for tenant in 0..READ_PLACES {
        let mut view = store.readers.view(TenantId(i64::from(tenant))).await.unwrap();
        let one: i64 = sqlx::query_scalar("SELECT 1").fetch_one(&mut *view).await.unwrap();
        assert_eq!(one, 1);
    }
    store.close().await;
}

#[tokio::test]
async fn own_reads_do_not_wait_for_reads_of_clients() {
    let sqlite = empty().await;
    let store = SqliteStore::open(sqlite.options()).await.unwrap();
    let mut held = Vec::new();
    for tenant in [1, 1, 1, 1, 2, 2, 3, 4] {
        held.push(store.readers.view(TenantId(tenant)).await.unwrap());
    }
    assert_eq!(store.waiting().await, Ok(Vec::new()));
    assert!(store.generation().await.is_ok() && store.backlog(NOW).await.is_ok() && store.ticked(None).await.is_ok());
    assert_eq!(
        store.job(TenantId(1), JobId(uuid::Uuid::nil())).await,
        Err(StoreError::ReadTimeout),
        "no place in time"
    );
    drop(held);
    assert_eq!(store.job(TenantId(1), JobId(uuid::Uuid::nil())).await, Ok(None));
    store.close().await;
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let sqlite = empty().await;
    let store = SqliteStore::open(sqlite.options()).await.unwrap();
    let error = open_error(&sqlite.options().path).await;
    assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("another process")), "{error}");
    store.close().await;
    SqliteStore::open(sqlite.options()).await.unwrap().close().await;
}

#[tokio::test]
async fn a_closed_store_refuses_and_leaves_one_file() {
    let sqlite = empty().await;
    let store = SqliteStore::open(sqlite.options()).await.unwrap();
    store.put(a_plugin(1, "p@1", "d", &[1; 10_000])).await.unwrap();
    store.close().await;
    store.close().await;
    assert!(matches!(store.put(a_plugin(1, "p@2", "e", b"1")).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.component("d").await, Err(StoreError::Unavailable(_))));
    let mut files: Vec<_> = sqlite
        .directory
        .path()
        .read_dir()
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["test.db", "test.db.lock"]);
}

#[tokio::test]
async fn what_is_not_our_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text.db");
    std::fs::write(
        &text,
        "this is a text, and it is long enough to be taken for a header of a database file. ".repeat(20),
    )
    .unwrap();
    let error = open_error(&text).await;
    assert!(matches!(&error, StoreError::Corrupt(text) if text.contains("not an SQLite database")), "{error}");

    let foreign = directory.path().join("foreign.db");
    let mut other = shell(&foreign).await;
    sqlx::raw_sql("CREATE TABLE job (x)").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    let error = open_error(&foreign).await;
    assert!(matches!(&error, StoreError::Corrupt(text) if text.contains("another program")), "{error}");

    let error = open_error(&directory.path().join("missing/test.db")).await;
    assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("does not exist")), "{error}");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let sqlite = empty().await;
    SqliteStore::open(sqlite.options()).await.unwrap().close().await;
    let path = sqlite.options().path;
    let mut newer = shell(&path).await;
    sqlx::raw_sql(
        "INSERT INTO _sqlx_migrations SELECT 9999, 'x', installed_on, 1, x'00', 0 FROM _sqlx_migrations LIMIT 1",
    )
    .execute(&mut newer)
    .await
    .unwrap();
    newer.close().await.unwrap();
    let error = open_error(&path).await;
    assert!(matches!(&error, StoreError::Corrupt(text) if text.contains("version 9999")), "{error}");
}

#[tokio::test]
async fn a_transaction_that_cannot_begin_fails_all_its_calls_and_the_next_one_works() {
    let sqlite = empty().await;
    let path = sqlite.options().path;
    let world = World::new(Box::new(sqlite)).await;
    let mut other = shell(&path).await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let job = world.job(NOW);
    let (insert, put) =
        join(world.store.insert(vec![job.clone()].into()), world.store.put(a_plugin(1, "p@1", "d", b"1"))).await;
    for result in [insert.map(drop), put.map(drop)] {
        assert!(
            matches!(&result, Err(StoreError::Unavailable(text)) if text.contains("another process")),
            "{result:?}"
        );
    }
    assert_eq!(world.store.job(world.tenant, job.id).await.unwrap(), None, "reads go on");
    other.close().await.unwrap();
    world.store.insert(vec![job.clone()].into()).await.unwrap();
    assert_eq!(world.state(job.id).await, State::Scheduled);
}

#[tokio::test]
async fn a_settlement_that_cannot_be_written_keeps_its_lease_and_fails_no_other() {
    let sqlite = empty().await;
    let path = sqlite.options().path;
    let world = World::new(Box::new(sqlite)).await;
    let (one, other) = (world.leased().await, world.leased().await);
    let mut shell = shell(&path).await;
    let refuse = "CREATE TRIGGER no_success BEFORE UPDATE ON job WHEN new.state = 'succeeded'
        BEGIN SELECT raise(ABORT, 'no'); END";
    sqlx::raw_sql(refuse).execute(&mut shell).await.unwrap();
    let success = || world.store.settle(vec![Settlement::succeeded(&one, NOW, an_attempt(&one, Some(200)))]);
    let dead = world.store.settle(vec![Settlement::dead(&other, NOW, an_attempt(&other, Some(404)))]);
    let (failed, settled) = join(success(), dead).await;
    failed.unwrap_err();
    assert_eq!(settled.unwrap(), [SettleOutcome::Applied(State::Dead)]);
    success().await.unwrap_err();
    assert_eq!(world.state(one.job.id).await, State::Running);
    assert_eq!(world.store.attempts(world.tenant, one.job.id, 0, 10).await.unwrap(), []);
    sqlx::raw_sql("DROP TRIGGER no_success").execute(&mut shell).await.unwrap();
    shell.close().await.unwrap();
    assert_eq!(success().await.unwrap(), [SettleOutcome::Applied(State::Succeeded)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_inserts_share_commits() {
    const CALLERS: usize = 64;
    const EACH: usize = 20;
    let sqlite = empty().await;
    let world = World::new(Box::new(Arc::clone(&sqlite))).await;
    let store = sqlite.open.lock().await.clone().unwrap();
    let before = store.commit_stats();
    let caller = |_| async {
        for _ in 0..EACH {
            world.store.insert(vec![world.job(NOW)].into()).await.unwrap();
        }
    };
    join_all((0..CALLERS).map(caller)).await;
    let after = store.commit_stats();
    let (calls, commits) = (after.calls - before.calls, after.commits - before.commits);
    assert_eq!(calls, (CALLERS * EACH) as u64);
    assert!(commits * 2 < calls, "{commits} commits for {calls} calls");
    assert!(after.largest > 1 && after.largest <= CALLERS as u64);
}

/// Paths that `sqlite:` URLs name.
#[test]
fn a_url_names_a_file() {
    let path = |url: &str| url.parse().map(|options: SqliteOptions| options.path.display().to_string());
    assert_eq!(path("sqlite:carillon.db").unwrap(), "carillon.db");
    assert_eq!(path("sqlite:/var/lib/c.db").unwrap(), "/var/lib/c.db");
    assert_eq!(path("sqlite:///var/lib/c.db").unwrap(), "/var/lib/c.db");
    for bad in ["sqlite:", "sqlite::memory:", "sqlite:c.db?mode=ro", "postgres://x/y", "c.db"] {
        assert!(path(bad).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_debounced_key_that_cannot_be_read_is_forgotten() {
    let sqlite = empty().await;
    let world = World::new(Box::new(Arc::clone(&sqlite))).await;
    let debounce = Debounce { key: "k".to_owned(), window: LEASE, always_delay: true, carries: Carries::First };
    let job = || NewJob { admission: Admission::Debounced(debounce.clone()), ..world.job(NOW) };
    world.store.insert(vec![job()].into()).await.unwrap();
    let mut shell = shell(&sqlite.options().path).await;
    sqlx::query("UPDATE recent SET doc = '?'").execute(&mut shell).await.unwrap();
    shell.close().await.unwrap();
    let inserted = world.store.insert(vec![job()].into()).await.unwrap();
    let stored = InsertOutcome::Stored { run_at: NOW.plus(LEASE), forgotten: true, cancelled: Vec::new() };
    assert_eq!(inserted, InsertResult::Placed(vec![stored]), "nothing that is asked for is lost");
}

/// Database of a program of the first version.
const OLD: &str = r#"
    INSERT INTO entity (id, tenant, kind, name, version, doc, created_at, updated_at)
        VALUES (1, 0, 'tenant', 'acme', 1, '{}', 0, 0), (2, 1, 'group', 'g', 1, '{}', 0, 0);
    INSERT INTO job (id, tenant, grp, state, run_at, created_at, seed, finished_at)
        VALUES (x'00000000000000000000000000000001', 1, 2, 'scheduled', 5, 1, 7, NULL),
               (x'00000000000000000000000000000002', 1, 2, 'dead', 5, 1, 7, 9);
    INSERT INTO job_spec (job, spec, body)
        SELECT id, '{"target": {"method": "POST", "url": "http://a/", "headers": []}, "metadata": {"k": "v"}}', x'01' FROM job"#;

#[tokio::test]
async fn a_database_of_the_first_version_goes_on() {
    let sqlite = empty().await;
    let mut before = shell(&sqlite.options().path).await;
    migrations::MIGRATIONS.run_direct(Some(1), &mut before, false).await.unwrap();
    sqlx::raw_sql(OLD).execute(&mut before).await.unwrap();
    before.close().await.unwrap();
    let store = sqlite.open().await;
    let mut by_priority = [UnixMs::MAX; 10];
    by_priority[usize::from(u8::from(Priority::default()))] = UnixMs(5);
    let waiting = GroupBacklog { group: GroupId(2), mode: DispatchMode::Push, earliest: UnixMs(5), by_priority };
    assert_eq!(store.waiting().await.unwrap(), [waiting]);
    let dead = store.jobs(JobsQuery { filter: dead_of(GroupId(2)), before: None, limit: 9 }).await.unwrap().remove(0);
    assert_eq!(
        store.change(TenantId(1), vec![dead.id], JobChange::Redrive(UnixMs(5)), NOW).await.unwrap(),
        [ChangeOutcome::Done]
    );
    let leased = conformance::claim(&*store, GroupId(2), NOW, 9).await;
    assert_eq!(leased.len(), 2);
    assert!(leased.iter().all(|leased| leased.job.priority == Priority::default() && leased.body == vec![1]));
}

fn dead_of(group: GroupId) -> JobFilter {
    JobFilter { state: Some(State::Dead), ..JobFilter::all(TenantId(1), group) }
}

#[tokio::test]
async fn a_step_of_the_housekeeping_that_fails_keeps_no_other_from_being_made() {
    let rows =
        "INSERT INTO recent VALUES (1, 'dedupe', 'k', 1, NULL, '{}'); INSERT INTO tick (schedule, at) VALUES (99, 1)";
    for failing in ["job", "recent", "tick"] {
        let sqlite = empty().await;
        let world = World::new(Box::new(Arc::clone(&sqlite))).await;
        let [id] = world.insert_due(1).await[..] else { unreachable!() };
        world.change(id, JobChange::Cancel).await;
        let mut shell = shell(&sqlite.options().path).await;
        sqlx::raw_sql(rows).execute(&mut shell).await.unwrap();
        let trigger = format!("CREATE TRIGGER no BEFORE DELETE ON {failing} BEGIN SELECT RAISE(ABORT, 'no'); END");
        sqlx::raw_sql(sqlx::AssertSqlSafe(trigger)).execute(&mut shell).await.unwrap();
        let prune = Prune { ended: vec![(State::Cancelled, NOW)], ticks: NOW, audit: NOW, now: NOW, limit: 10 };
        world.store.prune(prune).await.unwrap();
        let left = world.rows().await;
        for table in ["job", "recent", "tick"] {
            assert_eq!(left.get(table), (table == failing).then_some(&1), "{table}, where {failing} fails");
        }
    }
}
