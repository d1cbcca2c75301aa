//! Maintenance: expired leases are rescued, old jobs are removed, and bulk changes are made.

pub mod bulk;
pub mod prune;
pub mod rescue;
