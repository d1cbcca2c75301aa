//! When a schedule's ticks are: from an expression and a time zone to instants. Pure; the loop that acts on it is `cron`.
//!
//! An expression speaks of local time, and `zone` says which instant a local time is. A local time that the zone skips is placed
//! at the first instant after the gap, one that it repeats at its first occurrence, so that the local day of a schedule always has
//! its ticks, and each once. `@every` speaks of elapsed time and knows no zone.
//!
//! Ticks are strictly ascending whole seconds (of `@every`: milliseconds) between 1970 and the end of 2100, which is as far as
//! expressions are understood.

mod catch_up;
mod expression;
mod ticks;
mod zone;

pub use self::catch_up::{CatchUp, Due, SKIPPED_COUNTED};
pub use self::expression::{BadExpression, Expression};
pub use self::ticks::{Ticks, Timetable};
pub use self::zone::{UnknownZone, Zone};
