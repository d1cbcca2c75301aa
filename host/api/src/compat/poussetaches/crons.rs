//! Crons: schedules whose runs wait for each other, and are all made up for when they were missed.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sha1::{Digest as _, Sha1};

use super::super::Call;
use super::super::refusal::Refusal;
use super::{Asked, SCHEDULE, robfig};
use crate::error::Problem;
use crate::v1::schedules::{MAX_CATCH_UP, put_schedule};
use carillon_catalog::{Schedule, ScheduleSpec};
use carillon_core::clock::UnixMs;
use carillon_core::job::{Job, Overlap};
use carillon_store::JobChange;

/// Whose local time is meant if none is configured: [`ApiState`](crate::ApiState) is made with the machine's, where that has a name.
const UTC: &str = "UTC";

/// The most waiting runs that are cancelled with their cron.
const RUNS: u32 = 10_000;

impl Call {
    /// Makes a cron, unless it is there.
    pub(super) async fn push_cron(&self, asked: &Asked) -> Result<String, Refusal> {
        let bad = |error: String| Refusal::bad(format!("`schedule`: {error}"));
        let cron = robfig::translated(&asked.schedule).map_err(bad)?;
        let id = id_of(asked);
        self.group().await?;
        if self.api.services.catalog.schedule(self.access.tenant.id, &id).is_some() {
            return Ok(id);
        }
        let now = self.api.services.clock.now();
        let delayed = UnixMs(now.0 + i64::from(asked.delay_minutes) * 60_000);
        // The periods of `@every` begin with whole seconds.
        let anchor = UnixMs(delayed.0.div_euclid(1_000) * 1_000);
        let mut spec = ScheduleSpec {
            group: self.group_name().to_owned(),
            cron,
            time_zone: self.time_zone(),
            start: None,
            end: None,
            max_runs: None,
            jitter: Duration::ZERO,
            overlap: Overlap::Queue,
            catch_up: MAX_CATCH_UP,
            catch_up_all: true,
            job: asked.job(json!({SCHEDULE: asked.schedule})).to_string(),
        };
        let timetable = spec.timetable(anchor).map_err(|error| bad(error.message))?;
        // The first run is the first of the cron's times after the delay.
        let first = timetable.after(delayed).next().ok_or_else(|| bad("it never matches".to_owned()))?;
        spec.start = Some(first);
        match put_schedule(&self.api, &self.access, &id, spec, None).await {
            // Somebody else has just made the same one.
            Err(problem) if problem.status() == StatusCode::CONFLICT => return Ok(id),
            put => put?,
        };
        Ok(id)
    }

    fn time_zone(&self) -> String {
        self.api.config.compat.poussetaches.time_zone.clone().unwrap_or_else(|| UTC.to_owned())
    }

    /// The crons of the mount's group.
    pub(super) fn cron_schedules(&self) -> Vec<Arc<Schedule>> {
        let schedules = self.api.services.catalog.schedules(self.access.tenant.id).into_iter();
        schedules.filter(|schedule| schedule.spec.group == self.group_name() && is_id(&schedule.name)).collect()
    }

    /// Removes all crons, with the runs that wait. What is under way is not tried again.
    pub(super) async fn drop_crons(&self) -> Result<Response, Refusal> {
        for schedule in self.cron_schedules() {
            let (tenant, origin) = (self.access.tenant.id, self.access.origin());
            let deleted = self.api.services.catalog.delete_schedule(tenant, &schedule.name, &origin).await;
            deleted.map_err(Problem::from)?;
            let unfinished =
                self.jobs_named(&schedule.name, RUNS).await?.into_iter().filter(|job| !job.state.is_final());
            let runs: Vec<Job> = unfinished.collect();
            self.change(&runs, &JobChange::Cancel).await?;
        }
        Ok(StatusCode::OK.into_response())
    }
}

/// The SHA-1 of URL, payload and expression, in hex.
fn id_of(asked: &Asked) -> String {
    let digest =
        Sha1::new().chain_update(&asked.url).chain_update(&asked.payload).chain_update(&asked.schedule).finalize();
    hex::encode(digest)
}

/// Whether a name is a cron's.
pub(super) fn is_id(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}
