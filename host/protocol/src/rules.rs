//! Rules that hold in every state.

/// A rule of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A lease is taken over only after it has expired: a job has one live lease at most, as the store sees it.
    OneLiveLease,
    /// No attempt is sent before its job is due, by the store's clock.
    NeverEarly,
    /// Nothing is sent under a lease that its node knows is over.
    NoSendUnderExpiredLease,
    /// Nothing is sent under a lease after the job was leased anew or has ended, except within the distance of the clocks.
    NoSendAfterTakeover,
    /// A settlement under an old token changes nothing.
    StaleSettlementChangesNothing,
    /// A job ends once.
    OneEnd,
    /// Attempts are recorded with the numbers 1, 2, 3, …
    NoGaps,
    /// No two requests of a job have the same attempt number.
    NumbersAreUnique,
    /// A node takes back nothing that it works on.
    NothingOwnTakenBack,
    /// A job is sent at most once, and once more for each crash, stall and failed attempt.
    FewSends,
}

impl Rule {
    /// All rules.
    pub const ALL: [Self; 10] = [
        Self::OneLiveLease,
        Self::NeverEarly,
        Self::NoSendUnderExpiredLease,
        Self::NoSendAfterTakeover,
        Self::StaleSettlementChangesNothing,
        Self::OneEnd,
        Self::NoGaps,
        Self::NumbersAreUnique,
        Self::NothingOwnTakenBack,
        Self::FewSends,
    ];

    /// Returns the rule as the name of a property.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OneLiveLease => "a lease is taken over only after it has expired",
            Self::NeverEarly => "no attempt is sent before its time",
            Self::NoSendUnderExpiredLease => "nothing is sent under a lease that the node knows is over",
            Self::NoSendAfterTakeover => "nothing is sent after the job was leased anew or has ended",
            Self::StaleSettlementChangesNothing => "a settlement under an old token changes nothing",
            Self::OneEnd => "a job ends once",
            Self::NoGaps => "attempt numbers have no gaps",
            Self::NumbersAreUnique => "no two requests have the same attempt number",
            Self::NothingOwnTakenBack => "a node takes back nothing that it works on",
            Self::FewSends => "a job is sent once, and once more for each crash, stall and failure",
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// The rules that were broken on the way to a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Broken(u16);

impl Broken {
    /// Records that a rule is broken unless it `holds`.
    pub fn check(&mut self, rule: Rule, holds: bool) {
        if !holds {
            self.0 |= rule.bit();
        }
    }

    /// Returns whether a rule was broken.
    #[must_use]
    pub fn has(self, rule: Rule) -> bool {
        self.0 & rule.bit() != 0
    }
}
