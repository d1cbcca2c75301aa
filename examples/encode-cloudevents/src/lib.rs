//! Makes a CloudEvent 1.0 of each payload, in either form of the HTTP binding: the event's attributes as headers beside the payload
//! (binary), or everything in one JSON object (structured). <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md>
//!
//! The event's id is the job's, the same for each attempt; its time is that of the job's acceptance.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carillon_policy_sdk::{Attempt, Encode, Failure, Header, Plugin, Request, export};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

struct CloudEvents;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Who speaks: a URI.
    source: String,
    /// What happened, unless the job's metadata have a `type`.
    r#type: String,
    #[serde(default)]
    mode: Mode,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Binary,
    Structured,
}

/// A structured event.
#[derive(Serialize)]
struct Event<'a> {
    specversion: &'a str,
    id: &'a str,
    source: &'a str,
    r#type: &'a str,
    time: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    datacontenttype: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

const SPEC_VERSION: &str = "1.0";
const CONTENT_TYPE: &str = "content-type";

export!(CloudEvents: encode);

impl Plugin for CloudEvents {
    type Config = Config;
    const NAME: &'static str = "encode-cloudevents";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Makes a CloudEvent of each payload.";
    const CONFIG_SCHEMA: &'static str = r#"{
        "type": "object", "additionalProperties": false, "required": ["source", "type"],
        "properties": {
            "source": {"type": "string", "pattern": "^[!-~]{1,1024}$", "description": "Who speaks: a URI."},
            "type": {"type": "string", "pattern": "^[!-~]{1,256}$", "description": "What happened; a job's metadata `type` goes before."},
            "mode": {"enum": ["binary", "structured"], "default": "binary"}
        }
    }"#;
}

impl Encode for CloudEvents {
    fn encode(attempt: &Attempt, config: &Config, mut request: Request) -> Result<Request, Failure> {
        let kind = attempt.attribute("metadata.type").unwrap_or(&config.r#type);
        let time = rfc3339(attempt.created_ms);
        match config.mode {
            Mode::Binary => {
                let attributes = [
                    ("ce-specversion", SPEC_VERSION),
                    ("ce-id", &attempt.job_id),
                    ("ce-source", &config.source),
                    ("ce-type", kind),
                    ("ce-time", &time),
                ];
                for (name, value) in attributes {
                    set(&mut request.headers, name, value.as_bytes().to_vec());
                }
            }
            Mode::Structured => {
                let body = std::mem::take(&mut request.body);
                let label = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(CONTENT_TYPE));
                let label = label.and_then(|header| String::from_utf8(header.value.clone()).ok());
                let data = serde_json::from_slice::<&RawValue>(&body).ok();
                let event = Event {
                    specversion: SPEC_VERSION,
                    id: &attempt.job_id,
                    source: &config.source,
                    r#type: kind,
                    time: &time,
                    datacontenttype: label.as_deref(),
                    data,
                    data_base64: (data.is_none() && !body.is_empty()).then(|| STANDARD.encode(&body)),
                };
                request.body =
                    serde_json::to_vec(&event).map_err(|error| Failure::policy("not-json", error.to_string()))?;
                set(&mut request.headers, CONTENT_TYPE, b"application/cloudevents+json; charset=utf-8".to_vec());
            }
        }
        Ok(request)
    }
}

fn set(headers: &mut Vec<Header>, name: &str, value: Vec<u8>) {
    headers.retain(|header| !header.name.eq_ignore_ascii_case(name));
    headers.push(Header { name: name.to_owned(), value });
}

/// A time in milliseconds since 1970 as text, by the civil calendar: <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>.
fn rfc3339(ms: u64) -> String {
    let (days, rest) = (ms / 86_400_000, ms % 86_400_000);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hours, minutes, seconds) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", rest % 1_000)
}

#[cfg(test)]
mod tests {
    use carillon_policy_sdk::Encode as _;
    use carillon_policy_sdk::testing::{attempt, attribute, config, request};

    use super::{CloudEvents, rfc3339};

    #[test]
    fn times_are_written_by_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_168_800_251, "2026-11-20T10:00:00.251Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
    }

    #[test]
    fn any_payload_survives_and_metadata_name_the_type() {
        let config = config::<CloudEvents>(r#"{"source": "/a", "type": "b", "mode": "structured"}"#).expect("good");
        let attempt =
            carillon_policy_sdk::Attempt { attributes: vec![attribute("metadata.type", "c")], ..attempt(1, 0) };
        let body = |payload: &[u8]| {
            let encoded = CloudEvents::encode(&attempt, &config, request(payload)).expect("encoded");
            serde_json::from_slice::<serde_json::Value>(&encoded.body).expect("JSON")
        };
        assert_eq!((&body(b"{\"n\": 1.50}")["type"], &body(b"\xff")["data_base64"]), (&"c".into(), &"/w==".into()));
        assert_eq!(body(b"").get("data"), None);
    }
}
