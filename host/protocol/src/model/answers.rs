//! What nodes do with the responses of the store.

use super::{Protocol, World};
use crate::node::{Call, Caller, Node, Phase, Rescuer, Task};
use crate::setting::{EXTENSION_PERIOD, LEASE, Mistake, Time};
use crate::store::{Answer, Lease, Leased, Settlement, State};

impl Protocol {
    /// Gives a node the response to a call.
    pub(super) fn receive(&self, world: &mut World, index: usize, caller: Caller) {
        let now = self.time_of(world, index);
        let node = &mut world.nodes[index];
        match caller {
            Caller::Dispatcher => {
                let Some((asked, Call::Back(Answer::Leased(leased), _))) = node.claim.take() else { return };
                leased.iter().for_each(|leased| self.start(node, leased, now));
                if now - asked >= EXTENSION_PERIOD {
                    node.extension_at = now;
                }
            }
            Caller::Keeper => {
                let Some((asked, Call::Back(Answer::Extended(ours), _))) = node.extension.take() else { return };
                node.extended(&ours, asked + LEASE);
                let from = if self.setting.has(Mistake::ExtensionPeriodFromResponse) { now } else { asked };
                let pause = if self.setting.has(Mistake::ExtensionWithoutPause) { 0 } else { EXTENSION_PERIOD };
                node.extension_at = from + pause;
            }
            Caller::Rescuer => self.rescued(node, now),
            Caller::Task(task) => self.end_task(world, index, task),
        }
        world.nodes[index].tidy();
    }

    fn start(&self, node: &mut Node, leased: &Leased, now: Time) {
        node.hold(leased.lease, now + EXTENSION_PERIOD);
        let until = if self.setting.has(Mistake::LeaseFromResponse) { now + LEASE } else { leased.until };
        let Leased { lease, number, run_at, .. } = *leased;
        node.tasks.push(Task { lease, number, run_at, until, phase: Phase::Waiting });
    }

    /// Goes on with a rescue.
    fn rescued(&self, node: &mut Node, now: Time) {
        match std::mem::take(&mut node.rescuer) {
            Rescuer::Extending { at, lost, call: Call::Back(Answer::Extended(ours), _) } => {
                node.extended(&ours, at + LEASE);
                // The rescuer extends again if that took long.
                if now - at >= EXTENSION_PERIOD {
                    node.extension_at = now;
                }
                if !lost.is_empty() {
                    node.rescuer = Rescuer::Ready { at, lost };
                }
            }
            Rescuer::Taking { at, call: Call::Back(Answer::Leased(taken), _) } => {
                for leased in taken {
                    node.hold(leased.lease, now + EXTENSION_PERIOD);
                    let Leased { lease, number, run_at, until } = leased;
                    let phase = Phase::Settling(self.interrupted(&leased, at), None);
                    node.tasks.push(Task { lease, number, run_at, until, phase });
                }
            }
            other => node.rescuer = other,
        }
    }

    /// Settles a job whose lease expired without a settlement: the attempt is spent, and the job is tried again at once.
    fn interrupted(&self, leased: &Leased, at: Time) -> Settlement {
        let attempt = (!self.setting.has(Mistake::RescueSpendsNothing)).then_some(leased.number);
        let next = self.after_failure(leased.number, at.max(leased.run_at));
        Settlement { lease: leased.lease, attempt, next }
    }

    /// Returns the state after an attempt that did not succeed.
    pub(super) fn after_failure(&self, number: u8, run_at: Time) -> (State, Time) {
        if number >= self.setting.attempts { (State::Dead, 0) } else { (State::Scheduled, run_at) }
    }

    /// Ends a task and its hold.
    pub(super) fn end_task(&self, world: &mut World, node: usize, task: usize) {
        let node = &mut world.nodes[node];
        let Task { lease, .. } = node.tasks.remove(task);
        let by_job = self.setting.has(Mistake::HoldsByJob);
        node.held.retain(|held| if by_job { held.0 != lease.0 } else { *held != lease });
        node.tidy();
    }
}

impl Node {
    /// Records the new end of leases.
    fn extended(&mut self, ours: &[Lease], until: Time) {
        for task in self.tasks.iter_mut().filter(|task| ours.contains(&task.lease)) {
            task.until = task.until.max(until);
        }
    }

    /// Brings what has no order into one, and forgets what no longer matters, so that equal states look alike.
    fn tidy(&mut self) {
        self.tasks.sort_by_key(|task| task.lease);
        if self.held.is_empty() {
            self.extension_at = 0;
        }
    }
}
