//! Does as its config says: as an observer it talks, traps or never ends; as a judge it traps, or says what it is told of the attempt; as an
//! encoder it traps, never ends, or does nothing.

use carillon_policy_sdk::{
    Attempt, Encode, Event, Exchange, Failure, Judge, Observe, Plugin, Request, Verdict, export, log,
};
use serde::Deserialize;

struct Moody;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    mood: Mood,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mood {
    #[default]
    Talk,
    Trap,
    Spin,
}

export!(Moody: encode, judge, observe);

impl Plugin for Moody {
    type Config = Config;
    const NAME: &'static str = "moody";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Does as its config says.";
    const CONFIG_SCHEMA: &'static str = r#"{
        "type": "object", "additionalProperties": false, "properties": {"mood": {"enum": ["talk", "trap", "spin"]}}
    }"#;
}

impl Encode for Moody {
    fn encode(_attempt: &Attempt, config: &Config, request: Request) -> Result<Request, Failure> {
        match config.mood {
            Mood::Talk => Ok(request),
            Mood::Trap => panic!("in a bad mood"),
            Mood::Spin => loop {
                std::hint::black_box(&request);
            },
        }
    }
}

impl Judge for Moody {
    fn judge(attempt: &Attempt, config: &Config, _exchange: Exchange) -> Result<Verdict, Failure> {
        assert!(!matches!(config.mood, Mood::Trap), "in a bad mood");
        let told = attempt.attributes.iter().map(|attribute| format!("{}={}", attribute.key, attribute.value));
        Ok(Verdict::success(told.collect::<Vec<_>>().join(" ")))
    }
}

impl Observe for Moody {
    fn observe(config: &Config, events: &[Event]) {
        match config.mood {
            Mood::Talk => log::info(&format!("{} events", events.len())),
            Mood::Trap => panic!("in a bad mood"),
            Mood::Spin => loop {
                std::hint::black_box(events);
            },
        }
    }
}
