//! Random sequences of verbs against a small model of the state machine.
//!
//! After each verb every job is compared with the model, and every observed step with [`State::can_become`]. The seed of a walk that failed
//! is printed, and kept in [`REGRESSIONS`], whose walks are taken first: commit what it adds.

use proptest::collection::vec;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::model::{End, Expected, Step, WALK_LEASE, a_step, ms};
use super::*;
use crate::{ClaimOverdue, Edit, Extension};
use carillon_core::job::{DispatchMode, Token};

/// Seeds of walks that failed before.
const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/store_machine.txt");

const WALKS: u32 = 24;
const STEPS: usize = 40;

struct Walk<'w> {
    world: &'w World,
    group: GroupId,
    now: UnixMs,
    jobs: Vec<Expected>,
    leases: Vec<LeasedJob>,
}

pub async fn random_walks_follow_the_diagram(world: &World) {
    let persistence = Box::new(FileFailurePersistence::Direct(REGRESSIONS));
    let config = Config { cases: WALKS, failure_persistence: Some(persistence), ..Config::default() };
    let walks = AtomicU64::new(0);
    let walk = |steps: Vec<Step>| {
        let name = format!("walk-{}", walks.fetch_add(1, Ordering::Relaxed));
        Handle::current().block_on(async {
            let group = world.new_group(&name).await;
            let mut walk = Walk { world, group, now: NOW, jobs: Vec::new(), leases: Vec::new() };
            for step in steps {
                walk.take(step).await;
                walk.check().await;
            }
        });
        Ok(())
    };
    block_in_place(|| TestRunner::new(config).run(&vec(a_step(), STEPS), walk)).unwrap();
}

impl Walk<'_> {
    async fn take(&mut self, step: Step) {
        match step {
            Step::Insert { delay, ttl, key, mode } => self.insert(delay, ttl.map(ms), key, mode).await,
            Step::Pass { time } => self.now = self.now.plus(ms(time)),
            Step::Claim { quota, mode } => self.claim(quota, mode).await,
            Step::ClaimLost => self.claim_lost().await,
            Step::ClaimOverdue => self.claim_overdue().await,
            Step::Settle(ends) => self.settle(ends).await,
            Step::Extend(which) => self.extend(which).await,
            Step::Cancel(which) => self.cancel(which).await,
            Step::Redrive(which) => self.redrive(which).await,
            Step::Reschedule(which, delay) => self.reschedule(which, self.now.plus(ms(delay))).await,
            Step::Edit(which, delay) => self.edit(which, self.now.plus(ms(delay))).await,
            Step::Prune(state) => self.prune(state).await,
        }
    }

    async fn insert(&mut self, delay: u64, ttl: Option<Duration>, key: Option<char>, mode: DispatchMode) {
        let run_at = self.now.plus(ms(delay));
        let mut job = self.world.job_in(self.group, run_at);
        job.created_at = self.now;
        job.deadline = ttl.map(|ttl| self.now.plus(ttl));
        job.order_key = key.map(String::from);
        if mode == DispatchMode::Pull {
            job.spec = Spec::default();
        }
        self.jobs.push(Expected {
            id: job.id,
            state: State::Scheduled,
            mode,
            key,
            blocked: key.is_some(),
            ttl,
            deadline: job.deadline,
            revision: 0,
            run_at,
            lease_until: UnixMs(0),
            token: Token(0),
            lost_leases: 0,
            attempt_count: 0,
            attempt_base: 0,
            cancel_requested: false,
            finished_at: None,
            pruned: false,
        });
        self.world.store.insert(vec![job].into()).await.unwrap();
        self.advance();
    }

    /// For each key without an unblocked unfinished job, unblocks the oldest job.
    fn advance(&mut self) {
        for key in ['a', 'b'] {
            let of_key = |job: &&mut Expected| job.key == Some(key) && !job.state.is_final() && !job.pruned;
            let mut queue: Vec<&mut Expected> = self.jobs.iter_mut().filter(of_key).collect();
            if queue.iter().all(|job| job.blocked)
                && let Some(first) = queue.iter_mut().min_by_key(|job| job.id)
            {
                first.blocked = false;
            }
        }
    }

    async fn claim(&mut self, quota: u32, mode: DispatchMode) {
        let (now, lease_until) = (self.now, self.now.plus(WALK_LEASE));
        let claim = ClaimDue { due_by: now, lease_until, mode, quotas: vec![(self.group, quota)], owed: Vec::new() };
        let leased = self.world.store.claim_due(claim).await.unwrap();
        let is_due = |job: &&mut Expected| {
            job.state == State::Scheduled && !job.blocked && job.mode == mode && job.run_at <= now
        };
        let mut due: Vec<&mut Expected> = self.jobs.iter_mut().filter(is_due).collect();
        due.sort_by_key(|job| (job.run_at, job.id));
        due.truncate(quota as usize);
        assert_eq!(ids(&leased), due.iter().map(|job| job.id).collect::<Vec<_>>());
        for (job, leased) in due.into_iter().zip(leased) {
            job.lease(lease_until, &leased);
            self.leases.push(leased);
        }
    }

    /// Blocked jobs expire like the others.
    async fn claim_overdue(&mut self) {
        let (now, lease_until) = (self.now, self.now.plus(WALK_LEASE));
        let leased = self.world.store.claim_overdue(ClaimOverdue { now, lease_until, limit: 1_000_000 }).await.unwrap();
        let leased: Vec<LeasedJob> = leased.into_iter().filter(|leased| leased.job.group == self.group).collect();
        let is_overdue =
            |job: &&mut Expected| job.state == State::Scheduled && job.deadline.is_some_and(|deadline| deadline < now);
        let mut overdue: Vec<&mut Expected> = self.jobs.iter_mut().filter(is_overdue).collect();
        overdue.sort_by_key(|job| (job.run_at, job.id));
        assert_eq!(ids(&leased), overdue.iter().map(|job| job.id).collect::<Vec<_>>());
        for (job, leased) in overdue.into_iter().zip(leased) {
            job.lease(lease_until, &leased);
            self.leases.push(leased);
        }
    }

    async fn claim_lost(&mut self) {
        let (now, lease_until) = (self.now, self.now.plus(WALK_LEASE));
        let leased = claim_lost(&*self.world.store, now, lease_until, 1_000_000).await;
        // Other walks use the same store.
        let leased: Vec<LeasedJob> = leased.into_iter().filter(|leased| leased.job.group == self.group).collect();
        let is_lost = |job: &&mut Expected| job.state == State::Running && job.lease_until <= now;
        let mut lost: Vec<&mut Expected> = self.jobs.iter_mut().filter(is_lost).collect();
        lost.sort_by_key(|job| (job.run_at, job.id));
        assert_eq!(ids(&leased), lost.iter().map(|job| job.id).collect::<Vec<_>>());
        for (job, leased) in lost.into_iter().zip(leased) {
            job.lost_leases += 1;
            job.lease(lease_until, &leased);
            self.leases.push(leased);
        }
    }

    async fn settle(&mut self, ends: Vec<(usize, End)>) {
        if self.leases.is_empty() {
            return;
        }
        let mut settlements = Vec::new();
        let mut expected = Vec::new();
        for (which, end) in ends {
            let leased = &self.leases[which % self.leases.len()];
            let job = self.jobs.iter_mut().find(|job| job.id == leased.job.id).unwrap();
            settlements.push(end.of(leased, self.now));
            expected.push(job.settle(leased.token, end, self.now));
        }
        self.advance();
        assert_eq!(self.world.store.settle(settlements).await.unwrap(), expected);
    }

    async fn extend(&mut self, which: usize) {
        if self.leases.is_empty() {
            return;
        }
        let leased = &self.leases[which % self.leases.len()];
        let job = self.jobs.iter_mut().find(|job| job.id == leased.job.id).unwrap();
        let ours = job.state == State::Running && job.token == leased.token;
        let until = self.now.plus(WALK_LEASE);
        if ours {
            job.lease_until = until;
        }
        assert_eq!(
            self.world.store.extend(vec![(job.id, leased.token)], Extension::Exactly(until)).await.unwrap(),
            [ours]
        );
    }

    async fn cancel(&mut self, which: usize) {
        if self.jobs.is_empty() {
            return;
        }
        let which = which % self.jobs.len();
        let job = &mut self.jobs[which];
        let expected = match job.state {
            _ if job.pruned => ChangeOutcome::Unknown,
            State::Scheduled => {
                (job.state, job.finished_at) = (State::Cancelled, Some(self.now));
                ChangeOutcome::Done
            }
            State::Running => {
                job.cancel_requested = true;
                ChangeOutcome::Requested
            }
            ended => ChangeOutcome::Not(ended),
        };
        self.advance();
        assert_eq!(self.change(which, JobChange::Cancel).await, expected);
    }

    async fn redrive(&mut self, which: usize) {
        if self.jobs.is_empty() {
            return;
        }
        let (which, now) = (which % self.jobs.len(), self.now);
        let job = &mut self.jobs[which];
        let expected = match job.state {
            _ if job.pruned => ChangeOutcome::Unknown,
            State::Dead | State::Expired => {
                job.step_to(State::Scheduled);
                (job.run_at, job.finished_at, job.lost_leases, job.attempt_base) = (now, None, 0, job.attempt_count);
                job.cancel_requested = false;
                job.blocked = job.key.is_some();
                job.deadline = job.ttl.map(|ttl| now.plus(ttl));
                ChangeOutcome::Done
            }
            other => ChangeOutcome::Not(other),
        };
        self.advance();
        assert_eq!(self.change(which, JobChange::Redrive(now)).await, expected);
    }

    async fn reschedule(&mut self, which: usize, at: UnixMs) {
        if self.jobs.is_empty() {
            return;
        }
        let which = which % self.jobs.len();
        let job = &mut self.jobs[which];
        let expected = match job.state {
            _ if job.pruned => ChangeOutcome::Unknown,
            State::Scheduled => {
                job.run_at = at;
                ChangeOutcome::Done
            }
            other => ChangeOutcome::Not(other),
        };
        assert_eq!(self.change(which, JobChange::Reschedule(at)).await, expected);
    }

    async fn edit(&mut self, which: usize, at: UnixMs) {
        if self.jobs.is_empty() {
            return;
        }
        let which = which % self.jobs.len();
        let job = &mut self.jobs[which];
        let spec = match job.mode {
            DispatchMode::Push => self.world.job(NOW).spec,
            DispatchMode::Pull => Spec::default(),
        };
        let edit =
            Edit { revision: job.revision, name: None, run_at: at, priority: Priority::default(), spec, body: None };
        let expected = match job.state {
            _ if job.pruned => ChangeOutcome::Unknown,
            State::Scheduled => {
                (job.run_at, job.revision) = (at, job.revision + 1);
                ChangeOutcome::Done
            }
            other => ChangeOutcome::Not(other),
        };
        assert_eq!(self.change(which, JobChange::Edit(Box::new(edit.clone()))).await, expected);
        if expected == ChangeOutcome::Done {
            assert_eq!(
                self.change(which, JobChange::Edit(Box::new(edit))).await,
                ChangeOutcome::Stale,
                "it is an older one"
            );
        }
    }

    async fn change(&self, which: usize, change: JobChange) -> ChangeOutcome {
        let ids = vec![self.jobs[which].id];
        self.world.store.change(self.world.tenant, ids, change, self.now).await.unwrap()[0]
    }

    async fn prune(&mut self, state: State) {
        let before = self.now.minus(ms(20));
        self.world.prune(&[(state, before)], 1_000_000).await;
        for job in self.jobs.iter_mut().filter(|job| job.state == state) {
            job.pruned |= job.finished_at.is_some_and(|at| at <= before);
        }
    }

    /// Compares every job with the model, and the model's last step with [`State::can_become`].
    async fn check(&mut self) {
        for expected in &self.jobs {
            let found = self.world.store.job(self.world.tenant, expected.id).await.unwrap();
            let Some(job) = found else {
                assert!(expected.pruned, "{expected:?} is gone");
                continue;
            };
            assert!(!expected.pruned, "{expected:?} should be gone");
            let seen = (job.state, job.run_at, job.finished_at, job.attempt_count);
            assert_eq!(seen, (expected.state, expected.run_at, expected.finished_at, expected.attempt_count));
            assert_eq!((job.deadline, job.revision), (expected.deadline, expected.revision));
            assert!(!job.state.is_final() || job.finished_at.is_some());
            if !job.state.is_final() {
                assert_eq!(job.cancel_requested, expected.cancel_requested);
            }
        }
    }
}
