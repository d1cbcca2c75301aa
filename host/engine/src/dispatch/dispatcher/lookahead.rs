//! Look-ahead of a claim: how far ahead of their time jobs are claimed, and how many.
//!
//! A claim is one transaction whatever its size, so fewer claims cost less. But claimed jobs hold permits until they are due, and a job that
//! is accepted meanwhile and due at once may need one. So a claim looks far ahead only where no due job waits for a permit, and then it
//! leaves half of the permits free.

use std::time::Duration;

/// Short look-ahead. Bounds how long a job that is due at once may wait behind others in a group without a free permit.
const NEAR: Duration = Duration::from_millis(25);

/// Long look-ahead. Bounds how long a job counts as running before it runs.
const FAR: Duration = Duration::from_millis(100);

/// Look-ahead window of a claim, and its part of the free capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lookahead {
    /// The claim also takes jobs that become due within this time.
    pub(super) window: Duration,
    /// Divides the free capacity: a claim takes at most 1/`divisor` of it.
    divisor: u32,
}

impl Lookahead {
    /// Chooses the look-ahead from whether jobs are late, and from the free permits of each group, of each tenant and of the node.
    pub(super) fn new(is_late: bool, free: impl IntoIterator<Item = u32>) -> Self {
        let far = Self { window: FAR, divisor: 2 };
        if !is_late && free.into_iter().all(|permits| far.part(permits) > 0) {
            far
        } else {
            Self { window: NEAR, divisor: 1 }
        }
    }

    /// Returns how many of these free permits the claim may use.
    pub(super) fn part(self, permits: u32) -> u32 {
        permits / self.divisor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_looks_far_ahead_where_it_leaves_permits_free() {
        let of = |is_late, free: &[u32]| {
            let ahead = Lookahead::new(is_late, free.iter().copied());
            (ahead.window, ahead.part(32))
        };
        assert_eq!(of(false, &[2, 32]), (FAR, 16));
        assert_eq!(of(false, &[32, 1]), (NEAR, 32), "half of one is none");
        assert_eq!(of(false, &[32, 0]), (NEAR, 32));
        assert_eq!(of(true, &[32, 32]), (NEAR, 32), "late jobs need all free permits");
    }
}
