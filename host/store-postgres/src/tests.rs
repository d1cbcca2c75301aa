//! Conformance suite on a real PostgreSQL, and tests of promises that only this backend makes.
//!
//! Each test runs in a process of its own, and a server takes seconds to start: so one test runs the whole suite, and another one all cases
//! of several nodes.

use std::collections::{BTreeMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::sync::Mutex;

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use super::{PostgresOptions, PostgresStore};
use carillon_core::audit::AuditId;
use carillon_core::job::{Admission, Carries, Debounce, JobId, NewJob, Overlap, Settlement, Tick};
use carillon_store::conformance;
use carillon_store::conformance::{Backend, Case, LEASE, NOW, TABLES_WITH_ROWS, World, an_attempt, claim_lost};
use carillon_store::{Durability, InsertOutcome, InsertResult, Jobs as _, SettleOutcome, Store, StoreError};

pub(super) use carillon_testing::postgres::Cluster;

/// Number of cases that run at the same time.
const AT_ONCE: usize = 4;

/// Database that the others are copied from: empty, with its schema.
const TEMPLATE: &str = "template_of_ours";

/// A database of its own on a server.
pub(super) struct Postgres {
    url: String,
    open: Mutex<Option<Arc<PostgresStore>>>,
}

impl Postgres {
    pub(super) fn new(url: String) -> Arc<Self> {
        Arc::new(Self { url, open: Mutex::new(None) })
    }

    async fn close(&self) {
        if let Some(store) = self.open.lock().await.take() {
            store.close().await;
        }
    }
}

#[async_trait]
impl Backend for Postgres {
    async fn open(&self) -> Arc<dyn Store> {
        let mut open = self.open.lock().await;
        if let Some(before) = open.take() {
            before.close().await;
        }
        let store = Arc::new(node(&self.url).await);
        *open = Some(Arc::clone(&store));
        store
    }

    async fn damage(&self, id: JobId) {
        damage(&self.url, "UPDATE job_spec SET spec = '{' WHERE job = $1", id).await;
    }

    async fn damage_attempts(&self, id: JobId) {
        damage(&self.url, "UPDATE attempt SET detail = '{' WHERE job = $1", id).await;
    }

    async fn forge_audit(&self, id: AuditId) {
        damage(&self.url, "UPDATE audit SET doc = replace(doc, 'system', 'token') WHERE id = $1", JobId(id.0)).await;
    }

    async fn rows(&self) -> BTreeMap<String, u64> {
        let mut db = PgConnection::connect(&self.url).await.unwrap();
        let tables = "SELECT relname::TEXT FROM pg_class WHERE relnamespace = 'public'::regnamespace
            AND (relkind = 'p' OR relkind = 'r' AND NOT relispartition)";
        let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut db).await.unwrap();
        let mut rows = BTreeMap::new();
        // The number of partitions depends on the time.
        let is_counted = |table: &String| !TABLES_WITH_ROWS.contains(&table.as_str()) && table != "era";
        for table in tables.into_iter().filter(is_counted) {
            let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
            let count: i64 = sqlx::query_scalar(count).fetch_one(&mut db).await.unwrap();
            rows.insert(table, count.try_into().unwrap());
        }
        rows
    }
}

async fn damage(url: &str, sql: &'static str, id: JobId) {
    let mut db = PgConnection::connect(url).await.unwrap();
    sqlx::query(sql).bind(id.0).execute(&mut db).await.unwrap();
    db.close().await.unwrap();
}

pub(super) async fn node(url: &str) -> PostgresStore {
    PostgresStore::open(options(url)).await.unwrap()
}

fn options(url: &str) -> PostgresOptions {
    url.parse().unwrap()
}

/// Starts a server with a template that has our schema.
pub(super) fn cluster() -> Cluster {
    let cluster = Cluster::start();
    cluster.create(TEMPLATE, None);
    runtime().block_on(async { node(&cluster.url(TEMPLATE)).await.close().await });
    cluster
}

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Runs a case on a database of its own; returns false if it fails.
fn passes(cluster: &Cluster, case: &Case) -> bool {
    let database = case.name.replace("::", "__");
    cluster.create(&database, Some(TEMPLATE));
    runtime().block_on(async {
        let backend = Postgres::new(cluster.url(&database));
        let run = async {
            let world = World::new(Box::new(Arc::clone(&backend))).await;
            (case.run)(&world).await;
        };
        let result = AssertUnwindSafe(run).catch_unwind().await;
        backend.close().await;
        result.is_ok()
    })
}

#[test]
fn the_suite() {
    const ALL: &[Case] = &conformance!(as list);
    let wanted = std::env::var("CARILLON_TEST_CASE").unwrap_or_default();
    let cases: Vec<&Case> = ALL.iter().filter(|case| case.name.contains(&wanted)).collect();
    let cluster = cluster();
    let next = AtomicUsize::new(0);
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !passes(&cluster, case) {
                        eprintln!("this was {}", case.name);
                        failed.lock().unwrap().push(case.name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {} cases failed: {}", failed.len(), cases.len(), failed.join(", "));
    assert!(cases.len() > 60 || !wanted.is_empty(), "{} cases", cases.len());
}

pub(super) async fn open_error(url: &str) -> StoreError {
    PostgresStore::open(options(url)).await.unwrap_err()
}

/// Databases of a cluster, by number.
pub(super) struct Fresh<'a> {
    pub(super) cluster: &'a Cluster,
    next: AtomicUsize,
}

impl<'a> Fresh<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, next: AtomicUsize::new(0) }
    }

    /// Makes an empty database with our schema; returns its URL and its name.
    pub(super) fn url(&self) -> (String, String) {
        let database = format!("fresh_{}", self.next.fetch_add(1, Ordering::Relaxed));
        self.cluster.create(&database, Some(TEMPLATE));
        (self.cluster.url(&database), database)
    }

    /// Returns a store with a tenant and a group, and another node on the same database.
    async fn two(&self) -> (World, Arc<PostgresStore>) {
        self.two_on(&self.url().0).await
    }

    /// Returns two nodes on an existing database.
    pub(super) async fn two_on(&self, url: &str) -> (World, Arc<PostgresStore>) {
        let world = World::new(Box::new(Postgres::new(url.to_owned()))).await;
        (world, Arc::new(node(url).await))
    }
}

#[test]
fn several_nodes() {
    let cluster = cluster();
    let fresh = Fresh::new(&cluster);
    runtime().block_on(async {
        each_job_is_leased_by_one_node(&fresh).await;
        conditions_hold_across_nodes(&fresh).await;
        one_of_a_key_at_a_time_across_nodes(&fresh).await;
        a_lease_outlives_its_node_and_ends_by_time(&fresh).await;
        concurrent_inserts_share_commits(&fresh).await;
    });
}

async fn each_job_is_leased_by_one_node(fresh: &Fresh<'_>) {
    let (world, other) = fresh.two().await;
    let inserted: HashSet<JobId> = world.insert_due(600).await.into_iter().collect();
    let stores = [Arc::clone(&world.store), other as Arc<dyn Store>];
    let claimer = |n: usize| {
        let (store, group) = (Arc::clone(&stores[n % 2]), world.group);
        tokio::spawn(async move {
            let mut got = Vec::new();
            loop {
                match conformance::ids(&conformance::claim(&*store, group, NOW, 7).await) {
                    none if none.is_empty() => return got,
                    some => got.extend(some),
                }
            }
        })
    };
    let claimed = join_all((0..12).map(claimer)).await;
    let claimed: Vec<JobId> = claimed.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(claimed.len(), 600);
    assert_eq!(claimed.into_iter().collect::<HashSet<_>>(), inserted);
}

/// Of many concurrent requests on two nodes, exactly as many succeed as the conditions allow.
async fn conditions_hold_across_nodes(fresh: &Fresh<'_>) {
    let (world, other) = fresh.two().await;
    let unique = || Admission::Unique { key: "k".to_owned(), window: LEASE };
    let debounced = || {
        Admission::Debounced(Debounce {
            key: "k".to_owned(),
            window: LEASE,
            always_delay: false,
            carries: Carries::First,
        })
    };
    let tick = || Admission::Tick(Tick { schedule: 7, at: NOW, overlap: Overlap::Allow, max_runs: None, again: false });
    for (admission, yes) in [(unique as fn() -> Admission, 1), (debounced, 2), (tick, 1)] {
        let jobs: Vec<NewJob> = (0..40).map(|_| NewJob { admission: admission(), ..world.job(NOW) }).collect();
        let ask = |(n, job): (usize, &NewJob)| match n % 2 {
            0 => world.store.insert(vec![job.clone()].into()),
            _ => other.insert(vec![job.clone()].into()),
        };
        let answers = join_all(jobs.iter().enumerate().map(ask)).await;
        let is_stored = |answer: &Result<InsertResult, StoreError>| match answer.as_ref().unwrap() {
            InsertResult::Placed(placed) => matches!(placed[0], InsertOutcome::Stored { .. }),
            InsertResult::Replayed(_) => false,
        };
        assert_eq!(answers.iter().filter(|answer| is_stored(answer)).count(), yes, "{:?}", admission());
    }
    let replace = || NewJob {
        name: Some("n".to_owned()),
        order_key: Some("o".to_owned()),
        admission: Admission::Replace { moved: None },
        ..world.job(NOW)
    };
    let rivals: Vec<NewJob> = (0..40).map(|_| replace()).collect();
    let ask = |(n, job): (usize, &NewJob)| match n % 2 {
        0 => world.store.insert(vec![job.clone()].into()),
        _ => other.insert(vec![job.clone()].into()),
    };
    join_all(rivals.iter().enumerate().map(ask)).await.into_iter().for_each(|answer| drop(answer.unwrap()));
    let named = world.claim(NOW, 99).await.into_iter().filter(|leased| leased.job.name.is_some()).count();
    assert_eq!(named, 1, "one of a name is left, and its order key is free");
}

/// Producers and nodes on few keys at the same time: no job overtakes another one, and none is stuck.
async fn one_of_a_key_at_a_time_across_nodes(fresh: &Fresh<'_>) {
    const KEYS: usize = 3;
    const EACH: usize = 40;
    let (world, other) = fresh.two().await;
    let world = Arc::new(world);
    let produced = AtomicUsize::new(0);
    let running: std::sync::Mutex<HashSet<String>> = std::sync::Mutex::default();
    let producer = |key: usize| {
        let (world, produced) = (&world, &produced);
        async move {
            for _ in 0..EACH {
                let job = NewJob { order_key: Some(format!("key-{key}")), ..world.job(NOW) };
                world.store.insert(vec![job].into()).await.unwrap();
                produced.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let stores = [Arc::clone(&world.store), other as Arc<dyn Store>];
    let worker = |n: usize| {
        let (store, world, produced, running) = (&stores[n % 2], &world, &produced, &running);
        async move {
            let mut ended = 0;
            loop {
                let complete = produced.load(Ordering::Relaxed) == KEYS * EACH;
                let leased = conformance::claim(&**store, world.group, NOW, 5).await;
                if leased.is_empty() && complete {
                    let stats = store.stats(world.tenant, world.group, NOW).await.unwrap();
                    if stats.running + stats.scheduled == 0 {
                        return ended;
                    }
                    assert!(stats.running > 0 || stats.available > 0, "a key is stuck: {stats:?}");
                }
                for leased in leased {
                    let key = leased.job.order_key.clone().unwrap();
                    assert!(running.lock().unwrap().insert(key.clone()), "two of {key} run");
                    tokio::task::yield_now().await;
                    running.lock().unwrap().remove(&key);
                    let end = Settlement::succeeded(&leased, NOW, an_attempt(&leased, Some(200)));
                    store.settle(vec![end]).await.unwrap();
                    ended += 1;
                }
            }
        }
    };
    let (_, ended) = tokio::join!(join_all((0..KEYS).map(producer)), join_all((0..4).map(worker)));
    assert_eq!(ended.into_iter().sum::<usize>(), KEYS * EACH);
}

async fn a_lease_outlives_its_node_and_ends_by_time(fresh: &Fresh<'_>) {
    let (world, other) = fresh.two().await;
    let before = world.leased().await;
    world.store.close().await;
    assert!(matches!(world.store.generation().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(world.store.insert(vec![world.job(NOW)].into()).await, Err(StoreError::Unavailable(_))));
    assert!(claim_lost(&*other, NOW, NOW.plus(LEASE), 9).await.is_empty());
    let end = NOW.plus(LEASE);
    let after = claim_lost(&*other, end, end.plus(LEASE), 9).await.remove(0);
    assert_eq!((after.job.id, after.lost_leases), (before.job.id, 1));
    let late = Settlement::succeeded(&before, end, an_attempt(&before, Some(200)));
    assert_eq!(other.settle(vec![late]).await.unwrap(), [SettleOutcome::LeaseLost]);
}

async fn concurrent_inserts_share_commits(fresh: &Fresh<'_>) {
    let (url, _) = fresh.url();
    let postgres = Postgres::new(url);
    let world = World::new(Box::new(Arc::clone(&postgres))).await;
    let before = world.store.commit_stats();
    let caller = |_| async {
        for _ in 0..20 {
            world.store.insert(vec![world.job(NOW)].into()).await.unwrap();
        }
    };
    join_all((0..64).map(caller)).await;
    let after = world.store.commit_stats();
    let (calls, commits) = (after.calls - before.calls, after.commits - before.commits);
    assert_eq!(calls, 64 * 20);
    assert!(commits * 2 < calls, "{commits} commits for {calls} calls");
    postgres.close().await;
}

#[test]
fn each_connection_has_the_settings_of_its_durability() {
    let cluster = cluster();
    let fresh = Fresh::new(&cluster);
    let (url, database) = fresh.url();
    let expected = |synchronous: &'static str| {
        [
            ("synchronous_commit", synchronous),
            ("transaction_isolation", "read committed"),
            ("default_transaction_read_only", "off"),
            ("enable_seqscan", "off"),
            ("enable_bitmapscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("jit", "off"),
            ("application_name", "carillon"),
        ]
    };
    runtime().block_on(async {
        for (durability, server, session) in [
            (Durability::Full, "on", "on"),
            (Durability::Full, "off", "on"),
            (Durability::Full, "local", "local"),
            (Durability::Normal, "on", "off"),
        ] {
            cluster.sql(&database, &format!("ALTER DATABASE {database} SET synchronous_commit = '{server}'"));
            let options = options(&url).with(durability);
            let store = PostgresStore::open(options).await.unwrap();
            let mut taken = Vec::new();
            for _ in 0..3 {
                let mut connection = store.database.connections.take().await.unwrap();
                for (name, wanted) in expected(session) {
                    let show = sqlx::AssertSqlSafe(format!("SHOW {name}"));
                    let found: String = sqlx::query_scalar(show).fetch_one(&mut *connection).await.unwrap();
                    assert_eq!(found, wanted, "{name}, {durability:?}, server {server}");
                }
                let timeout: String =
                    sqlx::query_scalar("SHOW statement_timeout").fetch_one(&mut *connection).await.unwrap();
                assert_ne!(timeout, "0");
                taken.push(connection);
            }
            drop(taken);
            store.close().await;
        }
    });
}
