//! The first operator's token: where it is handed over, and that no log opens the door.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::support::{Api, MASTER_KEY, Program, Receiver, shared_dir, soon};

/// Lets a test try every word of a log.
const NO_BOUND: (&str, &str) = ("CARILLON_AUTH__FAILURE_BURST", "1000000");

/// Shortest text that is tried: a configured token has 16 characters at least.
const SHORTEST: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_operator_token_is_in_a_private_file_and_in_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}/x.db", dir.path().display());
    let mut program = Program::serve(&["--store", &store], &[]).await;
    let file = dir.path().join("first-token");
    let token = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let api = Api::new(&program.base, Some(&token));
    api.get("/v1/tenants").await.expect(200);
    program.terminate().await;
    assert_eq!(program.ended().await, Some(0));
    let log = program.until_logged("\"stopped\"").await;
    assert!(!log.contains(&token), "{log}");
    let ready: Value = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or(Value::Null))
        .find(|line| line["message"] == "ready")
        .unwrap();
    assert_eq!((&ready["version"], &ready["store"]), (&json!(env!("CARGO_PKG_VERSION")), &json!(store)));

    std::fs::remove_file(&file).unwrap();
    let program = Program::serve(&["--store", &store], &[]).await;
    Api::new(&program.base, Some(&token)).get("/v1/groups").await.expect(200);
    assert!(!file.exists(), "it is made once");
}

/// Returns the texts of a log that could be tokens.
fn words(log: &str) -> BTreeSet<&str> {
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    log.split(|c: char| !is_of_token(c)).filter(|word| word.len() >= SHORTEST).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_word_of_a_log_is_a_valid_token() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}/x.db", dir.path().display());
    let environment = [NO_BOUND, ("CARILLON_EGRESS__ALLOW", "127.0.0.0/8")];
    let mut program = Program::serve(&["--store", &store], &environment).await;
    let first = std::fs::read_to_string(dir.path().join("first-token")).unwrap().trim().to_owned();
    let operator = Api::new(&program.base, Some(&first));
    let text = |made: &Value| made["token"].as_str().unwrap().to_owned();
    let made = operator.post("/v1/tokens", json!({"name": "a", "role": "admin"})).await.expect(201);
    let path = format!("/v1/tokens/{}/rotate", made["id"].as_str().unwrap());
    let rotated = operator.post(&path, json!({"overlap": "1h"})).await.expect(200);
    let second = operator.post("/v1/tokens", json!({"name": "o", "role": "admin", "operator": true})).await.expect(201);
    let valid = [first, text(&made), text(&rotated), text(&second)];
    let receiver = Receiver::start().await;
    operator.put_group("g", json!({})).await;
    let id = operator.job_id("g", json!({"url": receiver.url("/a"), "payload": {"a": 1}})).await;
    operator.until_state(&id, "succeeded").await;
    operator.with_token("not-a-token-of-this-server").get("/v1/groups").await.problem(401);
    program.terminate().await;
    assert_eq!(program.ended().await, Some(0));
    let mut log = program.until_logged("\"stopped\"").await;

    let program = Program::serve(&["--store", &store], &environment).await;
    log.push_str(&program.log());
    let api = Api::new(&program.base, None);
    for token in &valid {
        api.with_token(token).get("/v1/groups").await.expect(200);
        assert!(!log.contains(token.as_str()));
        assert!(words(&format!("x {token}\"")).contains(token.as_str()), "the words contain what is a token");
    }
    let words = words(&log);
    assert!(words.len() > 5, "{words:?}");
    for word in words {
        api.with_token(word).get("/v1/groups").await.problem(401);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_token_is_shown_on_a_terminal_and_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}/x.db", dir.path().display());
    // `script` gives the program a terminal, and writes what the program shows there.
    let command = format!("{} serve --listen 127.0.0.1:0 --store {store}", env!("CARGO_BIN_EXE_carillon"));
    let mut child = Command::new("script")
        .args(["--quiet", "--flush", "--return", "--command", &command, "/dev/null"])
        .env("CARILLON_KEYS__MASTER_KEY", MASTER_KEY)
        .env("CARILLON_POLICY__CACHE_DIR", shared_dir().join("plugin-cache"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let shown = async {
        let (mut token, mut text) = (None, String::new());
        loop {
            text = lines.next_line().await.unwrap().unwrap_or_else(|| panic!("the server has ended: {text}"));
            let is_token = |word: &&str| word.starts_with("carillon_") && word.len() > 40;
            token = token.or_else(|| text.split_whitespace().find(is_token).map(str::to_owned));
            let mut words = text.split(|c: char| !c.is_ascii_digit() && !".:".contains(c));
            if let Some(address) = words.find(|word| word.starts_with("127.0.0.1:")).filter(|_| text.contains("ready"))
            {
                return (token.expect("the token is shown before the server is ready"), address.to_owned());
            }
        }
    };
    let (token, address) = soon("the server is ready", shown).await;
    Api::new(&format!("http://{address}"), Some(&token)).get("/v1/tenants").await.expect(200);
    assert!(!dir.path().join("first-token").exists());
    child.kill().await.unwrap();
}
