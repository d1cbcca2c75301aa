//! The time of calls: a thread that lets an engine's epoch rise.
//!
//! It ticks while there are calls, and sleeps when there have been none for a while, so that a server without work does nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::Engine;

/// How often the epoch rises: the precision of a call's deadline. The first tick of a call may come at once.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// After so many ticks without a call the thread sleeps: to wake it costs as much as some of them.
const RESTLESS_TICKS: u32 = 100;

/// The thread of an engine. It ends with this.
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// For as long as there is one, the epoch rises.
pub(super) struct Ticking(Arc<Shared>);

#[derive(Default)]
struct Shared {
    calls: AtomicUsize,
    /// Whether the thread must be woken for a call. It is set before the calls are counted, and read after a call is.
    asleep: AtomicBool,
    stop: AtomicBool,
}

impl Ticker {
    pub(super) fn start(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let ticks = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("policy-epoch".to_owned()).spawn(move || ticks.run(&engine))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// For a call that begins.
    pub(super) fn call(&self) -> Ticking {
        self.shared.calls.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.swap(false, Ordering::SeqCst) {
            self.unpark();
        }
        Ticking(Arc::clone(&self.shared))
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

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn run(&self, engine: &Engine) {
        let mut without_calls = 0;
        while !self.stop.load(Ordering::SeqCst) {
            std::thread::park_timeout(TICK);
            engine.increment_epoch();
            without_calls = if self.calls.load(Ordering::SeqCst) == 0 { without_calls + 1 } else { 0 };
            if without_calls == RESTLESS_TICKS {
                self.sleep();
                without_calls = 0;
            }
        }
    }

    /// Until there is a call, or the engine goes.
    fn sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        let is_idle = || self.calls.load(Ordering::SeqCst) == 0 && !self.stop.load(Ordering::SeqCst);
        while is_idle() && self.asleep.load(Ordering::SeqCst) {
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
        let ticker = Ticker::start(engine.clone()).unwrap();
        for _ in 0..2 {
            while !ticker.shared.asleep.load(Ordering::SeqCst) {
                std::thread::sleep(TICK);
            }
            let _call = ticker.call();
            let mut store = Store::new(&engine, ());
            store.set_epoch_deadline(2);
            let instance = Instance::new(&mut store, &endless, &[]).unwrap();
            let run = instance.get_typed_func::<(), ()>(&mut store, "run").unwrap();
            assert_eq!(run.call(&mut store, ()).unwrap_err().downcast_ref::<Trap>(), Some(&Trap::Interrupt));
        }
    }
}
