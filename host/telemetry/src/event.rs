//! What happened to a job, as a fact: one constructor for each kind, so that no mix of fields is made that means nothing.
//!
//! A fact is made from what has been decided and committed; nothing is decided here.

use carillon_core::clock::UnixMs;
use carillon_core::event_kind::EventKind;
use carillon_core::job::{
    GroupId, Job, JobId, LeasedJob, Metadata, NewJob, Next, Settlement, SkippedTicks, State, TenantId, Text,
};

/// Whom a fact is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The owner.
    pub tenant: TenantId,
    /// The group.
    pub group: GroupId,
    /// The job, if it is about one.
    pub job: Option<JobId>,
    /// The job's name.
    pub name: Option<String>,
    /// The job's labels.
    pub metadata: Metadata,
}

impl Subject {
    /// A group as a whole.
    #[must_use]
    pub fn group(tenant: TenantId, group: GroupId) -> Self {
        Self { tenant, group, job: None, name: None, metadata: Metadata::default() }
    }
}

impl From<&Job> for Subject {
    fn from(job: &Job) -> Self {
        let metadata = job.spec.metadata.clone();
        Self { tenant: job.tenant, group: job.group, job: Some(job.id), name: job.name.clone(), metadata }
    }
}

impl From<&NewJob> for Subject {
    fn from(job: &NewJob) -> Self {
        let metadata = job.spec.metadata.clone();
        Self { tenant: job.tenant, group: job.group, job: Some(job.id), name: job.name.clone(), metadata }
    }
}

/// What else there is to say. Which of it is there depends on the kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// The attempt's number, from 1.
    pub attempt: Option<u32>,
    /// The status that it was answered with.
    pub status: Option<u16>,
    /// The code of what went wrong; of skipped ticks, why.
    pub error: Option<String>,
    /// When the next attempt is due; of skipped ticks, when the last would have been; of a receiver or a policy, when it is tried again.
    pub run_at: Option<UnixMs>,
    /// Why, in one sentence.
    pub reason: Option<String>,
    /// How many jobs, if it is about several.
    pub count: Option<u64>,
    /// The schedule that it is about.
    pub schedule: Option<String>,
    /// The receiver that it is about: scheme, host and port.
    pub origin: Option<String>,
    /// The version of its group's policy that it is about.
    pub binding: Option<i64>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Which kind of thing.
    pub kind: EventKind,
    /// When.
    pub at: UnixMs,
    /// To whom.
    pub about: Subject,
    /// The rest.
    pub details: Details,
}

/// A fact with its place among all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Rises for ever, also over a restart.
    pub id: u64,
    /// What happened.
    pub fact: Fact,
}

impl Fact {
    fn new(kind: EventKind, at: UnixMs, about: impl Into<Subject>, details: Details) -> Self {
        Self { kind, at, about: about.into(), details }
    }

    /// A job was accepted.
    #[must_use]
    pub fn push(job: &NewJob) -> Self {
        let details = Details { run_at: Some(job.run_at), ..Details::default() };
        Self::new(EventKind::Push, job.created_at, job, details)
    }

    /// An attempt begins, or a pull consumer got the job.
    #[must_use]
    pub fn pop(leased: &LeasedJob, at: UnixMs) -> Self {
        let details = Details { attempt: Some(leased.number()), ..Details::default() };
        Self::new(EventKind::Pop, at, &leased.job, details)
    }

    /// A pull consumer found nothing in a group.
    #[must_use]
    pub fn empty(tenant: TenantId, group: GroupId, at: UnixMs) -> Self {
        Self::new(EventKind::Empty, at, Subject::group(tenant, group), Details::default())
    }

    /// A lease is over: what became of its job, which is now in `state`.
    #[must_use]
    pub fn settled(leased: &LeasedJob, settlement: &Settlement, state: State) -> Self {
        let attempt = settlement.attempt.as_ref();
        let spent = attempt.is_some_and(|attempt| attempt.detail.spent);
        let decision = attempt.and_then(|attempt| attempt.detail.decision.as_ref());
        let kind = match state {
            State::Succeeded => EventKind::Complete,
            State::Dead => EventKind::Error,
            State::Expired => EventKind::Expire,
            State::Cancelled => EventKind::Cancel,
            State::Scheduled | State::Running if spent => EventKind::Retry,
            State::Scheduled | State::Running if attempt.is_some() => EventKind::Hold,
            State::Scheduled | State::Running => EventKind::Release,
        };
        let run_at = match settlement.next() {
            Next::Scheduled(at) if !state.is_final() => Some(at),
            _ => None,
        };
        let details = Details {
            attempt: attempt.map(|attempt| attempt.number),
            status: attempt.and_then(|attempt| attempt.status),
            error: attempt.and_then(|attempt| attempt.detail.error.as_ref()).map(|error| error.code.clone()),
            run_at,
            // What was decided is not what became of a job that was cancelled meanwhile; and a success needs no reason.
            reason: decision
                .filter(|decision| decision.state == state && kind != EventKind::Complete)
                .map(|decision| decision.reason.clone()),
            ..Details::default()
        };
        Self::new(kind, settlement.at, &leased.job, details)
    }

    /// A lease ended without a settlement: its node, or its consumer, is gone.
    #[must_use]
    pub fn interrupt(leased: &LeasedJob, at: UnixMs) -> Self {
        let details = Details { attempt: Some(leased.number()), ..Details::default() };
        Self::new(EventKind::Interrupt, at, &leased.job, details)
    }

    /// A job that waited was cancelled.
    #[must_use]
    pub fn cancel(about: impl Into<Subject>, at: UnixMs) -> Self {
        Self::new(EventKind::Cancel, at, about, Details::default())
    }

    /// A job was left out: `about` is the one that does its work.
    #[must_use]
    pub fn debounce_hit(about: impl Into<Subject>, at: UnixMs) -> Self {
        Self::new(EventKind::DebounceHit, at, about, Details::default())
    }

    /// A job with a debounce window was accepted, to run at `run_at`.
    #[must_use]
    pub fn debounce_miss(about: impl Into<Subject>, at: UnixMs, run_at: UnixMs) -> Self {
        Self::new(EventKind::DebounceMiss, at, about, Details { run_at: Some(run_at), ..Details::default() })
    }

    /// Whether a job could be left out was not to be found out.
    #[must_use]
    pub fn debounce_error(about: impl Into<Subject>, at: UnixMs, reason: String) -> Self {
        Self::new(EventKind::DebounceError, at, about, Details { reason: Some(reason), ..Details::default() })
    }

    /// A job was left out: `about` is the same job, accepted before.
    #[must_use]
    pub fn dedupe_hit(about: impl Into<Subject>, at: UnixMs) -> Self {
        Self::new(EventKind::DedupeHit, at, about, Details::default())
    }

    /// A waiting job was given the request of a later call with its debounce key. `before` is the job with the request that was replaced.
    #[must_use]
    pub fn request_replaced(about: impl Into<Subject>, at: UnixMs, before: &Job) -> Self {
        let request = match &before.spec.target {
            Some(target) => format!("`{} {}`", target.method, target.url),
            None => "the job to be pulled".to_owned(),
        };
        let reason = format!("a later debounced call replaced {request} with {} bytes of payload", before.body_len);
        Self::new(EventKind::Edit, at, about, Details { reason: Some(reason), ..Details::default() })
    }

    /// A job was changed.
    #[must_use]
    pub fn edit(about: impl Into<Subject>, at: UnixMs) -> Self {
        Self::new(EventKind::Edit, at, about, Details::default())
    }

    /// A job's next attempt was moved to `run_at`.
    #[must_use]
    pub fn reschedule(about: impl Into<Subject>, at: UnixMs, run_at: UnixMs) -> Self {
        Self::new(EventKind::Reschedule, at, about, Details { run_at: Some(run_at), ..Details::default() })
    }

    /// `count` dead letters are tried again at `run_at`; `about` is the job, or the group.
    #[must_use]
    pub fn redrive(about: impl Into<Subject>, at: UnixMs, run_at: UnixMs, count: u64) -> Self {
        let details = Details { run_at: Some(run_at), count: Some(count), ..Details::default() };
        Self::new(EventKind::Redrive, at, about, details)
    }

    /// `count` jobs of a group were removed.
    #[must_use]
    pub fn purge(about: impl Into<Subject>, at: UnixMs, count: u64) -> Self {
        Self::new(EventKind::Purge, at, about, Details { count: Some(count), ..Details::default() })
    }

    /// Ticks of a schedule made no job.
    #[must_use]
    pub fn skip(about: impl Into<Subject>, at: UnixMs, schedule: String, skipped: &SkippedTicks) -> Self {
        let details = Details {
            run_at: Some(skipped.last),
            error: Some(skipped.reason.as_str().to_owned()),
            reason: Some(skipped.reason.sentence().to_owned()),
            count: Some(skipped.count),
            schedule: Some(schedule),
            ..Details::default()
        };
        Self::new(EventKind::Skip, at, about, details)
    }

    /// The receiver at `origin` is left alone until `until`. `about` is the group whose attempt led to it.
    #[must_use]
    pub fn breaker_open(about: Subject, at: UnixMs, origin: String, until: UnixMs, reason: String) -> Self {
        let (origin, reason) = (Some(origin), Some(reason));
        Self::new(
            EventKind::BreakerOpen,
            at,
            about,
            Details { run_at: Some(until), origin, reason, ..Details::default() },
        )
    }

    /// The receiver at `origin` has asked that the group's jobs for one of its URLs wait until `until`.
    #[must_use]
    pub fn receiver_pause(about: Subject, at: UnixMs, origin: String, until: UnixMs) -> Self {
        let (origin, reason) = (Some(origin), Some("it asked for a pause of the URL with `Retry-After`".to_owned()));
        let details = Details { run_at: Some(until), origin, reason, ..Details::default() };
        Self::new(EventKind::ReceiverPause, at, about, details)
    }

    /// The receiver at `origin` is back. `about` is the group whose attempt it answered.
    #[must_use]
    pub fn breaker_close(about: Subject, at: UnixMs, origin: String) -> Self {
        Self::new(EventKind::BreakerClose, at, about, Details { origin: Some(origin), ..Details::default() })
    }

    /// Version `binding` of a group's policy was put in force.
    #[must_use]
    pub fn promote(about: Subject, at: UnixMs, binding: i64, reason: Option<String>) -> Self {
        Self::new(EventKind::Promote, at, about, Details { binding: Some(binding), reason, ..Details::default() })
    }

    /// Version `binding` of a group's policy is in force again.
    #[must_use]
    pub fn rollback(about: Subject, at: UnixMs, binding: i64, reason: Option<String>) -> Self {
        Self::new(EventKind::Rollback, at, about, Details { binding: Some(binding), reason, ..Details::default() })
    }

    /// A policy of version `binding` failed too often, at last with the fault `error`, and is not called until `until`.
    #[must_use]
    pub fn quarantine(about: Subject, at: UnixMs, binding: i64, until: UnixMs, error: &str, reason: String) -> Self {
        let (error, reason) = (Some(error.to_owned()), Some(reason));
        let details = Details { binding: Some(binding), run_at: Some(until), error, reason, ..Details::default() };
        Self::new(EventKind::Quarantine, at, about, details)
    }

    /// The policies of a group, whose version `binding` is in force, are called again.
    #[must_use]
    pub fn unquarantine(about: Subject, at: UnixMs, binding: i64, reason: Option<String>) -> Self {
        Self::new(EventKind::Unquarantine, at, about, Details { binding: Some(binding), reason, ..Details::default() })
    }

    /// Version `binding`, which runs beside the one in force, said something else of an attempt.
    #[must_use]
    pub fn shadow_difference(leased: &LeasedJob, at: UnixMs, binding: i64, reason: String) -> Self {
        let (attempt, binding, reason) = (Some(leased.number()), Some(binding), Some(reason));
        Self::new(
            EventKind::ShadowDifference,
            at,
            &leased.job,
            Details { attempt, binding, reason, ..Details::default() },
        )
    }

    /// About how much memory it takes, in bytes.
    pub(super) fn size(&self) -> usize {
        let details = &self.details;
        let words = [&self.about.name, &details.error, &details.reason, &details.schedule, &details.origin];
        let words = words.into_iter().flatten().map(String::len).sum::<usize>();
        let label =
            |text: Text<'_>| LABEL_SIZE + text.namespace.map_or(0, str::len) + text.name.len() + text.value.len();
        let labels = self.about.metadata.texts().map(label);
        size_of::<Event>() + words + labels.sum::<usize>()
    }
}

/// What a label takes besides its bytes, in bytes.
const LABEL_SIZE: usize = 64;
