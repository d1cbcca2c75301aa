//! Settlements: the end of leases, with the attempts and the follow-up jobs.
//!
//! The rows are locked in the order of their ids before anything is decided, so that two nodes never deadlock, and a concurrent cancel is
//! either seen or comes later.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::archive::{self, Ended};
use super::batch::Shared;
use super::error::Failure;
use super::{job_rows, order_keys};
use carillon_core::clock::UnixMs;
use carillon_core::job::{JobId, Next, Settlement, State, Token};
use carillon_store::decode::{self, Columns as _};
use carillon_store::documents::attempt_detail;
use carillon_store::{SettleOutcome, StoreError};

/// Selects and locks unfinished jobs, leased or not: a condition on leased ones could make PostgreSQL scan all leased jobs.
pub(super) const LOCK: &str = "
    SELECT id, state, token, cancel_requested, grp, order_key FROM job WHERE id = ANY($1) ORDER BY id FOR UPDATE";

pub(super) const PUT_BACK: &str = "
    UPDATE job SET
        state         = 'scheduled',
        run_at        = back.run_at,
        lease_until   = NULL,
        attempt_count = coalesce(back.spent, attempt_count),
        last_status   = CASE WHEN back.tried THEN back.status ELSE last_status END,
        last_error    = CASE WHEN back.tried THEN back.error ELSE last_error END
    FROM UNNEST($1::UUID[], $2::BIGINT[], $3::BIGINT[], $4::BOOLEAN[], $5::BIGINT[], $6::TEXT[])
        AS back (id, run_at, spent, tried, status, error)
    WHERE job.id = back.id AND job.id = ANY ($1)";

pub(super) const PUT_ATTEMPTS: &str = "
    INSERT INTO attempt (job, number, started_at, finished_at, outcome, status, detail, response_body)
    SELECT * FROM UNNEST(
        $1::UUID[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::TEXT[], $6::BIGINT[], $7::TEXT[], $8::BYTEA[])
    ON CONFLICT (job, number) DO UPDATE SET
        started_at = excluded.started_at, finished_at = excluded.finished_at, outcome = excluded.outcome,
        status = excluded.status, detail = excluded.detail, response_body = excluded.response_body";

/// A settlement with its documents already encoded as JSON.
pub(super) struct Row {
    settlement: Settlement,
    detail: Option<String>,
    follow_ups: Vec<job_rows::Row>,
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
pub(super) struct Settle(pub(super) Vec<Row>);

/// Result of one caller's settlements.
pub(super) struct Done {
    pub(super) settled: Vec<SettleOutcome>,
    /// Whether jobs may now be claimed that were due long ago.
    pub(super) lets_others_go: bool,
}

#[async_trait]
impl Shared for Settle {
    type Done = Done;

    fn rows(&self) -> usize {
        self.0.len()
    }

    async fn run(db: &mut PgConnection, calls: &[&Self]) -> Result<Vec<Result<Done, StoreError>>, Failure> {
        let rows: Vec<&Row> = calls.iter().flat_map(|call| &call.0).collect();
        let Done { settled, lets_others_go } = settle(db, &rows).await?;
        let mut settled = settled.into_iter();
        let mut of = |call: &&Self| Done { settled: settled.by_ref().take(call.0.len()).collect(), lets_others_go };
        Ok(calls.iter().map(|call| Ok(of(call))).collect())
    }
}

/// State of a lease's job, as it was found.
struct Lease {
    cancel_requested: bool,
    order_key: Option<(i64, String)>,
}

/// Next step of a settlement's job.
enum Step {
    Back(UnixMs),
    End(State),
}

async fn settle(db: &mut PgConnection, rows: &[&Row]) -> Result<Done, Failure> {
    let mut leases = locked(db, rows).await?;
    let mut settled = Vec::with_capacity(rows.len());
    let (mut ended, mut back, mut freed, mut applied) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        // Of several settlements under one lease the first counts: it removes the lease from the map.
        let id = row.settlement.id;
        let own = (id, row.settlement.token);
        let Some(lease) = leases.remove(&own) else {
            settled.push(SettleOutcome::LeaseLost);
            continue;
        };
        applied.push(*row);
        match step(&row.settlement, lease.cancel_requested) {
            Step::Back(at) => {
                back.push((*row, at));
                settled.push(SettleOutcome::Applied(State::Scheduled));
            }
            Step::End(state) => {
                let spent = spent(&row.settlement);
                ended.push(Ended { id, state, at: row.settlement.at, spent, tried: tried(&row.settlement) });
                freed.extend(lease.order_key);
                settled.push(SettleOutcome::Applied(state));
            }
        }
    }
    archive::finish(db, &ended).await?;
    put_back(db, &back).await?;
    put_attempts(db, &applied).await?;
    write_follow_ups(db, applied.iter().flat_map(|row| &row.follow_ups).collect()).await?;
    // A job that was released unchanged keeps its old `run_at`.
    let lets_others_go = !freed.is_empty() || back.iter().any(|(row, at)| *at <= row.settlement.at);
    order_keys::advance(db, freed.into_iter()).await?;
    Ok(Done { settled, lets_others_go })
}

/// Returns the leases that are the newest of their jobs.
async fn locked(db: &mut PgConnection, rows: &[&Row]) -> Result<HashMap<(JobId, Token), Lease>, Failure> {
    let ids: HashSet<Uuid> = rows.iter().map(|row| row.settlement.id.0).collect();
    let mut leases = HashMap::new();
    for row in &sqlx::query(LOCK).bind(ids.into_iter().collect::<Vec<_>>()).fetch_all(db).await? {
        let lease = Lease { cancel_requested: row.bool("cancel_requested")?, order_key: decode::order_key(row)? };
        if row.word::<State>("state")? == State::Running {
            leases.insert(decode::lease(row)?, lease);
        }
    }
    Ok(leases)
}

/// Returns the job's next step: a job with a requested cancel is not put back.
fn step(settlement: &Settlement, cancel_requested: bool) -> Step {
    match settlement.next() {
        Next::Scheduled(_) if cancel_requested => Step::End(State::Cancelled),
        Next::Scheduled(at) => Step::Back(at),
        Next::Final(state) => Step::End(state),
    }
}

/// Returns the new number of spent attempts, if the settlement spends one.
fn spent(settlement: &Settlement) -> Option<i64> {
    settlement.spent().map(i64::from)
}

/// Returns the status and the error of the attempt, if one was made or tried.
///
/// PostgreSQL cannot store texts with the character zero.
fn tried(settlement: &Settlement) -> Option<(Option<i64>, Option<String>)> {
    settlement.attempt.as_ref().map(|attempt| {
        let error = settlement.error_code().map(|code| code.replace('\0', "\u{fffd}"));
        (attempt.status.map(i64::from), error)
    })
}

async fn put_back(db: &mut PgConnection, back: &[(&Row, UnixMs)]) -> Result<(), Failure> {
    if back.is_empty() {
        return Ok(());
    }
    let tried = |row: &Row| tried(&row.settlement).unwrap_or_default();
    let query = sqlx::query(PUT_BACK)
        .bind(back.iter().map(|(row, _)| row.settlement.id.0).collect::<Vec<Uuid>>())
        .bind(back.iter().map(|(_, at)| at.0).collect::<Vec<i64>>())
        .bind(back.iter().map(|(row, _)| spent(&row.settlement)).collect::<Vec<_>>())
        .bind(back.iter().map(|(row, _)| row.settlement.attempt.is_some()).collect::<Vec<bool>>())
        .bind(back.iter().map(|(row, _)| tried(row).0).collect::<Vec<_>>())
        .bind(back.iter().map(|(row, _)| tried(row).1).collect::<Vec<_>>());
    query.execute(db).await?;
    Ok(())
}

async fn put_attempts(db: &mut PgConnection, rows: &[&Row]) -> Result<(), Failure> {
    let attempt = |row: &&&'_ Row| row.detail.is_some();
    let rows: Vec<&Row> = rows.iter().filter(attempt).copied().collect();
    let attempts: Vec<_> = rows.iter().filter_map(|row| row.settlement.attempt.as_ref()).collect();
    if attempts.is_empty() {
        return Ok(());
    }
    let query = sqlx::query(PUT_ATTEMPTS)
        .bind(rows.iter().map(|row| row.settlement.id.0).collect::<Vec<Uuid>>())
        .bind(attempts.iter().map(|it| i64::from(it.number)).collect::<Vec<i64>>())
        .bind(attempts.iter().map(|it| it.started_at.0).collect::<Vec<i64>>())
        .bind(attempts.iter().map(|it| it.finished_at.0).collect::<Vec<i64>>())
        .bind(attempts.iter().map(|it| it.outcome.as_str()).collect::<Vec<_>>())
        .bind(attempts.iter().map(|it| it.status.map(i64::from)).collect::<Vec<_>>())
        .bind(rows.iter().filter_map(|row| row.detail.as_deref()).collect::<Vec<_>>())
        .bind(attempts.iter().map(|it| it.response_body.as_ref()).collect::<Vec<&[u8]>>());
    query.execute(db).await?;
    Ok(())
}

/// Stores the follow-up jobs whose groups accept them.
async fn write_follow_ups(db: &mut PgConnection, jobs: Vec<&job_rows::Row>) -> Result<(), Failure> {
    if jobs.is_empty() {
        return Ok(());
    }
    let live = job_rows::live_groups(db, jobs.iter().copied()).await?;
    job_rows::write(db, &live.follow_ups(jobs)).await
}
