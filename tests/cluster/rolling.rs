//! One node after the other is stopped and started again, as an update does it.

use super::{NAMES, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_interrupts_and_refuses_nothing() {
    let mut world = World::start(&[]).await;
    for index in 0..NAMES.len() {
        // Producers still come to it: they find its door closed, and go to the next.
        world.nodes[index].drain().await;
        world.work_goes_on().await;
        world.nodes[index].restart().await;
        world.load.open(&world.nodes.iter().collect::<Vec<_>>());
        world.work_goes_on().await;
    }
    let ended = world.settle_accounts().await;
    assert_eq!(
        (ended.interrupted, ended.taken),
        (0, 0),
        "every attempt was made to its end, by the node that began it"
    );
    let refusals = &ended.refusals;
    assert!(refusals.answered.is_empty(), "a request that was let in was refused: {:?}", refusals.answered);
    assert_eq!(refusals.replayed, 0, "a request was carried out and not answered: {:?}", refusals.broken);
}
