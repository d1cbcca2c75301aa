//! The operator's everyday: the master key of a store, the operator's token, keys of the configuration, and what is done without a server.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use crate::support::{ADMIN_TOKEN, Api, Finished, MASTER_KEY, Program, Receiver, Setup, run};

/// Another key than the one of the tests.
const OTHER_KEY: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

fn store_in(dir: &Path) -> String {
    format!("sqlite:{}/x.db", dir.display())
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

async fn start_error(setup: &Setup) -> String {
    let error = setup.try_start().await.err().expect("it does not start");
    format!("{error:#}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_is_served_under_its_own_master_key_only() {
    let setup = Setup::new();
    let host = setup.start().await;
    let dir = Arc::clone(&host.dir);
    host.api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    host.stop().await;

    let other = Setup::new().in_dir(&dir).set("keys.master_key", OTHER_KEY);
    let error = start_error(&other).await;
    assert!(error.contains("keys.master_key is not the master key that the keys in this store"), "{error}");
    let missing = dir.path().join("typo.key");
    let file = Setup::new().in_dir(&dir).set("keys.master_key", "");
    let named = file.clone().set("keys.master_key_file", &missing.display().to_string());
    let error = start_error(&named).await;
    assert!(error.contains("typo.key` does not exist") && !missing.exists(), "{error}");
    let error = start_error(&file).await;
    assert!(
        error.contains("master.key` does not exist, although") && !dir.path().join("master.key").exists(),
        "{error}"
    );

    let host = setup.start().await;
    assert_eq!(host.api.get("/v1/keys/k").await.expect(200)["usable"], true, "nothing was lost meanwhile");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_master_key_is_replaced_on_purpose_and_its_keys_are_named() {
    let setup = Setup::new();
    let host = setup.start().await;
    let dir = Arc::clone(&host.dir);
    host.api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    host.api.put_group("g", json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["k"]}})).await;
    let store = format!("sqlite:{}", dir.path().join("carillon.db").display());
    let arguments = ["recover", "master-key", "--store", &store];
    let environment = [("CARILLON_KEYS__MASTER_KEY", OTHER_KEY)];
    let busy = run(&arguments, &environment, "").await;
    assert!(busy.error(1).contains("another process uses"), "{busy:?}");
    host.stop().await;
    run(&arguments, &environment, "").await.ok();
    assert!(start_error(&setup).await.contains("is not the master key"));

    let host = Setup::new().in_dir(&dir).set("keys.master_key", OTHER_KEY).start().await;
    let listed = run(&["key", "list", "--server", &host.base, "--token", ADMIN_TOKEN], &[], "").await;
    let lines: Vec<Vec<&str>> = listed.ok().lines().map(|line| line.split_whitespace().collect()).collect();
    let column = lines[0].iter().position(|heading| *heading == "USABLE").unwrap();
    assert_eq!(lines[1][column], "false", "{lines:?}");
    for answer in [
        host.api.get("/v1/groups/g").await,
        host.api.put("/v1/groups/g", json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["k"]}})).await,
    ] {
        let warnings = answer.expect(200)["warnings"].to_string();
        assert!(warnings.contains("the key `k` cannot be decrypted"), "{warnings}");
    }
    host.api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    assert_eq!(host.api.get("/v1/groups/g").await.expect(200).get("warnings"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_that_is_gone_is_not_begun_anew() {
    let setup = Setup::new();
    let host = setup.start().await;
    let dir = Arc::clone(&host.dir);
    host.stop().await;
    let (database, elsewhere) = (dir.path().join("carillon.db"), dir.path().join("elsewhere"));
    std::fs::rename(&database, &elsewhere).unwrap();
    let error = start_error(&setup).await;
    assert!(error.contains("carillon.db` does not exist, although a server has used it"), "{error}");
    assert!(!database.exists());
    std::os::unix::fs::symlink(dir.path().join("nowhere"), &database).unwrap();
    let error = start_error(&setup).await;
    assert!(error.contains("is a link to a file that does not exist"), "{error}");
    std::fs::remove_file(&database).unwrap();
    std::fs::rename(&elsewhere, &database).unwrap();
    setup.start().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configured_token_that_is_replaced_is_no_longer_valid() {
    let setup = Setup::new();
    let host = setup.start().await;
    let dir = Arc::clone(&host.dir);
    let made =
        host.api.post("/v1/tokens", json!({"name": "mine", "role": "admin", "operator": true})).await.expect(201);
    let mine = made["token"].as_str().unwrap().to_owned();
    host.stop().await;
    for token in ["the-second-token-of-all", "the-third-token-of-all"] {
        let host = Setup::new().in_dir(&dir).set("auth.admin_token", token).start().await;
        host.api.get("/v1/tokens").await.problem(401);
        host.api.with_token(token).get("/v1/tenants").await.expect(200);
        let listed = host.api.with_token(&mine).get("/v1/tokens?operator=true").await.expect(200);
        assert_eq!(listed["items"].as_array().unwrap().len(), 2, "{listed}");
        host.stop().await;
    }
    let host = Setup::new().in_dir(&dir).set("auth.admin_token", "").start().await;
    host.api.with_token("the-second-token-of-all").get("/v1/tokens").await.problem(401);
    host.api.with_token("the-third-token-of-all").get("/v1/tokens").await.problem(401);
    host.api.with_token(&mine).get("/v1/tenants").await.expect(200);
    assert!(!dir.path().join("first-token").exists(), "an operator can get in");
    // And back: it is the same token again.
    host.stop().await;
    let host = setup.start().await;
    host.api.get("/v1/tokens").await.expect(200);
    host.api.with_token("the-third-token-of-all").get("/v1/tokens").await.problem(401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configured_token_of_another_role_becomes_an_operators() {
    let host = Setup::new().start().await;
    let dir = Arc::clone(&host.dir);
    let weak = host.api.token(json!({"name": "viewer", "role": "viewer"})).await;
    host.stop().await;
    let host = Setup::new().in_dir(&dir).set("auth.admin_token", &weak).start().await;
    host.api.with_token(&weak).put("/v1/tenants/t", json!({})).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_operator_token_is_replaced_without_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(dir.path());
    let arguments = ["recover", "token", "--store", &store];
    let none = run(&arguments, &[], "").await;
    assert!(none.error(1).contains("does not exist"), "{none:?}");
    let mut program = Program::serve(&["--store", &store], &[]).await;
    assert!(run(&arguments, &[], "").await.error(1).contains("another process uses"));
    program.terminate().await;
    assert_eq!(program.ended().await, Some(0));
    let made = run(&arguments, &[], "").await;
    let token = made.ok().trim().to_owned();
    let program = Program::serve(&["--store", &store], &[]).await;
    Api::new(&program.base, Some(&token)).get("/v1/tenants").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_end_and_are_seen_to_be_used() {
    let clock = crate::support::ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let ask = json!({"name": "short", "role": "admin", "expires_in": "1h"});
    let made = host.api.post("/v1/tokens", ask).await.expect(201);
    let short = host.api.with_token(made["token"].as_str().unwrap());
    assert!(made["expires_at"].is_string() && made["operator"] == false && made["last_used_at"].is_null(), "{made}");
    let shown = async || {
        let listed = host.api.get("/v1/tokens").await.expect(200);
        listed["items"].as_array().unwrap().iter().find(|token| token["name"] == "short").unwrap().clone()
    };
    assert!(shown().await["last_used_at"].is_null());
    short.get("/v1/groups").await.expect(200);
    assert!(shown().await["last_used_at"].is_string());
    clock.advance(std::time::Duration::from_secs(3_599));
    short.get("/v1/groups").await.expect(200);
    clock.advance(std::time::Duration::from_secs(1));
    short.get("/v1/groups").await.problem(401);

    let operator = json!({"name": "second", "role": "admin", "operator": true});
    let second = host.api.post("/v1/tokens", operator.clone()).await.expect(201);
    host.api.with_token(second["token"].as_str().unwrap()).get("/v1/tenants").await.expect(200);
    let refused = json!({"role": "viewer", "operator": true});
    host.api.post("/v1/tokens", refused).await.problem_at(422, "/role");
    let admin = host.api.with_token(&host.api.token(json!({"name": "a", "role": "admin"})).await);
    admin.post("/v1/tokens", operator).await.problem(403);
    host.api.post("/v1/tokens", json!({"role": "admin", "expires_in": "soon"})).await.problem_at(422, "/expires_in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn group_with_a_key_is_declared_on_a_fresh_store() {
    let text = r#"
        [keys.flask-secret]
        env = "FLASK_SECRET"
        [groups.reminders]
        sign = { plugin = "werkzeug-cookie", keys = ["flask-secret"] }
        [tenants.acme.keys.api]
        env = "FLASK_SECRET"
        kind = "header"
        groups = ["calls"]
        [tenants.acme.groups.calls]
        auth_headers = { X-Api-Key = "api" }
    "#;
    let setup = Setup::new().file(text).variable("FLASK_SECRET", "of-flask");
    let host = setup.start().await;
    let dir = Arc::clone(&host.dir);
    let receiver = Receiver::start().await;
    let acme = host.api.for_tenant("acme");
    let id = acme.job_id("calls", json!({"url": receiver.url("/a")})).await;
    acme.until_state(&id, "succeeded").await;
    assert_eq!(receiver.arrivals("/a")[0].header("x-api-key"), Some("of-flask"));
    let version = async |api: &Api, key: &str| api.get(&format!("/v1/keys/{key}")).await.expect(200)["version"].clone();
    assert_eq!(version(&host.api, "flask-secret").await, 1);
    host.stop().await;
    let host = setup.start().await;
    assert_eq!(version(&host.api, "flask-secret").await, 1, "a restart changes nothing");
    host.stop().await;
    let host = Setup::new().in_dir(&dir).file(text).variable("FLASK_SECRET", "another").start().await;
    assert_eq!(version(&host.api, "flask-secret").await, 2);
    let id = host.api.for_tenant("acme").job_id("calls", json!({"url": receiver.url("/b")})).await;
    host.api.for_tenant("acme").until_state(&id, "succeeded").await;
    assert_eq!(receiver.arrivals("/b")[0].header("x-api-key"), Some("another"));
    host.stop().await;
    let error = start_error(&Setup::new().file(text)).await;
    assert!(
        error.contains("carillon.toml: keys.flask-secret.env: the environment variable FLASK_SECRET is not set"),
        "{error}"
    );
}

async fn checked(arguments: &[&str], environment: &[(&str, &str)]) -> [Finished; 2] {
    [
        run(&[&["config", "check"], arguments].concat(), environment, "").await,
        run(&[&["serve", "--check"], arguments].concat(), environment, "").await,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configuration_is_checked_without_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(dir.path());
    for good in checked(&["--store", &store, "--listen", "localhost:7070"], &[]).await {
        assert!(good.ok().contains("the configuration is valid"), "{good:?}");
    }
    for bad in checked(&["--store", &store], &[("CARILLON_ENGINE__LEASE", "1ms")]).await {
        assert!(bad.error(1).contains("engine.lease: 1ms is out of range: it must be from 1s to 36500days"), "{bad:?}");
    }
    for bad in checked(&["--store", "postgres://x"], &[]).await {
        let error = bad.error(1);
        assert!(error.contains("--store: store.url: servers that share a PostgreSQL database"), "{error}");
        assert!(!error.contains("built-in"), "{error}");
    }
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing is made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misspelt_log_level_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--store", &store_in(dir.path())];
    for text in ["bogus", "info,debgu"] {
        let refused = run(&arguments, &[("CARILLON_LOG", text)], "").await;
        assert!(refused.error(1).contains("CARILLON_LOG: `"), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backup_of_a_running_server_is_served_by_another_one() {
    let host = Setup::new().start().await;
    host.api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    host.api.put_group("g", json!({})).await;
    let store = format!("sqlite:{}", host.dir.path().join("carillon.db").display());
    let restored = tempfile::tempdir().unwrap();
    let copy = restored.path().join("carillon.db");
    let arguments = ["backup", &copy.display().to_string(), "--store", &store];
    let made = run(&arguments, &[], "").await;
    assert!(made.ok().contains("bytes") && made.stderr.contains("master key"), "{made:?}");
    assert_eq!(mode(&copy), 0o600);
    assert!(run(&arguments, &[], "").await.error(1).contains("exists already"));
    let postgres = ["backup", "x", "--store", "postgres://x"];
    let refused = run(&postgres, &[("CARILLON_KEYS__MASTER_KEY", MASTER_KEY)], "").await;
    assert!(refused.error(1).contains("pg_dump"), "{refused:?}");

    let other = Setup::new().in_dir(&Arc::new(restored)).start().await;
    other.api.get("/v1/groups/g").await.expect(200);
    assert_eq!(other.api.get("/v1/keys/k").await.expect(200)["usable"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compiler_without_confinement_is_logged_once() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let compiler = dir.path().join("compiler");
    // A kernel without one of the means.
    let script =
        format!("#!/bin/sh\necho 'unconfined: landlock' >&2\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_carillon"));
    std::fs::write(&compiler, script).unwrap();
    std::fs::set_permissions(&compiler, std::fs::Permissions::from_mode(0o700)).unwrap();
    let (compiler, cache) = (compiler.display().to_string(), dir.path().join("cache").display().to_string());
    let environment =
        [("CARILLON_POLICY__COMPILER", compiler.as_str()), ("CARILLON_POLICY__CACHE_DIR", cache.as_str())];
    // It compiles the default plugins before it is ready.
    let program = Program::serve(&["--store", &store_in(dir.path())], &environment).await;
    let log = program.until_logged("\"ready\"").await;
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("runs without a part of its confinement")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("WARN") && warnings[0].contains("landlock"), "{warnings:?}");
}
