//! `carillon plugin run`: makes one call of a component, as the server would make it.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow, ensure};
use clap::Args;
use serde_json::json;

use super::super::{Session, input, local};
use super::runtime;
use carillon_client::answer::Members;
use carillon_core::clock::{Clock as _, SystemClock};
use carillon_policy::case::{CallCase, CaseKey};
use carillon_policy::{KeyKind, Role};

/// Text of `--help` about the input.
pub(super) const EXAMPLES: &str = r#"The input is a JSON object. Missing members have defaults; `attempt` is optional.

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
pub struct Call {
    /// Component to call.
    file: PathBuf,
    /// Role to call.
    #[arg(long, value_parser = role)]
    role: Role,
    /// Config of the plugin, as in a binding.
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = input::json_object)]
    config: Members,
    /// File with the input in JSON; `-` reads standard input. --help shows its form.
    #[arg(long, value_name = "FILE", default_value = input::STDIN)]
    input: PathBuf,
    /// Shared secret for a signer. Can be repeated, newest first.
    #[arg(long = "key", value_name = "NAME=SECRET", value_parser = input::pair)]
    keys: Vec<(String, String)>,
}

/// Members that the record shows first.
const FIRST: [&str; 3] = ["answer", "fault", "log"];

pub(super) fn role(text: &str) -> Result<Role, String> {
    Role::ALL
        .into_iter()
        .find(|role| role.as_str() == text)
        .ok_or_else(|| format!("`{text}` is not a role; the roles are {}", Role::ALL.map(Role::as_str).join(", ")))
}

impl Call {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let runtime = runtime()?;
        let plugin = local::load(&runtime, &self.file).await?;
        ensure!(
            plugin.plays(self.role),
            "the component does not have the role `{}`; its roles are: {}",
            self.role,
            plugin.roles().into_iter().map(Role::as_str).collect::<Vec<_>>().join(", ")
        );
        let text = input::bytes(&self.input)?;
        let input = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not a valid input; see --help", input::name(&self.input)))?;
        let key = |(name, secret)| CaseKey { name, secret, secret_base64: None, kind: KeyKind::Secret };
        let keys = self.keys.into_iter().map(key).collect();
        let case = CallCase { role: self.role, config: json!(self.config), keys, input };
        let called = case.call(&plugin, &runtime.limits, SystemClock.now())?;
        let usage = called.usage;
        let mut shown = json!({
            "fuel": usage.fuel,
            "fuel_limit": usage.fuel_limit,
            "memory": usage.memory,
            "memory_limit": plugin.limits(&runtime.limits).memory,
            "micros": usage.micros,
            "log": usage.log,
        });
        if let Ok(answer) = &called.result {
            shown["answer"] = answer.clone();
        }
        if let Err(fault) = &called.result {
            shown["fault"] = json!({
                "code": fault.code.as_str(), "blame": fault.blame.as_str(), "message": fault.message,
            });
        }
        session.out.answer_with(&FIRST, &shown)?;
        match called.result {
            Ok(_) => Ok(()),
            Err(fault) => {
                Err(anyhow!("the call ended in a fault: {} (blame: {})", fault.code.as_str(), fault.blame.as_str()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_policy::case::Input;

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
}
