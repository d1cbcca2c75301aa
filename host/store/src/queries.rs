//! Queries of the store: filters, pages, and counts.

use std::collections::BTreeMap;

use carillon_core::clock::UnixMs;
use carillon_core::job::{GroupId, JobId, SkipReason, SkippedTicks, State, TenantId};

/// Filter for a group's jobs.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct JobFilter {
    /// Owning tenant.
    pub tenant: TenantId,
    /// Group of the jobs.
    pub group: GroupId,
    /// State of the jobs, if given.
    pub state: Option<State>,
    /// States of the jobs, used where `state` is None; empty for all states.
    ///
    /// A job that moves between these states during the query is found once.
    #[serde(default)]
    pub states: Vec<State>,
    /// Exact name.
    pub name: Option<String>,
    /// Prefix of the name.
    pub name_prefix: Option<String>,
    /// Earliest time of acceptance.
    pub created_from: Option<UnixMs>,
    /// Time before which the jobs were accepted.
    pub created_before: Option<UnixMs>,
    /// Job before which the jobs were accepted.
    #[serde(default)]
    pub accepted_before: Option<JobId>,
    /// Earliest time when the jobs are, or last were, due.
    #[serde(default)]
    pub due_from: Option<UnixMs>,
    /// Time before which the jobs are, or last were, due.
    #[serde(default)]
    pub due_before: Option<UnixMs>,
    /// Exact URL.
    #[serde(default)]
    pub url: Option<String>,
    /// Prefix of the URL.
    #[serde(default)]
    pub url_prefix: Option<String>,
    /// Exact order key.
    #[serde(default)]
    pub order_key: Option<String>,
    /// Labels; a job must have all of them.
    pub metadata: BTreeMap<String, String>,
}

/// Whether a filter selects one name: then the index of names finds its jobs, else the index of states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFilter {
    /// Jobs of any name.
    Any,
    /// Jobs of exactly one name.
    Exact,
}

impl JobFilter {
    /// Returns the filter for all jobs of a group.
    #[must_use]
    pub fn all(tenant: TenantId, group: GroupId) -> Self {
        Self {
            tenant,
            group,
            state: None,
            states: Vec::new(),
            name: None,
            name_prefix: None,
            created_from: None,
            created_before: None,
            accepted_before: None,
            due_from: None,
            due_before: None,
            url: None,
            url_prefix: None,
            order_key: None,
            metadata: BTreeMap::new(),
        }
    }

    /// Returns whether the filter selects one name.
    #[must_use]
    pub fn name_filter(&self) -> NameFilter {
        if self.name.is_some() { NameFilter::Exact } else { NameFilter::Any }
    }

    /// Returns the states that the filter selects.
    #[must_use]
    pub fn among(&self) -> &[State] {
        match &self.state {
            Some(state) => std::slice::from_ref(state),
            None if self.states.is_empty() => &State::ALL,
            None => &self.states,
        }
    }
}

/// A page of a group's jobs, newest first.
#[derive(Clone, Debug)]
pub struct JobsQuery {
    /// Filter for the jobs.
    pub filter: JobFilter,
    /// Job before which the page's jobs were accepted.
    pub before: Option<JobId>,
    /// Largest number of jobs.
    pub limit: u32,
}

/// A page of the newest jobs of each name, in the order of the names.
#[derive(Clone, Debug)]
pub struct NamesQuery {
    /// Owning tenant.
    pub tenant: TenantId,
    /// Group of the jobs.
    pub group: GroupId,
    /// Prefix of the names.
    pub prefix: String,
    /// Name after which the page begins, compared byte by byte.
    pub after: String,
    /// Largest number of names.
    pub limit: u32,
}

/// Progress of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticked {
    /// Number of the schedule.
    pub schedule: i64,
    /// Newest tick that was handled, whether it made a job or was skipped; before 1970 if there was none.
    pub last: UnixMs,
    /// Number of jobs that the schedule has made.
    pub runs: u64,
    /// Number of these jobs that were made by hand or by a backfill; they do not count towards `max_runs`.
    pub extra: u64,
    /// Number of ticks that made no job.
    pub skipped: u64,
    /// Reason why the newest tick made no job, if it made none.
    pub reason: Option<SkipReason>,
}

impl Ticked {
    /// Returns the number of the schedule's jobs that count towards `max_runs`.
    #[must_use]
    pub fn counted(&self) -> u64 {
        self.runs.saturating_sub(self.extra)
    }
}

/// A page of a schedule's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TicksQuery {
    /// Number of the schedule.
    pub schedule: i64,
    /// Tick before which the page begins.
    pub before: UnixMs,
    /// Largest number of ticks.
    pub limit: u32,
}

/// Record of one tick, or of several ticks that were skipped together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickRecord {
    /// Time of the tick; of several ticks, of the last one.
    pub at: UnixMs,
    /// Job of the tick.
    ///
    /// A skipped tick has one, too, if it was caught up later.
    pub job: Option<JobId>,
    /// The skipped ticks, if this is a record of skipped ticks.
    pub skipped: Option<SkippedTicks>,
}

/// Exact counts of a group's jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Stats {
    /// Waiting jobs, due or not.
    pub scheduled: u64,
    /// Leased jobs.
    pub running: u64,
    /// Jobs that succeeded.
    pub succeeded: u64,
    /// Dead letters.
    pub dead: u64,
    /// Jobs that ended because their deadline passed.
    pub expired: u64,
    /// Jobs that were cancelled.
    pub cancelled: u64,
    /// Waiting jobs that are due.
    pub available: u64,
    /// Same number as `running`, under the name that queues use.
    pub in_flight: u64,
    /// Waiting jobs that are not yet due.
    pub delayed: u64,
}

impl Stats {
    /// Sums up counts by state; the entry without a state counts the available jobs.
    pub fn from_counts(counts: Vec<(Option<State>, u64)>) -> Self {
        let mut stats = Self::default();
        for (state, jobs) in counts {
            match state {
                None => stats.available = jobs,
                Some(State::Scheduled) => stats.scheduled = jobs,
                Some(State::Running) => stats.running = jobs,
                Some(State::Succeeded) => stats.succeeded = jobs,
                Some(State::Dead) => stats.dead = jobs,
                Some(State::Expired) => stats.expired = jobs,
                Some(State::Cancelled) => stats.cancelled = jobs,
            }
        }
        stats.in_flight = stats.running;
        stats.delayed = stats.scheduled.saturating_sub(stats.available);
        stats
    }
}
