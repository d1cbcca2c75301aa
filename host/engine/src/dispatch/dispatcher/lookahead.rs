//! How far ahead of their time jobs are claimed, and how many.
//!
//! A claim is a transaction, whatever it takes: so the fewer there are, the better. But the jobs that it takes hold places until their time
//! has come, and a job that is accepted meanwhile and due at once may need one. So a claim looks far ahead only where nothing waits for a
//! place, and then it leaves half of them free.

use std::time::Duration;

/// Bounds how long a job that is due at once may wait behind others in a group whose places are all taken.
const NEAR: Duration = Duration::from_millis(25);

/// Bounds how long a job counts as running before it runs.
const FAR: Duration = Duration::from_millis(100);

/// What a claim takes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lookahead {
    /// Jobs that become due within this time.
    pub(super) time: Duration,
    /// Of so many free places it takes one at most.
    of: u32,
}

impl Lookahead {
    /// Where some jobs are late or none is, and there are so many free places: of each group, of each tenant, of the node.
    pub(super) fn new(late: bool, places: impl IntoIterator<Item = u32>) -> Self {
        let far = Self { time: FAR, of: 2 };
        match !late && places.into_iter().all(|places| far.part(places) > 0) {
            true => far,
            false => Self { time: NEAR, of: 1 },
        }
    }

    /// How many of these places it may take.
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
