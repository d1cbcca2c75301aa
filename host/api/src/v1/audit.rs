//! The audit log: read by admins, verified by operators.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::ApiState;
use super::super::auth::Access;
use super::super::error::Problem;
use super::super::input::{Query, time};
use super::{Page, Paging, foreign_cursor};
use carillon_core::audit::{Actor, AuditEntry, AuditId, AuditObject, Outcome};
use carillon_core::clock::UnixMs;
use carillon_store::audit::{BrokenLink, Rest, check_rows};
use carillon_store::{AuditQuery, ChainHead, Chained};

/// Number of entries that one request verifies at most.
const VERIFIED_AT_ONCE: u32 = 1_000;

/// Filter of entries.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct Filter {
    /// Only entries of this actor: the id of a token, or `system`, `configuration` or `anonymous`. The token that the configuration names has the id
    /// `configuration`, too.
    actor: Option<String>,
    /// Only entries with this verb, such as `key.put`.
    verb: Option<String>,
    /// Only entries about this thing: its kind, such as `key`, or its kind and name, such as `key/stripe`.
    object: Option<String>,
    /// Only entries at this time or later: RFC 3339, Unix seconds, or `+90s`.
    from: Option<String>,
    /// Only entries before this time: RFC 3339, Unix seconds, or `+90s`.
    to: Option<String>,
}

/// Entry of the audit log, with its place among the entries of its node.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct AuditEntryView {
    #[serde(flatten)]
    entry: AuditEventView,
    /// Number of the entry among those of the node, from 1.
    number: i64,
    /// Digest of the node's entry before this one; empty for the first.
    previous: String,
    /// Digest of the entry.
    digest: String,
}

/// Entry of the audit log.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct AuditEventView {
    /// Id of the entry.
    id: String,
    /// Time of the change.
    #[schema(format = DateTime)]
    at: String,
    /// Name of the node that made the change.
    node: String,
    /// Author of the change.
    actor: Actor,
    /// Name of the tenant; null for entries of the server, which only operators see.
    tenant: Option<String>,
    /// What was done, or was refused, such as `key.put`.
    verb: String,
    /// What it was done to.
    object: AuditObject,
    /// JSON pointers to the members that changed. No entry has their values.
    changed: Vec<String>,
    /// Address of the client; null if there was none. Only operators see that of an operator.
    address: Option<String>,
    /// Id of the request, as its response has it in `Carillon-Request-Id`; null if there was none.
    request_id: Option<String>,
    /// Result.
    outcome: Outcome,
    /// Number of equal requests that the entry stands for.
    count: u64,
}

impl AuditEventView {
    /// Returns an entry as a reader sees it.
    pub(super) fn new(entry: &AuditEntry, access: &Access) -> Self {
        let hides_address = entry.actor.operator && !access.operator;
        Self {
            id: entry.id.to_string(),
            at: entry.at.to_string(),
            node: entry.node.clone(),
            address: entry.address.filter(|_| !hides_address).map(|address| address.to_string()),
            actor: entry.actor.clone(),
            tenant: entry.tenant.as_ref().map(|tenant| tenant.name.clone()),
            verb: entry.verb.as_str().to_owned(),
            object: entry.object.clone(),
            changed: entry.changed.clone(),
            request_id: entry.request_id.clone(),
            outcome: entry.outcome,
            count: entry.count,
        }
    }
}

impl AuditEntryView {
    fn new(Chained { entry, number, previous, digest }: Chained, access: &Access) -> Self {
        Self { entry: AuditEventView::new(&entry, access), number, previous, digest }
    }
}

/// Lists the entries of the audit log, newest first. An admin sees those of the tenant; an operator sees all, or with `Carillon-Tenant` those of
/// one tenant.
#[utoipa::path(get, path = "/v1/audit", operation_id = "audit_list", tag = "audit", params(Filter, Paging),
    responses((status = 200, body = Page<AuditEntryView>), (status = "4XX", body = Problem)))]
pub(in super::super) async fn list(
    State(api): State<Arc<ApiState>>,
    Extension(access): Extension<Access>,
    Query(filter): Query<Filter>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<AuditEntryView>>, Problem> {
    let (limit, now) = (paging.limit()?, api.services.clock.now());
    let before =
        paging.cursor.as_ref().map(|cursor| cursor.parse::<AuditId>().map_err(|_| foreign_cursor())).transpose()?;
    let object = filter.object.as_ref().map(|object| match object.split_once('/') {
        Some((kind, name)) => (kind.to_owned(), Some(name.to_owned())),
        None => (object.clone(), None),
    });
    let (kind, name) = object.unzip();
    let query = AuditQuery {
        tenant: access.audited_tenant().map(|tenant| tenant.0),
        actor: filter.actor,
        verb: filter.verb,
        kind,
        name: name.flatten(),
        from: instant("from", filter.from, now)?,
        to: instant("to", filter.to, now)?,
        before,
        limit: limit.saturating_add(1),
    };
    let found = api.services.store.audit(query).await?;
    let page = Page::cut(found, limit, |chained| chained.entry.id.to_string());
    let page = page.shown(|chained| Ok(AuditEntryView::new(chained, &access)))?;
    Ok(Json(page.within(api.config.limits.answer)))
}

fn instant(name: &str, text: Option<String>, now: UnixMs) -> Result<Option<UnixMs>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let value = text.parse().map_or_else(|_| Value::String(text), Value::Number);
    time(&value, now).map(Some).map_err(|detail| Problem::parameter(name, format!("`{name}`: {detail}")))
}

/// Part of the log to verify.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct Part {
    /// Cursor: `next_cursor` of the response before. Default: the beginning.
    cursor: Option<String>,
}

/// Result of a verification of the audit log.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct AuditVerificationView {
    /// Number of entries that were verified.
    verified: usize,
    /// Entries that are not as they were written, or before which others are missing.
    broken: Vec<BrokenLink>,
    /// Cursor for the verification of the next entries; null if these were the last.
    next_cursor: Option<String>,
}

/// Verifies that entries of the audit log are as they were written, and that none is missing: up to 1,000 of them, node by node from the oldest on.
#[utoipa::path(get, path = "/v1/audit/verify", operation_id = "audit_verify", tag = "audit", params(Part),
    responses((status = 200, body = AuditVerificationView), (status = "4XX", body = Problem)))]
pub(in super::super) async fn verify(
    State(api): State<Arc<ApiState>>,
    Query(part): Query<Part>,
) -> Result<Json<AuditVerificationView>, Problem> {
    let before = part.cursor.as_deref().map(head_of).transpose()?;
    // Read first: entries that are written meanwhile are newer than it.
    let heads = api.services.store.audit_heads().await?;
    let after = before.as_ref().map_or_else(Default::default, |head| (head.node.clone(), head.number));
    let rows = api.services.store.audit_chain(after, VERIFIED_AT_ONCE).await?;
    let is_last = rows.len() < usize::try_from(VERIFIED_AT_ONCE).unwrap_or(usize::MAX);
    let (broken, last) = check_rows(before, &rows, &heads, if is_last { Rest::None } else { Rest::Some });
    let next_cursor = last.filter(|_| !is_last).map(|last| cursor_of(&last));
    Ok(Json(AuditVerificationView { verified: rows.len(), broken, next_cursor }))
}

/// Returns the cursor behind an entry: its digest and number, and the node.
fn cursor_of(head: &ChainHead) -> String {
    format!("{}.{}.{}", head.digest, head.number, hex::encode(&head.node))
}

fn head_of(cursor: &str) -> Result<ChainHead, Problem> {
    let read = || {
        let mut parts = cursor.splitn(3, '.');
        let (digest, number, node) = (parts.next()?.to_owned(), parts.next()?.parse().ok()?, parts.next()?);
        let node = String::from_utf8(hex::decode(node).ok()?).ok()?;
        (!node.contains('\0')).then_some(ChainHead { node, number, digest })
    };
    read().ok_or_else(foreign_cursor)
}
