//! `carillon plugin bench`: what a call costs, in time and in fuel, each time in a fresh instance as the server makes it.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;

use super::super::{Session, input, local};
use super::runtime;
use crate::clock::{Clock as _, SystemClock};
use crate::policy::Limits;
use crate::policy::case::Case;

/// Calls before those that are measured: the first ones pay for what the others find.
const WARM_UP: u32 = 20;

#[derive(Debug, Args)]
pub(in crate::cli) struct Bench {
    /// The component.
    file: PathBuf,
    /// A call, as a golden test has it (`carillon plugin test --help`); what it is to come to is not looked at. `-` is standard input.
    #[arg(long, value_name = "FILE", default_value = input::STDIN)]
    call: PathBuf,
    /// How often it is made.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calls: u32,
}

impl Bench {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let text = input::bytes(&self.call)?;
        let runtime = runtime()?;
        let plugin = local::load(&runtime, &self.file).await?;
        let now = SystemClock.now();
        let (mut micros, mut fuel) = (Vec::new(), 0);
        for call in 0..WARM_UP + self.calls {
            let called = case(&text)?.call(&plugin, &runtime.limits, now)?;
            if let Err(fault) = called.result {
                bail!("the call ended in a fault: {}: {}", fault.code.as_str(), fault.message);
            }
            if call >= WARM_UP {
                micros.push(called.usage.micros);
                fuel = fuel.max(called.usage.fuel);
            }
        }
        micros.sort_unstable();
        let Limits { fuel: most, .. } = *runtime.limits;
        session.out.answer(&json!({
            "calls": self.calls,
            "p50_micros": percentile(&micros, 50),
            "p99_micros": percentile(&micros, 99),
            "max_micros": micros.last(),
            "fuel": fuel,
            "fuel_limit": most,
        }))
    }
}

/// A case, without what a golden test says of its end.
fn case(text: &[u8]) -> anyhow::Result<Case> {
    let mut test: serde_json::Map<_, _> = serde_json::from_slice(text).context("the call is not a JSON object")?;
    test.retain(|key, _| !["answer", "fault"].contains(&key.as_str()));
    serde_json::from_value(test.into()).context("this is not a call; see `carillon plugin test --help`")
}

/// Of sorted values: the smallest that this many in a hundred do not exceed.
fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let sorted: Vec<u64> = (1..=200).collect();
        assert_eq!((percentile(&sorted, 50), percentile(&sorted, 99)), (Some(100), Some(198)));
        assert_eq!((percentile(&[7], 50), percentile(&[7], 99), percentile(&[], 50)), (Some(7), Some(7), None));
    }
}
