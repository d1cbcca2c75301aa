//! Budget of the config checks of one request.
//!
//! A check of a config costs about the values of its schema times the values of the config: schemas have no references. A check that would
//! exceed the budget is not begun. One that takes longer than that, which some combinations of keywords can, is ended when the time is over.

use std::time::Duration;

use serde_json::Value;

use carillon_core::clock::Stopwatch;
use carillon_policy::config_schema::{self, TimeIsOver};

/// Bytes of text that count as one value: patterns read them all.
const TEXT_PER_VALUE: usize = 64;

/// Bounds of the config checks of one request.
#[derive(Clone, Copy, Debug)]
pub struct CheckLimits {
    /// Largest number of steps: values of the schemas times values of the configs.
    pub steps: u64,
    /// Time limit of all checks together.
    pub time: Duration,
}

/// What is left of the bounds for one request.
#[derive(Clone, Copy, Debug)]
pub struct CheckBudget {
    limits: CheckLimits,
    steps: u64,
    time: Duration,
}

impl CheckBudget {
    pub(super) fn new(limits: CheckLimits) -> Self {
        Self { limits, steps: 0, time: Duration::ZERO }
    }

    /// Takes the steps of one check from the budget.
    ///
    /// # Errors
    /// Returns a sentence, without taking any, if they are not left.
    pub(super) fn take(&mut self, schema: &Value, config: &Value) -> Result<(), String> {
        let (nodes, values) = (values(schema), values(config));
        let steps = self.steps.saturating_add(nodes.saturating_mul(values));
        let CheckLimits { steps: limit, time } = self.limits;
        if steps > limit {
            return Err(format!(
                "the config has {values} values and its schema {nodes}; with it, the checks of the request take {steps} steps; the limit is \
                 {limit} (`limits.check_steps`)"
            ));
        }
        if self.time > time {
            return Err(self.over());
        }
        self.steps = steps;
        Ok(())
    }

    /// Runs a check, and takes its time from the budget.
    ///
    /// # Errors
    /// Returns a sentence if the time was over before the check was at its end.
    pub(super) fn timed<T>(&mut self, check: impl FnOnce() -> T) -> Result<T, String> {
        let watch = Stopwatch::start();
        let done = config_schema::within(self.limits.time.saturating_sub(self.time), check);
        self.time += watch.elapsed();
        done.map_err(|TimeIsOver| self.over())
    }

    fn over(&self) -> String {
        let most = carillon_core::duration::format(self.limits.time);
        format!("the checks of the request's configs take more than {most} (`limits.check_time`)")
    }
}

/// Returns the number of values in a value, with itself.
fn values(value: &Value) -> u64 {
    let text = |len: usize| u64::try_from(len / TEXT_PER_VALUE).unwrap_or(u64::MAX);
    match value {
        Value::Array(items) => items.iter().fold(1, |sum: u64, item| sum.saturating_add(values(item))),
        Value::Object(members) => members
            .iter()
            .fold(1, |sum: u64, (name, member)| sum.saturating_add(text(name.len())).saturating_add(values(member))),
        Value::String(value) => 1 + text(value.len()),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn budget(steps: u64) -> CheckBudget {
        CheckBudget::new(CheckLimits { steps, time: Duration::from_millis(250) })
    }

    #[test]
    fn checks_of_one_request_share_its_steps() {
        let (schema, config) = (json!({"items": {"type": "integer"}}), json!([1, 2, 3]));
        let mut budget = budget(30);
        assert_eq!(budget.take(&schema, &config), Ok(()), "3 times 4");
        assert_eq!(budget.take(&schema, &config), Ok(()));
        let error = budget.take(&schema, &config).unwrap_err();
        assert!(error.contains("take 36 steps; the limit is 30 (`limits.check_steps`)"), "{error}");
        assert_eq!(budget.take(&json!({}), &json!(null)), Ok(()), "a refused check takes nothing");
    }

    #[test]
    fn long_texts_count_as_several_values() {
        assert_eq!(values(&json!("x")), 1);
        assert_eq!(values(&json!(["x".repeat(640)])), 12);
    }

    #[test]
    fn check_after_the_time_is_over_is_refused() {
        let mut budget = budget(u64::MAX);
        budget.time = Duration::from_secs(1);
        let error = budget.take(&json!({}), &json!({})).unwrap_err();
        assert!(error.contains("more than 250ms (`limits.check_time`)"), "{error}");
    }
}
