//! Warnings about a schedule that was changed: what it does, and its author may not expect.

use std::time::Duration;

use super::super::ApiState;
use super::simulate::{FAILURE_STATUS, leased, plan_of};
use carillon_catalog::Schedule;
use carillon_core::clock::UnixMs;
use carillon_core::duration;
use carillon_core::job::Overlap;
use carillon_engine::delivery::simulate::simulated_answer;
use carillon_engine::intake::ValidationCache;

/// Number of coming runs whose distances are looked at.
const RUNS: usize = 32;

/// Number of failed attempts that are simulated at most.
const FAILURES: usize = 100;

/// Returns the warnings about a schedule.
pub(super) async fn warnings(api: &ApiState, schedule: &Schedule) -> Vec<String> {
    long_retries(api, schedule).await.into_iter().collect()
}

/// Warns of retries that last longer than the time to the next run, which then makes no job.
async fn long_retries(api: &ApiState, schedule: &Schedule) -> Option<String> {
    if schedule.spec.overlap != Overlap::Skip {
        return None;
    }
    let now = api.services.clock.now();
    let period = shortest_period(schedule, now)?;
    // A schedule whose job cannot be made is shown as broken.
    let job = api.intake.job_of(schedule.tenant, &schedule.spec, &mut ValidationCache::within(None)).await;
    let (group, job) = job.ok().filter(|(_, job)| job.spec.target.is_some())?;
    let plan = plan_of(api, &group, &job).await.ok()?;
    let failure = simulated_answer(FAILURE_STATUS, Vec::new(), bytes::Bytes::new());
    let retried = api.executor.retried_after(&group, &plan, leased(job), &failure, now.plus(period), FAILURES).await?;
    let (after, period) = (duration::format(retried.since(now)), duration::format(period));
    Some(format!(
        "a run that fails is still tried again after {after}, and the next run is due after {period}: it makes no job while an earlier one is \
         unfinished (`overlap` is `skip`)"
    ))
}

/// Returns the shortest time between two of the coming runs; `None` if fewer than two are to come.
fn shortest_period(schedule: &Schedule, now: UnixMs) -> Option<Duration> {
    let runs: Vec<_> = schedule.timetable.as_ref().ok()?.after(now).take(RUNS).collect();
    runs.windows(2).filter_map(|pair| Some(pair.get(1)?.since(*pair.first()?))).min()
}
