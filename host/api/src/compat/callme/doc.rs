//! What a client puts: a task's definition.

use serde::Deserialize;
use serde_json::json;

use super::super::refusal::Refusal;
use super::entry::EntryKey;
use super::minute::time;
use carillon_core::clock::UnixMs;
use carillon_engine::intake::JobInput;

/// What a client gets if it does not say, or says 0.
const STATUS: u16 = 200;
const RETRIES: u32 = 1;
const MAX_DELAY_MINUTES: u32 = 10;

/// The methods that are taken, in capitals.
const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];

/// Fields that an answer has as well, such as `task_state`, are ignored, and so is the name, which the path says.
#[derive(Deserialize)]
struct TaskInput {
    trigger_at: Option<String>,
    callback: Option<String>,
    callback_method: Option<String>,
    payload: Option<String>,
    expected_http_status: Option<u16>,
    retry: Option<u32>,
    max_delay: Option<u32>,
}

/// A task that is to be registered.
pub(super) struct Asked {
    /// The minute at which it runs, in Unix seconds.
    pub(super) minute: i64,
    callback: String,
    method: String,
    payload: String,
    status: u16,
    retries: u32,
    max_delay_minutes: u32,
}

/// Reads a task's definition, whatever its content type says.
pub(super) fn read(body: &[u8], now: UnixMs) -> Result<Asked, Refusal> {
    let doc: TaskInput = crate::input::parse(body)?;
    let missing = |name: &str| Refusal::bad(format!("`{name}` is missing"));
    let minute = time(&doc.trigger_at.ok_or_else(|| missing("trigger_at"))?, now)?;
    let callback = doc.callback.ok_or_else(|| missing("callback"))?;
    let method = doc.callback_method.filter(|method| !method.is_empty()).unwrap_or_else(|| METHODS[0].to_owned());
    if !METHODS.contains(&method.as_str()) {
        let known = METHODS.join(", ");
        return Err(Refusal::bad(format!("`{}` is not a callback method: {known}", method.escape_debug())));
    }
    let status = doc.expected_http_status.filter(|status| *status != 0).unwrap_or(STATUS);
    if !(100..=599).contains(&status) {
        return Err(Refusal::bad("`expected_http_status` is not an HTTP status"));
    }
    let retries = doc.retry.filter(|count| *count != 0).unwrap_or(RETRIES);
    let max_delay_minutes = doc.max_delay.filter(|minutes| *minutes != 0).unwrap_or(MAX_DELAY_MINUTES);
    let payload = doc.payload.unwrap_or_default();
    Ok(Asked { minute, callback, method, payload, status, retries, max_delay_minutes })
}

impl Asked {
    /// The job of the entry `key`.
    pub(super) fn job(self, key: &EntryKey) -> JobInput {
        let mut doc = JobInput {
            url: Some(self.callback),
            payload_text: Some(self.payload),
            run_at: Some(self.minute.into()),
            name: Some(key.to_string()),
            policy: Some(json!({
                "judge": {"expect": self.status},
                "retry": {"max_attempts": self.retries.saturating_add(1)},
            })),
            ..JobInput::default()
        };
        if self.method == "POST" {
            doc.headers.push("Content-Type", "application/x-www-form-urlencoded");
        }
        doc.method = Some(self.method);
        doc.limits.max_delay = Some(format!("{}m", self.max_delay_minutes));
        doc
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 90 seconds into a quarter of an hour.
    const NOW: UnixMs = UnixMs(1_795_168_890_500);

    #[test]
    fn nothing_and_zero_are_the_defaults() {
        for more in
            ["", r#", "retry": 0, "max_delay": 0, "expected_http_status": 0, "callback_method": "", "payload": ""#]
        {
            let quote = if more.is_empty() { "" } else { "\"" };
            let text = format!(r#"{{"trigger_at": "+1m", "callback": "http://a/"{more}{quote}}}"#);
            let asked = read(text.as_bytes(), NOW).map_err(|refusal| refusal.message).unwrap();
            let found =
                (asked.method.as_str(), asked.status, asked.retries, asked.max_delay_minutes, asked.payload.as_str());
            assert_eq!(found, ("GET", 200, 1, 10, ""));
        }
    }
}
