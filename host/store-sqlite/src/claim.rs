//! Leases: taking and extending them.
//!
//! The writer only finds and marks the jobs; their rows are read ([`leased::claimed`]) in the caller's task.

use std::collections::HashSet;

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::contents::{Contents, Reading};
use super::db::{Db, Statement};
use super::error::Failure;
use super::rows::{self, Sql};
use carillon_core::clock::UnixMs;
use carillon_core::job::{GroupId, JobId, Lease, TenantId, Token};
use carillon_store::decode::{self, Columns as _, leased};
use carillon_store::unreadable::Claimed;
use carillon_store::{Abort, ClaimDue, ClaimLost, ClaimOverdue, Extension, lane};

/// Largest number of groups that one statement claims from.
pub(super) const GROUPS_PER_STATEMENT: usize = 32;

/// Claims due jobs.
///
/// `{groups}` is [`DUE_IN_GROUP`] or [`DUE_IN_LANE`], once for each group or lane. Each of them reads at most its limit of entries from the
/// index `job_due`, lane after lane.
pub(super) const CLAIM_DUE: &str = "
    UPDATE job SET state = 'running', token = token + 1, lease_until = ?
    WHERE id IN ({groups})
    RETURNING *,
        (SELECT spec FROM job_spec WHERE job_spec.job = job.id) AS spec,
        (SELECT body FROM job_spec WHERE job_spec.job = job.id) AS body";

const DUE_IN_GROUP: &str = "
    SELECT * FROM (
        SELECT job.id FROM level CROSS JOIN job ON job.lane = ? + level.number
        WHERE state = 'scheduled' AND blocked = 0 AND run_at <= ?
        ORDER BY level.number, run_at, id LIMIT ?)";

const DUE_IN_LANE: &str = "
    SELECT * FROM (
        SELECT id FROM job WHERE lane = ? AND state = 'scheduled' AND blocked = 0 AND run_at <= ?
        ORDER BY run_at, id LIMIT ?)";

pub(super) const CLAIM_OVERDUE: &str = "
    UPDATE job SET state = 'running', token = token + 1, lease_until = ?
    WHERE id IN (SELECT id FROM job WHERE state = 'scheduled' AND expires_at < ? ORDER BY expires_at LIMIT ?)
    RETURNING *,
        (SELECT spec FROM job_spec WHERE job_spec.job = job.id) AS spec,
        (SELECT body FROM job_spec WHERE job_spec.job = job.id) AS body";

pub(super) const HELD: &str = "
    SELECT job.*, spec, body FROM job JOIN job_spec ON job_spec.job = job.id
    WHERE job.id = ?1 AND tenant = ?2 AND token = ?3 AND +state = 'running' AND lease_until > ?4";

pub(super) const ENDING: &str = "
    SELECT id, token, lease_until FROM job WHERE state = 'running' AND lease_until <= ?1 ORDER BY lease_until LIMIT ?2";

pub(super) const ABORTS: &str = "
    SELECT id, token, lane FROM job WHERE abort_requested = 1 AND state = 'running' ORDER BY id LIMIT ?1";

/// The `+` makes SQLite look up the jobs in the list instead of reading all running jobs from the index `job_lease`.
pub(super) const CLAIM_LOST: Sql = Sql {
    columns: 4,
    text: "
    UPDATE job SET token = job.token + 1, lease_until = lease.until, lost_leases = lost_leases + 1
    FROM (SELECT column1 AS id, column2 AS token, column3 AS now, column4 AS until FROM (VALUES {rows})) AS lease
    WHERE job.id = lease.id AND job.token = lease.token AND +job.state = 'running' AND +job.lease_until <= lease.now
    RETURNING *,
        (SELECT spec FROM job_spec WHERE job_spec.job = job.id) AS spec,
        (SELECT body FROM job_spec WHERE job_spec.job = job.id) AS body",
};

/// A job that has gone on under a newer lease, or has ended, needs no correction.
pub(super) const EXCUSE: Sql = Sql {
    columns: 2,
    text: "
    UPDATE job SET lost_leases = lost_leases - 1
    FROM (SELECT column1 AS id, column2 AS token FROM (VALUES {rows})) AS lease
    WHERE job.id = lease.id AND job.token > lease.token AND lost_leases > 0",
};

/// Selects the newest spent attempts of each job in the list, given with the number of attempts that it has spent.
pub(super) const HISTORY: Sql = Sql {
    columns: 3,
    text: "
    SELECT attempt.job, attempt.number, attempt.started_at, attempt.finished_at, attempt.outcome, attempt.status
    FROM (SELECT column1 AS job, column2 AS first, column3 AS last FROM (VALUES {rows})) AS wanted
    CROSS JOIN attempt ON attempt.job = wanted.job AND attempt.number BETWEEN wanted.first AND wanted.last",
};

/// The `+` makes SQLite look up the jobs in the list instead of reading all running jobs from the index `job_lease`.
pub(super) const EXTEND: Sql = Sql {
    columns: 4,
    text: "
    UPDATE job SET lease_until = CASE WHEN lease.exact THEN lease.until ELSE max(job.lease_until, lease.until) END
    FROM (
        SELECT column1 AS id, column2 AS token, column3 AS until, column4 AS exact FROM (VALUES {rows})) AS lease
    WHERE job.id = lease.id AND job.token = lease.token AND +job.state = 'running'
    RETURNING id, token",
};

/// Rows of leased jobs and of their earlier attempts.
#[derive(Default)]
pub(super) struct Rows {
    jobs: Vec<SqliteRow>,
    history: Vec<SqliteRow>,
    /// Requests and payloads, where they are not in the jobs' rows.
    contents: Option<Contents>,
}

/// Returns the statement that claims from at least `groups` groups.
pub(super) fn claim_due_sql(groups: usize) -> String {
    CLAIM_DUE.replace("{groups}", &vec![DUE_IN_GROUP; groups.next_power_of_two()].join(" UNION ALL "))
}

/// Returns the statement that claims from at least `lanes` lanes.
pub(super) fn claim_owed_sql(lanes: usize) -> String {
    CLAIM_DUE.replace("{groups}", &vec![DUE_IN_LANE; lanes.next_power_of_two()].join(" UNION ALL "))
}

pub(super) async fn claim_due(db: &mut Db, claim: ClaimDue, reading: Reading) -> Result<Rows, Failure> {
    let owed: Vec<(i64, u32)> = claim.owed.iter().map(|owed| (lane::owed(owed, claim.mode), owed.count)).collect();
    let mut found = Rows::default();
    claim_from(db, &claim, (claim_owed_sql, reading), &owed, &mut found).await?;
    let quotas = if found.jobs.is_empty() {
        claim.quotas.clone()
    } else {
        lane::left(&claim.quotas, groups_of(&found.jobs)?.into_iter())
    };
    let quotas: Vec<(i64, u32)> =
        quotas.into_iter().map(|(group, quota)| (lane::first(group, claim.mode), quota)).collect();
    claim_from(db, &claim, (claim_due_sql, reading), &quotas, &mut found).await?;
    add_history(db, &mut found, reading).await?;
    Ok(found)
}

/// Claims with this statement, from each lane alone, or from each lane on, at most its quota.
async fn claim_from(
    db: &mut Db,
    claim: &ClaimDue,
    (sql, reading): (fn(usize) -> String, Reading),
    lanes: &[(i64, u32)],
    found: &mut Rows,
) -> Result<(), Failure> {
    for lanes in lanes.chunks(GROUPS_PER_STATEMENT) {
        let mut query = sqlx::query(AssertSqlSafe(reading.statement(&sql(lanes.len())))).bind(claim.lease_until.0);
        // The list is padded with quotas of 0: a LIMIT may not be NULL.
        let padding = lanes.len().next_power_of_two() - lanes.len();
        for (lane, quota) in lanes.iter().copied().chain(vec![(0, 0); padding]) {
            query = query.bind(lane).bind(claim.due_by.0).bind(quota);
        }
        found.jobs.extend(db.fetch_all(query).await?);
    }
    Ok(())
}

fn groups_of(jobs: &[SqliteRow]) -> Result<Vec<GroupId>, Failure> {
    jobs.iter().map(|row| Ok(GroupId(row.try_get("grp")?))).collect()
}

pub(super) async fn claim_overdue(db: &mut Db, claim: ClaimOverdue, reading: Reading) -> Result<Rows, Failure> {
    let ClaimOverdue { now, lease_until, limit } = claim;
    let query = sqlx::query(AssertSqlSafe(reading.statement(CLAIM_OVERDUE)));
    let query = query.bind(lease_until.0).bind(now.0).bind(limit);
    let mut found = Rows { jobs: db.fetch_all(query).await?, ..Rows::default() };
    add_history(db, &mut found, reading).await?;
    Ok(found)
}

/// Returns the leases that end at `until` or before.
pub(super) async fn ending(
    reader: &mut SqliteConnection,
    until: UnixMs,
    limit: u32,
) -> Result<Vec<(Lease, UnixMs)>, Failure> {
    let found = sqlx::query(ENDING).bind(until.0).bind(limit).fetch_all(reader).await?;
    found.iter().map(leased::ending).collect()
}

pub(super) async fn aborts(reader: &mut SqliteConnection, limit: u32) -> Result<Vec<Abort>, Failure> {
    sqlx::query(ABORTS).bind(limit).fetch_all(reader).await?.iter().map(leased::abort).collect()
}

pub(super) async fn claim_lost(db: &mut Db, claim: ClaimLost, reading: Reading) -> Result<Rows, Failure> {
    let mut found = Rows::default();
    for chunk in claim.lost.chunks(rows::PER_STATEMENT) {
        let mut query = sqlx::query(AssertSqlSafe(reading.statement(&CLAIM_LOST.with_rows(chunk.len()))));
        for (id, token) in chunk {
            query = query.bind(rows::id(*id)).bind(token.0).bind(claim.ended_by.0).bind(claim.lease_until.0);
        }
        found.jobs.extend(db.fetch_all(query).await?);
    }
    add_history(db, &mut found, reading).await?;
    Ok(found)
}

pub(super) async fn excuse(db: &mut Db, lost: &[Lease]) -> Result<(), Failure> {
    for chunk in lost.chunks(rows::PER_STATEMENT) {
        let query = sqlx::query(AssertSqlSafe(EXCUSE.with_rows(chunk.len())));
        db.execute(chunk.iter().fold(query, |query, (id, token)| query.bind(rows::id(*id)).bind(token.0))).await?;
    }
    Ok(())
}

/// Returns the job under a lease.
pub(super) async fn held(
    reader: &mut SqliteConnection,
    tenant: TenantId,
    id: JobId,
    token: Token,
    now: UnixMs,
) -> Result<Rows, Failure> {
    let query = sqlx::query(HELD).bind(rows::id(id)).bind(tenant.0).bind(token.0).bind(now.0);
    let mut found = Rows { jobs: query.fetch_all(&mut *reader).await?, ..Rows::default() };
    for statement in history(&found.jobs)? {
        found.history.extend(statement.fetch_all(&mut *reader).await?);
    }
    Ok(found)
}

/// Adds the earlier attempts of the claimed jobs, unless [`read_apart`] does.
async fn add_history(db: &mut Db, found: &mut Rows, reading: Reading) -> Result<(), Failure> {
    if reading == Reading::Together {
        for statement in history(&found.jobs)? {
            found.history.extend(db.fetch_all(statement).await?);
        }
    }
    Ok(())
}

/// Reads the requests, payloads and earlier attempts of jobs that were claimed without them.
pub(super) async fn read_apart(reader: &mut SqliteConnection, found: &mut Rows) -> Result<(), Failure> {
    let mut contents = Contents::default();
    for job in &found.jobs {
        let earlier = history(std::slice::from_ref(job))?;
        found.history.extend(contents.read(reader, job, earlier).await?);
    }
    found.contents = Some(contents);
    Ok(())
}

/// Returns the statements that select the earlier attempts of these jobs.
fn history(jobs: &[SqliteRow]) -> Result<Vec<Statement<'static>>, Failure> {
    let mut wanted: Vec<(Vec<u8>, i64, i64)> = Vec::new();
    for row in jobs {
        if let Some((first, last)) = leased::history_range(row)? {
            wanted.push((row.try_get("id")?, first, last));
        }
    }
    let statement = |chunk: &[(Vec<u8>, i64, i64)]| {
        let query = sqlx::query(AssertSqlSafe(HISTORY.with_rows(chunk.len())));
        chunk.iter().fold(query, |query, (id, first, last)| query.bind(id.clone()).bind(*first).bind(*last))
    };
    Ok(wanted.chunks(rows::PER_STATEMENT).map(statement).collect())
}

/// Combines rows into leased jobs.
pub(super) fn claimed(rows: &Rows) -> Claimed {
    leased::claimed(&rows.jobs, &rows.history, |job| {
        let row = rows.contents.as_ref().map_or(Ok(job), |contents| contents.of(job))?;
        Ok((row.document("spec")?, row.bytes("body")?))
    })
}

pub(super) async fn extend(db: &mut Db, leases: &[Lease], extension: Extension) -> Result<Vec<bool>, Failure> {
    let (until, is_exact) = extension.parts();
    let mut ours: HashSet<Lease> = HashSet::with_capacity(leases.len());
    for chunk in leases.chunks(rows::PER_STATEMENT) {
        let mut query = sqlx::query(AssertSqlSafe(EXTEND.with_rows(chunk.len())));
        for (id, token) in chunk {
            query = query.bind(rows::id(*id)).bind(token.0).bind(until.0).bind(is_exact);
        }
        for row in db.fetch_all(query).await? {
            ours.insert(decode::lease(&row)?);
        }
    }
    Ok(leases.iter().map(|lease| ours.contains(lease)).collect())
}
