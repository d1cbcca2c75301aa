//! Schedules in the catalog.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Catalog, CatalogError, document, validation};
use carillon_core::clock::UnixMs;
use carillon_core::job::{Overlap, TenantId};
use carillon_core::timetable::{BadExpression, CatchUp, Timetable, UnknownZone};
use carillon_policy::binding::Invalid;
use carillon_store::{Entity, Kind, Precondition};

/// Something that makes jobs again and again.
#[derive(Debug)]
pub struct Schedule {
    /// Its number, never used again.
    pub id: i64,
    /// Its owner.
    pub tenant: TenantId,
    /// Its name.
    pub name: String,
    /// One more with each change.
    pub version: i64,
    /// What was put.
    pub spec: ScheduleSpec,
    /// Whether it makes no jobs for now.
    pub paused: bool,
    /// Ticks up to this were never its own: it was made, changed or resumed then.
    pub since: UnixMs,
    /// When it ticks; an error if this machine does not know its time zone any more.
    pub timetable: Result<Timetable, Invalid>,
    /// When it was made.
    pub created_at: UnixMs,
    /// When it was last changed.
    pub updated_at: UnixMs,
}

/// What is put of a schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleSpec {
    /// The name of the group of its jobs.
    pub group: String,
    /// See [`carillon_core::timetable::Expression`].
    pub cron: String,
    /// The IANA name.
    pub time_zone: String,
    /// No tick is before this.
    pub start: Option<UnixMs>,
    /// No tick is after this.
    pub end: Option<UnixMs>,
    /// It makes no more jobs than this.
    pub max_runs: Option<u64>,
    /// Its jobs are due up to this long after their ticks.
    pub jitter: Duration,
    /// What a tick does about earlier jobs that are unfinished.
    pub overlap: Overlap,
    /// What happens with missed ticks.
    pub catch_up: Duration,
    /// Whether all of them run.
    pub catch_up_all: bool,
    /// The text of its jobs' document, as it was put.
    pub job: String,
}

/// What is stored of a schedule.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ScheduleDoc {
    pub(super) spec: ScheduleSpec,
    pub(super) paused: bool,
    pub(super) since: UnixMs,
    /// When the present expression was put.
    pub(super) anchor: UnixMs,
}

impl ScheduleSpec {
    /// What happens with missed ticks.
    #[must_use]
    pub fn catch_up(&self) -> CatchUp {
        CatchUp { window: self.catch_up, all: self.catch_up_all }
    }

    fn ticks_like(&self, other: &Self) -> bool {
        (&self.cron, &self.time_zone, self.start) == (&other.cron, &other.time_zone, other.start)
    }

    /// Refuses what is put if no run of it is to come.
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

    /// When it ticks. `@every` counts from the start, or else from `anchor`.
    ///
    /// # Errors
    /// If the expression or the time zone is none.
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
    pub(super) fn of(entity: &Entity, doc: ScheduleDoc) -> Self {
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

    fn doc(&self) -> ScheduleDoc {
        let anchor = self.timetable.as_ref().map_or(self.since, |timetable| timetable.anchor);
        ScheduleDoc { spec: self.spec.clone(), paused: self.paused, since: self.since, anchor }
    }
}

impl Catalog {
    /// The tenant's schedule of this name.
    #[must_use]
    pub fn schedule(&self, tenant: TenantId, name: &str) -> Option<Arc<Schedule>> {
        self.state().schedule(tenant, name).cloned()
    }

    /// The tenant's schedules, by name.
    #[must_use]
    pub fn schedules(&self, tenant: TenantId) -> Vec<Arc<Schedule>> {
        self.state().schedules().filter(|schedule| schedule.tenant == tenant).cloned().collect()
    }

    /// Everybody's schedules.
    #[must_use]
    pub fn all_schedules(&self) -> Vec<Arc<Schedule>> {
        self.state().schedules().cloned().collect()
    }

    /// Makes or changes a schedule; the answer says whether it is new. Unless `paused` says so, a paused one stays paused. Where it ticks
    /// otherwise than before, it has no past.
    ///
    /// # Errors
    /// If it makes no sense, with a pointer to what does not.
    pub async fn put_schedule(
        &self,
        tenant: TenantId,
        name: &str,
        spec: ScheduleSpec,
        paused: Option<bool>,
    ) -> Result<(Arc<Schedule>, bool), CatalogError> {
        validation::name("schedule", name)?;
        let now = self.now();
        let timetable = spec.timetable(now)?;
        if self.group(tenant, &spec.group).is_none() {
            let message = format!("there is no group `{}`", spec.group.escape_debug());
            return Err(Invalid::at("/group", message).into());
        }
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
                    ScheduleDoc { spec, paused, since, ..doc }
                }
                _ => ScheduleDoc { spec, paused, since: now, anchor: now },
            };
            let expect = before.map_or(Precondition::Nothing, |before| Precondition::Version(before.version));
            Ok(self.entity(tenant, Kind::Schedule, name, document(&doc), expect).into())
        };
        self.change(|| self.schedule(tenant, name), decide).await?;
        Ok((self.schedule(tenant, name).ok_or(CatalogError::Gone)?, is_new.into_inner()))
    }

    /// Lets a schedule make no jobs, or make them again. What would have ticked while it was paused is not caught up.
    ///
    /// # Errors
    /// If the schedule was removed at the same moment.
    pub async fn pause_schedule(&self, schedule: &Schedule, paused: bool) -> Result<(), CatalogError> {
        let (tenant, name, now) = (schedule.tenant, &schedule.name, self.now());
        let decide = |before: Option<&Schedule>| {
            let before = before.ok_or(CatalogError::Gone)?;
            let since = if before.paused && !paused { now } else { before.since };
            let doc = document(&ScheduleDoc { paused, since, ..before.doc() });
            Ok(self.entity(tenant, Kind::Schedule, name, doc, Precondition::Version(before.version)).into())
        };
        self.change(|| self.schedule(tenant, name), decide).await.map(drop)
    }

    /// Removes a schedule; its jobs stay. False if there is none.
    ///
    /// # Errors
    /// If the store does not take it.
    pub async fn delete_schedule(&self, tenant: TenantId, name: &str) -> Result<bool, CatalogError> {
        self.delete(tenant, Kind::Schedule, name).await
    }
}
