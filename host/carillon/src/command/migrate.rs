//! `carillon migrate`: moves a server's database to PostgreSQL, which several servers can share.
//!
//! The result of a run is a table on standard output; the next step is printed to standard error.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::migrate::{Migration, Moved, Progress, Report, Sum};
use carillon_cli::Output;
use carillon_cli::secret::first_line;

/// Environment variable with the URL of the PostgreSQL database.
const TO: &str = "CARILLON_MIGRATE_TO";

/// Number of digits of a checksum that are shown to people. JSON has all of them.
const SHOWN_DIGITS: usize = 16;

/// Period of the progress bar's animation.
const TICK: Duration = Duration::from_millis(200);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Copy a server's SQLite database into an empty PostgreSQL database.
    ///
    /// Run it while the server runs, then stop the server and run it again. The second run writes the changes since the first one, compares
    /// every row of both databases, and lets servers use the new one. It can be interrupted and run again at any time.
    SqliteToPostgres(SqliteToPostgres),
}

#[derive(Debug, Args)]
pub(super) struct SqliteToPostgres {
    /// SQLite database that the server uses; it is not changed.
    #[arg(long, value_name = "FILE", default_value = "data/carillon.db")]
    from: String,
    /// PostgreSQL database, postgres://USER@HOST/DATABASE: an empty one, or that of an earlier run. A password in it can be read by other
    /// users of the machine. Default: the variable CARILLON_MIGRATE_TO.
    #[arg(long, value_name = "URL", conflicts_with = "to_file")]
    to: Option<String>,
    /// File whose first line is the URL of that database; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    to_file: Option<PathBuf>,
    /// Show what a run would do, and change nothing.
    #[arg(long, conflicts_with = "verify")]
    dry_run: bool,
    /// Compare the databases and change nothing; fails if they differ, which is expected once a server has used either.
    #[arg(long)]
    verify: bool,
    /// Maximum number of rows in one transaction.
    #[arg(long, default_value_t = 2000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rows: u32,
}

impl Command {
    pub(super) async fn run(self, out: Output) -> anyhow::Result<()> {
        let Self::SqliteToPostgres(command) = self;
        command.run(out).await
    }
}

impl SqliteToPostgres {
    /// Returns the URL of the PostgreSQL database.
    fn target(&self) -> anyhow::Result<Zeroizing<String>> {
        if let Some(path) = &self.to_file {
            return first_line("--to-file", path);
        }
        let given = self.to.clone().or_else(|| std::env::var(TO).ok().filter(|url| !url.is_empty()));
        given.map(Zeroizing::new).with_context(|| format!("name the PostgreSQL database: --to, --to-file, or {TO}"))
    }

    async fn run(self, out: Output) -> anyhow::Result<()> {
        let style = ProgressStyle::with_template(
            "{wide_bar} {percent}% {msg}, {human_pos} rows, {rows_per_second}, {eta} left",
        )?;
        let style = style.with_key("rows_per_second", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rate of rows is a small number"
            )]
            let rate = HumanCount(state.per_sec().round() as u64);
            // Nothing is lost if the terminal does not take it.
            _ = write!(out, "{rate}/s");
        });
        let bar = ProgressBar::no_length().with_style(style);
        let mut migration = Migration::open(&self.from, &self.target()?, self.rows, bar.clone()).await?;
        if self.dry_run {
            let report = migration.preview().await?;
            return show(out, &report, "ROWS TO COPY", preview(&report));
        }
        bar.enable_steady_tick(TICK);
        let done = if self.verify { migration.verify().await } else { migration.run().await };
        bar.finish_and_clear();
        let report = done?;
        if !self.verify {
            return show(out, &report, "ROWS", outcome(&report));
        }
        show(out, &report, "ROWS", "Every row of both databases was read and compared.")?;
        match report.differing() {
            0 => Ok(()),
            rows => bail!("rows that differ: {rows}{}", examples(&report.tables)),
        }
    }
}

fn show(out: Output, report: &Report, rows: &str, next: &str) -> anyhow::Result<()> {
    if out.is_json() {
        return out.json(&serde_json::to_value(report)?);
    }
    if !report.tables.is_empty() {
        let columns = [
            ("TABLE", "/table"),
            (rows, "/rows"),
            ("ROWS IN TARGET", "/there"),
            ("WRITTEN", "/written"),
            ("REMOVED", "/removed"),
            ("DIFFERING", "/differing"),
            ("SHA-256", "/sha256"),
            ("SHA-256 IN TARGET", "/sha256_there"),
        ];
        out.table(&columns, &report.tables.iter().map(line).collect::<Vec<_>>())?;
    }
    next.lines().try_for_each(|line| out.note(line))
}

fn line(moved: &Moved) -> Value {
    let digits = |sum: &Sum| sum.sha256.as_ref().map(|hex| hex[..SHOWN_DIGITS].to_owned());
    let some = |number: u64| (number > 0).then_some(number);
    json!({
        "table": moved.table,
        "rows": moved.source.rows,
        "there": moved.target.rows,
        "written": some(moved.written),
        "removed": some(moved.removed),
        "differing": some(moved.differing),
        "sha256": digits(&moved.source),
        "sha256_there": digits(&moved.target),
    })
}

/// What is to be done after a look.
fn preview(report: &Report) -> &'static str {
    match (report.progress, report.served) {
        (Progress::Complete, _) => "The migration is complete: nothing is left to do.",
        (Progress::Copied, true) => {
            "All rows were copied once. A run would copy the changes since then; to complete the migration, stop the server first."
        }
        (Progress::Copied, false) => {
            "All rows were copied once, and no server uses the SQLite database: a run would complete the migration."
        }
        (Progress::Nothing | Progress::Copying, true) => {
            "A run would copy these rows while the server runs; a second run, after the server has stopped, would complete the migration."
        }
        (Progress::Nothing | Progress::Copying, false) => {
            "No server uses the SQLite database: a run would copy these rows and complete the migration."
        }
    }
}

/// What is to be done after a run.
fn outcome(report: &Report) -> &'static str {
    match (report.progress, report.tables.is_empty()) {
        (Progress::Complete, true) => {
            "The migration was already complete: nothing was done. `--verify` compares the databases."
        }
        (Progress::Complete, false) => {
            "The migration is complete: every row of both databases was read and compared, and they are the same.\n\
             Start servers with `--store postgres://…` and the master key of the old one: its file as keys.master_key_file (it is \
             `master.key` next to the SQLite database unless that was set), or its keys.master_key.\n\
             Start no server on the SQLite database again: jobs that both databases have would be delivered twice."
        }
        _ => {
            "All rows are copied. The server still runs, and no server starts on the new database until the migration is complete: stop the \
             server, then run this command again. It compares all rows and writes only the changes."
        }
    }
}

/// The keys of rows that differ.
fn examples(tables: &[Moved]) -> String {
    let keys = tables.iter().flat_map(|moved| moved.examples.iter().map(move |key| format!("{} {key}", moved.table)));
    let keys: Vec<String> = keys.collect();
    if keys.is_empty() { String::new() } else { format!(", among them: {}", keys.join("; ")) }
}
