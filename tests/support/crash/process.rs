//! `carillon serve` as a child process on a database that outlives it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;

use reqwest::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{PATIENCE, eventually};

/// A server that can be killed and started again.
pub struct Server {
    dir: TempDir,
    settings: Vec<(String, String)>,
    child: Option<Child>,
    client: Client,
}

/// Talks to whichever process serves at the moment.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

impl Server {
    /// Starts a server on a new database; `settings` are keys of the configuration.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let variable = |key: &str| format!("CARILLON_{}", key.replace('.', "__").to_uppercase());
        let mut server = Self {
            dir: tempfile::tempdir().unwrap(),
            settings: settings.iter().map(|(key, value)| (variable(key), (*value).to_owned())).collect(),
            child: None,
            client: Client::to(String::new()),
        };
        server.restart();
        server
    }

    /// Starts it again. Returns when it serves.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let mut child = Command::new(env!("CARGO_BIN_EXE_carillon"))
            .args(["serve", "--listen", "127.0.0.1:0", "--no-auth", "--egress-allow", "127.0.0.0/8"])
            .args(["--log-format", "json", "--store", &format!("sqlite:{}", self.dir.path().join("jobs.db").display())])
            .env("CARILLON_SERVER__DRAIN_NOTICE", "0s")
            .envs(self.settings.iter().map(|(key, value)| (key, value)))
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let entry: Value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if let (Some("ready"), Some(address)) = (entry["message"].as_str(), entry["address"].as_str()) {
                    drop(sender.send(address.to_owned()));
                }
                eprintln!("server: {entry}");
            }
        });
        let address = receiver.recv_timeout(PATIENCE).expect("the server is ready");
        self.client.base = format!("http://{address}");
        self.child = Some(child);
    }

    /// SIGKILL: it has no time for anything.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM: it finishes what runs.
    pub fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        child.wait().unwrap()
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Client {
    /// For the server at `base`.
    pub fn to(base: String) -> Self {
        // Another test of this process may have installed it already.
        drop(rustls::crypto::ring::default_provider().install_default());
        Self { http: reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap(), base }
    }

    /// What is answered, if the server lives long enough.
    pub async fn try_send(&self, method: Method, path: &str, body: Vec<u8>) -> reqwest::Result<(StatusCode, Value)> {
        let request = self.http.request(method, format!("{}{path}", self.base));
        let response = request.header("content-type", "application/json").body(body).send().await?;
        let status = response.status();
        let text = response.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// The answer of a server that lives.
    pub async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> (StatusCode, Value) {
        let asked = format!("{method} {path}");
        self.try_send(method, path, body).await.unwrap_or_else(|error| panic!("{asked}: {error:?}"))
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.send(Method::GET, path, Vec::new()).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    pub async fn put(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.send(Method::PUT, path, body.to_string().into_bytes()).await;
        assert!(status.is_success(), "{path}: {status} {answer}");
        answer
    }

    /// Makes a job, and returns its id.
    pub async fn post_job(&self, group: &str, job: &Value) -> String {
        let (status, answer) =
            self.send(Method::POST, &format!("/v1/groups/{group}/jobs"), job.to_string().into_bytes()).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        answer["id"].as_str().unwrap().to_owned()
    }

    /// Every entry of a list.
    pub async fn all(&self, path: &str) -> Vec<Value> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("{path}?limit=500{cursor}")).await;
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }

    /// Waits until no job of the group can still change.
    pub async fn until_done(&self, group: &str) {
        let path = format!("/v1/groups/{group}/stats");
        let have_ended = |stats: &Value| stats["scheduled"] == 0 && stats["running"] == 0;
        eventually(&format!("the end of `{group}`"), async || self.get(&path).await, have_ended).await;
    }
}
