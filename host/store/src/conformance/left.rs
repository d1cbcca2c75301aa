//! Cases of what remains after things were removed.

use super::*;
use crate::{Edit, IdempotentRequest, Insert, InsertResult, SettleOutcome, StoreError};
use carillon_core::job::{Carries, Debounce, Overlap, Settlement, Tick};

/// Does a year of housekeeping: everything that may be removed has been removed.
async fn a_year_passes(world: &World) {
    let later = NOW.plus(Duration::from_secs(366 * 86_400));
    let kept = later.minus(Duration::from_secs(90 * 86_400));
    let ended = [State::Succeeded, State::Dead, State::Expired, State::Cancelled].map(|state| (state, kept)).to_vec();
    let prune = Prune { ended, ticks: kept, audit: kept, now: later, limit: 100 };
    while world.store.prune(prune.clone()).await.unwrap() > 0 {}
}

/// Returns the job of a schedule's tick.
fn tick(world: &World, group: GroupId, schedule: i64, at: u64) -> NewJob {
    let at = NOW.plus(ms(at));
    let tick = Tick { schedule, at, overlap: Overlap::Allow, max_runs: None, again: false };
    NewJob { admission: Admission::Tick(tick), ..world.job_in(group, at) }
}

/// Returns one job under each kind of condition, as one idempotent request.
fn conditional(world: &World, group: GroupId) -> Insert {
    let debounce = |key: &str, carries| Debounce { key: key.to_owned(), window: ms(5), always_delay: true, carries };
    let admissions = [
        Admission::Always,
        Admission::Unique { key: "k".to_owned(), window: ms(5) },
        Admission::Debounced(debounce("first", Carries::First)),
        Admission::Debounced(debounce("newest", Carries::Newest)),
        Admission::Debounced(debounce("newest", Carries::Newest)),
        Admission::Replace { moved: None },
        Admission::Replace { moved: None },
    ];
    let job = |admission| NewJob {
        admission,
        name: Some("n".to_owned()),
        order_key: Some("o".to_owned()),
        ..world.job_in(group, NOW)
    };
    let (tenant, expires_at, answer) = (world.tenant, NOW.plus(ms(9)), Arc::new(|_: &[_]| "answer".to_owned()));
    let once =
        IdempotentRequest { tenant, key: "k".to_owned(), fingerprint: "f".to_owned(), now: NOW, expires_at, answer };
    Insert { jobs: admissions.into_iter().map(job).collect(), once: Some(once) }
}

/// Ends the waiting jobs in every way, and redrives those that can be redriven.
async fn end_all(world: &World, group: GroupId) {
    let later = NOW.plus(ms(100_000));
    for round in 0..40 {
        let leased = claim(&*world.store, group, later, 2).await;
        let settlement = |leased: &LeasedJob| {
            let attempt = an_attempt(leased, Some(200));
            match round % 5 {
                0 => Settlement::retry(leased, NOW, attempt, NOW),
                1 => Settlement::dead(leased, NOW, attempt),
                2 => Settlement::expired(leased, NOW, None),
                3 if round == 3 => {
                    let mut settlement = Settlement::succeeded(leased, NOW, attempt);
                    settlement.follow_ups.push(world.job_in(group, NOW));
                    settlement
                }
                _ => Settlement::succeeded(leased, NOW, attempt),
            }
        };
        world.store.settle(leased.iter().map(settlement).collect()).await.unwrap();
        for leased in &leased {
            world.change(leased.job.id, JobChange::Redrive(NOW)).await;
        }
    }
    loop {
        let waiting = claim(&*world.store, group, later, 99).await;
        if waiting.is_empty() {
            break;
        }
        let ends = waiting.iter().map(|it| Settlement::succeeded(it, NOW, an_attempt(it, Some(200)))).collect();
        world.store.settle(ends).await.unwrap();
    }
}

pub async fn a_year_after_everything_is_deleted_nothing_is_left(world: &World) {
    let beginning = world.rows().await;
    let store = &world.store;
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Tenant) {
        let name = format!("a {}", kind.as_str());
        let put = match kind {
            Kind::Plugin => a_plugin(world.tenant.0, &name, "digest", b"component"),
            _ => an_entity(world.tenant.0, kind, &name, Precondition::Anything),
        };
        store.put(put.clone()).await.unwrap();
        store.put(put).await.unwrap();
    }
    let group = world.new_group("short-lived").await;
    store.insert(conditional(world, group)).await.unwrap();
    let again = store.insert(conditional(world, group)).await.unwrap();
    assert!(matches!(again, InsertResult::Replayed(_)));
    let schedule = store.load().await.unwrap().1.into_iter().find(|entity| entity.kind == Kind::Schedule).unwrap().id;
    for at in 0..5 {
        store.insert(vec![tick(world, group, schedule, at)].into()).await.unwrap();
    }
    let edited = world.job_in(group, NOW);
    store.insert(vec![edited.clone()].into()).await.unwrap();
    let body = Some(Bytes::from_static(b"more"));
    let edit = Edit { revision: 0, name: None, run_at: NOW, priority: Priority::MAX, spec: edited.spec, body };
    assert_eq!(world.change(edited.id, JobChange::Edit(Box::new(edit))).await, ChangeOutcome::Done);
    end_all(world, group).await;
    let used = world.rows().await;
    for table in ["entity", "component", "job_spec", "attempt", "recent", "tick", "ticked"] {
        assert!(used.get(table) > beginning.get(table), "{table} is used: {used:?}");
    }

    for entity in store.load().await.unwrap().1 {
        if !beginning_has(world, &entity) {
            store.delete(a_removal(entity.tenant, entity.kind, entity.name.clone())).await.unwrap();
        }
    }
    a_year_passes(world).await;
    assert_eq!(world.rows().await, beginning);
}

/// Returns whether an entity is one of an empty [`World`].
fn beginning_has(world: &World, entity: &Entity) -> bool {
    entity.kind == Kind::Tenant || entity.id == world.group.0
}

pub async fn each_schedule_takes_its_ticks_along(world: &World) {
    let (kept, gone) = (world.put(world.tenant.0, Kind::Schedule, "kept").await.id, "gone".to_owned());
    let deleted = world.put(world.tenant.0, Kind::Schedule, &gone).await.id;
    for at in 0..30 {
        for schedule in [kept, deleted] {
            world.store.insert(vec![tick(world, world.group, schedule, at)].into()).await.unwrap();
        }
    }
    world.store.delete(a_removal(world.tenant.0, Kind::Schedule, gone)).await.unwrap();
    let prune = Prune { now: NOW, limit: 7, ..Prune::default() };
    while world.store.prune(prune.clone()).await.unwrap() > 0 {}
    let rows = world.rows().await;
    assert_eq!((rows["tick"], rows["ticked"]), (30, 1), "young ticks of a schedule that is there stay");
}

/// Gives the world's tenant one entity of each kind, and a second tenant a group with a job and the component of a plugin.
async fn two_tenants(world: &World) -> (NewJob, GroupId) {
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Tenant) {
        let put = match kind {
            Kind::Plugin => a_plugin(world.tenant.0, "p@1", "shared", b"component"),
            _ => an_entity(world.tenant.0, kind, &format!("a {}", kind.as_str()), Precondition::Anything),
        };
        world.store.put(put).await.unwrap();
    }
    world.store.put(a_plugin(world.tenant.0, "q@1", "own", b"component")).await.unwrap();
    let other = TenantId(world.put(0, Kind::Tenant, "other").await.id);
    let group = GroupId(world.put(other.0, Kind::Group, "reminders").await.id);
    world.store.put(a_plugin(other.0, "p@1", "shared", b"component")).await.unwrap();
    let kept = NewJob { tenant: other, ..world.job_in(group, NOW) };
    world.store.insert(vec![kept.clone()].into()).await.unwrap();
    (kept, group)
}

async fn delete_tenant(world: &World) -> bool {
    world.store.delete(a_removal(0, Kind::Tenant, "acme".to_owned())).await.unwrap().done
}

pub async fn deleted_tenant_leaves_nothing_and_its_namesake_has_nothing(world: &World) {
    let store = &world.store;
    let (kept, other) = two_tenants(world).await;
    store.insert(conditional(world, world.group)).await.unwrap();
    let schedule = store.load().await.unwrap().1.into_iter().find(|entity| entity.kind == Kind::Schedule).unwrap().id;
    store.insert(vec![tick(world, world.group, schedule, 0)].into()).await.unwrap();
    world.insert_due(3).await;
    let running = world.claim(NOW, 1).await.remove(0);

    assert!(delete_tenant(world).await, "waiting and running jobs do not keep it");
    assert!(!delete_tenant(world).await, "it has gone");
    let late = store.put(an_entity(world.tenant.0, Kind::Key, "late", Precondition::Anything)).await;
    assert!(matches!(late, Err(StoreError::Conflict(_))), "another node does not know it yet: {late:?}");
    let namesake = world.put(0, Kind::Tenant, "acme").await;
    assert!(namesake.id > world.tenant.0 && namesake.version == 1);
    assert_eq!(store.unfinished(TenantId(namesake.id)).await.unwrap(), 0);

    a_year_passes(world).await;
    let left = store.load().await.unwrap().1;
    let owners = left.iter().filter(|entity| entity.kind != Kind::Tenant).map(|entity| entity.tenant);
    assert!(owners.clone().all(|owner| owner == kept.tenant.0) && owners.count() == 2, "{left:?}");
    assert_eq!(world.store.job(kept.tenant, kept.id).await.unwrap().map(|job| job.group), Some(other));
    let rows = world.rows().await;
    assert_eq!(rows["entity"], 4, "two tenants, a group and a plugin: {rows:?}");
    let jobs = rows.get("job").copied().unwrap_or(0) + rows.get("job_done").copied().unwrap_or(0);
    assert_eq!((jobs, rows["job_spec"], rows["component"]), (1, 1, 1), "{rows:?}");
    for table in ["attempt", "recent", "tick", "ticked"] {
        assert_eq!(rows.get(table).copied().unwrap_or(0), 0, "{table}");
    }
    let settled = store.settle(vec![Settlement::succeeded(&running, NOW, an_attempt(&running, Some(200)))]).await;
    assert_eq!(settled.unwrap(), [SettleOutcome::LeaseLost]);
}

pub async fn deletion_of_a_tenant_goes_on_in_slices_after_reopening(world: &World) {
    let beginning = world.rows().await;
    for number in 0..10 {
        world.put(world.tenant.0, Kind::Key, &format!("k{number}")).await;
    }
    world.insert_due(10).await;
    assert!(delete_tenant(world).await);
    let removed = world.prune(&[], 4).await;
    assert!((4..=8).contains(&removed), "a slice of the entities, and one of the jobs: {removed}");
    let store = world.reopened().await;
    let later = NOW.plus(Duration::from_secs(3_600));
    let prune = Prune { now: later, limit: 4, ..Prune::default() };
    let mut slices = 0;
    while store.prune(prune.clone()).await.unwrap() > 0 {
        slices += 1;
    }
    assert!(slices >= 2, "{slices}");
    let gone = |table: &str| beginning.get(table).copied().unwrap_or(0).saturating_sub(2);
    assert_eq!(world.rows().await.get("entity").copied().unwrap_or(0), gone("entity"), "with its tenant and group");
    assert_eq!(world.rows().await.get("job_spec").copied().unwrap_or(0), 0);
}
