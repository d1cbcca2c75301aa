//! `observe-slack`: posts what happened to jobs to a channel of Slack.
//!
//! It asks for one job a call, however many events there were: a message with a line for each, and in the end how many more there are. The
//! job is delivered under the policy of the group that the binding names as `jobs`, whose `auth_headers` have Slack's token: neither this
//! plugin nor its config knows it. The form is that of <https://api.slack.com/methods/chat.postMessage>.

use std::collections::BTreeMap;

use carillon_policy_sdk::{Event, NewJob, Observe, Plugin, export, jobs, log};
use serde::Deserialize;
use serde_json::json;

/// The most events that have a line; what is over is counted.
const LINES: usize = 20;

/// The most characters of one value: a message has 40,000 at most.
const VALUE: usize = 300;

/// The plugin.
#[derive(Debug)]
pub struct ObserveSlack;

/// What is posted where.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The channel: `#alerts`, or its id.
    pub channel: String,
    /// The kinds of events; jobs that end badly by default.
    #[serde(default = "ends_badly")]
    pub kinds: Vec<String>,
    /// Where Slack's method is, if not at Slack.
    #[serde(default = "slack")]
    pub url: String,
}

fn ends_badly() -> Vec<String> {
    ["error", "expire"].map(str::to_owned).to_vec()
}

fn slack() -> String {
    "https://slack.com/api/chat.postMessage".to_owned()
}

export!(ObserveSlack: observe);

impl Plugin for ObserveSlack {
    type Config = Config;
    const NAME: &'static str = "observe-slack";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Posts what happened to jobs to a channel of Slack.";
    const CONFIG_SCHEMA: &'static str = r#"{
        "type": "object", "additionalProperties": false, "required": ["channel"],
        "properties": {
            "channel": {"type": "string", "minLength": 1},
            "kinds": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            "url": {"type": "string", "pattern": "^https?://"}
        }
    }"#;
}

impl Observe for ObserveSlack {
    fn observe(config: &Config, events: &[Event]) {
        let watched: Vec<_> = events.iter().filter(|event| config.kinds.contains(&event.kind)).collect();
        let Some(first) = watched.first() else { return };
        let message = json!({ "channel": config.channel, "text": text(&watched), "unfurl_links": false });
        let job = NewJob {
            // A second message about the same events could be told from a repetition by it.
            name: Some(format!("slack-{}-{}", first.id, watched.len())),
            ..NewJob::post_json(&config.url, message.to_string())
        };
        if let Err(refusal) = jobs::create(&job) {
            log::error(&format!("the message could not be posted: {}", refusal.message()));
        }
    }
}

/// What the message says: how often what happened, and a line for each event.
fn text(events: &[&Event]) -> String {
    let mut kinds = BTreeMap::new();
    events.iter().for_each(|event| *kinds.entry(event.kind.as_str()).or_insert(0) += 1);
    let counts: Vec<_> = kinds.iter().map(|(kind, count)| format!("{count} × {kind}")).collect();
    let mut lines = vec![format!("*{}*: {}", escaped(&events[0].group), escaped(&counts.join(", ")))];
    lines.extend(events.iter().take(LINES).map(|event| line(event)));
    if events.len() > LINES {
        lines.push(format!("and {} more", events.len() - LINES));
    }
    lines.join("\n")
}

/// `error 0190… (invoice 17): status 500, the receiver refused it`
fn line(event: &Event) -> String {
    let value = |key: &str| event.attributes.iter().find(|attribute| attribute.key == key).map(|it| it.value.as_str());
    let name = value("job-name").map(|name| format!(" ({})", escaped(name))).unwrap_or_default();
    let status = value("status").map(|status| format!("status {status}"));
    let why = [status, value("reason").or(value("error")).map(escaped)];
    let why: Vec<_> = why.into_iter().flatten().collect();
    let colon = if why.is_empty() { "" } else { ": " };
    format!("• {} `{}`{name}{colon}{}", escaped(&event.kind), escaped(&event.job_id), why.join(", "))
}

/// Slack takes `&`, `<` and `>` for its own (<https://api.slack.com/reference/surfaces/formatting#escaping>).
fn escaped(text: &str) -> String {
    let short: String = text.chars().take(VALUE).collect();
    short.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use carillon_policy_sdk::testing::{asked_jobs, attribute, config};
    use serde_json::Value;

    use super::*;

    fn event(kind: &str, reason: &str) -> Event {
        let attributes =
            vec![attribute("job-name", "invoice 17"), attribute("status", "500"), attribute("reason", reason)];
        Event { id: 7, kind: kind.into(), at_ms: 0, group: "billing".into(), job_id: "j".into(), attributes }
    }

    #[test]
    fn one_message_tells_of_all_events() {
        let config = config::<ObserveSlack>(r##"{"channel": "#alerts"}"##).unwrap();
        ObserveSlack::observe(&config, &[event("push", ""), event("error", "<b> & so on"), event("expire", "late")]);
        let [job] = &asked_jobs()[..] else { panic!("one job is asked for") };
        assert_eq!((job.url.as_str(), job.method.as_str()), ("https://slack.com/api/chat.postMessage", "POST"));
        let body: Value = serde_json::from_slice(&job.body).unwrap();
        let lines: Vec<_> = body["text"].as_str().unwrap().lines().collect();
        assert_eq!(lines[0], "*billing*: 1 × error, 1 × expire");
        assert_eq!(lines[1], "• error `j` (invoice 17): status 500, &lt;b&gt; &amp; so on");
        assert_eq!((&body["channel"], lines.len()), (&Value::from("#alerts"), 3));
    }

    #[test]
    fn nothing_is_posted_of_nothing_and_little_of_much() {
        let config = config::<ObserveSlack>(r##"{"channel": "#alerts"}"##).unwrap();
        ObserveSlack::observe(&config, &[event("push", "")]);
        assert!(asked_jobs().is_empty());
        let many: Vec<_> = (0..100).map(|_| event("error", &"x".repeat(5_000))).collect();
        ObserveSlack::observe(&config, &many);
        let body: Value = serde_json::from_slice(&asked_jobs()[0].body).unwrap();
        let text = body["text"].as_str().unwrap();
        assert!(text.ends_with("\nand 80 more") && text.len() < 40_000, "{}", text.len());
    }
}
