//! Cases of jobs that are stored under a condition ([`carillon_core::job::Admission`]).

use std::collections::HashSet;

use futures_util::future::join_all;

use super::ticks::tick;
use super::*;
use crate::{IdempotentRequest, Insert, InsertOutcome, InsertResult, NamesQuery, StoreError};
use carillon_core::job::{Carries, Debounce, DispatchMode, Overlap, Settlement};

/// Stores one job and returns its outcome.
pub async fn placed(world: &World, job: &NewJob) -> InsertOutcome {
    match world.store.insert(vec![job.clone()].into()).await.unwrap() {
        InsertResult::Placed(mut placed) => placed.remove(0),
        InsertResult::Replayed(answer) => panic!("{answer}"),
    }
}

pub fn stored_at(run_at: UnixMs) -> InsertOutcome {
    InsertOutcome::Stored { run_at, forgotten: false, cancelled: Vec::new() }
}

fn once(world: &World, key: &str, fingerprint: &str, now: UnixMs) -> Option<IdempotentRequest> {
    let answer = |placed: &[InsertOutcome]| format!("{} jobs", placed.len());
    let (key, fingerprint) = (key.to_owned(), fingerprint.to_owned());
    let expires_at = now.plus(ms(1_000));
    Some(IdempotentRequest { tenant: world.tenant, key, fingerprint, now, expires_at, answer: Arc::new(answer) })
}

pub async fn a_request_is_carried_out_once(world: &World) {
    let request = |now| Insert { jobs: vec![world.job(NOW), world.job(NOW)], once: once(world, "k", "f", now) };
    let results = join_all((0..16).map(|_| world.store.insert(request(NOW)))).await;
    let placed = results.iter().filter(|result| matches!(result, Ok(InsertResult::Placed(_)))).count();
    let replayed = results.iter().filter(|result| **result == Ok(InsertResult::Replayed("2 jobs".to_owned()))).count();
    assert_eq!((placed, replayed), (1, 15));
    assert_eq!(world.claim(NOW, 99).await.len(), 2);
    let later = world.store.insert(request(NOW.plus(ms(1_000)))).await.unwrap();
    assert!(matches!(later, InsertResult::Placed(_)), "a key is forgotten");
}

pub async fn a_key_of_another_request_is_refused(world: &World) {
    let request = |key, fingerprint| Insert { jobs: vec![world.job(NOW)], once: once(world, key, fingerprint, NOW) };
    world.store.insert(request("k", "f")).await.unwrap();
    assert_eq!(world.store.insert(request("k", "g")).await, Err(StoreError::KeyReused));
    assert!(matches!(world.store.insert(request("l", "g")).await, Ok(InsertResult::Placed(_))));
    let broken = Insert { jobs: vec![NewJob { group: GroupId(77), ..world.job(NOW) }], ..request("m", "f") };
    assert_eq!(world.store.insert(broken).await, Err(StoreError::NoSuchGroup));
    assert!(
        matches!(world.store.insert(request("m", "g")).await, Ok(InsertResult::Placed(_))),
        "a failure takes no key"
    );
    assert_eq!(world.claim(NOW, 99).await.len(), 3);
}

pub async fn a_dedupe_key_holds_for_its_window(world: &World) {
    let with_key = |key: &str, at: u64| NewJob {
        admission: Admission::Unique { key: key.to_owned(), window: ms(100) },
        created_at: NOW.plus(ms(at)),
        ..world.job(NOW)
    };
    let first = with_key("k", 0);
    assert_eq!(placed(world, &first).await, stored_at(NOW));
    for at in [0, 50, 99] {
        let InsertOutcome::Duplicate(job) = placed(world, &with_key("k", at)).await else { panic!("stored at {at}") };
        assert_eq!(job.id, first.id);
    }
    assert_eq!(placed(world, &with_key("l", 0)).await, stored_at(NOW));
    let elsewhere = NewJob { group: world.new_group("other").await, ..with_key("k", 0) };
    assert_eq!(placed(world, &elsewhere).await, stored_at(NOW), "a key is the group's own");
    assert_eq!(placed(world, &with_key("k", 100)).await, stored_at(NOW));
    let twice = vec![with_key("m", 0), with_key("m", 0)];
    let InsertResult::Placed(both) = world.store.insert(twice.clone().into()).await.unwrap() else { unreachable!() };
    assert!(matches!(&both[1], InsertOutcome::Duplicate(job) if job.id == twice[0].id), "within one call, too");
}

pub async fn only_a_job_that_does_the_work_has_duplicates(world: &World) {
    let with_key = |key: &str| NewJob {
        admission: Admission::Unique { key: key.to_owned(), window: ms(60_000) },
        ..world.job(NOW)
    };
    let stands = async |key: &str, job: &NewJob| match placed(world, &with_key(key)).await {
        InsertOutcome::Duplicate(first) => first.id == job.id,
        InsertOutcome::Stored { .. } => false,
        other => panic!("{other:?}"),
    };
    for (key, stays, end) in [
        ("succeeded", true, Settlement::succeeded as fn(&_, _, _) -> Settlement),
        ("dead", false, Settlement::dead),
        ("expired", false, |leased: &LeasedJob, at, _| Settlement::expired(leased, at, None)),
    ] {
        let job = with_key(key);
        placed(world, &job).await;
        assert!(stands(key, &job).await, "{key}: it waits");
        let leased = world.claim(NOW, 1).await.remove(0);
        assert_eq!(leased.job.id, job.id);
        assert!(stands(key, &job).await, "{key}: it runs");
        world.store.settle(vec![end(&leased, NOW, an_attempt(&leased, None))]).await.unwrap();
        assert_eq!(stands(key, &job).await, stays, "{key}");
        world.claim(NOW, 9).await;
    }
    let waiting = with_key("cancelled");
    placed(world, &waiting).await;
    world.change(waiting.id, JobChange::Cancel).await;
    assert!(!stands("cancelled", &waiting).await);
    let running = with_key("to be cancelled");
    placed(world, &running).await;
    world.claim(NOW, 9).await;
    assert_eq!(world.change(running.id, JobChange::Cancel).await, ChangeOutcome::Requested);
    assert!(!stands("to be cancelled", &running).await, "unless it succeeds nothing more comes of it");
    let purged = with_key("purged");
    placed(world, &purged).await;
    world.change(purged.id, JobChange::Cancel).await;
    world.change(purged.id, JobChange::Purge).await;
    assert!(!stands("purged", &purged).await);
}

fn debounced(world: &World, at: u64, always_delay: bool) -> NewJob {
    let debounce = Debounce { key: "k".to_owned(), window: ms(30_000), always_delay, carries: Carries::First };
    let now = NOW.plus(ms(at));
    NewJob { admission: Admission::Debounced(debounce), created_at: now, run_at: now, ..world.job(now) }
}

pub async fn of_many_debounced_producers_one_pushes_now_and_one_later(world: &World) {
    let jobs: Vec<NewJob> = (0..64).map(|_| debounced(world, 0, false)).collect();
    let results = join_all(jobs.iter().map(|job| world.store.insert(vec![job.clone()].into()))).await;
    let (mut times, mut instead) = (Vec::new(), HashSet::new());
    for result in results {
        let InsertResult::Placed(placed) = result.unwrap() else { unreachable!() };
        match &placed[0] {
            InsertOutcome::Stored { run_at, .. } => times.push(*run_at),
            InsertOutcome::Debounced(other) => drop(instead.insert(other.id)),
            other => panic!("{other:?}"),
        }
    }
    times.sort();
    assert_eq!(times, [NOW, NOW.plus(ms(30_000))]);
    assert_eq!(instead.len(), 1, "all others are told of the one that waits");
    assert!(matches!(placed(world, &debounced(world, 29_999, false)).await, InsertOutcome::Debounced(_)));
    assert_eq!(placed(world, &debounced(world, 30_000, false)).await, stored_at(NOW.plus(ms(60_000))));
}

pub async fn a_debounced_job_that_was_cancelled_skips_nothing(world: &World) {
    let first = debounced(world, 0, true);
    assert_eq!(placed(world, &first).await, stored_at(NOW.plus(ms(30_000))));
    assert!(
        matches!(placed(world, &debounced(world, 10, true)).await, InsertOutcome::Debounced(job) if job.id == first.id)
    );
    world.change(first.id, JobChange::Cancel).await;
    assert_eq!(placed(world, &debounced(world, 20, true)).await, stored_at(NOW.plus(ms(30_020))));
}

/// Returns a job whose debounce key, given by the producer, is also its name.
fn keyed(world: &World, key: &str, at: u64, payload: &str) -> NewJob {
    let debounce = Debounce { key: key.to_owned(), window: ms(30_000), always_delay: true, carries: Carries::Newest };
    let body = Bytes::copy_from_slice(payload.as_bytes());
    let now = NOW.plus(ms(at));
    let name = Some(key.to_owned());
    NewJob { admission: Admission::Debounced(debounce), created_at: now, run_at: now, body, name, ..world.job(now) }
}

pub async fn a_debounced_job_carries_the_newest_request(world: &World) {
    let due = NOW.plus(ms(30_000));
    let first = NewJob { order_key: Some("o".to_owned()), deadline: Some(due), ..keyed(world, "k", 0, "first") };
    assert_eq!(placed(world, &first).await, stored_at(due));
    let behind = NewJob { order_key: Some("o".to_owned()), ..world.job(NOW) };
    placed(world, &behind).await;
    assert!(world.claim(NOW, 9).await.is_empty(), "the first one's order key holds it up");

    let mut second = keyed(world, "k", 10, "second");
    second.group = world.new_group("other").await;
    second.priority = Priority::MAX;
    second.deadline = Some(NOW.plus(ms(40_000)));
    second.spec = Spec { timeout_ms: Some(9), ..second.spec };
    let InsertOutcome::Carried { job, before } = placed(world, &second).await else { panic!("not carried") };
    assert_eq!((before.id, before.body_len, job.id, job.body_len), (first.id, 5, first.id, 6));
    assert_eq!(*job, world.get(first.id).await);
    let expected = Job {
        id: first.id,
        run_at: due,
        created_at: NOW,
        revision: 1,
        seed: job.seed,
        ..NewJob { admission: Admission::Always, ..second.clone() }.shown()
    };
    assert_eq!(*job, expected, "all but its id and its times is the newest request's");
    assert_eq!(ids(&world.claim(NOW, 9).await), [behind.id], "its order key is free");
    assert_eq!(ids(&claim(&*world.store, world.group, due, 9).await), []);

    let pulled = NewJob { spec: Spec::default(), group: second.group, ..keyed(world, "k", 20, "third") };
    assert!(matches!(placed(world, &pulled).await, InsertOutcome::Carried { .. }));
    assert!(claim(&*world.store, second.group, due, 9).await.is_empty(), "it is to be pulled now");
    let quotas = vec![(second.group, 9)];
    let pull =
        ClaimDue { due_by: due, lease_until: due.plus(LEASE), mode: DispatchMode::Pull, quotas, owed: Vec::new() };
    let leased = world.store.claim_due(pull).await.unwrap().remove(0);
    assert_eq!((leased.job.id, &leased.body[..]), (first.id, &b"third"[..]));
    let next = keyed(world, "k", 29_990, "fourth");
    assert_eq!(placed(world, &next).await, stored_at(due.plus(ms(30_000))), "it runs: this is the next one's work");
}

pub async fn a_debounced_request_is_in_the_job_that_starts_or_in_the_next(world: &World) {
    for round in 0..40 {
        let key = format!("k{round}");
        placed(world, &keyed(world, &key, 0, "first")).await;
        let last = keyed(world, &key, 29_990, "last");
        let start = async {
            // The order of the two changes from round to round.
            (0..round % 4).for_each(|_| std::thread::yield_now());
            world.claim(NOW.plus(ms(30_000)), 9).await
        };
        let (came, mut started) = futures_util::join!(placed(world, &last), start);
        if started.is_empty() {
            // A claim may skip a row that another transaction is changing; the next claim takes it.
            started = world.claim(NOW.plus(ms(30_000)), 9).await;
        }
        let [started] = &started[..] else { panic!("{} jobs of {key} started", started.len()) };
        match came {
            InsertOutcome::Carried { .. } => assert_eq!(started.body, "last", "the answer said so"),
            InsertOutcome::Stored { run_at, .. } => {
                assert_eq!((run_at, &started.body[..]), (NOW.plus(ms(60_000)), &b"first"[..]));
                assert_eq!(world.store.body(world.tenant, last.id).await.unwrap().unwrap(), "last");
            }
            other => panic!("{other:?}"),
        }
    }
}

pub async fn of_many_newest_requests_one_is_carried(world: &World) {
    placed(world, &keyed(world, "k", 0, "first")).await;
    let jobs: Vec<NewJob> = (0..32).map(|number| keyed(world, "k", 10, &format!("number {number}"))).collect();
    let results = join_all(jobs.iter().map(|job| world.store.insert(vec![job.clone()].into()))).await;
    for result in results {
        let InsertResult::Placed(placed) = result.unwrap() else { unreachable!() };
        assert!(matches!(&placed[0], InsertOutcome::Carried { .. }), "{placed:?}");
    }
    let leased = world.claim(NOW.plus(ms(30_000)), 99).await;
    assert_eq!((leased.len(), leased[0].job.revision), (1, 32));
    assert!(jobs.iter().any(|job| job.body == leased[0].body), "it is one of them, whole");
}

pub async fn kinds_of_keys_are_apart(world: &World) {
    let unique = Admission::Unique { key: "k".to_owned(), window: ms(30_000) };
    placed(world, &NewJob { admission: unique, ..world.job(NOW) }).await;
    assert_eq!(placed(world, &debounced(world, 0, false)).await, stored_at(NOW));
}

pub async fn what_is_remembered_is_pruned(world: &World) {
    let request = |now| Insert { jobs: vec![world.job(NOW)], once: once(world, "k", "f", now) };
    world.store.insert(request(NOW)).await.unwrap();
    placed(world, &tick(world, 5, Overlap::Allow)).await;
    let until = NOW.plus(ms(1_000));
    let gone = world.store.prune(Prune { now: until, ticks: until, limit: 10, ..Prune::default() }).await.unwrap();
    assert_eq!(gone, 2);
    let forgotten = world.store.insert(request(NOW)).await.unwrap();
    assert!(matches!(forgotten, InsertResult::Placed(_)), "the answer has gone");
    assert_eq!(placed(world, &tick(world, 5, Overlap::Allow)).await, stored_at(NOW.plus(ms(5))), "the tick has gone");
}

/// Returns a job that replaces the waiting jobs of its name, and the job `moved`.
fn replacing(world: &World, name: &str, moved: Option<JobId>) -> NewJob {
    NewJob { name: Some(name.to_owned()), admission: Admission::Replace { moved }, ..world.job(NOW) }
}

pub async fn jobs_of_one_name_are_replaced(world: &World) {
    let first = replacing(world, "n", None);
    assert_eq!(placed(world, &first).await, stored_at(NOW));
    let others = [replacing(world, "nn", None), NewJob { group: world.new_group("other").await, ..first.clone() }];
    for other in others {
        let other = NewJob { id: world.job(NOW).id, ..other };
        assert_eq!(placed(world, &other).await, stored_at(NOW), "another name, another group");
    }
    let leased = world.claim(NOW, 1).await.remove(0);
    assert_eq!(leased.job.id, first.id);
    let second = replacing(world, "n", None);
    assert_eq!(placed(world, &second).await, stored_at(NOW), "the first runs");
    assert!(world.get(first.id).await.cancel_requested);
    let third = replacing(world, "n", None);
    let InsertOutcome::Stored { cancelled, .. } = placed(world, &third).await else { panic!("not stored") };
    assert_eq!(cancelled, [second.id]);
    let settlement = Settlement::retry(&leased, NOW, an_attempt(&leased, None), NOW);
    world.store.settle(vec![settlement]).await.unwrap();
    let states = [world.state(first.id).await, world.state(second.id).await, world.state(third.id).await];
    assert_eq!(states, [State::Cancelled, State::Cancelled, State::Scheduled]);

    let (earlier, later) = (replacing(world, "m", None), replacing(world, "m", None));
    for job in [&later, &earlier] {
        assert!(matches!(placed(world, job).await, InsertOutcome::Stored { .. }));
    }
    assert_eq!(world.state(later.id).await, State::Cancelled);
    let (tenant, group) = (world.tenant, world.group);
    let names = NamesQuery { tenant, group, prefix: "m".to_owned(), after: String::new(), limit: 9 };
    let newest = world.store.newest_of_names(names).await.unwrap();
    assert_eq!(newest.iter().map(|job| job.id).collect::<Vec<_>>(), [earlier.id], "the one that was placed last");

    let rivals: Vec<_> = (0..32).map(|_| replacing(world, "n", None)).collect();
    join_all(rivals.iter().map(|job| world.store.insert(vec![job.clone()].into()))).await;
    let waiting = world.claim(NOW, 99).await.into_iter().filter(|leased| leased.job.name.as_deref() == Some("n"));
    assert_eq!(waiting.count(), 1, "of 32 at once");
}

pub async fn a_job_is_moved_unless_it_runs(world: &World) {
    let first = replacing(world, "a", None);
    placed(world, &first).await;
    let second = replacing(world, "b", Some(first.id));
    let InsertOutcome::Stored { cancelled, .. } = placed(world, &second).await else { panic!("not stored") };
    assert_eq!((cancelled, world.state(first.id).await), (vec![first.id], State::Cancelled));
    let leased = world.claim(NOW, 1).await.remove(0);
    assert_eq!(placed(world, &replacing(world, "c", Some(second.id))).await, InsertOutcome::Skipped, "it runs");
    let settlement = Settlement::dead(&leased, NOW, an_attempt(&leased, None));
    world.store.settle(vec![settlement]).await.unwrap();
    let third = replacing(world, "c", Some(second.id));
    assert_eq!(placed(world, &third).await, stored_at(NOW));
    assert_eq!(world.store.job(world.tenant, second.id).await.unwrap(), None, "what has ended is removed");
    assert_eq!(placed(world, &replacing(world, "d", Some(second.id))).await, InsertOutcome::Skipped, "it is not there");
    assert_eq!(world.state(third.id).await, State::Scheduled);
}
