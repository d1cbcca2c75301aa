//! Cases of changes that people make to jobs, and of what follows from a job's end.

use super::*;
use crate::{ClaimOverdue, Edit, SettleOutcome, StoreError};
use carillon_core::job::{Settlement, Token};

/// Makes a job in this state.
async fn in_state(world: &World, state: State) -> JobId {
    let leased = match state {
        State::Scheduled => return world.insert_due(1).await[0],
        State::Cancelled => {
            let [id] = world.insert_due(1).await[..] else { unreachable!() };
            world.change(id, JobChange::Cancel).await;
            return id;
        }
        _ => world.leased().await,
    };
    let attempt = an_attempt(&leased, Some(200));
    let settlement = match state {
        State::Succeeded => Settlement::succeeded(&leased, NOW, attempt),
        State::Dead => Settlement::dead(&leased, NOW, attempt),
        State::Expired => Settlement::expired(&leased, NOW, None),
        _ => return leased.job.id,
    };
    world.store.settle(vec![settlement]).await.unwrap();
    leased.job.id
}

fn edit(job: &Job) -> Edit {
    let spec = Spec { timeout_ms: Some(9), ..job.spec.clone() };
    let body = Some(Bytes::from_static(b"new"));
    Edit { revision: job.revision, name: Some("n".to_owned()), run_at: job.run_at, priority: Priority::MAX, spec, body }
}

pub async fn each_change_in_each_state(world: &World) {
    use State::{Cancelled, Dead, Expired, Running, Scheduled, Succeeded};
    let later = NOW.plus(ms(5));
    let cases: [(JobChange, &[State], State); 5] = [
        (JobChange::Cancel, &[Scheduled], Cancelled),
        (JobChange::Withdraw, &[Scheduled], Cancelled),
        (JobChange::Reschedule(later), &[Scheduled], Scheduled),
        (JobChange::Redrive(later), &[Dead, Expired], Scheduled),
        (JobChange::Purge, &[Succeeded, Dead, Expired, Cancelled], Succeeded),
    ];
    for (change, from, to) in cases {
        for state in [Scheduled, Running, Succeeded, Dead, Expired, Cancelled] {
            let id = in_state(world, state).await;
            let changed = world.change(id, change.clone()).await;
            let context = format!("{change:?} of a job that is {state}");
            let after = world.store.job(world.tenant, id).await.unwrap();
            match after {
                None => assert!(change == JobChange::Purge && from.contains(&state), "{context}"),
                Some(job) if from.contains(&state) => {
                    assert_eq!((changed, job.state), (ChangeOutcome::Done, to), "{context}");
                    assert!(to == Cancelled || job.run_at == later, "{context}");
                    assert_eq!(job.finished_at.is_some(), to.is_final(), "{context}");
                }
                Some(job) if (state, &change) == (Running, &JobChange::Cancel) => {
                    assert_eq!((changed, job.state), (ChangeOutcome::Requested, Running), "{context}");
                }
                Some(job) => assert_eq!((changed, job.state), (ChangeOutcome::Not(state), state), "{context}"),
            }
            world.change(id, JobChange::Cancel).await;
        }
    }
    assert_eq!(world.change(JobId(Uuid::nil()), JobChange::Purge).await, ChangeOutcome::Unknown);
}

pub async fn a_redrive_begins_a_new_series(world: &World) {
    let job = NewJob { deadline: Some(NOW.plus(ms(100))), ..world.job(NOW) };
    world.store.insert(vec![job.clone()].into()).await.unwrap();
    let mut leased = world.claim(NOW, 1).await.remove(0);
    let settlement = Settlement::retry(&leased, NOW, an_attempt(&leased, None), NOW);
    world.store.settle(vec![settlement]).await.unwrap();
    leased = world.claim(NOW, 1).await.remove(0);
    let settlement = Settlement::dead(&leased, NOW, an_attempt(&leased, None));
    world.store.settle(vec![settlement]).await.unwrap();

    let later = NOW.plus(ms(1_000));
    assert_eq!(world.change(job.id, JobChange::Redrive(later)).await, ChangeOutcome::Done);
    let redriven = world.get(job.id).await;
    assert_eq!((redriven.run_at, redriven.deadline), (later, Some(later.plus(ms(100)))), "it gets its time again");
    let leased = world.claim(later, 1).await.remove(0);
    assert_eq!((leased.number(), leased.number_in_series()), (3, 1));
    assert!(leased.history.is_empty());
    let settlement = Settlement::retry(&leased, later, an_attempt(&leased, None), later);
    world.store.settle(vec![settlement]).await.unwrap();
    let leased = world.claim(later, 1).await.remove(0);
    assert_eq!(leased.history.iter().map(|past| past.number).collect::<Vec<_>>(), [1]);
    assert_eq!(world.store.attempts(world.tenant, job.id, 0, 10).await.unwrap().len(), 3, "all attempts are kept");
}

pub async fn each_life_is_as_long_as_the_first(world: &World) {
    let job = NewJob { deadline: Some(NOW.plus(ms(100))), ..world.job(NOW) };
    let endless = world.job(NOW);
    world.store.insert(vec![job.clone(), endless.clone()].into()).await.unwrap();
    for (life, end) in [Settlement::dead, |leased: &LeasedJob, at, _| Settlement::expired(leased, at, None)]
        .into_iter()
        .cycle()
        .take(5)
        .enumerate()
    {
        let began = world.get(job.id).await.run_at;
        let leased = world.claim(began, 2).await;
        let ends = leased.iter().map(|leased| end(leased, began, an_attempt(leased, None))).collect();
        world.store.settle(ends).await.unwrap();
        let later = began.plus(ms(1_000_000));
        assert_eq!(world.change(job.id, JobChange::Redrive(later)).await, ChangeOutcome::Done);
        assert_eq!(world.change(endless.id, JobChange::Redrive(later)).await, ChangeOutcome::Done);
        let redriven = world.get(job.id).await;
        assert_eq!((redriven.run_at, redriven.deadline), (later, Some(later.plus(ms(100)))), "after life {life}");
        assert_eq!(world.get(endless.id).await.deadline, None);
        // A new `run_at` does not change how much time a redriven job gets.
        world.change(job.id, JobChange::Reschedule(later.plus(ms(50)))).await;
        let edit = Edit { run_at: later.plus(ms(50)), ..edit(&world.get(job.id).await) };
        assert_eq!(world.change(job.id, JobChange::Edit(Box::new(edit))).await, ChangeOutcome::Done);
        world.change(endless.id, JobChange::Reschedule(later.plus(ms(50)))).await;
    }
}

pub async fn an_edit_replaces_and_counts(world: &World) {
    let id = in_state(world, State::Scheduled).await;
    let before = world.get(id).await;
    let change = JobChange::Edit(Box::new(edit(&before)));
    assert_eq!(world.change(id, change.clone()).await, ChangeOutcome::Done);
    let after = world.get(id).await;
    assert_eq!((after.name.as_deref(), after.priority, after.revision), (Some("n"), Priority::MAX, 1));
    assert_eq!(after.spec.timeout_ms, Some(9));
    assert_eq!(world.store.body(world.tenant, id).await.unwrap().unwrap(), "new");
    assert_eq!(world.change(id, change).await, ChangeOutcome::Stale, "it was made from an older revision");
    let kept = Edit { body: None, ..edit(&after) };
    assert_eq!(world.change(id, JobChange::Edit(Box::new(kept))).await, ChangeOutcome::Done);
    assert_eq!(world.store.body(world.tenant, id).await.unwrap().unwrap(), "new");
    let running = world.get(in_state(world, State::Running).await).await;
    let changed = world.change(running.id, JobChange::Edit(Box::new(edit(&running)))).await;
    assert_eq!(changed, ChangeOutcome::Not(State::Running));
}

pub async fn an_edit_that_keeps_a_payload_keeps_its_mark(world: &World) {
    let hostile = Some(json!({"sealed_body": true}));
    for is_sealed in [false, true] {
        let mut job = world.job(NOW);
        job.spec = Spec { sealed_body: is_sealed, policy: hostile.clone(), ..job.spec };
        world.store.insert(vec![job.clone()].into()).await.unwrap();
        let edited = async |change: Edit| {
            assert_eq!(world.change(job.id, JobChange::Edit(Box::new(change))).await, ChangeOutcome::Done);
            world.get(job.id).await
        };
        let before = world.get(job.id).await;
        let spec = |sealed_body| Spec { sealed_body, timeout_ms: Some(9), ..before.spec.clone() };
        let kept = edited(Edit { body: None, spec: spec(false), ..edit(&before) }).await;
        assert_eq!(kept.spec, spec(is_sealed), "the payload is what it was");
        let replaced = edited(Edit { spec: spec(!is_sealed), ..edit(&kept) }).await;
        assert_eq!(replaced.spec, spec(!is_sealed), "the caller knows the form of a new payload");
    }
}

pub async fn many_are_changed_in_order(world: &World) {
    let ids = world.insert_due(1_200).await;
    let stranger = JobId(Uuid::nil());
    let asked: Vec<JobId> = ids.iter().copied().chain([stranger, ids[0]]).collect();
    let changed = world.store.change(world.tenant, asked, JobChange::Cancel, NOW).await.unwrap();
    assert!(changed[..1_200].iter().all(|changed| *changed == ChangeOutcome::Done));
    assert_eq!(changed[1_200], ChangeOutcome::Unknown);
}

pub async fn overdue_jobs_are_found(world: &World) {
    let until = |deadline: Option<u64>, max_delay: Option<u64>| NewJob {
        deadline: deadline.map(|at| NOW.plus(ms(at))),
        max_delay: max_delay.map(ms),
        order_key: Some("k".to_owned()),
        ..world.job(NOW)
    };
    let jobs = [
        until(Some(5), None),
        until(None, Some(6)),
        until(Some(9), Some(7)),
        until(Some(8), Some(9)),
        until(None, None),
    ];
    world.store.insert(jobs.to_vec().into()).await.unwrap();
    for (index, end) in [5, 6, 7, 8].into_iter().enumerate() {
        let at = |time| {
            let (now, lease_until) = (NOW.plus(ms(time)), NOW.plus(LEASE));
            world.store.claim_overdue(ClaimOverdue { now, lease_until, limit: 10 })
        };
        assert!(at(end).await.unwrap().is_empty(), "the last moment is in time");
        let overdue = at(end + 1).await.unwrap();
        assert_eq!(ids(&overdue), [jobs[index].id], "one that is blocked, too");
        assert_eq!(overdue[0].job.expires_at(), Some(NOW.plus(ms(end))));
        let settled = world.store.settle(vec![Settlement::expired(&overdue[0], NOW, None)]).await.unwrap();
        assert_eq!(settled, [SettleOutcome::Applied(State::Expired)]);
    }
    assert_eq!(ids(&world.claim(NOW, 9).await), [jobs[4].id]);
}

pub async fn follow_ups_come_with_the_settlement(world: &World) {
    let leased = world.leased().await;
    let follow_up = |group| NewJob { run_at: NOW.plus(ms(9)), ..world.job_in(group, NOW) };
    let (next, lost) = (follow_up(world.group), follow_up(GroupId(77)));
    let mut settlement = Settlement::succeeded(&leased, NOW, an_attempt(&leased, Some(200)));
    settlement.follow_ups = vec![next.clone(), lost];
    let mut stale = settlement.clone();
    (stale.token, stale.follow_ups) = (Token(99), vec![follow_up(world.group)]);
    let settled = world.store.settle(vec![stale, settlement.clone(), settlement]).await.unwrap();
    let applied = SettleOutcome::Applied(State::Succeeded);
    assert_eq!(settled, [SettleOutcome::LeaseLost, applied, SettleOutcome::LeaseLost]);
    assert_eq!(ids(&world.claim(NOW.plus(ms(9)), 9).await), [next.id]);
}

pub async fn a_lease_is_held_by_its_newest_token(world: &World) {
    let leased = world.leased().await;
    let held = |tenant, token, now| world.store.held(tenant, leased.job.id, token, now);
    assert_eq!(held(world.tenant, leased.token, NOW).await.unwrap(), Some(leased.clone()));
    let end = NOW.plus(LEASE);
    assert!(held(world.tenant, leased.token, end.minus(ms(1))).await.unwrap().is_some());
    assert_eq!(held(world.tenant, leased.token, end).await.unwrap(), None, "it has ended");
    assert_eq!(held(world.tenant, Token(9), NOW).await.unwrap(), None);
    assert_eq!(held(TenantId(77), leased.token, NOW).await.unwrap(), None);
    let settlement = Settlement::released(&leased, NOW);
    world.store.settle(vec![settlement]).await.unwrap();
    assert_eq!(held(world.tenant, leased.token, NOW).await.unwrap(), None);
}

/// The content of such a job is unknown; all that a change needs is its state.
pub async fn a_job_that_cannot_be_read_is_cancelled_and_purged(world: &World) {
    let read = async |id| world.store.job(world.tenant, id).await;
    let ordered = || NewJob { order_key: Some("k".to_owned()), ..world.job(NOW) };
    let (damaged, next) = (ordered(), ordered());
    world.store.insert(vec![damaged.clone(), next.clone()].into()).await.unwrap();
    world.damage(damaged.id).await;
    assert_eq!(read(damaged.id).await, Err(StoreError::Unreadable(damaged.id)));
    let stranger = TenantId(world.tenant.0 + 77);
    assert_eq!(world.store.job(stranger, damaged.id).await, Ok(None), "another tenant learns nothing of it");
    assert_eq!(world.change(damaged.id, JobChange::Purge).await, ChangeOutcome::Not(State::Scheduled));
    assert_eq!(world.change(damaged.id, JobChange::Cancel).await, ChangeOutcome::Done);
    assert_eq!(ids(&world.claim(NOW, 9).await), [next.id], "its order key is free");
    assert_eq!(read(damaged.id).await, Err(StoreError::Unreadable(damaged.id)));
    assert_eq!(world.change(damaged.id, JobChange::Cancel).await, ChangeOutcome::Not(State::Cancelled));
    assert_eq!(world.change(damaged.id, JobChange::Purge).await, ChangeOutcome::Done);
    assert_eq!(read(damaged.id).await, Ok(None));

    let running = world.leased().await;
    world.damage(running.job.id).await;
    assert_eq!(world.change(running.job.id, JobChange::Cancel).await, ChangeOutcome::Requested);
    let retry = Settlement::retry(&running, NOW, an_attempt(&running, Some(503)), NOW);
    assert_eq!(world.store.settle(vec![retry]).await.unwrap(), [SettleOutcome::Applied(State::Cancelled)]);
    assert_eq!(world.change(running.job.id, JobChange::Purge).await, ChangeOutcome::Done);
    assert_eq!(read(running.job.id).await, Ok(None));
}
