//! Pools that all tenants share: places for requests, for waiting consumers and for event streams, and bytes of requests' bodies.
//!
//! A request takes its place after its client is known, so that each tenant has its share; a request without a token takes none. The bytes of
//! its body are reserved before they are read, and stay reserved until its handler has ended, which holds what was parsed of them.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};

use super::error::Problem;
use carillon_catalog::Catalog;
use carillon_core::job::TenantId;
use carillon_core::shares::{Holding, Shares, Tenancy};
use carillon_telemetry::Telemetry;

/// Largest part of the bytes of bodies that one of several tenants may hold.
const MAX_BODY_SHARE: f64 = 0.25;

/// Settings that bound the pools.
const REQUESTS: &str = "server.concurrent_requests";
const STREAMS: &str = "events.streams";
const BODIES: &str = "limits.bodies";

/// Sizes of the pools.
#[derive(Clone, Copy, Debug)]
pub struct PoolSizes {
    /// Number of requests; as many consumers may wait besides.
    pub requests: usize,
    /// Number of event streams.
    pub streams: usize,
    /// Bytes of bodies.
    pub body_bytes: usize,
    /// Part of a pool that one of several tenants may hold.
    pub tenant_share: f64,
}

/// Pools of a server.
pub struct Pools {
    requests: Arc<Shares>,
    waits: Arc<Shares>,
    streams: Arc<Shares>,
    bodies: Arc<Shares>,
    catalog: Arc<Catalog>,
    telemetry: Arc<Telemetry>,
}

/// Place of a request, which a long poll gives back while it waits. An extension of each request with a known client.
#[derive(Clone, Debug)]
pub(super) struct RequestPlace(Arc<Mutex<Option<Holding>>>);

impl RequestPlace {
    fn release(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// A request that was let in. Its place and the bytes of its body are returned when this is dropped.
pub(super) struct RequestGuard {
    place: RequestPlace,
    body: Option<Arc<ReservedBytes>>,
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.place.release();
    }
}

impl RequestGuard {
    /// Returns why the body was not read to its end, if there was no room for the rest of it.
    pub(super) fn cut_off(&self) -> Option<Problem> {
        self.body.as_ref().filter(|body| body.lock().is_cut_off).map(|_| no_room())
    }
}

/// Ends the connection of a request after the response. An extension of each request.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionEnd(Arc<AtomicBool>);

impl ConnectionEnd {
    fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Marks the response as the last of its connection, if that was requested.
    pub(super) fn mark(&self, response: &mut Response) {
        if self.0.load(Ordering::Relaxed) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

fn no_room() -> Problem {
    Problem::unavailable("the bodies of the requests at this moment leave no room for this one (`limits.bodies`)")
}

impl Pools {
    /// Creates empty pools.
    #[must_use]
    pub fn new(sizes: PoolSizes, catalog: Arc<Catalog>, telemetry: Arc<Telemetry>) -> Self {
        let PoolSizes { requests, streams, body_bytes, tenant_share } = sizes;
        Self {
            requests: Shares::new(requests, tenant_share),
            waits: Shares::new(requests, tenant_share),
            streams: Shares::new(streams, tenant_share),
            bodies: Shares::new(body_bytes, tenant_share.min(MAX_BODY_SHARE)),
            catalog,
            telemetry,
        }
    }

    /// Lets a request of a tenant in: gives it a place, and reserves the bytes of its body. A body without a length is reserved as it
    /// arrives.
    ///
    /// # Errors
    /// Returns 503 if the tenant may not have either now.
    pub(super) fn admit(&self, tenant: TenantId, request: Request) -> Result<(Request, RequestGuard), Problem> {
        let tenancy = self.catalog.tenancy();
        let place = self.requests.take_place(tenant, tenancy);
        let place = place.ok_or_else(|| {
            self.refuse(REQUESTS, "too many requests at once (`server.concurrent_requests`)".to_owned())
        })?;
        let place = RequestPlace(Arc::new(Mutex::new(Some(place))));
        let mut guard = RequestGuard { place: place.clone(), body: None };
        let mut request = request;
        request.extensions_mut().insert(place);
        if request.body().is_end_stream() {
            return Ok((request, guard));
        }
        let end = request.extensions().get::<ConnectionEnd>().cloned().unwrap_or_default();
        let length = HttpBody::size_hint(request.body()).exact().unwrap_or(0);
        let Some(holding) = self.bodies.take(tenant, length, tenancy) else {
            end.request();
            self.telemetry.metrics.refused(BODIES);
            return Err(no_room());
        };
        let reserved = Reserved { holding: Some(holding), unread: length, is_cut_off: false };
        let telemetry = Arc::clone(&self.telemetry);
        let reserved = Arc::new(ReservedBytes { reserved: Mutex::new(reserved), tenancy, end, telemetry });
        guard.body = Some(Arc::clone(&reserved));
        Ok((request.map(|body| Body::new(ReservedBody { body, reserved })), guard))
    }

    /// Gives a request a place among those that wait for a job, in exchange for its place among the requests.
    ///
    /// # Errors
    /// Returns 503 if the tenant may not have one now.
    pub(super) fn wait(&self, tenant: TenantId, request: &RequestPlace) -> Result<Holding, Problem> {
        let place = self.waits.take_place(tenant, self.catalog.tenancy());
        let place = place.ok_or_else(|| {
            self.refuse(REQUESTS, "too many consumers wait at once (`server.concurrent_requests`)".to_owned())
        })?;
        request.release();
        Ok(place)
    }

    /// Gives a tenant a place for an event stream.
    ///
    /// # Errors
    /// Returns 503 if the tenant may not have one now.
    pub(super) fn stream(&self, tenant: TenantId) -> Result<Holding, Problem> {
        let place = self.streams.take_place(tenant, self.catalog.tenancy());
        place.ok_or_else(|| self.refuse(STREAMS, "too many event streams at once (`events.streams`)".to_owned()))
    }

    /// Returns the number of open event streams.
    pub(super) fn open_streams(&self) -> usize {
        usize::try_from(self.streams.held()).unwrap_or(usize::MAX)
    }

    fn refuse(&self, bound: &'static str, detail: String) -> Problem {
        self.telemetry.metrics.refused(bound);
        Problem::unavailable(detail)
    }
}

/// Bytes that are reserved for the body of one request.
struct ReservedBytes {
    reserved: Mutex<Reserved>,
    tenancy: Tenancy,
    end: ConnectionEnd,
    telemetry: Arc<Telemetry>,
}

struct Reserved {
    /// `None` once the body was cut off.
    holding: Option<Holding>,
    /// Reserved bytes that have not arrived.
    unread: u64,
    is_cut_off: bool,
}

impl ReservedBytes {
    fn lock(&self) -> MutexGuard<'_, Reserved> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts bytes that have arrived; returns whether there is room for them.
    fn arrived(&self, bytes: u64) -> bool {
        let mut reserved = self.lock();
        let more = bytes.saturating_sub(reserved.unread);
        reserved.unread = reserved.unread.saturating_sub(bytes);
        if more == 0 || reserved.holding.as_mut().is_some_and(|holding| holding.grow(more, self.tenancy)) {
            return true;
        }
        reserved.is_cut_off = true;
        drop(reserved);
        self.end.request();
        self.telemetry.metrics.refused(BODIES);
        false
    }
}

/// Body of a request whose bytes are reserved.
struct ReservedBody {
    body: Body,
    reserved: Arc<ReservedBytes>,
}

impl HttpBody for ReservedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
            && !self.reserved.arrived(u64::try_from(data.len()).unwrap_or(u64::MAX))
        {
            let error = std::io::Error::new(std::io::ErrorKind::OutOfMemory, "no room for the body");
            return Poll::Ready(Some(Err(axum::Error::new(error))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
