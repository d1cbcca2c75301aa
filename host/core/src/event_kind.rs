//! The kinds of events.

/// The kinds of events, and their names in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A job was accepted.
    Push,
    /// An attempt begins, or a pull consumer got the job.
    Pop,
    /// A pull consumer found nothing.
    Empty,
    /// An attempt succeeded.
    Complete,
    /// The job's deadline passed.
    Expire,
    /// An attempt failed and another one is due.
    Retry,
    /// The job became a dead letter.
    Error,
    /// A job was left out, because a waiting job does its work.
    DebounceHit,
    /// A job with a debounce window was accepted.
    DebounceMiss,
    /// The record of a debounced job's key could not be read.
    DebounceError,
    /// A job was left out, because it had been accepted before.
    DedupeHit,
    /// The job could not be sent and waits; the attempt is not spent.
    Hold,
    /// The job was given back, and no attempt was spent.
    Release,
    /// A lease ended without a settlement.
    Interrupt,
    /// The job was cancelled.
    Cancel,
    /// The job was changed.
    Edit,
    /// The job's next attempt was moved.
    Reschedule,
    /// Dead letters got a second life.
    Redrive,
    /// Jobs were removed.
    Purge,
    /// A tick of a schedule made no job.
    Skip,
    /// A circuit breaker opened.
    BreakerOpen,
    /// A circuit breaker closed.
    BreakerClose,
    /// A receiver has asked for a pause of one of its URLs.
    ReceiverPause,
    /// Another version of a group's policy is in force.
    Promote,
    /// The previous version of a group's policy is in force again.
    Rollback,
    /// A policy failed too often, and is not called for a while.
    Quarantine,
    /// The policies of a group are called again.
    Unquarantine,
    /// A shadow version decided differently from the version in force.
    ShadowDifference,
    /// An entry of the audit log was written.
    Audit,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 29] = [
        Self::Push,
        Self::Pop,
        Self::Empty,
        Self::Complete,
        Self::Expire,
        Self::Retry,
        Self::Error,
        Self::DebounceHit,
        Self::DebounceMiss,
        Self::DebounceError,
        Self::DedupeHit,
        Self::Hold,
        Self::Release,
        Self::Interrupt,
        Self::Cancel,
        Self::Edit,
        Self::Reschedule,
        Self::Redrive,
        Self::Purge,
        Self::Skip,
        Self::BreakerOpen,
        Self::BreakerClose,
        Self::ReceiverPause,
        Self::Promote,
        Self::Rollback,
        Self::Quarantine,
        Self::Unquarantine,
        Self::ShadowDifference,
        Self::Audit,
    ];

    /// Returns the kind's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Pop => "pop",
            Self::Empty => "empty",
            Self::Complete => "complete",
            Self::Expire => "expire",
            Self::Retry => "retry",
            Self::Error => "error",
            Self::DebounceHit => "debounce_hit",
            Self::DebounceMiss => "debounce_miss",
            Self::DebounceError => "debounce_error",
            Self::DedupeHit => "dedupe_hit",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Interrupt => "interrupt",
            Self::Cancel => "cancel",
            Self::Edit => "edit",
            Self::Reschedule => "reschedule",
            Self::Redrive => "redrive",
            Self::Purge => "purge",
            Self::Skip => "skip",
            Self::BreakerOpen => "breaker_open",
            Self::BreakerClose => "breaker_close",
            Self::ReceiverPause => "receiver_pause",
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::Quarantine => "quarantine",
            Self::Unquarantine => "unquarantine",
            Self::ShadowDifference => "shadow_difference",
            Self::Audit => "audit",
        }
    }
}

impl std::str::FromStr for EventKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            format!("`{}` is not a kind of event; the kinds are {known}", text.escape_debug())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let names: std::collections::HashSet<_> = EventKind::ALL.map(EventKind::as_str).into();
        assert_eq!(names.len(), EventKind::ALL.len());
        for kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert!("nonsense".parse::<EventKind>().unwrap_err().contains("debounce_hit"));
    }
}
