//! What keeps order: expired leases are taken back, old jobs are removed, and many jobs are changed at once.

pub mod bulk;
pub mod sweep;
