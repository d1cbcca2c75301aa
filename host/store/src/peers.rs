//! What nodes that share a database do with each other. Nothing that must not be lost goes this way: jobs are safe by leases and
//! tokens alone, whatever is known of the other nodes.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::StoreError;
use carillon_core::clock::UnixMs;

/// A node as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NodeDoc {
    /// What it is called: the name of its host, unless it is configured.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// Which version of this program it runs.
    pub version: String,
    /// The number of its process.
    pub process: u32,
    /// How many attempts it makes just now.
    pub running: usize,
    /// How many it makes at most.
    pub capacity: usize,
    /// It takes no more jobs.
    pub stopping: bool,
}

/// A sign of life.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// Whose.
    pub node: Uuid,
    /// What it says of itself.
    pub doc: NodeDoc,
    /// It comes now, or comes back. Of nodes that come at the same time, one sees the other.
    pub comes: bool,
    /// Who has been silent for longer has come anew.
    pub life: Duration,
    /// Who has been silent for longer goes from the list.
    pub forget: Duration,
}

/// A node on the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which: another one after each start.
    pub id: Uuid,
    /// When it came, by the database's clock.
    pub since: UnixMs,
    /// When it was last heard of, by the database's clock.
    pub beat_at: UnixMs,
    /// What it said then.
    pub doc: NodeDoc,
}

/// The list of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberList {
    /// In the order of their ids.
    pub members: Vec<Member>,
    /// The database's time.
    pub now: UnixMs,
}

/// What one node has done that others may want to look at. It carries no data, and may be lost: everybody looks from time to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// There are jobs that may be due.
    Jobs,
    /// Something was configured.
    Catalog,
}

/// Where signals come in.
#[async_trait]
pub trait Signals: Send {
    /// The next signal of another node.
    ///
    /// # Errors
    /// If nothing is heard any more: then it takes another one to listen on.
    async fn next(&mut self) -> Result<Signal, StoreError>;
}

/// The other nodes, by way of the database.
#[async_trait]
pub trait Peers: Send + Sync {
    /// The database's time.
    async fn time(&self) -> Result<UnixMs, StoreError>;

    /// Puts a node on the list, or says that it is still there.
    async fn beat(&self, beat: Heartbeat) -> Result<MemberList, StoreError>;

    /// Takes a node off the list.
    async fn leave(&self, node: Uuid) -> Result<(), StoreError>;

    /// Sends [`Signal::Jobs`] to the other nodes. (What is configured tells of itself.)
    async fn tell(&self, from: Uuid) -> Result<(), StoreError>;

    /// Listens to the signals of the other nodes, from now on.
    async fn listen(&self, own: Uuid) -> Result<Box<dyn Signals>, StoreError>;
}
