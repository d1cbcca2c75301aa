//! Tokens for certain groups: what they see and touch.
//!
//! Invariant: a request by such a token reaches a handler only if its path names one of the token's groups, or if the route is one of
//! [`CONFINED`], whose handlers ask [`Access::sees`]. A route that is new is refused until it is in that list.

use std::collections::HashMap;

use axum::RequestExt as _;
use axum::extract::{MatchedPath, Path, Request};
use axum::http::Method;
use serde_json::Value;

use super::ApiState;
use super::auth::Access;
use super::error::Problem;
use carillon_core::job::{GroupId, Job};
use carillon_engine::intake::ValidationCache;
use carillon_store::{JobFilter, JobsQuery, StoreError};

/// Routes whose path begins with this name a group.
const OF_GROUP: &str = "/v1/groups/{group}";

/// Routes of no group, or of one that only the handler knows.
const CONFINED: [&str; 28] = [
    "/v1/whoami",
    "/v1/events",
    "/v1/bulk",
    "/v1/bulk/{id}",
    "/v1/groups",
    "/v1/jobs",
    "/v1/jobs/{id}",
    "/v1/jobs/{id}/attempts",
    "/v1/jobs/{id}/attempts/{number}/replay",
    "/v1/jobs/{id}/attempts/{number}/request",
    "/v1/jobs/{id}/copy",
    "/v1/jobs/{id}/payload",
    "/v1/jobs/{id}/reschedule",
    "/v1/jobs/{id}/retry",
    "/v1/jobs/{id}/run",
    "/v1/leases/{token}/complete",
    "/v1/leases/{token}/extend",
    "/v1/leases/{token}/fail",
    "/v1/leases/{token}/release",
    "/v1/schedules",
    "/v1/schedules/{schedule}",
    "/v1/schedules/{schedule}/backfill",
    "/v1/schedules/{schedule}/history",
    "/v1/schedules/{schedule}/pause",
    "/v1/schedules/{schedule}/resume",
    "/v1/schedules/{schedule}/run",
    "/v1/schedules/{schedule}/runs",
    "/v1/cron/runs",
];

/// Beginning of the routes of plugins, which belong to no group: every token can read them.
const OF_PLUGINS: &str = "/v1/plugins";

impl Access {
    /// Returns whether the request may see and touch a group.
    pub(super) fn sees(&self, group: &str) -> bool {
        self.groups.as_ref().is_none_or(|groups| groups.iter().any(|known| known == group))
    }

    /// Returns the checks of documents that may name only groups that the request may touch.
    pub(super) fn validation(&self) -> ValidationCache {
        ValidationCache::within(self.groups.clone())
    }

    /// Refuses a policy that sends jobs to a group that the request may not touch.
    pub(super) fn check_policy(&self, policy: &Value) -> Result<(), Problem> {
        for pointer in ["/dead_letters", "/observe/jobs"] {
            if let Some(group) = policy.pointer(pointer).and_then(Value::as_str).filter(|group| !self.sees(group)) {
                return Err(Problem::invalid(pointer, format!("there is no group `{}`", group.escape_debug())));
            }
        }
        Ok(())
    }
}

/// Returns whether the request may see what belongs to the group of this number; nothing is visible to a token for certain groups after the
/// group has gone.
pub(super) fn is_visible(api: &ApiState, access: &Access, group: GroupId) -> bool {
    access.groups.is_none() || api.services.catalog.group_by_id(group).is_some_and(|group| access.sees(&group.name))
}

/// Returns the newest jobs of all groups that the request may see. It holds at most twice as many jobs as the query asks for.
pub(super) async fn visible_jobs(api: &ApiState, access: &Access, query: JobsQuery) -> Result<Vec<Job>, StoreError> {
    let Some(groups) = &access.groups else { return api.services.store.jobs_of_tenant(query).await };
    let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let mut jobs = Vec::new();
    for group in groups.iter().filter_map(|name| api.services.catalog.group(access.tenant.id, name)) {
        let filter = JobFilter { group: group.id, ..query.filter.clone() };
        jobs.extend(api.services.store.jobs(JobsQuery { filter, before: query.before, limit: query.limit }).await?);
        jobs.sort_unstable_by_key(|job| std::cmp::Reverse(job.id));
        jobs.truncate(limit);
    }
    Ok(jobs)
}

/// Returns whether a request without a group in its path shows and touches only what the token may.
fn is_confined(method: &Method, route: &str) -> bool {
    CONFINED.contains(&route) || (method.is_safe() && route.starts_with(OF_PLUGINS))
}

/// Refuses a request by a token for certain groups that is not about one of them.
pub(super) async fn confine(access: &Access, request: &mut Request) -> Result<(), Problem> {
    if access.groups.is_none() {
        return Ok(());
    }
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("", MatchedPath::as_str);
    if route == OF_GROUP || route.strip_prefix(OF_GROUP).is_some_and(|rest| rest.starts_with('/')) {
        let Path(parts) =
            request.extract_parts::<Path<HashMap<String, String>>>().await.map_err(|_| Problem::internal())?;
        let group = parts.get("group").map(String::as_str).unwrap_or_default();
        if !access.sees(group) {
            return Err(Problem::unknown("group", group));
        }
    } else if !is_confined(request.method(), route) {
        return Err(Problem::forbidden("the token is for certain groups only; the request concerns the whole tenant"));
    }
    Ok(())
}
