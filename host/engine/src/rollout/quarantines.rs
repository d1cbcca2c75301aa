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
            let (begun, whose) = tokio::select! {
                begun = self.runtime.quarantine.begun() => (begun, ""),
                begun = self.runtime.shadow_quarantine.begun() => (begun, "the shadow's "),
                () = stop.cancelled() => return,
            };
            for began in begun {
                self.record_quarantine(began, whose);
            }
        }
    }

    fn record_quarantine(&self, began: QuarantineStart, whose: &str) {
        let QuarantineStart { tenant, binding, role, plugin, sentence } = began;
        let group = self.catalog.group_by_id(sentence.group);
        let (owner, group) = group.map(|it| (it.tenant.name.clone(), it.name.clone())).unwrap_or_default();
        let (since, until, fault) = (sentence.since, sentence.until, sentence.fault.as_str());
        let reason = format!("{whose}{role}: `{plugin}` failed too often");
        tracing::warn!(tenant = owner, group, reason, fault, %until, "a policy is quarantined");
        let about = Subject::group(tenant, sentence.group);
        self.telemetry.record(Fact::quarantine(about, since, binding, until, fault, reason));
    }
}
