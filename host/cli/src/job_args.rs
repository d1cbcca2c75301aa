//! Flags that describe a job.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;

use super::input;
use carillon_client::answer::Members;
use carillon_client::bodies::{Headers, JobInput, Payload};

/// Job, as flags.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// URL of the receiver. A job without a URL waits for a consumer to lease it.
    url: Option<String>,
    /// HTTP method. Default: POST.
    #[arg(short = 'X', long)]
    method: Option<String>,
    /// Header of the request, `Name: value`. Can be repeated.
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = input::header)]
    headers: Vec<(String, String)>,
    #[command(flatten)]
    payload: PayloadArgs,
    /// Time to run: RFC 3339, `+90s`, or seconds since 1970. Default: now.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    run_at: Option<String>,
    /// Name of the job.
    #[arg(long)]
    name: Option<String>,
    /// Label, `KEY=VALUE`. Can be repeated.
    #[arg(short, long, value_name = "LABEL", value_parser = input::pair)]
    metadata: Vec<(String, String)>,
    /// Labels as a JSON object of strings, or of namespaces of strings: `{"billing": {"invoice": "17"}}`.
    #[arg(long, value_name = "JSON", value_parser = input::json_object)]
    metadata_json: Option<Members>,
    /// Send each label as a header `Carillon-Metadata-<Key>`.
    #[arg(long)]
    metadata_headers: bool,
    /// Priority within the group, from 0 to 9 (most urgent).
    #[arg(long, value_name = "0-9", value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// Order key: jobs with the same key run one at a time, in order.
    #[arg(long, value_name = "KEY")]
    order_key: Option<String>,
    /// Maximum duration of a request, such as `10s`.
    #[arg(long, value_name = "PERIOD")]
    timeout: Option<String>,
    /// Time from now after which the job expires, such as `1h`.
    #[arg(long, value_name = "PERIOD")]
    ttl: Option<String>,
    /// Maximum time from when the job is due to the start of an attempt, such as `10m`.
    #[arg(long, value_name = "PERIOD")]
    max_delay: Option<String>,
    /// Dedupe key: leave the job out if the group accepted one with this key within the window.
    #[arg(long, value_name = "KEY")]
    dedupe_key: Option<String>,
    /// Time for which a dedupe key is remembered. Default: 5m.
    #[arg(long, value_name = "PERIOD", requires = "dedupe_key")]
    dedupe_window: Option<String>,
    /// Debounce window in seconds, with at most one job in each window: the first job runs now, the next one when the window ends.
    #[arg(long, value_name = "SECONDS")]
    debounce_seconds: Option<f64>,
    /// Debounce key: jobs with the same key share a window. Default: method, URL and payload.
    #[arg(long, value_name = "KEY", requires = "debounce_seconds")]
    debounce_key: Option<String>,
    /// Delay the first job of a window, too.
    #[arg(long, requires = "debounce_seconds")]
    debounce_always_delay: bool,
    /// Replace the group's jobs with the same name that have not ended.
    #[arg(long, requires = "name")]
    replace: bool,
    /// Job to create when this one succeeds, as JSON.
    #[arg(long, value_name = "JSON", value_parser = input::json_object)]
    on_success: Option<Members>,
    /// Job to create when this one becomes a dead letter or expires, as JSON.
    #[arg(long, value_name = "JSON", value_parser = input::json_object)]
    on_failure: Option<Members>,
    /// Overrides of the group's policy, as JSON: `{"retry": {"max_attempts": 3}}`.
    #[arg(long, value_name = "JSON", value_parser = input::json_object)]
    policy: Option<Members>,
}

/// Body of a job, in one of three forms.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct PayloadArgs {
    /// Body as JSON, sent byte for byte as written.
    #[arg(short = 'd', long, value_name = "JSON", value_parser = input::json)]
    payload: Option<Box<RawValue>>,
    /// Body as text.
    #[arg(long, value_name = "TEXT")]
    payload_text: Option<String>,
    /// File with the body; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    payload_file: Option<PathBuf>,
}

impl JobArgs {
    /// Makes the job that the flags describe.
    pub(super) fn input(self) -> anyhow::Result<JobInput> {
        let limits = [("timeout", self.timeout), ("ttl", self.ttl), ("max_delay", self.max_delay)];
        let limits = Some(given(&limits)?).filter(|limits| !limits.is_empty());
        let texts = [
            ("order_key", self.order_key),
            ("dedupe_key", self.dedupe_key),
            ("dedupe_window", self.dedupe_window),
            ("debounce_key", self.debounce_key),
        ];
        let mut more = given(&texts)?;
        let flags = [
            ("debounce_always_delay", self.debounce_always_delay.then_some(true)),
            ("replace", self.replace.then_some(true)),
        ];
        add(&mut more, &flags)?;
        add(&mut more, &[("priority", self.priority)])?;
        add(&mut more, &[("debounce_seconds", self.debounce_seconds)])?;
        add(&mut more, &[("limits", limits), ("on_success", self.on_success), ("on_failure", self.on_failure)])?;
        Ok(JobInput {
            url: self.url,
            method: self.method,
            headers: Headers(self.headers),
            payload: self.payload.read()?,
            run_at: self.run_at.as_deref().map(input::time),
            name: self.name,
            metadata: input::labels(self.metadata_json.unwrap_or_default(), self.metadata)?,
            metadata_headers: self.metadata_headers,
            policy: self.policy,
            more,
        })
    }
}

/// Returns the members that were given.
fn given<T: Serialize>(all: &[(&str, Option<T>)]) -> anyhow::Result<Members> {
    let mut members = Members::default();
    add(&mut members, all)?;
    Ok(members)
}

/// Adds the members that were given.
fn add<T: Serialize>(members: &mut Members, all: &[(&str, Option<T>)]) -> anyhow::Result<()> {
    all.iter().try_for_each(|(name, value)| value.as_ref().map_or(Ok(()), |value| members.put(name, value)))
}

impl PayloadArgs {
    fn read(self) -> anyhow::Result<Option<Payload>> {
        if let Some(path) = self.payload_file {
            return Ok(Some(Payload::Base64(STANDARD.encode(input::bytes(&path)?))));
        }
        Ok(self.payload.map(Payload::Json).or_else(|| self.payload_text.map(Payload::Text)))
    }
}
