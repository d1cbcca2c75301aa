//! Ports of the server besides that of the API: those of mounts, and that of the metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;

use carillon_api::client_address::{ForwardedHeader, TrustedProxies};
use carillon_api::connections::{ConnectionLimits, Connections};
use carillon_api::door::Door;
use carillon_api::port::ServeLimits;
use carillon_api::tls::{CertificateFiles, ServerTls};
use carillon_api::{ApiState, Mount, metrics_router, mount_router};
use carillon_config::Config;
use carillon_telemetry::Telemetry;

/// Open ports, before anything is served at them.
pub(super) struct FurtherListeners {
    mounts: Vec<(Mount, TcpListener)>,
    metrics: Option<TcpListener>,
}

impl FurtherListeners {
    /// Opens the ports that the configuration names.
    pub(super) async fn open(config: &Config) -> anyhow::Result<Self> {
        let mut mounts = Vec::new();
        for mount in Mount::ALL {
            let settings = mount.settings(&config.compat);
            if let Some(address) = settings.listen.filter(|_| settings.enabled) {
                mounts.push((mount, listen(address).await?));
            }
        }
        let metrics = match config.metrics.listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        Ok(Self { mounts, metrics })
    }

    /// Returns the mounts that have ports, with their addresses.
    pub(super) fn mounts(&self) -> anyhow::Result<Vec<(Mount, SocketAddr)>> {
        self.mounts.iter().map(|(mount, listener)| Ok((*mount, listener.local_addr()?))).collect()
    }

    /// Returns the address of the metrics, if they have a port.
    pub(super) fn metrics(&self) -> anyhow::Result<Option<SocketAddr>> {
        Ok(self.metrics.as_ref().map(TcpListener::local_addr).transpose()?)
    }

    /// Makes the entry of each port.
    pub(super) fn doors(&self, config: &Config, api: &Arc<ApiState>) -> Vec<Door> {
        let mounts = self.mounts.iter().map(|(mount, _)| mount_router(*mount, api));
        let routers = mounts.chain(self.metrics.iter().map(|_| metrics_router(api)));
        routers.map(|router| Door::new(router, config.server.request_timeout.get())).collect()
    }

    /// Returns the ports, in the order of [`Self::doors`].
    pub(super) fn into_listeners(self) -> impl Iterator<Item = TcpListener> {
        self.mounts.into_iter().map(|(_, listener)| listener).chain(self.metrics)
    }
}

/// Returns the bounds of all connections, of which open files allow `max_connections`.
pub(super) fn serve_limits(
    config: &Config,
    tls: Option<Arc<ServerTls>>,
    max_connections: usize,
    telemetry: &Arc<Telemetry>,
) -> ServeLimits {
    let server = &config.server;
    let limits = ConnectionLimits {
        all: server.connections.min(max_connections),
        per_peer: server.connections_per_peer,
        trusted: server.trusted_proxies.clone(),
    };
    ServeLimits {
        header_read_timeout: server.header_read_timeout.get(),
        write_timeout: server.write_timeout.get(),
        http2_streams: server.http2_streams,
        proxies: Arc::new(trusted_proxies(config)),
        connections: Connections::new(limits, Arc::clone(telemetry)),
        tls,
    }
}

fn trusted_proxies(config: &Config) -> TrustedProxies {
    let header = match config.server.forwarded_header {
        carillon_config::ForwardedHeader::XForwardedFor => ForwardedHeader::XForwardedFor,
        carillon_config::ForwardedHeader::Forwarded => ForwardedHeader::Forwarded,
    };
    TrustedProxies { networks: config.server.trusted_proxies.clone(), header }
}

/// Reads the certificate of all ports, if there is one.
pub(super) fn server_tls(config: &Config) -> anyhow::Result<Option<Arc<ServerTls>>> {
    let Some((certificate, key)) = config.server.tls() else { return Ok(None) };
    let files = CertificateFiles {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        client_authorities: config.server.client_ca.clone(),
    };
    Ok(Some(Arc::new(ServerTls::load(files)?)))
}

/// Opens a port.
pub(super) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}
