//! The steps.

use super::{Protocol, World};
use crate::action::{Action, Outcome};
use crate::node::{Call, Caller, Node, Phase, Rescuer, Task};
use crate::rules::Rule;
use crate::setting::{MAX_STALL, Mistake, RETRY_DELAY, SLOW};
use crate::store::{Job, Settlement, State};

impl Protocol {
    /// Takes a step that is possible.
    pub(super) fn take(&self, world: &mut World, action: Action) {
        match action {
            Action::Tick => world.now += 1,
            Action::Claim(node, way) => self.claim(world, node, way),
            Action::Extend(node, way) => self.extend(world, node, way),
            Action::FindExpired(node) => {
                let at = self.time_of(world, node);
                world.nodes[node].rescuer = Rescuer::Found { at, ending: world.store.ending(at) };
            }
            Action::Sort(node, way) => self.sort(world, node, way),
            Action::TakeBack(node, way) => {
                let Rescuer::Ready { at, lost } = std::mem::take(&mut world.nodes[node].rescuer) else { return };
                self.take_back(world, node, (at, lost), way);
            }
            Action::Prepare(node, task) => self.prepare(world, node, task),
            Action::Send(node, task) => self.send(world, node, task),
            Action::Respond(node, task, outcome) => self.respond(world, (node, task), outcome),
            Action::Settle(node, task, way) => self.settle(world, (node, task), way),
            Action::Arrive(node, caller) => {
                let Some(Call::There(verb, _)) = world.nodes[node].call(caller).cloned() else { return };
                let answer = self.run(world, &verb);
                let now = world.now;
                if let Some(call) = world.nodes[node].call_mut(caller) {
                    *call = Call::Back(answer, now);
                }
            }
            Action::Receive(node, caller) => self.receive(world, node, caller),
            Action::Delay(node, caller) => delay(world, node, caller),
            Action::RunOrphan(index) => {
                let (verb, _) = world.orphans.remove(index);
                self.run(world, &verb);
            }
            Action::DropOrphan(index) => drop(world.orphans.remove(index)),
            Action::Crash(node) => crash(world, node),
            Action::Stall(node) => {
                world.left.stalls -= 1;
                world.nodes[node].stalled_until = Some(world.now + MAX_STALL);
            }
            Action::Resume(node) => world.nodes[node].stalled_until = None,
            Action::Cancel(job) => self.cancel(world, job),
            Action::Purge(job) => {
                world.changes_left -= 1;
                world.store.rows[job].state = State::Purged;
            }
        }
    }

    /// Begins an attempt that is late: only a planted mistake makes a difference between this and [`Protocol::send`].
    fn prepare(&self, world: &mut World, node: usize, index: usize) {
        let now = self.time_of(world, node);
        let task = &mut world.nodes[node].tasks[index];
        task.phase = if now >= task.until { Phase::Settling(task.released(), None) } else { Phase::Preparing };
    }

    /// Sends the request if the lease is not over, as far as the node knows; else releases the job.
    fn send(&self, world: &mut World, node: usize, index: usize) {
        let now = self.time_of(world, node);
        let task = &mut world.nodes[node].tasks[index];
        let is_checked = task.phase == Phase::Waiting && !self.setting.has(Mistake::SendWithoutCheck);
        if is_checked && now >= task.until {
            task.phase = Phase::Settling(task.released(), None);
            return;
        }
        task.phase = Phase::Sent(world.now);
        let (task, behind) = (task.clone(), self.setting.clocks_behind[node]);
        let row = &mut world.store.rows[task.lease.0];
        let is_newest = row.state == State::Running && row.token == task.lease.1;
        let bit = 1 << task.number;
        let is_fresh = row.sent_numbers & bit == 0;
        row.sent_numbers |= bit;
        row.sends += 1;
        let sends = row.sends;
        let allowed = 1 + self.costly_faults(world);
        world.broken.check(Rule::NeverEarly, world.now >= task.run_at);
        world.broken.check(Rule::NoSendUnderExpiredLease, now < task.until);
        world.broken.check(Rule::NoSendAfterTakeover, is_newest || (behind > 0 && world.now < task.until + behind));
        world.broken.check(Rule::NumbersAreUnique, is_fresh);
        world.broken.check(Rule::FewSends, sends <= allowed);
    }

    fn respond(&self, world: &mut World, (node, index): (usize, usize), outcome: Outcome) {
        let now = self.time_of(world, node);
        let task = &mut world.nodes[node].tasks[index];
        let next = match outcome {
            Outcome::Success => (State::Succeeded, 0),
            Outcome::Failure => {
                world.left.failures -= 1;
                self.after_failure(task.number, now + RETRY_DELAY)
            }
        };
        let settlement = Settlement { lease: task.lease, attempt: Some(task.number), next };
        task.phase = Phase::Settling(settlement, None);
    }

    fn cancel(&self, world: &mut World, job: Job) {
        world.changes_left -= 1;
        let row = &mut world.store.rows[job];
        if row.state == State::Scheduled || self.setting.has(Mistake::CancelEndsRunning) {
            row.state = State::Cancelled;
        } else {
            row.cancel_requested = true;
        }
    }
}

impl Task {
    /// Gives the job back, unsent: no attempt is spent.
    fn released(&self) -> Settlement {
        Settlement { lease: self.lease, attempt: None, next: (State::Scheduled, self.run_at) }
    }
}

fn delay(world: &mut World, node: usize, caller: Caller) {
    if let Some(Call::Back(_, by)) = world.nodes[node].call_mut(caller) {
        *by += SLOW;
        world.left.slow_calls -= 1;
    }
}

/// Empties the memory of a node. Its calls that are on their way to the store arrive, or do not.
fn crash(world: &mut World, node: usize) {
    world.left.crashes -= 1;
    let dead: Node = std::mem::take(&mut world.nodes[node]);
    for call in dead.callers().into_iter().filter_map(|caller| dead.call(caller)) {
        if let Call::There(verb, by) = call {
            world.orphans.push((verb.clone(), *by));
        }
    }
}
