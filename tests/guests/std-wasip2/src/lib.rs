//! Uses what the standard library has over WASI 0.2, and says what came of it: as a judge, in the verdict's reason.

use std::collections::HashMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use carillon_policy_sdk::{Attempt, Exchange, Failure, Judge, Plugin, Verdict, export};
use serde::Deserialize;

struct Std;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

export!(Std: judge);

impl Plugin for Std {
    type Config = Config;
    const NAME: &'static str = env!("CARGO_PKG_NAME");
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Uses what the standard library has over WASI 0.2.";
    const CONFIG_SCHEMA: &'static str = r#"{"type": "object", "additionalProperties": false}"#;
}

impl Judge for Std {
    #[expect(clippy::disallowed_methods, reason = "the clock that the host gives a guest is what this is about")]
    fn judge(_attempt: &Attempt, _config: &Config, _exchange: Exchange) -> Result<Verdict, Failure> {
        println!("said to standard output");
        eprintln!("said to standard error");
        let started = Instant::now();
        std::thread::sleep(std::time::Duration::from_secs(3_600));
        // The keys of its hashes are random, and with them its order.
        let map: HashMap<u32, ()> = (0..16).map(|number| (number, ())).collect();
        let order: Vec<String> = map.keys().map(u32::to_string).collect();
        Ok(Verdict::success(format!(
            "now={} slept={} order={} read={} write={} dir={} vars={} args={}",
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis()),
            started.elapsed().as_millis(),
            order.join(","),
            std::fs::read_to_string("/etc/hostname").is_ok(),
            std::fs::write("new", "text").is_ok(),
            std::fs::read_dir("/").is_ok(),
            std::env::vars().count(),
            std::env::args().count(),
        )))
    }
}
