//! What happens, as it happens: server-sent events (the HTML standard, section 9.2).
//!
//! A stream begins behind the newest event, or behind the one that `Last-Event-ID` names; what the ring no longer holds is answered
//! with an event `gap`. A client that does not read falls behind in the ring and delays nobody. Streams are bounded in number. One
//! ends with the server, and when the token that opened it is no longer good.

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event as Message, Sse};
use axum::response::{AppendHeaders, IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};

use super::super::ApiState;
use super::super::auth::{Access, is_good, until_revoked};
use super::super::error::Problem;
use super::super::input::Query;
use super::super::port::Endless;
use super::super::scope::is_visible;
use super::audit::AuditEventView;
use super::find_group;
use carillon_catalog::AccessRole;
use carillon_core::clock::UnixMs;
use carillon_core::event_kind::EventKind;
use carillon_core::job::{JobId, Metadata, TenantId};
use carillon_core::shares::Holding;
use carillon_telemetry::{Cursor, Event, Fact, Found};

/// How long a stream says nothing, at most: proxies close connections that are silent for longer.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a client waits before it comes back.
const RECONNECT: Duration = Duration::from_secs(1);

/// What a client that comes back says.
const LAST_EVENT_ID: &str = "last-event-id";

/// The kind of an event that says that others are missing.
const GAP: &str = "gap";

/// Keeps nginx, and proxies that follow it, from holding a stream back.
const UNBUFFERED: (&str, &str) = ("x-accel-buffering", "no");

/// Filter of events.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct Filter {
    /// Only events of this group.
    group: Option<String>,
    /// Only events of these kinds, separated by commas. Default: all but `audit`, which takes the role `admin`.
    kind: Option<String>,
    /// Only events of the job with this id.
    job: Option<String>,
    /// Id of the last event that the client has seen: the same as the header `Last-Event-ID`, for clients that cannot set headers.
    last_event_id: Option<String>,
}

/// Event. Which fields are present depends on `kind`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct EventView {
    /// Id, which rises with each event. A string, because it has more digits than a JavaScript number can hold.
    id: String,
    /// Kind: `push`, `pop`, `empty`, `complete`, `expire`, `retry`, `error`, `debounce_hit`, `debounce_miss`, `debounce_error`, `dedupe_hit`,
    /// `hold`, `release`, `interrupt`, `cancel`, `edit`, `reschedule`, `redrive`, `purge`, `skip`, `breaker_open`, `breaker_close`,
    /// `receiver_pause`, `promote`, `rollback`, `quarantine`, `unquarantine`, `shadow_difference`, `audit`; or `gap`: events before this one are
    /// missing. More may be added.
    kind: &'static str,
    /// Time of the event.
    #[schema(format = DateTime)]
    at: String,
    /// Name of the group; absent if the group was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// Id of the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    /// Name of the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Number of the attempt, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    /// HTTP status of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// Code of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Time when the next attempt is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    run_at: Option<String>,
    /// Reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Number of jobs, if the event is about several.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    /// Name of the schedule that the event is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<String>,
    /// Receiver that the event is about: scheme, host and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    /// Version of the group's policy that the event is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    binding: Option<i64>,
    /// Entry of the audit log, for admins.
    #[serde(skip_serializing_if = "Option::is_none")]
    audit: Option<AuditEventView>,
    /// Labels of the job.
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    metadata: Metadata,
}

/// What a client wants to see.
struct Wanted {
    group: Option<String>,
    kinds: Option<HashSet<EventKind>>,
    job: Option<JobId>,
}

/// An open stream.
struct Live {
    api: Arc<ApiState>,
    access: Access,
    wanted: Wanted,
    cursor: Cursor,
    /// What was read and is not yet sent.
    pending: VecDeque<Event>,
    /// What is sent before all events.
    greeting: Option<Message>,
    _place: Holding,
}

/// Streams the events of the tenant as server-sent events: all from now on, or all after the event that `Last-Event-ID` names.
#[utoipa::path(get, path = "/v1/events", operation_id = "events_stream", tag = "events",
    params(Filter, ("Last-Event-ID" = Option<String>, Header, description = "Id of the last event that the client has seen.")),
    responses((status = 200, content_type = "text/event-stream", body = EventView), (status = "4XX", body = Problem),
        (status = 503, body = Problem)))]
pub(in super::super) async fn events(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Query(filter): Query<Filter>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let seen = seen(&headers, filter.last_event_id.as_deref())?;
    let wanted = Wanted::new(&api, &access, filter)?;
    let place = api.pools.stream(access.tenant.id)?;
    let cursor = seen.unwrap_or_else(|| api.services.telemetry.events.newest());
    let mut greeting = Message::default().comment("carillon events").retry(RECONNECT);
    if seen.is_none() {
        // Who is cut off before the first event comes back to this place.
        greeting = greeting.id(cursor.0.to_string());
    }
    let (greeting, pending) = (Some(greeting), VecDeque::new());
    let live = Live { api, access, wanted, cursor, pending, greeting, _place: place };
    let messages = stream::unfold(live, |mut live| async move {
        let message = live.next().await?;
        Some((Ok::<_, Infallible>(message), live))
    });
    let mut response = (AppendHeaders([UNBUFFERED]), Sse::new(messages)).into_response();
    response.extensions_mut().insert(Endless);
    Ok(response)
}

/// Where the client stopped reading, if it says so. The header is newer than a query that is part of its URL.
fn seen(headers: &HeaderMap, query: Option<&str>) -> Result<Option<Cursor>, Problem> {
    let malformed = || Problem::malformed(None, "`Last-Event-ID` is not the id of an event of this server");
    let header = headers.get(LAST_EVENT_ID).map(|value| value.to_str().map_err(|_| malformed())).transpose()?;
    let text = header.or(query).filter(|text| !text.is_empty());
    text.map(|text| text.parse().map(Cursor).map_err(|_| malformed())).transpose()
}

impl Wanted {
    fn new(api: &ApiState, access: &Access, filter: Filter) -> Result<Self, Problem> {
        if let Some(group) = &filter.group {
            find_group(api, access, group)?;
        }
        let malformed = |error: String| Problem::malformed(None, error);
        let kinds = |kinds: &str| kinds.split(',').map(|kind| kind.trim().parse()).collect::<Result<_, _>>();
        let job = filter
            .job
            .as_deref()
            .map(|id| id.parse().map_err(|_| malformed(format!("`{}` is not the id of a job", id.escape_debug()))));
        let kinds: Option<HashSet<EventKind>> = filter.kind.as_deref().map(kinds).transpose().map_err(malformed)?;
        let is_admin = access.role == AccessRole::Admin && access.groups.is_none();
        if !is_admin && kinds.as_ref().is_some_and(|kinds| kinds.contains(&EventKind::Audit)) {
            return Err(Problem::forbidden("events of the kind `audit` are for admins whose token has all groups"));
        }
        Ok(Self { kinds, job: job.transpose()?, group: filter.group })
    }

    /// Whether the fact is of a wanted kind and job; its group has a name only once it is shown.
    fn has(&self, fact: &Fact) -> bool {
        let is_kind = match &self.kinds {
            Some(kinds) => kinds.contains(&fact.kind),
            None => fact.kind != EventKind::Audit,
        };
        is_kind && self.job.is_none_or(|job| fact.about.job == Some(job))
    }
}

impl Live {
    /// What is sent next; none is the end.
    async fn next(&mut self) -> Option<Message> {
        if let Some(greeting) = self.greeting.take() {
            return Some(greeting);
        }
        let (api, access) = (Arc::clone(&self.api), self.access.clone());
        let silent_until = api.services.clock.now().plus(KEEP_ALIVE);
        loop {
            // Before anything else: what was read for a client is not sent to it when its token is no longer good.
            if !is_good(&api, &access) {
                return None;
            }
            while let Some(event) = self.pending.pop_front() {
                if let Some(message) = self.message(&event) {
                    return Some(message);
                }
            }
            // Seen before the last look, so that what was recorded before the end is still sent.
            let is_over = api.lifecycle.end.is_cancelled();
            let recorded = api.services.telemetry.events.recorded().notified();
            tokio::pin!(recorded);
            recorded.as_mut().enable();
            let wanted = &self.wanted;
            let Found { lost_until, events, more, .. } =
                api.services
                    .telemetry
                    .events
                    .read_of_each(&tenants_of(&access, wanted), &mut self.cursor, |fact| wanted.has(fact));
            self.pending.extend(events);
            if let Some(id) = lost_until {
                return gap(id, api.services.clock.now());
            }
            if more || !self.pending.is_empty() {
                // However much there is: one stream does not keep a thread for itself.
                tokio::task::yield_now().await;
                continue;
            }
            if is_over {
                return None;
            }
            tokio::select! {
                // What was recorded before the sign of life is looked at before it.
                biased;
                () = recorded => {}
                // The id tells how far the client has seen what it did not want to see.
                () = api.services.clock.sleep_until(silent_until) => {
                    return Some(Message::default().comment("still here").id(self.cursor.0.to_string()));
                }
                () = until_revoked(&api, &access) => return None,
                () = api.lifecycle.end.cancelled() => {}
            }
        }
    }

    /// The event as a message, if the client wants to see it.
    fn message(&self, event: &Event) -> Option<Message> {
        let group = self.api.services.catalog.group_by_id(event.fact.about.group).map(|group| group.name.clone());
        if self.wanted.group.is_some() && self.wanted.group != group {
            return None;
        }
        if event.fact.kind != EventKind::Audit && !is_visible(&self.api, &self.access, event.fact.about.group) {
            return None;
        }
        let audit = event.fact.details.audit.as_ref().map(|entry| AuditEventView::new(entry, &self.access));
        message(&EventView { audit, ..EventView::from_event(event, group) })
    }
}

/// Returns whose facts a request sees. Those of no tenant are entries of the audit log, which operators see if they want entries.
fn tenants_of(access: &Access, wanted: &Wanted) -> Vec<TenantId> {
    let wants_entries = wanted.kinds.as_ref().is_some_and(|kinds| kinds.contains(&EventKind::Audit));
    let none = (access.operator && wants_entries).then_some(TenantId(0));
    [access.tenant.id].into_iter().chain(none).collect()
}

fn gap(lost_until: u64, now: UnixMs) -> Option<Message> {
    let reason = "events before this one are no longer kept, or were lost with a restart";
    message(&EventView { reason: Some(reason.to_owned()), ..EventView::new(lost_until, GAP, now) })
}

fn message(view: &EventView) -> Option<Message> {
    Message::default().id(&view.id).event(view.kind).json_data(view).ok()
}

impl EventView {
    fn new(id: u64, kind: &'static str, at: UnixMs) -> Self {
        Self {
            id: id.to_string(),
            kind,
            at: at.to_string(),
            group: None,
            job: None,
            name: None,
            attempt: None,
            status: None,
            error: None,
            run_at: None,
            reason: None,
            count: None,
            schedule: None,
            origin: None,
            binding: None,
            audit: None,
            metadata: Metadata::default(),
        }
    }

    fn from_event(event: &Event, group: Option<String>) -> Self {
        let (about, details) = (&event.fact.about, &event.fact.details);
        Self {
            group,
            job: about.job.map(|job| job.to_string()),
            name: about.name.clone(),
            attempt: details.attempt,
            status: details.status,
            error: details.error.as_ref().map(|code| code.as_str().to_owned()),
            run_at: details.run_at.map(|at| at.to_string()),
            reason: details.reason.clone(),
            count: details.count,
            schedule: details.schedule.clone(),
            origin: details.origin.clone(),
            binding: details.binding,
            metadata: about.metadata.clone(),
            ..Self::new(event.id, event.fact.kind.as_str(), event.fact.at)
        }
    }
}
