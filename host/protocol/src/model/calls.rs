//! Calls of the store: what nodes ask for, and how it gets there.

use super::{Protocol, World};
use crate::action::Way;
use crate::node::{Call, Node, Phase, Rescuer};
use crate::rules::Rule;
use crate::setting::{LEASE, LOOK_AHEAD, MAX_ORPHAN, Mistake, SLOW, Time};
use crate::store::{Answer, Lease, Leased, Verb};

impl Protocol {
    pub(super) fn claim(&self, world: &mut World, node: usize, way: Way) {
        let now = self.time_of(world, node);
        let verb = Verb::ClaimDue { due_by: now + LOOK_AHEAD, until: now + LEASE };
        world.nodes[node].claim = self.call(world, verb, way).map(|call| (now, call));
    }

    /// Extends what the node holds. A call that fails is repeated soon.
    pub(super) fn extend(&self, world: &mut World, node: usize, way: Way) {
        let now = self.time_of(world, node);
        let verb = Verb::Extend { leases: world.nodes[node].held.clone(), until: now + LEASE };
        world.nodes[node].extension = self.call(world, verb, way).map(|call| (now, call));
    }

    /// Compares expired leases with those that the node holds. Its own are extended first.
    pub(super) fn sort(&self, world: &mut World, node: usize, way: Way) {
        let Rescuer::Found { at, ending } = std::mem::take(&mut world.nodes[node].rescuer) else { return };
        let held = &world.nodes[node].held;
        let ignores_holds = self.setting.has(Mistake::RescueOfHeldLeases);
        let (own, lost): (Vec<Lease>, Vec<Lease>) =
            ending.into_iter().partition(|lease| held.contains(lease) && !ignores_holds);
        if own.is_empty() {
            self.take_back(world, node, (at, lost), way);
            return;
        }
        let verb = Verb::Extend { leases: held.clone(), until: self.time_of(world, node) + LEASE };
        if let Some(call) = self.call(world, verb, way) {
            world.nodes[node].rescuer = Rescuer::Extending { at, lost, call };
        }
    }

    pub(super) fn take_back(&self, world: &mut World, node: usize, (at, lost): (Time, Vec<Lease>), way: Way) {
        let verb = Verb::ClaimLost { node, lost, ended_by: at, until: at + LEASE };
        if let Some(call) = self.call(world, verb, way) {
            world.nodes[node].rescuer = Rescuer::Taking { at, call };
        }
    }

    pub(super) fn settle(&self, world: &mut World, (node, task): (usize, usize), way: Way) {
        let Phase::Settling(settlement, None) = world.nodes[node].tasks[task].phase.clone() else { return };
        match self.call(world, Verb::Settle(settlement), way) {
            None if self.setting.has(Mistake::SettlementIsNotRepeated) => self.end_task(world, node, task),
            call => world.nodes[node].tasks[task].phase = Phase::Settling(settlement, call),
        }
    }

    /// Begins a call; returns nothing if its caller gives it up.
    fn call(&self, world: &mut World, verb: Verb, way: Way) -> Option<Call> {
        match way {
            Way::Prompt => Some(Call::Back(self.run(world, &verb), world.now)),
            Way::Slow => {
                world.left.slow_calls -= 1;
                Some(Call::There(verb, world.now + SLOW))
            }
            Way::Lost => {
                world.left.lost_calls -= 1;
                world.orphans.push((verb, world.now + MAX_ORPHAN));
                None
            }
        }
    }

    /// Runs a verb in the store.
    pub(super) fn run(&self, world: &mut World, verb: &Verb) -> Answer {
        let answer = world.store.run(verb, world.now, &self.setting, &mut world.broken);
        if let (Verb::ClaimLost { node, .. }, Answer::Leased(taken)) = (verb, &answer) {
            let node = &world.nodes[*node];
            let is_own = |leased: &Leased| node.has((leased.lease.0, leased.lease.1 - 1));
            world.broken.check(Rule::NothingOwnTakenBack, !taken.iter().any(is_own));
        }
        answer
    }
}

impl Node {
    /// Returns whether the node works on this lease, or is being told of it.
    fn has(&self, lease: Lease) -> bool {
        let is_claimed = match &self.claim {
            Some((_, Call::Back(Answer::Leased(leased), _))) => leased.iter().any(|leased| leased.lease == lease),
            _ => false,
        };
        is_claimed || self.works_on(lease)
    }
}
