//! The examples of the originals' own READMEs, run as they stand there: by bash, with curl and HTTPie. Only where servers are is changed.

use std::path::Path;
use std::process::Stdio;

use carillon_core::clock::Clock as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Mounted;
use crate::support::{Answer, interpreter, soon};

const SIMPLE: &str = r#"
  curl -XPUT -H "Content-Type: application/json" \
	      --data '{"trigger_at":"+6h", "callback":"http://example.com/that-thing/run-it"}' \
	      callme:6777/task/simpletask
"#;

const SIMPLE_STATE: &str = r#"
  curl -XGET -H "Content-Type: application/json" callme:6777/task/simpletask?pretty
"#;

const ADVANCED: &str = r#"
  curl -XPUT -H "Content-Type: application/json" \
	      --data '{"trigger_at":"1858809600", "callback":"http://example.com/far-far-away", "expected_http_status":204}' \
	      callme:6777/task/faraway
  curl -XPUT -H "Content-Type: application/json" \
	      --data '{"trigger_at":"1858816800", "callback":"http://example.com/far-far-away", "expected_http_status":204}' \
	      callme:6777/task/faraway
"#;

const BOTH_STATES: &str = r#"
  curl -XGET -H "Content-Type: application/json" callme:6777/task/faraway?pretty
"#;

const MIDNIGHT_STATE: &str = r#"
  curl -XGET -H "Content-Type: application/json" callme:6777/task/faraway@1858809600?pretty
"#;

const ALL_STATES: &str = r#"
  curl -XGET -H "Content-Type: application/json" callme:6777/task/?pretty
"#;

const STATUS: &str = r#"
http get http://localhost:7991/
"#;

const QUEUE: &str = r#"
http post http://localhost:7991 url="http://httpbin.org/post" payload=`echo {"payload":"lol"} | base64`
"#;

/// A machine on which the tools find our servers where the READMEs say that theirs are.
struct Shell {
    home: TempDir,
}

impl Shell {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.home.path().join(name), text).unwrap();
    }

    /// What the commands print.
    async fn run(&self, script: &str) -> String {
        let tools = interpreter().parent().map(Path::to_owned).unwrap();
        let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
        let mut command = tokio::process::Command::new("bash");
        command.args(["-e", "-c", script]).env_clear().env("PATH", path).env("HOME", self.home.path());
        command.env("CURL_HOME", self.home.path()).env("HTTPIE_CONFIG_DIR", self.home.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let output = soon(script, command.spawn().unwrap().wait_with_output()).await.unwrap();
        let (out, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{script}\n{out}\n{error}");
        out
    }
}

async fn alone(mount: &str) -> (Mounted, u16) {
    let key = format!("compat.{mount}.listen");
    // The READMEs call the servers by names, which a server without tokens must know.
    let at = Mounted::with(mount, |setup| {
        setup.set("auth.enabled", "false").set(&key, "127.0.0.1:0").set("server.public_url", &format!("http://{mount}"))
    });
    let at = at.await;
    let port = at.host.mounts()[0].1.port();
    (at, port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callmes_examples() {
    let (at, port) = alone("callme").await;
    let shell = Shell::new();
    shell.write(".curlrc", &format!("silent\nconnect-to = \"callme:6777:127.0.0.1:{port}\"\n"));
    let registered = r#"{"message":"task successfully registered"}"#;
    assert_eq!(shell.run(SIMPLE).await, registered);
    let state = shell.run(SIMPLE_STATE).await;
    assert!(state.starts_with("{\n    \"tasks\": [\n        {\n"), "{state}");
    let simple: Value = serde_json::from_str(&state).unwrap();
    let task = &simple["tasks"][0];
    let at_six = (at.second().div_euclid(60) * 60 + 6 * 3_600).to_string();
    assert_eq!(
        (&task["trigger_at"], &task["callback_method"], &task["expected_http_status"]),
        (&json!(at_six), &json!("GET"), &json!(200))
    );
    assert_eq!(shell.run(ADVANCED).await, format!("{registered}{registered}"));
    let tasks = async |script: &str| {
        let found: Value = serde_json::from_str(&shell.run(script).await).unwrap();
        let entry =
            |task: &Value| format!("{}@{}", task["task_name"].as_str().unwrap(), task["trigger_at"].as_str().unwrap());
        found["tasks"].as_array().unwrap().iter().map(entry).collect::<Vec<_>>()
    };
    assert_eq!(tasks(BOTH_STATES).await, ["faraway@1858809600", "faraway@1858816800"]);
    assert_eq!(tasks(MIDNIGHT_STATE).await, ["faraway@1858809600"]);
    assert_eq!(tasks(ALL_STATES).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poussetaches_examples() {
    let (at, port) = alone("poussetaches").await;
    let shell = Shell::new();
    shell.write("config.json", r#"{"default_options": ["--ignore-stdin", "--print=hb"]}"#);
    let here =
        |script: &str| script.replace("7991", &port.to_string()).replace("http://httpbin.org", &at.receiver.url(""));
    let status = shell.run(&here(STATUS)).await;
    assert!(status.starts_with("HTTP/1.1 200 OK"), "{status}");
    assert!(status.trim_end().ends_with(r#"{"in_flight":0,"paused":false}"#), "{status}");
    at.receiver.on("/post", [Answer::status(200)]);
    let queued = shell.run(&here(QUEUE)).await.to_lowercase();
    assert!(queued.starts_with("http/1.1 201 created") && queued.contains("poussetaches-task-id: "), "{queued}");
    let arrival = at.receiver.arrived("/post", 1).await.remove(0);
    let envelope: Value = serde_json::from_slice(&arrival.body).unwrap();
    assert_eq!(envelope["payload"], "e3BheWxvYWQ6bG9sfQo=", "what the shell makes of it");
    assert_eq!(arrival.at, at.clock.now());
}
