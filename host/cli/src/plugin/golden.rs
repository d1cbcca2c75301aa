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
pub(super) const FORM: &str = r#"Each file of the directory that ends in `.json` is a test: a call and its expected result.

  {"role": "judge", "config": {}, "input": {"response": {"status": 200, "body": "{\"ok\": false}"}},
   "answer": {"outcome": "retryable", "reason": "The body says that it failed."}}

The `input` is that of `carillon plugin run`. A signer's `keys` are [{"name": "k", "secret": "for tests only"}]. If the call must
end in a fault, the test has `"fault": "policy.declared"` instead of `answer`, or {"code": "policy.declared", "blame": "config", "message": "…"},
where blame and message are optional. The default time of a test is 2026-11-20T12:00:00Z.

`carillon plugin build` embeds the tests in the component, and a server runs them at the upload. `carillon plugin build --update` writes
the present results into the tests."#;

#[derive(Debug, Args)]
pub struct Test {
    /// Component to test.
    file: PathBuf,
    /// Directory of the tests.
    #[arg(default_value = DIRECTORY)]
    directory: PathBuf,
    /// Write the present result of each call into its test, as the expected one.
    #[arg(long)]
    update: bool,
}

impl Test {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let tests = read(&self.directory)?;
        if tests.is_empty() {
            bail!("{} contains no golden test", self.directory.display());
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
