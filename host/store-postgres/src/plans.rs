//! Plan tests of the statements whose cost must not grow with the number of jobs, in a database with some jobs.

use super::tests::{Cluster, Fresh, cluster};
use super::{
    admit, archive, audit, change, claim, debounce, deleted_tenants, job_rows, lists, open, order_keys, producer_keys,
    prune, reads, settle, ticks,
};
use carillon_core::job::State;
use carillon_store::NameFilter;

/// Fills the database with jobs in all states, spread over groups, and with rows that a statement finds by a scan if it does not use an
/// index.
const FILL: &str = "
    INSERT INTO entity (tenant, kind, name, version, doc, created_at, updated_at)
        SELECT 1, 'group', 'g' || n, 1, '{}', 0, 0 FROM generate_series(1, 50) AS n;
    INSERT INTO job (id, tenant, grp, lane, run_at, state, blocked, lease_until, seed, created_at, deadline, schedule, name, order_key)
        SELECT gen_random_uuid(), 1, n % 50 + 1, (n % 50 + 1) * 20 + n % 10, n, CASE WHEN n % 20 = 0 THEN 'running' ELSE 'scheduled' END,
            n % 10 = 1, CASE WHEN n % 20 = 0 THEN n END, 1, 0, CASE WHEN n % 7 = 0 THEN n END, CASE WHEN n % 9 = 0 THEN n END,
            'name' || n % 500, CASE WHEN n % 10 = 1 THEN 'key' || n % 100 END
        FROM generate_series(1, 20000) AS n;
    INSERT INTO job_done (id, tenant, grp, lane, run_at, state, finished_at, cancel_requested, token, attempt_count, attempt_base, revision,
        seed, created_at, name)
        SELECT gen_random_uuid(), 1, n % 50 + 1, 25, n, (ARRAY['succeeded', 'dead', 'expired', 'cancelled'])[n % 4 + 1], n, FALSE, 1, 1, 0, 0,
            1, 0, 'name' || n % 500
        FROM generate_series(1, 20000) AS n;
    INSERT INTO job_spec (job, spec, body) SELECT id, '{}', ''::BYTEA FROM job UNION ALL SELECT id, '{}', '' FROM job_done;
    INSERT INTO attempt SELECT id, 1, 0, 0, 'success', 200, '{}', ''::BYTEA FROM job_done;
    INSERT INTO recent SELECT 1, 'dedupe', 'key' || n, n, NULL::UUID, '{}' FROM generate_series(1, 20000) AS n;
    INSERT INTO tick SELECT n % 100, n, NULL::UUID FROM generate_series(1, 20000) AS n;
    INSERT INTO audit SELECT gen_random_uuid(), n, 'node', n, n % 50, 'actor', 'key.put', 'key', NULL, '', '', '{}'
        FROM generate_series(1, 20000) AS n;
    INSERT INTO ticked SELECT n, 0, 0 FROM generate_series(0, 99) AS n;
    ANALYZE";

/// Ids are spread over the whole range, and so are the partitions.
fn partitions() -> String {
    let tables = ["job_done", "job_spec", "attempt"];
    let partition = |table, from: u8| {
        let (first, last) = (from * 32, if from == 7 { 0xff } else { (from + 1) * 32 });
        let [first, last] = [first, last].map(|byte| format!("'{byte:02x}000000-0000-0000-0000-000000000000'"));
        format!("CREATE TABLE {table}_{from} PARTITION OF {table} FOR VALUES FROM ({first}) TO ({last});")
    };
    tables.iter().flat_map(|table| (0..8).map(move |from| partition(table, from))).collect()
}

fn statements() -> Vec<(&'static str, String)> {
    let constants = [
        ("insert", job_rows::INSERT),
        ("live groups", job_rows::LIVE_GROUPS),
        ("claim due", claim::CLAIM_DUE),
        ("claim owed", claim::CLAIM_OWED),
        ("claim overdue", claim::CLAIM_OVERDUE),
        ("claim lost", claim::CLAIM_LOST),
        ("ending leases", claim::ENDING),
        ("abort", ticks::ABORT),
        ("excuse", claim::EXCUSE),
        ("held", claim::HELD),
        ("specs", claim::SPECS),
        ("history", claim::HISTORY),
        ("extend", claim::EXTEND),
        ("lock of settlements", settle::LOCK),
        ("put back", settle::PUT_BACK),
        ("put attempts", settle::PUT_ATTEMPTS),
        ("finish", archive::FINISH),
        ("request cancel", archive::REQUEST_CANCEL),
        ("advance", order_keys::ADVANCE),
        ("recall", producer_keys::RECALL),
        ("remember", producer_keys::REMEMBER),
        ("of name", admit::OF_NAME),
        ("unname later", admit::UNNAME_LATER),
        ("lock of a debounced job", debounce::LOCK),
        ("carry", debounce::CARRY),
        ("tick", ticks::TICK),
        ("unfinished of schedule", ticks::UNFINISHED),
        ("of schedule", ticks::OF_SCHEDULE),
        ("put tick", ticks::PUT_TICK),
        ("last tick", ticks::LAST),
        ("ticked of", ticks::TICKED_OF),
        ("ticks", ticks::TICKS),
        ("lock of changes", change::LOCK),
        ("reschedule", change::RESCHEDULE),
        ("redrive", change::REDRIVE),
        ("purge", change::PURGE),
        ("edit", change::EDIT),
        ("edit spec", change::EDIT_SPEC),
        ("states", change::STATES),
        ("prune finished", prune::PRUNE_FINISHED),
        ("prune deleted groups", prune::PRUNE_DELETED_GROUPS),
        ("prune redriven", prune::PRUNE_REDRIVEN_IN_DELETED_GROUPS),
        ("prune recent", prune::PRUNE_RECENT),
        ("records of deleted tenants", deleted_tenants::FORGET_RECENT),
        ("prune ticks", prune::PRUNE_TICKS),
        ("prune ticks of deleted", prune::PRUNE_TICKS_OF_DELETED),
        ("prune audit", prune::PRUNE_AUDIT),
        ("audit", audit::PAGE),
        ("audit of tenant", audit::PAGE_OF_TENANT),
        ("audit chain", audit::CHAIN),
        ("waiting", reads::WAITING),
        ("waiting in lanes", reads::WAITING_IN),
        ("job", reads::JOB),
        ("body", reads::BODY),
        ("attempts", reads::ATTEMPTS),
        ("sizes of jobs", reads::JOB_BYTES),
        ("stats", reads::STATS),
        ("newest of names", lists::NEWEST_OF_NAMES),
    ];
    let mut statements: Vec<_> = constants.into_iter().map(|(name, sql)| (name, sql.to_owned())).collect();
    statements.push(("jobs", lists::jobs_sql(&State::ALL, NameFilter::Any)));
    statements.push(("jobs in state", lists::jobs_sql(&[State::Dead], NameFilter::Any)));
    statements.push(("jobs of name", lists::jobs_sql(&State::ALL, NameFilter::Exact)));
    statements.push(("jobs of tenant", lists::jobs_of_tenant_sql(&State::ALL, NameFilter::Any)));
    statements.push(("jobs of tenant in state", lists::jobs_of_tenant_sql(&[State::Dead], NameFilter::Any)));
    statements
}

/// Returns the generic plan, for any values of the parameters.
fn explain(sql: &str) -> String {
    let parameters = (1..).take_while(|n| sql.contains(&format!("${n}"))).count();
    let nulls = match parameters {
        0 => String::new(),
        count => format!("({})", vec!["NULL"; count].join(", ")),
    };
    format!(
        "{}; SET plan_cache_mode = force_generic_plan; PREPARE it AS {sql}; EXPLAIN (COSTS OFF) EXECUTE it{nulls}",
        open::SESSION
    )
}

/// Returns whether a step reads a table of jobs without a condition on where to begin.
fn is_expensive(step: &str, condition: Option<&&str>) -> bool {
    // In the plan, a partition's name is followed by a number.
    let reads = ["job", "job_done_", "job_spec_", "attempt_", "recent", "tick", "audit"].iter().any(|table| {
        if table.ends_with('_') {
            step.contains(&format!(" on {table}"))
        } else {
            step.contains(&format!(" on {table} ")) || step.ends_with(&format!(" on {table}"))
        }
    });
    let scans = step.contains("Scan") && reads;
    scans && !condition.is_some_and(|condition| condition.trim_start().starts_with("Index Cond"))
}

#[test]
fn hot_statements_use_their_index() {
    let cluster = cluster();
    let (_, database) = Fresh::new(&cluster).url();
    cluster.sql(&database, &partitions());
    cluster.sql(&database, FILL);
    assert_walks(&cluster, &database, |_| true);
    // The queue was empty when the statistics were gathered, as it often is.
    cluster.sql(&database, "TRUNCATE job, attempt");
    cluster.sql(&database, "VACUUM ANALYZE job, attempt");
    let often = [
        "claim due",
        "claim owed",
        "history",
        "lock of settlements",
        "put back",
        "finish",
        "specs",
        "waiting in lanes",
        "extend",
        "ending leases",
        "claim lost",
        "prune finished",
    ];
    assert_walks(&cluster, &database, |name| often.contains(&name));
}

fn assert_walks(cluster: &Cluster, database: &str, are_meant: impl Fn(&str) -> bool) {
    let mut faults = Vec::new();
    for (name, sql) in statements().into_iter().filter(|(name, _)| are_meant(name)) {
        let plan = cluster.sql(database, &explain(&sql));
        let steps: Vec<&str> = plan.lines().collect();
        for (at, step) in steps.iter().enumerate() {
            if is_expensive(step, steps.get(at + 1)) || step.contains("Hash Join") || step.contains("Merge Join") {
                faults.push(format!("{name}: `{}` in\n{plan}", step.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
