//! A call of a plugin as data: its arguments and its result. Authors write these by hand, on the command line and as golden tests. The call
//! runs by the same code as a delivery's.

mod input;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

pub use self::input::Input;
use super::{
    AskedJob, CallResult, Decision, Header, JobRequests, JudgedOutcome, KeyKind, KeyMaterial, Limits, Plugin, Request,
    Role,
};
use carillon_core::clock::UnixMs;

/// Error of a document that is not a valid case.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotACase(pub(super) String);

/// A call of a plugin.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallCase {
    /// Role that is called.
    pub role: Role,
    /// Config of the plugin, as a binding would hold it.
    #[serde(default = "no_config")]
    pub config: Value,
    /// Keys that a signer may use, the newest first. They are for tests only: they are written in plain text.
    #[serde(default)]
    pub keys: Vec<CaseKey>,
    /// Arguments of the call.
    #[serde(default)]
    pub input: Input,
}

fn no_config() -> Value {
    json!({})
}

/// Key of a test.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseKey {
    /// Name of the key; the plugin sees `name/1`.
    pub name: String,
    /// Secret as a text, whose bytes are the key.
    #[serde(default)]
    pub secret: String,
    /// Secret in base64, instead of `secret`.
    pub secret_base64: Option<String>,
    /// Kind of the key. Default: a shared secret.
    #[serde(default = "shared")]
    pub kind: KeyKind,
}

fn shared() -> KeyKind {
    KeyKind::Secret
}

impl CaseKey {
    fn material(&self) -> Result<Arc<KeyMaterial>, NotACase> {
        let not = |said: String| NotACase(format!("the key `{}`: {said}", self.name));
        let secret = match &self.secret_base64 {
            Some(text) => STANDARD.decode(text).map_err(|error| not(format!("it is not base64: {error}")))?,
            None => self.secret.clone().into_bytes(),
        };
        KeyMaterial::new(format!("{}/1", self.name), self.kind, Zeroizing::new(secret)).map(Arc::new).map_err(not)
    }
}

impl CallCase {
    /// Makes the call and returns the plugin's result as JSON. The time is `now` unless the case states one.
    ///
    /// # Errors
    /// Returns [`NotACase`] if the case does not fit its role, or if the plugin rejects its config.
    pub fn call(mut self, plugin: &Plugin, limits: &Limits, now: UnixMs) -> Result<CallResult<Value>, NotACase> {
        if !plugin.plays(self.role) {
            let roles = plugin.roles().into_iter().map(Role::as_str).collect::<Vec<_>>().join(", ");
            return Err(NotACase(format!("this component does not {}; its roles are: {roles}", self.role)));
        }
        let config = self.config.to_string();
        match plugin.check(limits, &config).result {
            Ok(Ok(())) => {}
            Ok(Err(said)) => return Err(NotACase(format!("the plugin refuses the config: {said}"))),
            Err(fault) => return Err(NotACase(format!("{}: {}", fault.code.as_str(), fault.message))),
        }
        let attempt = self.input.attempt(now);
        Ok(match self.role {
            Role::Encode => shown(plugin.encode(limits, &attempt, &config, &self.input.request()?), request),
            Role::Sign => {
                let keys = self.keys.iter().map(CaseKey::material).collect::<Result<Vec<_>, _>>()?;
                shown(plugin.sign(limits, &attempt, &config, self.input.request()?, &keys), request)
            }
            Role::Judge => {
                let verdict = plugin.judge(limits, &attempt, &config, &self.input.exchange()?);
                shown(verdict, |verdict| json!({ "outcome": word(verdict.outcome), "reason": verdict.reason }))
            }
            Role::Retry => {
                let (verdict, history) = self.input.verdict();
                shown(plugin.retry(limits, &attempt, &config, &verdict, &history), |decision| match decision {
                    Decision::AfterMs(ms) => json!({ "after_ms": ms }),
                    Decision::GiveUp(reason) => json!({ "give_up": reason }),
                })
            }
            Role::Observe => shown(plugin.observe(limits, &config, &self.input.events(), JobRequests::Allowed), asked),
        })
    }
}

fn shown<T>(called: CallResult<T>, show: impl FnOnce(T) -> Value) -> CallResult<Value> {
    CallResult { result: called.result.map(show), usage: called.usage }
}

/// Returns the jobs that an observer requested as JSON; null if there are none.
fn asked(jobs: Vec<AskedJob>) -> Value {
    let shown = |job: AskedJob| {
        let AskedJob { name, method, url, headers, body, delay_ms } = job;
        let mut shown = request(Request { method, url, headers, body });
        shown["delay_ms"] = delay_ms.into();
        if let Some(name) = name {
            shown["name"] = name.into();
        }
        shown
    };
    if jobs.is_empty() { Value::Null } else { json!({ "jobs": jobs.into_iter().map(shown).collect::<Vec<_>>() }) }
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

fn word(outcome: JudgedOutcome) -> &'static str {
    match outcome {
        JudgedOutcome::Success => "success",
        JudgedOutcome::Retryable => "retryable",
        JudgedOutcome::Permanent => "permanent",
    }
}
