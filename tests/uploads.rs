//! Uploads that mean harm: each is refused with its reason, and the server goes on as if nothing had been.

use std::fmt::Write as _;

use axum::body::Bytes;
use futures_util::future::{Either, join_all, select};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, DATABASE, JUDGE_PATH, Receiver, Setup, TestHost, cluster, judge, upload};
use carillon_testing::guest::Guest;

const MINE: &str = "/v1/plugins/mine/versions/1.0.0";

/// A component with these parts that looks as if it were a judge, until somebody links it.
fn disguised(parts: &str) -> Bytes {
    let text = format!(
        r#"(component {parts}
            (instance $empty)
            (export "carillon:policy/meta@0.1.0" (instance $empty))
            (export "carillon:policy/judge@0.1.0" (instance $empty)))"#
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}")).into()
}

/// The same with one module of these fields.
fn module(fields: &str) -> Bytes {
    disguised(&format!("(core module $m {fields})"))
}

/// `inner` in so many layers of components.
fn layers(depth: usize) -> Bytes {
    disguised(&format!("{}{}", "(component ".repeat(depth), ")".repeat(depth)))
}

/// Functions whose machine code takes long to find: there are more values that live at the same time than registers, all the time.
fn slow_to_compile(functions: usize, steps: u32) -> Bytes {
    let mut body = String::new();
    for step in 0..steps {
        let (one, other) = (step % 61, (step * 7 + 3) % 61);
        let sum = format!("(i64.mul (local.get {one}) (i64.xor (local.get {other}) (i64.const {step})))");
        write!(body, "(local.set {other} {sum})").unwrap();
        if step % 9 == 0 {
            write!(body, "(br_if 0 (i64.eqz (local.get {one})))").unwrap();
        }
    }
    let locals = "(local ".to_owned() + &"i64 ".repeat(61) + ")";
    let function = format!("(func {locals} (loop {body}))");
    module(&function.repeat(functions))
}

/// Types whose names alone are megabytes.
fn many_types(count: usize) -> String {
    (0..count).map(|index| format!("(type (func (param \"a{index}\" u8)))")).collect()
}

/// Every layer of the type is twice the one below, written once.
fn doubling_type(layers: usize) -> Bytes {
    let mut text = String::from("(type $t0 (tuple u64 u64))");
    for layer in 1..=layers {
        write!(text, "(type $t{layer} (tuple $t{} $t{}))", layer - 1, layer - 1).unwrap();
    }
    disguised(&text)
}

/// A judge whose config has this schema.
fn with_schema(schema: &str) -> Bytes {
    Guest::describing("mine", "1.0.0", schema).role("judge", "(i32.const 128)").build().into()
}

/// A schema with so many patterns, each as short as can be.
fn patterns(count: usize) -> String {
    let fields = (0..count).map(|index| format!(r#""{index}":{{}}"#)).collect::<Vec<_>>();
    format!(r#"{{"patternProperties":{{{}}}}}"#, fields.join(","))
}

/// What is uploaded, and a part of the reason why it is refused.
fn hostile() -> Vec<(&'static str, Bytes, &'static str)> {
    let empty = "(core module $m)";
    let instances = "(core instance (instantiate $m))".repeat(300);
    vec![
        ("100,000 functions", module(&"(func)".repeat(100_000)), "too many functions: at most 65536"),
        ("deep components", layers(50), "too many layers of components: at most 8"),
        ("many components", disguised(&"(component)".repeat(2_000)), "too many modules and components"),
        ("many declarations", disguised(&"(type u8)".repeat(300_000)), "too many declarations"),
        (
            "deep blocks",
            module(&format!("(func {}{})", "(block ".repeat(200_000), ")".repeat(200_000))),
            "does not have export `describe`",
        ),
        ("many types", disguised(&many_types(200_000)), "does not have export `describe`"),
        ("a huge table", module("(table 10000001 funcref)"), "table"),
        ("a table that no call could have", module("(table 1000000 funcref)"), "table"),
        ("a huge memory", module("(memory 65536)"), "memory"),
        ("memory64", module("(memory i64 1)"), "memory64"),
        ("threads", module("(memory 1 1 shared)"), "threads"),
        ("many locals", module(&format!("(func (local {}))", "i64 ".repeat(50_001))), "locals"),
        ("component-model async", disguised("(type (stream u8))"), "async"),
        ("an async function", disguised("(core func (canon backpressure.inc))"), "async"),
        (
            "a component in itself",
            disguised("(component (alias outer 1 0 (component $c)) (instance (instantiate $c)))"),
            "does not compile",
        ),
        ("a type that doubles", doubling_type(60), "type"),
        ("instances without end", disguised(&format!("{empty}{instances}")), "instances"),
        ("an import of the network", network(), "a policy has no network access"),
        ("no role", wat::parse_str("(component)").unwrap().into(), "meta"),
        ("a pattern that swells", with_schema(r#"{"pattern":"(a{500}){99}"}"#), "a pattern that is too large"),
        ("many patterns", with_schema(&patterns(33)), "too many patterns: at most 32"),
        (
            "a deep schema",
            with_schema(&format!("{}true{}", r#"{"not":"#.repeat(64), "}".repeat(64))),
            "too many layers",
        ),
        ("a schema of references", with_schema(r##"{"$ref":"#"}"##), "must not use `$ref`"),
    ]
}

fn network() -> Bytes {
    wat::parse_str(r#"(component (import "wasi:sockets/tcp@0.2.0" (instance)))"#).unwrap().into()
}

async fn reason(host: &TestHost, path: &str, component: Bytes) -> String {
    let problem = upload(&host.api, path, component).await.problem(422);
    problem["detail"].as_str().unwrap().to_owned()
}

/// A job is still delivered, and a good plugin still taken.
async fn all_is_well(host: &TestHost) {
    let receiver = Receiver::start().await;
    receiver.on("/a", [Answer::body(200, r#"{"ok": true}"#)]);
    upload(&host.api, JUDGE_PATH, judge().await).await.ok();
    host.api.put_group("g", json!({"judge": {"plugin": "judge-json-ok"}})).await;
    let id = host.api.job_id("g", json!({"url": receiver.url("/a")})).await;
    host.api.until_state(&id, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_hostile_component_gets_its_reason() {
    let host = Setup::new().set("server.request_timeout", "5m").start().await;
    for (what, component, expected) in hostile() {
        let said = reason(&host, MINE, component).await;
        assert!(said.contains(expected), "{what}: {said}");
    }
    assert_eq!(host.api.get("/v1/plugins").await.items().iter().filter(|it| it["builtin"] == false).count(), 0);
    all_is_well(&host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compilation_that_takes_too_long_or_too_much_is_given_up() {
    let host = Setup::new().set("policy.compile_timeout", "1s").start().await;
    // More of them than are compiled at once; meanwhile jobs are delivered.
    let bombs = join_all((0..3).map(|_| reason(&host, MINE, slow_to_compile(200, 2_000))));
    let (reasons, ()) = tokio::join!(bombs, delivers(&host));
    for said in reasons {
        assert!(said.contains("it takes longer than 1s"), "{said}");
    }
    let host = Setup::new().set("policy.compile_memory", "256MiB").start().await;
    upload(&host.api, JUDGE_PATH, judge().await).await.ok();
    let said = reason(&host, MINE, slow_to_compile(1, 20_000)).await;
    assert!(said.contains("it takes more than 256 MiB of memory"), "{said}");
    delivers(&host).await;
}

/// Longer than [`crate::support::PATIENCE`]: what became of a bomb is known when the compiler has had all its time.
async fn upload_bomb(host: &TestHost, tenant: &str, component: Bytes) -> (u16, String) {
    let request = host.api.for_tenant(tenant).request(Method::PUT, MINE).header("content-type", "application/wasm");
    let response = request.body(component).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_default_settings_a_bomb_gets_its_reason_and_nobody_else_waits_for_it() {
    let host = TestHost::start().await;
    host.api.tenant("evil").await;
    let acme = host.api.tenant("acme").await;
    // Functions are compiled one after the other: in the memory of one, which there is, and the time of all.
    let bomb = slow_to_compile(6, 200_000);
    // The second waits for the first as long as that takes, and is left when the first is known.
    let first = std::pin::pin!(upload_bomb(&host, "evil", bomb.clone()));
    let second = std::pin::pin!(upload_bomb(&host, "evil", another(&bomb)));
    let bombs = select(first, second);
    // Nobody has compiled this one yet: no other server was at this address.
    let section = [&[0, u8::try_from(host.base.len() + 2).unwrap(), 1, b'n'], host.base.as_bytes()].concat();
    let innocent = upload(&acme, JUDGE_PATH, [&judge().await[..], &section].concat());
    let innocent = std::pin::pin!(innocent);
    match select(bombs, innocent).await {
        Either::Left(_) => panic!("the innocent upload waits for the bombs"),
        Either::Right((reply, bombs)) => {
            reply.ok();
            let ((status, said), _) = bombs.await.factor_first();
            assert_eq!(status, 422, "{said}");
            assert!(said.contains("it takes longer than 1m"), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_beyond_the_queue_are_told_to_come_back() {
    let host = Setup::new().set("policy.compile_timeout", "2s").start().await;
    let bomb = slow_to_compile(1, 60_000);
    let replies = join_all((0..20).map(|_| upload(&host.api, MINE, bomb.clone()))).await;
    let (refused, sent_away): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == 422);
    assert_eq!((refused.len(), sent_away.len()), (16, 4), "one look is for all who bring the same");
    for reply in sent_away {
        assert!(reply.headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0);
        assert!(reply.problem(503)["detail"].as_str().unwrap().contains("too many uploads"));
    }
    delivers(&host).await;
}

async fn delivers(host: &TestHost) {
    let receiver = Receiver::start().await;
    host.api.put_group("g", json!({})).await;
    let id = host.api.job_id("g", json!({"url": receiver.url("/a")})).await;
    host.api.until_state(&id, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_look_like_others_are_shown_as_what_they_are() {
    let host = TestHost::start().await;
    // A Cyrillic letter, a fullwidth one, a space without width, a hyphen that is none.
    for (name, shown) in [
        ("b%D0%B0ckoff", r"b\u{430}ckoff"),
        ("%EF%BD%82ackoff", r"\u{ff42}ackoff"),
        ("back%E2%80%8Boff", r"back\u{200b}off"),
        ("judge%E2%80%90json%E2%80%90ok", r"judge\u{2010}json\u{2010}ok"),
    ] {
        let said = reason(&host, &format!("/v1/plugins/{name}/versions/0.1.0"), judge().await).await;
        assert!(said.contains(shown), "{said}");
    }
    for version in ["%EF%BC%91.0.0", "1.0", "v1.0.0", "1.0.0%0A"] {
        let path = format!("/v1/plugins/judge-json-ok/versions/{version}");
        let said = reason(&host, &path, judge().await).await;
        assert!(said.contains("is not a semantic version"), "{said}");
    }
    let said = reason(&host, "/v1/plugins/judge-json-0k/versions/0.1.0", judge().await).await;
    assert!(said.contains("states the name `judge-json-ok@0.1.0`"), "{said}");
    upload(&host.api, "/v1/plugins/backoff/versions/9.0.0", judge().await).await.problem(409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_body_is_not_unpacked() {
    let host = TestHost::start().await;
    let request = host.api.request(Method::PUT, JUDGE_PATH).header("content-type", "application/wasm");
    let reply = host.api.send(request.header("content-encoding", "gzip").body(judge().await)).await;
    let problem = reply.problem(415);
    assert!(problem["detail"].as_str().unwrap().contains("gzip"), "{problem}");
    host.api.get(JUDGE_PATH).await.problem(404);
}

/// How the uploads of these components as one version ended, sorted.
async fn race(host: &TestHost, components: &[&Bytes]) -> Vec<u16> {
    let uploads = components.iter().map(|bytes| upload(&host.api, JUDGE_PATH, Bytes::clone(bytes)));
    let mut statuses: Vec<_> = join_all(uploads).await.iter().map(|reply| reply.status).collect();
    statuses.sort_unstable();
    statuses
}

/// Other bytes that do the same.
fn another(component: &Bytes) -> Bytes {
    [&component[..], &[0, 2, 1, b'x']].concat().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_uploads_of_one_version_one_is_it() {
    let host = TestHost::start().await;
    let bytes = judge().await;
    let other = another(&bytes);
    assert_eq!(race(&host, &[&bytes, &bytes, &bytes]).await, [200, 200, 201]);
    assert_eq!(race(&host, &[&bytes, &other]).await, [200, 409]);
    host.api.delete(JUDGE_PATH).await.expect(204);
    assert_eq!(race(&host, &[&bytes, &other]).await, [201, 409]);
    let kept = host.api.get(&format!("{JUDGE_PATH}/component")).await.body;
    assert!(kept == bytes || kept == other);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_uploads_to_two_nodes_one_is_it() {
    let cluster = cluster();
    let node = async || Setup::new().set("store.url", &cluster.url(DATABASE)).start().await;
    let (one, two) = (node().await, node().await);
    let (bytes, again) = (judge().await, judge().await);
    let (here, there) = tokio::join!(upload(&one.api, JUDGE_PATH, bytes.clone()), upload(&two.api, JUDGE_PATH, again));
    assert_eq!(here.status + there.status, 401, "one is new, the other has been there: {here:?} {there:?}");
    one.api.delete(JUDGE_PATH).await.expect(204);
    let (here, there) =
        tokio::join!(upload(&one.api, JUDGE_PATH, bytes.clone()), upload(&two.api, JUDGE_PATH, another(&bytes)));
    let mut statuses = [here.status, there.status];
    statuses.sort_unstable();
    assert!(statuses == [201, 409], "{here:?} {there:?}");
}

/// How many compiled components are kept.
fn kept(cache: &tempfile::TempDir) -> usize {
    std::fs::read_dir(cache.path()).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_or_deleted_components_leave_nothing_in_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let host = Setup::new().set("policy.cache_dir", &cache.path().display().to_string()).start().await;
    let others = kept(&cache);
    let bytes = judge().await;
    let said = reason(&host, MINE, bytes.clone()).await;
    assert!(said.contains("states the name"), "{said}");
    assert_eq!(kept(&cache), others, "it was compiled, and refused");
    let acme = host.api.tenant("acme").await;
    for tenant in [&acme, &host.api] {
        upload(tenant, JUDGE_PATH, bytes.clone()).await.expect(201);
        assert_eq!(kept(&cache), others + 1);
    }
    acme.delete(JUDGE_PATH).await.expect(204);
    assert_eq!(kept(&cache), others + 1, "another tenant has it");
    host.api.delete(JUDGE_PATH).await.expect(204);
    assert_eq!(kept(&cache), others);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_plugins_are_bounded_by_its_quota() {
    let host = TestHost::start().await;
    let acme = host.api.tenant("acme").await;
    let put = async |quota: Value| host.api.put("/v1/tenants/acme", json!({"quota": quota})).await.expect(200);
    let draft = |number: u32| format!("/v1/plugins/judge-json-ok/versions/0.1.0-dev.{number}");
    let bytes = judge().await;
    put(json!({"plugins": 2, "plugin_bytes": bytes.len() * 3 / 2})).await;
    upload(&acme, &draft(1), bytes.clone()).await.expect(201);
    let full = upload(&acme, &draft(2), bytes.clone()).await.problem(413);
    assert!(full["detail"].as_str().unwrap().contains(&format!("they would have {}", bytes.len() * 2)), "{full}");
    put(json!({"plugins": 2})).await;
    // Several at once are counted one by one.
    let uploads = (2..6).map(|number| {
        let (acme, path, bytes) = (acme.clone(), draft(number), bytes.clone());
        async move { upload(&acme, &path, bytes).await }
    });
    let all = join_all(uploads).await;
    let mut statuses: Vec<_> = all.iter().map(|reply| reply.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409]);
    upload(&acme, &draft(1), bytes.clone()).await.expect(200);
    acme.delete(&draft(1)).await.expect(204);
    upload(&acme, &draft(1), bytes.clone()).await.expect(201);
    upload(&host.api, &draft(1), bytes).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_bound_or_deleted_and_never_both() {
    let host = TestHost::start().await;
    let bytes = judge().await;
    for round in 0..10 {
        let group = format!("/v1/groups/g{round}");
        upload(&host.api, JUDGE_PATH, bytes.clone()).await.ok();
        let bind = host.api.put(&group, json!({"judge": {"plugin": "judge-json-ok@0.1.0"}}));
        let (bound, deleted) = tokio::join!(bind, host.api.delete(JUDGE_PATH));
        match deleted.status {
            204 => assert!(matches!(bound.status, 409 | 422), "{bound:?}"),
            409 => {
                bound.expect(201);
                assert_eq!(host.api.get(&group).await.expect(200)["broken"], Value::Null);
                host.api.delete(&group).await.expect(204);
            }
            _ => panic!("{deleted:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_compilations_are_bounded_within_an_hour() {
    // In a cache of its own: what another test has compiled needs no budget.
    let cache = tempfile::tempdir().unwrap();
    let setup = Setup::new().set("policy.cache_dir", &cache.path().display().to_string());
    let host = setup.set("limits.tenant.compile_seconds", "0").start().await;
    let acme = host.api.tenant("acme").await;
    let bytes = judge().await;
    let refused = upload(&acme, JUDGE_PATH, bytes.clone()).await;
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=3_600).contains(&wait), "{wait}");
    let problem = refused.problem(429);
    assert_eq!(problem["type"], "urn:carillon:problem:compile-budget", "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("`compile_seconds`"), "{problem}");
    let metrics = host.api.get("/metrics").await;
    assert!(metrics.text().contains("carillon_refused_total{bound=\"limits.tenant.compile_seconds\"}"));
    // The tenant's own quota overrides the default, and whoami shows both.
    host.api.patch("/v1/tenants/acme", json!({"quota": {"compile_seconds": 60}})).await.ok();
    upload(&acme, JUDGE_PATH, bytes.clone()).await.expect(201);
    let whoami = acme.get("/v1/whoami").await.expect(200);
    assert_eq!(whoami["limits"]["compile_seconds"], 60, "{whoami}");
    assert!(whoami["usage"]["compile_seconds"].is_u64(), "{whoami}");
    // What is compiled already needs no budget.
    upload(&host.api, JUDGE_PATH, bytes).await.expect(201);
}
