//! Leases: taking and extending them.
//!
//! A claim skips rows that another node is just taking (`SKIP LOCKED`), so claims never wait for each other. The further rows of a job are
//! read by a separate statement, after the job's row is locked: the claiming statement sees all other rows as they were when it began, and a
//! job may have been edited since.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::error::Failure;
use super::transaction::Verb;
use carillon_core::clock::UnixMs;
use carillon_core::job::{GroupId, JobId, Lease, TenantId, Token};
use carillon_store::decode::{self, Columns as _, leased};
use carillon_store::unreadable::Claimed;
use carillon_store::{Abort, ClaimDue, ClaimLost, ClaimOverdue, Extension, StoreError, lane};

/// Claims each group's quota: lane after lane, each in the order of the index `job_due` from its watermark on.
///
/// A lane is read only if the lanes before it have not filled the quota.
pub(super) const CLAIM_DUE: &str = "
    WITH due AS MATERIALIZED (
        SELECT picked.id FROM UNNEST($1::BIGINT[], $2::BIGINT[]) WITH ORDINALITY AS quota (lane, most, number)
        CROSS JOIN LATERAL (
            SELECT in_lane.id FROM generate_series(0, 9) AS level (number)
            CROSS JOIN LATERAL (
                SELECT job.id FROM job
                WHERE job.lane = quota.lane + level.number AND state = 'scheduled' AND NOT blocked
                    AND run_at >= ($5::BIGINT[])[(quota.number - 1) * 10 + level.number + 1] AND run_at <= $3
                ORDER BY run_at, id LIMIT quota.most FOR UPDATE SKIP LOCKED
            ) AS in_lane
            LIMIT quota.most
        ) AS picked
    )
    UPDATE job SET state = 'running', token = token + 1, lease_until = $4
    WHERE id = ANY (ARRAY (SELECT due.id FROM due))
    RETURNING job.*";

/// Claims each lane's quota, from the lane's watermark on.
pub(super) const CLAIM_OWED: &str = "
    WITH due AS MATERIALIZED (
        SELECT picked.id FROM UNNEST($1::BIGINT[], $2::BIGINT[], $5::BIGINT[]) AS owed (lane, most, front)
        CROSS JOIN LATERAL (
            SELECT job.id FROM job
            WHERE job.lane = owed.lane AND state = 'scheduled' AND NOT blocked AND run_at >= owed.front AND run_at <= $3
            ORDER BY run_at, id LIMIT owed.most FOR UPDATE SKIP LOCKED
        ) AS picked
    )
    UPDATE job SET state = 'running', token = token + 1, lease_until = $4
    WHERE id = ANY (ARRAY (SELECT due.id FROM due))
    RETURNING job.*";

pub(super) const CLAIM_OVERDUE: &str = "
    WITH overdue AS MATERIALIZED (
        SELECT id FROM job WHERE state = 'scheduled' AND expires_at >= $4 AND expires_at < $1
        ORDER BY expires_at LIMIT $3 FOR UPDATE SKIP LOCKED
    )
    UPDATE job SET state = 'running', token = token + 1, lease_until = $2
    WHERE id = ANY (ARRAY (SELECT overdue.id FROM overdue))
    RETURNING job.*";

pub(super) const ENDING: &str = "
    SELECT id, token, lease_until FROM job WHERE lease_until >= $1 AND lease_until <= $2 ORDER BY lease_until LIMIT $3";

pub(super) const ABORTS: &str = "
    SELECT id, token, lane FROM job WHERE abort_requested AND state = 'running' ORDER BY id LIMIT $1";

/// Skips jobs that another node is just taking back or extending.
pub(super) const CLAIM_LOST: &str = "
    WITH found AS MATERIALIZED (
        SELECT id, token FROM job WHERE id = ANY ($1) AND lease_until <= $3 ORDER BY id FOR UPDATE SKIP LOCKED
    ), lost AS MATERIALIZED (
        SELECT found.id FROM found JOIN UNNEST($1::UUID[], $2::BIGINT[]) AS lease (id, token)
            ON (found.id, found.token) = (lease.id, lease.token)
    )
    UPDATE job SET token = token + 1, lease_until = $4, lost_leases = lost_leases + 1
    WHERE id = ANY (ARRAY (SELECT lost.id FROM lost))
    RETURNING job.*";

/// A job that has gone on under a newer lease, or has ended, needs no correction.
pub(super) const EXCUSE: &str = "
    WITH found AS MATERIALIZED (
        SELECT id, token FROM job WHERE id = ANY ($1) ORDER BY id FOR UPDATE
    ), lost AS MATERIALIZED (
        SELECT found.id FROM found JOIN UNNEST($1::UUID[], $2::BIGINT[]) AS lease (id, token)
            ON found.id = lease.id AND found.token > lease.token
    )
    UPDATE job SET lost_leases = lost_leases - 1 WHERE id = ANY (ARRAY (SELECT lost.id FROM lost)) AND lost_leases > 0";

pub(super) const HELD: &str = "
    SELECT * FROM job WHERE id = $1 AND tenant = $2 AND token = $3 AND state = 'running' AND lease_until > $4";

/// The `OFFSET` makes PostgreSQL look up one job after the other: each is in one partition, and the others are not read.
pub(super) const SPECS: &str = "
    SELECT found.job, found.spec, found.body FROM UNNEST($1::UUID[]) AS wanted (job)
    CROSS JOIN LATERAL (SELECT job, spec, body FROM job_spec WHERE job_spec.job = wanted.job OFFSET 0) AS found";

/// Selects the newest spent attempts of each job, given with the number of attempts that it has spent.
pub(super) const HISTORY: &str = "
    SELECT past.* FROM UNNEST($1::UUID[], $2::BIGINT[], $3::BIGINT[]) AS wanted (job, first, last)
    CROSS JOIN LATERAL (
        SELECT job, number, started_at, finished_at, outcome, status FROM attempt
        WHERE attempt.job = wanted.job AND number BETWEEN wanted.first AND wanted.last OFFSET 0) AS past";

/// Locks the rows in the order of the ids, as every other verb does.
pub(super) const EXTEND: &str = "
    WITH found AS MATERIALIZED (
        SELECT id, token, state FROM job WHERE id = ANY ($1) ORDER BY id FOR UPDATE
    ), ours AS MATERIALIZED (
        SELECT found.id FROM found JOIN UNNEST($1::UUID[], $2::BIGINT[]) AS lease (id, token)
            ON (found.id, found.token) = (lease.id, lease.token)
        WHERE found.state = 'running'
    )
    UPDATE job SET lease_until = CASE WHEN $4 THEN $3 ELSE GREATEST(lease_until, $3) END
    WHERE id = ANY (ARRAY (SELECT ours.id FROM ours))
    RETURNING job.id, job.token";

/// Rows of leased jobs, and further rows that belong to them.
#[derive(Default)]
pub(super) struct Rows {
    jobs: Vec<PgRow>,
    specs: Vec<PgRow>,
    history: Vec<PgRow>,
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }
}

/// A claim with its watermarks: for each group those of its ten lanes, and for each owed priority that of its lane.
pub(super) struct ClaimFrom {
    pub(super) claim: ClaimDue,
    pub(super) fronts: Vec<i64>,
    pub(super) fronts_of_owed: Vec<i64>,
}

impl ClaimFrom {
    async fn claim_owed(&self, db: &mut PgConnection) -> Result<Vec<PgRow>, Failure> {
        let ClaimDue { due_by, lease_until, mode, owed, .. } = &self.claim;
        if owed.is_empty() {
            return Ok(Vec::new());
        }
        let lanes: Vec<i64> = owed.iter().map(|owed| lane::owed(owed, *mode)).collect();
        let most: Vec<i64> = owed.iter().map(|owed| i64::from(owed.count)).collect();
        let query = sqlx::query(CLAIM_OWED).bind(lanes).bind(most).bind(due_by.0).bind(lease_until.0);
        Ok(query.bind(&self.fronts_of_owed).fetch_all(db).await?)
    }
}

#[async_trait]
impl Verb for ClaimFrom {
    type Done = Rows;

    async fn run(&self, db: &mut PgConnection) -> Result<Rows, Failure> {
        let ClaimDue { due_by, lease_until, mode, quotas, .. } = &self.claim;
        let mut jobs = self.claim_owed(&mut *db).await?;
        let groups = jobs.iter().map(|row| Ok(GroupId(row.try_get("grp")?))).collect::<Result<Vec<_>, Failure>>()?;
        let quotas = lane::left(quotas, groups.into_iter());
        let lanes: Vec<i64> = quotas.iter().map(|(group, _)| lane::first(*group, *mode)).collect();
        let most: Vec<i64> = quotas.iter().map(|(_, quota)| i64::from(*quota)).collect();
        let query = sqlx::query(CLAIM_DUE).bind(lanes).bind(most).bind(due_by.0).bind(lease_until.0).bind(&self.fronts);
        jobs.extend(query.fetch_all(&mut *db).await?);
        with_rest(jobs, db).await
    }
}

/// Leases jobs whose deadline has passed, from the watermark on.
pub(super) struct ClaimOverdueFrom {
    pub(super) front: UnixMs,
    pub(super) claim: ClaimOverdue,
}

#[async_trait]
impl Verb for ClaimOverdueFrom {
    type Done = Rows;

    async fn run(&self, db: &mut PgConnection) -> Result<Rows, Failure> {
        let ClaimOverdue { now, lease_until, limit } = self.claim;
        let query = sqlx::query(CLAIM_OVERDUE).bind(now.0).bind(lease_until.0);
        let query = query.bind(i64::from(limit)).bind(self.front.0);
        with_rest(query.fetch_all(&mut *db).await?, db).await
    }
}

/// Selects at most `limit` leases that end from `front` to `until`.
pub(super) struct Ending {
    pub(super) front: UnixMs,
    pub(super) until: UnixMs,
    pub(super) limit: u32,
}

#[async_trait]
impl Verb for Ending {
    type Done = Vec<(Lease, UnixMs)>;

    async fn run(&self, db: &mut PgConnection) -> Result<Self::Done, Failure> {
        let query = sqlx::query(ENDING).bind(self.front.0).bind(self.until.0).bind(i64::from(self.limit));
        query.fetch_all(db).await?.iter().map(leased::ending).collect()
    }
}

/// Selects at most this many leases whose attempts are to be cut off.
pub(super) struct Aborts(pub(super) u32);

#[async_trait]
impl Verb for Aborts {
    type Done = Vec<Abort>;

    async fn run(&self, db: &mut PgConnection) -> Result<Vec<Abort>, Failure> {
        sqlx::query(ABORTS).bind(i64::from(self.0)).fetch_all(db).await?.iter().map(leased::abort).collect()
    }
}

#[async_trait]
impl Verb for ClaimLost {
    type Done = Rows;

    async fn run(&self, db: &mut PgConnection) -> Result<Rows, Failure> {
        let (ids, tokens) = unzipped(&self.lost);
        let query = sqlx::query(CLAIM_LOST).bind(ids).bind(tokens).bind(self.ended_by.0).bind(self.lease_until.0);
        with_rest(query.fetch_all(&mut *db).await?, db).await
    }
}

/// Corrects `lost_leases` for leases that were lost although their holder was alive.
pub(super) struct Excuse(pub(super) Vec<Lease>);

#[async_trait]
impl Verb for Excuse {
    type Done = ();

    async fn run(&self, db: &mut PgConnection) -> Result<(), Failure> {
        let (ids, tokens) = unzipped(&self.0);
        sqlx::query(EXCUSE).bind(ids).bind(tokens).execute(db).await?;
        Ok(())
    }
}

/// Returns each lease once, as two lists.
fn unzipped(leases: &[Lease]) -> (Vec<Uuid>, Vec<i64>) {
    let leases: HashSet<Lease> = leases.iter().copied().collect();
    leases.into_iter().map(|(id, token)| (id.0, token.0)).unzip()
}

/// Selects the job under a lease.
pub(super) struct Held {
    pub(super) tenant: TenantId,
    pub(super) id: JobId,
    pub(super) token: Token,
    pub(super) now: UnixMs,
}

#[async_trait]
impl Verb for Held {
    type Done = Rows;

    async fn run(&self, db: &mut PgConnection) -> Result<Rows, Failure> {
        let query = sqlx::query(HELD).bind(self.id.0).bind(self.tenant.0).bind(self.token.0).bind(self.now.0);
        with_rest(query.fetch_all(&mut *db).await?, db).await
    }
}

/// Reads the further rows of leased jobs.
///
/// No other transaction writes them while the jobs are leased.
async fn with_rest(jobs: Vec<PgRow>, db: &mut PgConnection) -> Result<Rows, Failure> {
    if jobs.is_empty() {
        return Ok(Rows::default());
    }
    let (mut ids, mut spent, mut firsts, mut lasts) = (Vec::<Uuid>::new(), Vec::<Uuid>::new(), Vec::new(), Vec::new());
    for row in &jobs {
        let id = row.try_get("id")?;
        ids.push(id);
        if let Some((first, last)) = leased::history_range(row)? {
            spent.push(id);
            firsts.push(first);
            lasts.push(last);
        }
    }
    let specs = sqlx::query(SPECS).bind(ids).fetch_all(&mut *db).await?;
    let history = if spent.is_empty() {
        Vec::new()
    } else {
        sqlx::query(HISTORY).bind(spent).bind(firsts).bind(lasts).fetch_all(db).await?
    };
    Ok(Rows { jobs, specs, history })
}

/// Combines rows into leased jobs.
pub(super) fn claimed(rows: &Rows) -> Claimed {
    let specs: HashMap<JobId, &PgRow> =
        rows.specs.iter().filter_map(|row| Some((row.job_id("job").ok()?, row))).collect();
    leased::claimed(&rows.jobs, &rows.history, |row| {
        let missing = || StoreError::Corrupt("the job has no spec".to_owned());
        let rest = specs.get(&row.job_id("id")?).ok_or_else(missing)?;
        Ok((rest.document("spec")?, rest.bytes("body")?))
    })
}

/// Moves the end of leases.
pub(super) struct Extend {
    pub(super) leases: Vec<Lease>,
    pub(super) extension: Extension,
}

#[async_trait]
impl Verb for Extend {
    type Done = Vec<bool>;

    async fn run(&self, db: &mut PgConnection) -> Result<Vec<bool>, Failure> {
        let (ids, tokens) = unzipped(&self.leases);
        let mut ours: HashSet<Lease> = HashSet::with_capacity(ids.len());
        let (until, is_exact) = self.extension.parts();
        let query = sqlx::query(EXTEND).bind(ids).bind(tokens).bind(until.0).bind(is_exact);
        for row in &query.fetch_all(db).await? {
            ours.insert(decode::lease(row)?);
        }
        Ok(self.leases.iter().map(|lease| ours.contains(lease)).collect())
    }
}
