//! `carillon plugin dev`: a source that is changed is in force a moment later, and one with an error in it changes nothing.

use std::path::Path;
use std::process::Stdio;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::support::{ADMIN_TOKEN, Answer, Receiver, TestHost, beside_others, judge, run, scaffold, soon, upload};

/// `carillon plugin dev` that runs.
struct Dev {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Dev {
    /// It compiles, so it needs this environment.
    fn start(host: &TestHost, directory: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_carillon"))
            .args([
                "plugin",
                "dev",
                directory.to_str().unwrap(),
                "--group",
                "g",
                "--config",
                r#"{"contains": "yes"}"#,
                "--json",
            ])
            .envs([("CARILLON_SERVER", host.base.as_str()), ("CARILLON_TOKEN", ADMIN_TOKEN)])
            .env("CARILLON_PLUGIN_TARGET_DIR", beside_others())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// What the next round says. It compiles, so it takes as long as that takes.
    async fn round(&mut self) -> Value {
        let line = self.lines.next_line().await.unwrap().expect("it runs");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// As Ctrl-C does.
    async fn interrupt(mut self) -> Option<i32> {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", "INT", &id]).status().await.unwrap().success());
        soon("it ends", self.child.wait()).await.unwrap().code()
    }
}

fn edit(path: &Path, from: &str, to: &str) {
    let source = std::fs::read_to_string(path).unwrap();
    assert!(source.contains(from), "{source}");
    std::fs::write(path, source.replace(from, to)).unwrap();
}

/// What decided the only attempt of a new job, and what it said.
async fn decided(host: &TestHost, receiver: &Receiver) -> (String, String) {
    receiver.on("/a", [Answer::body(200, "yes")]);
    let id = host.api.job_id("g", json!({"url": receiver.url("/a")})).await;
    host.api.until_state(&id, "succeeded").await;
    let attempt = &host.api.attempts(&id).await[0];
    let plugin = attempt["plugins"].as_array().unwrap().iter().find(|it| it["role"] == "judge").unwrap();
    (plugin["plugin"].as_str().unwrap().to_owned(), attempt["verdict"]["reason"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saved_policy_is_built_and_in_force() {
    let (host, receiver, parent) = (TestHost::start().await, Receiver::start().await, tempfile::tempdir().unwrap());
    let directory = scaffold(parent.path(), "my-judge", "judge").await;
    let source = directory.join("src/lib.rs");
    host.api.put_group("g", json!({"retry": {"config": {"max_attempts": 1}}})).await;
    let nowhere = run(&["plugin", "dev", "none", "--group", "g"], &[], "").await;
    assert!(nowhere.error(1).contains("none is not a directory"));
    let mut dev = Dev::start(&host, &directory);
    let first = dev.round().await;
    assert_eq!((&first["plugin"], &first["version"]), (&json!("my-judge@0.1.0-dev.1"), &json!(2)), "{first}");
    assert_eq!((&first["round"], &first["golden_tests"], &first["roles"]), (&json!(1), &json!(1), &json!(["judge"])));
    let said = decided(&host, &receiver).await;
    assert_eq!(said, ("my-judge@0.1.0-dev.1".into(), "The body says so.".into()));

    edit(&source, "The body says so.", "The body says yes.");
    let second = dev.round().await;
    assert_eq!((&second["plugin"], &second["version"]), (&json!("my-judge@0.1.0-dev.2"), &json!(3)), "{second}");
    assert_ne!(second["digest"], first["digest"]);
    let said = decided(&host, &receiver).await;
    assert_eq!(said, ("my-judge@0.1.0-dev.2".into(), "The body says yes.".into()));

    edit(&source, "struct Policy;", "struct Policy");
    let third = dev.round().await;
    assert!(third["round"] == 3 && third["error"].is_string() && third["plugin"].is_null(), "{third}");
    edit(&source, "struct Policy\n", "struct Policy;\n");
    assert_eq!(dev.round().await["plugin"], second["plugin"], "the same source is the same component");
    // A golden test that fails is no better than a compiler that does.
    edit(&source, "does not say `{}`", "does not have `{}`");
    let fifth = dev.round().await;
    assert!(fifth["error"].as_str().unwrap().contains("the golden test `first`"), "{fifth}");
    assert_eq!(decided(&host, &receiver).await.0, "my-judge@0.1.0-dev.2");
    assert_eq!(dev.interrupt().await, Some(0));

    let group = host.api.get("/v1/groups/g").await.expect(200);
    assert_eq!(group["judge"], json!({"plugin": "my-judge@0.1.0-dev.2", "config": {"contains": "yes"}}));
    assert_eq!((&group["retry"]["config"], &group["binding"]), (&json!({"max_attempts": 1}), &json!(3)));
    // Another session goes on counting. What is done goes out under its own version, and drafts of the next do not go before it.
    edit(&source, "does not have `{}`", "does not say `{}`");
    let mut dev = Dev::start(&host, &directory);
    assert_eq!(dev.round().await["plugin"], "my-judge@0.1.0-dev.3");
    let versions = "/v1/plugins/my-judge/versions";
    let bytes = host.api.get(&format!("{versions}/0.1.0-dev.3/component")).await.body;
    upload(&host.api, &format!("{versions}/0.1.0"), bytes).await.expect(201);
    edit(&directory.join("Cargo.toml"), "version = \"0.1.0\"", "version = \"0.2.0\"");
    assert_eq!(dev.round().await["plugin"], "my-judge@0.2.0-dev.1");
    assert_eq!(host.api.get("/v1/plugins/my-judge").await.expect(200)["version"], "0.1.0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draft_is_not_the_newest_version_and_is_named_after_its_own() {
    let (host, bytes) = (TestHost::start().await, judge().await);
    let put = async |version: &str| {
        upload(&host.api, &format!("/v1/plugins/judge-json-ok/versions/{version}"), bytes.clone()).await
    };
    for other in ["0.1.1-dev.1", "0.1.0-dev", "0.1.0-dev.x", "0.1.0-beta.1", "0.1.0-dev.-1", "0.1.0-dev.1.2"] {
        let problem = put(other).await.problem(422);
        assert!(
            problem["detail"].as_str().unwrap().contains("it states the name `judge-json-ok@0.1.0`"),
            "{other}: {problem}"
        );
    }
    assert_eq!(put("0.1.0-dev.7").await.expect(201)["version"], "0.1.0-dev.7");
    put("0.1.0-dev.01").await.problem(422);
    let newest = async || host.api.get("/v1/plugins/judge-json-ok").await.expect(200)["version"].clone();
    assert_eq!(newest().await, "0.1.0-dev.7", "there is no other");
    put("0.1.0").await.expect(201);
    assert_eq!(newest().await, "0.1.0");
    put("0.1.0-dev.8").await.expect(201);
    host.api.put_group("g", json!({"judge": {"plugin": "judge-json-ok"}})).await;
    assert_eq!(host.api.get("/v1/groups/g").await.expect(200)["judge"]["plugin"], "judge-json-ok@0.1.0");
    host.api.raw(Method::DELETE, "/v1/plugins/judge-json-ok/versions/0.1.0-dev.7", "").await.expect(204);
}
