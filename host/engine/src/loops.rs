//! Background loops under supervision: one that panics is logged, counted, and started again.
//!
//! The server depends on its loops: one finds due jobs, another extends leases. A server that has lost a loop must not seem ready, and must
//! not need a person to recover.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinError;

/// Pause before a loop that panicked is restarted.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Time after which a restarted loop counts as running.
const SETTLED: Duration = Duration::from_secs(5);

/// The background loops of a server.
#[derive(Debug)]
pub struct Loops {
    pause: Duration,
    settled: Duration,
    state: Mutex<State>,
}

impl Default for Loops {
    fn default() -> Self {
        Self { pause: RESTART_PAUSE, settled: SETTLED, state: Mutex::default() }
    }
}

#[derive(Debug, Default)]
struct State {
    down: BTreeSet<&'static str>,
    restarts: u64,
}

impl Loops {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the names of the loops that have panicked and do not run again yet, or not for long enough.
    #[must_use]
    pub fn down(&self) -> Vec<&'static str> {
        self.lock().down.iter().copied().collect()
    }

    /// Returns how often a loop was restarted.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.lock().restarts
    }

    fn fell(&self, name: &'static str) {
        let mut state = self.lock();
        state.down.insert(name);
        state.restarts += 1;
    }

    /// Runs the loop that `start` creates until it ends by itself; creates a new one whenever it panics.
    pub async fn run<F>(self: Arc<Self>, name: &'static str, mut start: impl FnMut() -> F + Send)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut running = tokio::spawn(start());
        loop {
            let ended = if self.lock().down.contains(name) {
                tokio::select! {
                    ended = &mut running => ended,
                    () = tokio::time::sleep(self.settled) => {
                        self.lock().down.remove(name);
                        running.await
                    }
                }
            } else {
                running.await
            };
            let Err(error) = ended else {
                self.lock().down.remove(name);
                return;
            };
            tracing::error!(task = name, error = panic_text(error), "background loop panicked; restarting it");
            self.fell(name);
            tokio::time::sleep(self.pause).await;
            running = tokio::spawn(start());
        }
    }
}

fn panic_text(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "it was aborted".to_owned() };
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Panics the first two times that it is started, and then runs until the flag is set. Returns its starts.
    async fn run_to_its_end(loops: &Arc<Loops>, when_running: impl AsyncFn()) -> u64 {
        let starts = Arc::new(AtomicU64::new(0));
        let (end, ended) = tokio::sync::watch::channel(false);
        let counted = Arc::clone(&starts);
        let start = move || {
            let (number, mut ended) = (counted.fetch_add(1, Ordering::Relaxed), ended.clone());
            async move {
                assert!(number >= 2, "start {number}");
                drop(ended.wait_for(|ended| *ended).await);
            }
        };
        let running = tokio::spawn(Arc::clone(loops).run("test", start));
        while starts.load(Ordering::Relaxed) < 3 {
            tokio::task::yield_now().await;
        }
        when_running().await;
        end.send(true).unwrap();
        running.await.unwrap();
        starts.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn loop_that_panics_is_started_again_and_down_until_it_has_run_for_a_while() {
        let pause = Duration::from_millis(1);
        let loops = Arc::new(Loops { pause, settled: Duration::from_secs(3_600), ..Loops::default() });
        let starts = run_to_its_end(&loops, async || assert_eq!((loops.down(), loops.restarts()), (vec!["test"], 2)));
        assert_eq!(starts.await, 3);
        assert!(loops.down().is_empty(), "it has ended as it should");
    }

    #[tokio::test]
    async fn loop_that_has_run_for_a_while_is_not_down() {
        let pause = Duration::from_millis(1);
        let loops = Arc::new(Loops { pause, settled: pause, ..Loops::default() });
        let settled = async || {
            while !loops.down().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(run_to_its_end(&loops, settled).await, 3);
        assert_eq!(loops.restarts(), 2);
    }
}
