//! Follow-up jobs: the job that a template describes, and the copy of a dead letter for its group's dead-letter group.
//!
//! Invariant: follow-up jobs are stored in the transaction that ends the job, so they exist if and only if it has ended so.

use carillon_catalog::{Catalog, Group};
use carillon_core::clock::Clock;
use carillon_core::job::{Admission, JobId, Label, LeasedJob, NewJob, Next, Settlement, Spec, State, Target, new_seed};

/// Namespace of the metadata in which a copy of a dead letter carries the reason.
const NAMESPACE: &str = "carillon";

/// Returns the settlement with the follow-up jobs of its decision.
#[must_use]
pub fn with_follow_ups(
    catalog: &Catalog,
    clock: &dyn Clock,
    leased: &LeasedJob,
    mut settlement: Settlement,
) -> Settlement {
    let job = &leased.job;
    let (template, is_failure) = match settlement.next() {
        Next::Final(State::Succeeded) => (&job.spec.on_success, false),
        Next::Final(State::Dead | State::Expired) => (&job.spec.on_failure, true),
        Next::Final(_) | Next::Scheduled(_) => return settlement,
    };
    let mut follow_ups: Vec<NewJob> = template.iter().map(|template| template.job(job, settlement.at, clock)).collect();
    if is_failure {
        follow_ups
            .extend(dead_letter_group(catalog, leased).map(|group| dead_letter(&group, clock, leased, &settlement)));
    }
    for job in &mut follow_ups {
        job.spec.binding = catalog.pinned(job.group, job.id);
    }
    settlement.follow_ups = follow_ups;
    settlement
}

/// Returns the group for copies of the group's dead letters; `None` if that group was deleted, or is the group itself.
fn dead_letter_group(catalog: &Catalog, leased: &LeasedJob) -> Option<std::sync::Arc<Group>> {
    let group = catalog.group_by_id(leased.job.group)?;
    let name = group.effective.as_ref().ok()?.dead_letters.as_ref()?;
    catalog.group(leased.job.tenant, name).filter(|target| target.id != group.id)
}

/// Builds a copy of a dead letter for consumers to pull: the same payload and labels, and the reason.
fn dead_letter(group: &Group, clock: &dyn Clock, leased: &LeasedJob, settlement: &Settlement) -> NewJob {
    let job = &leased.job;
    let mut metadata = job.spec.metadata.clone();
    let detail = settlement.attempt.as_ref().map(|attempt| &attempt.detail);
    let error = detail.and_then(|detail| detail.error.as_ref());
    let reason = detail.and_then(|detail| detail.decision.as_ref()).map(|decision| decision.reason.clone());
    let state = match settlement.next() {
        Next::Final(state) => Some(state.to_string()),
        Next::Scheduled(_) => None,
    };
    let facts = [
        ("state", state),
        ("error_code", error.map(|error| error.code.to_string())),
        ("error", error.map(|error| error.message.clone()).or(reason)),
        ("url", job.spec.target.as_ref().map(|Target { url, .. }| url.clone())),
    ];
    let facts = facts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    metadata.0.insert(NAMESPACE.to_owned(), Label::Namespace(facts.collect()));
    NewJob {
        id: JobId::new(clock),
        tenant: job.tenant,
        group: group.id,
        name: job.name.clone(),
        run_at: settlement.at,
        created_at: settlement.at,
        deadline: None,
        max_delay: None,
        priority: job.priority,
        order_key: None,
        admission: Admission::Always,
        seed: new_seed(clock),
        spec: Spec { metadata, parent: Some(job.id), is_json: job.spec.is_json, ..Spec::default() },
        body: leased.body.clone(),
    }
}
