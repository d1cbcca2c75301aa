//! The way to a state, as text.

use std::fmt::Write as _;

use stateright::Path;

use crate::action::Action;
use crate::model::World;

/// Returns one line for each step: what happens, and how the jobs are then.
#[must_use]
pub fn trace(path: Path<World, Action>) -> String {
    let (mut text, mut step) = (String::new(), "at first".to_owned());
    for (number, (world, action)) in path.into_vec().into_iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{number:>3}. {step:<90} {world}");
        step = action.map(|action| action.to_string()).unwrap_or_default();
    }
    text
}
