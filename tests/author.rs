//! What a plugin's author does, with the program itself: begin, build, test, measure, upload.

use std::path::PathBuf;
use std::process::Output;

use axum::body::Bytes;
use carillon_guest_build::{BuildRequest, build};
use carillon_policy::golden::{Golden, embed};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{ADMIN_TOKEN, Finished, ROLES, TestHost, beside_others, run, scaffold};

async fn author(arguments: &[&str]) -> Finished {
    run(arguments, &[], "").await
}

/// The same for what compiles: it needs this environment, and time.
async fn compile(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_carillon")).args(arguments).output().await.unwrap()
}

async fn component(directory: PathBuf) -> Vec<u8> {
    let request = BuildRequest { manifest_dir: directory, target_dir: beside_others(), toolchain: None };
    let built = tokio::task::spawn_blocking(move || build(&request)).await.unwrap();
    built.unwrap_or_else(|error| panic!("it does not build: {error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_plugin_of_each_role_builds_and_passes_its_tests() {
    let parent = tempfile::tempdir().unwrap();
    for role in ROLES {
        let directory = scaffold(parent.path(), &format!("my-{role}"), role).await;
        let file = parent.path().join(format!("{role}.wasm"));
        std::fs::write(&file, component(directory.clone()).await).unwrap();
        let (file, golden) = (file.to_str().unwrap(), directory.join("golden"));
        let tested = author(&["plugin", "test", file, golden.to_str().unwrap()]).await;
        assert!(tested.ok().contains("ok    first"), "{tested:?}");
        let described = author(&["plugin", "describe", file, "--json"]).await.json();
        assert_eq!((&described["name"], &described["roles"]), (&json!(format!("my-{role}")), &json!([role])));
    }
    let again = author(&["plugin", "new", "my-sign", "--role", "sign", "--in", parent.path().to_str().unwrap()]).await;
    assert!(again.error(1).contains("already exists"));
    assert!(author(&["plugin", "new", "../x", "--role", "sign"]).await.error(2).contains("begins with a letter"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_tests_are_written_checked_measured_and_travel_with_the_component() {
    let parent = tempfile::tempdir().unwrap();
    let directory = scaffold(parent.path(), "my-judge", "judge").await;
    let (golden, wasm) = (directory.join("golden"), parent.path().join("my-judge.wasm"));
    let (golden_text, wasm_text) = (golden.to_str().unwrap(), wasm.to_str().unwrap());
    let target = beside_others();
    let build = ["plugin", "build", directory.to_str().unwrap(), "-o", wasm_text, "--json", "--target-dir"];
    let build = [&build[..], &[target.to_str().unwrap()]].concat();
    let built = compile(&build).await;
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    assert_eq!(serde_json::from_slice::<Value>(&built.stdout).unwrap()["golden_tests"], 1);

    // A test that says something else fails, says how, and can be taken at the plugin's word.
    let second = golden.join("second.json");
    let test = json!({"role": "judge", "input": {"response": {"status": 200, "body": "ok"}}, "answer": {"outcome": "permanent"}});
    std::fs::write(&second, test.to_string()).unwrap();
    let failed = author(&["plugin", "test", wasm_text, golden_text]).await;
    assert!(failed.code == Some(1) && failed.stderr.contains("1 of 2 golden tests failed"), "{failed:?}");
    assert!(failed.stdout.contains("FAIL  the golden test `second`: expected"), "{failed:?}");
    // A build writes the component whatever the tests say, and tells how they fail.
    std::fs::remove_file(&wasm).unwrap();
    let refused = compile(&build).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("the golden test `second`: expected"), "{said}");
    assert!(said.contains("1 of 2 golden tests failed") && said.contains("--update") && wasm.exists(), "{said}");
    let third = golden.join("third.json");
    let call = json!({"role": "judge", "input": {"response": {"status": 500}}});
    std::fs::write(&third, call.to_string()).unwrap();
    assert!(!compile(&build).await.status.success(), "it has no answer yet");
    let updated = compile(&[&build[..], &["--update"]].concat()).await;
    assert!(updated.status.success(), "{}", String::from_utf8_lossy(&updated.stderr));
    let written: Value = serde_json::from_slice(&std::fs::read(&third).unwrap()).unwrap();
    assert_eq!(written["answer"]["outcome"], "retryable");
    assert!(compile(&build).await.status.success(), "and now they pass");
    std::fs::remove_file(&third).unwrap();
    std::fs::write(&second, test.to_string()).unwrap();
    author(&["plugin", "test", wasm_text, golden_text, "--update"]).await.ok();
    let written: Value = serde_json::from_slice(&std::fs::read(&second).unwrap()).unwrap();
    assert_eq!(written["answer"]["outcome"], "success");
    author(&["plugin", "test", wasm_text, golden_text]).await.ok();

    let call = second.to_str().unwrap();
    let measured = author(&["plugin", "bench", wasm_text, "--call", call, "--calls", "50", "--json"]).await.json();
    assert!(
        measured["fuel"].as_u64().unwrap() > 0 && measured["p50_micros"].as_u64() <= measured["max_micros"].as_u64()
    );
    let input = json!({"response": {"status": 200, "body": "ok"}}).to_string();
    let called = run(&["plugin", "run", wasm_text, "--role", "judge", "--json"], &[], &input).await.json();
    assert_eq!(called["answer"]["outcome"], "success", "{called}");
    for seen in [&measured, &called] {
        let memory = seen["memory"].as_u64().unwrap();
        assert!(memory > 0 && memory % (64 << 10) == 0 && memory < 16 << 20, "{seen}");
        assert_eq!(seen["memory_limit"], 16 << 20);
        // So much, and more for each byte that the call is given.
        assert!((50_000_000..51_000_000).contains(&seen["fuel_limit"].as_u64().unwrap()), "{seen}");
    }

    let sign = author(&["plugin", "run", wasm_text, "--role", "sign"]).await;
    assert!(sign.error(1).contains("the component does not have the role `sign`; its roles are: judge"), "{sign:?}");
    let nonsense = run(&["plugin", "run", wasm_text, "--role", "judge"], &[], "x").await;
    assert!(nonsense.error(1).contains("standard input is not a valid input"), "{nonsense:?}");
    compiled_once(wasm_text, golden_text).await;

    let host = TestHost::start().await;
    let server = [("CARILLON_SERVER", host.base.as_str()), ("CARILLON_TOKEN", ADMIN_TOKEN)];
    run(&["plugin", "push", "my-judge@0.1.0", wasm_text], &server, "").await.ok();
    let bytes = std::fs::read(&wasm).unwrap();
    the_server_runs_them(&host, &bytes).await;
}

/// The second command needs no compiler.
async fn compiled_once(wasm: &str, golden: &str) {
    let caches = tempfile::tempdir().unwrap();
    let (cache, test) = (("XDG_CACHE_HOME", caches.path().to_str().unwrap()), ["plugin", "test", wasm, golden]);
    let broken = ("CARILLON_POLICY__COMPILER", "/bin/false");
    run(&test, &[broken], "").await.error(1);
    run(&test, &[cache], "").await.ok();
    run(&test, &[cache, broken], "").await.ok();
}

/// An upload whose own tests fail is refused, with the name of the test and what came instead.
async fn the_server_runs_them(host: &TestHost, component: &[u8]) {
    let other = host.api.tenant("other").await;
    let put = async |component: Vec<u8>| {
        let path = "/v1/plugins/my-judge/versions/0.1.0";
        let request = other.request(Method::PUT, path).header("content-type", "application/wasm");
        other.send(request.body(Bytes::from(component))).await
    };
    let golden = |test: Value| serde_json::from_value::<Golden>(test).unwrap();
    let call = json!({"response": {"status": 200, "body": "ok"}});
    let lies = golden(json!({"name": "lies", "role": "judge", "input": call, "answer": {"outcome": "permanent"}}));
    let problem = put(embed(component, &[lies])).await.problem(422);
    assert!(problem["detail"].as_str().unwrap().contains("the golden test `lies`: expected"), "{problem}");
    let unknown = golden(json!({"name": "odd", "role": "judge", "inputs": {}, "answer": {}}));
    let problem = put(embed(component, &[unknown])).await.problem(422);
    assert!(problem["detail"].as_str().unwrap().contains("unknown field `inputs`"), "{problem}");
    let empty = golden(json!({"name": "empty", "role": "judge", "input": call}));
    assert!(put(embed(component, &[empty])).await.problem(422)["detail"].as_str().unwrap().contains("neither"));
}
