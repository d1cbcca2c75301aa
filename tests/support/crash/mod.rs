//! Servers as processes of their own, and the books that are kept of what they do: for tests that kill, freeze and cut them off.

pub mod ledger;
pub mod process;
pub mod receiver;
