//! Connections to the database; every wait for one has a bound.
//!
//! A network can fall silent: nothing that is sent arrives, nothing comes back, and neither side is told. So everything that waits for the
//! database has a bound: acquiring a connection, the work on it, and the test of it when it is returned to the pool. A connection that does
//! not answer in time is dropped with its socket, and the next connection is a new one, to the host that accepts writes at that time.

use std::io::ErrorKind;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::error::Failure;
use super::hosts::Hosts;
use carillon_store::StoreError;
use carillon_store::read_turns::READ_PLACES;

/// Largest number of a node's connections for work that must not wait: accepting, claiming, extending and settling.
const CONNECTIONS: u32 = 16;

/// Longest time of one try to acquire a connection, and of a connection's test.
///
/// The next try follows: by then another connection may be free, and another host the primary.
const LOOK: Duration = Duration::from_secs(3);

/// Smallest number of tries that the bound leaves time for.
const LOOKS: u32 = 3;

/// Time after which a missing connection may mean that the host refuses connections.
const KNOCK_AFTER: Duration = Duration::from_millis(100);

/// Pause between two tries.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The connections of a node.
#[derive(Debug)]
pub(super) struct Connections {
    pool: PgPool,
    hosts: Hosts,
    /// Longest time for acquiring a connection, and for the work of one transaction.
    bound: Duration,
    look: Duration,
    looking: Mutex<()>,
}

impl Connections {
    /// Makes an empty pool.
    ///
    /// `options` say how a connection is prepared, and `writer` is the host that accepts writes for now.
    pub(super) fn new(options: PgPoolOptions, writer: &PgConnectOptions, hosts: Hosts, bound: Duration) -> Self {
        let look = LOOK.min(bound / LOOKS);
        let options = options.max_connections(CONNECTIONS).acquire_timeout(look);
        Self { pool: options.connect_lazy_with(writer.clone()), hosts, bound, look, looking: Mutex::new(()) }
    }

    /// Makes further connections for viewers: their number takes none of this pool.
    ///
    /// `options` say how a connection is prepared.
    pub(super) fn for_viewers(&self, options: PgPoolOptions) -> Self {
        let options = options.max_connections(READ_PLACES).acquire_timeout(self.look);
        let pool = options.connect_lazy_with(self.options());
        Self { pool, hosts: self.hosts.clone(), bound: self.bound, look: self.look, looking: Mutex::new(()) }
    }

    /// Acquires a connection that answers.
    pub(super) async fn take(&self) -> Result<Taken, Failure> {
        let looks = async {
            let mut refused = pin!(self.refused());
            loop {
                let acquired = tokio::select! {
                    biased;
                    acquired = self.pool.acquire() => acquired,
                    error = &mut refused => return Err(Failure::from(error)),
                };
                match acquired {
                    Ok(connection) => return Ok(Taken { connection, look: self.look }),
                    Err(error) if !may_pass(&error) => return Err(Failure::from(error)),
                    Err(error) => tracing::debug!(%error, "connecting to the database failed; retrying"),
                }
                self.look_for_writer().await;
                tokio::select! {
                    () = sleep(POLL_INTERVAL) => {}
                    error = &mut refused => return Err(Failure::from(error)),
                }
            }
        };
        let none = || Err(Failure::from(sqlx::Error::PoolTimedOut));
        // Boxed because making a connection takes much memory, which every caller of the store would need in its future.
        timeout(self.bound, Box::pin(looks)).await.unwrap_or_else(|_| none())
    }

    /// Does work on an acquired connection, within the bound.
    pub(super) async fn bounded<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let silent = || StoreError::Unavailable("the database did not answer in time".to_owned());
        timeout(self.bound, work).await.unwrap_or_else(|_| Err(silent().into()))
    }

    /// Returns the options for a connection to the host that accepts writes for now.
    pub(super) fn options(&self) -> PgConnectOptions {
        (*self.pool.connect_options()).clone()
    }

    /// Closes all connections; a connection in use is closed when it is returned.
    pub(super) async fn close(&self) {
        if timeout(self.bound, self.pool.close()).await.is_err() {
            tracing::warn!("closing the database connections timed out");
        }
    }

    /// Returns when the only host refuses connections, which means that no server runs there.
    ///
    /// The pool itself would wait, as for a server that starts.
    async fn refused(&self) -> sqlx::Error {
        if self.hosts.are_several() {
            return std::future::pending().await;
        }
        loop {
            sleep(KNOCK_AFTER).await;
            match knock(self.pool.connect_options().as_ref()).await {
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => {
                    return sqlx::Error::Io(error);
                }
                _ => {}
            }
        }
    }

    /// Finds out which host accepts writes, unless another task is doing that.
    async fn look_for_writer(&self) {
        if !self.hosts.are_several() {
            return;
        }
        let Ok(_looking) = self.looking.try_lock() else { return };
        match self.hosts.writer(self.look).await {
            Ok((options, _)) => self.pool.set_connect_options(options.clone()),
            Err(failure) => tracing::debug!(error = %failure.error, "no database host accepts writes"),
        }
    }
}

/// Returns whether the error may be temporary.
fn may_pass(error: &sqlx::Error) -> bool {
    match error {
        // Out of resources; stopped by an operator, or starting.
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| ["53", "57"].iter().any(|class| code.starts_with(class)))
        }
        sqlx::Error::PoolClosed | sqlx::Error::Configuration(_) => false,
        _ => true,
    }
}

/// An acquired connection, which is returned to the pool on drop.
pub(super) struct Taken {
    connection: PoolConnection<Postgres>,
    look: Duration,
}

impl Deref for Taken {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Taken {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for Taken {
    /// Limits the pool's test of a returned connection.
    ///
    /// The test also rolls back uncommitted work, and would wait for the answer without limit.
    fn drop(&mut self) {
        let Ok(runtime) = Handle::try_current() else { return };
        let back = self.connection.return_to_pool();
        let look = self.look;
        runtime.spawn(async move {
            if timeout(look, back).await.is_err() {
                tracing::debug!("closed a database connection that did not respond");
            }
        });
    }
}

/// Only connects to the host, through its socket if the URL names one.
async fn knock(options: &PgConnectOptions) -> std::io::Result<()> {
    let (host, port) = (options.get_host(), options.get_port());
    let directory =
        options.get_socket().map(PathBuf::as_path).or_else(|| host.starts_with('/').then(|| Path::new(host)));
    match directory {
        Some(directory) => drop(UnixStream::connect(directory.join(format!(".s.PGSQL.{port}"))).await?),
        None => drop(TcpStream::connect((host, port)).await?),
    }
    Ok(())
}
