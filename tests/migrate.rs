//! `carillon migrate`: a server moves from its file to PostgreSQL, with all that it knows.

mod page;
mod world;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use carillon_store::Jobs as _;
use carillon_store_postgres::{PostgresOptions, PostgresStore};
use serde_json::{Value, json};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use crate::support::{DATABASE, Finished, Receiver, Setup, TestHost, cluster, eventually, run};
use world::{World, shown, with_key};

/// More jobs than rows in a page.
const MANY: usize = 120;
const PAGE: &str = "50";

fn command(directory: &Path, url: &str, more: &[&str]) -> Vec<String> {
    let database = directory.join("carillon.db").display().to_string();
    let fixed = ["migrate", "sqlite-to-postgres", "--from", &database, "--to", url, "--rows", PAGE];
    fixed.iter().chain(more).map(|argument| (*argument).to_owned()).collect()
}

async fn migrate(directory: &Path, url: &str, more: &[&str]) -> Finished {
    let command = command(directory, url, more);
    run(&command.iter().map(String::as_str).collect::<Vec<_>>(), &[], "").await
}

/// What a run reports of a table.
fn table<'a>(report: &'a Value, name: &str) -> &'a Value {
    let found = report["tables"].as_array().unwrap().iter().find(|table| table["table"] == name);
    found.unwrap_or_else(|| panic!("{name} is in {report}"))
}

/// Every table must be the same in both databases, and none empty.
#[track_caller]
fn all_the_same(report: &Value) {
    let tables = report["tables"].as_array().unwrap();
    assert_eq!(tables.len(), 13, "{report}");
    for table in tables {
        assert!(table["source"]["rows"].as_u64().unwrap() > 0, "the test has rows for it: {table}");
        assert!(table["source"]["sha256"].as_str().is_some_and(|hex| hex.len() == 64), "{table}");
        assert_eq!(table["source"], table["target"], "{table}");
    }
}

/// Nobody may serve from a database that is not complete.
async fn is_refused(url: &str) {
    let error = Setup::new().set("store.url", url).try_start().await.err().expect("no server starts");
    assert!(format!("{error:#}").contains("a migration into it is not finished"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_moves_while_it_serves_and_is_the_same_afterwards() {
    let cluster = cluster();
    let url = cluster.url(DATABASE);
    let world = World::start().await;
    let directory = Arc::clone(&world.host.dir);

    let preview = migrate(directory.path(), &url, &["--dry-run"]).await;
    assert!(preview.ok().contains("ROWS TO COPY") && preview.stderr.contains("while the server runs"), "{preview:?}");
    assert_eq!(cluster.sql(DATABASE, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0");
    let copied = migrate(directory.path(), &url, &["--json"]).await.json();
    assert_eq!((&copied["progress"], &copied["served"]), (&json!("copied"), &json!(true)));
    assert!(table(&copied, "job")["written"].as_u64().unwrap() > MANY as u64, "{copied}");
    is_refused(&url).await;

    world.go_on("first").await;
    let caught_up = migrate(directory.path(), &url, &["--json"]).await.json();
    assert_eq!((&caught_up["progress"], &caught_up["served"]), (&json!("copied"), &json!(true)));
    let job = table(&caught_up, "job");
    assert_eq!((&job["removed"], &table(&caught_up, "job_done")["written"]), (&json!(2), &json!(1)), "{caught_up}");
    world.go_on("second").await;
    is_refused(&url).await;

    let before = shown(&world.host, &world.token).await;
    let World { host, receiver, token, lease, once } = world;
    host.stop().await;
    let complete = migrate(directory.path(), &url, &["--json"]).await.json();
    assert_eq!((&complete["progress"], &complete["served"]), (&json!("complete"), &json!(false)));
    all_the_same(&complete);
    assert_eq!(table(&complete, "component")["written"], 0, "what is there is not written again");
    migrate(directory.path(), &url, &["--verify"]).await.ok();

    let host = Setup::new().set("store.url", &url).start().await;
    let after = shown(&host, &token).await;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    assert_eq!(before.len(), after.len());
    goes_on(&host, &token, &lease, &once).await;
    delivers_the_rest(&host, &token, &receiver).await;
}

/// What was begun before the move goes on after it.
async fn goes_on(host: &TestHost, token: &str, lease: &str, once: &(String, Value)) {
    assert_eq!(with_key(&host.api, "k", &once.1).await["id"], json!(once.0), "the same request");
    let again = json!({"url": "http://127.0.0.1:1/", "run_at": "+1h", "dedupe_key": "d"});
    let known = host.api.post("/v1/groups/g/jobs", again).await.ok();
    assert_eq!(known["name"], "n", "the job that has the key");
    let found = host.api.get("/v1/groups/signed/jobs?metadata.n.k=%C3%A9&metadata.a.b=c%20d").await.items();
    assert_eq!(found.len(), 1, "labels can be asked for");
    host.api.post(&format!("/v1/leases/{lease}/complete"), json!({})).await.ok();
    assert_eq!(host.api.stats("q").await["succeeded"], 1);
    host.api.put_group("new", json!({})).await;
    let new = host.api.with_token(token).put_group("new", json!({})).await;
    assert_eq!(new["version"], 1);
}

/// What waited is delivered once, and signed with the same key.
async fn delivers_the_rest(host: &TestHost, token: &str, receiver: &Receiver) {
    let before = receiver.arrivals("/signed");
    let acme = host.api.with_token(token);
    for (api, group) in [(&host.api, "g"), (&host.api, "signed"), (&acme, "g")] {
        api.post(&format!("/v1/groups/{group}/bulk"), json!({"action": "run"})).await.ok();
        api.until_ended(group).await;
    }
    let keys = receiver.arrivals("/many");
    let keys: BTreeSet<&str> = keys.iter().map(|arrival| arrival.header("idempotency-key").unwrap()).collect();
    assert_eq!((keys.len(), receiver.count("/many")), (MANY - 2, MANY - 2), "each once");
    for path in ["/tick", "/ordered", "/once", "/deduped", "/acme"] {
        assert_eq!(receiver.count(path), 1, "{path}");
    }
    assert_eq!(receiver.arrivals("/once")[0].text(), "\"second\"", "as it was edited last");
    let after = receiver.arrivals("/signed");
    assert_eq!(after.len(), 2);
    assert_eq!(after[1].header("idempotency-key"), before[0].header("idempotency-key"));
    assert_eq!(after[1].body, before[0].body, "signed with the same key");
}

/// A directory with a server's file, of some jobs with an attempt each.
async fn some_jobs(count: usize) -> Arc<tempfile::TempDir> {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    host.api.put_group("g", json!({})).await;
    let jobs: Vec<Value> = (0..count).map(|_| json!({"url": receiver.url("/a")})).collect();
    host.api.post("/v1/groups/g/jobs/batch", json!({"jobs": jobs})).await.expect(201);
    host.api.until_succeeded("g", count).await;
    let directory = Arc::clone(&host.dir);
    host.stop().await;
    directory
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_was_killed_is_gone_on_with() {
    let cluster = cluster();
    let url = cluster.url(DATABASE);
    let directory = some_jobs(MANY).await;
    let rows = |table: &str| cluster.sql(DATABASE, &format!("SELECT count(*) FROM {table}"));
    let until = async |what: &str, sql: &str, wanted: &str| {
        eventually(what, async || cluster.sql(DATABASE, sql), |found| found == wanted).await;
    };

    // With its tables there, and one of them locked, a run comes exactly so far.
    PostgresStore::open(url.parse::<PostgresOptions>().unwrap()).await.unwrap().close().await;
    let mut other = PgConnection::connect(&url).await.unwrap();
    let mut lock = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE attempt IN EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let (path, to) = (directory.path().to_owned(), url.clone());
    let killed = tokio::spawn(async move { migrate(&path, &to, &[]).await });
    until("it waits for the lock", "SELECT count(*) FROM pg_locks WHERE NOT granted", "1").await;
    let second = migrate(directory.path(), &url, &[]).await;
    assert!(second.error(1).contains("another migration into this database runs"), "{second:?}");
    killed.abort();
    assert!(killed.await.unwrap_err().is_cancelled(), "it is killed with the task that waits for it");
    lock.rollback().await.unwrap();
    other.close().await.unwrap();
    let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    until("its connection ends", left, "0").await;

    assert_eq!((rows("job_spec"), rows("attempt")), (MANY.to_string(), "0".to_owned()));
    is_refused(&url).await;
    let preview = migrate(directory.path(), &url, &["--dry-run", "--json"]).await.json();
    assert_eq!((&preview["progress"], &table(&preview, "attempt")["target"]["rows"]), (&json!("copying"), &json!(0)));
    let differing = migrate(directory.path(), &url, &["--verify"]).await;
    assert_eq!(differing.code, Some(1), "{differing:?}");
    assert!(differing.stderr.contains(&format!("rows that differ: {MANY}, among them: attempt")), "{differing:?}");

    let complete = migrate(directory.path(), &url, &["--json"]).await.json();
    assert_eq!(complete["progress"], "complete");
    assert_eq!(
        (&table(&complete, "job_spec")["written"], &table(&complete, "attempt")["written"]),
        (&json!(0), &json!(MANY))
    );
    let indexes = |database: &str| {
        cluster.sql(database, "SELECT indexdef FROM pg_indexes WHERE tablename <> 'migration' ORDER BY 1")
    };
    cluster.create("fresh", None);
    PostgresStore::open(cluster.url("fresh").parse::<PostgresOptions>().unwrap()).await.unwrap().close().await;
    assert_eq!(indexes(DATABASE), indexes("fresh"), "every index is back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migration_notices_differences_and_refuses_a_database_in_use() {
    let cluster = cluster();
    let url = cluster.url(DATABASE);
    let (directory, other) = (some_jobs(3).await, some_jobs(1).await);
    let failure = async |directory: &Path, to: &str, more: &[&str]| {
        let failed = migrate(directory, to, more).await;
        assert_eq!(failed.code, Some(1), "{failed:?}");
        failed.stderr
    };
    assert!(failure(directory.path(), &url, &["--verify"]).await.contains("has not begun"));
    let complete = migrate(directory.path(), &url, &[]).await;
    assert!(complete.stderr.contains("every row of both databases was read and compared"), "{complete:?}");
    assert!(complete.ok().contains("job_done"), "{complete:?}");
    let again = migrate(directory.path(), &url, &[]).await;
    assert!(again.stderr.contains("already complete"), "{again:?}");

    let job = cluster.sql(DATABASE, "SELECT id FROM job_done ORDER BY id LIMIT 1");
    for (table, damage) in [
        ("job_done", "UPDATE job_done SET last_status = 201 WHERE id = '{job}'"),
        ("job_spec", "UPDATE job_spec SET body = 'x' WHERE job = '{job}'"),
        ("attempt", "DELETE FROM attempt WHERE job = '{job}'"),
        ("attempt", "INSERT INTO attempt VALUES ('{job}', 2, 0, 0, 'success', NULL, '{}', '')"),
        ("counters", "SELECT setval(pg_get_serial_sequence('entity', 'id'), 1)"),
    ] {
        cluster.create("damaged", Some(DATABASE));
        cluster.sql("damaged", &damage.replace("{job}", &job));
        let failed = failure(directory.path(), &cluster.url("damaged"), &["--verify"]).await;
        let known = if table == "counters" { String::new() } else { format!(", among them: {table} {job}") };
        assert!(failed.contains(&format!("rows that differ: 1{known}")), "{damage}: {failed}");
        cluster.sql("postgres", "DROP DATABASE damaged");
    }

    assert!(failure(other.path(), &url, &[]).await.contains("filled from another one"));
    cluster.create("used", None);
    let used = cluster.url("used");
    Setup::new().set("store.url", &used).start().await.stop().await;
    assert!(failure(directory.path(), &used, &[]).await.contains("in use"));
    assert!(failure(directory.path(), &used, &["--dry-run"]).await.contains("in use"));
    cluster.create("others", None);
    cluster.sql("others", "CREATE TABLE theirs (a INTEGER)");
    assert!(failure(directory.path(), &cluster.url("others"), &[]).await.contains("another program"));
    assert!(
        failure(directory.path(), "postgres://nobody:s3cret@127.0.0.1:1/x", &[])
            .await
            .contains("the PostgreSQL database")
    );
    assert!(!failure(directory.path(), "mysql://nobody:s3cret@127.0.0.1/x", &[]).await.contains("s3cret"));
    assert!(failure(Path::new("nowhere"), &url, &[]).await.contains("is not a file"));
}
