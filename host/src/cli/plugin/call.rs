//! `carillon plugin run`: one call of a component, as the server would make it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::super::{Session, input, local};
use super::runtime;
use crate::clock::{Clock as _, SystemClock};
use crate::policy::{
    Attempt, Attribute, Called, Decision, Event, Exchange, Header, JudgedOutcome, KeyKind, KeyMaterial, Limits, Past,
    Plugin, Request, Response, Role, TransportError, Verdict,
};

/// What `--help` says about the input.
pub(super) const EXAMPLES: &str = r#"The input is a JSON object. What is left out has a default; `attempt` may be left out as a whole.

  encode, sign  {"attempt": {"number": 1, "now_ms": 1795168800000, "seed": 7, "attributes": {"tenant": "acme"}},
                 "request": {"method": "POST", "url": "https://example.com/hook", "headers": {"X-A": "b"}, "body": "text"}}
  judge         {"response": {"status": 200, "headers": {"Content-Type": "application/json"}, "body": "{\"ok\": false}"}}
                {"error": {"code": "timeout", "message": "no answer within 10s"}}
  retry         {"attempt": {"number": 2}, "verdict": {"outcome": "retryable", "reason": "status 503"},
                 "history": [{"number": 1, "started_ms": 0, "finished_ms": 90, "outcome": "retryable", "status": 503}]}
  observe       {"events": [{"id": 1, "kind": "error", "at_ms": 0, "group": "g", "job_id": "x", "attributes": {}}]}

A body that is not text is given as `body_base64`.

  echo '{"response": {"status": 200, "body": "{\"ok\": false}"}}' | carillon plugin run judge.wasm --role judge

Exits with 1 if the call ends in a fault."#;

#[derive(Debug, Args)]
pub(in crate::cli) struct Call {
    /// The component.
    file: PathBuf,
    /// Which of its roles to call.
    #[arg(long, value_parser = role)]
    role: Role,
    /// Its config, as a binding would have it.
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = input::json_object)]
    config: Value,
    /// What it is called with, in JSON; `-` is standard input. The form is below, with --help.
    #[arg(long, value_name = "FILE", default_value = input::STDIN)]
    input: PathBuf,
    /// A shared secret that a signer may use. Can be repeated: the newest first.
    #[arg(long = "key", value_name = "NAME=SECRET", value_parser = input::pair)]
    keys: Vec<(String, String)>,
}

fn role(text: &str) -> Result<Role, String> {
    Role::ALL
        .into_iter()
        .find(|role| role.as_str() == text)
        .ok_or_else(|| format!("`{text}` is not a role; the roles are {}", Role::ALL.map(Role::as_str).join(", ")))
}

/// What a call takes. Each role looks at its own part.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Input {
    attempt: AttemptInput,
    request: RequestInput,
    response: Option<ResponseInput>,
    error: Option<ErrorInput>,
    verdict: VerdictInput,
    history: Vec<PastInput>,
    events: Vec<EventInput>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AttemptInput {
    job_id: String,
    group: String,
    number: u32,
    run_at_ms: Option<u64>,
    now_ms: Option<u64>,
    created_ms: Option<u64>,
    deadline_ms: Option<u64>,
    seed: u32,
    attributes: BTreeMap<String, String>,
}

impl Default for AttemptInput {
    fn default() -> Self {
        Self {
            job_id: uuid::Uuid::nil().to_string(),
            group: "local".to_owned(),
            number: 1,
            run_at_ms: None,
            now_ms: None,
            created_ms: None,
            deadline_ms: None,
            seed: 0,
            attributes: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RequestInput {
    method: String,
    url: String,
    headers: BTreeMap<String, String>,
    body: String,
    body_base64: Option<String>,
}

impl Default for RequestInput {
    fn default() -> Self {
        Self {
            method: "POST".to_owned(),
            url: "https://example.com/".to_owned(),
            headers: BTreeMap::new(),
            body: String::new(),
            body_base64: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResponseInput {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    body_base64: Option<String>,
    #[serde(default)]
    truncated: bool,
    #[serde(default)]
    elapsed_ms: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorInput {
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    elapsed_ms: u32,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OutcomeInput {
    Success,
    #[default]
    Retryable,
    Permanent,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct VerdictInput {
    outcome: OutcomeInput,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PastInput {
    number: u32,
    started_ms: u64,
    finished_ms: u64,
    outcome: OutcomeInput,
    status: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventInput {
    id: u64,
    kind: String,
    at_ms: u64,
    group: String,
    job_id: String,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

impl Call {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let text = input::bytes(&self.input)?;
        let input: Input = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not an input of a call; see --help", self.input.display()))?;
        let runtime = runtime()?;
        let plugin = local::load(&runtime, &self.file).await?;
        let config = self.config.to_string();
        match plugin.check(&runtime.limits, &config).result {
            Ok(Ok(())) => {}
            Ok(Err(said)) => bail!("the plugin refuses the config: {said}"),
            Err(fault) => bail!("{}: {}", fault.code.as_str(), fault.message),
        }
        let called = self.call(&plugin, &runtime.limits, &config, input)?;
        let usage = called.usage;
        let mut shown = json!({ "fuel": usage.fuel, "micros": usage.micros, "log": usage.log });
        if let Ok(answer) = &called.result {
            shown["answer"] = answer.clone();
        }
        if let Err(fault) = &called.result {
            shown["fault"] = json!({ "code": fault.code.as_str(), "message": fault.message });
        }
        session.out.answer(&shown)?;
        match called.result {
            Ok(_) => Ok(()),
            Err(fault) => Err(anyhow!("the call ended in a fault: {}", fault.code.as_str())),
        }
    }

    fn call(&self, plugin: &Plugin, limits: &Limits, config: &str, input: Input) -> anyhow::Result<Called<Value>> {
        let attempt = input.attempt.attempt();
        Ok(match self.role {
            Role::Encode => shown(plugin.encode(limits, &attempt, config, &input.request.request()?), request),
            Role::Sign => {
                shown(plugin.sign(limits, &attempt, config, input.request.request()?, &self.material()?), request)
            }
            Role::Judge => {
                let exchange = exchange(input.response, input.error)?;
                shown(
                    plugin.judge(limits, &attempt, config, &exchange),
                    |verdict| json!({ "outcome": word(verdict.outcome), "reason": verdict.reason }),
                )
            }
            Role::Retry => {
                let verdict = Verdict { outcome: input.verdict.outcome.outcome(), reason: input.verdict.reason };
                let history: Vec<Past> = input.history.iter().map(PastInput::past).collect();
                shown(plugin.retry(limits, &attempt, config, &verdict, &history), |decision| match decision {
                    Decision::AfterMs(ms) => json!({ "after_ms": ms }),
                    Decision::GiveUp(reason) => json!({ "give_up": reason }),
                })
            }
            Role::Observe => {
                let events: Vec<Event> = input.events.into_iter().map(EventInput::event).collect();
                shown(plugin.observe(limits, config, &events), |()| Value::Null)
            }
        })
    }

    fn material(&self) -> anyhow::Result<Vec<Arc<KeyMaterial>>> {
        let material = |(name, secret): &(String, String)| {
            let secret = Zeroizing::new(secret.clone().into_bytes());
            let key = KeyMaterial::new(format!("{name}/1"), KeyKind::Secret, secret);
            key.map(Arc::new).map_err(|said| anyhow!("the key `{name}`: {said}"))
        };
        self.keys.iter().map(material).collect()
    }
}

fn shown<T>(called: Called<T>, show: impl FnOnce(T) -> Value) -> Called<Value> {
    Called { result: called.result.map(show), usage: called.usage }
}

fn request(request: Request) -> Value {
    let header = |header: Header| json!([header.name, String::from_utf8_lossy(&header.value)]);
    let headers: Vec<Value> = request.headers.into_iter().map(header).collect();
    let mut shown = json!({ "method": request.method, "url": request.url, "headers": headers });
    match String::from_utf8(request.body) {
        Ok(text) => shown["body"] = text.into(),
        Err(error) => shown["body_base64"] = STANDARD.encode(error.as_bytes()).into(),
    }
    shown
}

fn exchange(response: Option<ResponseInput>, error: Option<ErrorInput>) -> anyhow::Result<Exchange> {
    match (response, error) {
        (Some(response), None) => Ok(Exchange::Response(Response {
            status: response.status,
            headers: headers(response.headers),
            body: body(response.body, response.body_base64.as_deref())?,
            truncated: response.truncated,
            elapsed_ms: response.elapsed_ms,
        })),
        (None, Some(error)) => Ok(Exchange::TransportError(TransportError {
            code: error.code,
            message: error.message,
            elapsed_ms: error.elapsed_ms,
        })),
        _ => bail!("a judge is shown either a `response` or an `error`; see --help"),
    }
}

fn headers(headers: BTreeMap<String, String>) -> Vec<Header> {
    headers.into_iter().map(|(name, value)| Header { name, value: value.into_bytes() }).collect()
}

fn body(text: String, base64: Option<&str>) -> anyhow::Result<Vec<u8>> {
    base64.map_or(Ok(text.into_bytes()), |base64| STANDARD.decode(base64).context("`body_base64` is not base64"))
}

fn attributes(attributes: BTreeMap<String, String>) -> Vec<Attribute> {
    attributes.into_iter().map(|(key, value)| Attribute { key, value }).collect()
}

fn word(outcome: JudgedOutcome) -> &'static str {
    match outcome {
        JudgedOutcome::Success => "success",
        JudgedOutcome::Retryable => "retryable",
        JudgedOutcome::Permanent => "permanent",
    }
}

impl AttemptInput {
    fn attempt(self) -> Attempt {
        let now_ms = self.now_ms.unwrap_or_else(|| SystemClock.now().as_u64());
        Attempt {
            job_id: self.job_id,
            group: self.group,
            number: self.number,
            run_at_ms: self.run_at_ms.unwrap_or(now_ms),
            now_ms,
            created_ms: self.created_ms.unwrap_or(now_ms),
            deadline_ms: self.deadline_ms,
            seed: self.seed,
            attributes: attributes(self.attributes),
        }
    }
}

impl RequestInput {
    fn request(self) -> anyhow::Result<Request> {
        let body = body(self.body, self.body_base64.as_deref())?;
        Ok(Request { method: self.method, url: self.url, headers: headers(self.headers), body })
    }
}

impl OutcomeInput {
    fn outcome(self) -> JudgedOutcome {
        match self {
            Self::Success => JudgedOutcome::Success,
            Self::Retryable => JudgedOutcome::Retryable,
            Self::Permanent => JudgedOutcome::Permanent,
        }
    }
}

impl PastInput {
    fn past(&self) -> Past {
        Past {
            number: self.number,
            started_ms: self.started_ms,
            finished_ms: self.finished_ms,
            outcome: self.outcome.outcome(),
            status: self.status,
        }
    }
}

impl EventInput {
    fn event(self) -> Event {
        Event {
            id: self.id,
            kind: self.kind,
            at_ms: self.at_ms,
            group: self.group,
            job_id: self.job_id,
            attributes: attributes(self.attributes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_help_are_inputs() {
        let text = EXAMPLES.replace("\n                 \"", " \"");
        let inputs: Vec<&str> = text.lines().filter_map(|line| Some(&line[line.find('{')?..])).collect();
        let inputs: Vec<&str> = inputs.into_iter().filter(|text| !text.contains("carillon")).collect();
        assert_eq!(inputs.len(), 5);
        for input in inputs {
            serde_json::from_str::<Input>(input).unwrap();
        }
    }

    #[test]
    fn a_judge_is_shown_one_thing() {
        let input: Input = serde_json::from_str("{}").unwrap();
        assert!(exchange(input.response, input.error).unwrap_err().to_string().contains("either"));
        assert!(serde_json::from_str::<Input>(r#"{"respond": {}}"#).is_err());
    }
}
