//! `carillon plugin build`: from a plugin's directory to a component that a server would take, with its golden tests in it.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use carillon_guest_build::{BuildRequest, build};
use clap::Args;

use super::super::Session;
use super::super::local::NOBODY;
use super::super::output::write;
use super::{describe, golden, record, runtime};
use crate::policy::golden::{embed, embedded};
use crate::policy::{Description, Plugin, Runtime};

#[derive(Debug, Args)]
pub(in crate::cli) struct Build {
    #[command(flatten)]
    sources: Sources,
    /// Where to write the component; NAME.wasm in the working directory if it is not said.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What is built.
#[derive(Debug, Default, Args)]
pub(in crate::cli) struct Sources {
    /// The directory of the plugin.
    #[arg(default_value = ".")]
    pub(super) directory: PathBuf,
    /// Where intermediate files are kept; `target/carillon` in the plugin's directory if it is not said.
    #[arg(long, value_name = "DIRECTORY", env = "CARILLON_PLUGIN_TARGET_DIR")]
    target_dir: Option<PathBuf>,
}

/// A component that was built, that loads, and that passes its golden tests.
pub(super) struct Built {
    pub(super) component: Bytes,
    pub(super) plugin: Arc<Plugin>,
    pub(super) said: Description,
    /// How many golden tests it has.
    pub(super) tests: usize,
}

impl Sources {
    /// Where intermediate files are kept. A directory of its own: a cargo that runs in the crate would be waited for.
    pub(super) fn target_dir(&self) -> PathBuf {
        self.target_dir.clone().unwrap_or_else(|| self.directory.join("target").join("carillon"))
    }

    pub(super) async fn build(&self, runtime: &Runtime) -> anyhow::Result<Built> {
        let (manifest_dir, target_dir) = (self.directory.clone(), self.target_dir());
        let request = BuildRequest { manifest_dir, target_dir, toolchain: None };
        let component = tokio::task::spawn_blocking(move || build(&request)).await??;
        let tests = self.directory.join(golden::DIRECTORY);
        let tests = if tests.is_dir() { golden::read(&tests)? } else { Vec::new() };
        let component = Bytes::from(embed(&component, &tests));
        let plugin = runtime.registry.admit(NOBODY, &component).await?.plugin;
        for test in embedded(&component)? {
            test.check(&plugin, &runtime.limits)?;
        }
        let (said, _) = describe(runtime, &plugin)?;
        Ok(Built { component, plugin, said, tests: tests.len() })
    }
}

impl Build {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let Built { component, plugin, said, tests } = self.sources.build(&runtime()?).await?;
        let output = self.output.unwrap_or_else(|| PathBuf::from(format!("{}.wasm", said.name)));
        write(&output, &component)?;
        let mut record = record(&plugin, said, component.len() as u64);
        record["golden_tests"] = tests.into();
        record["file"] = output.display().to_string().into();
        if let Some(fields) = record.as_object_mut().filter(|_| !session.out.is_json()) {
            fields.remove("config_schema");
        }
        session.out.answer(&record)
    }
}
