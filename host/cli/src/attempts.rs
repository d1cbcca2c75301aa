//! Attempts of a job, on the command line: one line each with its explanation, or all details of one.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::job_target::Target;
use super::{Paging, Session};
use carillon_client::answer::{Answer, Members};
use carillon_client::bodies::Page;

const COLUMNS: [(&str, &str); 8] = [
    ("ATTEMPT", "/number"),
    ("STARTED", "/started_at"),
    ("STATUS", "/status"),
    ("ERROR", "/error/code"),
    ("VERDICT", "/verdict/outcome"),
    ("THEN", "/decision/state"),
    ("NEXT", "/decision/next_run_at"),
    ("REASON", "/why"),
];

/// Fields of an attempt that a record shows first.
const FIRST: [&str; 9] = [
    "number",
    "started_at",
    "finished_at",
    "status",
    "error",
    "verdict",
    "decision",
    "response_body",
    "response_body_base64",
];

/// Returns the sentence that explains an attempt's outcome: the error, else the judge's reason, else the reason of the decision. The retry
/// policy's log says more than that the policy requested another attempt.
pub(super) fn why(attempt: &Value) -> Option<String> {
    let text = |pointer: &str| attempt.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    let found = text("/error/message").or_else(|| text("/verdict/reason")).or_else(|| text("/decision/reason"));
    let plugins = attempt["plugins"].as_array().into_iter().flatten();
    let retry = plugins.filter(|used| used["role"] == "retry").filter_map(|used| used["log"].as_array());
    let logged = retry.flatten().filter_map(Value::as_str).next_back();
    match (found, logged) {
        (Some(found), Some(logged)) => Some(format!("{found} (retry: {logged})")),
        (found, logged) => found.or(logged).map(str::to_owned),
    }
}

/// Lists a job's attempts.
pub(super) async fn list(session: &Session, target: &Target, paging: &Paging) -> anyhow::Result<()> {
    let with_why = |attempt: Answer| {
        let mut members: Members =
            serde_json::from_str(attempt.at("").context("the server returned an empty response")?.get())?;
        members.put("why", &why(&attempt))?;
        anyhow::Ok(members)
    };
    session.list_as(&["jobs", &target.id, "attempts"], target.query(), paging, &COLUMNS, with_why).await
}

/// Shows one attempt.
pub(super) async fn show(session: &Session, target: &Target, number: u32) -> anyhow::Result<()> {
    let mut query = target.query();
    query.extend([("cursor", number.saturating_sub(1).to_string()), ("limit", "1".to_owned())]);
    let page: Page = session.client.get(&["jobs", &target.id, "attempts"], &query).await?;
    let attempt = page.items.into_iter().find(|attempt| attempt["number"] == json!(number));
    let attempt = attempt.with_context(|| format!("the job has no attempt {number}"))?;
    session.out.answer_with(&FIRST, &attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_most_telling_sentence() {
        let decided = json!({"reason": "the retry policy requested another attempt"});
        let attempt = json!({"error": {"code": "send.refused-address", "message": "10.0.0.1 is refused"},
            "verdict": {"outcome": "retryable", "reason": "no answer"}, "decision": decided, "plugins": []});
        assert_eq!(why(&attempt).as_deref(), Some("10.0.0.1 is refused"));
        let attempt = json!({"error": null, "verdict": {"reason": "status 503"}, "decision": decided,
            "plugins": [{"role": "judge", "log": ["seen"]}, {"role": "retry", "log": ["first", "after 2 s"]}]});
        assert_eq!(why(&attempt).as_deref(), Some("status 503 (retry: after 2 s)"));
        let attempt = json!({"verdict": {"reason": ""}, "decision": decided});
        assert_eq!(why(&attempt).as_deref(), Some("the retry policy requested another attempt"));
        assert_eq!(why(&json!({})), None);
    }
}
