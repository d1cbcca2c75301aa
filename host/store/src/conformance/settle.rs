//! Cases of settling, cancelling and removing jobs.

use super::*;
use crate::{Extension, SettleOutcome};
use carillon_core::job::{PluginUse, Settlement, Token};

async fn settle(world: &World, settlement: Settlement) -> SettleOutcome {
    world.store.settle(vec![settlement]).await.unwrap()[0]
}

pub async fn success_ends_a_job(world: &World) {
    let leased = world.leased().await;
    let at = NOW.plus(ms(20));
    let attempt = an_attempt(&leased, Some(200));
    let settled = settle(world, Settlement::succeeded(&leased, at, attempt.clone())).await;
    assert_eq!(settled, SettleOutcome::Applied(State::Succeeded));
    let job = world.get(leased.job.id).await;
    let expected = Job {
        state: State::Succeeded,
        finished_at: Some(at),
        attempt_count: 1,
        last_status: Some(200),
        last_error: None,
        ..leased.job.clone()
    };
    assert_eq!(job, expected);
    assert_eq!(world.store.attempts(world.tenant, job.id, 0, 10).await.unwrap(), [attempt]);
    assert!(claim_lost(&*world.store, UnixMs::MAX, UnixMs::MAX, 10).await.is_empty());
}

pub async fn retry_puts_a_job_back(world: &World) {
    let leased = world.leased().await;
    let next = NOW.plus(ms(2_000));
    let retry = Settlement::retry(&leased, NOW, an_attempt(&leased, None), next);
    assert_eq!(settle(world, retry).await, SettleOutcome::Applied(State::Scheduled));
    let job = world.get(leased.job.id).await;
    assert_eq!((job.state, job.run_at, job.finished_at, job.attempt_count), (State::Scheduled, next, None, 1));
    assert_eq!((job.last_status, job.last_error), (None, Some(TransportError::Timeout.into())));
    assert!(world.claim(next.minus(ms(1)), 10).await.is_empty());

    let again = world.claim(next, 10).await.remove(0);
    assert_eq!((again.number(), again.history.len(), again.unspent_leases()), (2, 1, 0));
    assert!(again.token > leased.token);
    let dead = Settlement::dead(&again, next, an_attempt(&again, Some(500)));
    assert_eq!(settle(world, dead).await, SettleOutcome::Applied(State::Dead));
    let job = world.get(leased.job.id).await;
    assert_eq!((job.state, job.last_status, job.last_error), (State::Dead, Some(500), None));
}

/// Returns the record of a policy call that ended in a fault.
fn call_with_fault(code: ErrorCode) -> PluginUse {
    PluginUse {
        role: "judge".into(),
        plugin: "strict@1".into(),
        digest: "d".into(),
        config_digest: "c".into(),
        micros: 5,
        fuel: 7,
        log: Vec::new(),
        fault: Some(code),
    }
}

pub async fn every_error_code_comes_back(world: &World) {
    // A newer node of the cluster may write codes that this version does not know.
    let unknown = ["send.quantum", "policy.bored", ""].map(ErrorCode::parse);
    let mut records = Vec::new();
    let mut leased = world.leased().await;
    for code in ErrorCode::ALL.into_iter().chain(unknown) {
        let mut attempt = an_attempt(&leased, None);
        attempt.detail.error = Some(AttemptError { code: code.clone(), message: "it failed".to_owned() });
        attempt.detail.plugins = vec![call_with_fault(code.clone())];
        records.push(attempt.clone());
        let retry = Settlement::retry(&leased, NOW, attempt, NOW);
        assert_eq!(settle(world, retry).await, SettleOutcome::Applied(State::Scheduled), "{code}");
        assert_eq!(world.get(leased.job.id).await.last_error.as_ref(), Some(&code));
        leased = world.claim(NOW, 1).await.remove(0);
        assert_eq!(leased.job.last_error, Some(code));
    }
    assert_eq!(world.store.attempts(world.tenant, leased.job.id, 0, 100).await.unwrap(), records);
}

pub async fn a_claim_sees_what_began_to_be_settled_before_it(world: &World) {
    if !world.store.keeps_order() {
        return;
    }
    for number in 1..=20 {
        let leased = if number == 1 { world.leased().await } else { world.claim(NOW, 1).await.remove(0) };
        let retry = Settlement::retry(&leased, NOW, an_attempt(&leased, None), NOW);
        let mut settling = std::pin::pin!(world.store.settle(vec![retry]));
        assert!(futures_util::poll!(&mut settling).is_pending());
        let again = world.claim(NOW, 10).await;
        assert_eq!(again.iter().map(LeasedJob::number).collect::<Vec<_>>(), [number + 1]);
        assert_eq!(settling.await.unwrap(), [SettleOutcome::Applied(State::Scheduled)]);
        let retry = Settlement::released(&again[0], NOW);
        assert_eq!(settle(world, retry).await, SettleOutcome::Applied(State::Scheduled));
    }
}

pub async fn held_spends_nothing_and_is_replaced(world: &World) {
    let leased = world.leased().await;
    let mut unspent = an_attempt(&leased, None);
    (unspent.started_at, unspent.finished_at) = (NOW.minus(ms(9)), NOW.minus(ms(8)));
    unspent.response_body = Bytes::from_static(b"nothing of this stays");
    let held = Settlement::held(&leased, NOW, unspent, NOW);
    assert_eq!(settle(world, held).await, SettleOutcome::Applied(State::Scheduled));
    let job = world.get(leased.job.id).await;
    assert_eq!((job.attempt_count, job.last_error), (0, Some(TransportError::Timeout.into())));
    let attempts = world.store.attempts(world.tenant, job.id, 0, 10).await.unwrap();
    assert_eq!((attempts.len(), attempts[0].number, attempts[0].detail.spent), (1, 1, false));

    let again = world.claim(NOW, 1).await.remove(0);
    assert_eq!((again.number(), again.unspent_leases()), (1, 1));
    assert!(again.history.is_empty(), "an attempt that is not spent is no history");
    let real = an_attempt(&again, Some(200));
    settle(world, Settlement::succeeded(&again, NOW, real.clone())).await;
    assert_eq!(world.store.attempts(world.tenant, job.id, 0, 10).await.unwrap(), [real]);
    assert_eq!(world.get(job.id).await.attempt_count, 1);
}

pub async fn released_leaves_no_trace(world: &World) {
    let before = world.leased().await;
    settle(world, Settlement::retry(&before, NOW, an_attempt(&before, Some(503)), NOW)).await;
    let leased = world.claim(NOW, 1).await.remove(0);
    assert_eq!(settle(world, Settlement::released(&leased, NOW)).await, SettleOutcome::Applied(State::Scheduled));
    let job = world.get(leased.job.id).await;
    assert_eq!(job, Job { state: State::Scheduled, ..leased.job.clone() });
    assert_eq!(job.last_status, Some(503));
    assert_eq!(world.store.attempts(world.tenant, job.id, 0, 10).await.unwrap().len(), 1);
}

pub async fn answers_in_order(world: &World) {
    world.insert_due(5).await;
    let leased = world.claim(NOW, 5).await;
    let stale = LeasedJob { token: Token(0), ..leased[1].clone() };
    let settlements = vec![
        Settlement::dead(&leased[4], NOW, an_attempt(&leased[4], Some(410))),
        Settlement::succeeded(&stale, NOW, an_attempt(&stale, Some(200))),
        Settlement::retry(&leased[0], NOW, an_attempt(&leased[0], None), NOW),
        Settlement::expired(&leased[3], NOW, None),
        Settlement::succeeded(&leased[2], NOW, an_attempt(&leased[2], Some(200))),
    ];
    let expected = [
        SettleOutcome::Applied(State::Dead),
        SettleOutcome::LeaseLost,
        SettleOutcome::Applied(State::Scheduled),
        SettleOutcome::Applied(State::Expired),
        SettleOutcome::Applied(State::Succeeded),
    ];
    assert_eq!(world.store.settle(settlements).await.unwrap(), expected);
    assert_eq!(world.state(leased[1].job.id).await, State::Running);
    assert_eq!(world.get(leased[3].job.id).await.finished_at, Some(NOW));
    assert_eq!(world.store.settle(Vec::new()).await.unwrap(), []);
}

pub async fn applies_the_first_of_two(world: &World) {
    let leased = world.leased().await;
    let stale = LeasedJob { token: Token(0), ..leased.clone() };
    let settlements = vec![
        Settlement::succeeded(&stale, NOW, an_attempt(&stale, Some(200))),
        Settlement::dead(&leased, NOW, an_attempt(&leased, Some(404))),
        Settlement::succeeded(&leased, NOW, an_attempt(&leased, Some(200))),
    ];
    let expected = [SettleOutcome::LeaseLost, SettleOutcome::Applied(State::Dead), SettleOutcome::LeaseLost];
    assert_eq!(world.store.settle(settlements).await.unwrap(), expected);
    assert_eq!(world.state(leased.job.id).await, State::Dead);
    let late = Settlement::succeeded(&leased, NOW, an_attempt(&leased, Some(200)));
    assert_eq!(settle(world, late).await, SettleOutcome::LeaseLost);
    assert_eq!(world.state(leased.job.id).await, State::Dead);
    let attempts = world.store.attempts(world.tenant, leased.job.id, 0, 10).await.unwrap();
    assert_eq!(attempts.iter().map(|attempt| attempt.status).collect::<Vec<_>>(), [Some(404)]);
}

pub async fn many_at_once(world: &World) {
    const MANY: usize = 1_300;
    world.insert_due(MANY).await;
    let leased = world.claim(NOW, MANY as u32).await;
    assert_eq!(leased.len(), MANY);
    let leases = leased.iter().map(|leased| (leased.job.id, leased.token)).collect();
    assert_eq!(world.store.extend(leases, Extension::AtLeast(NOW.plus(LEASE))).await.unwrap(), [true; MANY]);
    let retry = |leased| Settlement::retry(leased, NOW, an_attempt(leased, Some(503)), NOW);
    let settled = world.store.settle(leased.iter().map(retry).collect()).await.unwrap();
    assert_eq!(settled, [SettleOutcome::Applied(State::Scheduled); MANY]);
    let again = world.claim(NOW, MANY as u32).await;
    assert_eq!(ids(&again), ids(&leased));
    assert!(again.iter().all(|leased| leased.history.len() == 1));
}

pub async fn cancel_in_every_state(world: &World) {
    let waiting = world.job(NOW.plus(ms(1)));
    world.store.insert(vec![waiting.clone()].into()).await.unwrap();
    let cancel = |id| world.change(id, JobChange::Cancel);
    assert_eq!(cancel(waiting.id).await, ChangeOutcome::Done);
    let job = world.get(waiting.id).await;
    assert_eq!((job.state, job.finished_at), (State::Cancelled, Some(NOW)));
    assert_eq!(cancel(waiting.id).await, ChangeOutcome::Not(State::Cancelled));
    assert!(world.claim(NOW.plus(ms(1)), 10).await.is_empty());

    let running = world.leased().await;
    assert_eq!(cancel(running.job.id).await, ChangeOutcome::Requested);
    assert_eq!(cancel(running.job.id).await, ChangeOutcome::Requested);
    let job = world.get(running.job.id).await;
    assert!(job.cancel_requested && job.state == State::Running && job.finished_at.is_none());
    assert_eq!(cancel(JobId(Uuid::nil())).await, ChangeOutcome::Unknown);

    type End = fn(&LeasedJob, AttemptRecord) -> Settlement;
    let ends: [(State, End); 3] = [
        (State::Succeeded, |leased, attempt| Settlement::succeeded(leased, NOW, attempt)),
        (State::Dead, |leased, attempt| Settlement::dead(leased, NOW, attempt)),
        (State::Expired, |leased, attempt| Settlement::expired(leased, NOW, Some(attempt))),
    ];
    for (state, end) in ends {
        let leased = world.leased().await;
        settle(world, end(&leased, an_attempt(&leased, Some(200)))).await;
        let before = world.get(leased.job.id).await;
        assert_eq!(cancel(leased.job.id).await, ChangeOutcome::Not(state));
        assert_eq!(world.get(leased.job.id).await, before);
    }
}

pub async fn cancel_while_running_replaces_a_retry_only(world: &World) {
    type End = fn(&LeasedJob) -> Settlement;
    let cases: [(State, End); 6] = [
        (State::Cancelled, |it| Settlement::retry(it, NOW, an_attempt(it, None), NOW.plus(ms(9)))),
        (State::Cancelled, |it| Settlement::held(it, NOW, an_attempt(it, None), NOW.plus(ms(9)))),
        (State::Cancelled, |it| Settlement::released(it, NOW)),
        (State::Succeeded, |it| Settlement::succeeded(it, NOW, an_attempt(it, Some(200)))),
        (State::Dead, |it| Settlement::dead(it, NOW, an_attempt(it, Some(400)))),
        (State::Expired, |it| Settlement::expired(it, NOW, None)),
    ];
    for (state, end) in cases {
        let leased = world.leased().await;
        world.change(leased.job.id, JobChange::Cancel).await;
        assert_eq!(settle(world, end(&leased)).await, SettleOutcome::Applied(state));
        let job = world.get(leased.job.id).await;
        assert_eq!((job.state, job.finished_at, job.run_at), (state, Some(NOW), NOW));
    }
    assert!(world.claim(NOW.plus(ms(9)), 10).await.is_empty());
}

/// Makes a job that ended at `at` in `state`.
async fn ended(world: &World, state: State, at: UnixMs) -> JobId {
    let leased = world.leased().await;
    let attempt = an_attempt(&leased, Some(200));
    let settlement = match state {
        State::Succeeded => Settlement::succeeded(&leased, at, attempt),
        _ => Settlement::dead(&leased, at, attempt),
    };
    settle(world, settlement).await;
    leased.job.id
}

pub async fn prune_keeps_what_is_younger(world: &World) {
    let old = ended(world, State::Succeeded, NOW).await;
    let young = ended(world, State::Succeeded, NOW.plus(ms(1))).await;
    let dead = ended(world, State::Dead, NOW).await;
    let running = world.leased().await.job.id;
    let what = [(State::Succeeded, NOW)];
    assert_eq!(world.prune(&what, 100).await, 1);
    assert_eq!(world.store.job(world.tenant, old).await.unwrap(), None);
    assert_eq!(world.store.body(world.tenant, old).await.unwrap(), None);
    assert!(world.store.attempts(world.tenant, old, 0, 10).await.unwrap().is_empty());
    assert_eq!(world.state(young).await, State::Succeeded);
    assert_eq!(world.state(dead).await, State::Dead);
    assert_eq!(world.store.attempts(world.tenant, dead, 0, 10).await.unwrap().len(), 1);
    assert_eq!(world.prune(&what, 100).await, 0);

    let unfinished = [State::Scheduled, State::Running].map(|state| (state, UnixMs::MAX));
    assert_eq!(world.prune(&unfinished, 100).await, 0);
    assert_eq!(world.state(running).await, State::Running);
    let both = [State::Succeeded, State::Dead].map(|state| (state, NOW.plus(ms(1))));
    assert_eq!(world.prune(&both, 100).await, 2);
}

pub async fn prune_is_bounded(world: &World) {
    let mut jobs = Vec::new();
    for n in 0..5 {
        jobs.push(ended(world, if n < 3 { State::Succeeded } else { State::Dead }, NOW.plus(ms(n))).await);
    }
    let what = [State::Succeeded, State::Dead].map(|state| (state, UnixMs::MAX));
    assert_eq!(world.prune(&what, 2).await, 2);
    assert_eq!(world.store.job(world.tenant, jobs[0]).await.unwrap(), None, "the oldest go first");
    assert!(world.store.job(world.tenant, jobs[2]).await.unwrap().is_some());
    assert_eq!(world.prune(&what, 2).await, 2, "the limit is for all states together");
    assert_eq!(world.prune(&what, 0).await, 0);
    assert_eq!(world.prune(&what, 2).await, 1);
}
