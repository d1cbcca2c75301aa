//! Migration of all data from an SQLite database into a PostgreSQL database.
//!
//! It takes two runs of the same command, and the server is stopped only during the second. The first run **copies** every row while the
//! server continues, so the copied rows are from different moments. When the server has stopped, the next run **compares** every row of both
//! databases, page by page. It writes again what differs, reads that back, and marks the database as complete. Without a server one run does
//! both. With one, further runs only catch up.
//!
//! - Nothing in the SQLite database is changed, and no server can open it during the run that completes the migration: that run holds its
//!   lock.
//! - No server serves from a PostgreSQL database whose migration is not complete.
//! - The next run continues after an interruption at any point: rows are copied in the order of their keys, so the last copied row shows the
//!   progress, and a comparison keeps no state.
//! - Rows keep everything they have: ids, tokens and leases, attempts, the recorded requests of producers. Keys stay encrypted; the master
//!   key is not in the database.

use std::collections::HashMap;

use anyhow::{Context as _, bail, ensure};
use indicatif::ProgressBar;
use serde::Serialize;

use carillon_store::{Cell, Checksum, Counters, Key, PageRange, Row, RowDigest, StoreError, TABLES, Table, shown};
use carillon_store_postgres::{PostgresOptions, PostgresTarget, Stage};
use carillon_store_sqlite::{SqliteOptions, SqliteSource};

/// Maximum number of differing rows of a table that a report names.
const EXAMPLES: usize = 5;

/// Names of the two databases in messages.
const SOURCE: &str = "the SQLite database";
const TARGET: &str = "the PostgreSQL database";

/// Name under which the counters are reported like a table, although they are none: see [`Counters`].
const COUNTERS: &str = "counters";

/// Migration between two open databases.
#[derive(Debug)]
pub struct Migration {
    source: SqliteSource,
    fingerprint: String,
    target: PostgresTarget,
    /// Maximum number of rows in a transaction.
    page: u32,
    bar: ProgressBar,
}

/// Result of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Progress of the migration.
    pub progress: Progress,
    /// Whether a server has the SQLite database open.
    pub served: bool,
    /// Changes of each table.
    pub tables: Vec<Moved>,
}

/// Progress of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Nothing is written yet.
    Nothing,
    /// Some rows are copied.
    Copying,
    /// Every row was copied once. The run that completes the migration finds later changes.
    Copied,
    /// Servers may serve from the PostgreSQL database.
    Complete,
}

/// Table, with its changes.
#[derive(Debug, Default, Serialize)]
pub struct Moved {
    /// Name of the table in the PostgreSQL database.
    pub table: &'static str,
    /// Sum of the table in the SQLite database.
    pub source: Sum,
    /// Sum of the table in the PostgreSQL database.
    pub target: Sum,
    /// Number of rows that were written.
    pub written: u64,
    /// Number of rows that were removed, because the SQLite database no longer has them.
    pub removed: u64,
    /// Number of rows that still differ.
    pub differing: u64,
    /// Keys of some of these rows.
    pub examples: Vec<String>,
}

/// Count and checksum of all rows of a table.
#[derive(Debug, Default, Serialize)]
pub struct Sum {
    /// Number of rows.
    pub rows: u64,
    /// SHA-256 of the rows' digests in the order of their keys, in hexadecimal digits, if the rows were read.
    pub sha256: Option<String>,
}

impl From<Option<Stage>> for Progress {
    fn from(stage: Option<Stage>) -> Self {
        match stage {
            None => Self::Nothing,
            Some(Stage::Copying) => Self::Copying,
            Some(Stage::Copied) => Self::Copied,
            Some(Stage::Complete) => Self::Complete,
        }
    }
}

impl From<&Checksum> for Sum {
    fn from(checksum: &Checksum) -> Self {
        Self { rows: checksum.rows, sha256: Some(checksum.hex()) }
    }
}

impl Report {
    /// Returns the number of rows that differ.
    #[must_use]
    pub fn differing(&self) -> u64 {
        self.tables.iter().map(|table| table.differing).sum()
    }
}

impl Migration {
    /// Opens both databases: the file `from`, which may be written as the URL of a store, and the URL `to`. Rows are moved `page` at a time;
    /// `bar` shows the progress of a run.
    ///
    /// # Errors
    /// Returns an error if one of them cannot be opened.
    pub async fn open(from: &str, to: &str, page: u32, bar: ProgressBar) -> anyhow::Result<Self> {
        let from = if from.starts_with("sqlite:") {
            from.parse::<SqliteOptions>().map_err(anyhow::Error::msg).context(SOURCE)?
        } else {
            SqliteOptions::new(from)
        };
        // The URL may contain a password, so no message repeats it.
        let to = &to.parse::<PostgresOptions>().map_err(anyhow::Error::msg).context(TARGET)?;
        let mut source = SqliteSource::open(&from.path).await.context(SOURCE)?;
        let fingerprint = source.fingerprint().await.context(SOURCE)?;
        let target = PostgresTarget::connect(to).await.context(TARGET)?;
        Ok(Self { source, fingerprint, target, page, bar })
    }

    /// Reports what a run would do, and changes nothing.
    ///
    /// # Errors
    /// Returns an error if a run would be refused.
    pub async fn preview(&mut self) -> anyhow::Result<Report> {
        let stage = self.target.look(&self.fingerprint).await.context(TARGET)?;
        let mut tables = Vec::new();
        for table in &TABLES {
            let source = Sum { rows: self.source.count(table).await.context(SOURCE)?, sha256: None };
            let rows = if stage.is_some() { self.target.count(table).await.context(TARGET)? } else { 0 };
            tables.push(Moved { table: table.name, source, target: Sum { rows, sha256: None }, ..Moved::default() });
        }
        Ok(self.report(stage, tables))
    }

    /// Continues the migration as far as is possible now.
    ///
    /// # Errors
    /// Returns an error if the target is in use or filled from another source, if a database fails, or if the databases still differ at the
    /// end.
    pub async fn run(&mut self) -> anyhow::Result<Report> {
        let version = self.source.version().await.context(SOURCE)?;
        let stage = self.target.begin(&self.fingerprint).await.context(TARGET)?;
        if stage == Stage::Complete {
            return Ok(self.report(Some(stage), Vec::new()));
        }
        let mut copied = Vec::new();
        if stage == Stage::Copying {
            copied = self.copy().await?;
            self.bar.set_message("indexes");
            self.target.copied().await.context(TARGET)?;
            if self.source.is_served() {
                return Ok(self.report(Some(Stage::Copied), copied));
            }
        }
        let mut tables = self.compare(CompareMode::Repair).await?;
        tables.iter_mut().zip(&copied).for_each(|(table, copied)| table.written += copied.written);
        if self.source.is_served() {
            return Ok(self.report(Some(Stage::Copied), tables));
        }
        self.bar.set_message("indexes");
        let counters = self.source.counters().await.context(SOURCE)?;
        let settled = self.target.settle(counters).await.context(TARGET)?;
        tables.push(of_counters(counters, settled));
        ensure!(counters == settled, "{TARGET} has other counters than were written: {settled:?}");
        let unchanged = self.source.version().await.context(SOURCE)? == version;
        ensure!(
            unchanged,
            "{SOURCE} was changed during the run, although no server has it open: run the command again"
        );
        self.target.complete().await.context(TARGET)?;
        Ok(self.report(Some(Stage::Complete), tables))
    }

    /// Compares the databases, and changes nothing. The result for a complete migration is meaningful as long as no server has run on either
    /// database.
    ///
    /// # Errors
    /// Returns an error if there is no migration, or if a database fails.
    pub async fn verify(&mut self) -> anyhow::Result<Report> {
        let Some(stage) = self.target.look(&self.fingerprint).await.context(TARGET)? else {
            bail!("{TARGET} is empty: the migration has not begun");
        };
        let mut tables = self.compare(CompareMode::Report).await?;
        if stage == Stage::Complete {
            let counters = self.source.counters().await.context(SOURCE)?;
            tables.push(of_counters(counters, self.target.counters().await.context(TARGET)?));
        }
        Ok(self.report(Some(stage), tables))
    }

    fn report(&self, stage: Option<Stage>, tables: Vec<Moved>) -> Report {
        self.bar.finish_and_clear();
        Report { progress: stage.into(), served: self.source.is_served(), tables }
    }

    fn start_bar(&self, rows: u64) {
        self.bar.reset();
        self.bar.set_length(rows);
    }

    async fn rows(&mut self) -> anyhow::Result<u64> {
        let mut rows = 0;
        for table in &TABLES {
            rows += self.source.count(table).await.context(SOURCE)?;
        }
        Ok(rows)
    }

    /// Copies the rows after the last copied one, table by table.
    async fn copy(&mut self) -> anyhow::Result<Vec<Moved>> {
        let rows = self.rows().await?;
        self.start_bar(rows);
        let mut tables = Vec::new();
        for table in &TABLES {
            self.bar.set_message(format!("copying {}", table.name));
            tables.push(self.copy_table(table).await?);
        }
        Ok(tables)
    }

    async fn copy_table(&mut self, table: &'static Table) -> anyhow::Result<Moved> {
        let before = self.target.count(table).await.context(TARGET)?;
        self.bar.inc(before);
        let last = self.target.last_key(table).await.context(TARGET)?;
        let mut written = 0;
        let mut page = self.source.page(table, last.as_deref(), self.page).await.context(SOURCE)?;
        while let Some(last) = page.last() {
            let new: Vec<&Row> = page.iter().collect();
            // The next page is read while this one is written.
            let (next, done) =
                tokio::join!(self.source.page(table, Some(last.key()), self.page), self.target.write(table, &[], &new));
            done.with_context(|| failed(TARGET, table))?;
            written += page.len() as u64;
            self.bar.inc(page.len() as u64);
            page = next.with_context(|| failed(SOURCE, table))?;
        }
        let rows = before + written;
        let sum = || Sum { rows, sha256: None };
        Ok(Moved { table: table.name, source: sum(), target: sum(), written, ..Moved::default() })
    }

    /// Compares all rows.
    async fn compare(&mut self, mode: CompareMode) -> anyhow::Result<Vec<Moved>> {
        let rows = self.rows().await?;
        self.start_bar(rows);
        let mut tables = Vec::new();
        for table in &TABLES {
            self.bar.set_message(format!("comparing {}", table.name));
            tables.push(self.compare_table(table, mode).await?);
        }
        Ok(tables)
    }

    async fn compare_table(&mut self, table: &'static Table, mode: CompareMode) -> anyhow::Result<Moved> {
        let mut moved = Moved { table: table.name, ..Moved::default() };
        let (mut source, mut target) = (Checksum::default(), Checksum::default());
        let mut after: Option<Key> = None;
        let mut page = self.source.page(table, None, self.page).await.context(SOURCE)?;
        loop {
            let rows: Vec<(RowDigest, &Row)> = page.iter().map(|row| (row.digest(), row)).collect();
            // After the last page, the span covers all remaining rows of the target.
            let last = page.last().map(|row| row.key().to_vec());
            let span = Span { table, range: PageRange { after: after.as_deref(), last: last.as_deref() }, rows };
            let next = async {
                match &last {
                    Some(last) => self.source.page(table, Some(last), self.page).await,
                    None => Ok(Vec::new()),
                }
            };
            // The next page is read while this one is compared.
            let (next, found) = tokio::join!(next, span.compare(&mut self.target, mode, &mut moved));
            let found = found.with_context(|| failed(TARGET, table))?;
            span.rows.iter().for_each(|(digest, _)| source.add(digest));
            found.iter().for_each(|(_, digest)| target.add(digest));
            self.bar.inc(span.rows.len() as u64);
            if last.is_none() {
                break;
            }
            after = last;
            page = next.with_context(|| failed(SOURCE, table))?;
        }
        (moved.source, moved.target) = (Sum::from(&source), Sum::from(&target));
        ensure!(mode == CompareMode::Report || moved.differing == 0, "{}", refusal(&moved));
        Ok(moved)
    }
}

/// Treatment of rows that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CompareMode {
    /// They are only reported.
    Report,
    /// They are written again, and compared once more.
    Repair,
}

/// Page of rows with its range of keys.
struct Span<'a> {
    table: &'static Table,
    range: PageRange<'a>,
    rows: Vec<(RowDigest, &'a Row)>,
}

/// Changes after which the target has the rows of a span, and no others.
#[derive(Default)]
struct Difference<'a> {
    /// Rows that are missing in the target, or differ.
    new: Vec<&'a Row>,
    /// Keys of rows that the target should not have.
    surplus: Vec<Key>,
}

impl<'a> Span<'a> {
    /// Compares the rows with the target's. Returns the target's rows at the end, and counts the changes in `moved`.
    async fn compare(
        &self,
        target: &mut PostgresTarget,
        mode: CompareMode,
        moved: &mut Moved,
    ) -> Result<Vec<(Key, RowDigest)>, StoreError> {
        let mut found = target.digests(self.table, self.range).await?;
        let mut difference = self.difference(&found);
        if mode == CompareMode::Repair && !difference.is_empty() {
            let outdated = difference.new.iter().map(|row| row.key());
            let gone: Vec<&[Cell]> = difference.surplus.iter().map(Vec::as_slice).chain(outdated).collect();
            target.write(self.table, &gone, &difference.new).await?;
            moved.written += difference.new.len() as u64;
            moved.removed += difference.surplus.len() as u64;
            // Written rows are verified by reading them back.
            found = target.digests(self.table, self.range).await?;
            difference = self.difference(&found);
        }
        moved.differing += (difference.new.len() + difference.surplus.len()) as u64;
        let keys = difference.new.iter().map(|row| row.key()).chain(difference.surplus.iter().map(Vec::as_slice));
        moved.examples.extend(keys.take(EXAMPLES.saturating_sub(moved.examples.len())).map(shown));
        Ok(found)
    }

    fn difference(&self, found: &[(Key, RowDigest)]) -> Difference<'a> {
        let mut left: HashMap<&[Cell], &RowDigest> =
            found.iter().map(|(key, digest)| (key.as_slice(), digest)).collect();
        let mut difference = Difference::default();
        for (digest, row) in &self.rows {
            if left.remove(row.key()) != Some(digest) {
                difference.new.push(row);
            }
        }
        difference.surplus = left.into_keys().map(<[Cell]>::to_vec).collect();
        difference
    }
}

impl Difference<'_> {
    fn is_empty(&self) -> bool {
        self.new.is_empty() && self.surplus.is_empty()
    }
}

fn of_counters(source: Counters, target: Counters) -> Moved {
    let sum = |counters: Counters| Sum::from(&counters.checksum());
    let differing = u64::from(source != target);
    Moved { table: COUNTERS, source: sum(source), target: sum(target), differing, ..Moved::default() }
}

fn failed(database: &str, table: &Table) -> String {
    format!("{database}, table `{}`", table.name)
}

/// Returns the message about a table that differs after the repair.
fn refusal(moved: &Moved) -> String {
    let examples = moved.examples.join(", ");
    format!("{} rows of `{}` differ although they were just written: {examples}", moved.differing, moved.table)
}
