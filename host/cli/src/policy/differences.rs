//! Results of a version of a policy for attempts that another version decided: the counts in words, then a table of the differences.

use serde_json::{Value, json};

use super::super::Session;

const COLUMNS: [(&str, &str); 5] =
    [("JOB", "/job"), ("ATTEMPT", "/attempt"), ("DIFFERENT", "/different"), ("BEFORE", "/said"), ("NOW", "/now")];

const SKIPPED: [(&str, &str); 3] = [("JOB", "/job"), ("ATTEMPT", "/attempt"), ("SKIPPED BECAUSE", "/why")];

/// Prints the counts of a response, and the differences of each attempt.
pub(super) fn show(session: &Session, answer: &Value) -> anyhow::Result<()> {
    for line in summary(answer) {
        session.out.line(&line)?;
    }
    let rows: Vec<_> = answer["differences"].as_array().into_iter().flatten().map(row).collect();
    if !rows.is_empty() {
        session.out.line("")?;
        session.out.table(&COLUMNS, &rows)?;
    }
    let skipped = answer["skipped"].as_array().map_or(&[][..], Vec::as_slice);
    if !skipped.is_empty() {
        session.out.line("")?;
        session.out.table(&SKIPPED, skipped)?;
    }
    Ok(())
}

/// Formats `version 2: 40 attempts, 37 as before`, and how many differ in what.
fn summary(answer: &Value) -> Vec<String> {
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    let jobs = answer["jobs"].as_u64().map(|jobs| format!(" of {jobs} jobs")).unwrap_or_default();
    let (attempts, same) = (count(&answer["attempts"]), count(&answer["same"]));
    let first = format!("version {}: {attempts} attempts{jobs}, {same} decided as before", answer["version"]);
    let counts = |key: &str| {
        let all = answer[key].as_object().into_iter().flatten().filter(|(_, value)| count(value) > 0);
        all.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
    };
    let mut lines = vec![first];
    for (text, list) in [("different in", counts("different")), ("faults", counts("faults"))] {
        if !list.is_empty() {
            lines.push(format!("{text}: {list}"));
        }
    }
    for (text, key) in [("uncertain", "uncertain"), ("dropped, because too many attempts waited", "dropped")] {
        if count(&answer[key]) > 0 {
            lines.push(format!("{text}: {}", answer[key]));
        }
    }
    let fuel = ["backtest_fuel", "shadow_fuel"].iter().find_map(|key| answer[*key].as_u64());
    lines.extend(fuel.map(|fuel| format!("fuel: {} before, {fuel} now", count(&answer["fuel"]))));
    lines
}

fn row(difference: &Value) -> Value {
    let faults: Vec<_> = difference["faults"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let now = match (opinion(&difference["shadow"]), faults.join(", ")) {
        (Some(now), none) if none.is_empty() => now,
        (Some(now), faults) => format!("{now} ({faults})"),
        (None, faults) => faults,
    };
    let uncertain = if difference["uncertain"] == true { " (uncertain)" } else { "" };
    let different = format!("{}{uncertain}", difference["different"].as_str().unwrap_or_default());
    json!({
        "job": difference["job"],
        "attempt": difference["attempt"],
        "different": different,
        "said": opinion(&difference["said"]),
        "now": now,
    })
}

/// Formats a decision: `retryable, retry after 2s: status 503`.
fn opinion(opinion: &Value) -> Option<String> {
    let outcome = opinion["outcome"].as_str()?;
    let after = opinion["after_ms"].as_u64().map(std::time::Duration::from_millis);
    let after = after.map(|after| format!(" after {}", carillon_core::duration::format(after))).unwrap_or_default();
    let decision = opinion["decision"].as_str().unwrap_or_default();
    let reason = opinion["reason"].as_str().filter(|reason| !reason.is_empty());
    Some(format!("{outcome}, {decision}{after}{}", reason.map(|reason| format!(": {reason}")).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_first_and_differences_have_both_reasons() {
        let said = json!({"outcome": "success", "reason": "status 200", "decision": "done", "after_ms": null});
        let now = json!({"outcome": "retryable", "reason": "not ok", "decision": "retry", "after_ms": 2_000});
        let answer = json!({"version": 2, "jobs": 3, "attempts": 5, "same": 4, "different": {"judge": 1, "request": 0},
            "faults": {"policy.trap": 1}, "uncertain": 0, "fuel": 10, "backtest_fuel": 12,
            "differences": [{"job": "j", "attempt": 1, "different": "judge, retry", "said": said, "shadow": now, "faults": []}]});
        let lines = summary(&answer);
        assert_eq!(lines[0], "version 2: 5 attempts of 3 jobs, 4 decided as before");
        assert_eq!(lines[1..], ["different in: judge 1", "faults: policy.trap 1", "fuel: 10 before, 12 now"]);
        let row = row(&answer["differences"][0]);
        assert_eq!(row["said"], "success, done: status 200");
        assert_eq!(row["now"], "retryable, retry after 2s: not ok");
        let fault = super::row(&json!({"said": null, "shadow": null, "faults": ["policy.trap"], "uncertain": true}));
        assert_eq!((&fault["now"], &fault["different"]), (&json!("policy.trap"), &json!(" (uncertain)")));
    }
}
