//! Tests a node of this version on a database that a newer version has migrated meanwhile: tables have more columns than the node knows.

use std::time::Duration;

use uuid::Uuid;

use super::PostgresStore;
use super::tests::{Fresh, cluster, node, runtime};
use carillon_core::job::{Admission, NewJob, Settlement};
use carillon_store::conformance;
use carillon_store::conformance::{LEASE, NOW, World, an_attempt};
use carillon_store::{
    ChangeOutcome, Entities as _, Extension, Heartbeat, InsertOutcome, InsertResult, JobChange, Jobs as _, Kind,
    NodeRecord, Peers as _,
};

/// A migration that only adds.
const MIGRATE: &str = "
    ALTER TABLE entity ADD COLUMN later TEXT;
    ALTER TABLE job ADD COLUMN later TEXT NOT NULL DEFAULT 'x';
    ALTER TABLE job_done ADD COLUMN later TEXT;
    ALTER TABLE job_spec ADD COLUMN later TEXT;
    ALTER TABLE attempt ADD COLUMN later TEXT;
    ALTER TABLE recent ADD COLUMN later TEXT;
    ALTER TABLE node ADD COLUMN later TEXT;
    CREATE TABLE later (x TEXT);
    INSERT INTO _sqlx_migrations SELECT 9999, 'later', installed_on, TRUE, '\\x00', 0 FROM _sqlx_migrations LIMIT 1";

/// Uses each of the tables, on several connections.
async fn use_all(world: &World, store: &PostgresStore) {
    let once = |key: &str| Admission::Unique { key: key.to_owned(), window: LEASE };
    let key = world.job(NOW).id.to_string();
    let job = NewJob { admission: once(&key), ..world.job(NOW) };
    let InsertResult::Placed(placed) = store.insert(vec![job.clone()].into()).await.unwrap() else {
        panic!("replayed")
    };
    assert!(matches!(placed[..], [InsertOutcome::Stored { .. }]));
    assert_eq!(store.waiting().await.unwrap().len(), 1);
    let leased = conformance::claim(store, world.group, NOW, 10).await;
    assert_eq!(conformance::ids(&leased), [job.id]);
    let lease = [(job.id, leased[0].token)];
    assert_eq!(store.extend(lease.to_vec(), Extension::AtLeast(NOW.plus(LEASE))).await.unwrap(), [true]);
    assert!(store.held(world.tenant, job.id, leased[0].token, NOW).await.unwrap().is_some());
    let settlement = Settlement::succeeded(&leased[0], NOW, an_attempt(&leased[0], Some(200)));
    store.settle(vec![settlement]).await.unwrap();
    assert_eq!(store.attempts(world.tenant, job.id, 0, 10).await.unwrap().len(), 1);
    assert!(store.job(world.tenant, job.id).await.unwrap().is_some());
    assert_eq!(store.change(world.tenant, vec![job.id], JobChange::Purge, NOW).await.unwrap(), [ChangeOutcome::Done]);
    world.put(world.tenant.0, Kind::Group, "another").await;
    assert!(store.load().await.unwrap().1.iter().any(|entity| entity.name == "another"));
    let doc = NodeRecord {
        name: "n".to_owned(),
        address: String::new(),
        version: "1".to_owned(),
        process: 1,
        running: 0,
        capacity: 1,
        stopping: false,
    };
    let beat = Heartbeat { node: Uuid::nil(), doc, comes: true, life: LEASE, forget: Duration::from_secs(600) };
    assert_eq!(store.beat(beat).await.unwrap().members.len(), 1);
}

#[test]
fn a_node_works_on_beside_newer_ones() {
    let cluster = cluster();
    let fresh = Fresh::new(&cluster);
    let (url, database) = fresh.url();
    let runtime = runtime();
    runtime.block_on(async {
        let (world, store) = fresh.two_on(&url).await;
        use_all(&world, &store).await;
        cluster.sql(&database, MIGRATE);
        use_all(&world, &store).await;
        // A node of this version that starts again meanwhile.
        let again = node(&url).await;
        use_all(&world, &again).await;
    });
}
