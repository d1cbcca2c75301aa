//! Exchange between the nodes that share a database: the member list and signals.
//!
//! No data that must not be lost goes this way. The safety of jobs rests on leases and tokens alone, whatever a node knows of the others.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::StoreError;
use carillon_core::clock::UnixMs;

/// Description of a node, written by the node itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NodeRecord {
    /// Name of the node: its host's name, unless one is configured.
    pub name: String,
    /// Address on which the node listens.
    pub address: String,
    /// Version of the program.
    pub version: String,
    /// Process number.
    pub process: u32,
    /// Number of attempts that are running now.
    pub running: usize,
    /// Largest number of attempts that may run at once.
    pub capacity: usize,
    /// Whether the node is shutting down and takes no more jobs.
    pub stopping: bool,
}

/// A node's report that it is alive.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// Reporting node.
    pub node: Uuid,
    /// Description of the node.
    pub doc: NodeRecord,
    /// Whether the node joins or rejoins.
    ///
    /// Of nodes that join at the same time, one sees the other.
    pub comes: bool,
    /// A node that has been silent for longer counts as joining anew.
    pub life: Duration,
    /// A node that has been silent for longer is removed from the list.
    pub forget: Duration,
}

/// A node on the member list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Id of the node; each start has another one.
    pub id: Uuid,
    /// Time when the node joined, by the database's clock.
    pub since: UnixMs,
    /// Time of the node's last heartbeat, by the database's clock.
    pub beat_at: UnixMs,
    /// Description in that heartbeat.
    pub doc: NodeRecord,
}

/// The list of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberList {
    /// Members in the order of their ids.
    pub members: Vec<Member>,
    /// Current time of the database.
    pub now: UnixMs,
}

/// A hint that another node's change may need attention.
///
/// A signal carries no data and may be lost: every node also polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Jobs were stored or moved that may be due.
    Jobs,
    /// The configuration has changed.
    Catalog,
}

/// Source of the other nodes' signals.
#[async_trait]
pub trait Signals: Send {
    /// Waits for the next signal of another node.
    ///
    /// # Errors
    /// Returns an error if the connection is lost; the caller then has to listen anew.
    async fn next(&mut self) -> Result<Signal, StoreError>;
}

/// Exchange with the other nodes, through the database.
#[async_trait]
pub trait Peers: Send + Sync {
    /// Returns the database's time.
    async fn time(&self) -> Result<UnixMs, StoreError>;

    /// Adds a node to the member list, or confirms that it is alive; returns the list.
    async fn beat(&self, beat: Heartbeat) -> Result<MemberList, StoreError>;

    /// Removes a node from the list.
    async fn leave(&self, node: Uuid) -> Result<(), StoreError>;

    /// Sends [`Signal::Jobs`] to the other nodes.
    ///
    /// [`Signal::Catalog`] needs no call: the database sends it with each change.
    async fn tell(&self, from: Uuid) -> Result<(), StoreError>;

    /// Begins to listen to the signals of the other nodes.
    async fn listen(&self, own: Uuid) -> Result<Box<dyn Signals>, StoreError>;
}
