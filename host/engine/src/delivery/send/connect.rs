//! Connections to receivers: resolves the name, checks the addresses, opens a socket and agrees on TLS, each with its own timeout.
//!
//! Invariant: no socket is opened to an address that the [`Guard`] or the tenant's quota refuses, whether it is written in the URL or comes from a name. This holds
//! through `delivery.proxy`, too: the proxy is asked for an address that was checked here.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;
use url::{Host, Url};

use super::failure::Failure;
use super::outgoing::Outgoing;
use super::resolve::{Requester, Resolver};
use super::tls::{HTTP_2, ReceiverTls};
use crate::delivery::egress::Guard;
use crate::delivery::tenant_egress;
use carillon_core::clock::{Stopwatch, deadline_after};
use carillon_core::error_code::TransportError;
use carillon_core::exhaustion::Exhausted;
use carillon_policy::binding::EgressQuota;

/// Time for which one address is tried before the next is tried beside it (RFC 8305, section 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Largest number of a name's addresses that are tried.
const MAX_ADDRESSES: usize = 8;

/// Longest head of a proxy's response, in bytes.
const PROXY_HEAD_LEN: usize = 16 << 10;

/// Opens connections.
pub(super) struct Connector {
    pub(super) resolver: Resolver,
    pub(super) guard: Arc<Guard>,
    pub(super) tls: ReceiverTls,
    /// Proxy through which every connection goes; `None` for direct connections.
    pub(super) proxy: Option<Url>,
    /// Timeout of a connection, TLS included, from when the name is resolved.
    pub(super) timeout: Duration,
    /// Permits for open sockets. The caller has a permit for each connection that it requests.
    pub(super) sockets: Arc<Semaphore>,
}

impl Connector {
    /// Connects to the origin of a request, with a client certificate if there is one.
    pub(super) async fn connect(
        &self,
        requester: Requester,
        outgoing: &Outgoing,
        identity: Option<Arc<CertifiedKey>>,
        deadline: Instant,
    ) -> Result<Stream, Failure> {
        let (url, egress) = (&outgoing.url, outgoing.egress.as_deref());
        self.check(url, egress)?;
        let addresses = self.addresses(requester, url, egress, deadline).await?;
        let port = url.port_or_known_default().unwrap_or_default();
        let (stopwatch, own) = (Stopwatch::start(), deadline_after(self.timeout));
        let deadline = deadline.min(own);
        let no_time = |what: &str| {
            let time = if deadline == own { self.timeout } else { stopwatch.elapsed() };
            format!("{what} within {time:?}")
        };
        let opened = tokio::time::timeout_at(deadline, self.open(requester, addresses, port));
        let stream = opened.await.map_err(|_| Failure::new(TransportError::Connect, no_time("no connection")))??;
        let Some(name) = tls_name(url)? else { return Ok(Stream::plain(stream)) };
        let agreed = tokio::time::timeout_at(deadline, self.tls.connector(identity).connect(name, stream)).await;
        let agreed = agreed.map_err(|_| Failure::new(TransportError::Tls, no_time("no TLS handshake")))?;
        agreed.map(Stream::tls).map_err(|error| Failure::caused_by(TransportError::Tls, &error))
    }

    /// Checks the parts of a target that are known without a connection: the port, and the address if the URL contains one.
    /// `egress` narrows what the guard allows.
    pub(super) fn check(&self, url: &Url, egress: Option<&EgressQuota>) -> Result<(), Failure> {
        let port = url.port_or_known_default().unwrap_or_default();
        self.guard.check_port(port)?;
        egress.map_or(Ok(()), |egress| tenant_egress::check_port(egress, port))?;
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        self.guard.check(address)?;
        Ok(egress.map_or(Ok(()), |egress| tenant_egress::check(egress, address))?)
    }

    /// Returns the addresses of the URL's host that the guard allows. The URL has passed [`Self::check`].
    async fn addresses(
        &self,
        requester: Requester,
        url: &Url,
        egress: Option<&EgressQuota>,
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, Failure> {
        let name = match url.host() {
            // The address is checked already.
            Some(Host::Ipv4(address)) => return Ok(vec![IpAddr::V4(address)]),
            Some(Host::Ipv6(address)) => return Ok(vec![IpAddr::V6(address)]),
            Some(Host::Domain(name)) => name,
            None => return Err(Failure::new(TransportError::Dns, "the URL has no host")),
        };
        let found = tokio::time::timeout_at(deadline, self.resolver.resolve(requester, name)).await;
        let no_time = || {
            Failure::new(
                TransportError::Dns,
                format!("the name `{name}` was not resolved within the request's timeout"),
            )
        };
        let (mut allowed, mut refused) = (Vec::new(), None);
        for address in found.map_err(|_| no_time())?? {
            let by_quota = || egress.map_or(Ok(()), |egress| tenant_egress::check(egress, address));
            match (self.guard.check(address), by_quota()) {
                (Ok(()), Ok(())) => allowed.push(address),
                (Err(error), _) => refused = Some(error.to_string()),
                (Ok(()), Err(error)) => refused = Some(error.to_string()),
            }
        }
        allowed.truncate(MAX_ADDRESSES);
        match refused {
            Some(refused) if allowed.is_empty() => {
                let Requester { tenant, group } = requester;
                tracing::info!(tenant = tenant.0, group = group.0, name, refused, "address of a name refused");
                Err(Failure::refused_name(name))
            }
            _ => Ok(allowed),
        }
    }

    /// Opens a socket to one of the addresses, or a tunnel to one through the proxy.
    async fn open(&self, requester: Requester, addresses: Vec<IpAddr>, port: u16) -> Result<TcpStream, Failure> {
        let targets = addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect::<Vec<_>>();
        let Some(proxy) = &self.proxy else { return self.first_of(targets).await };
        let mut last = None;
        for target in targets {
            match self.tunnel(requester, proxy, target).await {
                Err(failure @ Failure::Transport { .. }) => last = Some(failure),
                opened => return opened,
            }
        }
        Err(last.unwrap_or_else(no_address))
    }

    /// Asks the proxy for a connection to `target`.
    async fn tunnel(&self, requester: Requester, proxy: &Url, target: SocketAddr) -> Result<TcpStream, Failure> {
        let port = proxy.port_or_known_default().unwrap_or_default();
        let addresses = match proxy.host() {
            Some(Host::Ipv4(address)) => vec![IpAddr::V4(address)],
            Some(Host::Ipv6(address)) => vec![IpAddr::V6(address)],
            // The operator chose the proxy: it may be in a network that targets may not be in.
            Some(Host::Domain(name)) => self.resolver.resolve(requester, name).await?,
            None => return Err(Failure::new(TransportError::Connect, "`delivery.proxy` has no host")),
        };
        let addresses = addresses.into_iter().take(MAX_ADDRESSES).map(|address| SocketAddr::new(address, port));
        let mut stream = self.first_of(addresses.collect()).await?;
        let failed = |error: &io::Error| Failure::caused_by(TransportError::Connect, error);
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n");
        if let Some(credentials) = basic(proxy) {
            request.push_str(&format!("proxy-authorization: {credentials}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|error| failed(&error))?;
        let head = proxy_head(&mut stream).await.map_err(|error| failed(&error))?;
        match head.split(' ').nth(1) {
            Some("200") => Ok(stream),
            // The address is not part of the text: whoever may create jobs could look names up with it.
            _ => Err(Failure::new(
                TransportError::Connect,
                format!("the proxy does not connect to the receiver: {head}"),
            )),
        }
    }
}

impl Connector {
    /// Returns the first connection that succeeds.
    ///
    /// Each address is tried when the one before has failed, or, as long as sockets are left, has taken too long.
    async fn first_of(&self, addresses: Vec<SocketAddr>) -> Result<TcpStream, Failure> {
        let (mut waiting, mut trials, mut last) = (addresses.into_iter(), JoinSet::new(), None);
        loop {
            // The first one uses the caller's permit.
            let permit = if trials.is_empty() { None } else { Arc::clone(&self.sockets).try_acquire_owned().ok() };
            let next = if trials.is_empty() || permit.is_some() { waiting.next() } else { None };
            if let Some(address) = next {
                trials.spawn(async move {
                    let connected = TcpStream::connect(address).await;
                    drop(permit);
                    (address, connected)
                });
            }
            match tokio::time::timeout(NEXT_ADDRESS, trials.join_next()).await {
                Ok(Some(Ok((_, Ok(stream))))) => {
                    // Without it small requests wait for an acknowledgement. If the call fails, they only do that.
                    drop(stream.set_nodelay(true));
                    return Ok(stream);
                }
                Ok(Some(Ok((address, Err(error))))) => last = Some(failure_of(address, &error)),
                Ok(Some(Err(error))) => last = Some(Failure::caused_by(TransportError::Connect, &error)),
                Ok(None) => return Err(last.unwrap_or_else(no_address)),
                Err(_) => {}
            }
        }
    }
}

/// Returns the first line of a proxy's response, whose head is read to its end and no further.
async fn proxy_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= PROXY_HEAD_LEN {
            return Err(io::Error::other("the head of the proxy's response is too long"));
        }
        // Bytes after the head do not come from the proxy: they must not be read here.
        head.push(stream.read_u8().await?);
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

fn no_address() -> Failure {
    Failure::new(TransportError::Connect, "the name has no address")
}

/// Returns the failure of a connection.
///
/// Used-up ports and a network that cannot be reached from here have one error number. A datagram socket needs a route and no port of its own
/// to that address, so it tells them apart.
fn failure_of(address: SocketAddr, error: &io::Error) -> Failure {
    let failure = Failure::caused_by(TransportError::Connect, error);
    if !matches!(failure, Failure::Exhausted(Exhausted::Ports)) || is_reachable(address) {
        return failure;
    }
    tracing::debug!(%address, %error, "address not reachable from this server");
    Failure::new(TransportError::Connect, format!("the receiver cannot be reached from this server: {error}"))
}

fn is_reachable(address: SocketAddr) -> bool {
    let unspecified = match address {
        SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0_u16; 8], 0)),
    };
    let probe = |socket: UdpSocket| socket.connect(address);
    // If not even this socket can be opened, a resource is used up.
    UdpSocket::bind(unspecified)
        .map_or_else(|error| Exhausted::from_io(&error).is_some(), |socket| probe(socket).is_ok())
}

/// Returns the name that the receiver's certificate must be for; `None` if the URL is not `https`.
fn tls_name(url: &Url) -> Result<Option<ServerName<'static>>, Failure> {
    if url.scheme() != "https" {
        return Ok(None);
    }
    let name = match url.host() {
        Some(Host::Ipv4(address)) => ServerName::from(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => ServerName::from(IpAddr::V6(address)),
        host => {
            // Certificates do not have the dot that ends an absolute name.
            let name = host.map(|host| host.to_string().trim_end_matches('.').to_owned()).unwrap_or_default();
            ServerName::try_from(name).map_err(|error| Failure::new(TransportError::Tls, error.to_string()))?
        }
    };
    Ok(Some(name))
}

/// Returns a URL's user info as a header's value; `None` if it has none.
pub(super) fn basic(url: &Url) -> Option<String> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut credentials: Vec<u8> = percent_decode_str(url.username()).collect();
    credentials.push(b':');
    credentials.extend(percent_decode_str(url.password().unwrap_or_default()));
    Some(format!("Basic {}", STANDARD.encode(credentials)))
}

/// Byte stream of a connection, in clear or over TLS.
pub(super) struct Stream {
    transport: Transport,
    /// Number of reads that brought bytes.
    reads: Arc<AtomicU64>,
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn plain(stream: TcpStream) -> Self {
        Self { transport: Transport::Plain(stream), reads: Arc::default() }
    }

    fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self { transport: Transport::Tls(Box::new(stream)), reads: Arc::default() }
    }

    /// Returns a number that rises when bytes of HTTP arrive.
    pub(super) fn reads(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.reads)
    }

    /// Returns whether HTTP/2 was negotiated.
    pub(super) fn is_http2(&self) -> bool {
        match &self.transport {
            Transport::Plain(_) => false,
            Transport::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(HTTP_2),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        if buffer.filled().len() > before {
            this.reads.fetch_add(1, Ordering::Release);
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(context),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
