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

/// Look-ahead time of a claim, and its part of the free capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lookahead {
    /// The claim also takes jobs that become due within this time.
    pub(super) time: Duration,
    /// Divides the free capacity: a claim takes at most 1/`of` of it.
    of: u32,
}

impl Lookahead {
    /// Chooses the look-ahead from whether jobs are late, and from the free permits of each group, of each tenant and of the node.
    pub(super) fn new(late: bool, places: impl IntoIterator<Item = u32>) -> Self {
        let far = Self { time: FAR, of: 2 };
        if !late && places.into_iter().all(|places| far.part(places) > 0) { far } else { Self { time: NEAR, of: 1 } }
    }

    /// Returns how many of these free permits the claim may use.
    pub(super) fn part(self, places: u32) -> u32 {
        places / self.of
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_looks_far_ahead_where_it_leaves_places_free() {
        let of = |late, places: &[u32]| {
            let ahead = Lookahead::new(late, places.iter().copied());
            (ahead.time, ahead.part(32))
        };
        assert_eq!(of(false, &[2, 32]), (FAR, 16));
        assert_eq!(of(false, &[32, 1]), (NEAR, 32), "half of one is none");
        assert_eq!(of(false, &[32, 0]), (NEAR, 32));
        assert_eq!(of(true, &[32, 32]), (NEAR, 32), "what is late needs all that is free");
    }
}
