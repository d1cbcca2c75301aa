//! Ports: accepts connections, bounded in number, and ends them when the server stops.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client_address::Peer;
use super::connections::Connections;
use super::door::Door;
use super::port::{Accepted, Port, ServeLimits};

/// The pause after the operating system has refused a connection: it has run out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers requests until `stop`, and then those that are under way; answers without an end last until `end`.
pub async fn serve(
    listener: TcpListener,
    door: Door,
    limits: ServeLimits,
    stop: CancellationToken,
    end: CancellationToken,
) {
    let (tasks, connections) = (TaskTracker::new(), limits.connections.clone());
    let port = Arc::new(Port::new(door, limits, stop.clone(), end));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            () = stop.cancelled() => break,
        };
        if let Some(accepted) = accepted {
            tasks.spawn(Arc::clone(&port).converse(accepted));
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn accept(listener: &TcpListener, connections: &Connections) -> Option<Accepted> {
    match listener.accept().await {
        Ok((stream, address)) => {
            let place = connections.place(address.ip()).await?;
            Some(Accepted { stream, peer: Peer(address.ip().to_canonical()), place })
        }
        Err(error) => {
            tracing::warn!(%error, "accepting a connection failed");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}
