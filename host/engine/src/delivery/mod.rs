//! One attempt, from its leased job to its settlement: its receiver, its request, and what becomes of the job.

pub mod attempt;
pub mod egress;
pub mod follow_ups;
pub mod receiver;
pub mod send;
pub mod settle;
pub mod settler;
pub mod simulate;
