//! Moves everything from an SQLite database into a PostgreSQL database.
//!
//! It takes two runs of the same command, and the server stands still only during the second. The first one **copies** every row while the
//! server goes on, so what it has copied is a little of every moment. When the server has stopped, the next run **compares** every row of
//! both databases, page by page; it writes again what differs, reads that back, and marks the database as complete. Without a server one run
//! does both. With one, further runs only catch up.
//!
//! - Nothing in the SQLite database is changed, and no server can open it during the run that completes the migration: that run holds its lock.
//! - No server serves from a PostgreSQL database whose migration is not complete.
//! - A run that was cut off, anywhere, is gone on with by the next: rows are copied in the order of their keys, so the last one that is there
//!   says how far it came, and a comparison has nothing to remember.
//! - Rows keep everything they have: ids, tokens and leases, attempts, what is remembered of producers. Keys stay encrypted; the master
//!   key is not in the database.

use std::collections::HashMap;

use anyhow::{Context as _, bail, ensure};
use indicatif::ProgressBar;
use serde::Serialize;

use carillon_store::{Cell, Checksum, Counters, Key, Row, RowDigest, StoreError, TABLES, Table, shown};
use carillon_store_postgres::{PostgresOptions, PostgresTarget, Stage};
use carillon_store_sqlite::{SqliteOptions, SqliteSource};

/// So many of the rows of a table that differ are named.
const EXAMPLES: usize = 5;

/// Which of the two databases a failure is about.
const SOURCE: &str = "the SQLite database";
const TARGET: &str = "the PostgreSQL database";

/// What is told as a table although it is none: see [`Counters`].
const COUNTERS: &str = "counters";

/// Two databases, and the way from one to the other.
#[derive(Debug)]
pub struct Migration {
    source: SqliteSource,
    fingerprint: String,
    target: PostgresTarget,
    /// The most rows of a transaction.
    page: u32,
    bar: ProgressBar,
}

/// What a run has come to.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How far the migration is.
    pub progress: Progress,
    /// Whether a server has the SQLite database open.
    pub served: bool,
    /// What was done to each table.
    pub tables: Vec<Moved>,
}

/// How far a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Nothing was written yet.
    Nothing,
    /// Some rows were copied.
    Copying,
    /// Every row was copied once. What has changed since is to be found by the run that completes it.
    Copied,
    /// Servers may serve from the PostgreSQL database.
    Complete,
}

/// A table, and what was done to it.
#[derive(Debug, Default, Serialize)]
pub struct Moved {
    /// Its name in the PostgreSQL database.
    pub table: &'static str,
    /// In the SQLite database.
    pub source: Sum,
    /// In the PostgreSQL database.
    pub target: Sum,
    /// How many rows were written.
    pub written: u64,
    /// How many rows were removed that the SQLite database no longer has.
    pub removed: u64,
    /// How many rows differ, and are left so.
    pub differing: u64,
    /// The keys of some of them.
    pub examples: Vec<String>,
}

/// What all rows of a table come to.
#[derive(Debug, Default, Serialize)]
pub struct Sum {
    /// How many there are.
    pub rows: u64,
    /// The SHA-256 of their digests in the order of their keys, in hex, if they were read.
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
    /// How many rows differ.
    #[must_use]
    pub fn differing(&self) -> u64 {
        self.tables.iter().map(|table| table.differing).sum()
    }
}

impl Migration {
    /// Opens both databases: the file `from`, which may be written as the URL of a store, and the URL `to`. Rows are moved `page` at a
    /// time; `bar` shows how far a run is.
    ///
    /// # Errors
    /// If one of them cannot be opened.
    pub async fn open(from: &str, to: &str, page: u32, bar: ProgressBar) -> anyhow::Result<Self> {
        let from = match from.starts_with("sqlite:") {
            true => from.parse::<SqliteOptions>().map_err(anyhow::Error::msg).context(SOURCE)?,
            false => SqliteOptions::new(from),
        };
        // The URL may have a password in it: no message repeats it.
        let to = &to.parse::<PostgresOptions>().map_err(anyhow::Error::msg).context(TARGET)?;
        let mut source = SqliteSource::open(&from.path).await.context(SOURCE)?;
        let fingerprint = source.fingerprint().await.context(SOURCE)?;
        let target = PostgresTarget::connect(to).await.context(TARGET)?;
        Ok(Self { source, fingerprint, target, page, bar })
    }

    /// Says what there is to do, and does nothing.
    ///
    /// # Errors
    /// If a run would be refused.
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

    /// Goes on with the migration as far as it can go now.
    ///
    /// # Errors
    /// If the target is in use or filled from another source; if a database fails; if the databases still differ at the end.
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
        let mut tables = self.compare(true).await?;
        tables.iter_mut().zip(&copied).for_each(|(table, copied)| table.written += copied.written);
        if self.source.is_served() {
            return Ok(self.report(Some(Stage::Copied), tables));
        }
        self.bar.set_message("indexes");
        let counters = self.source.counters().await.context(SOURCE)?;
        let settled = self.target.settle(counters).await.context(TARGET)?;
        tables.push(of_counters(counters, settled));
        ensure!(counters == settled, "{TARGET} does not keep the counters that it was given: {settled:?}");
        let unchanged = self.source.version().await.context(SOURCE)? == version;
        ensure!(unchanged, "{SOURCE} was changed meanwhile, though no server has it open: run this again");
        self.target.complete().await.context(TARGET)?;
        Ok(self.report(Some(Stage::Complete), tables))
    }

    /// Compares the databases, and changes nothing. It says something about a complete migration as long as no server has run on either.
    ///
    /// # Errors
    /// If there is no migration, or a database fails.
    pub async fn verify(&mut self) -> anyhow::Result<Report> {
        let Some(stage) = self.target.look(&self.fingerprint).await.context(TARGET)? else {
            bail!("{TARGET} is empty: the migration has not begun");
        };
        let mut tables = self.compare(false).await?;
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

    /// Copies what comes after the last row that is there, table by table.
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

    /// Compares all rows, and mends what differs if that is wanted.
    async fn compare(&mut self, mend: bool) -> anyhow::Result<Vec<Moved>> {
        let rows = self.rows().await?;
        self.start_bar(rows);
        let mut tables = Vec::new();
        for table in &TABLES {
            self.bar.set_message(format!("comparing {}", table.name));
            tables.push(self.compare_table(table, mend).await?);
        }
        Ok(tables)
    }

    async fn compare_table(&mut self, table: &'static Table, mend: bool) -> anyhow::Result<Moved> {
        let mut moved = Moved { table: table.name, ..Moved::default() };
        let (mut source, mut target) = (Checksum::default(), Checksum::default());
        let mut after: Option<Key> = None;
        let mut page = self.source.page(table, None, self.page).await.context(SOURCE)?;
        loop {
            let rows: Vec<(RowDigest, &Row)> = page.iter().map(|row| (row.digest(), row)).collect();
            // After the last page: whatever else is there.
            let last = page.last().map(|row| row.key().to_vec());
            let span = Span { table, after: after.as_deref(), last: last.as_deref(), rows };
            let next = async {
                match &last {
                    Some(last) => self.source.page(table, Some(last), self.page).await,
                    None => Ok(Vec::new()),
                }
            };
            // The next page is read while this one is compared.
            let (next, found) = tokio::join!(next, span.compare(&mut self.target, mend, &mut moved));
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
        ensure!(!mend || moved.differing == 0, "{}", refusal(&moved));
        Ok(moved)
    }
}

/// A page of rows, and where it lies: what is there between two keys, or before the first or after the last one.
struct Span<'a> {
    table: &'static Table,
    after: Option<&'a [Cell]>,
    last: Option<&'a [Cell]>,
    rows: Vec<(RowDigest, &'a Row)>,
}

/// What is to be done so that the target has the rows of a span, and no others.
#[derive(Default)]
struct Difference<'a> {
    /// Rows that are missing there, or differ.
    new: Vec<&'a Row>,
    /// What is there and should not be.
    surplus: Vec<Key>,
}

impl<'a> Span<'a> {
    /// Compares the rows with what the target has, and mends that if it is wanted. Returns what it has in the end, and says in `moved` what
    /// was done.
    async fn compare(
        &self,
        target: &mut PostgresTarget,
        mend: bool,
        moved: &mut Moved,
    ) -> Result<Vec<(Key, RowDigest)>, StoreError> {
        let mut found = target.digests(self.table, self.after, self.last).await?;
        let mut difference = self.difference(&found);
        if mend && !difference.is_empty() {
            let outdated = difference.new.iter().map(|row| row.key());
            let gone: Vec<&[Cell]> = difference.surplus.iter().map(Vec::as_slice).chain(outdated).collect();
            target.write(self.table, &gone, &difference.new).await?;
            moved.written += difference.new.len() as u64;
            moved.removed += difference.surplus.len() as u64;
            // What was written is believed when it was read.
            found = target.digests(self.table, self.after, self.last).await?;
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

/// What is said of a table that differs although it was mended.
fn refusal(moved: &Moved) -> String {
    let examples = moved.examples.join(", ");
    format!("{} rows of `{}` differ although they were just written: {examples}", moved.differing, moved.table)
}
