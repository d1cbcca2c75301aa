//! Schedules in the catalog.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::audit::Cause;
use super::{Catalog, CatalogError, document, validation};
use carillon_core::audit::{Origin, Verb};
use carillon_core::clock::UnixMs;
use carillon_core::job::{Overlap, TenantId};
use carillon_core::limits::json_len;
use carillon_core::timetable::{BadExpression, CatchUp, Timetable, UnknownZone};
use carillon_policy::binding::Invalid;
use carillon_store::{Entity, Kind, Precondition};

/// Schedule: makes jobs at the times of a crontab expression.
#[derive(Debug)]
pub struct Schedule {
    /// Number, which is never used again.
    pub id: i64,
    /// Owning tenant.
    pub tenant: TenantId,
    /// Name of the schedule.
    pub name: String,
    /// Version of the entity, which rises with each change.
    pub version: i64,
    /// Settings that the client put.
    pub spec: ScheduleSpec,
    /// Whether it makes no jobs for now.
    pub paused: bool,
    /// Time of its last creation, change or resumption; earlier ticks do not belong to it.
    pub since: UnixMs,
    /// Timetable; an error if this machine no longer knows its time zone.
    pub timetable: Result<Timetable, Invalid>,
    /// Time of creation.
    pub created_at: UnixMs,
    /// Time of the last change.
    pub updated_at: UnixMs,
}

/// Settings of a schedule, as a client puts them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleSpec {
    /// Name of the group of its jobs.
    pub group: String,
    /// Expression; see [`carillon_core::timetable::Expression`].
    pub cron: String,
    /// IANA name of the time zone.
    pub time_zone: String,
    /// Start: no tick is before this.
    pub start: Option<UnixMs>,
    /// End: no tick is after this.
    pub end: Option<UnixMs>,
    /// Maximum number of jobs that it makes.
    pub max_runs: Option<u64>,
    /// Maximum delay between a tick and the due time of its job.
    pub jitter: Duration,
    /// What a tick does about unfinished jobs of earlier ticks.
    pub overlap: Overlap,
    /// How long after its time a missed tick is made up for.
    pub catch_up: Duration,
    /// Whether all missed ticks run.
    pub catch_up_all: bool,
    /// Text of the document of its jobs, as the client put it.
    pub job: String,
}

/// Stored form of a schedule.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ScheduleRecord {
    pub(super) spec: ScheduleSpec,
    pub(super) paused: bool,
    pub(super) since: UnixMs,
    /// Time at which the present expression was put.
    pub(super) anchor: UnixMs,
}

impl ScheduleSpec {
    /// Returns the rule for missed ticks.
    #[must_use]
    pub fn catch_up(&self) -> CatchUp {
        CatchUp { window: self.catch_up, all: self.catch_up_all }
    }

    fn ticks_like(&self, other: &Self) -> bool {
        (&self.cron, &self.time_zone, self.start) == (&other.cron, &other.time_zone, other.start)
    }

    /// Rejects settings under which no run would follow.
    fn runs_at_all(&self, timetable: &Timetable, now: UnixMs) -> Result<(), Invalid> {
        if timetable.after(now).next().is_some() {
            return Ok(());
        }
        let (pointer, bound) = match (self.end, self.start) {
            (Some(_), _) => ("/end", "`end`"),
            (None, Some(_)) => ("/start", "the end of the year 2100"),
            (None, None) => ("/cron", "the end of the year 2100"),
        };
        Err(Invalid::at(pointer, format!("the schedule would never run: no run is due between now and {bound}")))
    }

    /// Returns the timetable. `@every` counts from the start, or without one from `anchor`.
    ///
    /// # Errors
    /// Returns [`Invalid`] if the expression or the time zone is not valid.
    pub fn timetable(&self, anchor: UnixMs) -> Result<Timetable, Invalid> {
        let expression = self.cron.parse();
        let zone = self.time_zone.parse();
        Ok(Timetable {
            expression: expression.map_err(|error: BadExpression| Invalid::at("/cron", error.to_string()))?,
            zone: zone.map_err(|error: UnknownZone| Invalid::at("/time_zone", error.to_string()))?,
            anchor: self.start.unwrap_or(anchor),
            start: self.start,
            end: self.end,
        })
    }
}

impl Schedule {
    pub(super) fn from_record(entity: &Entity, doc: ScheduleRecord) -> Self {
        Self {
            id: entity.id,
            tenant: TenantId(entity.tenant),
            name: entity.name.clone(),
            version: entity.version,
            timetable: doc.spec.timetable(doc.anchor),
            spec: doc.spec,
            paused: doc.paused,
            since: doc.since,
            created_at: entity.created_at,
            updated_at: entity.updated_at,
        }
    }

    fn doc(&self) -> ScheduleRecord {
        let anchor = self.timetable.as_ref().map_or(self.since, |timetable| timetable.anchor);
        ScheduleRecord { spec: self.spec.clone(), paused: self.paused, since: self.since, anchor }
    }
}

impl Catalog {
    /// Returns the tenant's schedule of this name.
    #[must_use]
    pub fn schedule(&self, tenant: TenantId, name: &str) -> Option<Arc<Schedule>> {
        self.state().schedule(tenant, name).cloned()
    }

    /// Returns the tenant's schedules, by name.
    #[must_use]
    pub fn schedules(&self, tenant: TenantId) -> Vec<Arc<Schedule>> {
        self.state().schedules().filter(|schedule| schedule.tenant == tenant).cloned().collect()
    }

    /// Returns the schedules of all tenants that are not suspended.
    #[must_use]
    pub fn active_schedules(&self) -> Vec<Arc<Schedule>> {
        let state = self.state();
        let is_active =
            |schedule: &&Arc<Schedule>| state.tenant_by_id(schedule.tenant).is_some_and(|tenant| !tenant.suspended);
        state.schedules().filter(is_active).cloned().collect()
    }

    /// Makes or changes a schedule; returns whether it is new. Unless `paused` is given, a paused schedule stays paused. A schedule whose
    /// ticks change has no past.
    ///
    /// # Errors
    /// Returns an error with a pointer if the settings are not valid.
    pub async fn put_schedule(
        &self,
        tenant: TenantId,
        name: &str,
        spec: ScheduleSpec,
        paused: Option<bool>,
        origin: &Origin,
    ) -> Result<(Arc<Schedule>, bool), CatalogError> {
        validation::name("schedule", name)?;
        let without_job = ScheduleSpec { job: String::new(), ..spec.clone() };
        self.bounds.requests.document.check("schedule", "", json_len(&without_job))?;
        let now = self.now();
        let timetable = spec.timetable(now)?;
        if self.group(tenant, &spec.group).is_none() {
            let message = format!("there is no group `{}`", spec.group.escape_debug());
            return Err(Invalid::at("/group", message).into());
        }
        let cause = Cause::change(origin, Verb::SCHEDULE_PUT);
        let is_new = AtomicBool::new(false);
        let decide = |before: Option<&Schedule>| {
            is_new.store(before.is_none(), Ordering::Relaxed);
            if before.is_none_or(|before| before.spec != spec) {
                spec.runs_at_all(&timetable, now)?;
            }
            let was_paused = before.is_some_and(|before| before.paused);
            let (spec, paused) = (spec.clone(), paused.unwrap_or(was_paused));
            let doc = match before {
                Some(before) if before.spec.ticks_like(&spec) => {
                    let doc = before.doc();
                    let since = if was_paused && !paused { now } else { doc.since };
                    ScheduleRecord { spec, paused, since, ..doc }
                }
                _ => ScheduleRecord { spec, paused, since: now, anchor: now },
            };
            let expect = before.map_or(Precondition::Nothing, |before| Precondition::Version(before.version));
            Ok(self.entity(&cause, tenant, Kind::Schedule, name, document(&doc), expect).into())
        };
        self.change(|| self.schedule(tenant, name), decide).await?;
        Ok((self.schedule(tenant, name).ok_or(CatalogError::Gone)?, is_new.into_inner()))
    }

    /// Pauses or resumes a schedule. Ticks during the pause are not made up for.
    ///
    /// # Errors
    /// Returns [`CatalogError::Gone`] if the schedule was removed at the same moment.
    pub async fn pause_schedule(&self, schedule: &Schedule, paused: bool, origin: &Origin) -> Result<(), CatalogError> {
        let cause = Cause::change(origin, if paused { Verb::SCHEDULE_PAUSE } else { Verb::SCHEDULE_RESUME });
        let (tenant, name, now) = (schedule.tenant, &schedule.name, self.now());
        let decide = |before: Option<&Schedule>| {
            let before = before.ok_or(CatalogError::Gone)?;
            let since = if before.paused && !paused { now } else { before.since };
            let doc = document(&ScheduleRecord { paused, since, ..before.doc() });
            let expect = Precondition::Version(before.version);
            Ok(self.entity(&cause, tenant, Kind::Schedule, name, doc, expect).into())
        };
        self.change(|| self.schedule(tenant, name), decide).await.map(drop)
    }

    /// Removes a schedule; its jobs stay. Returns false if there is none.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn delete_schedule(&self, tenant: TenantId, name: &str, origin: &Origin) -> Result<bool, CatalogError> {
        self.delete(&Cause::change(origin, Verb::SCHEDULE_DELETE), tenant, Kind::Schedule, name).await
    }
}
