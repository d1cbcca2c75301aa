//! Cases of leasing jobs.

use std::collections::HashSet;

use super::*;
use crate::{Extension, GroupBacklog, SettleOutcome};
use carillon_core::job::{DispatchMode, HISTORY_LIMIT, Settlement, Token};

pub async fn goes_to_the_earliest_within_the_quota(world: &World) {
    // Stored from the latest to the earliest; the two earliest have the same `run_at`.
    let jobs: Vec<NewJob> = [40, 30, 20, 10, 10].map(|late| world.job(NOW.minus(ms(100 - late)))).into();
    world.store.insert(jobs.clone().into()).await.unwrap();
    assert_eq!(ids(&world.claim(NOW, 3).await), [jobs[3].id, jobs[4].id, jobs[2].id]);
    assert_eq!(ids(&world.claim(NOW, 3).await), [jobs[1].id, jobs[0].id]);
    assert!(world.claim(NOW, 3).await.is_empty());
    assert!(world.claim(NOW, 0).await.is_empty());
}

pub async fn never_comes_early(world: &World) {
    let job = world.job(NOW.plus(ms(1)));
    world.store.insert(vec![job.clone()].into()).await.unwrap();
    assert!(world.claim(NOW, 10).await.is_empty());
    assert_eq!(world.state(job.id).await, State::Scheduled);
    assert_eq!(ids(&world.claim(NOW.plus(ms(1)), 10).await), [job.id]);
    assert_eq!(world.state(job.id).await, State::Running);
}

pub async fn comes_from_the_named_groups_only(world: &World) {
    let other = world.new_group("other").await;
    let third = world.new_group("third").await;
    let jobs = [world.group, other, third].map(|group| [world.job_in(group, NOW), world.job_in(group, NOW)]);
    world.store.insert(jobs.concat().into()).await.unwrap();
    let quotas = vec![(other, 1), (third, 5)];
    let claim =
        ClaimDue { due_by: NOW, lease_until: NOW.plus(LEASE), mode: DispatchMode::Push, quotas, owed: Vec::new() };
    let claimed: HashSet<JobId> = ids(&world.store.claim_due(claim).await.unwrap()).into_iter().collect();
    assert_eq!(claimed, HashSet::from([jobs[1][0].id, jobs[2][0].id, jobs[2][1].id]));
    let none = ClaimDue {
        due_by: NOW,
        lease_until: NOW.plus(LEASE),
        mode: DispatchMode::Push,
        quotas: Vec::new(),
        owed: Vec::new(),
    };
    assert!(world.store.claim_due(none).await.unwrap().is_empty());
}

pub async fn comes_from_many_groups_at_once(world: &World) {
    let mut quotas = Vec::new();
    for n in 0..70 {
        let group = world.new_group(&format!("group-{n}")).await;
        world.store.insert((0..3).map(|_| world.job_in(group, NOW)).collect::<Vec<_>>().into()).await.unwrap();
        quotas.push((group, n % 3));
    }
    let expected: u32 = quotas.iter().map(|(_, quota)| quota).sum();
    let claim = ClaimDue {
        due_by: NOW,
        lease_until: NOW.plus(LEASE),
        mode: DispatchMode::Push,
        quotas: quotas.clone(),
        owed: Vec::new(),
    };
    let leased = world.store.claim_due(claim).await.unwrap();
    assert_eq!(leased.len(), expected as usize);
    for (group, quota) in quotas {
        assert_eq!(leased.iter().filter(|leased| leased.job.group == group).count(), quota as usize);
    }
}

pub async fn is_given_once(world: &World) {
    const JOBS: usize = 500;
    const CLAIMERS: usize = 32;
    let inserted: HashSet<JobId> = world.insert_due(JOBS).await.into_iter().collect();
    let claimers: Vec<_> = (0..CLAIMERS)
        .map(|_| {
            let (store, group) = (Arc::clone(&world.store), world.group);
            tokio::spawn(async move {
                let mut got = Vec::new();
                loop {
                    match ids(&claim(&*store, group, NOW, 7).await) {
                        none if none.is_empty() => return got,
                        some => got.extend(some),
                    }
                }
            })
        })
        .collect();
    let mut got = Vec::new();
    for claimer in claimers {
        got.extend(claimer.await.unwrap());
    }
    assert_eq!(got.len(), JOBS, "no job is leased twice, none is forgotten");
    assert_eq!(got.into_iter().collect::<HashSet<_>>(), inserted);
}

pub async fn waiting_groups_are_named_with_their_earliest_job(world: &World) {
    assert_eq!(world.store.waiting().await.unwrap(), []);
    let other = world.new_group("other").await;
    let _idle = world.new_group("idle").await;
    let mut jobs: Vec<NewJob> = [70, 50, 60].map(|at| world.job(NOW.plus(ms(at)))).into();
    jobs.push(world.job_in(other, NOW));
    jobs.push(world.job_in(other, NOW.plus(ms(90))));
    world.store.insert(jobs.into()).await.unwrap();
    let waiting = |group, at| {
        let mut by_priority = [UnixMs::MAX; 10];
        by_priority[usize::from(u8::from(Priority::default()))] = NOW.plus(ms(at));
        GroupBacklog { group, mode: DispatchMode::Push, earliest: NOW.plus(ms(at)), by_priority }
    };
    assert_eq!(world.store.waiting().await.unwrap(), [waiting(world.group, 50), waiting(other, 0)]);
    claim(&*world.store, other, NOW, 1).await;
    assert_eq!(world.store.waiting().await.unwrap(), [waiting(world.group, 50), waiting(other, 90)]);
    claim(&*world.store, other, NOW.plus(ms(90)), 1).await;
    assert_eq!(world.store.waiting().await.unwrap(), [waiting(world.group, 50)]);
}

pub async fn that_ran_out_is_given_anew(world: &World) {
    world.insert_due(3).await;
    let first = world.claim(NOW, 3).await;
    let end = NOW.plus(LEASE);
    let again = |now, limit| claim_lost(&*world.store, now, end.plus(LEASE), limit);
    assert!(again(end.minus(ms(1)), 10).await.is_empty());

    let second = again(end, 2).await;
    assert_eq!(second.len(), 2);
    for leased in &second {
        let before = first.iter().find(|first| first.job.id == leased.job.id).unwrap();
        assert!(leased.token > before.token);
        assert_eq!((leased.lost_leases, leased.job.state, leased.number()), (1, State::Running, 1));
        assert_eq!(leased.body, before.body);
    }
    let rest = again(end, 10).await;
    assert_eq!(rest.len(), 1);
    assert!(again(end, 10).await.is_empty(), "the new leases have not ended");
    let third = claim_lost(&*world.store, end.plus(LEASE), end.plus(LEASE).plus(LEASE), 10).await;
    assert_eq!(third.iter().map(|leased| leased.lost_leases).collect::<Vec<_>>(), [2, 2, 2]);
}

pub async fn that_ran_out_cannot_settle_or_extend(world: &World) {
    let late = world.leased().await;
    let end = NOW.plus(LEASE);
    let new = claim_lost(&*world.store, end, end.plus(LEASE), 10).await.remove(0);
    let settle = |leased: &LeasedJob| Settlement::succeeded(leased, end, an_attempt(leased, Some(200)));

    assert_eq!(
        world.store.extend(vec![(late.job.id, late.token)], Extension::AtLeast(UnixMs::MAX)).await.unwrap(),
        [false]
    );
    assert_eq!(world.store.settle(vec![settle(&late)]).await.unwrap(), [SettleOutcome::LeaseLost]);
    assert_eq!(world.state(late.job.id).await, State::Running);
    assert!(world.store.attempts(world.tenant, late.job.id, 0, 10).await.unwrap().is_empty());

    assert_eq!(world.store.settle(vec![settle(&new)]).await.unwrap(), [SettleOutcome::Applied(State::Succeeded)]);
    assert_eq!(world.store.settle(vec![settle(&new)]).await.unwrap(), [SettleOutcome::LeaseLost]);
    assert_eq!(
        world.store.extend(vec![(new.job.id, new.token)], Extension::AtLeast(UnixMs::MAX)).await.unwrap(),
        [false]
    );
}

pub async fn is_taken_back_only_where_it_is_named(world: &World) {
    world.insert_due(2).await;
    let [held, lost] = &world.claim(NOW, 2).await[..] else { panic!("two") };
    let end = NOW.plus(LEASE);
    let ending: HashSet<_> = world.store.ending_leases(NOW, end, 10).await.unwrap().into_iter().collect();
    assert_eq!(ending, HashSet::from([(held.lease(), end), (lost.lease(), end)]));
    assert!(world.store.ending_leases(NOW, end.minus(ms(1)), 10).await.unwrap().is_empty());
    assert_eq!(world.store.ending_leases(NOW, end, 1).await.unwrap().len(), 1);

    let stale = (held.job.id, Token(held.token.0 - 1));
    let take_back =
        |lost, now| world.store.claim_lost(ClaimLost { lost, ended_by: now, now, lease_until: end.plus(LEASE) });
    assert!(take_back(vec![lost.lease()], end.minus(ms(1))).await.unwrap().is_empty(), "it has not ended");
    assert_eq!(ids(&take_back(vec![lost.lease(), stale], end).await.unwrap()), [lost.job.id]);
    assert!(take_back(vec![lost.lease()], end).await.unwrap().is_empty(), "a newer lease is in force");
    let done = Settlement::succeeded(held, end, an_attempt(held, Some(200)));
    assert_eq!(world.store.settle(vec![done]).await.unwrap(), [SettleOutcome::Applied(State::Succeeded)]);
}

pub async fn that_was_lost_to_a_pause_is_not_counted(world: &World) {
    let first = world.leased().await;
    let end = NOW.plus(LEASE);
    let second = claim_lost(&*world.store, end, end.plus(LEASE), 10).await.remove(0);
    let third = claim_lost(&*world.store, end.plus(LEASE), end.plus(LEASE).plus(LEASE), 10).await.remove(0);
    assert_eq!((second.lost_leases, third.lost_leases), (1, 2));
    // The holders of the first two leases are back. The holder of the third never left.
    world.store.excuse(vec![first.lease(), (JobId(Uuid::nil()), Token(1))]).await.unwrap();
    world.store.excuse(vec![third.lease()]).await.unwrap();
    let later = end.plus(LEASE).plus(LEASE);
    let fourth = claim_lost(&*world.store, later, later.plus(LEASE), 10).await.remove(0);
    assert_eq!(fourth.lost_leases, 2, "three were lost, and one of them is excused");
    for _ in 0..9 {
        world.store.excuse(vec![first.lease()]).await.unwrap();
    }
    let last = claim_lost(&*world.store, later.plus(LEASE), UnixMs::MAX, 10).await.remove(0);
    assert_eq!(last.lost_leases, 1, "never less than none");
}

pub async fn can_be_prolonged(world: &World) {
    world.insert_due(2).await;
    let leased = world.claim(NOW, 2).await;
    let end = NOW.plus(LEASE);
    let prolong = vec![
        (leased[0].job.id, leased[0].token),
        (leased[1].job.id, Token(leased[1].token.0 + 1)),
        (JobId(Uuid::nil()), Token(1)),
        (leased[0].job.id, leased[0].token),
    ];
    assert_eq!(
        world.store.extend(prolong, Extension::AtLeast(end.plus(ms(1)))).await.unwrap(),
        [true, false, false, true]
    );
    assert_eq!(world.store.extend(Vec::new(), Extension::AtLeast(end)).await.unwrap(), Vec::<bool>::new());
    assert_eq!(ids(&claim_lost(&*world.store, end, UnixMs::MAX, 10).await), [leased[1].job.id]);
    assert_eq!(ids(&claim_lost(&*world.store, end.plus(ms(1)), UnixMs::MAX, 10).await), [leased[0].job.id]);
}

/// A call of a node that has given it up may take effect after later ones.
pub async fn is_moved_back_only_where_that_is_asked_for(world: &World) {
    let leased = world.leased().await;
    let (end, lease) = (NOW.plus(LEASE), leased.lease());
    let extend = async |extension| assert_eq!(world.store.extend(vec![lease], extension).await.unwrap(), [true]);
    let ending = async || world.store.ending_leases(NOW, end.plus(LEASE), 10).await.unwrap();
    extend(Extension::AtLeast(end.plus(ms(2)))).await;
    extend(Extension::AtLeast(end.plus(ms(1)))).await;
    assert_eq!(ending().await, [(lease, end.plus(ms(2)))]);
    extend(Extension::Exactly(end.minus(ms(1)))).await;
    assert_eq!(ending().await, [(lease, end.minus(ms(1)))]);
}

pub async fn shows_the_last_hundred_attempts(world: &World) {
    let neighbour = world.leased().await;
    let mut leased = world.leased().await;
    let id = leased.job.id;
    for n in 0..HISTORY_LIMIT as u64 + 5 {
        assert_eq!(leased.history.len() as u64, n.min(HISTORY_LIMIT as u64));
        let mut attempt = an_attempt(&leased, Some(503));
        attempt.started_at = NOW.plus(ms(n));
        let retry = Settlement::retry(&leased, NOW, attempt, NOW);
        assert_eq!(world.store.settle(vec![retry]).await.unwrap(), [SettleOutcome::Applied(State::Scheduled)]);
        leased = world.claim(NOW, 1).await.remove(0);
        assert_eq!(leased.job.id, id);
    }
    let numbers: Vec<u32> = leased.history.iter().map(|past| past.number).collect();
    assert_eq!(numbers, (6..=105).collect::<Vec<_>>(), "the last hundred, oldest first");
    let last = leased.history.last().unwrap();
    assert_eq!((last.started_at, last.status), (NOW.plus(ms(104)), Some(503)));
    assert_eq!((last.finished_at, last.outcome), (NOW.plus(ms(12)), Outcome::Retryable));
    assert_eq!((leased.number(), leased.unspent_leases()), (106, 0));
    assert!(neighbour.history.is_empty());
}

/// After a restart, no job has two valid leases: the lease is still valid, or a new one replaces it.
pub async fn survives_reopening_or_ends(world: &World) {
    let before = world.leased().await;
    let store = world.reopened().await;
    let settle = |leased: &LeasedJob| vec![Settlement::succeeded(leased, NOW, an_attempt(leased, Some(200)))];
    match claim_lost(&*store, NOW, NOW.plus(LEASE), 10).await.pop() {
        Some(after) => {
            assert!(after.token > before.token);
            assert_eq!(store.settle(settle(&before)).await.unwrap(), [SettleOutcome::LeaseLost]);
            assert_eq!(store.settle(settle(&after)).await.unwrap(), [SettleOutcome::Applied(State::Succeeded)]);
        }
        None => assert_eq!(store.settle(settle(&before)).await.unwrap(), [SettleOutcome::Applied(State::Succeeded)]),
    }
}

/// Returns how many of the group's jobs are scheduled, running and dead.
async fn scheduled_running_dead(world: &World) -> [u64; 3] {
    let stats = world.store.stats(world.tenant, world.group, NOW).await.unwrap();
    [stats.scheduled, stats.running, stats.dead]
}

pub async fn of_a_job_that_cannot_be_read_ends_it_and_others_flow_on(world: &World) {
    let ordered = |run_at| NewJob { order_key: Some("k".to_owned()), ..world.job(run_at) };
    let jobs = [world.job(NOW), ordered(NOW.plus(ms(1))), ordered(NOW.plus(ms(2))), world.job(NOW.plus(ms(3)))];
    let made: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    world.store.insert(jobs.to_vec().into()).await.unwrap();
    world.damage(made[0]).await;
    world.damage(made[1]).await;
    let now = NOW.plus(ms(10));
    // A claim of one job meets the damaged jobs first.
    let claimed = world.claim(now, 1).await;
    assert_eq!(ids(&claimed), [made[2]], "those behind it, and behind its order key");
    assert_eq!(scheduled_running_dead(world).await, [1, 1, 2]);
    let attempts = world.store.attempts(world.tenant, made[0], 0, 10).await.unwrap();
    assert_eq!(attempts.len(), 1);
    let detail = &attempts[0].detail;
    assert!(!detail.spent, "nothing was sent");
    let error = detail.error.as_ref().unwrap();
    assert_eq!(error.code, ErrorCode::StoreUnreadable);
    assert!(error.message.contains("cannot be read") && error.message.contains("spec"), "{}", error.message);

    // A job that is damaged while it is leased ends when its lease has expired.
    world.damage(made[2]).await;
    let later = now.plus(LEASE);
    assert!(claim_lost(&*world.store, later, later.plus(LEASE), 10).await.is_empty());
    assert_eq!(scheduled_running_dead(world).await, [1, 0, 3]);
    assert!(world.store.ending_leases(later, later.plus(LEASE), 10).await.unwrap().is_empty(), "it is not met again");
}

pub async fn unreadable_jobs_take_no_place_of_a_claim(world: &World) {
    let made = world.insert_due(7).await;
    world.damage(made[0]).await;
    world.damage(made[2]).await;
    assert_eq!(ids(&world.claim(NOW, 4).await), [made[1], made[3], made[4], made[5]]);
    assert_eq!(scheduled_running_dead(world).await, [1, 4, 2]);
}

/// A lease that is revoked before its end is over now, and not at the time up to which leases are revoked.
pub async fn of_an_unreadable_job_is_revoked_at_the_present_time(world: &World) {
    let leased = world.leased().await;
    world.damage(leased.job.id).await;
    let now = NOW.plus(ms(5));
    let lost = vec![leased.lease()];
    let claim = ClaimLost { lost, ended_by: UnixMs::MAX, now, lease_until: now.plus(LEASE) };
    assert!(world.store.claim_lost(claim).await.unwrap().is_empty());
    let attempts = world.store.attempts(world.tenant, leased.job.id, 0, 10).await.unwrap();
    assert_eq!(attempts.iter().map(|attempt| attempt.finished_at).collect::<Vec<_>>(), [now]);
}
