//! Open connections of clients: bounded in number, for all clients together and for each address.
//!
//! Anybody can open a connection and say nothing. So when no place is free, the connection that has waited for the longest time without a
//! whole head of a request is closed for the next one: who sends a request is served, however many others are silent or slow. The same holds
//! among the connections of one address. A connection with a request under way is never closed for another one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use carillon_telemetry::Telemetry;

/// Bits of an IPv6 address that name the network of one client, which can choose the other bits as it likes.
const IPV6_NETWORK: u128 = u128::MAX << 64;

/// Bounds of connections.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Largest number of all connections.
    pub all: usize,
    /// Largest number of connections from one address.
    pub per_peer: usize,
    /// Networks of addresses that speak for many clients, for which `per_peer` does not hold.
    pub trusted: Vec<IpNet>,
}

/// The connections of one listener or several.
#[derive(Clone)]
pub struct Connections {
    places: Arc<Semaphore>,
    limits: Arc<ConnectionLimits>,
    state: Arc<Mutex<State>>,
    telemetry: Arc<Telemetry>,
}

#[derive(Default)]
struct State {
    /// Connections without a request, the one that has been so for the longest time first.
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
    /// New connections for which no place could be made.
    wanted: BTreeSet<u64>,
    peers: HashMap<IpAddr, Peer>,
}

struct Waiting {
    peer: IpAddr,
    closed: CancellationToken,
}

/// Connections of one address, without those that are being closed for others.
#[derive(Default)]
struct Peer {
    open: usize,
    waiting: BTreeSet<u64>,
}

impl State {
    /// Closes the connection that has waited since this turn.
    fn close(&mut self, turn: u64) {
        if let Some(waiting) = self.waiting.remove(&turn) {
            self.left(waiting.peer, Some(turn));
            waiting.closed.cancel();
        }
    }

    /// Closes the connection that has waited for the longest time; returns whether there was one.
    fn close_longest(&mut self) -> bool {
        let longest = self.waiting.first_key_value().map(|(turn, _)| *turn);
        longest.is_some_and(|turn| {
            self.close(turn);
            true
        })
    }

    /// Makes room for a new connection now, or else as soon as a connection waits; returns the number of the wish then.
    fn want_place(&mut self) -> Option<u64> {
        if self.close_longest() {
            return None;
        }
        let number = self.next();
        self.wanted.insert(number);
        Some(number)
    }

    /// Counts a connection that ends, or that is being closed.
    fn left(&mut self, peer: IpAddr, turn: Option<u64>) {
        let Some(of_peer) = self.peers.get_mut(&peer) else { return };
        of_peer.open = of_peer.open.saturating_sub(1);
        if let Some(turn) = turn {
            of_peer.waiting.remove(&turn);
        }
        if of_peer.open == 0 {
            self.peers.remove(&peer);
        }
    }

    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn stop_waiting(&mut self, turn: u64) {
        if let Some(waiting) = self.waiting.remove(&turn)
            && let Some(of_peer) = self.peers.get_mut(&waiting.peer)
        {
            of_peer.waiting.remove(&turn);
        }
    }
}

/// Returns the address under which a peer is counted.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & IPV6_NETWORK)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Connections {
    /// Creates the account of connections within these limits.
    #[must_use]
    pub fn new(limits: ConnectionLimits, telemetry: Arc<Telemetry>) -> Self {
        let places = Arc::new(Semaphore::new(limits.all));
        Self { places, limits: Arc::new(limits), state: Arc::default(), telemetry }
    }

    /// Counts something that was refused to a connection, or a connection that was closed.
    pub(super) fn count_refusal(&self, bound: &'static str) {
        self.telemetry.metrics.refused(bound);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a place for a connection from `address` that was accepted.
    ///
    /// Where all places are taken, it is that of the connection that has waited for the longest time, which is closed; where none waits, that
    /// of the first one that waits or ends. Returns `None` if the address has too many connections, none of which waits.
    pub(super) async fn place(&self, address: IpAddr) -> Option<Place> {
        let peer = counted_as(address);
        let address = address.to_canonical();
        let is_trusted = self.limits.trusted.iter().any(|network| network.contains(&address));
        if !self.enter(peer, if is_trusted { usize::MAX } else { self.limits.per_peer }) {
            return None;
        }
        // The place counts for its address from here on, also if the caller gives up.
        let mut place = Place {
            connections: self.clone(),
            peer,
            closed: CancellationToken::new(),
            turn: Mutex::new(None),
            permit: None,
        };
        place.permit = Some(match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.make_room().await?,
        });
        place.wait_for_request(&mut self.lock());
        Some(place)
    }

    /// Counts a new connection for its address; returns false if there are `most` already, none of which waits.
    fn enter(&self, peer: IpAddr, most: usize) -> bool {
        let mut state = self.lock();
        let of_peer = state.peers.entry(peer).or_default();
        if of_peer.open >= most {
            let longest = of_peer.waiting.first().copied();
            self.count_refusal("server.connections_per_peer");
            match longest {
                Some(turn) => state.close(turn),
                None => return false,
            }
        }
        state.peers.entry(peer).or_default().open += 1;
        true
    }

    async fn make_room(&self) -> Option<OwnedSemaphorePermit> {
        self.count_refusal("server.connections");
        let wanted = self.lock().want_place();
        let permit = Arc::clone(&self.places).acquire_owned().await.ok();
        if let Some(wanted) = wanted {
            self.lock().wanted.remove(&wanted);
        }
        permit
    }
}

/// The place of a connection.
pub(super) struct Place {
    connections: Connections,
    peer: IpAddr,
    /// Cancelled when the connection is to be closed for another one; it does not count for its address then.
    closed: CancellationToken,
    /// Turn under which it is listed as waiting.
    turn: Mutex<Option<u64>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Returns when the connection is to be closed for another one.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Notes that the connection has a request, until the guard is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        let turn = self.turn().take();
        if let Some(turn) = turn {
            self.connections.lock().stop_waiting(turn);
        }
        Busy(Arc::clone(self))
    }

    fn idle(&self) {
        let mut state = self.connections.lock();
        self.wait_for_request(&mut state);
        if !state.wanted.is_empty() && state.close_longest() {
            state.wanted.pop_first();
        }
    }

    fn wait_for_request(&self, state: &mut State) {
        if self.closed.is_cancelled() {
            return;
        }
        let turn = state.next();
        state.waiting.insert(turn, Waiting { peer: self.peer, closed: self.closed.clone() });
        state.peers.entry(self.peer).or_default().waiting.insert(turn);
        *self.turn() = Some(turn);
    }

    fn turn(&self) -> MutexGuard<'_, Option<u64>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let turn = self.turn().take();
        let mut state = self.connections.lock();
        if let Some(turn) = turn {
            state.stop_waiting(turn);
        }
        if !self.closed.is_cancelled() {
            state.left(self.peer, None);
        }
    }
}

/// A request under way.
pub(super) struct Busy(Arc<Place>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.idle();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use carillon_core::clock::UnixMs;
    use carillon_telemetry::RingCapacity;
    use futures_util::poll;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    fn connections(all: usize, per_peer: usize, trusted: &[&str]) -> Connections {
        let trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let telemetry = Telemetry::new(RingCapacity { events: 1, memory: 1 << 16 }, UnixMs(0));
        Connections::new(ConnectionLimits { all, per_peer, trusted }, Arc::new(telemetry))
    }

    async fn place(connections: &Connections, address: IpAddr) -> Arc<Place> {
        Arc::new(connections.place(address).await.unwrap())
    }

    fn is_closed(place: &Place) -> bool {
        place.closed.is_cancelled()
    }

    #[tokio::test]
    async fn longest_idle_connection_makes_room_for_the_next() {
        let connections = connections(3, 9, &[]);
        let (one, two, three) =
            (place(&connections, HERE).await, place(&connections, HERE).await, place(&connections, HERE).await);
        let working = one.busy();
        drop(two.busy());
        let mut next = Box::pin(connections.place(HERE));
        assert!(poll!(&mut next).is_pending());
        assert!(is_closed(&three) && !is_closed(&two) && !is_closed(&one), "the third has been idle since it came");
        drop(three);
        let fourth = next.await.unwrap();
        let mut next = Box::pin(connections.place(HERE));
        assert!(poll!(&mut next).is_pending());
        assert!(is_closed(&two) && !is_closed(&fourth) && !is_closed(&one), "one works");
        drop(working);
        drop(two);
        let fifth = next.await.unwrap();
        assert!(!is_closed(&fifth));
    }

    #[tokio::test]
    async fn busy_connections_are_waited_for() {
        let connections = connections(1, 9, &[]);
        let one = place(&connections, HERE).await;
        let working = one.busy();
        let mut next = Box::pin(connections.place(HERE));
        assert!(poll!(&mut next).is_pending());
        assert!(!is_closed(&one));
        drop(working);
        drop(one);
        next.await.unwrap();
        let state = connections.lock();
        assert!(state.waiting.is_empty() && state.peers.is_empty());
    }

    #[tokio::test]
    async fn connection_that_becomes_idle_makes_room_for_one_that_waits() {
        let connections = connections(1, 9, &[]);
        let one = place(&connections, HERE).await;
        let working = one.busy();
        let mut next = Box::pin(connections.place(THERE));
        assert!(poll!(&mut next).is_pending());
        drop(working);
        assert!(is_closed(&one));
        drop(one);
        next.await.unwrap();
    }

    #[tokio::test]
    async fn address_has_its_number_of_connections_and_others_have_theirs() {
        let connections = connections(10, 2, &["198.51.100.0/24"]);
        let (one, two) = (place(&connections, HERE).await, place(&connections, HERE).await);
        let working = one.busy();
        let three = place(&connections, HERE).await;
        assert!(is_closed(&two) && !is_closed(&three), "its own that has waited the longest");
        let works_too = three.busy();
        assert!(connections.place(HERE).await.is_none(), "none of its own waits");
        place(&connections, THERE).await;
        let proxy = "198.51.100.7".parse().unwrap();
        let trusted =
            [place(&connections, proxy).await, place(&connections, proxy).await, place(&connections, proxy).await];
        assert!(trusted.iter().all(|place| !is_closed(place)));
        drop((working, works_too, one, two, three, trusted));
        let state = connections.lock();
        assert!(state.waiting.is_empty() && state.peers.is_empty());
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_count_together() {
        let counted = |address: &str| counted_as(address.parse().unwrap()).to_string();
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(counted("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(counted("192.0.2.1"), "192.0.2.1");
    }
}
