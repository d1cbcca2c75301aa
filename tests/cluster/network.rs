//! A node is cut off from the database.

use super::ledger::{at_work, held, leases};
use super::proxy::Proxy;
use super::{NAMES, SHORT, World};
use crate::support::{Cluster, eventually};

/// The node that is cut off has little time to stop in.
const DRAIN: (&str, &str) = ("SERVER__DRAIN_TIMEOUT", "2s");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_network_falls_silent_notices_and_comes_back() {
    let postgres = tokio::task::block_in_place(|| Cluster::listening(&[]));
    let proxy = Proxy::start(postgres.port()).await;
    let near = proxy.port;
    let ports = |name: &str, port| vec![if name == NAMES[0] { near } else { port }];
    let mut world = World::on(postgres, &[&SHORT[..], &[DRAIN]].concat(), ports).await;
    let cut_off = &world.nodes[0];
    eventually("it is at work", async || at_work(&world.postgres, NAMES[0]), |attempts| *attempts > 0).await;

    proxy.fall_silent();
    eventually("it says that it is not ready", async || cut_off.readiness().await, |status| *status == Some(503)).await;
    let refused = world.load.refused();
    eventually("it refuses jobs, in time", async || world.load.refused(), |now| *now > refused).await;
    eventually("others take its leases", async || held(&world.postgres, NAMES[0]), |held| *held == 0).await;
    let before = leases(&world.postgres, NAMES[0]);

    proxy.speak();
    cut_off.until_ready().await;
    eventually("it works again", async || leases(&world.postgres, NAMES[0]), |now| *now > before).await;
    world.work_goes_on().await;

    proxy.fall_silent();
    world.nodes[0].drain().await;
    world.nodes.remove(0);
    world.load.open(&world.nodes.iter().collect::<Vec<_>>());
    world.settle_accounts().await;
}
