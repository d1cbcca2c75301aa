//! Open connections of clients: bounded in number, for all clients together and for each address.
//!
//! Anybody can open a connection and say nothing. So when no place is free, the connection that has waited for the longest time without a
//! whole head of a request is closed for the next one: who sends a request is served, however many others are silent or slow. The same holds
//! among the connections of one address. A connection with a request under way is never closed for another one.
//!
//! A connection of HTTP/2 has many requests at once. Each of them but the first counts as a connection does, so that the bounds hold for requests
//! and for what they take of memory, whatever the protocol.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
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
pub struct Connections(Arc<Shared>);

struct Shared {
    places: Arc<Semaphore>,
    limits: ConnectionLimits,
    state: Mutex<State>,
    /// Number of [`State::wanted`], which is read without the lock.
    wanted: AtomicUsize,
    /// Last turn that a connection got.
    turns: AtomicU64,
    telemetry: Arc<Telemetry>,
}

#[derive(Default)]
struct State {
    /// Connections of each address, without those that are being closed for others.
    peers: HashMap<IpAddr, HashMap<u64, Arc<Connection>>>,
    /// Number of the last connection.
    last: u64,
    /// New connections for which no place could be made.
    wanted: BTreeSet<u64>,
}

/// What others see of an open connection. A request only writes the turn, so that requests of all connections do not wait for each other.
struct Connection {
    /// Turn since which it has had no request, or [`BUSY`].
    idle_since: AtomicU64,
    /// Cancelled when the connection is to be closed for another one; it does not count for its address then.
    closed: CancellationToken,
}

/// No turn: the connection has a request.
const BUSY: u64 = 0;

impl Connection {
    /// Claims an idle connection to be closed; returns false if it has a request meanwhile.
    fn close(&self, turn: u64) -> bool {
        let claimed = self.idle_since.compare_exchange(turn, BUSY, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if claimed {
            self.closed.cancel();
        }
        claimed
    }
}

impl State {
    /// Closes the connection that has been idle for the longest time, of one address or of all; returns whether there was one. It looks at
    /// all of them, which costs less than to keep them in order at every request.
    fn close_longest(&mut self, of: Option<IpAddr>) -> bool {
        loop {
            let all = self.peers.iter().filter(|(peer, _)| of.is_none_or(|of| of == **peer));
            let all =
                all.flat_map(|(peer, open)| open.iter().map(move |(number, connection)| (peer, number, connection)));
            let idle = all.filter_map(|(peer, number, connection)| {
                let turn = connection.idle_since.load(Ordering::SeqCst);
                (turn != BUSY).then_some((turn, *peer, *number, connection))
            });
            let Some((turn, peer, number, connection)) = idle.min_by_key(|(turn, ..)| *turn) else { return false };
            if connection.close(turn) {
                self.remove(peer, number);
                return true;
            }
        }
    }

    /// Counts a connection that ends, or that is being closed.
    fn remove(&mut self, peer: IpAddr, number: u64) {
        let Some(open) = self.peers.get_mut(&peer) else { return };
        open.remove(&number);
        if open.is_empty() {
            self.peers.remove(&peer);
        }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
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
        Self(Arc::new(Shared {
            places,
            limits,
            state: Mutex::default(),
            wanted: AtomicUsize::new(0),
            turns: AtomicU64::new(BUSY),
            telemetry,
        }))
    }

    /// Counts something that was refused to a connection, or a connection that was closed.
    pub(super) fn count_refusal(&self, bound: &'static str) {
        self.0.telemetry.metrics.refused(bound);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a place for a connection from `address` that was accepted.
    ///
    /// Where all places are taken, it is that of the connection that has waited for the longest time, which is closed; where none waits, that
    /// of the first one that waits or ends. Returns `None` if the address has too many connections, none of which waits.
    pub(super) async fn place(&self, address: IpAddr) -> Option<Place> {
        let peer = counted_as(address);
        let address = address.to_canonical();
        let is_trusted = self.0.limits.trusted.iter().any(|network| network.contains(&address));
        let most = if is_trusted { usize::MAX } else { self.0.limits.per_peer };
        let (number, connection) = self.enter(peer, most)?;
        // The place counts for its address from here on, also if the caller gives up.
        let mut place = Place {
            connections: self.clone(),
            peer,
            most,
            number,
            connection,
            requests: Mutex::new(0),
            changed: Notify::new(),
            permit: None,
        };
        place.permit = Some(self.permit().await?);
        place.idle();
        Some(place)
    }

    /// Returns a place for one more request at once on a connection of `peer`; `None` if the address has `most` places, none of which is idle.
    async fn further(&self, peer: IpAddr, most: usize) -> Option<Further> {
        let (number, _) = self.enter(peer, most)?;
        let mut further = Further { connections: self.clone(), peer, number, permit: None };
        further.permit = Some(self.permit().await?);
        Some(further)
    }

    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        match Arc::clone(&self.0.places).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => self.make_room().await,
        }
    }

    /// Counts a new connection for its address; returns `None` if there are `most` already, none of which is idle.
    fn enter(&self, peer: IpAddr, most: usize) -> Option<(u64, Arc<Connection>)> {
        let mut state = self.lock();
        if state.peers.get(&peer).map_or(0, HashMap::len) >= most {
            self.count_refusal("server.connections_per_peer");
            if !state.close_longest(Some(peer)) {
                return None;
            }
        }
        let connection = Connection { idle_since: AtomicU64::new(BUSY), closed: CancellationToken::new() };
        let (number, connection) = (state.next(), Arc::new(connection));
        state.peers.entry(peer).or_default().insert(number, Arc::clone(&connection));
        Some((number, connection))
    }

    async fn make_room(&self) -> Option<OwnedSemaphorePermit> {
        self.count_refusal("server.connections");
        let wanted = self.want_place();
        let _wanted = wanted.map(|number| Wanted { connections: self, number });
        Arc::clone(&self.0.places).acquire_owned().await.ok()
    }

    /// Makes room for a new connection now, or else as soon as a connection is idle; returns the number of the wish then.
    fn want_place(&self) -> Option<u64> {
        let mut state = self.lock();
        let number = state.next();
        // The wish comes first: a connection that becomes idle meanwhile sees it, or is seen.
        self.change_wanted(&mut state, |all| all.insert(number));
        if state.close_longest(None) {
            self.change_wanted(&mut state, |all| all.remove(&number));
            return None;
        }
        Some(number)
    }

    fn change_wanted<T>(&self, state: &mut State, change: impl FnOnce(&mut BTreeSet<u64>) -> T) -> T {
        let changed = change(&mut state.wanted);
        self.0.wanted.store(state.wanted.len(), Ordering::SeqCst);
        changed
    }
}

/// Wish for a place, until there is one or nobody waits for it any more.
struct Wanted<'a> {
    connections: &'a Connections,
    number: u64,
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.connections.change_wanted(&mut self.connections.lock(), |all| all.remove(&self.number));
    }
}

/// The place of a connection.
pub(super) struct Place {
    connections: Connections,
    peer: IpAddr,
    /// Largest number of places of the address.
    most: usize,
    number: u64,
    connection: Arc<Connection>,
    /// Number of requests under way.
    requests: Mutex<usize>,
    /// Told when a request begins, and when the last one has ended.
    changed: Notify,
    permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Returns when the connection is to be closed for another one.
    pub(super) async fn closed(&self) {
        self.connection.closed.cancelled().await;
    }

    /// Returns when the connection has had no request for `time`.
    pub(super) async fn idle_for(&self, time: Duration) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if *self.requests() > 0 {
                changed.await;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(time) => return,
                () = changed => {}
            }
        }
    }

    /// Notes that the connection has a request, until the guard is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        {
            let mut requests = self.requests();
            *requests += 1;
            self.connection.idle_since.store(BUSY, Ordering::SeqCst);
        }
        self.changed.notify_waiters();
        Busy { place: Arc::clone(self), further: None }
    }

    /// Notes that the connection has one of several requests at once, as [`Self::busy`] does. Each but the first needs a place of its own.
    ///
    /// Returns `None` if the address has too many.
    pub(super) async fn busy_besides(self: &Arc<Self>) -> Option<Busy> {
        let mut busy = self.busy();
        if *self.requests() > 1 {
            busy.further = Some(self.connections.further(self.peer, self.most).await?);
        }
        Some(busy)
    }

    fn ended(&self) {
        {
            let mut requests = self.requests();
            *requests -= 1;
            if *requests > 0 {
                return;
            }
            self.idle();
        }
        self.make_room_for_others();
        self.changed.notify_waiters();
    }

    fn idle(&self) {
        let turn = self.connections.0.turns.fetch_add(1, Ordering::Relaxed) + 1;
        self.connection.idle_since.store(turn, Ordering::SeqCst);
    }

    /// Has the connection that has been idle for the longest time closed if a new one waits for a place.
    fn make_room_for_others(&self) {
        if self.connections.0.wanted.load(Ordering::SeqCst) > 0 {
            let mut state = self.connections.lock();
            if !state.wanted.is_empty() && state.close_longest(None) {
                self.connections.change_wanted(&mut state, BTreeSet::pop_first);
            }
        }
    }

    fn requests(&self) -> MutexGuard<'_, usize> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().remove(self.peer, self.number);
    }
}

/// The place of a request beside others on its connection.
struct Further {
    connections: Connections,
    peer: IpAddr,
    number: u64,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Further {
    fn drop(&mut self) {
        self.connections.lock().remove(self.peer, self.number);
    }
}

/// A request under way.
pub(super) struct Busy {
    place: Arc<Place>,
    further: Option<Further>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        drop(self.further.take());
        self.place.ended();
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
        place.connection.closed.is_cancelled()
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
        assert!(state.peers.is_empty());
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
    async fn new_connection_is_not_closed_for_the_next_that_waits() {
        let connections = connections(1, 9, &[]);
        let one = place(&connections, HERE).await;
        let working = one.busy();
        let (mut next, mut last) = (Box::pin(connections.place(HERE)), Box::pin(connections.place(THERE)));
        assert!(poll!(&mut next).is_pending() && poll!(&mut last).is_pending());
        drop((working, one));
        let two = next.await.unwrap();
        assert!(!is_closed(&two), "it has not had time for a request");
        drop(two);
        last.await.unwrap();
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
        assert!(state.peers.is_empty());
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_count_together() {
        let counted = |address: &str| counted_as(address.parse().unwrap()).to_string();
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(counted("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(counted("192.0.2.1"), "192.0.2.1");
    }

    #[tokio::test]
    async fn requests_at_once_on_one_connection_count_as_connections_do() {
        let connections = connections(4, 3, &[]);
        let one = place(&connections, HERE).await;
        let first = one.busy_besides().await.unwrap();
        let (second, third) = (one.busy_besides().await.unwrap(), one.busy_besides().await.unwrap());
        assert!(one.busy_besides().await.is_none(), "the address has three places");
        assert!(connections.place(HERE).await.is_none());
        let two = place(&connections, THERE).await;
        let works_too = two.busy_besides().await.unwrap();
        let mut next = Box::pin(two.busy_besides());
        assert!(poll!(&mut next).is_pending(), "all places are taken");
        drop(first);
        assert!(poll!(&mut next).is_pending(), "the connection itself keeps its place");
        drop(second);
        let beside = next.await.unwrap();
        drop((third, works_too, beside, one, two));
        let state = connections.lock();
        assert!(state.peers.is_empty());
        assert_eq!(connections.0.places.available_permits(), 4);
    }

    #[tokio::test]
    async fn connection_is_idle_only_without_any_request() {
        let connections = connections(4, 4, &[]);
        let one = place(&connections, HERE).await;
        let (first, second) = (one.busy_besides().await.unwrap(), one.busy_besides().await.unwrap());
        let mut idle = Box::pin(one.idle_for(Duration::ZERO));
        drop(first);
        assert!(poll!(&mut idle).is_pending(), "one request is under way");
        drop(second);
        idle.await;
    }
}
