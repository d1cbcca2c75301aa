//! Copies of components that policy threads call often; they must behave like the original.

use futures_util::future::join_all;

use super::*;
use crate::copies::MIN_CALLS;
use crate::engine::MAX_ENGINES as ENGINES;
use crate::engines::Engines;
use crate::{PolicyThreads, QueueKey};
use carillon_core::job::TenantId;
use carillon_testing::guest::{ENDLESS, Guest, PLAIN};

/// Number of threads: more than there are engines.
const THREADS: usize = ENGINES + 4;

/// Maximum size of a small component, in bytes.
const SMALL: usize = 4 << 20;

fn load(guest: &Guest, room: &Arc<CodeBudget>) -> Arc<Plugin> {
    load_where(SMALL, guest, room)
}

fn load_where(small: usize, guest: &Guest, room: &Arc<CodeBudget>) -> Arc<Plugin> {
    let component = guest.build();
    let engines = Engines::new(&limits(), super::wasi::large(), THREADS, small, Arc::clone(room)).unwrap();
    let artefact = engine::compile(&component).unwrap();
    Arc::new(engines.load(Digest::from_bytes(&component), component.len(), &artefact).unwrap())
}

/// Runs work with a plugin on a policy thread.
async fn on_thread<T: Send + 'static>(
    index: usize,
    plugin: &Arc<Plugin>,
    work: impl FnOnce(&Plugin) -> T + Send + 'static,
) -> T {
    let plugin = Arc::clone(plugin);
    let threads = PolicyThreads::start(1, 1, index).unwrap();
    threads.run(QueueKey::of_tenant(TenantId(1)), move || work(&plugin)).await.unwrap()
}

/// Makes as many calls as precede a copy, so that the next call uses one if there is room for it.
async fn wear_in(index: usize, plugin: &Arc<Plugin>) {
    let calls = |plugin: &Plugin| (0..MIN_CALLS).for_each(|_| assert!(plugin.describe(&limits()).result.is_ok()));
    on_thread(index, plugin, calls).await;
}

#[tokio::test]
async fn each_thread_has_its_own_which_is_made_once() {
    let room = CodeBudget::new(usize::MAX);
    let plugin = load(&Guest::new("judge", PLAIN), &room);
    let size = plugin.code_size();
    let here = |plugin: &Plugin| (judge(plugin).result, std::ptr::from_ref(plugin.component()).addr());
    for (index, before, after) in [(0, 1, 1), (1, 1, 2), (1, 2, 2), (2, 2, 3), (0, 3, 3), (ENGINES + 1, 3, 3)] {
        wear_in(index, &plugin).await;
        assert_eq!(room.taken(), before * size, "thread {index}: there is none before it calls often");
        let (verdict, first) = on_thread(index, &plugin, here).await;
        assert_eq!(verdict.unwrap().outcome, judge_export::Outcome::Success);
        assert_eq!(on_thread(index, &plugin, here).await.1, first);
        assert_eq!(room.taken(), after * size, "thread {index}");
    }
    drop(plugin);
    assert_eq!(room.taken(), 0, "they go with the plugin");
}

#[tokio::test]
async fn a_copy_is_made_when_there_is_room_and_the_original_does_until_then() {
    let size = load(&Guest::new("judge", PLAIN), &CodeBudget::new(0)).code_size();
    let room = CodeBudget::new(3 * size);
    let plugin = load(&Guest::new("judge", PLAIN), &room);
    let others = room.take(2 * size);
    wear_in(1, &plugin).await;
    on_thread(1, &plugin, |plugin| judge(plugin).result).await.unwrap();
    assert_eq!(room.taken(), 3 * size, "there was no room");
    drop(others);
    on_thread(1, &plugin, |plugin| judge(plugin).result).await.unwrap();
    assert_eq!(room.taken(), 2 * size, "there is now");
}

#[tokio::test]
async fn all_threads_may_call_the_original_at_once() {
    let endless = load(&Guest::new("judge", ENDLESS), &CodeBudget::new(0));
    let calls = (0..THREADS).map(|index| on_thread(index, &endless, |plugin| judge(plugin).result));
    for result in join_all(calls).await {
        assert_eq!(result.unwrap_err().code, FaultCode::FuelExhausted);
    }
}

#[tokio::test]
async fn a_large_one_has_none() {
    let room = CodeBudget::new(usize::MAX);
    let plugin = load_where(0, &Guest::new("judge", PLAIN), &room);
    assert!(plugin.is_large());
    for index in 0..THREADS {
        wear_in(index, &plugin).await;
        on_thread(index, &plugin, |plugin| judge(plugin).result).await.unwrap();
    }
    assert_eq!(room.taken(), plugin.code_size());
}

#[tokio::test]
async fn time_passes_in_all_engines() {
    let room = CodeBudget::new(usize::MAX);
    let endless = load(&Guest::new("judge", ENDLESS), &room);
    for index in 0..THREADS {
        wear_in(index, &endless).await;
        let bounds = Limits { fuel: u64::MAX, deadline: Duration::from_millis(20), ..limits() };
        let call = move |plugin: &Plugin| plugin.judge(&bounds, &attempt(), "{}", &exchange()).result;
        assert_eq!(on_thread(index, &endless, call).await.unwrap_err().code, FaultCode::Timeout);
    }
    assert_eq!(room.taken(), ENGINES * endless.code_size(), "each called its own");
}
