//! What happens to nodes: they die, and they stand still.

use super::ledger::{at_work, held, leases, lost};
use super::{NAMES, SHORT, World, until};

/// How often a node is killed.
const KILLS: usize = 4;

/// What a node logs whose settlement was refused.
const REFUSED: &str = "settlement refused because the lease had expired";

impl World {
    /// Freezes a node while receivers work on its requests.
    async fn freeze_at_work(&self, index: usize) {
        until(&format!("{} is caught at work", NAMES[index]), async || {
            self.nodes[index].freeze().await;
            if at_work(&self.postgres, NAMES[index]) > 0 {
                return true;
            }
            self.nodes[index].thaw().await;
            false
        })
        .await;
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
    while lost(&world.postgres, NAMES[0]) == 0 {
        // What it had already sent to the database when it was frozen may settle its leases yet.
        world.nodes[0].thaw().await;
        world.freeze_at_work(0).await;
        until("others take its leases", async || held(&world.postgres, NAMES[0]) == 0).await;
    }
    let before = leases(&world.postgres, NAMES[0]);
    world.nodes[0].thaw().await;
    until("its late settlements are refused", async || world.nodes[0].log().contains(REFUSED)).await;

    world.open_all_but(None);
    until("it works again", async || leases(&world.postgres, NAMES[0]) > before).await;
    world.work_goes_on().await;
    let ended = world.settle_accounts().await;
    assert!(ended.interrupted > 0, "it was stopped in the middle of attempts");
}
