//! Concurrent calls.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;

use super::*;
use crate::{PolicyThreads, QueueKey};
use carillon_core::job::{GroupId, TenantId};
use carillon_testing::guest::{ENDLESS, Guest, PLAIN};

#[tokio::test]
async fn endless_loops_wait_behind_each_other_and_hold_up_nobody() {
    const LOOPS: usize = 64;
    let threads = Arc::new(PolicyThreads::start(2, 1_024, 0).unwrap());
    let (endless, good) =
        (Arc::new(plugin(&Guest::new("judge", ENDLESS))), Arc::new(plugin(&Guest::new("judge", PLAIN))));
    let ended = Arc::new(AtomicUsize::new(0));
    let of = |tenant, group| QueueKey { tenant: TenantId(tenant), group: GroupId(group) };
    // A tenant gains nothing by having many groups.
    let loops = (0..).take(LOOPS).map(|group| {
        let (threads, endless, ended) = (Arc::clone(&threads), Arc::clone(&endless), Arc::clone(&ended));
        tokio::spawn(async move {
            let bounds = Limits { fuel: 5_000_000, ..limits() };
            let call = move || endless.judge(&bounds, &attempt(), "{}", &exchange()).result;
            let result = threads.run(of(1, group), call).await.unwrap();
            ended.fetch_add(1, Ordering::SeqCst);
            result.unwrap_err().code
        })
    });
    let loops: Vec<_> = loops.collect();
    while threads.waiting() < LOOPS - 2 && ended.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }

    // This runtime has one thread. It runs many turns of a task while both policy threads are busy.
    let busy = tokio::spawn(async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    });
    busy.await.unwrap();
    assert!(threads.waiting() > 0, "the loops still wait");

    let before = ended.load(Ordering::SeqCst);
    threads.run(of(2, 1), move || judge(&good).result).await.unwrap().unwrap();
    let overtaken = LOOPS - ended.load(Ordering::SeqCst);
    assert!(
        overtaken >= LOOPS / 2,
        "{before} loops had ended before the other group's call, {overtaken} had not after it"
    );

    for code in join_all(loops).await {
        assert_eq!(code.unwrap(), FaultCode::FuelExhausted);
    }
    all_is_well();
}

#[test]
fn calls_at_once_do_not_see_each_other() {
    // Leaves a mark in its memory, works for a while, and traps if there is another mark.
    let body = "(if (i32.load (i32.const 60000)) (then (unreachable)))
        (i32.store (i32.const 60000) (i32.const 1))
        (loop $again (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 20000))))
        (i32.const 128)";
    let (marking, trapping) = (plugin(&Guest::new("judge", body)), plugin(&Guest::new("judge", "(unreachable)")));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    judge(&marking).result.unwrap();
                    assert_eq!(judge(&trapping).result.unwrap_err().code, FaultCode::Trap);
                }
            });
        }
    });
}
