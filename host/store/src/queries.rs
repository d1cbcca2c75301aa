//! What is asked of the store, and what it counts.

use std::collections::BTreeMap;

use carillon_core::clock::UnixMs;
use carillon_core::job::{GroupId, JobId, SkipReason, SkippedTicks, State, TenantId};

/// Which of a group's jobs.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct JobFilter {
    /// Whose.
    pub tenant: TenantId,
    /// Of which group.
    pub group: GroupId,
    /// Only those in this state.
    pub state: Option<State>,
    /// Without `state`: only those in one of these states, if there are any. A job that moves between them is found once.
    #[serde(default)]
    pub states: Vec<State>,
    /// Only those of exactly this name.
    pub name: Option<String>,
    /// Only those whose name begins with this.
    pub name_prefix: Option<String>,
    /// Only those accepted at this time or later.
    pub created_from: Option<UnixMs>,
    /// Only those accepted before this time.
    pub created_before: Option<UnixMs>,
    /// Only those accepted before this job.
    #[serde(default)]
    pub accepted_before: Option<JobId>,
    /// Only those that are, or last were, due at this time or later.
    #[serde(default)]
    pub due_from: Option<UnixMs>,
    /// Only those that are, or last were, due before this time.
    #[serde(default)]
    pub due_before: Option<UnixMs>,
    /// Only those with exactly this URL.
    #[serde(default)]
    pub url: Option<String>,
    /// Only those whose URL begins with this.
    #[serde(default)]
    pub url_prefix: Option<String>,
    /// Only those with exactly this order key.
    #[serde(default)]
    pub order_key: Option<String>,
    /// Only those with all of these labels.
    pub metadata: BTreeMap<String, String>,
}

impl JobFilter {
    /// All jobs of a group.
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

    /// The states that are asked for.
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
    /// Which jobs.
    pub filter: JobFilter,
    /// Only those accepted before this one.
    pub before: Option<JobId>,
    /// At most this many.
    pub limit: u32,
}

/// A page of the newest jobs of each name, in the order of the names.
#[derive(Clone, Debug)]
pub struct NamesQuery {
    /// Whose.
    pub tenant: TenantId,
    /// Of which group.
    pub group: GroupId,
    /// Only names that begin with this.
    pub prefix: String,
    /// Only names after this one, byte for byte.
    pub after: String,
    /// At most this many.
    pub limit: u32,
}

/// How far a schedule has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticked {
    /// The schedule's number.
    pub schedule: i64,
    /// Its newest tick that was dealt with, whether it made a job or was skipped; before 1970 if none was.
    pub last: UnixMs,
    /// How many jobs it has made.
    pub runs: u64,
    /// How many of them were asked for, by hand or by a backfill; they do not count towards `max_runs`.
    pub extra: u64,
    /// How many of its ticks made no job.
    pub skipped: u64,
    /// Why the newest tick made no job, if it did not.
    pub reason: Option<SkipReason>,
}

impl Ticked {
    /// How many jobs its ticks have made, of those that `max_runs` allows.
    #[must_use]
    pub fn counted(&self) -> u64 {
        self.runs.saturating_sub(self.extra)
    }
}

/// Which ticks of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TicksQuery {
    /// The schedule's number.
    pub schedule: i64,
    /// Only ticks before this one.
    pub before: UnixMs,
    /// At most this many.
    pub limit: u32,
}

/// What became of a tick, or of several that were skipped together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickRecord {
    /// The tick; of several, the last one.
    pub at: UnixMs,
    /// Its job. What was skipped has one, too, if it was made up for later.
    pub job: Option<JobId>,
    /// The ticks that were skipped, if they were.
    pub skipped: Option<SkippedTicks>,
}

/// Exact counts of a group's jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Stats {
    /// Waiting, due or not.
    pub scheduled: u64,
    /// Leased.
    pub running: u64,
    /// Ended well.
    pub succeeded: u64,
    /// Dead letters.
    pub dead: u64,
    /// Ended because their time ran out.
    pub expired: u64,
    /// Ended because somebody cancelled them.
    pub cancelled: u64,
    /// Waiting and due.
    pub available: u64,
    /// The same as `running`: the queue's word for it.
    pub in_flight: u64,
    /// Waiting and not yet due.
    pub delayed: u64,
}

impl Stats {
    /// From how many jobs there are in each state; without one, those that are available.
    pub fn of(counts: Vec<(Option<State>, u64)>) -> Self {
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
