//! The model: all states of a cluster and its store within a [`Setting`], and all steps between them.

mod answers;
mod calls;
mod steps;
mod urgency;

use std::fmt;

use stateright::{Model, Property};

use crate::action::Action;
use crate::node::Node;
use crate::rules::{Broken, Rule};
use crate::setting::{FIRST_DUE, Faults, Mistake, Setting, Time};
use crate::store::{State, Store, Verb};

/// State of the whole system.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// Time of the store's clock.
    pub now: Time,
    /// The store.
    pub store: Store,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Calls that their callers have given up, each with the time by which it takes effect if it does.
    pub orphans: Vec<(Verb, Time)>,
    /// Faults that may still happen.
    pub left: Faults,
    /// Changes that a client may still make.
    pub changes_left: u8,
    /// Rules that were broken on the way here.
    pub broken: Broken,
}

/// The protocol within the bounds of a setting.
#[derive(Clone, Debug)]
pub struct Protocol {
    /// The bounds.
    pub setting: Setting,
}

impl Protocol {
    /// Returns the time by the clock of a node.
    fn time_of(&self, world: &World, node: usize) -> Time {
        if self.setting.has(Mistake::ClockAhead) && node == 0 {
            return world.now + 1;
        }
        world.now.saturating_sub(self.setting.clocks_behind[node])
    }

    /// Returns how often the faults that cost a request have happened.
    fn costly_faults(&self, world: &World) -> u8 {
        let (all, left) = (self.setting.faults, world.left);
        (all.crashes - left.crashes) + (all.stalls - left.stalls) + (all.failures - left.failures)
    }
}

impl World {
    /// Returns whether a rule holds on the way to this state.
    #[must_use]
    pub fn keeps(&self, rule: Rule) -> bool {
        !self.broken.has(rule)
    }

    /// Returns whether all jobs have ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.store.rows.iter().all(|row| row.state.is_final())
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            now: 1,
            store: Store::new(self.setting.jobs, FIRST_DUE),
            nodes: vec![Node::default(); self.setting.clocks_behind.len()],
            orphans: Vec::new(),
            left: self.setting.faults,
            changes_left: self.setting.changes,
            broken: Broken::default(),
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.enabled(world, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        self.take(&mut next, action);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let always = |rule: Rule, keeps: fn(&Self, &World) -> bool| Property::always(rule.name(), keeps);
        vec![
            always(Rule::OneLiveLease, |_, world| world.keeps(Rule::OneLiveLease)),
            always(Rule::NeverEarly, |_, world| world.keeps(Rule::NeverEarly)),
            always(Rule::NoSendUnderExpiredLease, |_, world| world.keeps(Rule::NoSendUnderExpiredLease)),
            always(Rule::NoSendAfterTakeover, |_, world| world.keeps(Rule::NoSendAfterTakeover)),
            always(Rule::StaleSettlementChangesNothing, |_, world| world.keeps(Rule::StaleSettlementChangesNothing)),
            always(Rule::OneEnd, |_, world| world.keeps(Rule::OneEnd)),
            always(Rule::NoGaps, |_, world| world.keeps(Rule::NoGaps)),
            always(Rule::NumbersAreUnique, |_, world| world.keeps(Rule::NumbersAreUnique)),
            always(Rule::NothingOwnTakenBack, |_, world| world.keeps(Rule::NothingOwnTakenBack)),
            always(Rule::FewSends, |_, world| world.keeps(Rule::FewSends)),
        ]
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "time {}", self.now)?;
        for (job, row) in self.store.rows.iter().enumerate() {
            write!(f, "; job {job}: {:?}, attempts {}, token {}", row.state, row.attempts, row.token)?;
            match row.state {
                State::Running => write!(f, " until {}", row.lease_until)?,
                State::Scheduled => write!(f, ", due at {}", row.run_at)?,
                _ => {}
            }
        }
        Ok(())
    }
}
