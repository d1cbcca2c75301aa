//! `carillon plugin bench`: measures a call in time, fuel and memory, each time in a fresh instance as the server makes it.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;

use super::super::{Session, input, local};
use super::runtime;
use carillon_core::clock::{Clock as _, SystemClock};
use carillon_core::stats::percentile;
use carillon_policy::golden::Golden;

/// Calls before the measurement: they fill the caches that later calls use.
const WARM_UP: u32 = 20;

#[derive(Debug, Args)]
pub struct Bench {
    /// Component to call.
    file: PathBuf,
    /// File with the call, in the form of a golden test (`carillon plugin test --help`), whose expected result is ignored; `-` reads
    /// standard input.
    #[arg(long, value_name = "FILE", default_value = input::STDIN)]
    call: PathBuf,
    /// Number of calls.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calls: u32,
}

impl Bench {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let name = self.call.display().to_string();
        let test = serde_json::from_slice(&input::bytes(&self.call)?).context("the call is not a JSON object")?;
        let golden = Golden { name, test };
        let runtime = runtime()?;
        let plugin = local::load(&runtime, &self.file).await?;
        let now = SystemClock.now();
        let (mut micros, mut fuel, mut fuel_limit, mut memory) = (Vec::new(), 0, 0, 0);
        for call in 0..WARM_UP + self.calls {
            let case = golden.case().context("the file is not a call; see `carillon plugin test --help`")?;
            let called = case.call(&plugin, &runtime.limits, now)?;
            if let Err(fault) = called.result {
                bail!("the call ended in a fault: {}: {}", fault.code.as_str(), fault.message);
            }
            if call >= WARM_UP {
                micros.push(called.usage.micros);
                fuel = fuel.max(called.usage.fuel);
                fuel_limit = called.usage.fuel_limit;
                memory = memory.max(called.usage.memory);
            }
        }
        micros.sort_unstable();
        session.out.answer(&json!({
            "calls": self.calls,
            "p50_micros": percentile(&micros, 50),
            "p99_micros": percentile(&micros, 99),
            "max_micros": micros.last(),
            "fuel": fuel,
            "fuel_limit": fuel_limit,
            "memory": memory,
            "memory_limit": plugin.limits(&runtime.limits).memory,
        }))
    }
}
