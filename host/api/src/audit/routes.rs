//! The verbs of routes in the audit log.

use axum::http::Method;

use carillon_core::audit::Verb;

/// When a request is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// With its change, by the catalog.
    Change,
    /// Before it takes effect.
    Before,
    /// Before it takes effect, where single jobs are recorded (`audit.jobs`).
    Job,
}

/// A route that is recorded, or whose refusal has a verb of its own.
pub(super) struct Found {
    pub(super) verb: Verb,
    /// Kind of the thing that the first variable part of the path names.
    pub(super) kind: &'static str,
    pub(super) when: When,
}

/// Returns what is recorded of a route; `None` for one that only reads.
pub(super) fn find(method: &Method, route: &str) -> Option<Found> {
    use When::{Before, Change, Job};
    let rest = |prefix: &str| route.strip_prefix(prefix);
    let (verb, kind, when) = match (method.as_str(), route) {
        ("PUT" | "PATCH", "/v1/groups/{group}") => (Verb::GROUP_PUT, "group", Change),
        ("DELETE", "/v1/groups/{group}") => (Verb::GROUP_DELETE, "group", Change),
        ("PUT", "/v1/keys/{key}") => (Verb::KEY_PUT, "key", Change),
        ("PATCH", "/v1/keys/{key}") => (Verb::KEY_GRANT, "key", Change),
        ("DELETE", "/v1/keys/{key}") => (Verb::KEY_DELETE, "key", Change),
        ("DELETE", "/v1/keys/{key}/versions/{version}") => (Verb::KEY_DELETE_VERSION, "key", Change),
        ("PUT", "/v1/plugins/{plugin}/versions/{version}") => (Verb::PLUGIN_PUT, "plugin", Change),
        // Refused, it has the verb of its document's usual member: nobody has read the document.
        ("PATCH", "/v1/plugins/{plugin}/versions/{version}") => (Verb::PLUGIN_DEPRECATE, "plugin", Change),
        ("DELETE", "/v1/plugins/{plugin}/versions/{version}") => (Verb::PLUGIN_DELETE, "plugin", Change),
        ("PUT" | "PATCH", "/v1/schedules/{schedule}") => (Verb::SCHEDULE_PUT, "schedule", Change),
        ("DELETE", "/v1/schedules/{schedule}") => (Verb::SCHEDULE_DELETE, "schedule", Change),
        ("PUT" | "PATCH", "/v1/tenants/{tenant}") => (Verb::TENANT_PUT, "tenant", Change),
        ("DELETE", "/v1/tenants/{tenant}") => (Verb::TENANT_DELETE, "tenant", Change),
        ("POST", "/v1/tokens") => (Verb::TOKEN_CREATE, "token", Change),
        ("DELETE", "/v1/tokens/{id}") => (Verb::TOKEN_REVOKE, "token", Change),
        ("POST", "/v1/tokens/{id}/rotate") => (Verb::TOKEN_ROTATE, "token", Change),
        ("PUT", "/v1/groups/{group}/policy/shadow") => (Verb::POLICY_SHADOW, "policy", Change),
        ("DELETE", "/v1/groups/{group}/policy/shadow") => (Verb::POLICY_UNSHADOW, "policy", Change),
        ("PATCH", "/v1/jobs/{id}") => (Verb::JOB_EDIT, "job", Job),
        ("DELETE", "/v1/jobs/{id}") => (Verb::JOB_CANCEL, "job", Job),
        ("GET", "/v1/jobs/{id}/payload") => (Verb::JOB_READ_PAYLOAD, "job", Before),
        ("GET", "/v1/jobs/{id}/attempts/{number}/request") => (Verb::JOB_READ_REQUEST, "job", Before),
        ("POST", "/v1/tenants/{tenant}/suspend") => (Verb::TENANT_SUSPEND, "tenant", Change),
        ("POST", "/v1/tenants/{tenant}/resume") => (Verb::TENANT_RESUME, "tenant", Change),
        ("POST", _) => {
            let of_group = || in_group(rest("/v1/groups/{group}/")?);
            let of_schedule = || of_schedule(rest("/v1/schedules/{schedule}/")?);
            let of_job = || of_job(rest("/v1/jobs/{id}/")?);
            let of_lease = || of_lease(rest("/v1/leases/{token}/")?);
            of_group().or_else(of_schedule).or_else(of_job).or_else(of_lease)?
        }
        _ => return None,
    };
    Some(Found { verb, kind, when })
}

type Row = (Verb, &'static str, When);

fn in_group(rest: &str) -> Option<Row> {
    use When::{Change, Job};
    Some(match rest {
        "pause" => (Verb::GROUP_PAUSE, "group", Change),
        "resume" => (Verb::GROUP_RESUME, "group", Change),
        "policy/versions" => (Verb::POLICY_PROPOSE, "policy", Change),
        "policy/promote" => (Verb::POLICY_PROMOTE, "policy", Change),
        "policy/rollback" => (Verb::POLICY_ROLLBACK, "policy", Change),
        "policy/unquarantine" => (Verb::POLICY_UNQUARANTINE, "policy", Change),
        "policy/simulate" => (Verb::POLICY_SIMULATE, "policy", Job),
        "policy/backtest" => (Verb::POLICY_BACKTEST, "policy", Job),
        // The handler knows what the document requests; a refused one requests to change many jobs.
        "bulk" | "flush" => (Verb::BULK_CANCEL, "group", Change),
        "redrive" => (Verb::BULK_REDRIVE, "group", Change),
        "purge" => (Verb::BULK_PURGE, "group", Change),
        "jobs" | "jobs/batch" => (Verb::JOB_CREATE, "group", Job),
        "leases" => (Verb::LEASE_CREATE, "group", Job),
        _ => return None,
    })
}

fn of_schedule(rest: &str) -> Option<Row> {
    use When::{Before, Change};
    Some(match rest {
        "pause" => (Verb::SCHEDULE_PAUSE, "schedule", Change),
        "resume" => (Verb::SCHEDULE_RESUME, "schedule", Change),
        "run" => (Verb::SCHEDULE_RUN, "schedule", Before),
        "backfill" => (Verb::SCHEDULE_BACKFILL, "schedule", Before),
        _ => return None,
    })
}

fn of_job(rest: &str) -> Option<Row> {
    let verb = match rest {
        "run" => Verb::JOB_RUN,
        "retry" => Verb::JOB_RETRY,
        "reschedule" => Verb::JOB_RESCHEDULE,
        "copy" => Verb::JOB_COPY,
        "attempts/{number}/replay" => Verb::JOB_REPLAY,
        _ => return None,
    };
    Some((verb, "job", When::Job))
}

fn of_lease(rest: &str) -> Option<Row> {
    let verb = match rest {
        "extend" => Verb::LEASE_EXTEND,
        "complete" => Verb::LEASE_COMPLETE,
        "fail" => Verb::LEASE_FAIL,
        "release" => Verb::LEASE_RELEASE,
        _ => return None,
    };
    Some((verb, "lease", When::Job))
}
