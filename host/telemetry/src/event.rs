//! Facts about jobs and groups: one constructor for each kind of event, so that no meaningless mix of fields can be made.
//!
//! A fact is made from a decision that was committed; nothing is decided here.

use std::sync::Arc;

use carillon_core::audit::AuditEntry;
use carillon_core::clock::UnixMs;
use carillon_core::error_code::ErrorCode;
use carillon_core::event_kind::EventKind;
use carillon_core::job::{
    GroupId, Job, JobId, LeasedJob, Metadata, NewJob, Next, Settlement, SkipReason, SkippedTicks, State, TenantId, Text,
};

/// Subject of a fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Owning tenant.
    pub tenant: TenantId,
    /// Group.
    pub group: GroupId,
    /// Job, if the fact is about one.
    pub job: Option<JobId>,
    /// Name of the job.
    pub name: Option<String>,
    /// Labels of the job.
    pub metadata: Metadata,
}

impl Subject {
    /// Returns the subject of a fact about a whole group.
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

/// Code in a fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FactCode {
    /// Error of an attempt or of a policy call.
    Error(ErrorCode),
    /// Reason why ticks of a schedule made no job.
    Skip(SkipReason),
}

impl FactCode {
    /// Returns the code's text in the API.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Error(code) => code.as_str(),
            Self::Skip(reason) => reason.as_str(),
        }
    }
}

/// Details of a fact. The kind decides which of them are present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// The attempt's number, from 1.
    pub attempt: Option<u32>,
    /// Status of the response.
    pub status: Option<u16>,
    /// Code of the error; of skipped ticks, the reason.
    pub error: Option<FactCode>,
    /// Time of the next attempt; of skipped ticks, the last one's time; of a receiver or a policy, the time of the next try.
    pub run_at: Option<UnixMs>,
    /// Reason, in one sentence.
    pub reason: Option<String>,
    /// Number of jobs, if the fact is about several.
    pub count: Option<u64>,
    /// Schedule of the fact.
    pub schedule: Option<String>,
    /// Receiver of the fact: scheme, host and port.
    pub origin: Option<String>,
    /// Version of the group's policy.
    pub binding: Option<i64>,
    /// Entry of the audit log.
    pub audit: Option<Arc<AuditEntry>>,
}

/// A fact: an event that has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Kind of the event.
    pub kind: EventKind,
    /// Time of the event.
    pub at: UnixMs,
    /// Subject of the fact.
    pub about: Subject,
    /// Details of the fact.
    pub details: Details,
}

/// A fact with its id in the order of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Id; rises for ever, also over a restart.
    pub id: u64,
    /// Fact of the event.
    pub fact: Fact,
}

/// Times of a fact that plans a job's next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Time of the fact.
    pub at: UnixMs,
    /// Time of the attempt.
    pub run_at: UnixMs,
}

impl Fact {
    fn new(kind: EventKind, at: UnixMs, about: impl Into<Subject>, details: Details) -> Self {
        Self { kind, at, about: about.into(), details }
    }

    /// Returns the fact that a job was accepted.
    #[must_use]
    pub fn push(job: &NewJob) -> Self {
        let details = Details { run_at: Some(job.run_at), ..Details::default() };
        Self::new(EventKind::Push, job.created_at, job, details)
    }

    /// Returns the fact that an attempt begins, or that a consumer leased the job.
    #[must_use]
    pub fn pop(leased: &LeasedJob, at: UnixMs) -> Self {
        let details = Details { attempt: Some(leased.number()), ..Details::default() };
        Self::new(EventKind::Pop, at, &leased.job, details)
    }

    /// Returns the fact that a consumer found no job in a group.
    #[must_use]
    pub fn empty(tenant: TenantId, group: GroupId, at: UnixMs) -> Self {
        Self::new(EventKind::Empty, at, Subject::group(tenant, group), Details::default())
    }

    /// Returns the fact of a settlement, after which the job is in `state`.
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
            error: attempt
                .and_then(|attempt| attempt.detail.error.as_ref())
                .map(|error| FactCode::Error(error.code.clone())),
            run_at,
            // The reason is that of the decision, so it does not apply to a job that was cancelled meanwhile; and a success needs no reason.
            reason: decision
                .filter(|decision| decision.state == state && kind != EventKind::Complete)
                .map(|decision| decision.reason.clone()),
            ..Details::default()
        };
        Self::new(kind, settlement.at, &leased.job, details)
    }

    /// Returns the fact that a lease expired without a settlement: its node or its consumer is gone.
    #[must_use]
    pub fn interrupt(leased: &LeasedJob, at: UnixMs) -> Self {
        let details = Details { attempt: Some(leased.number()), ..Details::default() };
        Self::new(EventKind::Interrupt, at, &leased.job, details)
    }

    /// Returns the fact that a waiting job was cancelled.
    #[must_use]
    pub fn cancel(about: impl Into<Subject>, at: UnixMs) -> Self {
        Self::new(EventKind::Cancel, at, about, Details::default())
    }

    /// Returns the fact that a job was left out: `about` is the waiting job that does its work.
    #[must_use]
    pub fn debounce_hit(about: impl Into<Subject>, at: UnixMs) -> Self {
        Self::new(EventKind::DebounceHit, at, about, Details::default())
    }

    /// Returns the fact that a job with a debounce window was accepted.
    #[must_use]
    pub fn debounce_miss(about: impl Into<Subject>, Planned { at, run_at }: Planned) -> Self {
        Self::new(EventKind::DebounceMiss, at, about, Details { run_at: Some(run_at), ..Details::default() })
    }

    /// Returns the fact that debouncing failed: whether a job could be left out is unknown.
    #[must_use]
    pub fn debounce_error(about: impl Into<Subject>, at: UnixMs, reason: String) -> Self {
        Self::new(EventKind::DebounceError, at, about, Details { reason: Some(reason), ..Details::default() })
    }

    /// Returns the fact that a job was left out: `about` is the same job, accepted before.
    #[must_use]
    pub fn dedupe_hit(about: impl Into<Subject>, at: UnixMs) -> Self {
        Self::new(EventKind::DedupeHit, at, about, Details::default())
    }

    /// Returns the fact that a later call with its debounce key replaced the request of a waiting job. `before` is the job with the replaced
    /// request.
    #[must_use]
    pub fn request_replaced(about: impl Into<Subject>, at: UnixMs, before: &Job) -> Self {
        let request = match &before.spec.target {
            Some(target) => format!("`{} {}`", target.method, target.url),
            None => "the job to be pulled".to_owned(),
        };
        let reason = format!("a later debounced call replaced {request} with {} bytes of payload", before.body_len);
        Self::new(EventKind::Edit, at, about, Details { reason: Some(reason), ..Details::default() })
    }

    /// Returns the fact that a job was changed.
    #[must_use]
    pub fn edit(about: impl Into<Subject>, at: UnixMs) -> Self {
        Self::new(EventKind::Edit, at, about, Details::default())
    }

    /// Returns the fact that a job's next attempt was moved.
    #[must_use]
    pub fn reschedule(about: impl Into<Subject>, Planned { at, run_at }: Planned) -> Self {
        Self::new(EventKind::Reschedule, at, about, Details { run_at: Some(run_at), ..Details::default() })
    }

    /// Returns the fact that `count` dead letters are tried again; `about` is the job, or the group.
    #[must_use]
    pub fn redrive(about: impl Into<Subject>, Planned { at, run_at }: Planned, count: u64) -> Self {
        let details = Details { run_at: Some(run_at), count: Some(count), ..Details::default() };
        Self::new(EventKind::Redrive, at, about, details)
    }

    /// Returns the fact that `count` jobs of a group were removed.
    #[must_use]
    pub fn purge(about: impl Into<Subject>, at: UnixMs, count: u64) -> Self {
        Self::new(EventKind::Purge, at, about, Details { count: Some(count), ..Details::default() })
    }

    /// Returns the fact that ticks of a schedule made no job.
    #[must_use]
    pub fn skip(about: impl Into<Subject>, at: UnixMs, schedule: String, skipped: &SkippedTicks) -> Self {
        let details = Details {
            run_at: Some(skipped.last),
            error: Some(FactCode::Skip(skipped.reason)),
            reason: Some(skipped.reason.sentence().to_owned()),
            count: Some(skipped.count),
            schedule: Some(schedule),
            ..Details::default()
        };
        Self::new(EventKind::Skip, at, about, details)
    }

    /// Returns the fact that the circuit breaker of `origin` is open until `until`. `about` is the group whose attempt opened it.
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

    /// Returns the fact that the receiver at `origin` has asked the group's jobs for one of its URLs to wait until `until`.
    #[must_use]
    pub fn receiver_pause(about: Subject, at: UnixMs, origin: String, until: UnixMs) -> Self {
        let (origin, reason) =
            (Some(origin), Some("the receiver requested a pause of the URL with `Retry-After`".to_owned()));
        let details = Details { run_at: Some(until), origin, reason, ..Details::default() };
        Self::new(EventKind::ReceiverPause, at, about, details)
    }

    /// Returns the fact that the circuit breaker of `origin` has closed. `about` is the group whose attempt closed it.
    #[must_use]
    pub fn breaker_close(about: Subject, at: UnixMs, origin: String) -> Self {
        Self::new(EventKind::BreakerClose, at, about, Details { origin: Some(origin), ..Details::default() })
    }

    /// Returns the fact that version `binding` of a group's policy was put in force.
    #[must_use]
    pub fn promote(about: Subject, at: UnixMs, binding: i64, reason: Option<String>) -> Self {
        Self::new(EventKind::Promote, at, about, Details { binding: Some(binding), reason, ..Details::default() })
    }

    /// Returns the fact that version `binding` of a group's policy is in force again.
    #[must_use]
    pub fn rollback(about: Subject, at: UnixMs, binding: i64, reason: Option<String>) -> Self {
        Self::new(EventKind::Rollback, at, about, Details { binding: Some(binding), reason, ..Details::default() })
    }

    /// Returns the fact that a policy of version `binding` failed too often, at last with the fault `error`, and is not called until `until`.
    #[must_use]
    pub fn quarantine(
        about: Subject,
        at: UnixMs,
        binding: i64,
        until: UnixMs,
        error: ErrorCode,
        reason: String,
    ) -> Self {
        let (error, reason) = (Some(FactCode::Error(error)), Some(reason));
        let details = Details { binding: Some(binding), run_at: Some(until), error, reason, ..Details::default() };
        Self::new(EventKind::Quarantine, at, about, details)
    }

    /// Returns the fact that the policies of a group, whose version `binding` is in force, are called again.
    #[must_use]
    pub fn unquarantine(about: Subject, at: UnixMs, binding: i64, reason: Option<String>) -> Self {
        Self::new(EventKind::Unquarantine, at, about, Details { binding: Some(binding), reason, ..Details::default() })
    }

    /// Returns the fact that the results of version `binding`, which runs in shadow, differ for an attempt.
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

    /// Returns the fact that an entry of the audit log was written. An entry of no tenant belongs to tenant 0, which nobody is.
    #[must_use]
    pub fn audit(entry: &AuditEntry) -> Self {
        let about = Subject::group(TenantId(entry.tenant_id()), NO_GROUP);
        let details = Details { audit: Some(Arc::new(entry.clone())), ..Details::default() };
        Self::new(EventKind::Audit, entry.at, about, details)
    }

    /// Estimates the memory that the event takes, in bytes.
    pub(super) fn size(&self) -> usize {
        let details = &self.details;
        let words = [&self.about.name, &details.reason, &details.schedule, &details.origin];
        let words = words.into_iter().flatten().map(String::len).sum::<usize>();
        let code = details.error.as_ref().map_or(0, |code| code.as_str().len());
        let label =
            |text: Text<'_>| LABEL_SIZE + text.namespace.map_or(0, str::len) + text.name.len() + text.value.len();
        let labels = self.about.metadata.texts().map(label);
        let audit = details.audit.as_ref().map_or(0, |entry| {
            let actor = [&entry.actor.token, &entry.actor.name, &entry.object.name, &entry.request_id];
            let texts = actor.into_iter().flatten().chain(&entry.changed).map(String::len).sum::<usize>();
            size_of::<AuditEntry>() + texts + entry.node.len()
        });
        size_of::<Event>() + words + code + labels.sum::<usize>() + audit
    }
}

/// Group of a fact that is about none.
const NO_GROUP: GroupId = GroupId(0);

/// Estimated memory of a label besides its text, in bytes.
const LABEL_SIZE: usize = 64;
