//! What requests leave in the audit log and in the access log: who makes them, what they request, and how they are refused.
//!
//! The one place where the [`Origin`] of a request is made. Changes of configuration are recorded by the catalog, in the transaction of the
//! change; here are recorded, before they take effect, what has no such transaction, and refusals.

mod access_log;
mod refusals;
mod routes;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method, Uri};

pub(super) use self::access_log::log_request;
pub use self::refusals::Refusals;
use self::refusals::{Refusal, Source};
use self::routes::When;
use super::ApiState;
use super::auth_failures::network;
use super::client_address::Peer;
use super::error::Problem;
use carillon_catalog::{ApiToken, NewAuditEntry, Tenant};
use carillon_core::audit::{Actor, ActorKind, AuditObject, Origin, Outcome, Verb};
use carillon_core::clock::Clock;

/// Header of a response with the id of its request.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("carillon-request-id");

/// Methods that are recorded by their names.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Longest name of an object that a refused request leaves in the log, in bytes.
const MAX_NAME_LEN: usize = 255;

/// Makes the ids of requests: unique in this process, and by a random part among processes.
pub struct RequestIds {
    process: String,
    next: AtomicU64,
}

impl RequestIds {
    /// Creates the ids of a process.
    #[must_use]
    pub fn new(clock: &dyn Clock) -> Self {
        let mut random = [0; 6];
        clock.fill_random(&mut random);
        Self { process: hex::encode(random), next: AtomicU64::new(1) }
    }

    fn next(&self) -> String {
        format!("{}-{:x}", self.process, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// Client of a request, before it is known who that is.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Address of the client.
    pub(super) address: Option<IpAddr>,
    /// Id of the request.
    pub(super) request_id: Arc<str>,
}

impl Caller {
    /// Returns the caller of a request, which has an id from now on.
    pub(super) fn enter(ids: &RequestIds, request: &mut Request) -> Self {
        let caller = Self { address: Peer::address(request.extensions()), request_id: ids.next().into() };
        request.extensions_mut().insert(caller.clone());
        caller
    }

    /// Returns the caller of a request that has entered.
    pub(super) fn from_request(request: &Request) -> Result<Self, Problem> {
        request.extensions().get::<Self>().cloned().ok_or_else(Problem::internal)
    }

    /// Returns the id as the value of a header.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.request_id).ok()
    }

    /// Returns the origin of what the bearer of a token does; without a token, the client is not known.
    pub(super) fn origin(&self, token: Option<&ApiToken>) -> Origin {
        let actor = match token {
            Some(token) => Actor {
                kind: ActorKind::Token,
                token: Some(token.id.clone()),
                name: Some(token.name.clone()),
                role: Some(format!("{:?}", token.role).to_lowercase()),
                operator: token.operator,
            },
            None => Actor::new(ActorKind::Anonymous),
        };
        Origin { actor, address: self.address, request_id: Some(self.request_id.to_string()) }
    }
}

/// Client of a response: its token, and the tenant that the request was about. In the extensions of a response whose client is known.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Client of the request.
    pub(super) caller: Caller,
    /// Its token, if one was asked for.
    pub(super) token: Option<Arc<ApiToken>>,
    /// Tenant that the request was about.
    pub(super) tenant: Arc<Tenant>,
}

impl Known {
    /// Returns the origin of what the request changes.
    pub(super) fn origin(&self) -> Origin {
        self.caller.origin(self.token.as_deref())
    }
}

/// What a request was about: its method and the pattern of its route.
#[derive(Clone, Debug)]
pub(super) struct Requested {
    method: Method,
    /// Pattern of the route; `None` if no route has the path.
    route: Option<MatchedPath>,
    uri: Uri,
}

impl Requested {
    pub(super) fn from_request(request: &Request) -> Self {
        let (method, route) = (request.method().clone(), request.extensions().get::<MatchedPath>().cloned());
        Self { method, route, uri: request.uri().clone() }
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    /// Returns the method as it is recorded: clients can invent others, of any length.
    fn method_name(&self) -> &str {
        let name = self.method.as_str();
        if METHODS.contains(&name) { name } else { "other" }
    }

    pub(super) fn route(&self) -> Option<&str> {
        self.route.as_ref().map(MatchedPath::as_str)
    }

    /// Returns the verb, and the thing that the path names.
    fn verb(&self) -> (Verb, AuditObject) {
        let route = self.route().unwrap_or("none");
        match routes::find(&self.method, route) {
            Some(found) => (found.verb, AuditObject::new(found.kind, self.name(route))),
            None => (Verb::REQUEST, AuditObject::new("route", Some(format!("{} {route}", self.method_name())))),
        }
    }

    /// Returns what the first variable part of the route is in the path, unless it is no name or a secret.
    fn name(&self, route: &str) -> Option<String> {
        let mut parts = route.split('/').zip(self.uri.path().split('/'));
        let (variable, value) = parts.find(|(pattern, _)| pattern.starts_with('{'))?;
        // The token of a lease is what its holder proves it with.
        let is_name = variable != "{token}" && value.len() <= MAX_NAME_LEN;
        is_name.then(|| value.chars().map(|letter| if letter.is_ascii_graphic() { letter } else { '?' }).collect())
    }
}

/// Returns what is to be recorded of a request before it takes effect; `None` if nothing is, or if something else records it.
pub(super) fn recorded(api: &ApiState, request: &Request) -> Option<(Verb, AuditObject)> {
    let route = request.extensions().get::<MatchedPath>()?;
    let when = routes::find(request.method(), route.as_str())?.when;
    let is_recorded = when == When::Before || (when == When::Job && api.config.audit_jobs);
    is_recorded.then(|| Requested::from_request(request).verb())
}

/// Records what a known client requests, before it takes effect.
///
/// # Errors
/// Returns the store's error: what cannot be recorded is not done.
pub(super) async fn requested(api: &ApiState, known: &Known, verb: Verb, object: AuditObject) -> Result<(), Problem> {
    let (origin, outcome) = (&known.origin(), Outcome::Requested);
    let new = NewAuditEntry { origin, tenant: Some(&known.tenant), verb, object, outcome, count: 1 };
    Ok(api.services.catalog.record(new).await?)
}

/// Records a request that was refused. Entries are bounded for each address or token: see [`Refusals`].
pub(super) async fn refused(
    api: &Arc<ApiState>,
    requested: &Requested,
    caller: &Caller,
    known: Option<&Known>,
    outcome: Outcome,
) {
    let (verb, object) = requested.verb();
    let origin = known.map_or_else(|| caller.origin(None), Known::origin);
    let source = match &origin.actor.token {
        Some(token) => Source::Token(token.clone()),
        None => Source::Address(caller.address.map(network)),
    };
    let refusal = Refusal { origin, tenant: known.map(|known| Arc::clone(&known.tenant)), verb, object, outcome };
    let api = Arc::clone(api);
    // A client that hangs up does not end it.
    let recorded = tokio::spawn(async move { api.refusals.note(&api.services.catalog, source, refusal).await });
    if recorded.await.is_err() {
        tracing::error!("recording a refusal panicked");
    }
}
