//! URLs whose receiver has asked for a pause, with `Retry-After` on 429 or 503: the jobs of that group for that URL wait.
//!
//! A receiver may limit each of its URLs by itself, so nothing else of its origin waits, and no other group. When the pause is over, one
//! attempt passes; what comes of it ends the pause or begins another. Those that wait come back one after the other ([`Line`]), and a job
//! that is not among them goes behind them: the one that was refused cannot be the first again and again.
//!
//! URLs without a pause take no memory, and [`MAX_PAUSES`] bounds the others: past it, further ones are not waited for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use url::{Position, Url};

use super::line::{Line, Turn, Waits};
use carillon_config::Delivery;
use carillon_core::clock::UnixMs;
use carillon_core::job::GroupId;

/// The most pauses that are known.
const MAX_PAUSES: usize = 10_000;

/// The longest URL that can have a pause, in bytes.
const URL_LEN: usize = 2_048;

/// The distance between those that wait.
const STEP: Duration = Duration::from_millis(1);

/// How long the others wait for what comes of the first attempt after a pause, before they look again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long a pause that is over is known for those that wait.
const FORGET: Duration = Duration::from_secs(60);

/// The pauses that a node knows.
pub(super) struct Pauses {
    /// None if they are off.
    longest: Option<Duration>,
    known: Mutex<HashMap<Key, Pause>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    group: GroupId,
    url: String,
}

struct Pause {
    until: UnixMs,
    /// Whether the first attempt after it is under way.
    is_probed: bool,
    line: Line,
}

/// The right to make an attempt. If it is dropped without [`Pass::finish`], as if nothing had been sent.
pub(super) struct Pass {
    pauses: Arc<Pauses>,
    /// None if it is not the first one after a pause.
    probe: Option<Key>,
}

impl Pauses {
    /// As `[delivery]` says.
    pub(super) fn new(delivery: &Delivery) -> Self {
        let longest = (delivery.breaker_failures > 0).then_some(delivery.breaker_longest_pause.get());
        Self { longest, known: Mutex::default() }
    }

    /// With this longest pause.
    #[cfg(test)]
    pub(super) fn with(longest: Duration) -> Self {
        Self { longest: Some(longest), known: Mutex::default() }
    }

    /// Asks for an attempt of a group's job for `url` now.
    ///
    /// # Errors
    /// Returns the time at which to ask again, if the URL has a pause.
    pub(super) fn enter(
        self: &Arc<Self>,
        group: GroupId,
        url: Option<&Url>,
        now: UnixMs,
        (turn, waits): (Turn, Waits),
    ) -> Result<Pass, UnixMs> {
        let mut pass = Pass { pauses: Arc::clone(self), probe: None };
        let Some(longest) = self.longest else { return Ok(pass) };
        let mut known = self.lock();
        // Most of the time there is none at all.
        let Some(key) = url.filter(|_| !known.is_empty()).and_then(|url| Key::new(group, url)) else { return Ok(pass) };
        let Some(pause) = known.get_mut(&key) else { return Ok(pass) };
        // It is never further away than that, unless the clock has been set back.
        pause.until = pause.until.min(now.plus(longest));
        let first = if pause.until > now {
            pause.until
        } else if pause.is_probed {
            now.plus(LOOK_AGAIN)
        } else if pause.line.is_before(turn, now) {
            now.plus(STEP)
        } else {
            pause.line.leave(turn);
            pause.is_probed = true;
            pass.probe = Some(key);
            return Ok(pass);
        };
        Err(pause.line.wait(first, STEP, turn, waits))
    }

    /// The receiver has asked that the group's jobs for `url` wait for `time`. Returns the end of a pause that begins.
    pub(super) fn begin(&self, group: GroupId, url: &Url, time: Duration, now: UnixMs) -> Option<UnixMs> {
        let longest = self.longest.filter(|_| !time.is_zero())?;
        let key = Key::new(group, url)?;
        let until = now.plus(time.min(longest));
        let mut known = self.lock();
        if let Some(pause) = known.get_mut(&key) {
            // The receiver's newest word counts if it is the longer one.
            pause.until = pause.until.max(until).min(now.plus(longest));
            return None;
        }
        if known.len() >= MAX_PAUSES {
            known.retain(|_, pause| pause.is_needed(now, longest));
        }
        if known.len() >= MAX_PAUSES {
            return None;
        }
        known.insert(key, Pause { until, is_probed: false, line: Line::default() });
        Some(until)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Pause>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    /// Scheme, host, port and path; none if that is too long.
    fn new(group: GroupId, url: &Url) -> Option<Self> {
        let [scheme, rest] = [&url[..Position::AfterScheme], &url[Position::BeforeHost..Position::AfterPath]];
        (scheme.len() + rest.len() <= URL_LEN).then(|| Self { group, url: format!("{scheme}://{rest}") })
    }
}

impl Pause {
    /// Whether it is not over, or somebody is sure to ask.
    fn is_needed(&self, now: UnixMs, longest: Duration) -> bool {
        self.until.plus(FORGET) > now && self.until <= now.plus(longest)
    }
}

impl Pass {
    /// The attempt was answered, and the receiver asked for this.
    pub(super) fn finish(mut self, asks: Asks) {
        let Some(key) = self.probe.take() else { return };
        let mut known = self.pauses.lock();
        match asks {
            Asks::Nothing => {
                known.remove(&key);
            }
            Asks::ForAPause => {
                if let Some(pause) = known.get_mut(&key) {
                    pause.is_probed = false;
                }
            }
        }
    }
}

/// What a receiver asks for in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Nothing: the URL takes requests.
    Nothing,
    /// To be left alone.
    ForAPause,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Some(key) = self.probe.take() else { return };
        if let Some(pause) = self.pauses.lock().get_mut(&key) {
            pause.is_probed = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(1);
    const LONGEST: Duration = Duration::from_secs(300);
    const NEW: (Turn, Waits) = (Turn::New, Waits::InLine);
    const BACK: (Turn, Waits) = (Turn::Back, Waits::InLine);

    fn pauses() -> Arc<Pauses> {
        Arc::new(Pauses::with(LONGEST))
    }

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    fn enter(pauses: &Arc<Pauses>, text: &str, now: i64, turn: (Turn, Waits)) -> Result<Pass, UnixMs> {
        pauses.enter(GROUP, Some(&url(text)), UnixMs(now), turn)
    }

    #[test]
    fn pause_holds_for_one_url_and_one_group() {
        let pauses = pauses();
        let until = pauses.begin(GROUP, &url("http://a/x?q=1"), Duration::from_secs(2), UnixMs(0));
        assert_eq!(until, Some(UnixMs(2_000)));
        for same in ["http://a/x", "http://a:80/x?other", "http://user:secret@A/x#part"] {
            assert!(enter(&pauses, same, 0, NEW).is_err(), "{same}");
        }
        for other in ["http://a/y", "http://a/x/", "https://a/x", "http://a:81/x", "http://b/x"] {
            assert!(enter(&pauses, other, 0, NEW).is_ok(), "{other}");
        }
        assert!(pauses.enter(GroupId(2), Some(&url("http://a/x")), UnixMs(0), NEW).is_ok());
        assert!(pauses.enter(GROUP, None, UnixMs(0), NEW).is_ok(), "without a URL");
    }

    #[test]
    fn one_attempt_ends_the_pause_or_begins_another() {
        let (pauses, here) = (pauses(), "http://a/x");
        pauses.begin(GROUP, &url(here), Duration::from_secs(2), UnixMs(0));
        assert_eq!(enter(&pauses, here, 5, NEW).err(), Some(UnixMs(2_000)));
        let probe = enter(&pauses, here, 2_000, BACK).ok().unwrap();
        assert_eq!(enter(&pauses, here, 2_001, NEW).err(), Some(UnixMs(3_001)));
        assert_eq!(pauses.begin(GROUP, &url(here), Duration::from_secs(4), UnixMs(2_100)), None, "it goes on");
        probe.finish(Asks::ForAPause);
        assert!(enter(&pauses, here, 6_099, BACK).err().unwrap() >= UnixMs(6_100));
        enter(&pauses, here, 6_200, BACK).ok().unwrap().finish(Asks::Nothing);
        assert!(pauses.lock().is_empty());
        assert!((0..10).all(|_| enter(&pauses, here, 6_200, NEW).is_ok()));
    }

    #[test]
    fn attempt_that_is_not_made_is_followed_by_another() {
        let (pauses, here) = (pauses(), "http://a/x");
        pauses.begin(GROUP, &url(here), Duration::from_secs(2), UnixMs(0));
        drop(enter(&pauses, here, 2_000, NEW).ok().unwrap());
        assert!(enter(&pauses, here, 2_000, NEW).is_ok());
    }

    #[test]
    fn job_that_is_refused_goes_behind_those_that_wait() {
        let (pauses, here) = (pauses(), "http://a/x");
        let pause = Duration::from_secs(2);
        pauses.begin(GROUP, &url(here), pause, UnixMs(0));
        // Three jobs wait; the one that was refused comes back at the very end of the pause, before them.
        let mut waiting: Vec<UnixMs> = (1..4).map(|at| enter(&pauses, here, at, NEW).err().unwrap()).collect();
        let (mut now, mut served) = (UnixMs(2_000), Vec::new());
        let mut refused = enter(&pauses, here, now.0, NEW).err().expect("it goes behind the others");
        assert!(waiting.iter().all(|at| *at < refused), "{refused} {waiting:?}");
        // Each pause lets one of them in, who is refused and has nothing to come back for.
        while !waiting.is_empty() {
            now = now.max(*waiting.iter().min().unwrap());
            let mut later = Vec::new();
            for at in std::mem::take(&mut waiting) {
                match enter(&pauses, here, now.0, BACK) {
                    Ok(pass) => {
                        pauses.begin(GROUP, &url(here), pause, now);
                        pass.finish(Asks::ForAPause);
                        served.push(at);
                    }
                    Err(at) => later.push(at),
                }
            }
            waiting = later;
            if refused <= now {
                refused = enter(&pauses, here, now.0, BACK).err().expect("its turn is after theirs");
            }
        }
        assert_eq!(served.len(), 3);
        assert!(enter(&pauses, here, now.plus(pause * 2).0, BACK).is_ok(), "and then it is let in");
    }

    #[test]
    fn those_who_never_come_back_hold_nobody_up() {
        let (pauses, here) = (pauses(), "http://a/x");
        pauses.begin(GROUP, &url(here), Duration::from_secs(2), UnixMs(0));
        for at in 0..100 {
            assert!(enter(&pauses, here, at, NEW).is_err());
        }
        // One that comes now goes behind them once, and is let in when it comes back.
        let at = enter(&pauses, here, 2_000, NEW).err().unwrap();
        assert!(at > UnixMs(2_000) && at < UnixMs(5_000), "{at}");
        assert!(enter(&pauses, here, at.0, BACK).is_ok());
    }

    #[test]
    fn pauses_are_bounded_in_length_and_number() {
        let pauses = pauses();
        pauses.begin(GROUP, &url("http://a/"), Duration::MAX, UnixMs(0));
        assert_eq!(enter(&pauses, "http://a/", 0, NEW).err(), Some(UnixMs(0).plus(LONGEST)));
        assert!(enter(&pauses, "http://a/", -1_000_000, NEW).err().unwrap() <= UnixMs(-1_000_000).plus(LONGEST * 2));
        for n in 0..MAX_PAUSES + 10 {
            pauses.begin(GROUP, &url(&format!("http://a/{n}")), Duration::from_secs(1), UnixMs(0));
        }
        assert_eq!(pauses.lock().len(), MAX_PAUSES);
        let later = UnixMs(0).plus(LONGEST).plus(FORGET * 2);
        assert!(pauses.begin(GROUP, &url("http://a/new"), Duration::from_secs(1), later).is_some());
        assert_eq!(pauses.lock().len(), 1);
        assert_eq!(pauses.begin(GROUP, &url("http://a/zero"), Duration::ZERO, later), None);
        let long = url(&format!("http://a/{}", "x".repeat(URL_LEN)));
        assert_eq!(pauses.begin(GROUP, &long, LONGEST, later), None);
    }
}
