//! Server under test: this same program as child processes, with a database of their own and the default limits.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use carillon_client::Client;
use carillon_core::clock::{Clock as _, Stopwatch, SystemClock};

/// Administrator's token of a server that lives for one workload and listens on loopback.
const TOKEN: &str = "benchmark-administrator";

/// Maximum time that a server takes to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause between two polls of a condition.
pub(super) const LOOK: Duration = Duration::from_millis(10);

/// Master key of the nodes of one database. It encrypts only the benchmark's own keys.
const MASTER_KEY: &str = "62656e63686d61726b2d62656e63686d61726b2d62656e63686d61726b2d6b65";

/// Time after which nodes have taken their shares of the limits. Until then even a single node waits, because the nodes of the previous
/// workload still count as living.
const SETTLED: Duration = Duration::from_secs(4);

/// Attempts of the group that run at once.
pub(super) const CONCURRENCY: u32 = 512;

/// Nodes, which stop when this value is dropped.
#[derive(Debug)]
pub(super) struct Server {
    /// Client of each node, with all rights.
    pub(super) clients: Vec<Client>,
    /// Group of the jobs.
    pub(super) group: String,
    /// Address of each node.
    pub(super) addresses: Vec<SocketAddr>,
    nodes: Vec<Child>,
    home: TempDir,
}

impl Server {
    /// Starts nodes whose files are below `dir`, on a file there or on the database `store`, with a group whose deliveries are encoded,
    /// signed and judged by components.
    pub(super) async fn start(dir: &Path, store: Option<&str>, nodes: usize) -> anyhow::Result<Self> {
        Self::start_with(dir, store, nodes, &[]).await
    }

    /// Starts nodes with these variables in their environment.
    pub(super) async fn start_with(
        dir: &Path,
        store: Option<&str>,
        nodes: usize,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let home = tempfile::Builder::new().prefix("carillon-bench-").tempdir_in(dir)?;
        let file = format!("sqlite:{}", home.path().join("carillon.db").display());
        let mut server =
            Self { clients: Vec::new(), group: String::new(), addresses: Vec::new(), nodes: Vec::new(), home };
        for _ in 0..nodes {
            server.spawn(store.unwrap_or(&file), settings)?;
            server.ready().await?;
        }
        if store.is_some() {
            tokio::time::sleep(SETTLED).await;
        }
        server.client().put_key("bench", &json!({"secret": "correct horse battery staple"})).await?;
        // Each workload has another group, because a database that is not a file of its own keeps the earlier ones.
        server.group = format!("bench-{}", SystemClock.now().0);
        server.client().put_group(&server.group, &policy(), None).await?;
        for client in &server.clients {
            until(async || Ok(client.get::<Value>(&["groups", &server.group], &[]).await.is_ok())).await?;
        }
        Ok(server)
    }

    /// Returns a client of the first node.
    pub(super) fn client(&self) -> &Client {
        &self.clients[0]
    }

    /// Makes `count` groups besides the server's own, under the same policy.
    pub(super) async fn more_groups(&self, count: usize) -> anyhow::Result<Vec<String>> {
        let names: Vec<String> = (0..count).map(|number| format!("{}-{number}", self.group)).collect();
        for name in &names {
            self.client().put_group(name, &policy(), None).await?;
        }
        for client in &self.clients {
            let last = ["groups", names.last().context("a workload needs at least one group")?];
            until(async || Ok(client.get::<Value>(&last, &[]).await.is_ok())).await?;
        }
        Ok(names)
    }

    /// Returns clients of each node for another tenant, which has a paused group of the same name and policy.
    pub(super) async fn other_tenant(&self) -> anyhow::Result<Vec<Client>> {
        let (clients, _) = self.tenant().await?;
        clients[0].act(&["groups", &self.group, "pause"]).await?;
        Ok(clients)
    }

    /// Returns the name of the other tenant.
    pub(super) fn tenant_name(&self) -> String {
        format!("{}-other", self.group)
    }

    /// Returns clients of each node for another tenant, which has a group of the same name and policy, and their token.
    pub(super) async fn tenant(&self) -> anyhow::Result<(Vec<Client>, String)> {
        let tenant = self.tenant_name();
        self.client().put::<Value>(&["tenants", &tenant], &json!({})).await?;
        let token = json!({"name": "bench", "tenant": tenant, "role": "admin"});
        let token: Value = self.client().post(&["tokens"], &token).await?;
        let token = token["token"].as_str().context("the server's response does not contain the token")?;
        let clients = self.clients.iter().map(|client| client.with_token(token)).collect::<Vec<_>>();
        clients[0].put_key("bench", &json!({"secret": "correct horse battery staple"})).await?;
        clients[0].put_group(&self.group, &policy(), None).await?;
        for client in &clients {
            until(async || Ok(client.get::<Value>(&["groups", &self.group], &[]).await.is_ok())).await?;
        }
        Ok((clients, token.to_owned()))
    }

    fn spawn(&mut self, store: &str, settings: &[(&str, &str)]) -> anyhow::Result<()> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(std::env::current_exe()?);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARILLON_")) {
            command.env_remove(name);
        }
        let child = command
            .args(["serve", "--listen", &address.to_string(), "--egress-allow", "127.0.0.0/8"])
            // The URL may contain a password, which arguments would show.
            .env("CARILLON_STORE__URL", store)
            .env("CARILLON_AUTH__ADMIN_TOKEN", TOKEN)
            .env("CARILLON_KEYS__MASTER_KEY", MASTER_KEY)
            .env("CARILLON_STORE__DURABILITY", "full")
            .env("CARILLON_LOG", "warn")
            .envs(settings.iter().copied())
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stderr(File::options().create(true).append(true).open(self.log())?)
            .spawn()
            .context("the server does not start")?;
        self.nodes.push(child);
        self.addresses.push(address);
        self.clients.push(Client::new(&format!("http://{address}"), Some(TOKEN.to_owned()))?);
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("log")
    }

    /// Waits until the node that was started last is ready.
    async fn ready(&mut self) -> anyhow::Result<()> {
        let log = self.log();
        let (Some(client), Some(node)) = (self.clients.last(), self.nodes.last_mut()) else { return Ok(()) };
        until(async || {
            if let Some(status) = node.try_wait()? {
                bail!("the server ended with {status}: {}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            Ok(client.get::<Value>(&["groups"], &[]).await.is_ok())
        })
        .await
    }

    /// Returns the server's usage so far.
    pub(super) fn usage(&self) -> Usage {
        self.nodes.iter().map(|node| Usage::for_process(node.id())).fold(Usage::default(), Usage::and)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // A child that has ended already is no error.
            drop(node.kill());
            drop(node.wait());
        }
    }
}

/// Polls a condition until it holds.
async fn until(mut is_so: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let stopwatch = Stopwatch::start();
    while !is_so().await? {
        if stopwatch.elapsed() > START_TIMEOUT {
            bail!("the server is not ready after {}", carillon_core::duration::format(START_TIMEOUT));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Returns the policy of the group: a delivery takes three calls of components, and four when it fails.
fn policy() -> Value {
    json!({
        "encode": [{"plugin": "base64-envelope"}],
        "sign": {"plugin": "werkzeug-cookie", "keys": ["bench"]},
        "judge": {"plugin": "expected-status"},
        "limits": {"concurrency": CONCURRENCY},
    })
}

/// Usage of a process, from `/proc` (see proc_pid_stat(5) and proc_pid_status(5)); zero where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Processor time in seconds.
    pub(super) cpu: f64,
    /// Resident memory in MiB.
    pub(super) rss: f64,
}

impl Usage {
    fn and(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, rss: self.rss + other.rss }
    }

    pub(super) fn for_process(pid: u32) -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        Self { cpu: cpu_seconds(&read("stat")).unwrap_or(0.0), rss: rss_mib(&read("status")).unwrap_or(0.0) }
    }
}

/// Sums fields 14 and 15, counted behind the name in parentheses, in hundredths of a second (Linux shows no other unit).
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
