//! What happens to nodes: they die, and they stand still.

use super::ledger::{at_work, held, leases, lost};
use super::{NAMES, SHORT, World};
use crate::support::{eventually, eventually_while};

/// How often a node is killed.
const KILLS: usize = 4;

/// What a node logs whose settlement was refused.
const REFUSED: &str = "settlement refused because the lease had expired";

impl World {
    /// Freezes a node while receivers work on its requests.
    async fn freeze_at_work(&self, index: usize) {
        let thaw = async || self.nodes[index].thaw().await;
        let freeze = async || {
            self.nodes[index].freeze().await;
            at_work(&self.postgres, NAMES[index])
        };
        let what = format!("{} is caught at work", NAMES[index]);
        eventually_while(&what, thaw, freeze, |attempts| *attempts > 0).await;
    }

    /// All nodes but one.
    fn open_all_but(&self, closed: Option<usize>) {
        let open = self.nodes.iter().enumerate().filter(|(index, _)| Some(*index) != closed).map(|(_, node)| node);
        self.load.open(&open.collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_killed_again_and_again_lose_nothing() {
    let mut world = World::start(&SHORT).await;
    for victim in (0..NAMES.len()).cycle().take(KILLS) {
        world.freeze_at_work(victim).await;
        world.nodes[victim].kill().await;
        world.open_all_but(Some(victim));
        world.work_goes_on().await;
        world.nodes[victim].restart().await;
        world.open_all_but(None);
        world.work_goes_on().await;
    }
    let ended = world.settle_accounts().await;
    assert!(ended.interrupted > 0, "nodes were killed in the middle of attempts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stood_still_past_its_leases_settles_nothing() {
    let world = World::start(&SHORT).await;
    world.open_all_but(Some(0));
    // What it had already sent to the database when it was frozen may settle its leases yet.
    let freeze_again = async || {
        world.nodes[0].thaw().await;
        world.freeze_at_work(0).await;
        eventually("others take its leases", async || held(&world.postgres, NAMES[0]), |held| *held == 0).await;
    };
    let lost = async || lost(&world.postgres, NAMES[0]);
    eventually_while("it loses leases", freeze_again, lost, |lost| *lost > 0).await;
    let before = leases(&world.postgres, NAMES[0]);
    world.nodes[0].thaw().await;
    let log = async || world.nodes[0].log();
    eventually("its late settlements are refused", log, |log| log.contains(REFUSED)).await;

    world.open_all_but(None);
    eventually("it works again", async || leases(&world.postgres, NAMES[0]), |now| *now > before).await;
    world.work_goes_on().await;
    let ended = world.settle_accounts().await;
    assert!(ended.interrupted > 0, "it was stopped in the middle of attempts");
}
