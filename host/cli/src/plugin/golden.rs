//! `carillon plugin test`: runs an author's golden tests, from files.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use super::super::output::write;
use super::super::{Session, local};
use super::runtime;
use carillon_policy::golden::Golden;
use carillon_policy::{Limits, Plugin};

/// Directory of the tests, relative to the plugin's directory.
pub(super) const DIRECTORY: &str = "golden";

/// Text of `--help` about the files.
pub(super) const FORM: &str = r#"Each file of the directory that ends in `.json` is a test: a call, and what it must come to.

  {"role": "judge", "config": {}, "input": {"response": {"status": 200, "body": "{\"ok\": false}"}},
   "answer": {"outcome": "retryable", "reason": "The body says that it failed."}}

The `input` is that of `carillon plugin run`. A signer's `keys` are [{"name": "k", "secret": "for tests only"}]. A call that is to end in a
fault has `"fault": "policy.declared"` instead of `answer`, or {"code": "policy.declared", "blame": "config", "message": "…"}, of which blame and
message may be left out. Where a test does not say what time it is, it is 2026-11-20T12:00:00Z.

`carillon plugin build` puts the tests into the component, and a server that it is uploaded to runs them; `carillon plugin build --update`
writes down what they come to."#;

#[derive(Debug, Args)]
pub struct Test {
    /// The component.
    file: PathBuf,
    /// Where the tests are.
    #[arg(default_value = DIRECTORY)]
    directory: PathBuf,
    /// Write down what each call comes to now, as what it must come to.
    #[arg(long)]
    update: bool,
}

impl Test {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let tests = read(&self.directory)?;
        if tests.is_empty() {
            bail!("there is no test in {}", self.directory.display());
        }
        let runtime = runtime()?;
        let plugin = local::load(&runtime, &self.file).await?;
        let mut results = Vec::with_capacity(tests.len());
        for mut test in tests {
            let result = if self.update {
                rewrite(&self.directory, &mut test, &plugin, &runtime.limits)
            } else {
                test.check(&plugin, &runtime.limits).map_err(anyhow::Error::from)
            };
            results.push((test.name, result.err().map(|error| error.to_string())));
        }
        let failed = results.iter().filter(|(_, failure)| failure.is_some()).count();
        for (name, failure) in &results {
            if session.out.is_json() {
                session.out.json_line(&json!({ "name": name, "failure": failure }))?;
            } else {
                session
                    .out
                    .line(&failure.as_ref().map_or_else(|| format!("ok    {name}"), |why| format!("FAIL  {why}")))?;
            }
        }
        match failed {
            0 => Ok(()),
            failed => bail!("{failed} of {} golden tests failed", results.len()),
        }
    }
}

/// Writes the actual outcome of the call into the test's file.
pub(super) fn rewrite(directory: &Path, test: &mut Golden, plugin: &Plugin, limits: &Limits) -> anyhow::Result<()> {
    test.expect(test.outcome(plugin, limits)?);
    let path = directory.join(format!("{}.json", test.name));
    let text = format!("{:#}\n", Value::Object(test.test.clone()));
    write(&path, text.as_bytes())
}

/// Reads the tests of a directory, by name.
pub(super) fn read(directory: &Path) -> anyhow::Result<Vec<Golden>> {
    let cannot = || format!("{} cannot be read", directory.display());
    let mut tests = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        let Some(name) = path.file_stem().filter(|_| path.extension().is_some_and(|it| it == "json")) else { continue };
        let text = std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let test: Map<String, Value> =
            serde_json::from_slice(&text).with_context(|| format!("{} is not a JSON object", path.display()))?;
        tests.push(Golden { name: name.to_string_lossy().into_owned(), test });
    }
    tests.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(tests)
}
