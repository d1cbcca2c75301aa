//! Publishes the quarantines of policies as they begin.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::RolloutMonitor;
use carillon_policy::QuarantineStart;
use carillon_telemetry::{Fact, Subject};

impl RolloutMonitor {
    /// Publishes quarantines as they begin, whichever calls cause them, until `stop`.
    pub async fn run_quarantines(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let (starts, prefix) = tokio::select! {
                starts = self.services.runtime.quarantine.next_starts() => (starts, ""),
                starts = self.services.runtime.shadow_quarantine.next_starts() => (starts, "the shadow's "),
                () = stop.cancelled() => return,
            };
            for start in starts {
                self.record_quarantine(start, prefix);
            }
        }
    }

    fn record_quarantine(&self, start: QuarantineStart, prefix: &str) {
        let QuarantineStart { tenant, binding, role, plugin, entry } = start;
        let group = self.services.catalog.group_by_id(entry.group);
        let (owner, group) = group.map(|it| (it.tenant.name.clone(), it.name.clone())).unwrap_or_default();
        let (since, until, fault) = (entry.since, entry.until, entry.fault);
        let reason = format!("{prefix}{role}: `{plugin}` failed too often");
        tracing::warn!(tenant = owner, group, reason, fault = fault.as_str(), %until, "quarantined a policy");
        let about = Subject::group(tenant, entry.group);
        self.services.telemetry.record(Fact::quarantine(about, since, binding, until, fault.into(), reason));
    }
}
