//! An entry: how it is named, and how it is shown.

use std::fmt;

use serde::Serialize;

use super::super::refusal::Refusal;
use super::super::{Call, answered, configured, max_attempts};
use super::minute::{self, MINUTE};
use carillon_catalog::Group;
use carillon_core::job::{AttemptRecord, Job, State, shown_url};

/// The longest name, so that with a minute behind it a job can be called so, in bytes.
const NAME_LEN: usize = 240;

/// How much of an answer is shown, in bytes.
const BODY_LEN: usize = 256;

/// A name and a minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EntryKey {
    pub(super) name: String,
    /// In Unix seconds.
    pub(super) minute: i64,
}

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// One entry.
    One(EntryKey),
    /// All entries of a name.
    All(String),
}

impl EntryKey {
    /// What `name@minute` names: the last `@` with nothing but digits behind it divides them.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (name, digits) = text.rsplit_once('@')?;
        Some(Self { name: name.to_owned(), minute: minute::digits(digits)? })
    }

    /// Whether it can be the name of a job.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        if self.name.is_empty() || self.name.len() > NAME_LEN || self.name.contains('\0') {
            return Err(Refusal::bad(format!("a task's name has 1 to {NAME_LEN} bytes, none of them zero")));
        }
        Ok(())
    }

    pub(super) fn unknown(&self) -> Refusal {
        Refusal::unknown(format!("task not found: `{}`", self.to_string().escape_debug()))
    }
}

impl fmt::Display for EntryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.minute)
    }
}

impl Which {
    /// A name with an `@` and nothing behind it is that name.
    pub(super) fn new(path: &str) -> Self {
        match EntryKey::parse(path) {
            Some(key) => Self::One(key),
            None => Self::All(path.strip_suffix('@').unwrap_or(path).to_owned()),
        }
    }
}

/// An entry as callme shows it.
#[derive(Debug, Serialize)]
pub(super) struct View {
    trigger_at: String,
    task_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    payload: String,
    callback: String,
    callback_method: String,
    retry: u32,
    expected_http_status: u64,
    max_delay: u64,
    task_state: &'static str,
    response_body: String,
    response_status: u16,
    executed_at: String,
}

impl Call {
    /// How the entry of a job is shown.
    pub(super) async fn shown(&self, group: &Group, job: &Job, key: EntryKey) -> Result<View, Refusal> {
        let last = self.newest_attempts(job, 1).await?.pop();
        let payload = self.payload(job).await?.map(|payload| String::from_utf8_lossy(&payload).into_owned());
        Ok(View::new(group, job, key, last.as_ref(), payload.unwrap_or_default()))
    }
}

impl View {
    pub(super) fn new(group: &Group, job: &Job, key: EntryKey, last: Option<&AttemptRecord>, payload: String) -> Self {
        let (method, url) = match &job.spec.target {
            Some(target) => (target.method.clone(), shown_url(&target.url)),
            None => (String::new(), String::new()),
        };
        let expected = configured(job, group, "judge", "expect");
        Self {
            trigger_at: key.minute.to_string(),
            task_name: key.name,
            payload,
            callback: url,
            callback_method: method,
            retry: max_attempts(job, group).saturating_sub(1),
            expected_http_status: expected.unwrap_or(0),
            max_delay: job.max_delay.map_or(0, |delay| delay.as_secs() / MINUTE.unsigned_abs()),
            task_state: state(job),
            response_body: last.map(response_body).unwrap_or_default(),
            response_status: last.and_then(|attempt| attempt.status).unwrap_or(0),
            executed_at: last.map(|attempt| attempt.started_at.0.div_euclid(1_000).to_string()).unwrap_or_default(),
        }
    }
}

/// Where a job stands, in callme's words. Between two calls it runs.
fn state(job: &Job) -> &'static str {
    match job.state {
        State::Scheduled if job.attempt_count > job.attempt_base => "running",
        State::Scheduled => "pending",
        State::Running => "running",
        State::Succeeded => "successful",
        State::Dead => "failed",
        State::Expired => "skipped",
        State::Cancelled => "cancelled",
    }
}

/// The first bytes of the answer; without one, the whole of why there was none.
fn response_body(attempt: &AttemptRecord) -> String {
    let (body, len) = (answered(attempt), if attempt.status.is_some() { BODY_LEN } else { usize::MAX });
    String::from_utf8_lossy(&body[..body.len().min(len)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_at_with_digits_divides() {
        let one = |name: &str, minute| Which::One(EntryKey { name: name.to_owned(), minute });
        let all = |name: &str| Which::All(name.to_owned());
        assert_eq!(Which::new("a@60"), one("a", 60));
        assert_eq!(Which::new("a@b@60"), one("a@b", 60));
        assert_eq!(Which::new("a@60@120"), one("a@60", 120));
        assert_eq!(Which::new("a@60x"), all("a@60x"));
        assert_eq!(Which::new("a@b"), all("a@b"));
        assert_eq!(Which::new("a@"), all("a"));
        assert_eq!(Which::new("a/b"), all("a/b"));
        assert_eq!(Which::new("a@-60"), all("a@-60"));
        assert_eq!(Which::new("a@99999999999999999999"), all("a@99999999999999999999"));
    }
}
