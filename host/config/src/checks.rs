//! Collects the problems of a configuration.

use std::fmt::Display;
use std::time::Duration;

use super::values::{Period, Size};

/// Longest period of any kind: a hundred years of 365 days.
const CENTURY: Duration = Duration::from_secs(36_500 * 86_400);

/// Problems: keys, each with a message for people.
#[derive(Default)]
pub(super) struct Checks(pub(super) Vec<(&'static str, String)>);

impl Checks {
    pub(super) fn require(&mut self, holds: bool, key: &'static str, message: impl Into<String>) {
        if !holds {
            self.0.push((key, message.into()));
        }
    }

    pub(super) fn between<T: PartialOrd + Display>(&mut self, key: &'static str, value: T, least: T, most: T) {
        let message = format!("{value} is out of range: it must be from {least} to {most}");
        self.require(value >= least && value <= most, key, message);
    }

    pub(super) fn period(&mut self, key: &'static str, value: Period, least: Duration) {
        self.between(key, value, Period::from(least), Period::from(CENTURY));
    }

    pub(super) fn size(&mut self, key: &'static str, value: Size, least: usize) {
        self.require(
            value.get() >= least,
            key,
            format!("{value} is too small: it must be at least {}", Size::from(least)),
        );
    }

    pub(super) fn at_most<T: PartialOrd + Display>(&mut self, key: &'static str, value: T, bound_key: &str, bound: T) {
        let message = format!("{value} is more than {bound_key}, which is {bound}");
        self.require(value <= bound, key, message);
    }
}
