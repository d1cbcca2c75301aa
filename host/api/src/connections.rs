//! Open connections of clients: bounded in number, idle ones included.
//!
//! Anybody can open a connection and say nothing. So when no place is free, the connection that has said nothing for the longest time is closed
//! for the next one: who sends a request is served, however many others are silent. A connection with a request under way is never closed for
//! another one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The connections of one listener or several.
#[derive(Clone, Debug)]
pub struct Connections {
    places: Arc<Semaphore>,
    idle: Arc<Mutex<Idle>>,
}

/// The connections without a request, the one that has been so for the longest time first.
#[derive(Debug, Default)]
struct Idle {
    since: BTreeMap<u64, CancellationToken>,
    next: u64,
}

impl Connections {
    /// At most so many.
    #[must_use]
    pub fn new(max_connections: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(max_connections)), idle: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection that is to be accepted: where none is free, that of the connection that has been idle for the longest time,
    /// which is closed. Where none is idle, the first that ends.
    pub(super) async fn place(&self) -> Option<Place> {
        let permit = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                if let Some((_, closed)) = self.lock().since.pop_first() {
                    closed.cancel();
                }
                Arc::clone(&self.places).acquire_owned().await.ok()?
            }
        };
        let place = Place {
            connections: self.clone(),
            closed: CancellationToken::new(),
            turn: Mutex::new(None),
            _permit: permit,
        };
        place.idle();
        Some(place)
    }
}

/// The place of a connection.
#[derive(Debug)]
pub(super) struct Place {
    connections: Connections,
    closed: CancellationToken,
    /// Under which number it is listed as idle.
    turn: Mutex<Option<u64>>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Returns when the connection is to be closed for another one.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Notes that the connection has a request, until the guard is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        if let Some(turn) = self.turn().take() {
            self.connections.lock().since.remove(&turn);
        }
        Busy(Arc::clone(self))
    }

    fn idle(&self) {
        let mut idle = self.connections.lock();
        let turn = idle.next;
        idle.next += 1;
        idle.since.insert(turn, self.closed.clone());
        *self.turn() = Some(turn);
    }

    fn turn(&self) -> MutexGuard<'_, Option<u64>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(turn) = self.turn().take() {
            self.connections.lock().since.remove(&turn);
        }
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Busy(Arc<Place>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.idle();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    fn is_closed(place: &Place) -> bool {
        place.closed.is_cancelled()
    }

    #[tokio::test]
    async fn longest_idle_connection_makes_room_for_the_next() {
        let connections = Connections::new(3);
        let (one, two, three) = (connections.place().await, connections.place().await, connections.place().await);
        let (one, two, three) = (Arc::new(one.unwrap()), Arc::new(two.unwrap()), Arc::new(three.unwrap()));
        let working = one.busy();
        drop(two.busy());
        let mut next = Box::pin(connections.place());
        assert!(poll!(&mut next).is_pending());
        assert!(is_closed(&three) && !is_closed(&two) && !is_closed(&one), "the third has been idle since it came");
        drop(three);
        let fourth = next.await.unwrap();
        let mut next = Box::pin(connections.place());
        assert!(poll!(&mut next).is_pending());
        assert!(is_closed(&two) && !is_closed(&fourth) && !is_closed(&one), "one works");
        drop(working);
        drop(two);
        let fifth = next.await.unwrap();
        assert!(!is_closed(&fifth));
    }

    #[tokio::test]
    async fn busy_connections_are_waited_for() {
        let connections = Connections::new(1);
        let one = Arc::new(connections.place().await.unwrap());
        let working = one.busy();
        let mut next = Box::pin(connections.place());
        assert!(poll!(&mut next).is_pending());
        assert!(!is_closed(&one));
        drop(working);
        drop(one);
        next.await.unwrap();
        assert!(connections.lock().since.is_empty());
    }
}
