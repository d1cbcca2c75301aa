//! Clock of calls: a thread that increments the epoch of engines.
//!
//! It ticks for as long as a started call may run, and a while longer, and then sleeps: a server without work does nothing. Calls are not
//! counted: a counter that all of them write would go from core to core with each call. A call's start only records until when it may run,
//! which is written once a tick however many calls start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::Engine;

/// Period of the epoch: the precision of a call's deadline. The first tick of a call may come at once.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// Minimum number of ticks after the start of a call, because to wake the thread costs as much as some ticks.
const RESTLESS_TICKS: u64 = 100;

/// Ticking thread of some engines. It ends when this is dropped.
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Ticks so far. Each is counted before the epoch rises.
    now: AtomicU64,
    /// Last tick that a call waits for.
    until: AtomicU64,
    /// Whether a call must wake the thread. It is set before `until` is read, and read after `until` is set.
    asleep: AtomicBool,
    stop: AtomicBool,
}

impl Ticker {
    pub(super) fn start(engines: Vec<Engine>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let ticks = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("policy-epoch".to_owned()).spawn(move || ticks.run(&engines))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Registers a call whose deadline has just been set to `ticks` ticks from now.
    pub(super) fn call(&self, ticks: u64) {
        let shared = &*self.shared;
        let until = shared.now.load(Ordering::SeqCst).saturating_add(ticks.max(RESTLESS_TICKS));
        if shared.until.load(Ordering::SeqCst) < until {
            shared.until.fetch_max(until, Ordering::SeqCst);
        }
        if shared.asleep.load(Ordering::SeqCst) {
            self.unpark();
        }
    }

    fn unpark(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.unpark();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn run(&self, engines: &[Engine]) {
        while !self.stop.load(Ordering::SeqCst) {
            std::thread::park_timeout(TICK);
            self.now.fetch_add(1, Ordering::SeqCst);
            engines.iter().for_each(Engine::increment_epoch);
            if self.is_idle() {
                self.sleep();
            }
        }
    }

    /// Returns whether no call waits for the next tick.
    fn is_idle(&self) -> bool {
        self.until.load(Ordering::SeqCst) <= self.now.load(Ordering::SeqCst)
    }

    /// Sleeps until there is a call, or until the engines are dropped.
    fn sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        while self.is_idle() && !self.stop.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::{Config, Instance, Module, Store, Trap};

    use super::*;

    #[test]
    fn it_sleeps_when_there_are_no_calls_and_wakes_for_one() {
        let engine = Engine::new(Config::new().epoch_interruption(true)).unwrap();
        let endless = wat::parse_str(r#"(module (func (export "run") (loop (br 0))))"#).unwrap();
        let endless = Module::new(&engine, endless).unwrap();
        let ticker = Ticker::start(vec![engine.clone()]).unwrap();
        for _ in 0..2 {
            while !ticker.shared.asleep.load(Ordering::SeqCst) {
                std::thread::sleep(TICK);
            }
            let mut store = Store::new(&engine, ());
            store.set_epoch_deadline(2);
            ticker.call(2);
            let instance = Instance::new(&mut store, &endless, &[]).unwrap();
            let run = instance.get_typed_func::<(), ()>(&mut store, "run").unwrap();
            assert_eq!(run.call(&mut store, ()).unwrap_err().downcast_ref::<Trap>(), Some(&Trap::Interrupt));
        }
    }
}
