//! Pauses of URLs: a receiver asked for one with `Retry-After` on 429 or 503, and the group's jobs for that URL wait.
//!
//! A receiver may limit each of its URLs separately, so no other URL of its origin waits, and no other group. After the pause one attempt
//! passes as a probe; its result ends the pause or begins another. Waiting jobs come back one after the other ([`RetrySlots`]), and are
//! admitted in the order in which they came ([`Queue`]). A job that was admitted and refused by its receiver goes behind the others, so none
//! is first again and again.
//!
//! URLs without a pause take no memory, and [`MAX_PAUSES`] bounds the others: then the tenant that has the most pauses loses those that end first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use url::{Position, Url};

use super::retry_slots::{MAX_SERIES, Refusal, RetrySlots};
use super::tenant_table::{OfTenant, TenantTable};
use crate::delivery::send::Requester;
use carillon_config::Delivery;
use carillon_core::clock::UnixMs;
use carillon_core::job::{JobId, TenantId};

/// Largest number of known pauses.
const MAX_PAUSES: usize = 10_000;

/// Largest number of a pause's jobs whose order is kept. Further jobs go behind them, and join them when there is room.
const MAX_QUEUED: usize = 100;

/// Delay after which a job no longer blocks others: it may have been cancelled.
const GRACE: Duration = Duration::from_secs(1);

/// Longest URL that can have a pause, in bytes.
const URL_LEN: usize = 2_048;

/// Distance between the retry slots of waiting jobs.
const SPACING: Duration = Duration::from_millis(1);

/// Period in which the other jobs ask again while they wait for the first job after a pause, or for the result of its attempt.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long a pause is kept after its end, for the jobs that wait.
const IDLE_RETENTION: Duration = Duration::from_secs(60);

/// The pauses that a node knows.
pub(super) struct Pauses {
    /// Longest pause; `None` if pauses are disabled.
    longest: Option<Duration>,
    known: Mutex<TenantTable<Key, Pause>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    owner: Requester,
    url: String,
}

impl OfTenant for Key {
    fn tenant(&self) -> TenantId {
        self.owner.tenant
    }
}

struct Pause {
    until: UnixMs,
    /// Whether the probe after the pause is on its way.
    is_probed: bool,
    retry_slots: RetrySlots,
    queue: Queue,
}

/// Waiting jobs, in the order in which they came.
#[derive(Default)]
struct Queue {
    order: BTreeMap<u64, Waiting>,
    numbers: HashMap<JobId, u64>,
    next: u64,
}

#[derive(Clone, Copy)]
struct Waiting {
    job: JobId,
    back_at: UnixMs,
}

/// The right to make an attempt. Dropping it without [`Pass::finish`] counts as if nothing had been sent.
pub(super) struct Pass {
    pauses: Arc<Pauses>,
    /// The pause that the attempt probes; `None` if it is not the first after a pause.
    probe: Option<Key>,
}

impl Pauses {
    /// Creates the pauses from the `[delivery]` settings.
    pub(super) fn new(delivery: &Delivery) -> Self {
        let longest = (delivery.breaker_failures > 0).then_some(delivery.breaker_longest_pause.get());
        Self { longest, known: Mutex::new(TenantTable::new(MAX_PAUSES)) }
    }

    /// Creates pauses with this longest pause.
    #[cfg(test)]
    pub(super) fn with(longest: Duration) -> Self {
        Self { longest: Some(longest), known: Mutex::new(TenantTable::new(MAX_PAUSES)) }
    }

    /// Requests an attempt of a group's job for `url` now.
    ///
    /// # Errors
    /// Returns [`Refusal`] if the URL has a pause.
    pub(super) fn enter(
        self: &Arc<Self>,
        owner: Requester,
        url: Option<&Url>,
        job: JobId,
        now: UnixMs,
    ) -> Result<Pass, Refusal> {
        let mut pass = Pass { pauses: Arc::clone(self), probe: None };
        let Some(longest) = self.longest else { return Ok(pass) };
        let mut known = self.lock();
        // Usually there is no pause at all.
        let Some(key) = url.filter(|_| !known.is_empty()).and_then(|url| Key::new(owner, url)) else { return Ok(pass) };
        let Some(pause) = known.get_mut(&key) else { return Ok(pass) };
        // The pause exceeds this bound only if the clock has been set back.
        pause.until = pause.until.min(now.plus(longest));
        let retry_at = if pause.until > now {
            pause.until
        } else if pause.is_probed {
            now.plus(POLL_INTERVAL)
        } else if let Some(back_at) = pause.queue.first_before(job, now) {
            now.max(back_at).plus(POLL_INTERVAL)
        } else {
            pause.queue.leave(job);
            pause.is_probed = true;
            pass.probe = Some(key);
            return Ok(pass);
        };
        Err(Refusal { retry_at, spacing: SPACING })
    }

    /// Reserves the retry slot of a refused job, and records its position among those that wait.
    pub(super) fn reserve(&self, owner: Requester, url: Option<&Url>, job: JobId, refusal: Refusal) -> UnixMs {
        let mut known = self.lock();
        let pause = url.and_then(|url| Key::new(owner, url)).and_then(|key| known.get_mut(&key));
        // The pause may have ended since the refusal.
        let Some(pause) = pause else { return refusal.retry_at };
        let back_at = pause.retry_slots.reserve(refusal);
        pause.queue.wait(job, back_at);
        back_at
    }

    /// Begins a pause of `time` for the group's jobs for `url`, as the receiver asked. Returns the end of a new pause.
    pub(super) fn begin(&self, owner: Requester, url: &Url, time: Duration, now: UnixMs) -> Option<UnixMs> {
        let longest = self.longest.filter(|_| !time.is_zero())?;
        let key = Key::new(owner, url)?;
        let until = now.plus(time.min(longest));
        let mut known = self.lock();
        if let Some(pause) = known.get_mut(&key) {
            // The receiver's newest request counts if it is the longer one.
            pause.until = pause.until.max(until).min(now.plus(longest));
            return None;
        }
        if known.is_full() {
            known.retain(|pause| pause.is_needed(now, longest));
        }
        if known.is_full() {
            known.make_room(|pause| Some(pause.until));
        }
        let (retry_slots, queue) = (RetrySlots::default(), Queue::default());
        known.entry(key, || Pause { until, is_probed: false, retry_slots, queue });
        Some(until)
    }

    fn lock(&self) -> MutexGuard<'_, TenantTable<Key, Pause>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    /// Builds the key from scheme, host, port and path; `None` if they are too long.
    fn new(owner: Requester, url: &Url) -> Option<Self> {
        let [scheme, rest] = [&url[..Position::AfterScheme], &url[Position::BeforeHost..Position::AfterPath]];
        (scheme.len() + rest.len() <= URL_LEN).then(|| Self { owner, url: format!("{scheme}://{rest}") })
    }
}

impl Pause {
    /// Returns whether the pause is not over, or an attempt is certain to follow.
    fn is_needed(&self, now: UnixMs, longest: Duration) -> bool {
        self.until.plus(IDLE_RETENTION) > now && self.until <= now.plus(longest)
    }
}

impl Queue {
    /// Returns when the first waiting job comes back; `None` if that is `job`, or no job waits. Forgets jobs that did not come back.
    fn first_before(&mut self, job: JobId, now: UnixMs) -> Option<UnixMs> {
        while let Some(first) = self.order.first_entry() {
            let Waiting { job: first_job, back_at } = *first.get();
            if first_job == job {
                return None;
            }
            let is_late = back_at.plus(GRACE) <= now;
            // The clock was set back.
            let is_lost = back_at > now.plus(MAX_SERIES * 2);
            if !is_late && !is_lost {
                return Some(back_at);
            }
            first.remove();
            self.numbers.remove(&first_job);
        }
        None
    }

    /// Records when a job comes back. It keeps its position; a new job goes behind the others.
    fn wait(&mut self, job: JobId, back_at: UnixMs) {
        let number = match self.numbers.get(&job) {
            Some(number) => *number,
            None if self.numbers.len() >= MAX_QUEUED => return,
            None => self.next,
        };
        self.next = self.next.max(number + 1);
        self.numbers.insert(job, number);
        self.order.insert(number, Waiting { job, back_at });
    }

    fn leave(&mut self, job: JobId) {
        if let Some(number) = self.numbers.remove(&job) {
            self.order.remove(&number);
        }
    }
}

impl Pass {
    /// Ends the attempt, whose receiver responded and asked for this.
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

/// A receiver's request in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Nothing: the URL accepts requests.
    Nothing,
    /// A pause of the URL.
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
    use proptest::prelude::*;

    use super::*;
    use carillon_core::job::GroupId;

    const GROUP: Requester = of(1, 1);

    const fn of(tenant: i64, group: i64) -> Requester {
        Requester { tenant: TenantId(tenant), group: GroupId(group) }
    }
    const MAX_PAUSE: Duration = Duration::from_secs(300);
    const HERE: &str = "http://a/x";
    const PAUSE: Duration = Duration::from_secs(2);

    fn pauses() -> Arc<Pauses> {
        Arc::new(Pauses::with(MAX_PAUSE))
    }

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    fn job_id(number: u64) -> JobId {
        JobId(uuid::Uuid::from_u128(number.into()))
    }

    /// Requests an attempt, and reserves a retry slot if it is refused.
    fn enter_at(pauses: &Arc<Pauses>, text: &str, now: i64, job: u64) -> Result<Pass, UnixMs> {
        let (url, job) = (url(text), job_id(job));
        let entered = pauses.enter(GROUP, Some(&url), job, UnixMs(now));
        entered.map_err(|refusal| pauses.reserve(GROUP, Some(&url), job, refusal))
    }

    fn enter(pauses: &Arc<Pauses>, now: i64, job: u64) -> Result<Pass, UnixMs> {
        enter_at(pauses, HERE, now, job)
    }

    #[test]
    fn pause_holds_for_one_url_and_one_group() {
        let pauses = pauses();
        let until = pauses.begin(GROUP, &url("http://a/x?q=1"), PAUSE, UnixMs(0));
        assert_eq!(until, Some(UnixMs(2_000)));
        for same in ["http://a/x", "http://a:80/x?other", "http://user:secret@A/x#part"] {
            assert!(enter_at(&pauses, same, 0, 1).is_err(), "{same}");
        }
        for other in ["http://a/y", "http://a/x/", "https://a/x", "http://a:81/x", "http://b/x"] {
            assert!(enter_at(&pauses, other, 0, 1).is_ok(), "{other}");
        }
        assert!(pauses.enter(of(1, 2), Some(&url("http://a/x")), job_id(1), UnixMs(0)).is_ok());
        assert!(pauses.enter(GROUP, None, job_id(1), UnixMs(0)).is_ok(), "without a URL");
    }

    #[test]
    fn one_attempt_ends_the_pause_or_begins_another() {
        let pauses = pauses();
        pauses.begin(GROUP, &url(HERE), PAUSE, UnixMs(0));
        assert_eq!(enter(&pauses, 5, 1).err(), Some(UnixMs(2_000)));
        let probe = enter(&pauses, 2_000, 1).ok().unwrap();
        assert_eq!(enter(&pauses, 2_001, 2).err(), Some(UnixMs(3_001)));
        assert_eq!(pauses.begin(GROUP, &url(HERE), PAUSE * 2, UnixMs(2_100)), None, "it goes on");
        probe.finish(Asks::ForAPause);
        assert!(enter(&pauses, 6_099, 2).err().unwrap() >= UnixMs(6_100));
        enter(&pauses, 6_200, 2).ok().unwrap().finish(Asks::Nothing);
        assert!(pauses.lock().is_empty());
        assert!((0..10).all(|job| enter(&pauses, 6_200, job).is_ok()));
    }

    #[test]
    fn attempt_that_is_not_made_is_followed_by_another() {
        let pauses = pauses();
        pauses.begin(GROUP, &url(HERE), PAUSE, UnixMs(0));
        drop(enter(&pauses, 2_000, 1).ok().unwrap());
        assert!(enter(&pauses, 2_000, 2).is_ok());
    }

    #[test]
    fn refusal_alone_reserves_no_retry_slot() {
        let pauses = pauses();
        pauses.begin(GROUP, &url(HERE), PAUSE, UnixMs(0));
        assert!(pauses.enter(GROUP, Some(&url(HERE)), job_id(1), UnixMs(1_990)).is_err());
        assert!(enter(&pauses, 2_000, 2).is_ok());
    }

    #[test]
    fn retry_slot_is_at_once_where_the_pause_has_ended() {
        let pauses = pauses();
        pauses.begin(GROUP, &url(HERE), PAUSE, UnixMs(0));
        let probe = enter(&pauses, 2_000, 1).ok().unwrap();
        let refusal = pauses.enter(GROUP, Some(&url(HERE)), job_id(2), UnixMs(2_001)).err().unwrap();
        probe.finish(Asks::Nothing);
        assert_eq!(pauses.reserve(GROUP, Some(&url(HERE)), job_id(2), refusal), refusal.retry_at);
        assert!(pauses.lock().is_empty());
    }

    #[test]
    fn those_who_never_come_back_hold_nobody_up() {
        let pauses = pauses();
        pauses.begin(GROUP, &url(HERE), PAUSE, UnixMs(0));
        for job in 0..1_000 {
            assert!(enter(&pauses, 0, job).is_err());
        }
        let (mut at, mut asked) = (2_000, 0);
        while let Err(again) = enter(&pauses, at, 1_000) {
            assert!(again > UnixMs(at));
            (at, asked) = (again.0, asked + 1);
        }
        assert!(at <= 6_000 && asked <= 4, "{at} {asked}");
        assert!(pauses.lock().values().all(|pause| pause.queue.order.len() <= MAX_QUEUED));
    }

    #[test]
    fn pauses_are_bounded_in_length_and_number() {
        let pauses = pauses();
        pauses.begin(GROUP, &url("http://a/"), Duration::MAX, UnixMs(0));
        let enter = |now| enter_at(&pauses, "http://a/", now, 1).err().unwrap();
        assert_eq!(enter(0), UnixMs(0).plus(MAX_PAUSE));
        assert!(enter(-1_000_000) <= UnixMs(-1_000_000).plus(MAX_PAUSE * 2));
        pauses.begin(of(2, 2), &url("http://b/"), Duration::from_secs(1), UnixMs(0));
        for n in 0..MAX_PAUSES + 10 {
            pauses.begin(GROUP, &url(&format!("http://a/{n}")), Duration::from_secs(1), UnixMs(0));
        }
        assert!(pauses.lock().len() <= MAX_PAUSES);
        assert!(
            pauses.enter(of(2, 2), Some(&url("http://b/")), job_id(1), UnixMs(0)).is_err(),
            "it has less than others"
        );
        assert!(enter_at(&pauses, &format!("http://a/{MAX_PAUSES}"), 0, 1).is_err(), "the newest is kept");
        for n in (0..).take_while(|_| !pauses.lock().is_full()) {
            pauses.begin(GROUP, &url(&format!("http://a/more/{n}")), Duration::from_secs(1), UnixMs(0));
        }
        let later = UnixMs(0).plus(MAX_PAUSE).plus(IDLE_RETENTION * 2);
        assert!(pauses.begin(GROUP, &url("http://a/new"), Duration::from_secs(1), later).is_some());
        assert_eq!(pauses.lock().len(), 1);
        assert_eq!(pauses.begin(GROUP, &url("http://a/zero"), Duration::ZERO, later), None);
        let long = url(&format!("http://a/{}", "x".repeat(URL_LEN)));
        assert_eq!(pauses.begin(GROUP, &long, MAX_PAUSE, later), None);
    }

    /// Jobs that are refused by their receiver whenever they are admitted, and ask at their retry slots.
    struct Refused {
        pauses: Arc<Pauses>,
        /// Time at which each job asks next.
        asks_at: [UnixMs; 5],
        /// Number of admissions since each job's own.
        waited: [u32; 5],
        under_way: Option<(usize, Pass)>,
    }

    impl Refused {
        fn new() -> Self {
            let pauses = pauses();
            pauses.begin(GROUP, &url(HERE), PAUSE, UnixMs(0));
            Self { pauses, asks_at: [UnixMs(0); 5], waited: [0; 5], under_way: None }
        }

        /// Has the due jobs ask, in this order; the admitted job gets its response at the next step.
        fn step(&mut self, now: i64, order: &[usize]) {
            if let Some((job, pass)) = self.under_way.take() {
                self.pauses.begin(GROUP, &url(HERE), PAUSE, UnixMs(now));
                pass.finish(Asks::ForAPause);
                self.asks_at[job] = UnixMs(now).plus(PAUSE);
            }
            for &job in order {
                if self.asks_at[job] > UnixMs(now) {
                    continue;
                }
                match enter(&self.pauses, now, job as u64) {
                    Ok(pass) => {
                        self.asks_at[job] = UnixMs::MAX;
                        self.waited.iter_mut().for_each(|waited| *waited += 1);
                        self.waited[job] = 0;
                        self.under_way = Some((job, pass));
                    }
                    Err(at) => self.asks_at[job] = at,
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_job_is_let_in_twice_while_another_waits_for_its_turn(
            steps in prop::collection::vec((1_i64..600, Just([0, 1, 2, 3, 4]).prop_shuffle()), 100..400),
        ) {
            let (mut refused, mut now) = (Refused::new(), 0);
            for (time, order) in steps {
                now += time;
                refused.step(now, &order);
                prop_assert!(refused.waited.iter().all(|waited| *waited <= 4), "{:?}", refused.waited);
            }
        }
    }
}
