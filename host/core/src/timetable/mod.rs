//! When a schedule's ticks are: from an expression and a time zone to instants. Pure; the loop that acts on it is `cron`.
//!
//! An expression speaks of local time, and `zone` says which instant a local time is. Where clocks are changed, an expression with fixed
//! hours and minutes has each of its local times once: one that the zone skips at the first instant after the gap, one that it repeats at
//! its first occurrence. One with a star in the hour or the minute follows elapsed time: it ticks at every instant whose local time
//! matches, and at no other. `@every` knows no zone.
//!
//! Ticks are strictly ascending whole seconds (of `@every`: milliseconds) between 1970 and the end of 2100, which is as far as
//! expressions are understood.

mod calendar;
mod catch_up;
mod expression;
mod fields;
mod system;
mod ticks;
mod zone;

pub use self::calendar::{Calendar, MonthDay, Pace, WeekDay};
pub use self::catch_up::{CatchUp, Due, SKIPPED_COUNTED};
pub use self::expression::{BadExpression, Expression};
pub use self::system::{SystemZone, system_zone};
pub use self::ticks::{Ticks, Timetable};
pub use self::zone::{UnknownZone, Zone};
