//! Result of one housekeeping round: how much each step removed, and which steps failed.
//!
//! A step that fails is logged and does not prevent the other steps. The round fails only if no step succeeded.

use std::time::Duration;

use super::StoreError;

/// Shortest time for which a deleted tenant stays known, so that nodes that have not seen the deletion write nothing that belongs to it.
pub const TENANT_KEPT: Duration = Duration::from_secs(60);

/// One housekeeping round.
#[derive(Debug)]
pub struct Housekeeping {
    limit: u64,
    jobs: u64,
    rest: u64,
    succeeded: bool,
    failed: Option<StoreError>,
}

impl Housekeeping {
    /// Begins a round that removes at most `limit` jobs.
    pub fn new(limit: u32) -> Self {
        Self { limit: u64::from(limit), jobs: 0, rest: 0, succeeded: false, failed: None }
    }

    /// Returns how many more jobs the round may remove.
    pub fn left(&self) -> i64 {
        i64::try_from(self.limit.saturating_sub(self.jobs)).unwrap_or(i64::MAX)
    }

    /// Records a step that removes jobs.
    pub fn jobs(&mut self, step: &'static str, removed: Result<u64, StoreError>) {
        self.jobs += self.record(step, removed);
    }

    /// Records a step that removes other rows.
    pub fn rest(&mut self, step: &'static str, removed: Result<u64, StoreError>) {
        self.rest += self.record(step, removed);
    }

    fn record(&mut self, step: &'static str, removed: Result<u64, StoreError>) -> u64 {
        match removed {
            Ok(removed) => {
                self.succeeded = true;
                removed
            }
            Err(error) => {
                tracing::error!(step, %error, "housekeeping step failed");
                self.failed.get_or_insert(error);
                0
            }
        }
    }

    /// Returns the number of removed rows.
    ///
    /// # Errors
    /// Returns the first step's error if every step failed.
    pub fn finish(self) -> Result<u32, StoreError> {
        match self.failed {
            Some(error) if !self.succeeded => Err(error),
            _ => Ok(u32::try_from(self.jobs + self.rest).unwrap_or(u32::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> Result<u64, StoreError> {
        Err(StoreError::Unavailable(text.to_owned()))
    }

    #[test]
    fn one_step_that_fails_leaves_the_others_and_the_limit_as_they_are() {
        let mut round = Housekeeping::new(10);
        round.jobs("one", Ok(4));
        round.jobs("two", failure("two"));
        assert_eq!(round.left(), 6);
        round.rest("three", Ok(3));
        assert_eq!(round.left(), 6);
        assert_eq!(round.finish(), Ok(7));
    }

    #[test]
    fn a_round_of_failures_fails_with_the_first() {
        let mut round = Housekeeping::new(10);
        round.jobs("one", failure("one"));
        round.rest("two", failure("two"));
        assert_eq!(round.finish(), failure("one").map(|_| 0));
    }
}
