//! Argument that names the job of a command.

use clap::Args;

/// Job, by its id or by its name in a group.
#[derive(Debug, Args)]
pub struct Target {
    /// Id of the job.
    pub(super) id: String,
    /// Treat the argument as the name of a job in this group.
    #[arg(long)]
    pub(super) group: Option<String>,
}

impl Target {
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        self.group.iter().map(|group| ("group", group.clone())).collect()
    }
}
