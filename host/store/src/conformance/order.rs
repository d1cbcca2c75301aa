//! Cases of the order in which due jobs are claimed.

use super::*;
use crate::{Owed, Stats};
use carillon_core::job::{DispatchMode, Settlement};

fn of_key(world: &World, key: &str) -> NewJob {
    NewJob { order_key: Some(key.to_owned()), ..world.job(NOW) }
}

async fn stored(world: &World, jobs: &[NewJob]) -> Vec<JobId> {
    world.store.insert(jobs.to_vec().into()).await.unwrap();
    jobs.iter().map(|job| job.id).collect()
}

async fn end(world: &World, leased: &LeasedJob, state: State) {
    let attempt = an_attempt(leased, Some(200));
    let settlement = match state {
        State::Succeeded => Settlement::succeeded(leased, NOW, attempt),
        State::Dead => Settlement::dead(leased, NOW, attempt),
        State::Expired => Settlement::expired(leased, NOW, None),
        _ => Settlement::retry(leased, NOW, attempt, NOW),
    };
    world.store.settle(vec![settlement]).await.unwrap();
}

pub async fn priority_goes_first(world: &World) {
    let with = |priority, run_at| NewJob { priority: Priority::new(priority).unwrap(), ..world.job(run_at) };
    let early = NOW.minus(ms(1_000));
    let jobs = [with(0, early), with(4, NOW), with(9, NOW), with(4, early), with(9, NOW.plus(ms(1)))];
    let ids = stored(world, &jobs).await;
    assert_eq!(super::ids(&world.claim(NOW, 2).await), [ids[2], ids[3]], "the quota is for all priorities together");
    assert_eq!(super::ids(&world.claim(NOW, 9).await), [ids[1], ids[0]], "what is not due waits, however urgent");
    let waiting = world.store.waiting().await.unwrap();
    assert_eq!(waiting.iter().map(|group| group.earliest).collect::<Vec<_>>(), [NOW.plus(ms(1))]);
}

pub async fn one_of_a_key_at_a_time_in_order(world: &World) {
    let jobs = [of_key(world, "a"), of_key(world, "a"), of_key(world, "b"), world.job(NOW), of_key(world, "a")];
    let ids = stored(world, &jobs).await;
    let first = world.claim(NOW, 9).await;
    assert_eq!(super::ids(&first), [ids[0], ids[2], ids[3]]);
    assert!(world.claim(NOW, 9).await.is_empty(), "the key is taken");
    assert!(world.store.waiting().await.unwrap().is_empty(), "nobody waits for what is blocked");
    let stats = world.store.stats(world.tenant, world.group, NOW).await.unwrap();
    assert_eq!(stats, Stats { scheduled: 2, running: 3, in_flight: 3, available: 0, delayed: 2, ..stats });

    end(world, &first[0], State::Scheduled).await;
    let again = world.claim(NOW, 9).await;
    assert_eq!(super::ids(&again), [ids[0]], "a retry keeps its place");
    end(world, &again[0], State::Succeeded).await;
    let second = world.claim(NOW, 9).await;
    assert_eq!(super::ids(&second), [ids[1]]);
    let late = stored(world, &[of_key(world, "a")]).await;
    end(world, &second[0], State::Dead).await;
    let third = world.claim(NOW, 9).await;
    assert_eq!(super::ids(&third), [ids[4]]);
    end(world, &third[0], State::Succeeded).await;
    assert_eq!(super::ids(&world.claim(NOW, 9).await), late);
}

pub async fn a_key_is_free_after_each_kind_of_end(world: &World) {
    for state in [State::Succeeded, State::Dead, State::Expired, State::Cancelled] {
        let key = state.as_str();
        let ids = stored(world, &[of_key(world, key), of_key(world, key)]).await;
        if state == State::Cancelled {
            world.change(ids[0], JobChange::Cancel).await;
        } else {
            end(world, &world.claim(NOW, 9).await[0], state).await;
        }
        let next = world.claim(NOW, 9).await;
        assert_eq!(super::ids(&next), ids[1..], "after {state}");
        end(world, &next[0], State::Succeeded).await;
    }
    let ids = stored(world, &[of_key(world, "x"), of_key(world, "x"), of_key(world, "x")]).await;
    world.change(ids[1], JobChange::Cancel).await;
    let first = world.claim(NOW, 9).await;
    assert_eq!(super::ids(&first), ids[..1], "the end of a blocked job frees nothing");
    end(world, &first[0], State::Succeeded).await;
    assert_eq!(super::ids(&world.claim(NOW, 9).await), ids[2..]);
}

pub async fn a_redriven_job_waits_for_its_key(world: &World) {
    let ids = stored(world, &[of_key(world, "k"), of_key(world, "k")]).await;
    end(world, &world.claim(NOW, 9).await[0], State::Dead).await;
    let second = world.claim(NOW, 9).await;
    assert_eq!(world.change(ids[0], JobChange::Redrive(NOW)).await, ChangeOutcome::Done);
    assert!(world.claim(NOW, 9).await.is_empty(), "another one of its key is being tried");
    end(world, &second[0], State::Succeeded).await;
    assert_eq!(super::ids(&world.claim(NOW, 9).await), ids[..1]);
}

pub async fn jobs_to_pull_are_apart(world: &World) {
    let pull = NewJob { spec: Spec::default(), ..world.job(NOW) };
    let ids = stored(world, &[pull, world.job(NOW)]).await;
    let mut waiting = world.store.waiting().await.unwrap();
    waiting.sort_by_key(|waiting| waiting.mode);
    assert_eq!(
        waiting.iter().map(|it| (it.group, it.mode)).collect::<Vec<_>>(),
        [(world.group, DispatchMode::Push), (world.group, DispatchMode::Pull)]
    );
    assert_eq!(super::ids(&world.claim(NOW, 9).await), ids[1..]);
    let pull = ClaimDue {
        due_by: NOW,
        lease_until: NOW.plus(LEASE),
        mode: DispatchMode::Pull,
        quotas: vec![(world.group, 9)],
        owed: Vec::new(),
    };
    assert_eq!(super::ids(&world.store.claim_due(pull).await.unwrap()), ids[..1]);
}

pub async fn what_a_priority_is_owed_goes_first(world: &World) {
    let mut jobs: Vec<NewJob> = Vec::new();
    for level in [9, 9, 9, 4, 4, 0] {
        let job = NewJob { priority: Priority::new(level).unwrap(), ..world.job(NOW) };
        jobs.push(job);
    }
    let other = world.new_group("other").await;
    jobs.push(NewJob { priority: Priority::new(0).unwrap(), ..world.job_in(other, NOW) });
    jobs.push(NewJob { priority: Priority::new(0).unwrap(), ..world.job(NOW.plus(ms(1))) });
    world.store.insert(jobs.clone().into()).await.unwrap();
    let owed = |group, level, count| Owed { group, priority: Priority::new(level).unwrap(), count };
    let claim = async |quotas: Vec<(GroupId, u32)>, owed: Vec<Owed>| {
        let claim = ClaimDue { due_by: NOW, lease_until: NOW.plus(LEASE), mode: DispatchMode::Push, quotas, owed };
        let mut found = ids(&world.store.claim_due(claim).await.unwrap());
        found.sort();
        found
    };
    let of = |numbers: &[usize]| numbers.iter().map(|number| jobs[*number].id).collect::<Vec<_>>();
    // One job of the lowest priority, one of the middle one, and the rest of the quota by priority; of a lane with fewer jobs than owed, all.
    let found = claim(vec![(world.group, 3)], vec![owed(world.group, 0, 2), owed(world.group, 4, 1)]).await;
    assert_eq!(found, of(&[0, 3, 5]));
    let found = claim(vec![(world.group, 1), (other, 1)], vec![owed(world.group, 0, 1), owed(other, 9, 1)]).await;
    assert_eq!(found, of(&[1, 6]), "nothing of it is due, or there: the quota goes to the others");
    assert_eq!(claim(vec![(world.group, 9)], vec![owed(world.group, 4, 1)]).await, of(&[2, 4]));
}
