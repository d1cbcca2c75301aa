//! Cases of schedules' jobs: each tick makes one job, or is recorded as a tick that makes none.

use futures_util::future::join_all;

use super::admit::{placed, stored_at};
use super::*;
use crate::{Abort, InsertOutcome, InsertResult, SettleOutcome, StoreError, TickRecord, Ticked, TicksQuery};
use carillon_core::job::{DispatchMode, Overlap, Settlement, SkipReason, SkippedTicks, Tick};

pub fn tick(world: &World, at: u64, overlap: Overlap) -> NewJob {
    let at = NOW.plus(ms(at));
    let tick = Tick { schedule: 7, at, overlap, max_runs: None, again: false };
    NewJob { admission: Admission::Tick(tick), run_at: at, ..world.job(at) }
}

pub async fn a_tick_makes_one_job(world: &World) {
    let jobs: Vec<NewJob> = (0..16).map(|_| tick(world, 5, Overlap::Allow)).collect();
    let results = join_all(jobs.iter().map(|job| world.store.insert(vec![job.clone()].into()))).await;
    let skipped =
        results.iter().filter(|result| **result == Ok(InsertResult::Placed(vec![InsertOutcome::Skipped]))).count();
    assert_eq!(skipped, 15);
    let ticked = Ticked { schedule: 7, last: NOW.plus(ms(5)), runs: 1, extra: 0, skipped: 0, reason: None };
    assert_eq!(world.store.ticked(None).await.unwrap(), [ticked]);
    let store = world.reopened().await;
    let again = store.insert(vec![tick(world, 5, Overlap::Allow)].into()).await.unwrap();
    assert_eq!(again, InsertResult::Placed(vec![InsertOutcome::Skipped]), "after a restart, too");
    assert_eq!(store.ticked(None).await.unwrap(), [ticked]);
    let other = |mut job: NewJob| {
        if let Admission::Tick(tick) = &mut job.admission {
            tick.schedule = 8;
        }
        job
    };
    store.insert(vec![other(tick(world, 6, Overlap::Allow))].into()).await.unwrap();
    assert_eq!(store.ticked(None).await.unwrap().len(), 2);
    assert_eq!(store.ticked(Some(vec![7, 9])).await.unwrap(), [ticked], "what is asked for, and nothing of others");
    assert!(store.ticked(Some(Vec::new())).await.unwrap().is_empty());
}

pub async fn a_tick_skips_queues_or_cancels(world: &World) {
    assert_eq!(placed(world, &tick(world, 0, Overlap::Skip)).await, stored_at(NOW));
    let running = world.claim(NOW, 1).await.remove(0);
    let unfinished = InsertOutcome::TickSkipped(SkipReason::Overlap);
    assert_eq!(placed(world, &tick(world, 1, Overlap::Skip)).await, unfinished);
    let waiting = tick(world, 2, Overlap::Queue);
    assert_eq!(placed(world, &waiting).await, stored_at(NOW.plus(ms(2))));
    let InsertOutcome::Stored { cancelled, .. } = placed(world, &tick(world, 3, Overlap::Cancel)).await else {
        panic!()
    };
    assert_eq!(cancelled, [waiting.id]);
    assert!(world.get(running.job.id).await.cancel_requested);
    assert_eq!(world.store.aborts(9).await.unwrap(), [Abort { lease: running.lease(), mode: DispatchMode::Push }]);
    assert_eq!(world.state(waiting.id).await, State::Cancelled);
    let ticked = world.store.ticked(None).await.unwrap().remove(0);
    assert_eq!((ticked.last, ticked.runs), (NOW.plus(ms(3)), 3), "a skipped tick is dealt with");

    let settlement = Settlement::retry(&running, NOW, an_attempt(&running, None), NOW);
    world.store.settle(vec![settlement]).await.unwrap();
    assert_eq!((world.state(running.job.id).await, world.store.aborts(9).await.unwrap()), (State::Cancelled, vec![]));
    world
        .store
        .settle(
            world
                .claim(NOW.plus(ms(9)), 9)
                .await
                .iter()
                .map(|it| Settlement::succeeded(it, NOW, an_attempt(it, Some(200))))
                .collect(),
        )
        .await
        .unwrap();
    assert_eq!(placed(world, &tick(world, 1, Overlap::Skip)).await, InsertOutcome::Skipped, "it was skipped for good");
    let mut again = tick(world, 1, Overlap::Skip);
    if let Admission::Tick(tick) = &mut again.admission {
        tick.again = true;
    }
    assert_eq!(placed(world, &again).await, stored_at(NOW.plus(ms(1))), "unless it is asked for again");
    let ticked = world.store.ticked(None).await.unwrap().remove(0);
    assert_eq!((ticked.last, ticked.runs, ticked.extra, ticked.skipped), (NOW.plus(ms(3)), 4, 1, 1));
}

/// Returns a page of the ticks of schedule 7.
async fn ticks(world: &World, before: UnixMs, limit: u32) -> Vec<TickRecord> {
    world.store.ticks(TicksQuery { schedule: 7, before, limit }).await.unwrap()
}

pub async fn skipped_ticks_are_written_once_and_stay_when_they_are_made_up_for(world: &World) {
    let range = |first, last, count, reason| {
        (7, SkippedTicks { first: NOW.plus(ms(first)), last: NOW.plus(ms(last)), count, reason })
    };
    placed(world, &tick(world, 0, Overlap::Allow)).await;
    let late = range(1, 4, 4, SkipReason::TooLate);
    let other = (8, SkippedTicks::one(NOW, SkipReason::Paused));
    assert_eq!(world.store.skip_ticks(vec![late, other]).await, Ok(vec![true, true]));
    let paused = range(5, 5, 1, SkipReason::Paused);
    let again = vec![late, range(4, 6, 3, SkipReason::Paused), paused, other];
    assert_eq!(
        world.store.skip_ticks(again).await,
        Ok(vec![false, false, true, false]),
        "another node was there before"
    );
    assert_eq!(world.store.skip_ticks(Vec::new()).await, Ok(Vec::new()));
    let ticked = world.store.ticked(None).await.unwrap();
    let seven =
        Ticked { schedule: 7, last: NOW.plus(ms(5)), runs: 1, extra: 0, skipped: 5, reason: Some(SkipReason::Paused) };
    assert_eq!(*ticked.iter().find(|ticked| ticked.schedule == 7).unwrap(), seven);

    let mut backfilled = tick(world, 4, Overlap::Allow);
    if let Admission::Tick(tick) = &mut backfilled.admission {
        tick.again = true;
    }
    assert_eq!(placed(world, &backfilled).await, stored_at(NOW.plus(ms(4))));
    let all = ticks(world, UnixMs::MAX, 9).await;
    let shown: Vec<_> = all.iter().map(|tick| (tick.at, tick.job.is_some(), tick.skipped)).collect();
    let at = |at| NOW.plus(ms(at));
    assert_eq!(shown, [(at(5), false, Some(paused.1)), (at(4), true, Some(late.1)), (at(0), true, None)]);
    assert_eq!(all[1].job, Some(backfilled.id));
    assert_eq!(ticks(world, at(5), 1).await, all[1..2], "a page of it");
    assert!(ticks(world, NOW, 9).await.is_empty());
    let store = world.reopened().await;
    assert_eq!(store.skip_ticks(vec![paused]).await, Ok(vec![false]), "after a restart, too");
    assert_eq!(store.ticks(TicksQuery { schedule: 7, before: UnixMs::MAX, limit: 9 }).await, Ok(all));
}

pub async fn runs_that_were_asked_for_do_not_count_and_say_nothing_of_earlier_ticks(world: &World) {
    let asked = |at| {
        let mut job = tick(world, at, Overlap::Allow);
        if let Admission::Tick(tick) = &mut job.admission {
            tick.again = true;
        }
        job
    };
    placed(world, &asked(9)).await;
    let ticked = world.store.ticked(None).await.unwrap().remove(0);
    assert!(ticked.last < UnixMs(0), "it has come nowhere by the clock: {ticked:?}");
    assert_eq!((ticked.runs, ticked.counted()), (1, 0));
    let counted = |at| {
        let mut job = tick(world, at, Overlap::Allow);
        if let Admission::Tick(tick) = &mut job.admission {
            tick.max_runs = Some(1);
        }
        job
    };
    assert_eq!(placed(world, &counted(1)).await, stored_at(NOW.plus(ms(1))));
    assert_eq!(placed(world, &counted(2)).await, InsertOutcome::TickSkipped(SkipReason::MaxRuns));
    assert_eq!(placed(world, &asked(3)).await, stored_at(NOW.plus(ms(3))));
    assert_eq!(world.store.ticked(None).await.unwrap()[0].last, NOW.plus(ms(2)));
}

pub async fn a_schedule_stops_at_its_most_runs(world: &World) {
    let at_most_two = |at| {
        let mut job = tick(world, at, Overlap::Allow);
        if let Admission::Tick(tick) = &mut job.admission {
            tick.max_runs = Some(2);
        }
        job
    };
    let results = join_all((0..8).map(|at| world.store.insert(vec![at_most_two(at)].into()))).await;
    let stored = |result: &Result<InsertResult, StoreError>| matches!(result, Ok(InsertResult::Placed(placed)) if matches!(placed[0], InsertOutcome::Stored { .. }));
    assert_eq!(results.iter().filter(|result| stored(result)).count(), 2);
    assert_eq!(world.store.ticked(None).await.unwrap()[0].runs, 2);
}

pub async fn a_schedule_that_has_gone_leaves_no_count(world: &World) {
    let schedule = world.put(world.tenant.0, Kind::Schedule, "s").await.id;
    let mut job = tick(world, 5, Overlap::Allow);
    if let Admission::Tick(tick) = &mut job.admission {
        tick.schedule = schedule;
    }
    assert_eq!(placed(world, &job).await, stored_at(NOW.plus(ms(5))));
    assert_eq!(world.store.ticked(None).await.unwrap().len(), 1);
    assert!(world.store.delete(a_removal(world.tenant.0, Kind::Schedule, "s".to_owned())).await.unwrap().done);
    assert!(world.store.ticked(None).await.unwrap().is_empty());
    assert_eq!(world.state(job.id).await, State::Scheduled, "its jobs stay");
}

/// Only a newer run of its schedule cuts an attempt off, and the newer run waits for its end.
pub async fn a_run_waits_for_the_one_whose_place_it_takes(world: &World) {
    let of_key = |at, overlap| NewJob { order_key: Some("schedule".to_owned()), ..tick(world, at, overlap) };
    assert_eq!(placed(world, &of_key(0, Overlap::Cancel)).await, stored_at(NOW));
    let mut running = world.claim(NOW, 1).await.remove(0);
    assert_eq!(world.change(running.job.id, JobChange::Cancel).await, ChangeOutcome::Requested);
    assert_eq!(world.store.aborts(9).await.unwrap(), [], "who cancels a job lets its attempt go on");
    for at in 1..4 {
        let newer = of_key(at, Overlap::Cancel);
        placed(world, &newer).await;
        assert_eq!(world.store.aborts(9).await.unwrap(), [Abort { lease: running.lease(), mode: DispatchMode::Push }]);
        assert!(world.claim(NOW.plus(ms(9)), 9).await.is_empty(), "no two at once");
        let cut_off = Settlement::cancelled(&running, NOW, an_attempt(&running, None));
        assert_eq!(world.store.settle(vec![cut_off]).await.unwrap(), [SettleOutcome::Applied(State::Cancelled)]);
        running = world.claim(NOW.plus(ms(9)), 9).await.remove(0);
        assert_eq!(running.job.id, newer.id);
    }
    // A job that ends in another way meanwhile, and is redriven, is not cut off for the newer run.
    placed(world, &of_key(4, Overlap::Cancel)).await;
    let dead = Settlement::dead(&running, NOW, an_attempt(&running, Some(500)));
    assert_eq!(world.store.settle(vec![dead]).await.unwrap(), [SettleOutcome::Applied(State::Dead)]);
    let next = world.claim(NOW.plus(ms(9)), 9).await.remove(0);
    let done = Settlement::succeeded(&next, NOW, an_attempt(&next, Some(200)));
    world.store.settle(vec![done]).await.unwrap();
    assert_eq!(world.change(running.job.id, JobChange::Redrive(NOW)).await, ChangeOutcome::Done);
    assert_eq!(world.claim(NOW, 9).await.len(), 1);
    assert_eq!(world.store.aborts(9).await.unwrap(), []);
}
