//! A database of PostgreSQL for one test.

use super::Cluster;

/// The database of a test.
pub const DATABASE: &str = "carillon_test";

/// A server with an empty database.
pub fn cluster() -> Cluster {
    let cluster = Cluster::start();
    cluster.create(DATABASE, None);
    cluster
}
