//! Timetables: the instants of a schedule's ticks, from an expression and a time zone.
//!
//! Pure; the loop that acts on the ticks is `cron`.
//!
//! An expression is in local time, and `zone` maps local times to instants. Where clocks are changed, an expression with fixed hours and
//! minutes has each of its local times once: one that the zone skips at the first instant after the gap, one that it repeats at its first
//! occurrence. One with a star in the hour or the minute follows elapsed time: it ticks at every instant whose local time matches, and at no
//! other. `@every` does not use the zone.
//!
//! Ticks are strictly ascending whole seconds (of `@every`: milliseconds) between 1970 and the end of 2100, the last year that expressions
//! support.

mod calendar;
mod catch_up;
mod expression;
mod fields;
mod system;
mod ticks;
mod zone;

pub use self::calendar::{Calendar, MonthDay, Pace, WeekDay};
pub use self::catch_up::{CatchUp, Due, SKIPPED_COUNTED, TickRange};
pub use self::expression::{BadExpression, Expression};
pub use self::system::{SystemZone, system_zone};
pub use self::ticks::{Ticks, Timetable};
pub use self::zone::{UnknownZone, Zone};
