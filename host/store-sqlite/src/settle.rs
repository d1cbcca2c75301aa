//! Settlements: the end of leases, with the attempts and the follow-up jobs.

use std::collections::{HashMap, HashSet};

use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteRow;
use tokio::sync::oneshot;

use super::db::{Db, Statement, with_nulls};
use super::error::Failure;
use super::rows::{self, Sql};
use super::transaction::Transaction;
use super::{job_rows, order_keys};
use carillon_core::job::{JobId, Next, Settlement, State, Token};
use carillon_store::decode::{self, Columns as _};
use carillon_store::documents::attempt_detail;
use carillon_store::{SettleOutcome, StoreError};

/// The `+` makes SQLite look up the jobs in the list instead of reading all running jobs from the index `job_lease`.
pub(super) const SETTLE: Sql = Sql {
    columns: 9,
    text: "
    UPDATE job SET
        state         = CASE WHEN s.state = 'scheduled' AND cancel_requested THEN 'cancelled' ELSE s.state END,
        run_at        = CASE WHEN s.state = 'scheduled' AND NOT cancel_requested THEN s.run_at ELSE job.run_at END,
        finished_at   = CASE WHEN s.state = 'scheduled' AND NOT cancel_requested THEN NULL ELSE s.at END,
        lease_until   = NULL,
        attempt_count = coalesce(s.spent, attempt_count),
        last_status   = CASE WHEN s.tried THEN s.status ELSE last_status END,
        last_error    = CASE WHEN s.tried THEN s.error ELSE last_error END
    FROM (
        SELECT column1 AS id, column2 AS token, column3 AS at, column4 AS state, column5 AS run_at,
            column6 AS spent, column7 AS tried, column8 AS status, column9 AS error
        FROM (VALUES {rows})) AS s
    WHERE job.id = s.id AND job.token = s.token AND +job.state = 'running'
    RETURNING id, token, state, grp, order_key",
};

/// Runs before [`SETTLE`] and finds the same jobs: those whose lease is still valid.
pub(super) const PUT_ATTEMPTS: Sql = Sql {
    columns: 9,
    text: "
    INSERT INTO attempt (job, number, started_at, finished_at, outcome, status, detail, response_body)
    SELECT column1, column3, column4, column5, column6, column7, column8, column9
    FROM (VALUES {rows}) CROSS JOIN job ON job.id = column1 AND job.token = column2 AND +job.state = 'running'
    WHERE TRUE
    ON CONFLICT (job, number) DO UPDATE SET
        started_at = excluded.started_at, finished_at = excluded.finished_at, outcome = excluded.outcome,
        status = excluded.status, detail = excluded.detail, response_body = excluded.response_body",
};

/// A settlement with its documents already encoded as JSON, which is done in the caller's task and not in the writer.
pub(super) struct Row {
    settlement: Settlement,
    detail: Option<String>,
    follow_ups: Vec<job_rows::Row>,
}

impl Row {
    fn lease(&self) -> (JobId, Token) {
        (self.settlement.id, self.settlement.token)
    }
}

/// Encodes settlements as rows, in the caller's task.
pub(super) fn rows(settlements: Vec<Settlement>) -> Result<Vec<Row>, StoreError> {
    let row = |mut settlement: Settlement| {
        let follow_ups = job_rows::rows(std::mem::take(&mut settlement.follow_ups))?;
        Ok(Row { detail: attempt_detail(&settlement)?, follow_ups, settlement })
    };
    settlements.into_iter().map(row).collect()
}

/// One caller's settlements.
pub(super) struct SettleCall {
    rows: Vec<Row>,
    done: Result<Vec<SettleOutcome>, StoreError>,
    reply: oneshot::Sender<Result<Vec<SettleOutcome>, StoreError>>,
}

impl SettleCall {
    pub(super) fn new(rows: Vec<Row>, reply: oneshot::Sender<Result<Vec<SettleOutcome>, StoreError>>) -> Self {
        Self { rows, done: Ok(Vec::new()), reply }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Sends the result to the caller.
    pub(super) fn answer(self, committed: Result<(), StoreError>) {
        // A caller that has gone away does not need the result.
        let _ = self.reply.send(committed.and(self.done));
    }
}

/// Runs calls that have a transaction for themselves, in one message to SQLite's thread and back.
///
/// Returns false, without any effect, if the calls are too many for one message, have more to write, or fail.
pub(super) async fn run_alone(db: &mut Db, calls: &mut [SettleCall]) -> bool {
    let all: Vec<&Row> = calls.iter().flat_map(|call| &call.rows).collect();
    let is_simple = |row: &&Row| row.follow_ups.is_empty() && !row.settlement.is_ordered();
    if all.len() > rows::PER_STATEMENT || !all.iter().all(is_simple) {
        return false;
    }
    let leases = Leases::from_rows(&all);
    let found = db.fetch_all_alone(write(&leases.first)).await.map_err(Failure::from);
    let Ok(applied) = found.and_then(Applied::read) else {
        db.roll_back().await;
        return false;
    };
    let settled = leases.settled(&all, &applied);
    answer_each(calls, settled);
    true
}

/// Runs all calls together; if that fails, one by one, so that each caller gets its own result.
pub(super) async fn run(transaction: &mut Transaction<'_>, calls: &mut [SettleCall]) -> Result<(), Failure> {
    let all: Vec<&Row> = calls.iter().flat_map(|call| &call.rows).collect();
    if let Ok(settled) = settle_call(transaction, &all).await? {
        answer_each(calls, settled);
        return Ok(());
    }
    for call in calls {
        let own: Vec<&Row> = call.rows.iter().collect();
        call.done = settle_call(transaction, &own).await?;
    }
    Ok(())
}

fn answer_each(calls: &mut [SettleCall], settled: Vec<SettleOutcome>) {
    let mut settled = settled.into_iter();
    for call in calls {
        call.done = Ok(settled.by_ref().take(call.rows.len()).collect());
    }
}

async fn settle_call(
    transaction: &mut Transaction<'_>,
    rows: &[&Row],
) -> Result<Result<Vec<SettleOutcome>, StoreError>, Failure> {
    let result = settle(transaction.begin_call(), rows).await;
    transaction.end_call(result).await
}

async fn settle(db: &mut Db, rows: &[&Row]) -> Result<Vec<SettleOutcome>, Failure> {
    let leases = Leases::from_rows(rows);
    let mut applied = Applied::default();
    for chunk in leases.first.chunks(rows::PER_STATEMENT) {
        applied.add(db.fetch_all(write(chunk)).await?)?;
    }
    order_keys::advance(db, applied.freed.drain(..)).await?;
    let done = leases.first.iter().filter(|row| applied.states.contains_key(&row.lease()));
    write_follow_ups(db, done.flat_map(|row| &row.follow_ups).collect()).await?;
    Ok(leases.settled(rows, &applied))
}

/// Leases of settlements.
///
/// Of several settlements under one lease the first counts, and the job's newest token fits one lease only.
struct Leases<'r> {
    first: Vec<&'r Row>,
    /// Whether each settlement is the first under its lease.
    is_first: Vec<bool>,
}

impl<'r> Leases<'r> {
    fn from_rows(rows: &[&'r Row]) -> Self {
        let mut leases = HashSet::new();
        let is_first: Vec<bool> = rows.iter().map(|row| leases.insert(row.lease())).collect();
        let first = rows.iter().zip(&is_first).filter(|(_, first)| **first).map(|(row, _)| *row).collect();
        Self { first, is_first }
    }

    /// Returns the outcome of each settlement.
    fn settled(&self, rows: &[&Row], applied: &Applied) -> Vec<SettleOutcome> {
        let settled = |(row, first): (&&Row, &bool)| match applied.states.get(&row.lease()) {
            Some(state) if *first => SettleOutcome::Applied(*state),
            _ => SettleOutcome::LeaseLost,
        };
        rows.iter().zip(&self.is_first).map(settled).collect()
    }
}

/// Result of [`SETTLE`].
#[derive(Default)]
struct Applied {
    /// Leases that were valid, with the new states of their jobs.
    states: HashMap<(JobId, Token), State>,
    /// Order keys of jobs that have ended, with their groups.
    freed: Vec<(i64, String)>,
}

impl Applied {
    fn read(found: Vec<SqliteRow>) -> Result<Self, Failure> {
        let mut applied = Self::default();
        applied.add(found)?;
        Ok(applied)
    }

    fn add(&mut self, found: Vec<SqliteRow>) -> Result<(), Failure> {
        for row in &found {
            let state: State = row.word("state")?;
            if state.is_final() {
                self.freed.extend(decode::order_key(row)?);
            }
            self.states.insert(decode::lease(row)?, state);
        }
        Ok(())
    }
}

/// Returns the message that writes settlements with their attempts: two statements, where the parameters of the second begin after all of the
/// first.
fn write<'q>(rows: &[&'q Row]) -> Statement<'q> {
    let (count, settle) = (rows.len(), SETTLE.with_rows(rows.len()));
    if rows.iter().all(|row| row.detail.is_none()) {
        return bind_settlements(sqlx::query(AssertSqlSafe(settle)), rows);
    }
    let query = sqlx::query(AssertSqlSafe(format!("{}; {settle}", PUT_ATTEMPTS.with_rows(count))));
    let query = rows.iter().fold(query, |query, row| bind_attempt(query, row));
    bind_settlements(with_nulls(query, PUT_ATTEMPTS.padding(count)), rows)
}

/// Binds an attempt; without one, a row that the statement ignores.
fn bind_attempt<'q>(query: Statement<'q>, row: &'q Row) -> Statement<'q> {
    let Some((attempt, detail)) = row.settlement.attempt.as_ref().zip(row.detail.as_ref()) else {
        return with_nulls(query, PUT_ATTEMPTS.columns);
    };
    query
        .bind(rows::id(row.settlement.id))
        .bind(row.settlement.token.0)
        .bind(attempt.number)
        .bind(attempt.started_at.0)
        .bind(attempt.finished_at.0)
        .bind(attempt.outcome.as_str())
        .bind(attempt.status)
        .bind(detail.as_str())
        .bind(attempt.response_body.as_ref())
}

fn bind_settlements<'q>(mut query: Statement<'q>, rows: &[&'q Row]) -> Statement<'q> {
    for Row { settlement, .. } in rows {
        let (state, run_at) = match settlement.next() {
            Next::Scheduled(at) => (State::Scheduled, Some(at.0)),
            Next::Final(state) => (state, None),
        };
        let attempt = settlement.attempt.as_ref();
        query = query
            .bind(rows::id(settlement.id))
            .bind(settlement.token.0)
            .bind(settlement.at.0)
            .bind(state.as_str())
            .bind(run_at)
            .bind(settlement.spent())
            .bind(attempt.is_some())
            .bind(attempt.and_then(|attempt| attempt.status))
            .bind(settlement.error_code());
    }
    query
}

/// Stores the follow-up jobs whose groups accept them.
async fn write_follow_ups(db: &mut Db, jobs: Vec<&job_rows::Row>) -> Result<(), Failure> {
    if jobs.is_empty() {
        return Ok(());
    }
    let live = job_rows::live_groups(db, jobs.iter().copied()).await?;
    job_rows::write(db, &live.follow_ups(jobs)).await
}
