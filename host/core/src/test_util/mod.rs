//! What tests of all crates share: clocks that are moved by hand, builders of jobs, and the check of stored documents.
//!
//! Only with the feature `test-util`, which no program has.

mod builders;
mod clocks;
mod stored;

pub use self::builders::{JobBuilder, LeasedBuilder, NewJobBuilder, attempt, job, leased, new_job};
pub use self::clocks::{ManualClock, SkewedClock};
pub use self::stored::assert_stored_form;
