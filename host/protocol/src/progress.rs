//! Progress: every job ends once no more faults happen.
//!
//! `stateright` checks `eventually` on paths without joins and cycles only, so this looks at the whole graph of states: from no state is there
//! an endless way without faults, and every such way ends where all jobs have ended.

use std::collections::HashMap;
use std::rc::Rc;

use stateright::Model;

use crate::action::Action;
use crate::model::{Protocol, World};

/// Result of the exploration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// From each of so many states, all jobs end.
    Ends(usize),
    /// Nothing can happen in this state, and a job has not ended.
    Stuck(Box<World>),
    /// Without faults, the system can come back to this state for ever.
    Endless(Box<World>),
}

/// Explores all states, and follows all ways without faults.
#[must_use]
pub fn progress(protocol: &Protocol) -> Progress {
    let (mut ids, mut states): (HashMap<Rc<World>, u32>, Vec<Rc<World>>) = (HashMap::new(), Vec::new());
    let mut id_of = |world: World, states: &mut Vec<Rc<World>>| {
        *ids.entry(Rc::new(world)).or_insert_with_key(|world| {
            states.push(Rc::clone(world));
            u32::try_from(states.len() - 1).unwrap_or(u32::MAX)
        })
    };
    for world in protocol.init_states() {
        id_of(world, &mut states);
    }
    let (mut before, mut ways_out): (Vec<Vec<u32>>, Vec<u32>) = (Vec::new(), Vec::new());
    let (mut actions, mut next) = (Vec::<Action>::new(), 0);
    while next < states.len() {
        let world = Rc::clone(&states[next]);
        protocol.actions(&world, &mut actions);
        let mut out = 0;
        for action in actions.drain(..) {
            let Some(after) = protocol.next_state(&world, action) else { continue };
            let after = id_of(after, &mut states) as usize;
            if !action.is_fault() {
                before.resize(before.len().max(after + 1), Vec::new());
                before[after].push(u32::try_from(next).unwrap_or(u32::MAX));
                out += 1;
            }
        }
        if out == 0 && !world.is_over() {
            return Progress::Stuck(Box::new(World::clone(&world)));
        }
        ways_out.push(out);
        next += 1;
    }
    before.resize(states.len(), Vec::new());
    // Removes states from which all ways end, last ones first. What remains is on a cycle or leads into one.
    let mut ended: Vec<usize> = (0..states.len()).filter(|state| ways_out[*state] == 0).collect();
    let mut count = 0;
    while let Some(state) = ended.pop() {
        count += 1;
        for earlier in &before[state] {
            let left = &mut ways_out[*earlier as usize];
            *left -= 1;
            if *left == 0 {
                ended.push(*earlier as usize);
            }
        }
    }
    match ways_out.iter().position(|left| *left > 0) {
        Some(state) => Progress::Endless(Box::new(World::clone(&states[state]))),
        None => Progress::Ends(count),
    }
}
