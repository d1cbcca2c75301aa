//! Tells of policies that are not called from now on.

use crate::catalog::Catalog;
use crate::observe::{Fact, Observer, Subject};
use crate::policy::{Began, Runtime};

/// Tells of the quarantines that have begun since this was last done, whoever's calls they came of.
pub fn tell_quarantines(runtime: &Runtime, catalog: &Catalog, observer: &Observer) {
    for (quarantine, whose) in [(&runtime.quarantine, ""), (&runtime.shadow_quarantine, "the shadow's ")] {
        for began in quarantine.begun() {
            let Began { tenant, binding, role, plugin, sentence } = began;
            let group = catalog.group_by_id(sentence.group);
            let (owner, group) = group.map(|it| (it.tenant.name.clone(), it.name.clone())).unwrap_or_default();
            let (since, until, fault) = (sentence.since, sentence.until, sentence.fault.as_str());
            let reason = format!("{whose}{role}: `{plugin}` failed too often");
            tracing::warn!(tenant = owner, group, reason, fault, %until, "a policy is quarantined");
            let about = Subject::group(tenant, sentence.group);
            observer.tell(Fact::quarantine(about, since, binding, until, fault, reason));
        }
    }
}
