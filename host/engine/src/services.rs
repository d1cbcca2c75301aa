//! What all loops and handlers share. A clone refers to the same services.
//!
//! Not: the state of one loop, which is private to the loop.

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::dispatch::limiter::Limiter;
use crate::notifier::Notifier;
use crate::stored_bytes::StoredBytes;
use carillon_catalog::Catalog;
use carillon_core::clock::Clock;
use carillon_policy::Runtime;
use carillon_store::Store;
use carillon_telemetry::Telemetry;

/// Services of a server.
#[derive(Clone)]
pub struct Services {
    /// Store of jobs.
    pub store: Arc<dyn Store>,
    /// Configuration of groups and tenants.
    pub catalog: Arc<Catalog>,
    /// Threads, limits and quarantines of policies.
    pub runtime: Arc<Runtime>,
    /// Clock of all decisions.
    pub clock: Arc<dyn Clock>,
    /// Receives facts after the commit.
    pub telemetry: Arc<Telemetry>,
    /// Counts the attempts that run.
    pub limiter: Arc<Limiter>,
    /// The other nodes, and this node's share of the limits.
    pub cluster: Arc<Cluster>,
    /// Wakes the loops.
    pub notifier: Arc<Notifier>,
    /// Bytes that the tenants' jobs take.
    pub stored_bytes: Arc<StoredBytes>,
}
