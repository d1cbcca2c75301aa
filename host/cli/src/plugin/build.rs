//! `carillon plugin build`: builds a plugin's directory into a component that a server would accept, with its golden tests embedded.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::ensure;
use bytes::Bytes;
use carillon_guest_build::{BuildRequest, build};
use clap::Args;
use serde_json::json;

use super::super::Session;
use super::super::local::admit;
use super::super::output::write;
use super::{describe, golden, record, runtime};
use carillon_policy::golden::{Failed, embed, embedded};
use carillon_policy::{Description, Digest, Plugin, Runtime};

#[derive(Debug, Args)]
pub struct Build {
    #[command(flatten)]
    sources: Sources,
    /// File for the component. Default: NAME.wasm in the working directory.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the present result of each golden test into it, as the expected one.
    #[arg(long)]
    update: bool,
}

/// Sources of a plugin.
#[derive(Debug, Default, Args)]
pub struct Sources {
    /// Directory of the plugin.
    #[arg(default_value = ".")]
    pub(super) directory: PathBuf,
    /// Directory for intermediate files. Default: `target/carillon` in the plugin's directory.
    #[arg(long, value_name = "DIRECTORY", env = "CARILLON_PLUGIN_TARGET_DIR")]
    target_dir: Option<PathBuf>,
}

/// Component that was built and that loads.
pub(super) struct Built {
    pub(super) component: Bytes,
    pub(super) plugin: Arc<Plugin>,
    pub(super) said: Description,
    /// Number of its golden tests.
    pub(super) tests: usize,
    /// Golden tests that fail: no server accepts the component then.
    pub(super) failed: Vec<Failed>,
}

/// Handling of golden tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GoldenTests {
    Check,
    /// Their actual outcomes are written into their files.
    Update,
}

impl Sources {
    /// Returns the directory of intermediate files. It is separate, because a cargo that runs in the crate would block this one.
    pub(super) fn target_dir(&self) -> PathBuf {
        self.target_dir.clone().unwrap_or_else(|| self.directory.join("target").join("carillon"))
    }

    pub(super) async fn build(&self, runtime: &Runtime, golden_tests: GoldenTests) -> anyhow::Result<Built> {
        let (manifest_dir, target_dir) = (self.directory.clone(), self.target_dir());
        let request = BuildRequest { manifest_dir, target_dir, toolchain: None };
        let bare = tokio::task::spawn_blocking(move || build(&request)).await??;
        let directory = self.directory.join(golden::DIRECTORY);
        let mut tests = if directory.is_dir() { golden::read(&directory)? } else { Vec::new() };
        let mut component = Bytes::from(embed(&bare, &tests));
        let plugin = admit(runtime, &component).await?;
        if golden_tests == GoldenTests::Update {
            for test in &mut tests {
                golden::rewrite(&directory, test, &plugin, &runtime.limits)?;
            }
            // Tests are no code: the loaded plugin stays the same.
            component = Bytes::from(embed(&bare, &tests));
        }
        let tests = embedded(&component)?;
        let failed = tests.iter().filter_map(|test| test.check(&plugin, &runtime.limits).err()).collect();
        let (said, _) = describe(runtime, &plugin)?;
        Ok(Built { component, plugin, said, tests: tests.len(), failed })
    }
}

impl Built {
    /// Returns an error that lists the failed golden tests, if there are any.
    pub(super) fn proven(self) -> anyhow::Result<Self> {
        let failures: Vec<_> = self.failed.iter().map(ToString::to_string).collect();
        ensure!(failures.is_empty(), "{}", failures.join("; "));
        Ok(self)
    }
}

/// Members that the record shows first.
const FIRST: [&str; 4] = ["name", "version", "roles", "file"];

impl Build {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let golden_tests = if self.update { GoldenTests::Update } else { GoldenTests::Check };
        let Built { component, plugin, said, tests, failed } = self.sources.build(&runtime()?, golden_tests).await?;
        let output = self.output.unwrap_or_else(|| PathBuf::from(format!("{}.wasm", said.name)));
        write(&output, &component)?;
        let mut record = record(&plugin, said, component.len() as u64);
        record["digest"] = json!(Digest::from_bytes(&component));
        record["golden_tests"] = tests.into();
        record["golden_failures"] = failed.iter().map(ToString::to_string).collect();
        record["file"] = output.display().to_string().into();
        if let Some(fields) = record.as_object_mut().filter(|_| !session.out.is_json()) {
            fields.remove("config_schema");
            fields.remove("golden_failures");
        }
        session.out.answer_with(&FIRST, &record)?;
        for failure in &failed {
            session.out.note(&format!("FAIL  {failure}"))?;
        }
        ensure!(
            failed.is_empty(),
            "{} of {tests} golden tests failed: {} was written, but no server accepts it; fix the plugin, or accept its present results with \
             `carillon plugin build --update`",
            failed.len(),
            output.display()
        );
        Ok(())
    }
}
