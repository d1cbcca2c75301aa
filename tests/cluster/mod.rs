//! Three nodes on one PostgreSQL, as processes of their own, and what can happen to them: killed, frozen, cut off, updated; and their
//! database restarted, lost, overloaded.
//!
//! All tests are alike. Producers make jobs at all nodes as long as the fault lasts and for a while after it ([`load`]); a receiver in this
//! process writes down what arrives; and when all jobs have ended the books are compared ([`ledger`]).

mod database;
mod ledger;
mod load;
mod network;
mod node;
mod nodes;
mod proxy;
mod rolling;

use serde_json::json;

use crate::support::crash::process::Client;
use crate::support::crash::receiver::Receiver;
use crate::support::{Cluster, eventually};
use ledger::Ended;
use load::Load;
use node::Node;

/// The nodes, each with a user of the database of its own, so that the database knows who is who.
const NAMES: [&str; 3] = ["n1", "n2", "n3"];

/// Where the jobs are.
const DATABASE: &str = "shared";

/// The group of all jobs, and what its policy allows.
const GROUP: &str = "ledger";
const MAX_ATTEMPTS: u64 = 4;

/// Leases so short that their end need not be waited for long, and a database that is not waited for longer than they last.
const SHORT: [(&str, &str); 2] = [("ENGINE__LEASE", "3s"), ("STORE__TIMEOUT", "2s")];

/// What is there when it happens.
struct World {
    postgres: Cluster,
    nodes: Vec<Node>,
    receiver: Receiver,
    load: Load,
}

impl World {
    /// Starts three nodes with these settings, and lets producers make jobs at them.
    async fn start(settings: &[(&str, &str)]) -> Self {
        let postgres = tokio::task::block_in_place(|| Cluster::listening(&[]));
        Self::on(postgres, settings, |_, port| vec![port]).await
    }

    /// The same on this database; `ports` says on which ports of 127.0.0.1 each node looks for it.
    async fn on(postgres: Cluster, settings: &[(&str, &str)], ports: impl Fn(&str, u16) -> Vec<u16>) -> Self {
        tokio::task::block_in_place(|| ledger::prepare(&postgres));
        let url = |name: &str| {
            let hosts: Vec<_> = ports(name, postgres.port()).iter().map(|port| format!("127.0.0.1:{port}")).collect();
            format!("postgres://{name}@{}/{DATABASE}?target_session_attrs=read-write", hosts.join(","))
        };
        let start = async |name| Node::start(name, &url(name), settings).await;
        // The first makes the schema.
        let first = start(NAMES[0]).await;
        tokio::task::block_in_place(|| ledger::watch(&postgres));
        let retry = json!({"plugin": "backoff", "config": {"kind": "fixed", "base": "50ms", "max_attempts": MAX_ATTEMPTS, "jitter": 0.0}});
        let group = json!({"retry": retry, "limits": {"concurrency": 64, "timeout": "10s"}});
        first.client().put(&format!("/v1/groups/{GROUP}"), &group).await;
        let (second, third) = tokio::join!(start(NAMES[1]), start(NAMES[2]));
        let (nodes, receiver) = (vec![first, second, third], Receiver::start().await);
        let load = Load::start(&nodes, &receiver);
        let world = Self { postgres, nodes, receiver, load };
        world.work_goes_on().await;
        world
    }

    /// Statements of somebody who may do everything.
    fn sql(&self, sql: &str) -> String {
        tokio::task::block_in_place(|| self.postgres.sql(DATABASE, sql))
    }

    /// Waits until jobs are accepted, and delivered, that were made after this was called.
    async fn work_goes_on(&self) {
        let (accepted, arrived) = (self.load.accepted(), self.receiver.arrivals().len());
        let look = async || (self.load.accepted(), self.receiver.arrivals().len());
        let goes_on = |now: &(usize, usize)| now.0 >= accepted + 20 && now.1 >= arrived + 20;
        eventually("jobs are accepted and delivered", look, goes_on).await;
    }

    /// Ends the load, waits for the end of all jobs, and compares the books.
    async fn settle_accounts(mut self) -> Ended {
        let made = self.load.finish().await;
        for node in &self.nodes {
            node.until_ready().await;
        }
        let client: Client = self.nodes[0].client();
        client.until_done(GROUP).await;
        let ended = ledger::check(&self.postgres, &client, made, &self.receiver.arrivals()).await;
        // The nodes go before their database.
        self.nodes.clear();
        ended
    }
}
