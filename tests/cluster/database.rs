//! What happens to the database: it is restarted, lost, overloaded, and hangs up on everybody.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::{DATABASE, GROUP, NAMES, SHORT, World};
use crate::support::{Cluster, Stop, eventually, soon};

/// How often everybody is disconnected.
const HANG_UPS: usize = 5;

/// Requests at once that need the database: more than a node has connections.
const CROWD: usize = 40;

/// Bound that refuses reads of a tenant that take too long, or wait too long for its other ones.
const READS: &str = "store.reads";

/// The most connections of the server that runs out of them, and who takes them all.
const FEW: &str = "max_connections=60";
const HOG: &str = "hog";

impl World {
    /// Waits until jobs are refused that are made from now on.
    async fn refuses(&self) {
        let before = self.load.refused();
        eventually("jobs are refused", async || self.load.refused(), |now| *now > before).await;
    }

    async fn recovers(&self) {
        for node in &self.nodes {
            node.until_ready().await;
        }
        self.work_goes_on().await;
    }
}

/// How many places are left for those who are not superusers.
const FREE: &str = "SELECT current_setting('max_connections')::bigint
    - current_setting('superuser_reserved_connections')::bigint - count(*)
    FROM pg_stat_activity WHERE backend_type = 'client backend'";

/// Asks about the connections of nodes.
fn of_nodes(what: &str) -> String {
    format!("SELECT {what} FROM pg_stat_activity WHERE usename IN ('{}')", NAMES.join("', '"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_restarted_has_lost_nothing() {
    let mut world = World::start(&SHORT).await;
    for how in [Stop::Fast, Stop::Immediate] {
        tokio::task::block_in_place(|| world.postgres.stop(how));
        world.refuses().await;
        tokio::task::block_in_place(|| world.postgres.resume());
        world.recovers().await;
    }
    world.settle_accounts().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_are_made_anew() {
    let world = World::start(&SHORT).await;
    for _ in 0..HANG_UPS {
        let cut = world.sql(&of_nodes("count(pg_terminate_backend(pid))"));
        assert_ne!(cut, "0", "nodes are connected");
        world.work_goes_on().await;
    }
    world.settle_accounts().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_reads_are_stuck_answers_and_goes_on() {
    let world = World::start(&SHORT).await;
    let mut other = PgConnection::connect(&world.postgres.url(DATABASE)).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE job").execute(&mut other).await.unwrap();
    let stats = format!("/v1/groups/{GROUP}/stats");
    let client = world.nodes[0].client();
    let crowd = (0..CROWD).map(|_| client.send(reqwest::Method::GET, &stats, Vec::new()));
    let answers = futures_util::future::join_all(crowd).await;
    let counted: Vec<_> = answers.iter().filter(|(status, _)| status.as_u16() != 503).collect();
    assert!(counted.is_empty(), "nobody can count what is locked: {counted:?}");
    assert!(format!("{answers:?}").contains(READS), "reads of one tenant wait for each other: {answers:?}");
    world.refuses().await;

    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    world.recovers().await;
    world.settle_accounts().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_connections_is_waited_for() {
    let postgres = tokio::task::block_in_place(|| Cluster::listening(&[FEW]));
    let world = World::on(postgres, &SHORT, |_, port| vec![port]).await;
    world.sql(&format!("CREATE ROLE {HOG} LOGIN"));
    let url = format!("postgres://{HOG}@127.0.0.1:{}/{DATABASE}", world.postgres.port());
    // Whoever is about to be refused has a place for a moment: so this one is kept.
    let mut observer = PgConnection::connect(&world.postgres.url(DATABASE)).await.unwrap();
    let mut count =
        async |query: &str| -> i64 { sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut observer).await.unwrap() };
    let mut taken = Vec::new();
    // And a place from which somebody is being refused is free a moment later.
    let take_all = async {
        while count(&of_nodes("count(*)")).await != 0 || count(FREE).await > 0 {
            count(&of_nodes("count(pg_terminate_backend(pid))")).await;
            while let Ok(connection) = PgConnection::connect(&url).await {
                taken.push(connection);
            }
        }
    };
    soon("all places are taken", take_all).await;
    world.refuses().await;
    for node in &world.nodes {
        let readiness = async || node.readiness().await;
        eventually("a node says that it is not ready", readiness, |status| *status == Some(503)).await;
    }

    drop(taken);
    world.recovers().await;
    world.settle_accounts().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over_and_knows_every_accepted_job() {
    let (primary, standby) = tokio::task::block_in_place(|| {
        let primary = Cluster::listening(&[]);
        let standby = primary.standby();
        (primary, standby)
    });
    let other = standby.port();
    // Nodes need not name the primary first.
    let ports = |name: &str, port| if name == NAMES[1] { vec![other, port] } else { vec![port, other] };
    let mut world = World::on(primary, &SHORT, ports).await;
    tokio::task::block_in_place(|| {
        world.postgres.stop(Stop::Immediate);
        standby.promote();
        world.postgres = standby;
    });
    world.recovers().await;
    world.settle_accounts().await;
}
