//! The end of a lease: settlements, with their attempts and the jobs that follow.

use std::collections::{HashMap, HashSet};

use sqlx::AssertSqlSafe;
use tokio::sync::oneshot;

use super::db::Db;
use super::error::Failure;
use super::rows::{self, Sql};
use super::transaction::Transaction;
use super::{job_rows, order};
use crate::job::{JobId, Next, Settlement, State, Token};
use crate::store::documents::to_json;
use crate::store::{Settled, StoreError};

/// The `+` keeps SQLite from walking all running jobs in the index `job_lease` instead of looking up those in the list.
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

pub(super) const PUT_ATTEMPTS: Sql = Sql {
    columns: 8,
    text: "
    INSERT INTO attempt (job, number, started_at, finished_at, outcome, status, detail, response_body)
    SELECT column1, column2, column3, column4, column5, column6, column7, column8
    FROM (VALUES {rows}) WHERE column1 IS NOT NULL
    ON CONFLICT (job, number) DO UPDATE SET
        started_at = excluded.started_at, finished_at = excluded.finished_at, outcome = excluded.outcome,
        status = excluded.status, detail = excluded.detail, response_body = excluded.response_body",
};

/// A settlement, with its documents already written as JSON: the caller does that, not the writer.
pub(super) struct Row {
    settlement: Settlement,
    detail: Option<String>,
    follow_ups: Vec<job_rows::Row>,
}

/// Makes the rows, in the caller's task.
pub(super) fn rows(settlements: Vec<Settlement>) -> Result<Vec<Row>, StoreError> {
    let detail = |settlement: &Settlement| settlement.attempt.as_ref().map(|it| to_json(&it.detail)).transpose();
    let row = |mut settlement: Settlement| {
        let follow_ups = job_rows::rows(std::mem::take(&mut settlement.follow_ups))?;
        Ok(Row { detail: detail(&settlement)?, follow_ups, settlement })
    };
    settlements.into_iter().map(row).collect()
}

/// One caller's settlements.
pub(super) struct SettleCall {
    rows: Vec<Row>,
    done: Result<Vec<Settled>, StoreError>,
    reply: oneshot::Sender<Result<Vec<Settled>, StoreError>>,
}

impl SettleCall {
    pub(super) fn new(rows: Vec<Row>, reply: oneshot::Sender<Result<Vec<Settled>, StoreError>>) -> Self {
        Self { rows, done: Ok(Vec::new()), reply }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Tells the caller.
    pub(super) fn answer(self, committed: Result<(), StoreError>) {
        // A caller that has gone away does not want the answer.
        let _ = self.reply.send(committed.and(self.done));
    }
}

/// Runs all calls together; if that fails, one by one, so that each caller gets its own answer.
pub(super) async fn run(transaction: &mut Transaction<'_>, calls: &mut [SettleCall]) -> Result<(), Failure> {
    let all: Vec<&Row> = calls.iter().flat_map(|call| &call.rows).collect();
    if let Ok(settled) = settle_call(transaction, &all).await? {
        let mut settled = settled.into_iter();
        for call in calls {
            call.done = Ok(settled.by_ref().take(call.rows.len()).collect());
        }
        return Ok(());
    }
    for call in calls {
        let own: Vec<&Row> = call.rows.iter().collect();
        call.done = settle_call(transaction, &own).await?;
    }
    Ok(())
}

async fn settle_call(
    transaction: &mut Transaction<'_>,
    rows: &[&Row],
) -> Result<Result<Vec<Settled>, StoreError>, Failure> {
    let result = settle(transaction.begin_call(), rows).await;
    transaction.end_call(result).await
}

async fn settle(db: &mut Db, rows: &[&Row]) -> Result<Vec<Settled>, Failure> {
    // Of several settlements under one lease the first counts, and the job's newest token fits one lease only.
    let mut leases = HashSet::new();
    let firsts: Vec<bool> = rows.iter().map(|row| leases.insert((row.settlement.id, row.settlement.token))).collect();
    let first = rows.iter().zip(&firsts).filter(|(_, first)| **first).map(|(row, _)| *row).collect::<Vec<_>>();

    let mut applied = HashMap::new();
    for chunk in first.chunks(rows::PER_STATEMENT) {
        write_settlements(db, chunk, &mut applied).await?;
    }
    let is_applied = |row: &&Row| applied.contains_key(&(row.settlement.id, row.settlement.token));
    let done: Vec<&Row> = first.into_iter().filter(is_applied).collect();
    let tried: Vec<&Row> = done.iter().copied().filter(|row| row.detail.is_some()).collect();
    for chunk in tried.chunks(rows::PER_STATEMENT) {
        write_attempts(db, chunk).await?;
    }
    write_follow_ups(db, done.iter().flat_map(|row| &row.follow_ups).collect()).await?;
    let settled = |(row, first): (&&Row, bool)| match applied.get(&(row.settlement.id, row.settlement.token)) {
        Some(state) if first => Settled::Applied(*state),
        _ => Settled::LeaseLost,
    };
    Ok(rows.iter().zip(firsts).map(settled).collect())
}

async fn write_settlements(
    db: &mut Db,
    rows: &[&Row],
    applied: &mut HashMap<(JobId, Token), State>,
) -> Result<(), Failure> {
    let mut query = sqlx::query(AssertSqlSafe(SETTLE.with_rows(rows.len())));
    for Row { settlement, .. } in rows {
        let (state, run_at) = match settlement.next() {
            Next::Scheduled(at) => (State::Scheduled, Some(at.0)),
            Next::Final(state) => (state, None),
        };
        let attempt = settlement.attempt.as_ref();
        let spent = attempt.filter(|_| settlement.spends()).map(|attempt| attempt.number);
        let error = attempt.and_then(|attempt| attempt.detail.error.as_ref());
        query = query
            .bind(rows::id(settlement.id))
            .bind(settlement.token.0)
            .bind(settlement.at.0)
            .bind(state.as_str())
            .bind(run_at)
            .bind(spent)
            .bind(attempt.is_some())
            .bind(attempt.and_then(|attempt| attempt.status))
            .bind(error.map(|error| error.code.as_str()));
    }
    let mut freed = Vec::new();
    for row in db.fetch_all(query).await? {
        let state: State = rows::word(&row, "state")?;
        if state.is_final() {
            freed.extend(rows::order_key(&row)?);
        }
        applied.insert((rows::job_id(&row, "id")?, rows::token(&row)?), state);
    }
    order::advance(db, freed.into_iter()).await
}

/// Stores the jobs that follow. The end of the job before them must not fail because their group has gone.
async fn write_follow_ups(db: &mut Db, jobs: Vec<&job_rows::Row>) -> Result<(), Failure> {
    if jobs.is_empty() {
        return Ok(());
    }
    let live = job_rows::live_groups(db, jobs.iter().copied()).await?;
    let (stored, left): (Vec<&job_rows::Row>, Vec<_>) =
        jobs.into_iter().partition(|row| live.contains(&(row.job.group.0, row.job.tenant.0)));
    if !left.is_empty() {
        tracing::error!(jobs = left.len(), "jobs that were to follow others are lost: their group was deleted");
    }
    job_rows::write(db, &stored).await
}

async fn write_attempts(db: &mut Db, rows: &[&Row]) -> Result<(), Failure> {
    let mut query = sqlx::query(AssertSqlSafe(PUT_ATTEMPTS.with_rows(rows.len())));
    for Row { settlement, detail, .. } in rows {
        if let (Some(attempt), Some(detail)) = (&settlement.attempt, detail) {
            query = query
                .bind(rows::id(settlement.id))
                .bind(attempt.number)
                .bind(attempt.started_at.0)
                .bind(attempt.finished_at.0)
                .bind(attempt.outcome.as_str())
                .bind(attempt.status)
                .bind(detail.as_str())
                .bind(attempt.response_body.as_ref());
        }
    }
    db.execute(query).await?;
    Ok(())
}
