//! Observers: calls the tenants' `observe` plugins with events.
//!
//! Invariants: neither a delivery nor the recording of an event waits for an observer; an observer gets each event at most once; the events
//! that wait for observers are bounded, in sum, by tenant and for each group, and further ones are dropped and counted. Observers are called on threads
//! of their own, one call at a time for each group, so a slow observer delays the others by one call at most and never delays a delivery.
//! Events that were not shown when the server stops are lost.
//!
//! An observer can request jobs, in the group that its binding names. Another loop takes them and makes them. The channel between the two
//! holds the jobs of at most [`ASKED`] calls; jobs beyond that are not made, and the group's report says so.

mod pending_events;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::pending_events::PendingEvents;
use crate::by_group::ByGroup;
use crate::services::Services;
use carillon_catalog::Group;
use carillon_core::clock::UnixMs;
use carillon_core::error_code::ErrorCode;
use carillon_core::job::{GroupId, PluginUse};
use carillon_policy::{
    AskedJob, Attribute, Event as ShownEvent, Fault, FaultCode, JobRequests, PolicyCaller, QueueKey,
};
use carillon_telemetry::{Cursor, Event, Fact, Found, ObserverOutcome};

/// Time for which events are gathered before a call.
const LINGER: Duration = Duration::from_millis(200);

/// Largest number of an observer's log lines that are kept.
const LOG_LINES: usize = 20;

/// Largest number of calls whose requested jobs wait to be made.
const ASKED: usize = 256;

/// Shortest period between two log lines about dropped events.
const DROPPED_PERIOD: Duration = Duration::from_secs(60);

/// Calls observers with the events of their groups.
pub struct ObserverRunner {
    services: Services,
    capacity: usize,
    /// Position in the events at which the runner starts.
    start: Cursor,
    accounts: Mutex<ObserverStats>,
    asked: mpsc::Sender<RequestedJobs>,
    requested: tokio::sync::Mutex<mpsc::Receiver<RequestedJobs>>,
}

/// Jobs that an observer requests.
pub(crate) struct RequestedJobs {
    /// Group that it observes.
    pub(crate) group: Arc<Group>,
    /// Group, of the same tenant, in which the jobs are made.
    pub(crate) jobs_group: String,
    /// Requested jobs.
    pub(crate) jobs: Vec<AskedJob>,
}

/// Counts of shown and dropped events.
#[derive(Default)]
struct ObserverStats {
    reports: ByGroup<Report>,
    /// Events dropped since the last log line about it, and its time.
    dropped: u64,
    said_at: UnixMs,
}

/// Activity of a group's observer since the server started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Events that it was shown.
    pub shown: u64,
    /// Events of calls that ended in a fault.
    pub failed: u64,
    /// Events that it was not shown, because too many waited, it is quarantined, or it cannot be loaded.
    pub dropped: u64,
    /// Requested jobs that were made.
    pub jobs: u64,
    /// Newest fault.
    pub last_fault: Option<ErrorCode>,
    /// Newest log lines, oldest first.
    pub log: VecDeque<String>,
}

impl Report {
    fn log(&mut self, lines: impl IntoIterator<Item = String>) {
        self.log.extend(lines);
        let surplus = self.log.len().saturating_sub(LOG_LINES);
        self.log.drain(..surplus);
    }
}

/// Returns the name of the group for jobs that the group's observer requests.
fn jobs_group_of(group: &Group) -> Option<&str> {
    group.effective.as_ref().ok()?.observe.as_ref()?.jobs.as_deref()
}

impl ObserverRunner {
    /// Creates a runner that shows the events from now on, and lets at most `capacity` of them wait.
    #[must_use]
    pub fn new(services: Services, capacity: usize) -> Self {
        let start = services.telemetry.events.newest();
        let (asked, requested) = mpsc::channel(ASKED);
        let requested = tokio::sync::Mutex::new(requested);
        Self { services, capacity, start, accounts: Mutex::default(), asked, requested }
    }

    /// Returns the jobs that observers request. Only one caller at a time gets them.
    pub(crate) async fn requested(&self) -> tokio::sync::MutexGuard<'_, mpsc::Receiver<RequestedJobs>> {
        self.requested.lock().await
    }

    /// Records the result of a job that a group's observer requested: `refused` says why it was not made.
    pub fn answered(&self, group: GroupId, refused: Option<String>) {
        self.change_report(group, |report| match refused {
            None => report.jobs += 1,
            Some(why) => report.log([format!("server: a job was not made: {why}")]),
        });
    }

    fn change_report(&self, group: GroupId, change: impl FnOnce(&mut Report)) {
        let exists = |group| self.services.catalog.group_by_id(group).is_some();
        change(self.lock().reports.entry(group, exists).or_default());
    }

    /// Returns the activity of the group's observer since the server started.
    #[must_use]
    pub fn report(&self, group: GroupId) -> Report {
        self.lock().reports.get(group).cloned().unwrap_or_default()
    }

    /// Shows events to observers, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let (mut cursor, mut calls) = (self.start, JoinSet::new());
        let mut waiting = PendingEvents::new(self.capacity);
        let mut look_at = None;
        loop {
            let recorded = self.services.telemetry.events.recorded().notified();
            tokio::pin!(recorded);
            recorded.as_mut().enable();
            if look_at.is_none() && self.services.telemetry.events.newest() != cursor {
                look_at = Some(self.services.clock.now().plus(LINGER));
            }
            tokio::select! {
                () = recorded, if look_at.is_none() => continue,
                () = self.services.clock.sleep_until(look_at.unwrap_or(UnixMs::MAX)) => {
                    look_at = None;
                    self.read_events(&mut cursor, &mut waiting);
                }
                Some(Ok(group)) = calls.join_next() => waiting.called(group),
                () = stop.cancelled() => return,
            }
            for (group, batch) in waiting.batches() {
                calls.spawn(Arc::clone(&self).show(group, batch));
            }
        }
    }

    /// Adds the new events of observed groups to the waiting ones.
    fn read_events(&self, cursor: &mut Cursor, waiting: &mut PendingEvents) {
        let observed = self.services.catalog.observed_groups();
        if observed.is_empty() {
            *cursor = self.services.telemetry.events.newest();
            return;
        }
        loop {
            let is_observed = |fact: &Fact| observed.contains(&fact.about.group);
            let Found { lost, events, more, .. } = self.services.telemetry.events.read(cursor, is_observed);
            if lost > 0 {
                self.count(None, ObserverOutcome::Dropped, lost);
            }
            for event in events {
                if let Some(group) = waiting.push(event) {
                    self.count(Some(group), ObserverOutcome::Dropped, 1);
                }
            }
            if !more {
                return;
            }
        }
    }

    /// Calls a group's observer with a batch, and returns the group.
    async fn show(self: Arc<Self>, id: GroupId, batch: Vec<Event>) -> GroupId {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let Some(group) = self.services.catalog.group_by_id(id) else {
            self.lock().reports.remove(id);
            return id;
        };
        match self.call(&group, batch).await {
            Ok(Some((used, asked))) => {
                let outcome = match &used.fault {
                    None => ObserverOutcome::Shown,
                    Some(ErrorCode::Policy(FaultCode::Quarantined)) => ObserverOutcome::Dropped,
                    Some(_) => ObserverOutcome::Failed,
                };
                self.count(Some(id), outcome, count);
                self.record_call(&group, used);
                self.submit_jobs(&group, asked);
            }
            Ok(None) => self.count(Some(id), ObserverOutcome::Dropped, count),
            Err(fault) => {
                tracing::debug!(tenant = group.tenant.name, group = group.name, %fault, "calling an observer failed");
                self.count(Some(id), ObserverOutcome::Dropped, count);
                self.change_report(id, |report| report.last_fault = Some(fault.code.into()));
            }
        }
        id
    }

    fn submit_jobs(&self, group: &Arc<Group>, jobs: Vec<AskedJob>) {
        let Some(jobs_group) = jobs_group_of(group).filter(|_| !jobs.is_empty()) else { return };
        let asked = RequestedJobs { group: Arc::clone(group), jobs_group: jobs_group.to_owned(), jobs };
        if self.asked.try_send(asked).is_err() {
            self.answered(group.id, Some("the queue of requested jobs is full".to_owned()));
        }
    }

    /// Calls the observer; returns `None` if the group has no observer any more.
    async fn call(&self, group: &Group, batch: Vec<Event>) -> Result<Option<(PluginUse, Vec<AskedJob>)>, Fault> {
        let Some(step) = self.services.catalog.observer(group).await? else { return Ok(None) };
        let requests = jobs_group_of(group).map_or(JobRequests::Denied, |_| JobRequests::Allowed);
        let (limits, watch) =
            (Arc::clone(&self.services.runtime.limits), group.watch(&self.services.runtime.quarantine, None));
        let (now, tenant, name) = (self.services.clock.now(), group.tenant.name.clone(), group.name.clone());
        let call = move || {
            let events: Vec<_> = batch.iter().map(|event| shown(event, &tenant, &name)).collect();
            PolicyCaller { limits: &limits, watch: Some(&watch), now }.observe(&step, &events, requests)
        };
        let lane = QueueKey { tenant: group.tenant.id, group: group.id };
        self.services.runtime.observer_threads.run(lane, call).await.map(Some)
    }

    fn record_call(&self, group: &Group, used: PluginUse) {
        self.services.telemetry.metrics.policy_call(&used);
        for line in &used.log {
            tracing::info!(
                tenant = group.tenant.name,
                group = group.name,
                plugin = &*used.plugin,
                line,
                "observer logged a line"
            );
        }
        // The group reports the quarantine itself; this fault is its cause.
        let fault = used.fault.filter(|code| *code != ErrorCode::Policy(FaultCode::Quarantined));
        self.change_report(group.id, |report| {
            report.log(used.log);
            report.last_fault = fault.or(report.last_fault.take());
        });
    }

    fn count(&self, group: Option<GroupId>, outcome: ObserverOutcome, events: u64) {
        self.services.telemetry.metrics.observed(outcome, events);
        if let Some(group) = group {
            self.change_report(group, |report| match outcome {
                ObserverOutcome::Shown => report.shown += events,
                ObserverOutcome::Failed => report.failed += events,
                ObserverOutcome::Dropped => report.dropped += events,
            });
        }
        if outcome != ObserverOutcome::Dropped {
            return;
        }
        let mut accounts = self.lock();
        accounts.dropped += events;
        let now = self.services.clock.now();
        if now.since(accounts.said_at) >= DROPPED_PERIOD {
            let dropped = std::mem::take(&mut accounts.dropped);
            accounts.said_at = now;
            tracing::warn!(dropped, "events were dropped before their observers saw them");
        }
    }

    fn lock(&self) -> MutexGuard<'_, ObserverStats> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Converts an event to the form that an observer sees.
fn shown(event: &Event, tenant: &str, group: &str) -> ShownEvent {
    let (fact, details) = (&event.fact, &event.fact.details);
    let attribute = |key: &str, value: String| Attribute { key: key.to_owned(), value };
    let mut attributes = vec![attribute("tenant", tenant.to_owned())];
    attributes.extend(fact.about.name.clone().map(|name| attribute("job-name", name)));
    attributes.extend(details.attempt.map(|number| attribute("attempt", number.to_string())));
    attributes.extend(details.status.map(|status| attribute("status", status.to_string())));
    attributes.extend(details.error.as_ref().map(|code| attribute("error", code.as_str().to_owned())));
    attributes.extend(details.run_at.map(|at| attribute("run-at-ms", at.as_u64().to_string())));
    attributes.extend(details.reason.clone().map(|reason| attribute("reason", reason)));
    attributes.extend(details.count.map(|count| attribute("count", count.to_string())));
    attributes.extend(details.schedule.clone().map(|schedule| attribute("schedule", schedule)));
    attributes.extend(details.origin.clone().map(|origin| attribute("origin", origin)));
    attributes.extend(details.binding.map(|version| attribute("binding", version.to_string())));
    let texts = fact.about.metadata.texts();
    attributes.extend(texts.map(|text| attribute(&format!("metadata.{}", text.flat_name()), text.value.to_owned())));
    ShownEvent {
        id: event.id,
        kind: fact.kind.as_str().to_owned(),
        at_ms: fact.at.as_u64(),
        group: group.to_owned(),
        job_id: fact.about.job.map(|job| job.to_string()).unwrap_or_default(),
        attributes,
    }
}
