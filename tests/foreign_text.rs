//! Texts of plugins, receivers, consumers and people reach no reader with characters that control a terminal, a line, or the direction of text.

use axum::body::Bytes;
use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Answer, Api, Program, Receiver, TestHost, cli, queue, upload};
use carillon_core::text::{clean, is_hidden};
use carillon_testing::guest::{Guest, PLAIN, bytes, failure};

/// Colours and a bell, line breaks, a C1 control, a change of direction, characters without width, and a tag.
const HOSTILE: &str = "a\u{1b}[2J\u{7}\r\nb\u{9b}c\u{202e}d\u{2066}e\u{200b}f\u{2028}g\u{e0041}";

/// Address of [`HOSTILE`] in guests.
const TEXT: u32 = 2048;

/// What HTTP allows of it in the value of a header.
const HOSTILE_HEADER: &str = "b\u{9b}c\u{202e}d\u{200b}e\u{2028}";

/// Checks that no text in a response has a hidden character, in values and in names.
#[track_caller]
fn assert_clean(value: &Value) {
    match value {
        Value::String(text) => assert!(!text.contains(is_hidden), "{text:?}"),
        Value::Array(items) => items.iter().for_each(assert_clean),
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            assert!(!name.contains(is_hidden), "{name:?}");
            assert_clean(value);
        }),
        _ => {}
    }
}

/// Checks what a terminal is sent: lines without hidden characters.
#[track_caller]
fn assert_lines_clean(text: &str) {
    assert!(!text.is_empty() && text.lines().all(|line| !line.contains(is_hidden)), "{text:?}");
}

/// Statements that put the address and the length of the text at `place`.
fn store_text(place: u32) -> String {
    let len = HOSTILE.len();
    format!(
        "(i32.store (i32.const {place}) (i32.const {TEXT})) (i32.store (i32.const {}) (i32.const {len}))",
        place + 4
    )
}

/// A guest whose summary, schema, verdicts, last words and log lines are hostile.
fn talker() -> Bytes {
    let schema = json!({"title": HOSTILE, "description": HOSTILE}).to_string();
    let log = format!("(call $log (i32.const 1) (i32.const {TEXT}) (i32.const {}))", HOSTILE.len());
    let judge = format!("{log} (i32.store8 (i32.const 132) (i32.const 1)) {} {PLAIN}", store_text(136));
    let retry = format!("{log} (i32.store8 (i32.const 136) (i32.const 1)) {} {PLAIN}", store_text(144));
    let guest = Guest::describing("talker", "1.0.0", &schema).summary(HOSTILE);
    let guest = guest.role("judge", &judge).role("retry", &retry).role("observe", &log);
    guest.with(&bytes(TEXT, HOSTILE.as_bytes())).build().into()
}

/// A guest whose failures are hostile.
fn failing() -> Bytes {
    // Zeros are the result of a check that accepts.
    let guest = Guest::describing("failing", "1.0.0", "{}").role("judge", PLAIN).check("(i32.const 4096)");
    guest.with(&failure(4, 2, HOSTILE, HOSTILE)).build().into()
}

/// A guest that refuses every config with a hostile text.
fn picky() -> Bytes {
    let guest = Guest::describing("picky", "1.0.0", "{}").role("judge", PLAIN);
    let check = format!("(i32.store8 (i32.const 1100) (i32.const 1)) {} (i32.const 1100)", store_text(1104));
    guest.check(&check).with(&bytes(TEXT, HOSTILE.as_bytes())).build().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_of_plugins_are_clean_everywhere() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    let api = &host.api;
    receiver.on("/x", [Answer::status(500)]);
    for (name, component) in [("talker", talker()), ("failing", failing()), ("picky", picky())] {
        let path = format!("/v1/plugins/{name}/versions/1.0.0");
        assert_clean(&upload(api, &path, component).await.expect(201));
    }
    let talker = api.get("/v1/plugins/talker/versions/1.0.0").await.expect(200);
    assert_eq!(talker["summary"], &*clean(HOSTILE), "{talker}");
    assert_eq!(talker["config_schema"]["title"], &*clean(HOSTILE), "{talker}");
    assert_clean(&talker);
    let refused = api.put("/v1/groups/no", json!({"judge": {"plugin": "picky", "config": {}}})).await.problem(422);
    assert!(refused["detail"].as_str().unwrap().contains("[2J"), "{refused}");
    assert_clean(&refused);

    let mut events = api.follow("?kind=error,quarantine").await;
    let group = json!({"judge": {"plugin": "talker"}, "retry": {"plugin": "talker"}, "observe": {"plugin": "talker"}});
    api.put_group("talk", group).await;
    let id = api.job_id("talk", json!({"url": receiver.url("/x")})).await;
    api.until_state(&id, "dead").await;
    let attempts = api.attempts(&id).await;
    assert_eq!(attempts[0]["verdict"]["reason"], &*clean(HOSTILE), "{attempts:?}");
    attempts.iter().for_each(assert_clean);
    assert_clean(&api.job(&id).await);
    assert_clean(&events.take(1).await[0]);

    api.put_group("fail", json!({"judge": {"plugin": "failing"}, "retry": {"config": {"max_attempts": 1}}})).await;
    for _ in 0..3 {
        let id = api.job_id("fail", json!({"url": receiver.url("/x")})).await;
        api.until_state(&id, "dead").await;
        let attempts = api.attempts(&id).await;
        assert!(attempts[0]["error"]["message"].as_str().unwrap().contains("[2J"), "{attempts:?}");
        attempts.iter().for_each(assert_clean);
    }
    events.take(4).await.iter().for_each(assert_clean);
    assert_clean(&api.get("/v1/groups/fail").await.ok());
    let observed = |group: &Value| group["observer"]["log"].as_array().is_some_and(|log| !log.is_empty());
    assert_clean(&api.until_shown("/v1/groups/talk", observed).await);

    let attempts = cli(&host, &["job", "attempts", &id], "").await;
    assert_lines_clean(attempts.ok());
    assert_lines_clean(cli(&host, &["job", "attempt", &id, "1", "--json"], "").await.ok());
    assert_lines_clean(cli(&host, &["plugin", "list"], "").await.ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reasons_why_components_are_refused_are_clean() {
    let host = TestHost::start().await;
    let hostile: String = HOSTILE.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let schema = json!({"type": HOSTILE}).to_string();
    let components: [(&str, Bytes); 4] = [
        (
            "bad core module",
            wat::parse_bytes(
                format!("(component (core module (import \"{hostile}\" \"{hostile}\" (func))))").as_bytes(),
            )
            .unwrap()
            .into_owned()
            .into(),
        ),
        ("bad name", Guest::describing(HOSTILE, "1.0.0", "{}").role("judge", PLAIN).build().into()),
        ("bad version", Guest::describing("mine", HOSTILE, "{}").role("judge", PLAIN).build().into()),
        ("bad schema", Guest::describing("mine", "1.0.0", &schema).role("judge", PLAIN).build().into()),
    ];
    for (what, component) in components {
        let refused = upload(&host.api, "/v1/plugins/mine/versions/1.0.0", component).await;
        assert!(refused.status == 422, "{what}: {}", refused.text());
        assert_clean(&refused.problem(422));
    }
    let mount =
        host.api.post("/compat/doppler/", json!({"callback_url": HOSTILE, "message": "{}", "run_at": HOSTILE})).await;
    assert!(mount.status >= 400, "{}", mount.text());
    assert_clean(&mount.json());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_of_receivers_and_consumers_are_clean() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    let api = &host.api;
    receiver.on("/x", [Answer::status(500).header("x-note", HOSTILE_HEADER)]);
    receiver.on("/away", [Answer::status(307).header("location", format!("nowhere://{HOSTILE_HEADER}/"))]);
    api.put_group("g", json!({"retry": {"config": {"max_attempts": 1}}, "limits": {"redirects": 3}})).await;
    for path in ["/x", "/away"] {
        let id = api.job_id("g", json!({"url": receiver.url(path)})).await;
        api.until_state(&id, "dead").await;
        let attempts = api.attempts(&id).await;
        assert!(attempts[0].to_string().contains("\u{fffd}") || path == "/away", "{attempts:?}");
        attempts.iter().for_each(assert_clean);
        assert_lines_clean(cli(&host, &["job", "attempt", &id, "1"], "").await.ok());
    }
    api.put_group("pulled", json!({"retry": {"config": {"max_attempts": 1}}})).await;
    let id = api.job_id("pulled", json!({"payload": {}})).await;
    let lease = &queue::of_group(api, "pulled", json!({})).await[0];
    queue::say(api, lease, "fail", json!({"error": HOSTILE})).await.ok();
    let attempts = api.attempts(&id).await;
    assert_eq!(attempts[0]["error"]["message"], &*clean(HOSTILE), "{attempts:?}");
    assert_clean(&api.job(&id).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reasons_and_names_of_people_are_clean() {
    let host = TestHost::start().await;
    let api = &host.api;
    upload(api, "/v1/plugins/talker/versions/1.0.0", talker()).await.expect(201);
    let path = "/v1/plugins/talker/versions/1.0.0";
    let deprecated = api.patch(path, json!({"deprecated": HOSTILE})).await.ok();
    assert_eq!(deprecated["deprecated"], &*clean(HOSTILE), "{deprecated}");
    api.put_group("g", json!({})).await;
    let proposal = json!({"judge": {"config": {"expect": [202]}}, "why": HOSTILE});
    let made = api.post("/v1/groups/g/policy/versions", proposal).await.ok();
    assert_eq!(made["why"], &*clean(HOSTILE), "{made}");
    for name in [HOSTILE, "invisible\u{200b}", "turned\u{202e}"] {
        let refused = api.post("/v1/tokens", json!({"role": "viewer", "name": name})).await.problem_at(422, "/name");
        assert_clean(&refused);
    }
    // Names in problems are what the client has sent, made visible.
    let refused = api.post("/v1/groups/g/jobs", json!({"url": format!("http://a/{HOSTILE}")})).await;
    assert_clean(&refused.problem(422));
    let refused = api.post("/v1/groups/g/jobs", json!({"url": "http://a/", HOSTILE: 1})).await.problem(400);
    assert_clean(&refused["detail"]);
    assert_eq!(refused["pointer"], format!("/{HOSTILE}"), "a pointer is data, as the name that it has");
    // A job's own name is data and stays as it is; who prints it escapes it.
    api.job_id("g", json!({"url": "http://127.0.0.1:1/", "run_at": "+1h", "name": HOSTILE})).await;
    let listed = api.get("/v1/groups/g/jobs").await.items();
    assert_eq!(listed[0]["name"], HOSTILE);
    assert_lines_clean(cli(&host, &["job", "list", "g"], "").await.ok());
    let printed = cli(&host, &["job", "list", "g", "--json"], "").await;
    assert_lines_clean(printed.ok());
    assert_eq!(printed.json()["items"][0]["name"], HOSTILE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_has_the_lines_of_guests_clean() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("carillon.db").display());
    let program = Program::serve(&["--store", &store], &[("CARILLON_AUTH__ADMIN_TOKEN", ADMIN_TOKEN)]).await;
    let api = Api::new(&program.base, Some(ADMIN_TOKEN));
    upload(&api, "/v1/plugins/talker/versions/1.0.0", talker()).await.expect(201);
    api.put_group("g", json!({"observe": {"plugin": "talker"}})).await;
    api.job_id("g", json!({"url": "http://127.0.0.1:1/", "run_at": "+9h"})).await;
    let log = program.until_logged("observer logged a line").await;
    for entry in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        assert_clean(&entry);
    }
}
