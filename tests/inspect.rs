//! `carillon plugin inspect`: what it says of components that a server takes, and of those that it refuses.

use carillon_policy::golden::{Golden, embed};
use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Finished, TestHost, judge, run};

/// What is printed as JSON, whether the component would be taken or not.
fn shown(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

fn has(list: &Value, name: &str) -> bool {
    list.as_array().unwrap().iter().any(|item| item == name)
}

async fn inspect(file: &std::path::Path, component: &[u8]) -> Finished {
    std::fs::write(file, component).unwrap();
    run(&["plugin", "inspect", file.to_str().unwrap(), "--json"], &[], "").await
}

fn golden(outcome: &str) -> Golden {
    let call = json!({"response": {"status": 200, "body": "{\"ok\": true}"}});
    let answer = json!({"outcome": outcome, "reason": "The status is 200."});
    serde_json::from_value(json!({"name": "fine", "role": "judge", "input": call, "answer": answer})).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_that_is_taken_is_shown_in_full() {
    let (dir, bytes) = (tempfile::tempdir().unwrap(), judge().await);
    let file = dir.path().join("judge.wasm");
    let finished = inspect(&file, &bytes).await;
    let seen = finished.json();
    assert_eq!(
        (&seen["name"], &seen["version"], &seen["roles"], &seen["engine"], &seen["refused"]),
        (&json!("judge-json-ok"), &json!("0.1.0"), &json!(["judge"]), &json!("small"), &Value::Null)
    );
    assert_eq!((&seen["size"], &seen["golden_tests"]), (&json!(bytes.len()), &json!([])));
    assert!(has(&seen["exports"], "carillon:policy/judge@0.1.0") && has(&seen["imports"], "carillon:policy/log@0.1.0"));
    assert!(seen["producers"].as_array().unwrap().iter().any(|it| it["field"] == "language" && it["name"] == "Rust"));
    let number = |key: &str| seen[key].as_u64().unwrap_or_else(|| panic!("{key}: {seen}"));
    assert!(number("memory_minimum") >= 1 << 16 && number("memory_minimum") % (1 << 16) == 0, "{seen}");
    assert!(number("describe_memory") >= number("memory_minimum"), "{seen}");
    assert_eq!(number("memory_limit"), 16 << 20);
    assert!(number("core_modules") >= 1 && number("native_size") > number("size") / 10, "{seen}");
    assert!(number("compile_millis") > 0 && seen["config_schema"].is_object(), "{seen}");

    let people = run(&["plugin", "inspect", file.to_str().unwrap()], &[], "").await;
    assert!(["export  carillon:policy/judge@0.1.0", "MADE BY", "small"].iter().all(|it| people.ok().contains(it)));

    // The server's own, by its name, with the digest that the server gives.
    let host = TestHost::start().await;
    let server = [("CARILLON_SERVER", host.base.as_str()), ("CARILLON_TOKEN", ADMIN_TOKEN)];
    let seen = run(&["plugin", "inspect", "backoff", "--json"], &server, "").await.json();
    let known = host.api.get("/v1/plugins/backoff").await.expect(200);
    assert_eq!((&seen["digest"], &seen["config_schema"]), (&known["digest"], &known["config_schema"]));
    let name = format!("backoff@{}", known["version"].as_str().unwrap());
    assert_eq!(run(&["plugin", "inspect", &name, "--json"], &server, "").await.json()["name"], "backoff");
    assert!(run(&["plugin", "inspect", "nobody"], &server, "").await.error(1).contains("nobody"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_component_that_is_refused_there_is_the_reason_and_what_can_be_known() {
    let (dir, bytes) = (tempfile::tempdir().unwrap(), judge().await);
    let file = dir.path().join("odd.wasm");
    let network = wat::parse_str(r#"(component (import "wasi:http/types@0.2.0" (instance)))"#).unwrap();
    let module = wat::parse_str("(module (memory 2))").unwrap();
    let failing = embed(&bytes, &[golden("permanent")]);
    for (component, reason, key, value) in [
        (&network[..], "a policy has no network access", "imports", json!(["wasi:http/types@0.2.0"])),
        (&module[..], "core module", "memory_minimum", json!(2 << 16)),
        (&bytes[..bytes.len() / 2], "", "size", json!(bytes.len() / 2)),
        (b"hello", "not a WebAssembly component", "exports", json!([])),
        (&failing[..], "the golden test `fine`", "golden_tests", json!([{"name": "fine", "role": "judge"}])),
    ] {
        let finished = inspect(&file, component).await;
        let seen = shown(&finished);
        assert_eq!((finished.code, &seen[key]), (Some(1), &value), "{finished:?}");
        assert!(seen["refused"].as_str().unwrap().contains(reason), "{finished:?}");
        assert!(finished.stderr.contains("a server would refuse the component: "), "{finished:?}");
    }
    let seen = shown(&inspect(&file, &bytes[..bytes.len() / 2]).await);
    assert!(seen["unread"].is_string() && seen["name"].is_null(), "{seen}");
    let seen = shown(&inspect(&file, &failing).await);
    assert_eq!((&seen["name"], &seen["engine"]), (&json!("judge-json-ok"), &json!("small")));
    assert_eq!(inspect(&file, &embed(&bytes, &[golden("success")])).await.code, Some(0));
}
