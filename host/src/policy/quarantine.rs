//! Stops calling a policy that keeps failing, so that a broken plugin costs its own group a pause and nobody any CPU.
//!
//! What is quarantined is a component *with* a config: the same component under another config goes on.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::fault::{Blame, Fault, FaultCode};
use super::plugin::Digest;
use crate::clock::UnixMs;

/// The most (component, config) pairs that are watched at once; a new one past that is not watched.
const WATCHED: usize = 10_000;

/// A component under a config.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Suspect {
    /// The component.
    pub plugin: Digest,
    /// The config, by its digest.
    pub config: Digest,
}

/// When a policy is quarantined, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// So many faults ...
    pub threshold: u32,
    /// ... within this time ...
    pub window: Duration,
    /// ... keep it from being called for this long.
    pub period: Duration,
}

/// The faults of the recent past.
pub struct Quarantine {
    rules: Rules,
    watched: Mutex<HashMap<Suspect, Record>>,
}

#[derive(Default)]
struct Record {
    faults: VecDeque<UnixMs>,
    until: Option<UnixMs>,
}

impl Quarantine {
    /// Nothing is quarantined at first.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules, watched: Mutex::default() }
    }

    /// Whether the policy may be called.
    ///
    /// # Errors
    /// [`FaultCode::Quarantined`].
    pub fn admit(&self, suspect: &Suspect, now: UnixMs) -> Result<(), Fault> {
        match self.until(suspect, now) {
            None => Ok(()),
            Some(until) => Err(Fault {
                code: FaultCode::Quarantined,
                blame: Blame::Policy,
                message: format!("the policy failed too often and is not called until {until}"),
            }),
        }
    }

    /// The end of the quarantine, if there is one.
    #[must_use]
    pub fn until(&self, suspect: &Suspect, now: UnixMs) -> Option<UnixMs> {
        // Longer than a period from now it cannot be, unless the clock has been set back.
        let latest = now.plus(self.rules.period);
        self.lock().get(suspect)?.until.filter(|until| *until > now && *until <= latest)
    }

    /// Counts a fault. True if it was the one too many.
    pub fn report(&self, suspect: &Suspect, now: UnixMs) -> bool {
        let mut watched = self.lock();
        if watched.len() >= WATCHED {
            let horizon = now.minus(self.rules.window);
            watched.retain(|_, record| record.is_live(now, horizon));
        }
        if watched.len() >= WATCHED && !watched.contains_key(suspect) {
            return false;
        }
        let record = watched.entry(suspect.clone()).or_default();
        record.faults.push_back(now);
        while record.faults.front().is_some_and(|at| now.since(*at) > self.rules.window) {
            record.faults.pop_front();
        }
        if record.faults.len() < usize::try_from(self.rules.threshold).unwrap_or(usize::MAX) {
            return false;
        }
        record.faults.clear();
        record.until = Some(now.plus(self.rules.period));
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Suspect, Record>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn is_live(&self, now: UnixMs, horizon: UnixMs) -> bool {
        self.until.is_some_and(|until| until > now) || self.faults.back().is_some_and(|at| *at >= horizon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quarantine() -> Quarantine {
        let rules = Rules { threshold: 3, window: Duration::from_secs(60), period: Duration::from_secs(300) };
        Quarantine::new(rules)
    }

    fn suspect(config: &str) -> Suspect {
        Suspect { plugin: Digest::of(b"plugin"), config: Digest::of(config.as_bytes()) }
    }

    #[test]
    fn the_third_fault_in_the_window_is_one_too_many() {
        let quarantine = quarantine();
        assert!(!quarantine.report(&suspect("a"), UnixMs(0)));
        assert!(!quarantine.report(&suspect("a"), UnixMs(1_000)));
        assert!(quarantine.report(&suspect("a"), UnixMs(60_000)));
        assert!(quarantine.admit(&suspect("a"), UnixMs(359_999)).is_err());
        assert!(quarantine.admit(&suspect("b"), UnixMs(60_001)).is_ok(), "another config is not concerned");
        assert!(quarantine.admit(&suspect("a"), UnixMs(360_000)).is_ok());
    }

    #[test]
    fn faults_that_are_far_apart_do_not_add_up() {
        let quarantine = quarantine();
        assert!((0..20).all(|n| !quarantine.report(&suspect("a"), UnixMs(n * 31_000))));
    }
}
