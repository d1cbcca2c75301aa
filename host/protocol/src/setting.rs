//! Bounds of a model, and the mistakes that can be built into it.

/// Time, in ticks. A lease lasts a few of them.
pub type Time = u8;

/// Duration of a lease, in ticks.
pub const LEASE: Time = 3;

/// Period of the extension of leases: a third of their duration.
pub const EXTENSION_PERIOD: Time = LEASE / 3;

/// Look-ahead of a claim.
pub const LOOK_AHEAD: Time = 1;

/// Longest duration of an attempt: longer than a lease, so that leases must be extended.
pub const ATTEMPT_TIMEOUT: Time = LEASE + 1;

/// Delay between a failed attempt and the next one.
pub const RETRY_DELAY: Time = 1;

/// Longest time for which a node stands still: its leases are over by then, and another node can have taken one more lease.
pub const MAX_STALL: Time = LEASE + 2;

/// Longest time that a slow call takes to the store, and longest time that a slow response takes back.
pub const SLOW: Time = 1;

/// Longest time after which a call takes effect that its caller has given up.
pub const MAX_ORPHAN: Time = LEASE;

/// Time when the jobs are due at first. The model starts at 1, so that a claim can come ahead of it.
pub const FIRST_DUE: Time = 2;

/// Time at which the model stops. Without a mistake, all jobs have ended long before.
pub const HORIZON: Time = 60;

/// What may happen, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Number of jobs.
    pub jobs: usize,
    /// For each node, by how many ticks its clock is behind the store's.
    pub clocks_behind: Vec<Time>,
    /// Largest number of attempts of a job.
    pub attempts: u8,
    /// Faults that may happen.
    pub faults: Faults,
    /// Changes that a client may make, all jobs together.
    pub changes: u8,
    /// Mistake that is built in.
    pub mistake: Option<Mistake>,
}

/// Numbers of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// Nodes that lose their memory and start again.
    pub crashes: u8,
    /// Nodes that stand still while time passes.
    pub stalls: u8,
    /// Calls, or their responses, that take up to [`SLOW`].
    pub slow_calls: u8,
    /// Calls that their caller has given up: they take effect at once, up to [`MAX_ORPHAN`] later, or never.
    pub lost_calls: u8,
    /// Attempts that the receiver fails.
    pub failures: u8,
}

impl Setting {
    /// Returns a setting of one job and nodes with exact clocks, in which nothing goes wrong.
    #[must_use]
    pub fn calm(nodes: usize) -> Self {
        Self {
            jobs: 1,
            clocks_behind: vec![0; nodes],
            attempts: 4,
            faults: Faults::default(),
            changes: 0,
            mistake: None,
        }
    }

    /// Returns the setting with these faults.
    #[must_use]
    pub fn with(self, faults: Faults) -> Self {
        Self { faults, ..self }
    }

    /// Returns whether this mistake is built in.
    #[must_use]
    pub fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }
}

/// A mistake, each of which breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mistake {
    /// A settlement applies whatever its token is.
    SettlementIgnoresToken,
    /// A settlement applies whatever the job's state is.
    SettlementIgnoresState,
    /// What a node holds is keyed by the job and not by the lease.
    HoldsByJob,
    /// The rescuer takes back what its own node holds.
    RescueOfHeldLeases,
    /// The rescuer does not wait for claims that are under way before it compares expired leases with those held.
    RescueDuringClaim,
    /// A rescue does not check again that the lease has expired.
    RescueIgnoresExpiry,
    /// A rescue spends no attempt.
    RescueSpendsNothing,
    /// The next extension is a period after the response of the last one, however long that took.
    ExtensionPeriodFromResponse,
    /// Leases are not extended.
    NoExtension,
    /// A call that arrives late moves the end of a lease back.
    ExtensionMovesBack,
    /// The node takes a lease to last from the response of its claim.
    LeaseFromResponse,
    /// An attempt is sent when it is claimed.
    SendAtClaim,
    /// An attempt is sent without a look at its lease.
    SendWithoutCheck,
    /// The lease of an attempt that is late already is checked before the request is prepared and not after it.
    CheckBeforePreparing,
    /// The clock of one node is ahead of the store's.
    ClockAhead,
    /// A job that is released, unsent, spends an attempt.
    ReleaseSpendsAttempt,
    /// A cancel ends a running job at once.
    CancelEndsRunning,
    /// The node does not write a settlement again whose response was lost.
    SettlementIsNotRepeated,
    /// Nothing takes expired leases back.
    NoRescue,
    /// Leases are extended again and again, without a pause.
    ExtensionWithoutPause,
}

impl Mistake {
    /// All mistakes.
    pub const ALL: [Self; 20] = [
        Self::SettlementIgnoresToken,
        Self::SettlementIgnoresState,
        Self::HoldsByJob,
        Self::RescueOfHeldLeases,
        Self::RescueDuringClaim,
        Self::RescueIgnoresExpiry,
        Self::RescueSpendsNothing,
        Self::ExtensionPeriodFromResponse,
        Self::NoExtension,
        Self::ExtensionMovesBack,
        Self::LeaseFromResponse,
        Self::SendAtClaim,
        Self::SendWithoutCheck,
        Self::CheckBeforePreparing,
        Self::ClockAhead,
        Self::ReleaseSpendsAttempt,
        Self::CancelEndsRunning,
        Self::SettlementIsNotRepeated,
        Self::NoRescue,
        Self::ExtensionWithoutPause,
    ];
}
