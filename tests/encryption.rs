//! Payloads at rest: what an encrypting server stores shows nothing of them, and everything that reads them works as without encryption.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

use crate::support::{
    Answer, Cluster, DATABASE, ManualClock, Receiver, Setup, TestHost, cluster, eventually, id_of, ms, queue, run,
};

/// Text that is in everything that must be encrypted.
const MARKER: &str = "marker-4711";

/// Columns in which the databases keep documents and payloads.
const COLUMNS: [(&str, &str); 6] = [
    ("entity", "doc"),
    ("job_spec", "spec"),
    ("job_spec", "body"),
    ("attempt", "detail"),
    ("attempt", "response_body"),
    ("recent", "doc"),
];

fn encrypting(clock: &Arc<ManualClock>) -> Setup {
    Setup::with_clock(clock).set("store.encrypt", "true")
}

/// Returns the secret header of a job, as the API shows it.
fn header(job: &Value) -> Value {
    let headers = job["request"]["headers"].as_array().unwrap();
    headers.iter().find(|header| header["name"] == "X-Secret").unwrap()["value"].clone()
}

/// Sends payloads and headers every way that there is, reads all of them back, and asserts that nothing is lost.
async fn walk(host: &TestHost, receiver: &Receiver, clock: Option<&ManualClock>) {
    let api = &host.api;
    let text = |what: &str| format!("{MARKER}-{what}");
    api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    let sign = json!({"plugin": "werkzeug-cookie", "keys": ["k"]});
    let retry = json!({"plugin": "backoff", "config": {"kind": "fixed", "base": "100ms", "jitter": 0}});
    api.put_group("g", json!({"encode": [{"plugin": "base64-envelope"}], "sign": sign, "retry": retry})).await;
    api.put_group("plain", json!({})).await;

    // A delivery that fails once, with what is seen of it, and its replay.
    receiver.on("/a", [Answer::body(503, text("refusal")), Answer::body(200, text("answer"))]);
    let url = format!("{}?token={MARKER}", receiver.url("/a"));
    let job = json!({
        "url": url, "payload": {"a": text("payload")}, "headers": {"X-Secret": text("header")}, "name": "n", "metadata": {"l": "v"},
        "on_success": {"name": "next", "url": receiver.url("/next"), "payload": text("follow-up")},
    });
    let id = api.job_id("g", job).await;
    if let Some(clock) = clock {
        clock.set(ms(&api.until_retry(&id, 1).await["run_at"]));
    }
    let shown = api.until_state(&id, "succeeded").await;
    assert_eq!((&shown["request"]["url"], header(&shown)), (&json!(url), json!(text("header"))));
    let length = json!({"a": text("payload")}).to_string().len();
    assert_eq!(shown["payload_bytes"], length, "{shown}");
    let arrived = receiver.arrivals("/a");
    assert_eq!((arrived.len(), arrived[1].header("x-secret")), (2, Some(text("header").as_str())));
    let attempts = api.attempts(&id).await;
    assert_eq!(
        (&attempts[0]["response_body"], &attempts[1]["response_body"]),
        (&json!(text("refusal")), &json!(text("answer")))
    );
    for number in [1, 2] {
        let replayed = api.post(&format!("/v1/jobs/{id}/attempts/{number}/replay"), json!({})).await.expect(200);
        assert_eq!((&replayed["same"], &replayed["caveats"]), (&json!(true), &json!([])), "{replayed}");
    }
    let tested = api.post("/v1/groups/g/policy/backtest", json!({"version": 1})).await.expect(200);
    assert!(tested["attempts"].as_u64() != Some(0), "{tested}");
    receiver.arrived("/next", 1).await;
    assert_eq!(api.get("/v1/jobs/next/payload?group=g").await.json(), json!(text("follow-up")));

    // Its payload, a copy, lists and filters.
    assert_eq!(api.get(&format!("/v1/jobs/{id}/payload")).await.json(), json!({"a": text("payload")}));
    let copy = api.post(&format!("/v1/jobs/{id}/copy"), json!({"run_at": "+1h"})).await.expect(201);
    assert_eq!(api.get(&format!("/v1/jobs/{}/payload", id_of(&copy))).await.json(), json!({"a": text("payload")}));
    for filter in ["name=n", "metadata.l=v"] {
        assert!(!api.get(&format!("/v1/groups/g/jobs?{filter}")).await.items().is_empty(), "{filter}");
    }

    // Edits with and without a payload, debounced requests, and a request that is repeated under its idempotency key.
    let later = json!({"url": receiver.url("/b"), "run_at": "+1h", "payload": text("first")});
    let edited = api.job_id("plain", later.clone()).await;
    let path = format!("/v1/jobs/{edited}");
    api.patch(&path, json!({"headers": {"X-Secret": text("edited")}})).await.ok();
    assert_eq!(api.get(&format!("{path}/payload")).await.json(), json!(text("first")));
    api.patch(&path, json!({"payload": text("second")})).await.ok();
    assert_eq!(api.get(&format!("{path}/payload")).await.json(), json!(text("second")));
    assert_eq!(header(&api.job(&edited).await), text("edited"));
    let debounced = |payload: &str| {
        json!({
            "url": receiver.url("/d"), "payload": text(payload), "debounce_key": "d", "debounce_seconds": 3600, "debounce_always_delay": true,
        })
    };
    let waiting = api.job_id("plain", debounced("one")).await;
    api.post("/v1/groups/plain/jobs", debounced("two")).await.ok();
    assert_eq!(api.get(&format!("/v1/jobs/{waiting}/payload")).await.json(), json!(text("two")));
    let once = async || {
        let request = api.request(Method::POST, "/v1/groups/plain/jobs").header("Idempotency-Key", "once");
        api.send(request.body(later.to_string())).await
    };
    assert_eq!(once().await.json(), once().await.json());

    // A consumer, and a schedule.
    api.put_group("q", json!({})).await;
    api.job_id("q", json!({"payload": text("pulled")})).await;
    let lease = queue::one(api).await;
    assert_eq!(lease["payload"], text("pulled"));
    queue::say(api, &lease, "complete", json!({})).await.expect(200);
    let schedule = json!({
        "group": "plain", "cron": "0 0 1 1 *", "time_zone": "UTC",
        "job": {"url": receiver.url("/s"), "payload": text("scheduled"), "headers": {"X-Secret": text("header")}},
    });
    api.put("/v1/schedules/s", schedule).await.ok();
    api.post("/v1/schedules/s/run", json!({})).await.ok();
    receiver.arrived("/s", 1).await;
    assert_eq!(receiver.arrivals("/s")[0].text(), format!("\"{}\"", text("scheduled")));
}

/// Counts the occurrences of the marker in the files of a database.
fn in_files(directory: &Path) -> usize {
    let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let database = files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("carillon.db"));
    let contents: Vec<Vec<u8>> = database.map(|path| std::fs::read(path).unwrap()).collect();
    assert!(contents.len() >= 2, "the database and its log");
    let count = |bytes: &Vec<u8>| bytes.windows(MARKER.len()).filter(|window| *window == MARKER.as_bytes()).count();
    contents.iter().map(count).sum()
}

/// Counts the values with the marker in a database of PostgreSQL.
fn in_tables(cluster: &Cluster) -> usize {
    let count = |(table, column): &(&str, &str)| {
        let value = if column.ends_with("body") { format!("encode({column}, 'escape')") } else { (*column).to_owned() };
        let sql = format!("SELECT count(*) FROM {table} WHERE {value} LIKE '%{MARKER}%'");
        cluster.sql(DATABASE, &sql).trim().parse::<usize>().unwrap()
    };
    COLUMNS.iter().map(count).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_are_in_no_file_of_sqlite() {
    for (encrypt, expected) in [(true, false), (false, true)] {
        let clock = ManualClock::new();
        let setup = encrypting(&clock).set("store.encrypt", &encrypt.to_string());
        let (host, receiver) = (setup.start().await, Receiver::with_clock(clock.clone()).await);
        walk(&host, &receiver, Some(&clock)).await;
        assert_eq!(in_files(host.dir.path()) > 0, expected, "the marker is found without encryption");
        let dir = Arc::clone(&host.dir);
        host.stop().await;
        assert_eq!(
            String::from_utf8_lossy(&std::fs::read(dir.path().join("carillon.db")).unwrap()).contains(MARKER),
            expected
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_are_in_no_table_of_postgres() {
    for (encrypt, expected) in [(true, false), (false, true)] {
        let (cluster, receiver) = (cluster(), Receiver::start().await);
        let setup = Setup::new().set("store.encrypt", &encrypt.to_string());
        let host = setup.set("store.url", &cluster.url(DATABASE)).start().await;
        // The time is the database's.
        walk(&host, &receiver, None).await;
        assert_eq!(in_tables(&cluster) > 0, expected, "the marker is found without encryption");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn setting_is_changed_for_new_values_and_all_move_to_another_database() {
    let clock = ManualClock::new();
    let receiver = Receiver::with_clock(clock.clone()).await;
    let mut setup = encrypting(&clock);
    let (mut ids, mut from) = (Vec::new(), String::new());
    for (number, encrypt) in [false, true, false].into_iter().enumerate() {
        let host = setup.clone().set("store.encrypt", &encrypt.to_string()).start().await;
        setup = setup.in_dir(&host.dir);
        from = host.dir.path().join("carillon.db").display().to_string();
        host.api.put_group("g", json!({})).await;
        let job = json!({"url": receiver.url("/a"), "run_at": "+1h", "payload": {"number": number}});
        ids.push(host.api.job_id("g", job).await);
        for (number, id) in ids.iter().enumerate() {
            // An edit without a payload makes the rest of the job what the setting says, and not the payload.
            host.api
                .patch(&format!("/v1/jobs/{id}"), json!({"headers": {"X-Round": ids.len().to_string()}}))
                .await
                .ok();
            let payload = host.api.get(&format!("/v1/jobs/{id}/payload")).await.json();
            assert_eq!(payload, json!({"number": number}));
        }
        assert_eq!(host.api.get("/v1/groups/g/jobs").await.items().len(), ids.len());
        host.stop().await;
    }
    let cluster = cluster();
    let url = cluster.url(DATABASE);
    let environment = [("CARILLON_MIGRATE_TO", url.as_str())];
    let moved = run(&["migrate", "sqlite-to-postgres", "--from", &from], &environment, "").await;
    moved.ok();
    assert!(moved.stderr.contains("The migration is complete"), "{moved:?}");
    let host = setup.clone().set("store.url", &url).start().await;
    clock.advance(Duration::from_secs(7_200));
    for id in &ids {
        host.api.until_state(id, "succeeded").await;
    }
    let mut arrived: Vec<String> = receiver.arrivals("/a").iter().map(|arrival| arrival.text().to_owned()).collect();
    arrived.sort();
    assert_eq!(arrived, ["{\"number\":0}", "{\"number\":1}", "{\"number\":2}"]);
    assert!(receiver.arrivals("/a").iter().all(|arrival| arrival.header("x-round") == Some("3")));
}

/// Changes the stored row of a job.
async fn change_row(host: &TestHost, id: &str, set: &str) {
    let file = host.dir.path().join("carillon.db");
    let mut db = SqliteConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
    let sql = format!("UPDATE job_spec SET {set} WHERE job = x'{}'", id.replace('-', ""));
    assert_eq!(sqlx::query(AssertSqlSafe(sql)).execute(&mut db).await.unwrap().rows_affected(), 1);
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_ciphertext_ends_its_job_and_no_other_one() {
    let clock = ManualClock::new();
    let (host, receiver) = (encrypting(&clock).start().await, Receiver::with_clock(clock.clone()).await);
    host.api.put_group("g", json!({})).await;
    let job = |path: &str| json!({"url": receiver.url(path), "run_at": "+1m", "payload": {"a": path}});
    let damages = [
        "body = substr(body, 1, length(body) - 1)",
        "body = x''",
        "spec = replace(spec, '\"sealed\":\"', '\"sealed\":\"AAAA')",
        "spec = (SELECT other.spec FROM job_spec AS other WHERE other.job <> job_spec.job LIMIT 1), body = x'00'",
    ];
    let healthy = host.api.job_id("g", job("/healthy")).await;
    let mut damaged = Vec::new();
    for (number, damage) in damages.iter().enumerate() {
        let id = host.api.job_id("g", job(&format!("/{number}"))).await;
        change_row(&host, &id, damage).await;
        damaged.push(id);
    }
    let problem = host.api.get(&format!("/v1/jobs/{}/payload", damaged[2])).await.problem(409);
    assert_eq!(problem["type"], "urn:carillon:problem:unreadable-job");
    clock.advance(Duration::from_secs(120));
    host.api.until_state(&healthy, "succeeded").await;
    let dead = async || host.api.stats("g").await["dead"].clone();
    eventually("the damaged jobs are dead", dead, |dead| *dead == damages.len() as u64).await;
    for id in &damaged {
        let attempts = host.api.attempts(id).await;
        assert_eq!((attempts.len(), &attempts[0]["error"]["code"]), (1, &json!("store.unreadable")));
        let message = attempts[0]["error"]["message"].as_str().unwrap();
        assert!(message.contains("the encrypted value is damaged, or was encrypted under another key"), "{message}");
    }
    assert_eq!(receiver.count("/healthy"), 1);
    assert!((0..damages.len()).all(|number| receiver.count(&format!("/{number}")) == 0), "nothing of them is sent");
}

/// Returns the tenants that have keys of payloads.
async fn tenants_with_keys(host: &TestHost) -> Vec<i64> {
    let file = host.dir.path().join("carillon.db");
    let mut db = SqliteConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
    let sql = "SELECT tenant FROM entity WHERE kind = 'data_key' ORDER BY tenant";
    let found = sqlx::query_scalar(sql).fetch_all(&mut db).await.unwrap();
    db.close().await.unwrap();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tenant_has_a_key_of_its_own_which_goes_with_the_tenant() {
    let host = encrypting(&ManualClock::new()).start().await;
    let job = json!({"url": "http://127.0.0.1:9/", "run_at": "+1h", "payload": 1});
    assert!(tenants_with_keys(&host).await.is_empty(), "a key is made with the first value");
    let acme = host.api.tenant("acme").await;
    for api in [&host.api, &acme] {
        api.put_group("g", json!({})).await;
        api.job_id("g", job.clone()).await;
    }
    assert_eq!(tenants_with_keys(&host).await.len(), 2);
    let listed: Value = host.api.get("/v1/keys").await.json();
    assert_eq!(listed["items"], json!([]), "they are no keys of the API");
    // Its job still waits, and cannot be read from now on.
    host.api.delete("/v1/tenants/acme").await.expect(204);
    assert_eq!(tenants_with_keys(&host).await.len(), 1);
}
