//! `[retention]`, `[audit]` and `[log]`: what is recorded, and for how long.

use std::time::Duration;

use serde::Deserialize;

use super::checks::Checks;
use super::values::Period;

/// Shortest interval between two removals.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// `[retention]`: retention of ended jobs and of the audit log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// For succeeded jobs.
    pub succeeded: Period,
    /// For dead letters.
    pub dead: Period,
    /// For expired jobs.
    pub expired: Period,
    /// For cancelled jobs.
    pub cancelled: Period,
    /// For entries of the audit log.
    pub audit: Period,
    /// Time between two removals of old jobs.
    pub sweep_interval: Period,
}

impl Retention {
    pub(super) fn check(&self, checks: &mut Checks) {
        checks.period("retention.succeeded", self.succeeded, Duration::ZERO);
        checks.period("retention.dead", self.dead, Duration::ZERO);
        checks.period("retention.expired", self.expired, Duration::ZERO);
        checks.period("retention.cancelled", self.cancelled, Duration::ZERO);
        checks.period("retention.audit", self.audit, Duration::ZERO);
        checks.period("retention.sweep_interval", self.sweep_interval, MIN_INTERVAL);
    }
}

/// `[audit]`: what the audit log records.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Whether requests that change single jobs are recorded.
    pub jobs: bool,
}

/// `[log]`: log lines that can be switched on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Whether each request has a line.
    pub requests: bool,
}
