//! A receiver over TLS that speaks HTTP/2 and HTTP/1.1, and may ask for a client certificate.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::{eventually, soon, tls_file};

/// Whether a receiver asks for a certificate by the authority `other-ca`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    No,
    /// It takes requests without one, too.
    Optionally,
    Strictly,
}

/// How a receiver behaves.
#[derive(Clone)]
pub struct TlsSetup {
    pub protocols: &'static [&'static str],
    pub asks: Asks,
    pub max_streams: u32,
    /// Status and `Location` of the responses.
    pub status: u16,
    pub location: Option<String>,
    /// Number of responses on a connection of HTTP/2 after which it takes leave.
    pub responses: Option<usize>,
    /// Number of requests for which no response comes.
    pub unanswered: usize,
}

impl Default for TlsSetup {
    fn default() -> Self {
        let protocols = &["h2", "http/1.1"];
        Self {
            protocols,
            asks: Asks::No,
            max_streams: 200,
            status: 200,
            location: None,
            responses: None,
            unanswered: 0,
        }
    }
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct TlsArrival {
    /// Number of its connection, from 0.
    pub connection: usize,
    pub version: hyper::Version,
    /// `:authority`, or `Host`.
    pub authority: String,
    pub path: String,
    pub has_certificate: bool,
    pub body: Bytes,
}

struct State {
    setup: TlsSetup,
    arrivals: Mutex<Vec<TlsArrival>>,
    /// A request takes a permit for its response.
    gate: Semaphore,
}

/// A receiver for `localhost`, certified by `ca`.
pub struct TlsReceiver {
    port: u16,
    state: Arc<State>,
}

impl TlsReceiver {
    pub async fn start(setup: TlsSetup) -> Self {
        let receiver = Self::gated(setup).await;
        receiver.open(Semaphore::MAX_PERMITS >> 1);
        receiver
    }

    /// The same, but that no response comes before the gate is opened.
    pub async fn gated(setup: TlsSetup) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let chain = CertificateDer::pem_file_iter(tls_file("server.pem")).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(tls_file("server.key")).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(tls_file("other-ca.pem")).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots));
        let builder = ServerConfig::builder();
        let builder = match setup.asks {
            Asks::No => builder.with_no_client_auth(),
            Asks::Optionally => builder.with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap()),
            Asks::Strictly => builder.with_client_cert_verifier(verifier.build().unwrap()),
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = setup.protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State { setup, arrivals: Mutex::default(), gate: Semaphore::new(0) });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        converse(stream, connection, state).await;
                    }
                });
            }
        });
        Self { port, state }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// Lets so many more responses out.
    pub fn open(&self, responses: usize) {
        self.state.gate.add_permits(responses);
    }

    pub fn arrivals(&self) -> Vec<TlsArrival> {
        self.state.arrivals.lock().unwrap().clone()
    }

    /// Waits until so many requests have arrived.
    pub async fn arrived(&self, count: usize) -> Vec<TlsArrival> {
        let what = format!("{count} requests arrive over TLS");
        eventually(&what, async || self.arrivals(), |arrivals| arrivals.len() >= count).await
    }
}

async fn converse(
    stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    connection: usize,
    state: Arc<State>,
) {
    let session = stream.get_ref().1;
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let has_certificate = session.peer_certificates().is_some();
    let (answered, mut count) = watch::channel(0);
    let (responses, max_streams) = (state.setup.responses, state.setup.max_streams);
    let service = service_fn(move |request: Request<Incoming>| {
        let (state, answered) = (Arc::clone(&state), answered.clone());
        async move {
            let response = answer(request, connection, has_certificate, &state).await;
            answered.send_modify(|count| *count += 1);
            Ok::<_, Infallible>(response)
        }
    });
    let io = TokioIo::new(stream);
    if !is_http2 {
        drop(hyper::server::conn::http1::Builder::new().serve_connection(io, service).await);
        return;
    }
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let mut connection = std::pin::pin!(builder.max_concurrent_streams(max_streams).serve_connection(io, service));
    let leave = async {
        match responses {
            Some(most) => drop(count.wait_for(|count| *count >= most).await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = connection.as_mut() => return,
        () = leave => connection.as_mut().graceful_shutdown(),
    }
    drop(connection.await);
}

async fn answer(
    request: Request<Incoming>,
    connection: usize,
    has_certificate: bool,
    state: &State,
) -> Response<Full<Bytes>> {
    let host = request.headers().get("host").and_then(|host| host.to_str().ok()).map(str::to_owned);
    let authority = request.uri().authority().map(ToString::to_string).or(host).unwrap_or_default();
    let (version, path) = (request.version(), request.uri().path().to_owned());
    let body = soon("a body", request.into_body().collect()).await.map(|body| body.to_bytes()).unwrap_or_default();
    let number = {
        let mut arrivals = state.arrivals.lock().unwrap();
        arrivals.push(TlsArrival { connection, version, authority, path, has_certificate, body });
        arrivals.len()
    };
    if number <= state.setup.unanswered {
        return std::future::pending().await;
    }
    state.gate.acquire().await.unwrap().forget();
    let mut response = Response::new(Full::new(Bytes::from_static(b"ok")));
    *response.status_mut() = state.setup.status.try_into().unwrap();
    if let Some(location) = &state.setup.location {
        response.headers_mut().insert("location", location.parse().unwrap());
    }
    response
}
