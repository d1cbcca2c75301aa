//! Delivery: one attempt from its leased job to its settlement. Checks the receiver, sends the request, and decides the job's new state.

pub mod attempt;
pub mod egress;
pub mod follow_ups;
pub mod receiver;
pub mod send;
pub mod settle;
pub mod settler;
pub mod simulate;
mod tenant_egress;
