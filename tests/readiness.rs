//! `/readyz` says what a producer and a due job would find, and not more: it follows the writes, and comes back by itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sqlx::{Connection as _, Executor as _, Row as _, SqliteConnection};

use crate::support::{Answer, Api, DATABASE, Gate, Program, Receiver, Setup, Stop, TestHost, cluster, eventually};

/// A probe waits this long.
const PROBE: Duration = Duration::from_secs(1);

/// A probe's answer, which comes in time whatever the database does.
async fn ready(api: &Api) -> (u16, String) {
    let answered = tokio::time::timeout(PROBE * 5, api.get("/readyz")).await;
    let reply = answered.expect("readiness does not wait for the database");
    (reply.status, reply.text().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_follows_the_writes_and_comes_back_by_itself() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    host.api.post_job("g", json!({"payload": 1})).await;
    assert_eq!(ready(&host.api).await.0, 200);
    let file = host.dir.path().join("carillon.db");
    let mut other = SqliteConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let problem = host.api.post("/v1/groups/g/jobs", json!({"payload": 1})).await.problem(503);
    assert_eq!(problem["type"], "urn:carillon:problem:unavailable");
    let (status, text) = ready(&host.api).await;
    assert_eq!(status, 503);
    assert!(text.contains("jobs cannot be stored"), "{text}");
    assert!(host.api.get("/metrics").await.text().contains("carillon_ready 0"));
    other.execute("ROLLBACK").await.unwrap();
    // Nobody sends anything: only the probes find out.
    host.api.until_status("/readyz", 200).await;
    host.api.post_job("g", json!({"payload": 1})).await;
}

/// The tables and indexes of a database, with the page where each begins.
async fn pages(file: &Path) -> Vec<(String, u64)> {
    let mut db = SqliteConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
    let rows =
        sqlx::query("SELECT name, rootpage FROM sqlite_schema WHERE rootpage > 1").fetch_all(&mut db).await.unwrap();
    let pages = rows.iter().map(|row| (row.get("name"), u64::try_from(row.get::<i64, _>("rootpage")).unwrap()));
    let pages = pages.collect();
    db.close().await.unwrap();
    pages
}

fn overwrite(file: &Path, page: u64) {
    use std::os::unix::fs::FileExt as _;
    let bytes = std::fs::read(file).unwrap();
    let size = match u16::from_be_bytes([bytes[16], bytes[17]]) {
        1 => 65_536,
        size => u64::from(size),
    };
    let damage = vec![0xff; usize::try_from(size).unwrap()];
    let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
    file.write_all_at(&damage, (page - 1) * size).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_agrees_with_the_work_on_a_damaged_file() {
    let receiver = Receiver::start().await;
    receiver.on("/", [Answer::status(200)]);
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    host.api.post_job("g", json!({"url": receiver.url("/"), "run_at": "+1h"})).await;
    let intact = host.dir.path().join("carillon.db");
    let _dir = Arc::clone(&host.dir);
    host.stop().await;
    let (mut refused, mut unready) = (0, 0);
    for (name, page) in pages(&intact).await {
        let target = Arc::new(tempfile::tempdir().unwrap());
        let file = target.path().join("carillon.db");
        std::fs::copy(&intact, &file).unwrap();
        overwrite(&file, page);
        let Ok(host) = Setup::new().in_dir(&target).try_start().await else {
            refused += 1;
            continue;
        };
        let posted = host.api.post("/v1/groups/g/jobs", json!({"url": receiver.url("/")})).await;
        if posted.status >= 500 {
            // Housekeeping that met the damage fails the calls of its transaction, too: then the next one is accepted.
            let what = format!("{name} is damaged: the server is not ready, or accepts the next job");
            let look = async || match ready(&host.api).await.0 {
                503 => (503, None),
                status => {
                    let next = host.api.post("/v1/groups/g/jobs", json!({"url": receiver.url("/")})).await;
                    (status, Some(next.status))
                }
            };
            let (readiness, _) = eventually(&what, look, |(ready, next)| *ready == 503 || *next == Some(201)).await;
            unready += u32::from(readiness == 503);
        } else if posted.status == 201 {
            let path = format!("/v1/jobs/{}", crate::support::id_of(&posted.json()));
            let what = format!("{name} is damaged: the job is delivered, or the server not ready");
            let look = async || (host.api.get(&path).await, ready(&host.api).await.0);
            eventually(&what, look, |(job, ready)| {
                *ready == 503 || (job.status == 200 && job.json()["state"] == "succeeded")
            })
            .await;
        }
    }
    assert!(refused > 0 && unready > 0, "{refused} refused, {unready} not ready");
}

/// The store's files may not grow any more, as on a disk that is full, and after a while they may again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_refuses_loses_nothing_and_comes_back_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("jobs.db").display());
    let program =
        Program::serve_with_bounded_files(&["--no-auth", "--store", &store, "--egress-allow", "127.0.0.0/8"], &[])
            .await;
    let api = Api::new(&program.base, None);
    let (receiver, gate) = (Receiver::start().await, Gate::closed());
    receiver.on("/under-way", [Answer::status(200).held(&gate)]);
    receiver.on("/waits", [Answer::status(200)]);
    api.put_group("g", json!({})).await;
    let under_way = api.job_id("g", json!({"url": receiver.url("/under-way")})).await;
    receiver.arrived("/under-way", 1).await;
    let waits = api.job_id("g", json!({"url": receiver.url("/waits"), "run_at": "+2s"})).await;

    program.bound_files(0);
    let refused = api.post("/v1/groups/g/jobs", json!({"url": receiver.url("/refused")})).await;
    assert!(refused.headers.contains_key("retry-after"), "{}", refused.status);
    refused.problem(503);
    let (status, text) = ready(&api).await;
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("jobs cannot be stored"), "{text}");
    gate.release(1);
    for refusal in ["claiming due jobs failed", "writing settlements failed"] {
        program.until_logged(refusal).await;
    }
    assert_eq!(api.get("/healthz").await.status, 200);
    assert_eq!(api.job(&waits).await["state"], "scheduled", "it can be read all the while");

    program.bound_files(u64::MAX);
    for id in [&under_way, &waits] {
        let job = api.until_state(id, "succeeded").await;
        assert_eq!(job["attempt_count"], 1, "{job}");
    }
    eventually("the server is ready again", async || ready(&api).await, |(status, _)| *status == 200).await;
    api.post_job("g", json!({"url": receiver.url("/waits")})).await;
    receiver.arrived("/waits", 2).await;
    assert_eq!((receiver.count("/under-way"), receiver.count("/refused")), (1, 0));
    program.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_database_is_answered_at_once() {
    let mut cluster = cluster();
    let host = Setup::new().set("store.url", &cluster.url(DATABASE)).set("store.timeout", "60s").start().await;
    host.api.put_group("g", json!({})).await;
    cluster.stop(Stop::Immediate);
    let answered = tokio::time::timeout(PROBE * 20, host.api.post("/v1/groups/g/jobs", json!({"payload": 1}))).await;
    answered.expect("nobody waits for a server that is not there").problem(503);
    assert_eq!(ready(&host.api).await.0, 503);
    cluster.resume();
    host.api.until_status("/readyz", 200).await;
    host.api.post_job("g", json!({"payload": 1})).await;
}

/// Viewers hold every connection that reads can get: a lock on a table that only lists read keeps them waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_accepted_and_delivered_while_viewers_hold_all_that_they_can() {
    let cluster = cluster();
    let receiver = Receiver::start().await;
    receiver.on("/", [Answer::status(200)]);
    let host = Setup::new().set("store.url", &cluster.url(DATABASE)).start().await;
    host.api.put_group("g", json!({})).await;
    let url = cluster.url(DATABASE);
    let mut lock = sqlx::postgres::PgConnection::connect(&url).await.unwrap();
    lock.execute("CREATE TABLE gate (x INTEGER)").await.unwrap();
    lock.execute("ALTER VIEW job_shown RENAME TO job_shown_before").await.unwrap();
    lock.execute(
        "CREATE VIEW job_shown AS SELECT job_shown_before.* FROM job_shown_before, (SELECT count(*) FROM gate) AS gate",
    )
    .await
    .unwrap();
    lock.execute("BEGIN; LOCK TABLE gate IN ACCESS EXCLUSIVE MODE").await.unwrap();
    host.api.post_job("g", json!({"url": receiver.url("/"), "run_at": "+1h"})).await;
    let viewers: Vec<_> = (0..64)
        .map(|_| {
            let api = host.api.clone();
            tokio::spawn(async move { api.get("/v1/groups/g/jobs?limit=1").await.status })
        })
        .collect();
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    let mut other = sqlx::postgres::PgConnection::connect(&url).await.unwrap();
    let look = async || sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut other).await.unwrap();
    eventually("viewers wait", look, |waiting| *waiting >= 4).await;
    host.api.post_job("g", json!({"url": receiver.url("/now")})).await;
    receiver.arrived("/now", 1).await;
    let leased = json!({"payload": 1});
    host.api.post_job("g", leased).await;
    let leases = host.api.post("/v1/groups/g/leases", json!({})).await.expect(200);
    let token = leases["leases"][0]["token"].as_str().unwrap();
    host.api.post(&format!("/v1/leases/{token}/extend"), json!({})).await.expect(200);
    host.api.post(&format!("/v1/leases/{token}/complete"), json!({})).await.expect(200);
    lock.execute("ROLLBACK").await.unwrap();
    for viewer in viewers {
        let status = viewer.await.unwrap();
        assert!([200, 503].contains(&status), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn balancers_are_told_before_the_port_closes() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("jobs.db").display());
    let notice = [("CARILLON_SERVER__DRAIN_NOTICE", "1h")];
    let mut program = Program::serve(&["--no-auth", "--store", &store], &notice).await;
    let api = Api::new(&program.base, None);
    api.put_group("g", json!({})).await;
    api.post_job("g", json!({"payload": 1})).await;
    assert_eq!(ready(&api).await.0, 200);
    program.terminate().await;
    eventually("readiness ends", async || ready(&api).await, |(status, _)| *status == 503).await;
    assert!(ready(&api).await.1.contains("stopping"));
    api.post_job("g", json!({"payload": 1})).await;
    // The second signal waits for nothing.
    program.terminate().await;
    assert_eq!(program.ended().await, Some(0));
}
