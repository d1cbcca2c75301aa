//! `observe-log`: writes a line for each event of the kinds that it is to watch.
//!
//! A call has room for 16 lines; what is over is counted in the last one, so that nothing goes missing unsaid.

use carillon_policy_sdk::{Event, Observe, Plugin, export, log};
use serde::Deserialize;

/// The lines that a call may write, the last one being for what is over.
const LINES: usize = 16;

/// The plugin.
#[derive(Debug)]
pub struct ObserveLog;

/// What to watch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The kinds; jobs that end badly by default.
    #[serde(default = "ends_badly")]
    pub kinds: Vec<String>,
}

fn ends_badly() -> Vec<String> {
    ["error", "expire"].map(str::to_owned).to_vec()
}

export!(ObserveLog: observe);

impl Plugin for ObserveLog {
    type Config = Config;
    const NAME: &'static str = "observe-log";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Writes a line for each event of the kinds that it is to watch.";
    const CONFIG_SCHEMA: &'static str = r#"{
        "type": "object", "additionalProperties": false,
        "properties": {"kinds": {"type": "array", "items": {"type": "string"}, "minItems": 1}}
    }"#;
}

impl Observe for ObserveLog {
    fn observe(config: &Config, events: &[Event]) {
        let watched: Vec<_> = events.iter().filter(|event| config.kinds.contains(&event.kind)).collect();
        let shown = if watched.len() > LINES { LINES - 1 } else { watched.len() };
        watched[..shown].iter().for_each(|event| log::info(&line(event)));
        if shown < watched.len() {
            log::warn(&format!("and {} more", watched.len() - shown));
        }
    }
}

/// `error 0190… status=500 metadata.customer=7`
fn line(event: &Event) -> String {
    let attributes = event.attributes.iter().map(|attribute| format!(" {}={}", attribute.key, attribute.value));
    format!("{} {}{}", event.kind, event.job_id, attributes.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_policy_sdk::testing::{attribute, config};

    fn event(kind: &str) -> Event {
        let attributes = vec![attribute("status", "500")];
        Event { id: 1, kind: kind.into(), at_ms: 0, group: "g".into(), job_id: "j".into(), attributes }
    }

    #[test]
    fn a_line_has_all_that_is_known() {
        assert_eq!(line(&event("error")), "error j status=500");
    }

    #[test]
    fn jobs_that_end_badly_are_watched_by_default() {
        let config = config::<ObserveLog>("{}").unwrap();
        assert_eq!(config.kinds, ["error", "expire"]);
        ObserveLog::observe(&config, &[event("error"), event("push")]);
    }
}
