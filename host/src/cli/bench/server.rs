//! The server under test: this same program as a child process, with a database of its own and the default limits.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::client::Client;
use crate::clock::Stopwatch;

/// The administrator of a server that lives for one workload and listens on loopback.
const TOKEN: &str = "benchmark-administrator";

/// How long a server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The pause between two looks at something that is awaited.
pub(super) const LOOK: Duration = Duration::from_millis(10);

/// The group that the jobs belong to.
pub(super) const GROUP: &str = "bench";

/// How many attempts of the group run at once.
pub(super) const CONCURRENCY: u32 = 256;

/// A server that ends with this value.
#[derive(Debug)]
pub(super) struct Server {
    /// A client with every right.
    pub(super) client: Client,
    child: Child,
    home: TempDir,
}

impl Server {
    /// Starts a server whose files are below `dir`, with a group whose deliveries are encoded, signed and judged by components.
    pub(super) async fn start(dir: &Path) -> anyhow::Result<Self> {
        let home = tempfile::Builder::new().prefix("carillon-bench-").tempdir_in(dir)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(std::env::current_exe()?);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARILLON_")) {
            command.env_remove(name);
        }
        let child = command
            .args(["serve", "--listen", &address.to_string(), "--egress-allow", "127.0.0.0/8"])
            .args(["--store", &format!("sqlite:{}", home.path().join("carillon.db").display())])
            .env("CARILLON_AUTH__ADMIN_TOKEN", TOKEN)
            .env("CARILLON_STORE__DURABILITY", "full")
            .env("CARILLON_LOG", "warn")
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stderr(File::create(home.path().join("log"))?)
            .spawn()
            .context("the server does not start")?;
        let client = Client::new(&format!("http://{address}"), Some(TOKEN.to_owned()))?;
        let mut server = Self { client, child, home };
        server.ready().await?;
        server.client.put_key("bench", &json!({"secret": "correct horse battery staple"})).await?;
        server.client.put_group(GROUP, &policy()).await?;
        Ok(server)
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let stopwatch = Stopwatch::start();
        while self.client.get::<Value>(&["groups"], &[]).await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                let log = std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
                bail!("the server ended with {status}: {log}");
            }
            if stopwatch.elapsed() > START_TIMEOUT {
                bail!("the server is not ready after {}", humantime::format_duration(START_TIMEOUT));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// What the server has used so far.
    pub(super) fn usage(&self) -> Usage {
        Usage::of(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A child that is gone already is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The policy of the group: a delivery takes three calls of components, and four when it fails.
fn policy() -> Value {
    json!({
        "encode": [{"plugin": "base64-envelope"}],
        "sign": {"plugin": "werkzeug-cookie", "keys": ["bench"]},
        "judge": {"plugin": "expected-status"},
        "limits": {"concurrency": CONCURRENCY},
    })
}

/// What a process has used, by `/proc` (see proc_pid_stat(5) and proc_pid_status(5)); zero where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Seconds of processor time.
    pub(super) cpu: f64,
    /// Resident memory in MiB.
    pub(super) rss: f64,
}

impl Usage {
    pub(super) fn of(pid: u32) -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        Self { cpu: cpu_seconds(&read("stat")).unwrap_or(0.0), rss: rss_mib(&read("status")).unwrap_or(0.0) }
    }
}

/// Fields 14 and 15, counted behind the name in parentheses, in hundredths of a second (Linux shows no other unit).
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: Vec<f64> = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    Some(ticks.iter().sum::<f64>() / 100.0)
}

fn rss_mib(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read() {
        assert_eq!(cpu_seconds("7 (a b) c) S 1 7 7 0 -1 4 1 0 0 0 150 50 0 0 20 0"), Some(2.0));
        assert_eq!(rss_mib("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2.0));
    }
}
