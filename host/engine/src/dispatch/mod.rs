//! Dispatch of jobs: claims of due jobs, limits and shares, leases, and jobs that consumers pull.

pub mod aborts;
pub mod dispatcher;
pub mod lease_keeper;
pub mod leases;
pub mod limiter;
pub mod priorities;
pub mod pull;
