//! Ids of tenants, groups and jobs, and the seeds of jobs.

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Clock;

/// Number of a tenant in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(pub i64);

/// Number of a group in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(pub i64);

/// Id of a job: a UUID of version 7, so that ids sort by the time of acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub Uuid);

/// Time of the newest id, and the number of earlier ids in that millisecond.
static NEWEST: Mutex<(i64, u32)> = Mutex::new((0, 0));

/// Bits of an id that count the ids of one millisecond: the 12 of `rand_a` and the first 14 of `rand_b`.
const COUNTER_BITS: u32 = 26;

impl JobId {
    /// Makes a new id, unique without coordination, and greater than every id that this process made before.
    ///
    /// So jobs that are accepted in one millisecond, or after the clock was set back, keep their order (RFC 9562, section 6.2, method 1).
    #[must_use]
    pub fn new(clock: &dyn Clock) -> Self {
        let mut random = [0; 10];
        clock.fill_random(&mut random);
        let (ms, count) = {
            let mut newest = NEWEST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let now = clock.now().0.max(0);
            *newest = match *newest {
                (ms, _) if ms < now => (now, 0),
                (ms, count) if count + 1 < 1 << COUNTER_BITS => (ms, count + 1),
                (ms, _) => (ms + 1, 0),
            };
            *newest
        };
        // The first four bits of each pair are overwritten by the version, and two by the variant.
        random[0..2].copy_from_slice(&((count >> 14) as u16).to_be_bytes());
        random[2..4].copy_from_slice(&((count & 0x3fff) as u16).to_be_bytes());
        let ms = u64::try_from(ms).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid())
    }
}

/// Returns a seed for the randomness of a new job's attempts.
#[must_use]
pub fn new_seed(clock: &dyn Clock) -> u32 {
    let mut seed = [0; 4];
    clock.fill_random(&mut seed);
    u32::from_le_bytes(seed)
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}
