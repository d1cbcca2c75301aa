//! Cases of inserting jobs.

use futures_util::future::{join, join_all};

use super::*;
use crate::{INSERT_LIMIT, StoreError};

pub async fn gives_everything_back(world: &World) {
    let mut full = world.job(NOW.plus(ms(5)));
    full.name = Some("später".to_owned());
    full.deadline = Some(NOW.plus(ms(500)));
    full.seed = u32::MAX;
    full.spec.target.as_mut().unwrap().headers = vec![("X-A".to_owned(), "b\"c".to_owned())];
    full.spec.metadata = serde_json::from_value(serde_json::json!({"k": "v", "n": {"k": "w"}})).unwrap();
    full.spec.metadata_headers = true;
    full.spec.policy = Some(json!({"retry": {"max_attempts": 3}}));
    full.spec.timeout_ms = Some(1_500);
    full.body = Bytes::from_static(b"\x00\xff\x80 any bytes");
    let mut bare = world.job(NOW);
    bare.body = Bytes::new();
    world.store.insert(vec![full.clone(), bare.clone()].into()).await.unwrap();

    for job in [&full, &bare] {
        assert_eq!(world.get(job.id).await, job.clone().shown());
        assert_eq!(world.store.body(world.tenant, job.id).await.unwrap(), Some(job.body.clone()));
    }
    let leased = world.claim(NOW.plus(ms(5)), 10).await;
    assert_eq!(leased.len(), 2);
    for (leased, job) in leased.into_iter().zip([bare, full]) {
        assert_eq!(leased.body, job.body);
        assert_eq!(leased.job, Job { state: State::Running, ..job.shown() });
        assert_eq!((leased.number(), leased.lost_leases, leased.history.len()), (1, 0, 0));
    }
}

pub async fn is_all_or_nothing_with_a_duplicate(world: &World) {
    let there = world.job(NOW);
    world.store.insert(vec![there.clone()].into()).await.unwrap();
    let new = world.job(NOW);
    let error = world.store.insert(vec![new.clone(), there.clone()].into()).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "{error}");
    assert_eq!(world.store.job(world.tenant, new.id).await.unwrap(), None);
    assert_eq!(world.state(there.id).await, State::Scheduled);
}

/// The last of many jobs fails, after the others have gone to the database in statements of their own.
pub async fn is_all_or_nothing_in_a_large_call(world: &World) {
    let there = world.job(NOW);
    world.store.insert(vec![there.clone()].into()).await.unwrap();
    let mut jobs: Vec<NewJob> = (0..3_000).map(|_| world.job(NOW)).collect();
    jobs.push(there.clone());
    // Alone, and together with a call that succeeds.
    assert!(world.store.insert(jobs.clone().into()).await.is_err());
    let neighbour = world.job(NOW);
    let (failed, stored) =
        join(world.store.insert(jobs.into()), world.store.insert(vec![neighbour.clone()].into())).await;
    assert!(failed.is_err() && stored.is_ok());
    let found: Vec<JobId> = world.store.jobs(list::all(world)).await.unwrap().into_iter().map(|job| job.id).collect();
    assert_eq!(found, [neighbour.id, there.id]);
}

pub async fn refuses_an_id_twice_in_one_call(world: &World) {
    let job = world.job(NOW);
    let error = world.store.insert(vec![job.clone(), job.clone()].into()).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "{error}");
    assert_eq!(world.store.job(world.tenant, job.id).await.unwrap(), None);
}

pub async fn refuses_a_group_that_is_not_there(world: &World) {
    let stranger = TenantId(world.put(0, Kind::Tenant, "stranger").await.id);
    let key = world.put(world.tenant.0, Kind::Key, "secret").await;
    let good = world.job(NOW);
    let nowhere = world.job_in(GroupId(9_999), NOW);
    let not_a_group = world.job_in(GroupId(key.id), NOW);
    let of_another = NewJob { tenant: stranger, ..world.job(NOW) };
    for bad in [nowhere, not_a_group, of_another] {
        let error = world.store.insert(vec![good.clone(), bad].into()).await.unwrap_err();
        assert!(matches!(error, StoreError::NoSuchGroup), "{error}");
        assert_eq!(world.store.job(world.tenant, good.id).await.unwrap(), None);
    }
}

pub async fn refuses_too_many(world: &World) {
    let jobs: Vec<NewJob> = (0..=INSERT_LIMIT).map(|_| world.job(NOW)).collect();
    let id = jobs[0].id;
    assert!(matches!(world.store.insert(jobs.into()).await, Err(StoreError::Conflict(_))));
    assert_eq!(world.store.job(world.tenant, id).await.unwrap(), None);
}

pub async fn takes_the_most_that_is_allowed(world: &World) {
    world.insert_due(INSERT_LIMIT).await;
    let stats = world.store.stats(world.tenant, world.group, NOW).await.unwrap();
    assert_eq!(stats.scheduled, INSERT_LIMIT as u64);
    world.store.insert(Vec::new().into()).await.unwrap();
}

/// Calls that a backend may merge into one transaction do not share their failures.
pub async fn fails_alone(world: &World) {
    let there = world.job(NOW);
    world.store.insert(vec![there.clone()].into()).await.unwrap();
    let calls: Vec<Vec<NewJob>> = (0..60)
        .map(|n| match n % 6 {
            2 => vec![world.job(NOW), there.clone()],
            4 => vec![world.job(NOW), world.job_in(GroupId(9_999), NOW)],
            _ => vec![world.job(NOW), world.job(NOW)],
        })
        .collect();
    let results = join_all(calls.iter().map(|jobs| world.store.insert(jobs.clone().into()))).await;
    for (n, (jobs, result)) in calls.iter().zip(results).enumerate() {
        let stored = world.store.job(world.tenant, jobs[0].id).await.unwrap().is_some();
        match n % 6 {
            2 => assert!(matches!(result, Err(StoreError::Conflict(_))) && !stored, "{n}"),
            4 => assert!(matches!(result, Err(StoreError::NoSuchGroup)) && !stored, "{n}"),
            _ => assert!(result.is_ok() && stored, "{n}"),
        }
    }
}

pub async fn survives_reopening(world: &World) {
    let ids = world.insert_due(5).await;
    let leased = world.claim(NOW, 1).await.remove(0);
    let settled = carillon_core::job::Settlement::succeeded(&leased, NOW, an_attempt(&leased, Some(200)));
    world.store.settle(vec![settled]).await.unwrap();
    let before = world.store.jobs(list::all(world)).await.unwrap();
    let store = world.reopened().await;
    assert_eq!(store.jobs(list::all(world)).await.unwrap(), before);
    assert_eq!(store.body(world.tenant, ids[4]).await.unwrap(), Some(Bytes::from_static(b"{}")));
    assert_eq!(store.attempts(world.tenant, leased.job.id, 0, 10).await.unwrap(), [an_attempt(&leased, Some(200))]);
}

pub async fn is_seen_by_the_next_read(world: &World) {
    let one = |_| async {
        for _ in 0..20 {
            let job = world.job(NOW);
            world.store.insert(vec![job.clone()].into()).await.unwrap();
            assert!(world.store.job(world.tenant, job.id).await.unwrap().is_some());
        }
    };
    join_all((0..8).map(one)).await;
}
