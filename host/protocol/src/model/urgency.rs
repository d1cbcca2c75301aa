//! Which steps are possible, and when time may pass.
//!
//! Time passes only when nothing is left to do at once. So a node is late only by a fault, and the number of faults that a late step takes is
//! known. Everything else happens in any order.

use super::{Protocol, World};
use crate::action::{Action, Outcome, Way};
use crate::node::{Call, Caller, Node, Phase, Rescuer, Task};
use crate::setting::{ATTEMPT_TIMEOUT, HORIZON, LOOK_AHEAD, Mistake, Time};
use crate::store::State;

impl Protocol {
    /// Adds all steps that are possible.
    pub(super) fn enabled(&self, world: &World, actions: &mut Vec<Action>) {
        if self.may_time_pass(world) {
            actions.push(Action::Tick);
        }
        for (index, node) in world.nodes.iter().enumerate() {
            let callers = node.callers();
            let arrives = |caller: &&Caller| matches!(node.call(**caller), Some(Call::There(..)));
            actions.extend(callers.iter().filter(arrives).map(|caller| Action::Arrive(index, *caller)));
            if world.left.crashes > 0 {
                actions.push(Action::Crash(index));
            }
            if node.stalled_until.is_some() {
                actions.push(Action::Resume(index));
                continue;
            }
            if world.left.stalls > 0 && !node.is_idle() {
                actions.push(Action::Stall(index));
            }
            for caller in callers {
                if let Some(Call::Back(_, by)) = node.call(caller) {
                    actions.push(Action::Receive(index, caller));
                    if *by == world.now && world.left.slow_calls > 0 {
                        actions.push(Action::Delay(index, caller));
                    }
                }
            }
            self.loop_steps(world, index, node, actions);
            for (number, task) in node.tasks.iter().enumerate() {
                self.task_steps(world, (index, number), task, actions);
            }
        }
        for index in 0..world.orphans.len() {
            actions.extend([Action::RunOrphan(index), Action::DropOrphan(index)]);
        }
        if world.changes_left > 0 {
            for (job, row) in world.store.rows.iter().enumerate() {
                match row.state {
                    State::Scheduled | State::Running => actions.push(Action::Cancel(job)),
                    State::Succeeded | State::Dead | State::Cancelled => actions.push(Action::Purge(job)),
                    State::Purged => {}
                }
            }
        }
    }

    fn loop_steps(&self, world: &World, index: usize, node: &Node, actions: &mut Vec<Action>) {
        let now = self.time_of(world, index);
        if node.claim.is_none() && has_due(world, now + LOOK_AHEAD) {
            ways(world).for_each(|way| actions.push(Action::Claim(index, way)));
        }
        if self.has_to_extend(node, now) {
            ways(world).for_each(|way| actions.push(Action::Extend(index, way)));
        }
        match &node.rescuer {
            Rescuer::Idle if self.has_to_rescue(world, now) => actions.push(Action::FindExpired(index)),
            Rescuer::Found { .. } if self.can_sort(node) => {
                ways(world).for_each(|way| actions.push(Action::Sort(index, way)));
            }
            Rescuer::Ready { .. } => ways(world).for_each(|way| actions.push(Action::TakeBack(index, way))),
            _ => {}
        }
    }

    fn task_steps(&self, world: &World, (node, number): (usize, usize), task: &Task, actions: &mut Vec<Action>) {
        let now = self.time_of(world, node);
        match &task.phase {
            Phase::Waiting if self.is_due(task, now) => {
                let is_prepared_late = self.setting.has(Mistake::CheckBeforePreparing);
                actions.push(if is_prepared_late { Action::Prepare(node, number) } else { Action::Send(node, number) });
            }
            Phase::Waiting => {}
            Phase::Preparing => actions.push(Action::Send(node, number)),
            Phase::Sent(_) => {
                actions.push(Action::Respond(node, number, Outcome::Success));
                if world.left.failures > 0 {
                    actions.push(Action::Respond(node, number, Outcome::Failure));
                }
            }
            Phase::Settling(_, None) => ways(world).for_each(|way| actions.push(Action::Settle(node, number, way))),
            Phase::Settling(_, Some(_)) => {}
        }
    }

    fn may_time_pass(&self, world: &World) -> bool {
        let is_quiet = world.nodes.iter().all(|node| node.tasks.is_empty() && node.stalled_until.is_none());
        if (world.is_over() && is_quiet && world.orphans.is_empty()) || world.now >= HORIZON {
            return false;
        }
        world.orphans.iter().all(|(_, by)| world.now < *by)
            && world.nodes.iter().enumerate().all(|(index, node)| !self.is_urgent(world, index, node))
    }

    /// Returns whether a step of the node is due now.
    fn is_urgent(&self, world: &World, index: usize, node: &Node) -> bool {
        let calls = || node.callers().into_iter().filter_map(|caller| node.call(caller));
        if calls().any(|call| matches!(call, Call::There(_, by) if *by <= world.now)) {
            return true;
        }
        if let Some(until) = node.stalled_until {
            return until <= world.now;
        }
        let now = self.time_of(world, index);
        let is_task_due = |task: &Task| match &task.phase {
            Phase::Waiting => self.is_due(task, now),
            Phase::Sent(at) => at + ATTEMPT_TIMEOUT <= world.now,
            Phase::Preparing | Phase::Settling(_, None) => true,
            Phase::Settling(_, Some(_)) => false,
        };
        let is_rescuer_due = match &node.rescuer {
            Rescuer::Idle => self.has_to_rescue(world, now),
            Rescuer::Found { .. } => self.can_sort(node),
            Rescuer::Ready { .. } => true,
            Rescuer::Extending { .. } | Rescuer::Taking { .. } => false,
        };
        calls().any(|call| matches!(call, Call::Back(_, by) if *by <= world.now))
            || (node.claim.is_none() && has_due(world, now))
            || self.has_to_extend(node, now)
            || is_rescuer_due
            || node.tasks.iter().any(is_task_due)
    }

    fn is_due(&self, task: &Task, now: Time) -> bool {
        now >= task.run_at || self.setting.has(Mistake::SendAtClaim)
    }

    fn has_to_extend(&self, node: &Node, now: Time) -> bool {
        let is_due = !node.held.is_empty() && node.extension.is_none() && node.extension_at <= now;
        is_due && !self.setting.has(Mistake::NoExtension)
    }

    fn has_to_rescue(&self, world: &World, now: Time) -> bool {
        !world.store.ending(now).is_empty() && !self.setting.has(Mistake::NoRescue)
    }

    /// Returns whether no claim is under way: its leases are not held yet.
    fn can_sort(&self, node: &Node) -> bool {
        node.claim.is_none() || self.setting.has(Mistake::RescueDuringClaim)
    }
}

impl Node {
    fn is_idle(&self) -> bool {
        *self == Self::default()
    }
}

fn has_due(world: &World, by: Time) -> bool {
    world.store.rows.iter().any(|row| row.state == State::Scheduled && row.run_at <= by)
}

/// Returns the ways that a call may go.
fn ways(world: &World) -> impl Iterator<Item = Way> {
    let slow = (world.left.slow_calls > 0).then_some(Way::Slow);
    let lost = (world.left.lost_calls > 0).then_some(Way::Lost);
    std::iter::once(Way::Prompt).chain(slow).chain(lost)
}
