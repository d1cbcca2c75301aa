//! Cost of claims while another session holds a transaction open, so that vacuum can remove nothing that ended since.

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use super::scan_watermarks::Look;
use super::tests::{Fresh, cluster, runtime};
use super::{claim, open, reads};
use carillon_core::clock::UnixMs;
use carillon_core::job::{DispatchMode, Settlement};
use carillon_store::conformance;
use carillon_store::conformance::{NOW, an_attempt, ms};
use carillon_store::{Jobs as _, lane};

/// Number of rounds of deliveries meanwhile.
const ROUNDS: u64 = 60;
const JOBS: usize = 100;

/// Returns the number of buffers that a statement reads.
fn buffers(plan: &str) -> usize {
    let hits = plan.lines().find_map(|line| line.trim().strip_prefix("Buffers: shared hit=")).unwrap();
    hits.split(' ').next().unwrap().parse().unwrap()
}

fn explained(sql: &str, parameters: &[String]) -> String {
    let numbered = parameters.iter().enumerate().rev();
    let sql = numbered.fold(sql.to_owned(), |sql, (index, value)| sql.replace(&format!("${}", index + 1), value));
    format!("{}; EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) {sql}", open::SESSION)
}

fn array(numbers: &[i64]) -> String {
    format!("'{{{}}}'", numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(","))
}

#[test]
fn a_transaction_that_stays_open_does_not_slow_claims_down() {
    let cluster = cluster();
    let fresh = Fresh::new(&cluster);
    let runtime = runtime();
    let (url, database) = fresh.url();
    let (now, first, fronts, look) = runtime.block_on(async {
        let (world, store) = fresh.two_on(&url).await;
        let mut report = PgConnection::connect(&url).await.unwrap();
        sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM job")
            .execute(&mut report)
            .await
            .unwrap();
        // The node has made one scan from the beginning; the next one is a second or more away.
        store.waiting().await.unwrap();
        let mut now = NOW;
        for _ in 0..ROUNDS {
            now = now.plus(ms(500));
            store.insert((0..JOBS).map(|_| world.job(now)).collect::<Vec<_>>().into()).await.unwrap();
            let leased = conformance::claim(&*store, world.group, now, 1_000).await;
            assert_eq!(leased.len(), JOBS, "what is due is found");
            let settled = leased.iter().map(|leased| Settlement::succeeded(leased, now, an_attempt(leased, Some(200))));
            store.settle(settled.collect()).await.unwrap();
            store.waiting().await.unwrap();
        }
        let first = lane::first(world.group, DispatchMode::Push);
        std::mem::forget(report);
        (now, first, store.fronts.of(first), store.fronts.look())
    });
    let look = match look {
        Look::Lanes(lanes, from) => (lanes, from),
        // The round took so long that the next scan from the beginning is due: the known watermarks are still there.
        Look::Whole { .. } => ((first..first + 10).collect(), fronts.to_vec()),
    };
    let cost = |sql: &str| buffers(&cluster.sql(&database, sql));
    let claim = |fronts: &[i64]| {
        let parameters = [array(&[first]), array(&[100]), now.0.to_string(), UnixMs::MAX.0.to_string(), array(fronts)];
        cost(&explained(claim::CLAIM_DUE, &parameters))
    };
    let (whole, ahead) = (claim(&[i64::MIN; 10]), claim(&fronts));
    assert!(ahead * 5 < whole, "a claim looks at {ahead} buffers, and from the beginning at {whole}");
    let (whole, ahead) =
        (cost(&explained(reads::WAITING, &[])), cost(&explained(reads::WAITING_IN, &[array(&look.0), array(&look.1)])));
    assert!(ahead * 5 < whole, "a look looks at {ahead} buffers, and from the beginning at {whole}");
}
