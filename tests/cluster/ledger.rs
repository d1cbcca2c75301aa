//! Compares the books: what producers were promised, what the nodes wrote down, what the receiver saw, and what the database saw of leases.
//!
//! - Every job that was accepted has ended, once. No attempt is missing: their numbers have no gaps, each that was answered has one arrival
//!   with that answer, and each arrival has an attempt. None arrived before its time. ([`crate::support::crash::ledger`])
//! - A job arrives again after a success only if an attempt of it is recorded as interrupted. A trigger in the database, which the nodes know
//!   nothing of, writes down every lease that one node takes from another, with the time of the database: there is one for
//!   each interrupted attempt, and each had ended by then.

use crate::support::Cluster;
use crate::support::crash::ledger;
use crate::support::crash::process::Client;
use crate::support::crash::receiver::Arrival;

use super::load::{Made, Refusals};
use super::{DATABASE, GROUP, MAX_ATTEMPTS, NAMES};

/// Who holds which lease is known by the user of the database, so each node has one. All act for the owner of the tables.
pub fn prepare(postgres: &Cluster) {
    postgres.sql("postgres", "CREATE ROLE owner");
    postgres.create(DATABASE, None);
    postgres.sql("postgres", &format!("ALTER DATABASE {DATABASE} OWNER TO owner"));
    for name in NAMES {
        postgres
            .sql("postgres", &format!("CREATE ROLE {name} LOGIN IN ROLE owner; ALTER ROLE {name} SET role = 'owner'"));
    }
}

/// `seen_at` is the database's time, rounded up as nothing else is: a lease that has ended by it has ended.
const WATCH: &str = "
    CREATE SCHEMA ledger;
    CREATE TABLE ledger.lease (
        job UUID, token BIGINT, node TEXT, since TIMESTAMPTZ DEFAULT clock_timestamp(), PRIMARY KEY (job, token));
    CREATE TABLE ledger.taken (job UUID, token BIGINT, lease_until BIGINT, seen_at BIGINT);
    CREATE FUNCTION ledger.note() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO ledger.lease (job, token, node) VALUES (NEW.id, NEW.token, session_user);
            IF OLD.state = 'running' THEN
                INSERT INTO ledger.taken
                VALUES (OLD.id, OLD.token, OLD.lease_until, ceil(extract(epoch FROM clock_timestamp()) * 1000));
            END IF;
            RETURN NULL;
        END $$;
    CREATE TRIGGER note AFTER UPDATE ON job FOR EACH ROW
        WHEN (NEW.state = 'running' AND NEW.token <> OLD.token) EXECUTE FUNCTION ledger.note()";

/// Lets the database write down who takes which lease.
pub fn watch(postgres: &Cluster) {
    postgres.sql(DATABASE, WATCH);
}

/// Leases that were taken before they had ended.
const TOO_SOON: &str = "SELECT count(*) FROM ledger.taken WHERE seen_at < lease_until";

/// Interrupted attempts, as JSON in the database says, without a lease that ended.
const UNFOUNDED: &str = "
    SELECT count(*) FROM (
        SELECT job, count(*) AS times FROM attempt
        WHERE detail::JSONB -> 'error' ->> 'code' = 'attempt.interrupted' GROUP BY job) AS interrupted
    LEFT JOIN (SELECT job, count(*) AS times FROM ledger.taken GROUP BY job) AS taken USING (job)
    WHERE taken.times IS NULL OR taken.times < interrupted.times";

fn count(postgres: &Cluster, sql: &str) -> usize {
    let counted = tokio::task::block_in_place(|| postgres.sql(DATABASE, sql));
    counted.parse().unwrap_or_else(|error| panic!("{error}: {counted}: {sql}"))
}

/// The leases that a node holds.
pub fn held(postgres: &Cluster, node: &str) -> usize {
    held_and(postgres, node, "TRUE")
}

/// The leases that a node has held for so long that it waits for the receiver: it knows of them, and is not just settling them.
pub fn at_work(postgres: &Cluster, node: &str) -> usize {
    held_and(postgres, node, "lease.since < clock_timestamp() - INTERVAL '500 ms'")
}

fn held_and(postgres: &Cluster, node: &str, condition: &str) -> usize {
    let sql = format!(
        "SELECT count(*) FROM job JOIN ledger.lease ON lease.job = job.id AND lease.token = job.token
        WHERE job.state = 'running' AND lease.node = '{node}' AND {condition}"
    );
    count(postgres, &sql)
}

/// The leases that a node has had.
pub fn leases(postgres: &Cluster, node: &str) -> usize {
    count(postgres, &format!("SELECT count(*) FROM ledger.lease WHERE node = '{node}'"))
}

/// The leases of a node that others have taken.
pub fn lost(postgres: &Cluster, node: &str) -> usize {
    let sql = format!("SELECT count(*) FROM ledger.taken JOIN ledger.lease USING (job, token) WHERE node = '{node}'");
    count(postgres, &sql)
}

/// What the books say.
pub struct Ended {
    /// Attempts that were recorded as interrupted.
    pub interrupted: usize,
    /// Leases that ended and were taken by another.
    pub taken: usize,
    /// What became of requests that were not answered with 201.
    pub refusals: Refusals,
}

/// Compares the books when all jobs have ended.
pub async fn check(postgres: &Cluster, client: &Client, made: Made, arrivals: &[Arrival]) -> Ended {
    let other: Vec<_> = made.refusals.answered.iter().filter(|(status, _)| *status != 503).collect();
    assert!(other.is_empty(), "a request that cannot be served is answered with 503: {other:?}");
    let interrupted = ledger::check(client, GROUP, &made.promises, arrivals, MAX_ATTEMPTS).await;
    let count = |sql: &str| count(postgres, sql);
    assert_eq!(count(TOO_SOON), 0, "a lease was taken before it had ended");
    assert_eq!(count(UNFOUNDED), 0, "an attempt was interrupted whose lease had not ended");
    let taken = count("SELECT count(*) FROM ledger.taken");
    assert!(interrupted <= taken, "{interrupted} attempts were interrupted, {taken} leases had ended");
    let (jobs, refused, broken) = (made.promises.len(), made.refusals.answered.len(), made.refusals.broken.len());
    let arrivals = arrivals.len();
    eprintln!(
        "{jobs} jobs, {arrivals} arrivals, {interrupted} attempts interrupted, {taken} leases taken over, \
        {refused} requests refused, {broken} broken off"
    );
    Ended { interrupted, taken, refusals: made.refusals }
}
