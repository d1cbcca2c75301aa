//! What a hostile tenant does to the pools that it shares with others: it holds all that it can get of one, or floods it.
//!
//! A refusal is what it is meant to get, so no attack ends with one. Floods have a pace or a number of clients, so that the attacker's own
//! processor time does not decide the figures.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::super::server::Server;
use super::super::sink::{SLOW_PATH, Sink};
use carillon_client::Client;

/// Waiting jobs of the hostile tenant, which its lists search in vain.
const STORED: usize = 100_000;

/// Jobs in one request.
const BATCH: usize = 1_000;

/// Groups of the hostile tenant besides the one of its jobs, and values in the document of each.
const GROUPS: u64 = 500;
const VALUES: usize = 2_000;

/// Time between two requests of a client that floods, so that a refusal is not answered by the next request at once.
const PACE: Duration = Duration::from_millis(10);

/// The same where the attack is to hold places, and not to be refused as often as possible.
const REFUSED_PACE: Duration = Duration::from_secs(1);

/// Longest time that a connection that only waits is kept.
const HELD: Duration = Duration::from_secs(60);

/// A pool, and what is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attack {
    Requests,
    Polls,
    Streams,
    Ring,
    Reads,
    Attempts,
    Receivers,
    Policies,
    Compilations,
    Checks,
    Configuration,
}

impl Attack {
    pub(super) const ALL: [Self; 11] = [
        Self::Requests,
        Self::Polls,
        Self::Streams,
        Self::Ring,
        Self::Reads,
        Self::Attempts,
        Self::Receivers,
        Self::Policies,
        Self::Compilations,
        Self::Checks,
        Self::Configuration,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Requests => "request slots: unfinished bodies",
            Self::Polls => "long polls",
            Self::Streams => "event streams",
            Self::Ring => "event ring: 10,000 events/s",
            Self::Reads => "readers of the store: lists of 100,000 jobs",
            Self::Attempts => "attempts: receivers that take 2 s",
            Self::Receivers => "receivers remembered: each fails",
            Self::Policies => "policy threads: simulations",
            Self::Compilations => "compile slots: uploads",
            Self::Checks => "checks of configs",
            Self::Configuration => "configuration: changes beside 500 groups",
        }
    }

    /// Returns how long a client waits before its next request.
    fn pace(self) -> Duration {
        match self {
            Self::Requests | Self::Polls | Self::Streams => REFUSED_PACE,
            _ => PACE,
        }
    }

    /// Number of clients of the attack: somewhat more than may hold a place.
    fn clients(self) -> usize {
        match self {
            Self::Requests | Self::Polls => 300,
            Self::Streams => 80,
            Self::Reads => 32,
            Self::Policies | Self::Checks => 16,
            Self::Compilations => 8,
            Self::Ring | Self::Attempts | Self::Receivers | Self::Configuration => 1,
        }
    }
}

/// The hostile tenant.
#[derive(Clone)]
pub(super) struct Hostile {
    client: Client,
    /// Client of an operator, who changes the tenant's defaults.
    operator: Client,
    tenant: String,
    token: String,
    address: SocketAddr,
    group: String,
    slow: String,
    numbers: Arc<AtomicU64>,
}

impl Hostile {
    /// Stores what the attacks need.
    pub(super) async fn prepare(
        client: Client,
        token: String,
        server: &Server,
        receiver: &Sink,
    ) -> anyhow::Result<Self> {
        let stored = format!("{}-stored", server.group);
        client.put_group(&stored, &json!({}), None).await?;
        let job = json!({"url": receiver.url, "run_at": "+30days", "metadata": {"kind": "stored"}});
        let jobs = vec![job; BATCH];
        for _ in 0..STORED / BATCH {
            client.create_jobs(&stored, &jobs).await?;
        }
        for number in 0..GROUPS {
            client.put_group(&format!("{}-{number}", server.group), &large_policy(number), None).await?;
        }
        Ok(Self {
            client,
            operator: server.client().clone(),
            tenant: server.tenant_name(),
            token,
            address: server.addresses[0],
            group: server.group.clone(),
            slow: format!("{}{SLOW_PATH}", receiver.url),
            numbers: Arc::default(),
        })
    }

    /// Begins an attack, which ends when its tasks are dropped.
    pub(super) fn begin(&self, attack: Attack) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        for _ in 0..attack.clients() {
            let hostile = self.clone();
            clients.spawn(async move {
                loop {
                    hostile.act(attack).await;
                    tokio::time::sleep(attack.pace()).await;
                }
            });
        }
        clients
    }

    /// Removes what an attack has left behind.
    pub(super) async fn end(&self, attack: Attack) -> anyhow::Result<()> {
        if matches!(attack, Attack::Attempts | Attack::Receivers | Attack::Ring) {
            self.client.act(&["groups", &self.group, "flush"]).await?;
        }
        Ok(())
    }

    async fn act(&self, attack: Attack) {
        match attack {
            Attack::Requests => self.unfinished().await,
            Attack::Polls => self.post(&["groups", &self.group, "leases"], &json!({"wait": "30s"})).await,
            Attack::Streams => self.stream().await,
            Attack::Ring => {
                let job = json!({"url": self.slow, "run_at": "+1h"});
                self.post(&["groups", &self.group, "jobs", "batch"], &json!({"jobs": vec![job; 100]})).await;
            }
            Attack::Reads => {
                let group = format!("{}-stored", self.group);
                let query = [("metadata.kind", "none".to_owned()), ("limit", "100".to_owned())];
                drop(self.client.get::<Value>(&["groups", &group, "jobs"], &query).await);
            }
            Attack::Attempts => {
                let jobs = vec![json!({"url": self.slow}); 100];
                self.post(&["groups", &self.group, "jobs", "batch"], &json!({"jobs": jobs})).await;
                tokio::time::sleep(PACE * 10).await;
            }
            Attack::Receivers => {
                // Nobody listens at these addresses; each is a receiver of its own.
                let jobs: Vec<_> =
                    (0..20).map(|_| json!({"url": self.nobody(), "policy": {"retry": {"max_attempts": 1}}})).collect();
                self.post(&["groups", &self.group, "jobs", "batch"], &json!({"jobs": jobs})).await;
            }
            Attack::Policies => {
                let job = json!({"job": {"url": self.slow, "payload_text": "x".repeat(20_000)}});
                self.post(&["groups", &self.group, "policy", "simulate"], &job).await;
            }
            Attack::Compilations => self.upload().await,
            Attack::Checks => {
                let policy = json!({"judge": {"expect": vec![200; 3_500]}});
                self.post(
                    &["groups", &self.group, "jobs"],
                    &json!({"url": self.slow, "run_at": "+1h", "policy": policy}),
                )
                .await;
            }
            Attack::Configuration => {
                let number = self.number();
                let key = json!({"secret": format!("correct horse battery staple {number}")});
                drop(self.client.put::<Value>(&["keys", "hostile"], &key).await);
                let group = format!("{}-{}", self.group, number % GROUPS);
                drop(self.client.put_group(&group, &large_policy(number), None).await);
                let defaults = json!({"defaults": {"limits": {"timeout": format!("{}s", 10 + number % 20)}}});
                drop(self.operator.put::<Value>(&["tenants", &self.tenant], &defaults).await);
            }
        }
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn nobody(&self) -> String {
        let number = self.number();
        format!("http://127.{}.{}.{}:1/", 1 + number / 62_500 % 250, number / 250 % 250, 1 + number % 250)
    }

    async fn post(&self, path: &[&str], body: &Value) {
        // A refusal is one of the results of an attack.
        drop(self.client.post::<Value>(path, body).await);
    }

    /// Begins a request and does not end it.
    async fn unfinished(&self) {
        let head = format!(
            "POST /v1/groups/{}/jobs HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{{",
            self.group, self.address, self.token
        );
        let held = async {
            let mut stream = TcpStream::connect(self.address).await?;
            stream.write_all(head.as_bytes()).await?;
            stream.read(&mut [0; 64]).await
        };
        drop(tokio::time::timeout(HELD, held).await);
    }

    async fn stream(&self) {
        let Ok(mut response) = self.client.open(&["events"], &[], None).await else { return };
        while let Ok(Some(_)) = response.chunk().await {}
    }

    /// Uploads a component whose bytes are new, so that it is compiled; then it is refused, because it has another name.
    async fn upload(&self) {
        let Some(plugin) = carillon_default_plugins::ALL.iter().find(|plugin| plugin.name == "base64-envelope") else {
            return;
        };
        let mut component = plugin.component.to_vec();
        component.extend(custom_section(self.number()));
        drop(self.client.put_component(&["plugins", "hostile", "versions", "1.0.0"], &[], component, None).await);
    }
}

/// Returns a policy with many values.
fn large_policy(number: u64) -> Value {
    json!({
        "retry": {"plugin": "backoff", "config": {"max_attempts": 1 + number % 50}},
        "judge": {"plugin": "expected-status", "config": {"expect": vec![200; VALUES]}},
    })
}

/// Returns a custom section of a component (its id is 0) with this number in its name.
fn custom_section(number: u64) -> Vec<u8> {
    let name = format!("{number:020}");
    let mut section = vec![0, u8::try_from(name.len() + 1).unwrap_or(0), u8::try_from(name.len()).unwrap_or(0)];
    section.extend(name.as_bytes());
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_has_its_length_and_its_name() {
        let section = custom_section(7);
        assert_eq!(section[..3], [0, 21, 20]);
        assert_eq!(section.len(), 23);
    }
}
