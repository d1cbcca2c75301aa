//! The plans of the statements whose cost must not grow with the number of jobs.

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::{SqliteOptions, catalog, claim, insert, open, reads, settle};

async fn plan(db: &mut SqliteConnection, sql: &str) -> Vec<String> {
    let explain = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")));
    explain.fetch_all(db).await.unwrap().iter().map(|row| row.get::<String, _>("detail")).collect()
}

/// A statement, what its plan must name, and the scans that it may have beyond those of its own list of rows.
type Case<'a> = (&'a str, String, &'a [&'a str], &'a [&'a str]);

#[tokio::test]
async fn hot_statements_use_their_index() {
    let directory = tempfile::tempdir().unwrap();
    let opened = open::open(&SqliteOptions::new(directory.path().join("test.db"))).await.unwrap();
    let mut db = opened.writer;
    let due = "SEARCH job USING COVERING INDEX job_due (grp=? AND run_at<?)";
    let by_id = "SEARCH job USING PRIMARY KEY (id=?)";
    let cases: [Case; 19] = [
        ("insert jobs", insert::INSERT_JOBS.with_rows(4), &[], &[]),
        ("insert specs", insert::INSERT_SPECS.with_rows(4), &[], &[]),
        ("live groups", insert::LIVE_GROUPS.to_owned(), &["SEARCH entity USING INTEGER PRIMARY KEY (rowid=?)"], &[]),
        ("claim due", claim::claim_due_sql(3), &[by_id, due], &[]),
        ("claim expired", claim::CLAIM_EXPIRED.to_owned(), &[by_id, "INDEX job_lease (lease_until<?)"], &[]),
        (
            "history",
            claim::HISTORY.with_rows(4),
            &["INDEX sqlite_autoindex_attempt_1 (job=? AND number>? AND number<?)"],
            &[],
        ),
        ("extend", claim::EXTEND.with_rows(4), &[by_id], &[]),
        ("settle", settle::SETTLE.with_rows(4), &[by_id], &[]),
        ("put attempts", settle::PUT_ATTEMPTS.with_rows(4), &[], &[]),
        ("cancel", settle::CANCEL.to_owned(), &[by_id], &[]),
        ("prune finished", settle::PRUNE_FINISHED.to_owned(), &["INDEX job_finished (state=? AND finished_at<?)"], &[]),
        (
            "prune deleted groups",
            settle::PRUNE_DELETED_GROUPS.to_owned(),
            &["INDEX job_state (grp=?)"],
            &["SCAN entity USING COVERING INDEX entity_deleted"],
        ),
        ("unfinished", catalog::UNFINISHED.to_owned(), &["COVERING INDEX job_state (grp=? AND state=?)"], &[]),
        ("end leases", open::END_LEASES.to_owned(), &["INDEX job_lease (lease_until>?)"], &[]),
        (
            "waiting",
            reads::WAITING.to_owned(),
            &["COVERING INDEX job_due (grp>?)", "COVERING INDEX job_due (grp=?)"],
            &["SCAN waiting"],
        ),
        ("jobs", reads::JOBS.to_owned(), &["COVERING INDEX job_state (grp=? AND state=? AND id<?)"], &["SCAN page"]),
        (
            "jobs in state",
            reads::JOBS_IN_STATE.to_owned(),
            &["COVERING INDEX job_state (grp=? AND state=? AND id<?)"],
            &["SCAN page"],
        ),
        (
            "jobs of name",
            reads::JOBS_OF_NAME.to_owned(),
            &["INDEX job_name (grp=? AND name=? AND id<?)"],
            &["SCAN page"],
        ),
        ("stats", reads::STATS.to_owned(), &["COVERING INDEX job_state (grp=?)", due], &[]),
    ];
    let mut faults = Vec::new();
    for (name, sql, wanted, allowed) in cases {
        let plan = plan(&mut db, &sql).await;
        let missing = wanted.iter().filter(|wanted| !plan.iter().any(|step| step.contains(**wanted)));
        let is_own_list = |step: &str| step.contains("CONSTANT ROW") || step.starts_with("SCAN json_each");
        let is_scan = |step: &&String| {
            (step.starts_with("SCAN") || step.contains("TEMP B-TREE"))
                && !is_own_list(step)
                && !allowed.contains(&step.as_str())
        };
        faults.extend(missing.map(|missing| format!("{name}: does not do {missing}\n  {}", plan.join("\n  "))));
        faults.extend(plan.iter().filter(is_scan).map(|step| format!("{name}: {step}\n  {}", plan.join("\n  "))));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
