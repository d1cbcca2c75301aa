//! `carillon policy`: tries out policies, and moves groups between versions of their policies.

mod canary;
mod diff;
mod differences;
mod replays;
mod versions;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use super::job_args::JobArgs;
use super::{Session, attempts, input};
use carillon_client::answer::{Answer, Members};
use carillon_client::bodies::JobInput;
use carillon_client::text::visible;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the exact request that a job would send and the times of its attempts; nothing is sent or stored.
    Simulate(Box<Simulate>),
    /// Show the differences between two versions of a group's policy.
    Diff(diff::Diff),
    #[command(flatten)]
    Versions(versions::Command),
    #[command(flatten)]
    Replays(replays::Command),
}

#[derive(Debug, Args)]
pub struct Simulate {
    /// Group whose policy is simulated.
    group: String,
    #[command(flatten)]
    job: Box<JobArgs>,
    /// File with a policy to simulate instead of the group's own, in JSON or TOML; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    candidate: Option<PathBuf>,
    /// Number of attempts that fail before one succeeds.
    #[arg(long, value_name = "N")]
    failures: Option<u32>,
    /// Response to the next attempt: `500`, `200:BODY`, or an error such as `timeout`. Can be repeated.
    #[arg(long = "respond", value_name = "RESPONSE", value_parser = response, conflicts_with = "failures")]
    responses: Vec<Value>,
    /// Seed of the random numbers, as shown for a job.
    #[arg(long)]
    seed: Option<u32>,
    /// Time of the simulation: RFC 3339, or seconds since 1970.
    #[arg(long, value_name = "TIME")]
    now: Option<String>,
}

#[derive(Serialize)]
struct Trial {
    job: JobInput,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Members>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    responses: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failures: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<Value>,
}

const TIMELINE: [(&str, &str); 6] = [
    ("ATTEMPT", "/number"),
    ("RUN AT", "/run_at"),
    ("AFTER", "/after"),
    ("VERDICT", "/verdict"),
    ("THEN", "/decision"),
    ("WHY", "/why"),
];

/// Parses a response in one word: `STATUS`, `STATUS:BODY`, or the name of an error.
fn response(text: &str) -> Result<Value, String> {
    let (status, body) = text.split_once(':').unwrap_or((text, ""));
    match status.parse::<u16>() {
        Ok(status @ 100..=599) => Ok(json!({ "status": status, "headers": {}, "body": body })),
        Ok(status) => Err(format!("{status} is not an HTTP status")),
        Err(_) => Ok(json!({ "error": text })),
    }
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let args = match self {
            Self::Simulate(args) => args,
            Self::Diff(diff) => return diff.run(session).await,
            Self::Versions(command) => return command.run(session).await,
            Self::Replays(command) => return command.run(session).await,
        };
        let trial = Trial {
            job: args.job.input()?,
            policy: args.candidate.map(|file| input::document(&file)).transpose()?,
            responses: args.responses,
            failures: args.failures,
            seed: args.seed,
            now: args.now.as_deref().map(input::time),
        };
        let outcome: Answer = session.client.post(&["groups", &args.group, "policy", "simulate"], &trial).await?;
        let faults = faults(&outcome);
        if session.out.is_json() {
            session.out.json(&outcome)?;
        } else {
            show(session, &outcome)?;
        }
        match faults.as_slice() {
            [] => Ok(()),
            faults => bail!("a policy call failed: {}", faults.join("; ")),
        }
    }
}

/// Prints the request, or that there is none, and the attempts.
fn show(session: &Session, outcome: &Value) -> anyhow::Result<()> {
    if outcome["request"].is_object() {
        for line in request_lines(&outcome["request"]) {
            session.out.line(&line)?;
        }
    } else {
        session.out.line("nothing would be sent")?;
    }
    if let Some(why) = outcome["refused"]["message"].as_str() {
        session.out.line(&format!("the request would be refused: {}", visible(why)))?;
    }
    let attempts: Vec<_> = outcome["attempts"].as_array().into_iter().flatten().map(attempt_row).collect();
    if !attempts.is_empty() {
        session.out.line("")?;
        session.out.table(&TIMELINE, &attempts)?;
    }
    Ok(())
}

/// Makes the row of an attempt for the table.
fn attempt_row(attempt: &Value) -> Value {
    let after =
        attempt["after_ms"].as_u64().map(|ms| carillon_core::duration::format(Duration::from_millis(ms)).to_string());
    json!({
        "number": attempt["number"],
        "run_at": attempt["run_at"],
        "after": after,
        "verdict": attempt["verdict"]["outcome"],
        "decision": attempt["decision"],
        "why": attempts::why(&json!({
            "error": attempt["error"], "verdict": attempt["verdict"], "plugins": attempt["plugins"],
            "decision": {"reason": attempt["reason"]},
        })),
    })
}

/// Returns every fault of a policy once: the one because of which nothing would be sent, and those for which the host decided instead.
fn faults(outcome: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let error = |error: &Value| Some(format!("{}: {}", text(&error["code"])?, text(&error["message"])?));
    let attempts = outcome["attempts"].as_array().into_iter().flatten();
    let told = attempts.filter(|attempt| attempt["plugins"].as_array().into_iter().flatten().any(has_fault));
    let mut faults: Vec<String> =
        error(&outcome["error"]).into_iter().chain(told.filter_map(|attempt| error(&attempt["error"]))).collect();
    let mut seen = std::collections::BTreeSet::new();
    faults.retain(|fault| seen.insert(fault.clone()));
    faults
}

fn has_fault(used: &Value) -> bool {
    used["fault"].is_string()
}

/// Formats the request as HTTP, and its digest.
fn request_lines(request: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines = vec![format!("{} {}", text(&request["method"]), text(&request["url"]))];
    let headers = request["headers"].as_array().into_iter().flatten();
    lines.extend(
        headers.map(|header| visible(&format!("{}: {}", text(&header["name"]), text(&header["value"]))).into_owned()),
    );
    lines.push(String::new());
    match (&request["body"], &request["body_base64"]) {
        (Value::String(body), _) => lines.extend(body.lines().map(str::to_owned)),
        (_, Value::String(body)) => lines.push(format!("(base64) {body}")),
        _ => {}
    }
    lines.push(String::new());
    lines.push(format!("digest {}", text(&request["digest"])));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        assert_eq!(response("500"), Ok(json!({"status": 500, "headers": {}, "body": ""})));
        assert_eq!(response("200:{\"ok\": 1}"), Ok(json!({"status": 200, "headers": {}, "body": "{\"ok\": 1}"})));
        assert_eq!(response("timeout"), Ok(json!({"error": "timeout"})));
        assert!(response("700").is_err());
    }

    #[test]
    fn a_request_is_shown_as_http() {
        let request = json!({"method": "POST", "url": "http://x/", "headers": [{"name": "A", "value": "b"}], "body": "1\n2", "digest": "d"});
        assert_eq!(request_lines(&request), ["POST http://x/", "A: b", "", "1", "2", "", "digest d"]);
    }

    #[test]
    fn each_fault_is_told_once_whichever_role_has_it() {
        let trap = json!({"code": "policy.trap", "message": "judge (j): the policy trapped"});
        let attempt =
            |error: &Value, fault: Value| json!({"error": error, "plugins": [{"role": "judge", "fault": fault}]});
        let outcome = json!({"request": null, "error": {"code": "policy.declared", "message": "sign: no key"},
            "attempts": [attempt(&trap, json!("policy.trap")), attempt(&trap, json!("policy.trap"))]});
        assert_eq!(faults(&outcome), ["policy.declared: sign: no key", "policy.trap: judge (j): the policy trapped"]);
        let timeout = json!({"code": "send.timeout", "message": "imagined"});
        assert!(faults(&json!({"error": null, "attempts": [attempt(&timeout, Value::Null)]})).is_empty());
    }
}
