//! Plan tests of the statements whose cost must not grow with the number of jobs.

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::rows::{self, Sql};
use super::{
    SqliteOptions, admit, audit, catalog, change, claim, debounce, deleted_tenants, job_rows, open, order_keys,
    producer_keys, prune, reads, settle, sizes, ticks,
};
use carillon_core::job::State;
use carillon_store::NameFilter;

async fn plan(db: &mut SqliteConnection, sql: &str) -> Vec<String> {
    let explain = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")));
    explain.fetch_all(db).await.unwrap().iter().map(|row| row.get::<String, _>("detail")).collect()
}

/// A statement's name, its forms, and the parts that each of their plans must contain.
type Case = (&'static str, Vec<String>, &'static [&'static str]);

/// Returns the forms for a short and for a long list of rows: SQLite knows the length and may plan differently.
fn both(sql: &Sql) -> Vec<String> {
    [1, rows::PER_STATEMENT].map(|count| sql.with_rows(count)).into()
}

fn one(sql: &str) -> Vec<String> {
    vec![sql.to_owned()]
}

const BY_ID: &str = "SEARCH job USING PRIMARY KEY (id=?)";
const DUE: &str = "SEARCH job USING COVERING INDEX job_due (lane=? AND run_at<?)";
const PAGE: &str = "SEARCH job USING INDEX job_state (grp=? AND state=? AND id<?)";
const OF_KEY: &str = "job_order (grp=? AND order_key=? AND blocked=?)";

fn writes() -> Vec<Case> {
    let claims = [1, claim::GROUPS_PER_STATEMENT].map(claim::claim_due_sql).into();
    let claims_of_owed = [1, claim::GROUPS_PER_STATEMENT].map(claim::claim_owed_sql).into();
    vec![
        ("insert jobs", both(&job_rows::INSERT_JOBS), &[]),
        ("insert specs", both(&job_rows::INSERT_SPECS), &[]),
        ("live groups", one(job_rows::LIVE_GROUPS), &["SEARCH entity USING INTEGER PRIMARY KEY (rowid=?)"]),
        ("claim due", claims, &[BY_ID, DUE]),
        ("claim owed", claims_of_owed, &[BY_ID, DUE]),
        ("claim lost", both(&claim::CLAIM_LOST), &[BY_ID]),
        ("excuse", both(&claim::EXCUSE), &[BY_ID]),
        ("claim overdue", one(claim::CLAIM_OVERDUE), &[BY_ID, "INDEX job_expiry (expires_at<?)"]),
        (
            "history",
            both(&claim::HISTORY),
            &["SEARCH attempt USING INDEX sqlite_autoindex_attempt_1 (job=? AND number>?"],
        ),
        ("extend", both(&claim::EXTEND), &[BY_ID]),
        ("settle", both(&settle::SETTLE), &[BY_ID]),
        ("put attempts", both(&settle::PUT_ATTEMPTS), &[BY_ID]),
        ("advance", one(order_keys::ADVANCE), &[BY_ID, OF_KEY]),
        ("recall", one(producer_keys::RECALL), &["INDEX sqlite_autoindex_recent_1 (tenant=? AND kind=? AND key=?)"]),
        ("remember", one(producer_keys::REMEMBER), &[]),
        ("carry", one(debounce::CARRY), &[BY_ID]),
        ("tick", one(admit::TICK), &["SEARCH tick USING PRIMARY KEY (schedule=? AND at=?)"]),
        ("runs", one(admit::RUNS), &["SEARCH ticked USING INTEGER PRIMARY KEY"]),
        ("unfinished of schedule", one(admit::UNFINISHED_OF_SCHEDULE), &["INDEX job_schedule (schedule=?)"]),
        ("cancel of schedule", one(admit::CANCEL_OF_SCHEDULE), &["INDEX job_schedule (schedule=?)"]),
        ("put tick", one(ticks::PUT_TICK), &[]),
        ("put ticked", one(ticks::PUT_TICKED), &[]),
        ("last tick", one(ticks::LAST), &["SEARCH ticked USING INTEGER PRIMARY KEY"]),
        (
            "ticked of",
            one(ticks::TICKED_OF),
            &["SEARCH ticked USING INTEGER PRIMARY KEY", "SEARCH tick USING PRIMARY KEY (schedule=? AND at=?)"],
        ),
        ("cancel of name", one(admit::CANCEL_OF_NAME), &["INDEX job_name (grp=? AND name=?)"]),
        ("unname later", one(admit::UNNAME_LATER), &["INDEX job_name (grp=? AND name=? AND id>?)"]),
        ("cancel", both(&change::CANCEL), &[BY_ID]),
        ("withdraw", both(&change::WITHDRAW), &[BY_ID]),
        ("reschedule", both(&change::RESCHEDULE), &[BY_ID]),
        ("redrive", both(&change::REDRIVE), &[BY_ID]),
        ("purge", both(&change::PURGE), &[BY_ID]),
        ("edit", one(change::EDIT), &[BY_ID]),
        ("prune finished", one(prune::PRUNE_FINISHED), &[BY_ID, "INDEX job_finished (state=? AND finished_at<?)"]),
        (
            "prune deleted groups",
            one(prune::PRUNE_DELETED_GROUPS),
            &["INDEX entity_deleted", "INDEX job_state (grp=?)"],
        ),
        ("forget empty groups", one(prune::FORGET_EMPTY_GROUPS), &["INDEX entity_deleted", "INDEX job_state (grp=?)"]),
        (
            "entities of deleted tenants",
            one(deleted_tenants::OWNED),
            &["INDEX entity_deleted", "INDEX entity_name (tenant=?)"],
        ),
        (
            "records of deleted tenants",
            one(deleted_tenants::FORGET_RECENT),
            &["INDEX entity_deleted", "INDEX sqlite_autoindex_recent_1 (tenant=?)"],
        ),
        (
            "forget deleted tenants",
            one(deleted_tenants::FORGET_TENANTS),
            &["INDEX entity_deleted", "INDEX entity_name (tenant=?)", "INDEX sqlite_autoindex_recent_1 (tenant=?)"],
        ),
        ("is deleted", one(catalog::IS_DELETED), &["SEARCH entity USING INTEGER PRIMARY KEY (rowid=?)"]),
        ("prune recent", one(prune::PRUNE_RECENT), &["INDEX recent_expiry (expires_at<?)"]),
        ("prune ticks", one(prune::PRUNE_TICKS), &["SEARCH tick USING PRIMARY KEY (schedule=? AND at<?)"]),
        (
            "prune ticks of deleted",
            one(prune::PRUNE_TICKS_OF_DELETED),
            &["SEARCH tick USING PRIMARY KEY (schedule>?)", "SEARCH tick USING PRIMARY KEY (schedule=?)"],
        ),
        ("prune audit", one(prune::PRUNE_AUDIT), &["SEARCH audit USING PRIMARY KEY (id=?)", "INDEX audit_age (at<?)"]),
        ("unfinished", one(catalog::UNFINISHED), &["COVERING INDEX job_state (grp=? AND state=?)"]),
        ("end leases", one(open::END_LEASES), &["INDEX job_lease (lease_until>?)"]),
    ]
}

fn reads() -> Vec<Case> {
    vec![
        ("waiting", one(reads::WAITING), &["COVERING INDEX job_due (lane>?)", "COVERING INDEX job_due (lane=?)"]),
        ("job", one(reads::JOB), &[BY_ID, "SEARCH job_spec USING INDEX"]),
        ("body", one(reads::BODY), &[BY_ID, "SEARCH job_spec USING INDEX"]),
        ("aborts", one(claim::ABORTS), &["INDEX job_abort"]),
        ("ending leases", one(claim::ENDING), &["INDEX job_lease (lease_until<?)"]),
        ("held", one(claim::HELD), &[BY_ID]),
        ("sizes of jobs", both(&sizes::JOBS), &["SEARCH job_spec USING INDEX sqlite_autoindex_job_spec_1 (job=?)"]),
        (
            "sizes of attempts",
            both(&sizes::ATTEMPTS),
            &["SEARCH attempt USING INDEX sqlite_autoindex_attempt_1 (job=?)"],
        ),
        ("jobs", vec![reads::jobs_sql(&State::ALL, NameFilter::Any)], &[PAGE, BY_ID]),
        ("jobs in state", vec![reads::jobs_sql(&[State::Dead], NameFilter::Any)], &[PAGE, BY_ID]),
        (
            "jobs of name",
            vec![reads::jobs_sql(&State::ALL, NameFilter::Exact)],
            &["INDEX job_name (grp=? AND name=? AND id<?)", BY_ID],
        ),
        (
            "newest of names",
            one(reads::NEWEST_OF_NAMES),
            &["COVERING INDEX job_name (grp=? AND name>? AND name<?)", BY_ID],
        ),
        ("attempts", one(reads::ATTEMPTS), &[BY_ID, "INDEX sqlite_autoindex_attempt_1 (job=? AND number>?)"]),
        ("ticks", one(ticks::TICKS), &["SEARCH tick USING PRIMARY KEY (schedule=? AND at>? AND at<?)"]),
        ("audit", one(audit::PAGE), &["SEARCH audit USING PRIMARY KEY (id<?)"]),
        ("audit of tenant", one(audit::PAGE_OF_TENANT), &["INDEX audit_tenant (tenant=? AND id<?)"]),
        ("audit chain", one(audit::CHAIN), &["INDEX audit_place"]),
        ("stats", one(reads::STATS), &["COVERING INDEX job_state (grp=?)", DUE]),
    ]
}

/// Indexes that are only as long as there are deleted groups, and attempts that are being cut off.
const SHORT: [&str; 2] = ["INDEX entity_deleted", "INDEX job_abort"];

/// Returns whether a step reads a table or an index from end to end, or sorts.
fn is_expensive(step: &str) -> bool {
    let table = step.strip_prefix("SCAN ").and_then(|rest| rest.split(' ').next());
    let walks = matches!(table, Some("job" | "job_spec" | "attempt" | "entity" | "audit"))
        && !SHORT.iter().any(|index| step.contains(index));
    walks || step.contains("TEMP B-TREE") || step.contains("AUTOMATIC")
}

#[tokio::test]
async fn hot_statements_use_their_index() {
    let directory = tempfile::tempdir().unwrap();
    let mut db = open::open(&SqliteOptions::new(directory.path().join("test.db"))).await.unwrap().writer;
    let mut faults = Vec::new();
    for (name, forms, wanted) in writes().into_iter().chain(reads()) {
        for sql in forms {
            let plan = plan(&mut db, &sql).await;
            let missing = wanted.iter().filter(|wanted| !plan.iter().any(|step| step.contains(**wanted)));
            let text = plan.join("\n  ");
            faults.extend(missing.map(|missing| format!("{name}: does not `{missing}` but\n  {text}")));
            faults.extend(
                plan.iter().filter(|step| is_expensive(step)).map(|step| format!("{name}: `{step}` in\n  {text}")),
            );
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test]
async fn a_page_over_all_groups_reads_the_index_of_each() {
    let directory = tempfile::tempdir().unwrap();
    let mut db = open::open(&SqliteOptions::new(directory.path().join("test.db"))).await.unwrap().writer;
    for (sql, index) in [
        (reads::jobs_of_tenant_sql(&State::ALL, NameFilter::Any), PAGE),
        (reads::jobs_of_tenant_sql(&[State::Dead], NameFilter::Any), PAGE),
        (reads::jobs_of_tenant_sql(&State::ALL, NameFilter::Exact), "INDEX job_name (grp=? AND name=? AND id<?)"),
    ] {
        let plan = plan(&mut db, &sql).await;
        for wanted in ["INDEX entity_name (tenant=? AND kind=?)", index, BY_ID] {
            assert!(plan.iter().any(|step| step.contains(wanted)), "{wanted}: {plan:#?}");
        }
        // The sorted rows are a page of each group.
        let is_walk =
            |step: &String| ["SCAN job", "SCAN entity", "SCAN groups"].iter().any(|scan| step.starts_with(scan));
        assert!(!plan.iter().any(is_walk), "{plan:#?}");
    }
}
